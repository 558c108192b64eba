"""Tasks one after the other, and what keeps a student from forgetting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sample_policies import POLICIES, observations
from test_multi_task import task
from toy_teachers import CHOOSE, choose_teacher, reach_teacher

from kdcli.agents.agent import Agent
from kdcli.agents.heads import Heads
from kdcli.distillation import PENALTIES
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.continual import InTurn, distill_in_turn
from kdcli.distillation.learner import copy_agent
from kdcli.distillation.loop import Judge
from kdcli.distillation.multi_task import Task
from kdcli.distillation.penalties import fisher, parse_penalty
from kdcli.distillation.replay_pool import ReplayPool, RolloutCollector
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.rollouts.evaluate import play

CONFIG = DistillConfig(student="mlp:8x8", labels=600, rounds=2, updates=400, episodes=8, envs=4)
KINDS = ["discrete", "multi_discrete", "multi_binary", "tanh_each", "q"]


def moved(made: Agent, size: float, seed: int = 0) -> Agent:
    found, generator = copy_agent(made), torch.Generator().manual_seed(seed)
    for p in found.policy.network.parameters():
        p.add_(size * torch.randn(p.shape, generator=generator))
    return found


def divergence(before: Heads, after: Heads) -> torch.Tensor:
    """KL(before || after) of what is done, (B,); unit variance where nothing says how far it scatters."""
    if before.logits is None:
        one, other = (h.action if h.action is not None else h.scores() for h in (before, after))
        return (one - other).square().sum(1) / 2
    if before.bits:
        p, q = before.logits.sigmoid(), after.logits.sigmoid()  # type: ignore[union-attr]
        return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1)
    pairs = zip(*(h.logits.split(list(before.groups), 1) for h in (before, after)), strict=True)  # type: ignore[union-attr]
    return torch.stack([(p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1))).sum(1) for p, q in pairs]).sum(0)


@pytest.mark.parametrize("name", KINDS)
def test_the_fisher_information_is_the_curvature_of_the_divergence(name: str) -> None:
    """Law: for one weight moved alone, KL(before || after) is half its importance times the square of the way."""
    made = POLICIES[name]()
    made.policy.double().requires_grad_(True)  # float32 rounds probabilities by as much as this divergence
    features, parameters = made.preprocess(observations(made, 20)).double(), list(made.policy.network.parameters())
    importance, before = fisher(made, features, parameters), made.policy.forward(features)
    for parameter, wanted in zip(parameters, importance, strict=True):
        at, step = int(wanted.argmax()), 1e-2
        found = []
        for way in (step, -step):  # the mean of both ways cancels the third order
            with torch.no_grad():
                parameter.view(-1)[at] += way
                found.append(float(divergence(before, made.policy.forward(features)).mean()))
                parameter.view(-1)[at] -= way
        assert np.mean(found) == pytest.approx(0.5 * float(wanted.view(-1)[at]) * step**2, rel=0.01, abs=1e-8)


@pytest.mark.parametrize("name", PENALTIES.names())
def test_a_penalty(name: str) -> None:
    """Law: 0 where the weights are, never negative, grows with the way, scaled by its schedule, no gradient beyond."""
    made = POLICIES["discrete"]()
    made.policy.requires_grad_(True)
    features, parameters = made.preprocess(observations(made, 20)), list(made.policy.network.parameters())
    hold = parse_penalty(f"{name}@linear:2->0")
    assert float(hold(0.0)) == 0.0
    hold.learned(made, features, parameters[:2])
    assert float(hold(0.0).detach()) == 0.0
    costs = []
    for size in (0.1, 0.2):
        with torch.no_grad():
            for p, q in zip(parameters, moved(made, size).policy.network.parameters(), strict=True):
                p.copy_(q)
        costs.append(float(hold(0.0).detach()))
    assert 0 < costs[0] < costs[1]
    assert float(hold(0.5).detach()) == pytest.approx(costs[1] / 2)
    assert float(hold(1.0).detach()) == 0
    hold(0.0).backward()
    assert [p.grad is not None for p in parameters] == [True, True, *[False] * (len(parameters) - 2)]


def test_ewc_holds_on_to_all_earlier_tasks_and_l2_to_the_start() -> None:
    """Law: after a second task, EWC has two anchors, L2 the new start alone."""
    made = POLICIES["discrete"]()
    made.policy.requires_grad_(True)
    features, parameters = made.preprocess(observations(made, 5)), list(made.policy.network.parameters())
    holds = {name: parse_penalty(name) for name in ("ewc", "l2")}
    for hold in holds.values():
        hold.learned(made, features, parameters)
    with torch.no_grad():
        parameters[0] += 1
    for hold in holds.values():
        hold.learned(made, features, parameters)
    assert len(holds["ewc"].anchors) == 2
    assert float(holds["l2"](0.0).detach()) == 0 < float(holds["ewc"](0.0).detach())


def opposite() -> Agent:
    """Plays kdcli/Choose-v0 as badly as can be: the least signal."""
    made = choose_teacher()
    made.policy.network.head.weight.neg_()
    return made


def test_a_student_forgets_and_a_penalty_keeps_it_from_it() -> None:
    """Law: a second task on the same weights drives out the first; a penalty keeps the first at the second's cost."""

    def turn(*keep: str) -> InTurn:
        first = task(choose_teacher(), returns())
        collector = RolloutCollector(opposite(), Vector(CHOOSE, 4), 0)
        pool = ReplayPool(opposite(), collector.collect(None, 1.0, 500), 10_000, collector, first.pool.preprocess)
        second = Task(opposite(), pool, lambda agent: -returns()(agent))
        return distill_in_turn([first, second], CONFIG, keep)

    free, held, tied = turn(), turn("ewc@100"), turn("l2@100")
    assert free.scores[0][0] == held.scores[0][0] > 18
    assert free.forgetting[0] > 10
    for kept in (held, tied):
        assert kept.forgetting[0] < 2
        assert kept.scores[1][1] < free.scores[1][1]
    assert free.students[0].policy is free.students[1].policy


def returns() -> Judge:
    vector = Vector(CHOOSE, 8)
    return lambda agent: float(play(agent, vector, range(8)).returns.mean())


def test_tasks_of_other_spaces_share_a_trunk() -> None:
    """Law: with a trunk in common the first task's own layers stay, and a strong penalty keeps the trunk, too."""
    tasks = [task(reach_teacher()), task(choose_teacher())]
    alone = distill_in_turn(tasks[:1], CONFIG, share="trunk").students[0]
    free = distill_in_turn([task(reach_teacher()), tasks[1]], CONFIG, share="trunk")
    held = distill_in_turn([task(reach_teacher()), task(choose_teacher())], CONFIG, ["l2@1e6"], "trunk")
    for done, same in ((free, False), (held, True)):
        now = done.students[0].policy.network
        assert torch.equal(now.head.weight, alone.policy.network.head.weight)
        assert torch.allclose(now.trunk[1].weight, alone.policy.network.trunk[1].weight, atol=1e-2) is same
        assert done.students[1].policy.network.trunk[1] is now.trunk[1]
        assert done.n_params == (2 * 8 + 8) + (3 * 8 + 8) + (8 * 8 + 8) + (8 + 1) + (8 * 3 + 3)


def test_what_cannot_be_one_student() -> None:
    """Law: tasks of other spaces, or seen in another way, cannot be one student's: errors with a way out."""
    with pytest.raises(UsageError, match="same spaces") as raised:
        distill_in_turn([task(reach_teacher()), task(choose_teacher())], CONFIG)
    assert raised.value.fix
    with pytest.raises(UsageError, match="different ways"):
        distill_in_turn([task(choose_teacher()), task(choose_teacher())], CONFIG)
    with pytest.raises(UsageError, match="no task"):
        distill_in_turn([], CONFIG)
    with pytest.raises(UsageError, match="unknown penalty"):
        distill_in_turn([task(reach_teacher())], CONFIG, ["ewd@1"])


def test_forgetting_is_from_the_best_so_far() -> None:
    """Law: what is forgotten of a task is its best score before the end minus that at the end; the last has none."""
    scores = ((0.9,), (0.95, 0.8), (0.5, 0.85, 1.0))
    assert InTurn((), (), scores, 0).forgetting == pytest.approx((0.45, -0.05))
