"""Many teachers seen as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sample_policies import POLICIES, agent, observations
from toy_teachers import CHOOSE, REACH, choose_teacher, reach_teacher

from kdcli.agents import store
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.ensemble import COMBINATIONS, Ensemble
from kdcli.agents.memory import Memory, Turn
from kdcli.cli.main import main
from kdcli.envs.vector import Vector
from kdcli.errors import Exit, UsageError
from kdcli.rollouts.evaluate import play
from kdcli.spec import Discrete

KINDS = ["discrete", "multi_discrete", "multi_binary", "tanh_each", "clip", "q", "gru", "masked_discrete", "dict"]


def other(name: str) -> Agent:
    """The same kind of agent with other weights."""
    made = POLICIES[name]()
    with torch.no_grad():
        for i, parameter in enumerate(made.policy.network.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
            parameter.add_(0.7 * noise)
    return made


@pytest.mark.parametrize("name", KINDS)
def test_an_ensemble_of_one_is_that_one(name: str) -> None:
    """Law: one teacher, or the same one twice, acts and teaches as itself."""
    made = POLICIES[name]()
    obs = observations(made, 60)
    state = np.zeros((60, made.state_size), np.float32)
    for n in (1, 2):
        found, _ = Ensemble([made] * n).step(obs, np.tile(state, (1, n)))
        wanted, _ = made.step(obs, state)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["discrete", "multi_discrete", "multi_binary"])
def test_probabilities_are_averaged(name: str) -> None:
    """Law: what they say together are their probabilities, weighted: neither logits nor votes."""
    one, two = POLICIES[name](), other(name)
    obs, weights = observations(one, 60), (0.75, 0.25)

    def probabilities(logits: torch.Tensor, rule: ActionRule) -> torch.Tensor:
        if rule.bits:
            return logits.sigmoid()
        return torch.cat([part.softmax(1) for part in logits.split(list(rule.groups), 1)], 1)

    found = probabilities(Ensemble([one, two], weights=weights).heads(obs).scores(), one.rule)
    wanted = sum(w * probabilities(m.heads(obs).scores(), m.rule) for w, m in zip(weights, (one, two), strict=True))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)  # type: ignore[arg-type]


def test_weights_are_written_in_the_combination() -> None:
    """Law: `weighted:0.7+0.3` is the mean by these weights, whatever they sum to; without numbers it is an error."""
    one, two = POLICIES["discrete"](), other("discrete")
    obs = observations(one, 60)
    wanted = Ensemble([one, two], "mean", (0.7, 0.3)).heads(obs).scores()
    for text in ("weighted:0.7+0.3", "weighted:7+3", "mean:0.7+0.3"):
        torch.testing.assert_close(Ensemble([one, two], text).heads(obs).scores(), wanted)
    for text in ("weighted", "weighted:1", "weighted:0.7->0.3", "weighted:1+-1", "weighted:1+nan", "mean:a+b"):
        with pytest.raises(UsageError, match="as many weights") as raised:
            Ensemble([one, two], text)
        assert raised.value.fix


def test_actions_are_averaged() -> None:
    """Law: continuous actions are averaged as the env takes them, whatever the squash."""
    one, two = POLICIES["tanh_each"](), other("tanh_each")
    obs = observations(one, 60)
    found = Ensemble([one, two]).act(obs)
    np.testing.assert_allclose(found, (one.act(obs) + two.act(obs)) / 2, atol=1e-6)


def test_the_surest_and_the_most_hopeful_decide() -> None:
    """Law: in each state all goes to one member: the surest, or the one that expects most; weight 0 never decides."""
    one, two = POLICIES["value"](), other("value")
    obs = observations(one, 200)
    said = [member.heads(obs) for member in (one, two)]
    entropy = [torch.special.entr(heads.scores().softmax(1)).sum(1).numpy() for heads in said]
    value = [heads.value.numpy() for heads in said]  # type: ignore[union-attr]
    for name, second in (("confidence", entropy[1] < entropy[0]), ("value", value[1] > value[0])):
        wanted = np.where(second, two.act(obs), one.act(obs))
        assert 0 < second.sum() < 200
        assert np.array_equal(Ensemble([one, two], name).act(obs), wanted)
        assert np.array_equal(Ensemble([one, two], name, (1.0, 0.0)).act(obs), one.act(obs))


def test_members_remember_each_for_itself() -> None:
    """Law: along an episode every member has its own memory, side by side in one state."""
    one, two = POLICIES["gru"](), other("gru")
    both, obs = Ensemble([one, two], "mean", (1.0, 0.0)), observations(one, 30)
    memories = Memory(one), Memory(both)
    for t in range(30):
        turn = Turn(obs[t : t + 1], np.zeros(1, np.int64), np.array([t % 10 == 0]))
        assert np.array_equal(memories[0].act(turn), memories[1].act(turn))


@pytest.mark.parametrize("name", COMBINATIONS.names())
def test_what_does_not_fit(name: str) -> None:
    """Law: teachers of other spaces, no teachers and weights that do not fit are errors with a way out."""
    four, five = POLICIES["discrete"](), agent(ActionRule(Discrete(5)))
    for members, weights in (([four, five], ()), ([], ()), ([four], (0.5, 0.5)), ([four, four], (0.0, 0.0))):
        with pytest.raises(UsageError) as raised:
            Ensemble(members, name, weights)
        assert raised.value.fix
    with pytest.raises(UsageError, match="by value"):
        Ensemble([four, four], "value").act(observations(four, 3))


def test_several_teachers_teach_one_student(tmp_path: Path) -> None:
    """Law: `distill --also` learns from all of them: a student of a good and two blind teachers plays as they vote."""
    good, blind = choose_teacher(), choose_teacher()
    with torch.no_grad():
        for parameter in blind.policy.network.parameters():
            parameter.zero_()
    files = [store.save(tmp_path / f"{i}.safetensors", made, {}) for i, made in enumerate((good, blind, blind))]
    out = tmp_path / "student.safetensors"
    few = ["--labels", "1500", "--updates", "600", "--rounds", "3", "--episodes", "4", "--student", "mlp:8", "--quiet"]
    also = [word for file in files[1:] for word in ("--also", str(file))]
    assert main(["distill", str(files[0]), *also, "-o", str(out), "--combine", "confidence", *few]) == Exit.DONE
    assert play(store.load(out), Vector(CHOOSE, 4), range(8)).returns.mean() > 18
    twice = ["distill", str(files[0]), "--also", str(files[0])]
    assert main([*twice, "-o", str(tmp_path / "none"), "--combine", "most", *few]) == Exit.USAGE


def test_an_ensemble_is_played_as_any_agent() -> None:
    """Law: whoever plays an agent plays several."""
    both = Ensemble([reach_teacher(8), reach_teacher(4)])
    assert play(both, Vector(REACH, 4), range(4)).returns.mean() > -5
