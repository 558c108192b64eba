"""Untrained agents of every kind, by name: what graph and exporters are tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer, Preprocess
from kdcli.agents.policy import Policy, Signal, Spread
from kdcli.exporters.config import ExportConfig
from kdcli.agents.states import States
from kdcli.exporters.step import Exported, convert
from kdcli.networks.activations import ACTIVATIONS
from kdcli.networks.mlp import MLP
from kdcli.spec import Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete, Space, box

VECTOR = Preprocess(box((5,)))
BOUNDS = np.array([-1.0, -3.0, 0.25]), np.array([2.0, -1.0, 0.5])


def agent(rule: ActionRule, preprocess: Preprocess = VECTOR, net: dict[str, Any] | None = None, **policy: Any) -> Agent:
    """An agent with random weights, far enough from zero that bounds and limits are reached."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outputs = rule.n_outputs * max(1, policy.get("quantiles", 0))
        network = MLP(preprocess.n_features, **{"hidden": (16, 12), "outputs": outputs, **(net or {})})
        for parameter in network.parameters():
            parameter.data *= 2.0
    signal: Signal = "mean" if rule.continuous else "logits"
    made = Policy(network, rule, policy.pop("signal", signal), **policy)
    return Agent(preprocess, made.eval(), "sample", EnvSpec("Sample-v0"), {"algorithm": "none"})


def normalizer(shape: tuple[int, ...]) -> Normalizer:
    rng = np.random.default_rng(1)
    return Normalizer(rng.normal(size=shape), rng.uniform(0.1, 2.0, shape), 1.5)


def _spread(kind: Literal["constant", "linear", "gsde"], actions: int) -> Spread:
    rng = np.random.default_rng(2)
    shape = {"constant": (actions,), "linear": (actions, 12), "gsde": (12, actions)}[kind]
    weight = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
    return Spread(kind, weight, torch.zeros(actions) if kind == "linear" else None)


def _actions() -> dict[str, Callable[[], Agent]]:
    low, high = BOUNDS
    spaces: dict[str, tuple[Space, dict[str, Any]]] = {
        "clip": (box((3,), -0.5, 0.5), {}),
        "clip_each": (box((3,), low, high), {}),
        "clip_below": (box((3,), 0.0), {}),
        "clip_some": (box((3,), [-np.inf, -0.1, -np.inf], [np.inf, 0.1, 0.2]), {}),
        "clip_one_side_each": (box((3,), -0.1, [0.1, 0.2, 0.3]), {}),
        "unbounded": (box((3,)), {}),
        "float64": (box((3,), -0.5, 0.5, "float64"), {}),
        "integers": (box((3,), -4, 4, "int32"), {}),
        "matrix": (box((2, 3), -0.5, 0.5), {}),
        "tanh": (box((3,), -1.0, 1.0), {"squash": "tanh"}),
        "tanh_shifted": (box((3,), 0.0, 2.0), {"squash": "tanh"}),
        "tanh_scaled": (box((3,), -0.4, 0.4), {"squash": "tanh"}),
        "tanh_each": (box((3,), low, high), {"squash": "tanh"}),
        "tanh_matrix": (box((1, 3), low, high), {"squash": "tanh"}),
        "tanh_limit": (box((3,), -2.0, 2.0), {"squash": "tanh", "limit": 0.3}),
        "discrete": (Discrete(4), {}),
        "discrete_one": (Discrete(1), {}),
        "discrete_start": (Discrete(4, start=-2), {}),
        "discrete_int32": (Discrete(4, start=3, dtype="int32"), {}),
        "multi_discrete": (MultiDiscrete((3, 2, 4)), {}),
        "multi_discrete_one": (MultiDiscrete((3,), "int32"), {}),
        "multi_binary": (MultiBinary(6), {}),
    }
    return {name: lambda s=space, r=rule: agent(ActionRule(s, **r)) for name, (space, rule) in spaces.items()}  # type: ignore[misc]


def _observations() -> dict[str, Callable[[], Agent]]:
    image = box((4, 4, 3), 0, 255, "uint8")
    sights = {
        "normalized": Preprocess(box((5,), dtype="float64"), normalizer((5,))),
        "normalized_float32": Preprocess(box((5,)), normalizer((5,))),
        "normalized_matrix": Preprocess(box((2, 3), dtype="float64"), normalizer((2, 3))),
        "normalized_bounded": Preprocess(box((5,), -0.5, 0.5), normalizer((5,))),
        "float64": Preprocess(box((5,), dtype="float64")),
        "unclipped": Preprocess(box((5,)), replace(normalizer((5,)), clip=np.inf)),
        "image": Preprocess(image, image=True),
        "image_unscaled": Preprocess(image),
        "image_normalized": Preprocess(image, normalizer(image.shape), image=True),
        "bytes": Preprocess(box((5,), 0, 255, "uint8")),
        "discrete": Preprocess(Discrete(6)),
        "discrete_start": Preprocess(Discrete(6, start=-2, dtype="int32")),
        "multi_discrete": Preprocess(MultiDiscrete((3, 2, 4))),
        "multi_binary": Preprocess(MultiBinary(5)),
    }
    rule = ActionRule(Discrete(4))
    return {f"sees_{name}": lambda p=preprocess: agent(rule, p) for name, preprocess in sights.items()}  # type: ignore[misc]


def _networks() -> dict[str, Callable[[], Agent]]:
    rule = ActionRule(box((3,), -1.0, 1.0), "tanh")
    nets: dict[str, dict[str, Any]] = {name: {"activation_name": name} for name in ACTIVATIONS}
    nets |= {"linear": {"hidden": ()}, "linear_no_bias": {"hidden": (), "bias": False}, "no_bias": {"bias": False}}
    return {f"net_{name}": lambda n=net: agent(rule, net=n) for name, net in nets.items()}  # type: ignore[misc]


def _heads() -> dict[str, Callable[[], Agent]]:
    clip, tanh = ActionRule(box((3,), -0.5, 0.5)), ActionRule(box((3,), -0.5, 0.5), "tanh", 2.0)
    free = ActionRule(box((3,)))
    return {
        "q": lambda: agent(ActionRule(Discrete(4)), signal="q"),
        "quantiles": lambda: agent(ActionRule(Discrete(4)), signal="q", quantiles=7),
        "constant_spread": lambda: agent(clip, spread=_spread("constant", 3)),
        "free_constant_spread": lambda: agent(free, spread=_spread("constant", 3)),
        "linear_spread": lambda: agent(tanh, spread=_spread("linear", 3)),
        "gsde_spread": lambda: agent(tanh, spread=_spread("gsde", 3)),
        "value": lambda: agent(ActionRule(Discrete(4)), value=MLP(5, (8,), 1, "elu")),
        "value_head": lambda: agent(clip, value=nn.Linear(12, 1)),
    }


POLICIES: dict[str, Callable[[], Agent]] = {**_actions(), **_observations(), **_networks(), **_heads()}


def observations(made: Agent, n: int, seed: int = 0) -> np.ndarray:
    """`n` raw observations (n, *shape), the dtype of the space."""
    rng, space = np.random.default_rng(seed), made.observation
    match space:
        case Box() if np.dtype(space.dtype).kind in "ui":
            return rng.integers(0, 256, (n, *space.shape)).astype(space.dtype)
        case Box():
            return (3.0 * rng.standard_normal((n, *space.shape))).astype(space.dtype)
        case Discrete():
            return (space.start + rng.integers(0, space.n, n)).astype(space.dtype)
        case MultiDiscrete():
            return rng.integers(0, space.nvec, (n, len(space.nvec))).astype(space.dtype)
    return rng.integers(0, 2, (n, *space.shape)).astype(space.dtype)


def exported(made: Agent, *outputs: str, opset: int = 17, n: int = 40) -> Exported:
    """The agent as a file, compared on `n` states."""
    return convert(made, States(observations(made, n)), ExportConfig(outputs=outputs, opset=opset))


@cache
def plain(name: str) -> Exported:
    """A policy exported with no option."""
    return exported(POLICIES[name]())
