"""From an agent run by torch to the list of operations that acts as it does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from torch import nn

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.packed_weights import held
from kdcli.agents.policy import Policy, Spread
from kdcli.errors import UsageError
from kdcli.graph.graph_builder import GraphBuilder, array
from kdcli.graph.layers import gemm, hidden, linear
from kdcli.graph.operations import Graph, Port
from kdcli.graph.preprocessing import ObservationFeatures, read_observation
from kdcli.networks.packed_weights import Packed
from kdcli.spec import STATE_IN, STATE_OUT, Box, Discrete, MultiBinary, MultiDiscrete, input_names
from kdcli.spec import parts as parts_of


def output_names(agent: Agent) -> list[str]:
    """What `trace` can be asked for: the env-ready action, then the heads behind it (see `agents.heads`)."""
    policy = agent.policy
    optional = {"log_std": policy.spread is not None, "value": policy.value is not None}
    return ["action", policy.signal, *(name for name, there in optional.items() if there)]


def trace(agent: Agent, outputs: Sequence[str] = ("action",)) -> Graph:
    """The graph from the raw observation (`obs`, or a Dict's parts) to `outputs`, only what they need inside.

    A policy with memory also reads `state_in` (S,) and gives `state_out` (S,), after the action.

    Raises:
        UsageError: an output the agent does not have.
    """
    known = output_names(agent)
    for name in outputs:
        if name not in known:
            raise UsageError(f"the agent has no output {name!r}", f"it has: {', '.join(known)}", "choose among these")
    names, builder = input_names(agent.observation), GraphBuilder(_packing(agent.policy))
    ports = {name: Port(names[name], part.shape, part.dtype) for name, part in parts_of(agent.observation).items()}
    input_shapes = read_observation(builder, agent.preprocess, ports)
    reading = Reading(builder, agent.policy, input_shapes, with_value="value" in outputs)
    found = {name: reading.output(name) for name in outputs}
    if reading.state is None:
        return builder.graph(tuple(ports.values()), found)
    action = found.pop("action")
    return builder.graph((*ports.values(), reading.state), {"action": action, STATE_OUT: reading.state_out, **found})


def _packing(policy: Policy) -> dict[int, Packed]:
    """Which levels a parameter lies on, by its identity."""
    parameters = dict(policy.named_parameters())
    return {id(parameters[name]): packed for name, packed in held(policy).items()}


class Reading:
    """A policy's outputs, each with the operations it needs."""

    def __init__(
        self, builder: GraphBuilder, policy: Policy, input_shapes: ObservationFeatures, with_value: bool
    ) -> None:
        self.builder, self.policy, self._with_value = builder, policy, with_value
        n_mask = policy.rule.n_mask
        self.mask = input_shapes.seen.pop() if n_mask else None
        self.input_shapes = input_shapes

    @cached_property
    def state(self) -> Port | None:
        """`state_in`: what the networks that are asked for carry from step to step, (S,)."""
        size = self.policy.state_size if self._with_value else self.policy.network.state_size
        return Port(STATE_IN, (size,)) if size else None

    @cached_property
    def actor(self) -> tuple[Port, list[Port]]:
        """The last hidden layer (H,), and the actor's next state in parts."""
        return hidden(self.builder, self.policy.network, self.input_shapes, self.state, 0)

    @cached_property
    def critic(self) -> tuple[Port, list[Port]]:
        """The critic's value (), and its next state in parts."""
        critic, start = self.policy.value, self.policy.network.state_size
        assert critic is not None
        if isinstance(critic, nn.Linear):
            return self.builder.reshape(linear(self.builder, critic, self.actor[0]), ()), []
        latent, after = hidden(self.builder, critic, self.input_shapes, self.state, start)
        return self.builder.reshape(linear(self.builder, critic.head, latent), ()), after

    @cached_property
    def state_out(self) -> Port:
        """The next state (S,)."""
        return self.builder.concat([*self.actor[1], *(self.critic[1] if self._with_value else [])])

    @cached_property
    def signal(self) -> Port:
        """What the action rule reads (P,): logits, Q-values or the mean."""
        out = self._pooled(linear(self.builder, self.policy.network.head, self.actor[0]))
        if self.mask is None:
            return out
        return self.builder.add("mask", (out, self.mask), bits=self.policy.rule.bits)

    def output(self, name: str) -> Port:
        """The value called `name`, one of `output_names`."""
        if name == "action":
            return _decode(self.builder, self.policy.rule, self.signal)
        if name == "log_std" and self.policy.spread is not None:
            return _log_std(self.builder, self.policy.spread, self.actor[0], self.signal)
        return self.critic[0] if name == "value" else self.signal

    def _pooled(self, x: Port) -> Port:
        n, atoms = self.policy.quantiles, self.policy.atoms
        if atoms is not None:
            return self.builder.add("expectation", x, (x.size // len(atoms),), atoms=array(atoms))
        return self.builder.add("mean", x, (x.size // n,), groups=n) if n else x


def _log_std(builder: GraphBuilder, spread: Spread, latent: Port, mean: Port) -> Port:
    """`Spread.forward`: latent (L,), mean (A,) -> log standard deviation (A,)."""
    if spread.kind == "constant":
        return builder.add("repeat", mean, value=array(spread.weight))
    if spread.kind == "gsde":
        return builder.add("gsde", latent, mean.shape, variance=array(spread.weight.exp() ** 2))
    return _clip(builder, gemm(builder, latent, spread.weight, spread.bias), np.float32(-20.0), np.float32(2.0))


def _clip(builder: GraphBuilder, x: Port, low: np.floating | np.ndarray, high: np.floating | np.ndarray) -> Port:
    return builder.add("clip", x, low=np.asarray(low), high=np.asarray(high))


def _decode(builder: GraphBuilder, rule: ActionRule, x: Port) -> Port:
    """`ActionRule.decode`: what the network puts out (P,) -> what the env takes (*shape)."""
    match rule.space:
        case Discrete(start=start):
            return builder.cast(builder.add("argmax", x, (), "int64", start=start), rule.space.dtype)
        case MultiDiscrete(nvec=nvec):
            return builder.cast(builder.add("group_argmax", x, (len(nvec),), "int64", sizes=nvec), rule.space.dtype)
        case MultiBinary():
            return builder.cast(builder.add("threshold", x), rule.space.dtype)
        case Box() as box:
            bounded = _decode_box(builder, rule, box, x)
            return builder.cast(builder.reshape(bounded, box.shape), box.dtype)


def _decode_box(builder: GraphBuilder, rule: ActionRule, box: Box, x: Port) -> Port:
    low, high = (_compact(bound) for bound in _inside(box))
    if rule.squash == "clip":
        low, high = (low, high) if low.ndim == high.ndim else np.broadcast_arrays(low, high)
        return x if np.isinf(low).all() and np.isinf(high).all() else _clip(builder, x, low, high)
    if rule.limit:
        x = _clip(builder, x, np.float32(-rule.limit), np.float32(rule.limit))
    inside = x if rule.squash == "linear" else builder.add("tanh", x)
    return _unscale(builder, inside, low.astype(np.float64), high.astype(np.float64))


def _inside(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The bounds (A,) in float32, rounded so that none lies outside of those the env has in float64."""
    exact = [bound.reshape(-1).astype(np.float64) for bound in (box.low, box.high)]
    low, high = (bound.astype(np.float32) for bound in exact)
    low = np.where(low < exact[0], np.nextafter(low, np.float32(np.inf)), low)
    return low, np.where(high > exact[1], np.nextafter(high, np.float32(-np.inf)), high)


def _unscale(builder: GraphBuilder, x: Port, low: np.ndarray, high: np.ndarray) -> Port:
    """low + (x + 1) / 2 * (high - low) in one multiplication and one addition, or none for bounds of -1 and 1."""
    half, middle = (_compact(part.astype(np.float32)) for part in ((high - low) / 2, (high + low) / 2))
    if (half == 1).all() and (middle == 0).all():
        return x
    return builder.add("unscale", x, half=half, middle=middle if (middle != 0).any() else None)


def _compact(values: np.ndarray) -> np.ndarray:
    """One number where all are equal."""
    return np.array(values.flat[0]) if values.size and (values == values.flat[0]).all() else values
