"""Agents improved by their return."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_teachers import REACH, choose_teacher, reach_teacher, remember_teacher

import kdcli
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Policy
from kdcli.errors import RefusedError, UsageError
from kdcli.improvement.config import ImproveConfig
from kdcli.improvement.evolution import improve
from kdcli.improvement.population import Population
from kdcli.networks.mlp import MLP
from kdcli.rollouts.evaluate import open_vector, play, seeds_from


def small(hidden: tuple[int, ...], bias: bool = True) -> Agent:
    """A drawn policy of kdcli/Reach-v0."""
    teacher = reach_teacher(8)
    torch.manual_seed(0)
    network = MLP(2, hidden, 1, "tanh", bias)
    rule = ActionRule(teacher.action)
    policy = Policy(network, rule, "mean").eval().requires_grad_(False)
    return Agent(Preprocess(teacher.observation), policy, "small", REACH)  # type: ignore[arg-type]


AGENTS = {"linear": small(()), "8": small((8,)), "4x4": small((4, 4), bias=False), "choices": choose_teacher(8)}


@pytest.mark.parametrize("name", AGENTS)
def test_a_population_plays_as_its_agents(name: str) -> None:
    """Law: the returns of sets of weights played side by side are those of the agents with these weights, alone."""
    agent = AGENTS[name]
    assert agent.env is not None
    population, seeds = Population(agent), seeds_from(3, 3)
    own = population.weights
    sets = own + 0.2 * np.random.default_rng(0).normal(size=(5, len(own)))
    together = population.returns(sets, open_vector(agent.env, agent, 4), seeds)
    alone = [play(population.agent_of(one), open_vector(agent.env, agent, 2), seeds).returns for one in sets]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
    assert np.ptp(together) > 0
    np.testing.assert_array_equal(Population(population.agent_of(own)).weights, own)


def test_returns_go_up() -> None:
    """Law: a drawn linear policy comes close to what a teacher gets, and is never judged worse than at the start."""
    agent, teacher = small(()), reach_teacher()
    vector = open_vector(REACH, agent, 16)
    done = improve(agent, vector, ImproveConfig(generations=30, sigma=0.5))
    assert all(b.best >= a.best for a, b in zip(done.judged, done.judged[1:], strict=False))
    seeds = seeds_from(1, 50)
    before, after, best = (play(one, vector, seeds).returns.mean() for one in (agent, done.agent, teacher))
    assert after > before + 0.9 * (best - before)


def test_a_search_that_finds_nothing_leaves_the_agent_as_it_is() -> None:
    """Law: steps that lead nowhere are not taken."""
    agent = reach_teacher(8)
    done = improve(agent, open_vector(REACH, agent, 8), ImproveConfig(generations=2, sigma=100.0, judge_every=1))
    np.testing.assert_array_equal(Population(done.agent).weights, Population(agent).weights)


def test_the_verb(tmp_path: Path) -> None:
    """Law: the file holds what the result does, the same bytes for the same seed; the record tells the gain."""
    agent = small(())
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    options = {"generations": 12, "judge_every": 6, "bench_episodes": 8}
    first, _ = (kdcli.improve(agent, path, **options) for path in paths)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    low, high = first.gain
    assert low <= first.after - first.before <= high
    assert [one.generation for one in first.judged] == [0, 6, 12]
    assert "gain" in repr(first)
    saved = kdcli.load(paths[0])
    np.testing.assert_array_equal(Population(saved).weights, Population(first.agent).weights)  # type: ignore[arg-type]


def test_what_cannot_be_improved() -> None:
    """Law: memory, quantized weights and idle options are refused before anything is played."""
    with pytest.raises(RefusedError, match="cannot be improved this way"):
        kdcli.improve(remember_teacher())
    with pytest.raises(UsageError, match="judge_every would change nothing"):
        kdcli.improve(small(()), generations=1, judge_every=3)
