"""Student agents that begin with their teacher's layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sample_policies import POLICIES, VECTOR, agent, normalizer, observations, student

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import JointPreprocess, Normalizer, Preprocess
from kdcli.agents.policy import Policy, Signal
from kdcli.agents.weight_init import init_from_teacher
from kdcli.choice import Choice
from kdcli.errors import UsageError
from kdcli.networks import build
from kdcli.spec import Discrete, box

RNG = np.random.default_rng(0)
CHOOSE = ActionRule(Discrete(4))


def free(mean: np.ndarray, scale: np.ndarray) -> Normalizer:
    return Normalizer(mean, scale, np.inf)


def fresh(text: str, sees: Preprocess, signal: Signal = "logits") -> Agent:
    """An untrained student."""
    return Agent(sees, Policy(build(Choice.parse(text), [sees.shape], 4, seed=3), CHOOSE, signal))


OTHERS = {
    "none": None,
    "one": free(RNG.normal(size=5), RNG.uniform(0.5, 2.0, 5)),
    "two": free(RNG.normal(size=5), RNG.uniform(0.5, 2.0, 5)),
}


@pytest.mark.parametrize("ours", OTHERS)
@pytest.mark.parametrize("theirs", OTHERS)
@pytest.mark.parametrize("text", ["mlp:7x6", "gru:6", "lstm:5,hidden=4", "linear", "mlp:6x6,residual=true"])
def test_it_says_what_the_teacher_says(text: str, ours: str, theirs: str) -> None:
    """Law: a student of equal widths says what its teacher says of the same observations, however each normalizes."""
    teacher = student(text, CHOOSE, Preprocess(box((5,)), OTHERS[theirs]))
    begun = fresh(text, Preprocess(box((5,)), OTHERS[ours]))
    child, obs = init_from_teacher(begun, teacher), observations(teacher, 30)
    assert child.preprocess is begun.preprocess
    assert all(parameter.requires_grad for parameter in child.policy.parameters())
    torch.testing.assert_close(child.heads(obs).logits, teacher.heads(obs).logits, rtol=1e-4, atol=1e-5)


def test_quantiles_become_their_mean() -> None:
    """Law: a student of a teacher with quantiles of the return has Q-values, the same."""
    teacher = POLICIES["quantiles"]()
    obs = observations(teacher, 30)
    torch.testing.assert_close(
        init_from_teacher(fresh("mlp:16x12", VECTOR, "q"), teacher).heads(obs).q, teacher.heads(obs).q
    )


def test_nothing_passed_in_changes() -> None:
    """Law: teacher and student stay as they were."""
    teacher, begun = agent(CHOOSE), agent(CHOOSE, net={"hidden": (8, 6)})
    before = [[p.clone() for p in who.policy.parameters()] for who in (teacher, begun)]
    child = init_from_teacher(begun, teacher)
    with torch.no_grad():
        for parameter in child.policy.parameters():
            parameter += 1.0
    for who, old in zip((teacher, begun), before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(who.policy.parameters(), old, strict=True))


def _agents() -> dict[str, tuple[Agent, Agent]]:
    rows = [Preprocess(box((6, 5)), norm) for norm in (None, normalizer((6, 5)))]
    both = POLICIES["dict_mlp"]()
    assert isinstance(both.preprocess, JointPreprocess)
    unbiased = agent(CHOOSE, Preprocess(box((5,)), OTHERS["one"]), {"bias": False})
    return {
        "other observations": (agent(CHOOSE), agent(CHOOSE, Preprocess(box((4,))))),
        "other parts": (agent(CHOOSE), both),
        "scaled images": (agent(CHOOSE, Preprocess(box((5,)), image=True)), agent(CHOOSE)),
        "rows normalized otherwise": tuple(student("entities:6", CHOOSE, sees) for sees in rows),  # type: ignore[dict-item]
        "no bias": (unbiased, replace(unbiased, preprocess=VECTOR)),
    }


@pytest.mark.parametrize("name", _agents())
def test_agents_that_see_otherwise(name: str) -> None:
    """Law: where the student could not see what its teacher sees, the user is told so."""
    with pytest.raises(UsageError, match=r"cannot (begin|be scaled)") as raised:
        init_from_teacher(*_agents()[name])
    assert raised.value.fix
