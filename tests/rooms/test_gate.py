"""Which of several teachers a student follows."""

from __future__ import annotations

import pytest
import torch
from sample_policies import POLICIES, observations
from test_ensemble import other
from toy_teachers import CHOOSE, choose_teacher

from kdcli.agents.agent import Agent
from kdcli.agents.ensemble import Ensemble
from kdcli.agents.heads import Heads
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.losses.gate import Gated
from kdcli.distillation.online import distill_in_env
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.rollouts.evaluate import play

CONFIG = DistillConfig(student="mlp:8", loss=("gated",), labels=1500, rounds=3, updates=900, episodes=8, envs=4)


def blind() -> Agent:
    """As sure of nothing as can be, and so the easiest to imitate."""
    made = choose_teacher()
    with torch.no_grad():
        for parameter in made.policy.network.parameters():
            parameter.zero_()
    return made


@pytest.mark.parametrize("name", ["discrete", "multi_discrete", "multi_binary", "tanh_each", "clip", "q"])
def test_members_are_heard_apart(name: str) -> None:
    """Law: an ensemble gives what each member says and its share; by the shares it is what they say together."""
    one, two = POLICIES[name](), other(name)
    both, obs = Ensemble([one, two], "weighted:0.7+0.3"), observations(one, 40)
    heads = both.heads(obs)
    assert heads.members is not None
    assert heads.shares is not None
    torch.testing.assert_close(heads.shares, torch.tensor([0.7, 0.3]).expand(40, 2))
    for k, member in enumerate((one, two)):
        said, alone = heads.members[:, k], member.heads(obs)
        if alone.action is not None:
            torch.testing.assert_close(said, both.rule.unit(member.rule.decode(alone.scores()).flatten(1)))
        elif name == "multi_binary" or name == "q":
            torch.testing.assert_close(said, alone.scores())
        else:
            parts = zip(*(t.split(list(one.rule.groups), 1) for t in (said, alone.scores())), strict=True)
            for ours, theirs in parts:
                torch.testing.assert_close(ours, theirs.log_softmax(1))


def learned(gate: Gated, student: Heads, teacher: Heads, n: int = 400) -> torch.Tensor:
    """The weights (B, M) of a gate that has learned beside a student who stays as it is."""
    gate.begin(student, teacher)
    adam = torch.optim.Adam(gate.parameters(), lr=0.1)
    for _ in range(n):
        adam.zero_grad()
        gate(student, teacher, 1.0).mean().backward()
        adam.step()
    return gate.weights(student, teacher)[0].exp().detach()


def test_a_gate_listens_by_state_and_is_held_by_the_prior() -> None:
    """Law: weights begin as the prior and come to prior x exp(-distance) of a state; the loss to -log of their sum."""
    draw = torch.Generator().manual_seed(0)
    logits, members = torch.randn(4, 3, generator=draw), torch.randn(4, 2, 3, generator=draw)
    student = Heads(logits=logits, features=torch.eye(4), groups=(3,))
    shares = torch.tensor([0.8, 0.2]).expand(4, 2)
    teacher = Heads(members=members, shares=shares, groups=(3,))
    far = (members.softmax(2) * (members.log_softmax(2) - logits.log_softmax(1)[:, None])).sum(2)
    prior = 0.9 * shares + 0.05
    free, gate = prior * (-far).exp(), Gated()
    torch.testing.assert_close(Gated().weights(student, teacher)[0].exp(), prior)
    torch.testing.assert_close(learned(gate, student, teacher), free / free.sum(1, keepdim=True), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(gate(student, teacher, 1.0), -free.sum(1).log(), atol=1e-3, rtol=1e-3)


def test_the_gate_does_not_move_the_student() -> None:
    """Law: weights follow the student's hidden layer, and give it no gradient: it learns to act, not to be weighed."""
    features, logits = torch.randn(5, 4).requires_grad_(), torch.randn(5, 3).requires_grad_()
    student = Heads(logits=logits, features=features, groups=(3,))
    teacher = Heads(members=torch.randn(5, 2, 3), shares=torch.full((5, 2), 0.5), groups=(3,))
    gate = Gated()
    gate.begin(student, teacher)
    torch.nn.init.normal_(gate.keys.weight)  # type: ignore[union-attr]
    gate(student, teacher, 1.0).sum().backward()
    assert features.grad is None
    assert logits.grad is not None


def test_a_gate_does_not_fall_for_the_easiest_teacher() -> None:
    """Law: with most of the prior on the good teacher, one that is as easy as can be does not take over."""
    student = distill_in_env(Ensemble([choose_teacher(), blind()], "weighted:0.9+0.1"), CONFIG).student
    assert play(student, Vector(CHOOSE, 8), range(8)).returns.mean() > 18


def test_one_teacher_has_no_gate() -> None:
    """Law: a single teacher, and teachers that are not told apart, are refused by what is missing."""
    with pytest.raises(UsageError, match="members"):
        distill_in_env(choose_teacher(), CONFIG)
