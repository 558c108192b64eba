"""Untrained agents of every kind, by name: what graph and exporters are tested on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import JointPreprocess, Normalizer, Preprocess, Preprocessor
from kdcli.agents.policy import Policy, Signal, Spread
from kdcli.agents.states import States
from kdcli.choice import Choice
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import Exported, convert
from kdcli.networks import build
from kdcli.networks.activation_grid import Quantize
from kdcli.networks.activations import ACTIVATIONS
from kdcli.networks.layers import LayerSpec
from kdcli.networks.mlp import MLP
from kdcli.networks.packed_weights import Packed
from kdcli.networks.stack import Branch, Stack
from kdcli.spec import (
    MASK,
    Box,
    Dict,
    Discrete,
    EnvSpec,
    MultiBinary,
    MultiDiscrete,
    Part,
    Space,
    box,
    handed,
    join_rows,
    parts,
)

VECTOR = Preprocess(box((5,)))
VECTOR4 = Preprocess(box((4,)))
BOUNDS = np.array([-1.0, -3.0, 0.25]), np.array([2.0, -1.0, 0.5])


def agent(
    rule: ActionRule, preprocess: Preprocessor = VECTOR, net: dict[str, Any] | None = None, **policy: Any
) -> Agent:
    """An agent with random weights, far enough from zero that bounds and limits are reached."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outputs = rule.n_outputs * max(1, policy.get("quantiles", 0))
        inputs = preprocess.n_features - rule.n_mask
        network = MLP(**{"inputs": inputs, "hidden": (16, 12), "outputs": outputs, **(net or {})})
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
        "integers": (handed(box((3,), -4, 4, "int32")), {}),
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
    input_branches = {
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
        "some": Preprocess(box((5,)), columns=(1, 3)),
        "some_normalized": Preprocess(box((2, 3), dtype="float64"), normalizer((4,)), columns=(0, 2, 3, 5)),
        "some_pixels": Preprocess(image, image=True, columns=(0, 5, 17, 40)),
        "some_pixels_moved": Preprocess(image, image=True, channels_last=True, columns=(0, 5, 17, 40)),
        "some_choices": Preprocess(MultiDiscrete((3, 2, 4)), columns=(0, 4, 8)),
    }
    rule = ActionRule(Discrete(4))
    return {f"sees_{name}": lambda p=preprocess: agent(rule, p) for name, preprocess in input_branches.items()}  # type: ignore[misc]


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
        "atoms": lambda: _stacked(
            ActionRule(Discrete(4)), VECTOR, [Branch(0, (5,))], DEEP[:1], signal="q", atoms=torch.linspace(-3, 5, 6)
        ),
        "constant_spread": lambda: agent(clip, spread=_spread("constant", 3)),
        "free_constant_spread": lambda: agent(free, spread=_spread("constant", 3)),
        "linear_spread": lambda: agent(tanh, spread=_spread("linear", 3)),
        "gsde_spread": lambda: agent(tanh, spread=_spread("gsde", 3)),
        "value": lambda: agent(ActionRule(Discrete(4)), value=MLP(5, (8,), 1, "elu")),
        "value_head": lambda: agent(clip, value=nn.Linear(12, 1)),
    }


BOTH = Dict({"image": box((9, 8, 2), 0, 255, "uint8"), "place": Discrete(3, start=1), "vector": box((4,))})
CONVOLUTIONS = (
    ("conv2d", {"out": 5, "kernel": [3, 2], "stride": [2, 1], "padding": [1, 0]}),
    ("relu", {}),
    ("max_pool2d", {"kernel": 2, "padding": 1}),
    ("conv2d", {"out": 4, "kernel": 2, "bias": False}),
    ("elu", {}),
    ("flatten", {}),
)
ALONE = (
    ("conv2d", {"out": 6, "kernel": 3, "stride": 2}),
    ("relu", {}),
    ("residual", {"layers": [["conv2d", {"out": 6, "kernel": 3, "padding": 1, "groups": 6}], ["elu", {}]]}),
    ("conv2d", {"out": 4, "kernel": 2, "bias": False}),
    ("flatten", {}),
)
ROWS = (("attention", {"heads": 2, "size": 6}), ("tanh", {}), ("linear", {"out": 3, "bias": False}), ("flatten", {}))
CELL = ["attention_cell", {"heads": 3, "size": 6, "history": 4}]
LOOKING_BACK = (("residual", {"layers": [["gru_cell", {"out": 5}], ["elu", {}], CELL]}), ("linear", {"out": 4}))
DEEP = (("linear", {"out": 7}), ("layer_norm", {"eps": 1e-5}), ("tanh", {}), ("linear", {"out": 6, "bias": False}))


def _stacked(
    rule: ActionRule,
    sees: Preprocessor,
    branches: list[Branch],
    trunk: Sequence[LayerSpec],
    value: Any = None,
    **policy: Any,
) -> Agent:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        atoms = policy.get("atoms")
        network = Stack(branches, trunk, rule.n_outputs * (1 if atoms is None else len(atoms)))
        for parameter in network.parameters():
            parameter.data *= 1.5
        signal: Signal = policy.pop("signal", "mean" if rule.continuous else "logits")
        made = Policy(network, rule, signal, value=value() if value else None, **policy)
    return Agent(sees, made.eval(), "sample", EnvSpec("Sample-v0"), {"algorithm": "none"})


BYTE, SIGNED, NIBBLE = {"low": 0, "high": 255}, {"low": -128, "high": 127}, {"low": -8, "high": 7}
CODES = (
    *(("quantize", {**BYTE, "each": True}), ("linear", {"out": 7}), ("relu", {}), ("quantize", SIGNED)),
    *(("linear", {"out": 6}), ("tanh", {}), ("quantize", BYTE), ("linear", {"out": 4}), ("elu", {})),
    ("quantize", NIBBLE),
)
OWN_RANGES = (
    *(("dynamic_quantize", {**BYTE, "zero": 128}), ("linear", {"out": 7}), ("relu", {})),
    *(("dynamic_quantize", {**BYTE, "zero": 0}), ("linear", {"out": 6}), ("tanh", {})),
    ("dynamic_quantize", {**NIBBLE, "zero": 0}),
)


def _quantized(rule: ActionRule, branches: list[Branch], trunk: Sequence[LayerSpec]) -> Agent:
    """Activations on grids, and weights in every form of packing."""
    sees = VECTOR if branches[0].stop == 5 else Preprocess(box((2, 9, 8), 0, 255, "uint8"), image=True)
    made, rng = _stacked(rule, sees, branches, trunk), np.random.default_rng(3)
    for grid in (m for m in made.policy.modules() if isinstance(m, Quantize)):
        wide = 6.0 if sees is VECTOR else 1.0
        grid.scale += (
            torch.from_numpy(rng.uniform(0.9, 1.1, grid.scale.shape).astype(np.float32)) * wide / grid.high - 1
        )
        grid.zero += (grid.low + grid.high) // 2
    named = {n: p.detach().numpy() for n, p in made.policy.named_parameters() if n.endswith("weight")}
    return made.packed({n: _PACKINGS[i % len(_PACKINGS)](w) for i, (n, w) in enumerate(named.items())})


def _linear_packed(weight: np.ndarray, bits: int, each: bool, zero: int = 0) -> Packed:
    """Rounded to the nearest of the codes, `zero` being that of 0."""
    rows = np.abs(weight).reshape(len(weight), -1)
    most = (rows.max(1) if each else rows.max()) / ((1 << (bits - 1)) - 1 - abs(zero))
    scale = np.asarray(most, np.float32)
    beside = scale.reshape(-1, *(1,) * (weight.ndim - 1)) if each else scale
    codes = np.clip(np.round(weight / beside) + zero, -(1 << (bits - 1)), (1 << (bits - 1)) - 1).astype(np.int16)
    return Packed(codes, bits, scale=scale, zero=np.full(scale.shape, zero, np.int32) if zero else None)


def _on_table(weight: np.ndarray, bits: int) -> Packed:
    levels = np.quantile(weight, np.linspace(0, 1, 1 << bits)).astype(np.float32)
    return Packed(np.abs(weight[..., None] - levels).argmin(-1).astype(np.uint8), bits, levels=levels)


def _half(weight: np.ndarray) -> Packed:
    return Packed(weight.astype(np.float16).view(np.uint16), 16, half="float16")


_PACKINGS: tuple[Callable[[np.ndarray], Packed], ...] = (
    lambda w: _linear_packed(w, 8, each=True),
    lambda w: _on_table(w, 4),
    lambda w: _linear_packed(w, 8, each=False, zero=3),
    lambda w: _on_table(w, 3),
    _half,
    lambda w: _linear_packed(w, 4, each=True),
)


def _both(normalized: bool) -> JointPreprocess:
    """An image channels last, a place and a vector."""
    image, place, vector = BOTH.spaces.values()
    norm = normalizer((4,)) if normalized else None
    sees = {"image": Preprocess(image, image=True, channels_last=True), "place": Preprocess(place)}
    return JointPreprocess(BOTH, {**sees, "vector": Preprocess(vector, norm)})


def _masked(space: Part) -> JointPreprocess:
    rule = ActionRule(space, masked=True)
    input_shapes = Dict({"obs": box((5,)), MASK: MultiBinary(rule.n_mask)})
    return JointPreprocess(input_shapes, {name: Preprocess(part) for name, part in input_shapes.spaces.items()})


def _stacks() -> dict[str, Callable[[], Agent]]:
    tanh, choose = ActionRule(box((3,), -1.0, 1.0), "tanh"), ActionRule(Discrete(4))
    flat, image = [Branch(0, (5,))], Preprocess(box((2, 9, 8), 0, 255, "uint8"), image=True)
    picture, whole = Branch(0, (2, 9, 8), CONVOLUTIONS), Branch(144, (7,))
    gru, lstm = ("gru_cell", {"out": 6}), ("lstm_cell", {"out": 5})
    plain_lstm = ("lstm_cell", {"out": 4, "bias": False})
    return {
        "stack_layers": lambda: _stacked(tanh, VECTOR, flat, DEEP),
        "stack_image": lambda: _stacked(choose, image, [picture], (("linear", {"out": 6}), ("relu", {}))),
        "stack_alone": lambda: _stacked(choose, image, [Branch(0, (2, 9, 8), ALONE)], DEEP[:1]),
        "stack_rows": lambda: _stacked(choose, Preprocess(box((3, 4))), [Branch(0, (3, 4), ROWS)], DEEP[:1]),
        "stack_history": lambda: _stacked(tanh, VECTOR, flat, LOOKING_BACK, lambda: Stack(flat, (gru,), 1)),
        "stack_pieces": lambda: _stacked(choose, VECTOR, [Branch(1, (3,)), Branch(0, (5,))], DEEP[:1]),
        "dict": lambda: _stacked(choose, _both(False), [picture, whole], DEEP[:3]),
        "dict_normalized": lambda: _stacked(tanh, _both(True), [picture, whole], ()),
        "dict_mlp": lambda: agent(choose, _both(True)),
        "gru": lambda: _stacked(choose, VECTOR, flat, (*DEEP[:1], gru)),
        "lstm": lambda: _stacked(tanh, VECTOR, flat, (lstm, ("linear", {"out": 4}))),
        "lstm_value": lambda: _stacked(choose, VECTOR, flat, (lstm, plain_lstm), lambda: Stack(flat, (gru,), 1)),
        "gru_value_head": lambda: _stacked(choose, VECTOR, flat, (gru,), lambda: nn.Linear(6, 1)),
        "gru_dict": lambda: _stacked(choose, _both(True), [picture, whole], (gru, lstm)),
        "quantized": lambda: _quantized(tanh, flat, CODES),
        "quantized_dynamic": lambda: _quantized(tanh, flat, OWN_RANGES),
        "quantized_image": lambda: _quantized(choose, [replace(picture, layers=(CODES[3], *CONVOLUTIONS))], CODES[2:3]),
        **{
            f"masked_{name}": lambda s=space: agent(ActionRule(s, masked=True), _masked(s))  # type: ignore[misc]
            for name, space in (
                ("discrete", Discrete(4)),
                ("multi_discrete", MultiDiscrete((3, 2))),
                ("multi_binary", MultiBinary(3)),
            )
        },
    }


def _students() -> dict[str, Callable[[], Agent]]:
    """Every architecture that a student may have, as it is named."""
    tanh, choose = ActionRule(box((3,), -1.0, 1.0), "tanh"), ActionRule(Discrete(4))
    picture, rows = Preprocess(box((2, 19, 18), 0, 255, "uint8"), image=True), Preprocess(box((6, 5)))
    both = Dict({"rows": box((6, 5)), "vector": box((4,))})
    joint = JointPreprocess(both, {"rows": Preprocess(both.spaces["rows"], normalizer((6, 5))), "vector": VECTOR4})
    given: dict[str, tuple[str, ActionRule, Preprocessor]] = {
        "student_norm": ("mlp:12x9,norm=layer,activation=relu", tanh, VECTOR),
        "student_residual": ("mlp:8x8x8x6,residual=true", choose, VECTOR),
        "student_both": ("mlp:8x8x8,norm=layer,residual=true,activation=silu", tanh, VECTOR),
        "student_gru": ("gru:12", choose, VECTOR),
        "student_gru_image": ("gru:9,before=7,hidden=5,cnn=3x4", choose, picture),
        "student_lstm": ("lstm:8x6,hidden=7x5", tanh, VECTOR),
        "student_attention": ("attention:12,heads=3,history=5", choose, VECTOR),
        "student_deep_attention": ("attention:8,heads=2,history=3,layers=2,feed=9,activation=gelu", tanh, VECTOR),
        "student_entities": ("entities:12,heads=3", choose, rows),
        "student_deep_entities": ("entities:8,heads=1,layers=2,feed=5,hidden=7", tanh, joint),
        "student_mobilenet": ("mobilenet:5x6x6,expand=2,hidden=9", choose, picture),
        "student_mobilenet_narrow": ("mobilenet:1x1x4,expand=1", tanh, picture),
    }
    return {name: lambda g=g: student(*g) for name, g in given.items()}  # type: ignore[misc]


def student(text: str, rule: ActionRule, sees: Preprocessor) -> Agent:
    """An untrained student of the architecture that `text` names."""
    network = build(Choice.parse(text), [part.shape for part in sees.parts.values()], rule.n_outputs, seed=0)
    for parameter in network.parameters():
        parameter.data *= 1.5
    policy = Policy(network, rule, "mean" if rule.continuous else "logits")
    return Agent(sees, policy.eval(), "sample", EnvSpec("Sample-v0"), {"algorithm": "none"})


POLICIES: dict[str, Callable[[], Agent]] = {
    **_actions(),
    **_observations(),
    **_networks(),
    **_heads(),
    **_stacks(),
    **_students(),
}


def observations(made: Agent, n: int, seed: int = 0) -> np.ndarray:
    """`n` raw observations (n, *shape), the dtype of the space."""
    rng, space = np.random.default_rng(seed), made.observation
    columns = {name: _draw(rng, part, n) for name, part in parts(space).items()}
    if MASK in columns:
        rule = made.policy.rule
        sizes = (2,) * rule.n_outputs if rule.bits else rule.groups
        columns[MASK][:, np.cumsum((0, *sizes[:-1]))] = 1
    return join_rows(space, columns)


def _draw(rng: np.random.Generator, space: Part, n: int) -> np.ndarray:
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
