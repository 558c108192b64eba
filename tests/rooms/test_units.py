"""Regression in units of the teacher's own variation: the same whatever the rewards, and in units of return again."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toy_teachers import choose_teacher

from kdcli.agents.agent import Agent
from kdcli.agents.heads import Heads
from kdcli.agents.policy import Policy
from kdcli.distillation import LOSSES
from kdcli.distillation.buffer import Buffer
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.losses.facts import facts_of
from kdcli.distillation.objective import Objective
from kdcli.distillation.online import distill_in_env
from kdcli.distillation.units import HEIGHT, Units

TINY = DistillConfig(student="mlp:16", labels=2000, updates=600, rounds=3, episodes=8)


def teacher_of(scale: float, height: float) -> Agent:
    """A teacher whose Q-values are scale * (5 x + height * (x_1 + 1)), and whose state value is their largest term."""
    plain = choose_teacher()
    network, rule = copy.deepcopy(plain.policy.network), plain.rule
    width = network.head.in_features
    value = nn.Linear(width, 1)
    with torch.no_grad():
        common = network.head.weight[:1] * 0.2 * height
        value.weight.copy_(scale * common)
        value.bias.fill_(scale * height)
        network.head.weight.add_(common).mul_(scale)
        network.head.bias.add_(height).mul_(scale)
    policy = Policy(network, rule, "q", value=value).eval().requires_grad_(False)
    return replace(plain, policy=policy)


def said(agent: Agent, n: int = 500) -> Heads:
    obs = np.random.default_rng(0).uniform(-1, 1, (n, 3)).astype(np.float32)
    return agent.heads(obs)


def buffer_of(teacher: Agent) -> Buffer:
    obs = np.random.default_rng(0).uniform(-1, 1, (500, 3)).astype(np.float32)
    heads = teacher.heads(obs)
    assert heads.q is not None
    assert heads.value is not None
    buffer = Buffer(teacher.preprocess, teacher.rule, 500)
    buffer.add(obs, {"q": heads.q.numpy(), "value": heads.value.numpy(), "greedy": teacher.act(obs)})
    return buffer


WORLDS = [(1.0, 0.0), (0.01, 30.0), (1000.0, -20.0)]


@pytest.mark.parametrize(
    "name", [name for name in LOSSES.names() if facts_of(LOSSES.load(name)).unit in ("q", "value")]
)
def test_a_loss_is_the_same_whatever_the_rewards(name: str) -> None:
    """Law: scaled rewards, and a constant added to all, change no loss in standard units; an untaught student has 1."""
    found = []
    for scale, height in ((1.0, 7.0), (1000.0, 7.0)):
        teacher = teacher_of(scale, height)
        buffer = buffer_of(teacher)
        objective = Objective.parse([name])
        objective.units = Units(objective.units_read, buffer)
        heads = teacher.heads(np.random.default_rng(1).uniform(-1, 1, (64, 3)).astype(np.float32))
        assert heads.q is not None
        assert heads.value is not None
        near = heads.having({"q": heads.q + scale * torch.randn(64, 3, generator=torch.Generator().manual_seed(0))})
        near = near.having({"value": heads.value * 1.5})
        found.append(float(objective(near, heads, 0.0)))
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    assert found[0] > 0.01


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_units_of_q_values(world: tuple[float, float]) -> None:
    """Law: differences between actions have mean square 1 in standard units, their common height has HEIGHT."""
    teacher = teacher_of(*world)
    buffer = buffer_of(teacher)
    heads = Heads(q=buffer.column("q"), value=buffer.column("value"))
    _, standard = Units(["q", "value"], buffer).standard(heads, heads)
    assert standard.q is not None
    assert standard.value is not None
    height = standard.q.mean(1)
    assert float((standard.q - height[:, None]).square().mean()) == pytest.approx(1.0, rel=1e-3)
    assert float(height.square().mean()) == pytest.approx(HEIGHT, rel=1e-2)
    assert float(standard.value.square().mean()) == pytest.approx(1.0 if world[1] else 0.0, abs=1e-2)


def test_writing_a_layer_otherwise_changes_nothing() -> None:
    """Law: within and behind `written` a policy says the same, and its parameters are the ones an optimizer knows."""
    teacher = teacher_of(1000.0, -20.0)
    units, policy = Units(["q", "value"], buffer_of(teacher)), copy.deepcopy(teacher.policy)
    before, known = said(replace(teacher, policy=policy)), [id(p) for p in policy.parameters()]
    weight = policy.network.head.weight.clone()
    with units.written(policy):
        within = said(replace(teacher, policy=policy))
        assert {id(p) for p in policy.parameters()} == set(known)
        raw = policy.network.head.parametrizations.weight.original  # type: ignore[union-attr]
        assert float(raw.abs().max()) < 0.01 * float(weight.abs().max())
    behind = said(replace(teacher, policy=policy))
    assert [id(p) for p in policy.parameters()] == known
    assert type(policy.network.head) is nn.Linear
    for name in ("q", "value"):
        for found in (within, behind):
            torch.testing.assert_close(getattr(found, name), getattr(before, name), rtol=1e-4, atol=0.05)


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_q_values_are_learned_in_their_own_units(world: tuple[float, float]) -> None:
    """Law: a student by Q-values acts as its teacher whatever the rewards are, and gives them in units of return."""
    teacher = teacher_of(*world)
    done = distill_in_env(teacher, TINY.model_copy(update={"loss": ("q",)}))
    ours, theirs = said(done.student).q, said(teacher).q
    assert ours is not None
    assert theirs is not None
    assert float((ours - theirs).square().mean() / theirs.var()) < 0.05
    assert float((ours.argmax(1) == theirs.argmax(1)).float().mean()) > 0.9
    assert max(r.mean_return for r in done.rounds) > 18.0


@pytest.mark.parametrize("world", WORLDS[1:], ids=str)
def test_values_do_not_ruin_a_policy(world: tuple[float, float]) -> None:
    """Law: a value of any size beside a divergence leaves a student that acts as its teacher, and is learned itself."""
    teacher = teacher_of(*world)
    done = distill_in_env(teacher, TINY.model_copy(update={"loss": ("nll", "value@0.5")}))
    ours, theirs = said(done.student).value, said(teacher).value
    assert ours is not None
    assert theirs is not None
    assert float((ours - theirs).square().mean() / theirs.var()) < 0.05
    assert max(r.mean_return for r in done.rounds) > 18.0
