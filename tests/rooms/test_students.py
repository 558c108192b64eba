"""Students that remember, and students that see things, learn what others cannot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import plain
from kdcli.agents.policy import Policy
from kdcli.choice import Choice
from kdcli.envs.make import make, to_space
from kdcli.networks import build
from kdcli.rollouts.evaluate import open_vector, play
from kdcli.spec import EnvSpec

REMEMBER, CROWD = EnvSpec("kdcli/Remember-v0"), EnvSpec("kdcli/Crowd-v0")
SEEDS = tuple(range(40))


def untrained(spec: EnvSpec, text: str) -> Agent:
    env = make(spec)
    sees, rule = plain(to_space(env.observation_space)), ActionRule(to_space(env.action_space))  # type: ignore[arg-type]
    network = build(Choice.parse(text), [part.shape for part in sees.parts.values()], rule.n_outputs, seed=0)
    return Agent(sees, Policy(network, rule, "logits"), "student", spec)


def episodes(rng: np.random.Generator, n: int, length: int = 10) -> tuple[Tensor, Tensor]:
    """`n` episodes of Remember-v0 side by side: observations (T, n, 2), and the right answers (T, n)."""
    signal = torch.from_numpy(rng.integers(0, 2, n))
    seen = torch.zeros(length, n, 2)
    seen[0] = torch.stack([2.0 * signal - 1, torch.ones(n)], 1)
    return seen, signal.expand(length, n)


def along(policy: Policy, seen: Tensor) -> Tensor:
    """Logits (T, n, A) of whole episodes, the state carried from step to step."""
    state, said = None, []
    for features in seen:
        heads = policy.forward(features, state)
        state = heads.state
        assert heads.logits is not None
        said.append(heads.logits)
    return torch.stack(said)


def training(agent: Agent, draw: Callable[[], tuple[Tensor, Tensor]], n: int = 80) -> float:
    """Follow the right answers `n` times, then the return that it earns in its env."""
    adam = torch.optim.Adam(agent.policy.parameters(), lr=0.01)
    for _ in range(n):
        seen, right = draw()
        loss = F.cross_entropy(along(agent.policy, seen).flatten(0, 1), right.flatten())
        adam.zero_grad()
        loss.backward()
        adam.step()
    agent.policy.eval().requires_grad_(False)
    assert agent.env is not None
    vector = open_vector(agent.env, agent, 20)
    try:
        return float(play(agent, vector, SEEDS).returns.mean())
    finally:
        vector.close()


@pytest.mark.parametrize("text", ["gru:12", "lstm:12", "attention:12,history=10"])
def test_memory_is_learned_through_time(text: str) -> None:
    """Law: labels along episodes teach a student what only who remembers can do."""
    rng = np.random.default_rng(0)
    assert training(untrained(REMEMBER, text), lambda: episodes(rng, 64)) == 10.0


def test_nobody_remembers_without_memory() -> None:
    """Law: the same lessons are lost on a student without memory, so that the law above says something."""
    rng = np.random.default_rng(0)
    assert training(untrained(REMEMBER, "mlp:12"), lambda: episodes(rng, 64)) < 8.0


def crowds(rng: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
    """`n` observations of Crowd-v0 as features (1, n, 10), and the right answers (1, n)."""
    things = torch.from_numpy(rng.uniform(-1.0, 1.0, (n, 5, 2)).astype(np.float32))
    largest = things[:, :, 1].argmax(1)
    return things.flatten(1)[None], (things[torch.arange(n), largest, 0] > 0).long()[None]


def test_entities_learn_what_has_no_order() -> None:
    """Law: who sees things one by one learns which is the largest sooner than a larger one that does not."""
    found = {}
    for text in ("entities:12,heads=2", "mlp:32x32,activation=relu"):
        agent, rng = untrained(CROWD, text), np.random.default_rng(0)
        found[text] = training(agent, lambda rng=rng: crowds(rng, 128), 250)
    things, plain_one = found.values()
    assert things > 19.0
    assert things > plain_one + 0.3
