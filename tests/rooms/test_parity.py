"""A file that does not act as the agent does is noticed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sample_policies import POLICIES, exported, normalizer, observations

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.heads import Heads
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Policy
from kdcli.agents.states import States
from kdcli.errors import RefusedError, UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.formats import Run
from kdcli.exporters.onnx.writer import runner, write
from kdcli.exporters.parity import SINGLES, TOLERANCE, check
from kdcli.exporters.states import sampled
from kdcli.exporters.step import convert
from kdcli.graph.trace import trace
from kdcli.networks.mlp import MLP
from kdcli.spec import Box, Discrete, box


def file_of(agent: Agent, outputs: tuple[str, ...] = ("action",)) -> Run:
    """The agent's file as a function."""
    graph = trace(agent, outputs)
    return runner(write(graph, ExportConfig(), "policy"), graph)


@pytest.mark.parametrize("name", ["clip", "tanh", "discrete", "multi_discrete", "multi_binary", "quantiles", "value"])
def test_another_agent_is_noticed(name: str) -> None:
    """A file that acts otherwise than the agent does not pass, however the agent acts."""
    agent, other = POLICIES[name](), POLICIES[name]()
    with torch.no_grad():
        other.policy.network.head.bias[0] += 0.5
    states = States(observations(agent, 300))
    data = file_of(agent)
    assert check(data, agent, states).ties == 0
    with pytest.raises(RefusedError, match="does not act like the agent"):
        check(data, other, states)


@pytest.mark.parametrize("name", ["logits", "value"])
def test_every_output_is_compared(name: str) -> None:
    """A wrong output is noticed although the actions are right."""
    agent, other = POLICIES["value"](), POLICIES["value"]()
    with torch.no_grad():
        other.policy.network.head.bias += 1e-3
        other.policy.value.head.bias += 1e-3  # type: ignore[union-attr]
    data = file_of(other, ("action", name))
    with pytest.raises(RefusedError, match="does not act like the agent"):
        check(data, agent, States(observations(agent, 50)))


def test_one_wrong_state_is_enough() -> None:
    """One state among a thousand, anywhere, in which the file acts otherwise is noticed."""
    agent, other = POLICIES["sees_discrete"](), POLICIES["sees_discrete"]()
    with torch.no_grad():
        other.policy.network.linears()[0].weight[:, 4] *= -1
    assert agent.act(np.array([4])) != other.act(np.array([4]))
    data = file_of(other)
    for place in (0, SINGLES - 1, SINGLES, 500, 999):
        obs = np.zeros(1000, np.int64)
        assert check(data, agent, States(obs)).max_abs_difference == 0
        obs[place] = 4
        with pytest.raises(RefusedError) as raised:
            check(data, agent, States(obs))
        assert raised.value.why.startswith("in 1 of 1000 states")


@pytest.mark.parametrize("n", [1, 2, 300, 1000])
def test_states_alone_and_in_batches(n: int) -> None:
    """Each state is compared once: some alone, as a robot acts, and the others in batches, as a simulator does."""
    sizes: list[int] = []

    class Watched(Agent):
        def heads(self, obs: np.ndarray, state: np.ndarray | None = None) -> Heads:
            sizes.append(len(obs))
            return super().heads(obs, state)

    agent = POLICIES["tanh"]()
    check(file_of(agent), Watched(agent.preprocess, agent.policy), States(observations(agent, n)))
    assert sum(sizes) == n
    assert sizes.count(1) == {1: 1, 2: 2}.get(n, SINGLES)
    assert max(sizes) == (1 if n < 3 else 256)


def leaning(name: str, lead: float) -> Agent:
    """A policy whose outputs are the same everywhere: they climb from -lead to lead."""
    agent = POLICIES[name]()
    with torch.no_grad():
        agent.policy.network.head.weight.zero_()
        agent.policy.network.head.bias[:] = lead * torch.linspace(-1, 1, len(agent.policy.network.head.bias))
    return agent


@pytest.mark.parametrize("name", ["discrete", "multi_discrete", "multi_binary", "q"])
def test_ties_are_counted(name: str) -> None:
    """Where the agent's best two are equal either is right, and this is said; a clear best is not a tie."""
    states = States(np.zeros((100, 5), np.float32))
    up, down = (file_of(leaning(name, lead)) for lead in (8e-7, -8e-7))
    assert check(up, leaning(name, 8e-7), states).ties == 0
    assert check(down, leaning(name, 8e-7), states).ties == 100
    with pytest.raises(RefusedError, match="does not act like the agent"):
        check(down, leaning(name, 1e-3), states)


def test_nan_is_no_parity() -> None:
    """An agent whose outputs are not numbers is not exported."""
    agent = POLICIES["tanh"]()
    with torch.no_grad():
        agent.policy.network.head.weight[0, 0] = float("nan")
    with pytest.raises(RefusedError, match="does not act like the agent"):
        exported(agent)


RULES = {
    "clip": ActionRule(box((3,), -1.0, 1.0)),
    "tanh": ActionRule(box((3,), -1.0, 1.0), "tanh"),
    "unbounded": ActionRule(box((3,))),
    "q": ActionRule(Discrete(4)),
}


def wide(name: str, bias: float = 0.0) -> Agent:
    """A wide policy for observations in the hundreds: its outputs are small differences of large numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(376, (256, 256), RULES[name].n_outputs, "relu")
    with torch.no_grad():
        network.head.bias[0] += bias
    return Agent(Preprocess(box((376,))), Policy(network, RULES[name], "mean" if RULES[name].continuous else "q"))


@pytest.mark.parametrize("name", RULES)
def test_what_is_allowed_follows_the_agents_own_rounding(name: str) -> None:
    """An export is not refused for rounding no more than the agent itself does, and not waved through for it."""
    data = file_of(wide(name))
    small = observations(wide(name), 300)
    assert check(data, wide(name), States(small)).tolerance == TOLERANCE
    found = check(data, wide(name), States(300.0 * small))
    assert found.max_abs_difference <= found.tolerance < 1e-2
    assert (found.tolerance > TOLERANCE) == (name in ("clip", "tanh"))
    with pytest.raises(RefusedError, match="does not act like the agent"):
        check(data, wide(name, 0.1), States(small))
    with pytest.raises(RefusedError, match="does not act like the agent"):
        check(data, wide(name, 30.0), States(300.0 * small))


@pytest.mark.parametrize("shape", [(0, 5), (4, 6), (5,)])
def test_states_of_another_shape(shape: tuple[int, ...]) -> None:
    """States the agent cannot observe, or none, are a mistake of the caller."""
    with pytest.raises(UsageError, match="cannot be compared"):
        convert(POLICIES["tanh"](), States(np.zeros(shape, np.float32)), ExportConfig())


@pytest.mark.parametrize("name", POLICIES)
def test_drawn_states_are_observations(name: str) -> None:
    """Without a rollout, states come from the space: its shape, dtype and bounds; equal seeds give equal states."""
    agent = POLICIES[name]()
    states = sampled(agent, 200, 3)
    obs, space = states.observations, agent.observation
    assert (obs.shape, obs.dtype, states.source) == ((200, *space.shape), np.dtype(space.dtype), "sampled")
    assert np.array_equal(obs, sampled(agent, 200, 3).observations)
    assert len({row.tobytes() for row in obs}) > 1
    if isinstance(space, Box):
        assert ((obs >= space.low) & (obs <= space.high)).all()


def test_drawn_states_are_where_the_normalizer_was() -> None:
    """A normalizer knows where observations were: drawn states are there."""
    agent = POLICIES["sees_normalized"]()
    norm, obs = normalizer((5,)), sampled(agent, 20_000, 0).observations
    np.testing.assert_allclose(obs.mean(0), norm.mean, atol=0.05)
    np.testing.assert_allclose(obs.std(0), norm.scale, rtol=0.05)
