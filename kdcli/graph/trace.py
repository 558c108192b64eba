"""From an agent run by torch to the list of operations that acts as it does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer, Preprocess
from kdcli.agents.policy import Policy, Spread
from kdcli.errors import UsageError
from kdcli.graph.operations import Graph, Op, Port
from kdcli.networks.mlp import MLP
from kdcli.spec import Box, Discrete, MultiBinary, MultiDiscrete

Shape = tuple[int, ...]


def output_names(agent: Agent) -> list[str]:
    """What `trace` can be asked for: the env-ready action, then the heads behind it (see `agents.heads`)."""
    policy = agent.policy
    optional = {"log_std": policy.spread is not None, "value": policy.value is not None}
    return ["action", policy.signal, *(name for name, there in optional.items() if there)]


def trace(agent: Agent, outputs: Sequence[str] = ("action",)) -> Graph:
    """The graph from the raw observation `obs` (*shape) to `outputs`, only what they need inside.

    Raises:
        UsageError: an output the agent does not have.
    """
    known = output_names(agent)
    for name in outputs:
        if name not in known:
            raise UsageError(f"the agent has no output {name!r}", f"it has: {', '.join(known)}", "choose among these")
    tape = _Tape()
    obs = Port("obs", agent.observation.shape, agent.observation.dtype)
    reading = _Reading(tape, agent.policy, _features(tape, agent.preprocess, obs))
    return tape.graph((obs,), {name: reading.output(name) for name in outputs})


class _Tape:
    """Operations as they are added; values are named after their kind, in order."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._seen: Counter[str] = Counter()

    def add(self, kind: str, x: Port, shape: Shape | None = None, dtype: str = "", **details: Any) -> Port:
        """Add one operation on `x`; arrays among `details` are its weights, the rest its attributes, None is nothing.

        Returns the output, of the shape and dtype of `x` where none are given.
        """
        name, self._seen[kind] = f"{kind}_{self._seen[kind]}", self._seen[kind] + 1
        out = Port(name, x.shape if shape is None else shape, dtype or x.dtype)
        weights = {key: value for key, value in details.items() if isinstance(value, np.ndarray)}
        attrs = {key: value for key, value in details.items() if key not in weights and value is not None}
        self.ops.append(Op(kind, (x,), (out,), attrs, weights))
        return out

    def cast(self, x: Port, dtype: str) -> Port:
        """`x` in `dtype`; nothing to do where it is already."""
        return x if x.dtype == dtype else self.add("cast", x, dtype=dtype)

    def reshape(self, x: Port, shape: Shape) -> Port:
        """`x` in `shape`; nothing to do where it is already."""
        return x if x.shape == shape else self.add("reshape", x, shape)

    def graph(self, inputs: tuple[Port, ...], outputs: dict[str, Port]) -> Graph:
        """The finished graph, its outputs renamed to the names they are asked by."""
        taken = {port.name: port for port in inputs}
        for name, port in outputs.items():
            source = self.add("identity", port) if port.name in taken else port
            taken[source.name] = replace(source, name=name)
        ops = tuple(
            replace(op, inputs=_renamed(op.inputs, taken), outputs=_renamed(op.outputs, taken)) for op in self.ops
        )
        return Graph(inputs, ops, tuple(taken.values())[len(inputs) :])


def _renamed(ports: tuple[Port, ...], names: dict[str, Port]) -> tuple[Port, ...]:
    return tuple(names.get(port.name, port) for port in ports)


def _array(tensor: Tensor) -> np.ndarray:
    """A copy, so that training goes on without changing the graph."""
    return np.array(tensor.detach().cpu().numpy())


def _features(tape: _Tape, preprocess: Preprocess, obs: Port) -> Port:
    """`Preprocess.__call__`: raw observation (*shape) -> features (F,) float32."""
    space, width = preprocess.space, preprocess.n_features
    if isinstance(space, Discrete):
        integers = tape.cast(obs, "int64")
        return tape.add("one_hot", integers, (width,), "float32", sizes=(space.n,), start=space.start)
    if isinstance(space, MultiDiscrete):
        return tape.add("one_hot", tape.cast(obs, "int64"), (width,), "float32", sizes=space.nvec, start=0)
    normalizer = preprocess.normalizer
    x = tape.cast(obs if normalizer is None else _normalize(tape, normalizer, obs), "float32")
    if preprocess.image:
        x = tape.add("scale", x, divisor=255.0)
    return x if x.shape == (width,) else tape.add("flatten", x, (width,))


def _normalize(tape: _Tape, normalizer: Normalizer, obs: Port) -> Port:
    mean, scale = (np.array(part, np.float64) for part in (normalizer.mean, normalizer.scale))
    return tape.add("normalize", tape.cast(obs, "float64"), mean=mean, scale=scale, clip=normalizer.clip)


def _gemm(tape: _Tape, x: Port, weight: Tensor, bias: Tensor | None) -> Port:
    """x (I,), weight (O, I), bias (O,) -> (O,)."""
    return tape.add("gemm", x, (len(weight),), weight=_array(weight), bias=None if bias is None else _array(bias))


def _linear(tape: _Tape, layer: nn.Linear, x: Port) -> Port:
    return _gemm(tape, x, layer.weight, layer.bias)


def _trunk(tape: _Tape, network: MLP, x: Port) -> Port:
    """Features (F,) -> the last hidden layer (H,)."""
    for layer in network.linears()[:-1]:
        x = tape.add(network.activation_name, _linear(tape, layer, x))
    return x


class _Reading:
    """A policy's outputs, each with the operations it needs."""

    def __init__(self, tape: _Tape, policy: Policy, features: Port) -> None:
        self.tape, self.policy, self.features = tape, policy, features

    @cached_property
    def latent(self) -> Port:
        """The last hidden layer (H,)."""
        return _trunk(self.tape, self.policy.network, self.features)

    @cached_property
    def signal(self) -> Port:
        """What the action rule reads (P,): logits, Q-values or the mean."""
        return self._pooled(_linear(self.tape, self.policy.network.head, self.latent))

    def output(self, name: str) -> Port:
        """The value called `name`, one of `output_names`."""
        if name == "action":
            return _decode(self.tape, self.policy.rule, self.signal)
        if name == "log_std" and self.policy.spread is not None:
            return _log_std(self.tape, self.policy.spread, self.latent, self.signal)
        if name == "value" and self.policy.value is not None:
            return self._value(self.policy.value)
        return self.signal

    def _pooled(self, x: Port) -> Port:
        n = self.policy.quantiles
        return self.tape.add("quantile_mean", x, (x.size // n,), quantiles=n) if n else x

    def _value(self, critic: MLP | nn.Linear) -> Port:
        if isinstance(critic, nn.Linear):
            return self.tape.reshape(_linear(self.tape, critic, self.latent), ())
        hidden = _trunk(self.tape, critic, self.features)
        return self.tape.reshape(_linear(self.tape, critic.head, hidden), ())


def _log_std(tape: _Tape, spread: Spread, latent: Port, mean: Port) -> Port:
    """`Spread.forward`: latent (L,), mean (A,) -> log standard deviation (A,)."""
    if spread.kind == "constant":
        return tape.add("repeat", mean, value=_array(spread.weight))
    if spread.kind == "gsde":
        return tape.add("gsde", latent, mean.shape, variance=_array(spread.weight.exp() ** 2))
    return _clip(tape, _gemm(tape, latent, spread.weight, spread.bias), np.float32(-20.0), np.float32(2.0))


def _clip(tape: _Tape, x: Port, low: np.floating | np.ndarray, high: np.floating | np.ndarray) -> Port:
    return tape.add("clip", x, low=np.asarray(low), high=np.asarray(high))


def _decode(tape: _Tape, rule: ActionRule, x: Port) -> Port:
    """`ActionRule.decode`: what the network puts out (P,) -> what the env takes (*shape)."""
    match rule.space:
        case Discrete(start=start):
            return tape.cast(tape.add("argmax", x, (), "int64", start=start), rule.space.dtype)
        case MultiDiscrete(nvec=nvec):
            return tape.cast(tape.add("group_argmax", x, (len(nvec),), "int64", sizes=nvec), rule.space.dtype)
        case MultiBinary():
            return tape.cast(tape.add("threshold", x), rule.space.dtype)
        case Box() as box:
            bounded = _decode_box(tape, rule, box, x)
            return tape.cast(tape.reshape(bounded, box.shape), box.dtype)


def _decode_box(tape: _Tape, rule: ActionRule, box: Box, x: Port) -> Port:
    low, high = (_compact(bound.reshape(-1).astype(np.float32)) for bound in (box.low, box.high))
    if rule.squash == "clip":
        low, high = (low, high) if low.ndim == high.ndim else np.broadcast_arrays(low, high)
        return x if np.isinf(low).all() and np.isinf(high).all() else _clip(tape, x, low, high)
    if rule.limit:
        x = _clip(tape, x, np.float32(-rule.limit), np.float32(rule.limit))
    return _unscale(tape, tape.add("tanh", x), low.astype(np.float64), high.astype(np.float64))


def _unscale(tape: _Tape, x: Port, low: np.ndarray, high: np.ndarray) -> Port:
    """low + (x + 1) / 2 * (high - low) in one multiplication and one addition, or none for bounds of -1 and 1."""
    half, middle = (_compact(part.astype(np.float32)) for part in ((high - low) / 2, (high + low) / 2))
    if (half == 1).all() and (middle == 0).all():
        return x
    return tape.add("unscale", x, half=half, middle=middle if (middle != 0).any() else None)


def _compact(values: np.ndarray) -> np.ndarray:
    """One number where all are equal."""
    return np.array(values.flat[0]) if values.size and (values == values.flat[0]).all() else values
