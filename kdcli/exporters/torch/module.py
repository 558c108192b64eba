"""A graph as a torch module, for programs that torch itself runs: one function a kind of operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.graph.operations import Graph, Op
from kdcli.networks.activation_grid import dynamic_scale, on_grid
from kdcli.networks.activations import ACTIVATIONS
from kdcli.networks.attention import attend

Weights = Mapping[str, Tensor]
Function = Callable[[Op, list[Tensor], Weights], Tensor | tuple[Tensor, Tensor]]


class GraphModule(nn.Module):
    """The operations of a graph on batches: one tensor (B, *shape) an input, in order.

    Gives the only output (B, *shape), or a tuple of all in order.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph, self._keys = graph, list[tuple[str, ...]]()
        for i, op in enumerate(graph.ops):
            arrays = {**op.weights, **_places(op)}
            self._keys.append(tuple(arrays))
            for key, array in arrays.items():
                self.register_buffer(f"op_{i}_{key}", torch.from_numpy(array.copy()))

    def forward(self, *inputs: Tensor) -> Any:
        """Run the operations in order."""
        made = {port.name: tensor for port, tensor in zip(self.graph.inputs, inputs, strict=True)}
        for i, op in enumerate(self.graph.ops):
            weights = {key: getattr(self, f"op_{i}_{key}") for key in self._keys[i]}
            found = FUNCTIONS[op.kind](op, [made[port.name] for port in op.inputs], weights)
            outputs = found if isinstance(found, tuple) else (found,)
            made.update({port.name: tensor for port, tensor in zip(op.outputs, outputs, strict=True)})
        ends = tuple(made[port.name] for port in self.graph.outputs)
        return ends[0] if len(ends) == 1 else ends


def _places(op: Op) -> dict[str, np.ndarray]:
    """Arrays of an operation that are no weights; made in `forward`, they would stay on the device of the trace."""
    if op.kind == "take":
        return {"places": np.asarray(op.attrs["places"], np.int64)}
    if op.kind == "one_hot":
        sizes, start = op.attrs["sizes"], op.attrs["start"]
        places = [start + place for size in sizes for place in range(size)]
        owners = [group for group, size in enumerate(sizes) for _ in range(size)] if op.inputs[0].shape else None
        return {"places": np.array(places, np.int64)} | ({"owners": np.array(owners, np.int64)} if owners else {})
    return {}


def _dtype(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return found


def _argmax(op: Op, x: list[Tensor], _: Weights) -> Tensor:
    place = x[0].argmax(1)
    return place + op.attrs["start"] if op.attrs["start"] else place


def _group_argmax(op: Op, x: list[Tensor], _: Weights) -> Tensor:
    return torch.stack([group.argmax(1) for group in x[0].split(list(op.attrs["sizes"]), 1)], 1)


def _normalize(op: Op, x: list[Tensor], w: Weights) -> Tensor:
    clip = float(op.attrs["clip"])
    return ((x[0] - w["mean"]) / w["scale"]).clamp(-clip, clip)


def _one_hot(op: Op, x: list[Tensor], w: Weights) -> Tensor:
    """Each integer beside every place it may have, and where the two are equal."""
    beside = x[0].index_select(1, w["owners"]) if op.inputs[0].shape else x[0].unsqueeze(1)
    return (beside == w["places"]).to(_dtype(op.out.dtype))


def _mask(op: Op, x: list[Tensor], _: Weights) -> Tensor:
    outputs, allowed = x
    if op.attrs["bits"]:
        real = allowed.to(torch.float32)
        return outputs + 1e8 * (real[:, 1::2] - real[:, 0::2])
    return torch.where(allowed != 0, outputs, -1e8)


def _conv2d(op: Op, x: list[Tensor], w: Weights) -> Tensor:
    sides = op.attrs["stride"], op.attrs["padding"]
    return F.conv2d(x[0], w["weight"], w.get("bias"), *sides, groups=op.attrs.get("groups", 1))


def _gru_cell(op: Op, x: list[Tensor], w: Weights) -> Tensor:
    return torch.gru_cell(x[0], x[1], w["weight_ih"], w["weight_hh"], w.get("bias_ih"), w.get("bias_hh"))


def _lstm_cell(op: Op, x: list[Tensor], w: Weights) -> tuple[Tensor, Tensor]:
    return torch.lstm_cell(x[0], x[1:], w["weight_ih"], w["weight_hh"], w.get("bias_ih"), w.get("bias_hh"))


def _gsde(op: Op, x: list[Tensor], w: Weights) -> Tensor:
    return 0.5 * torch.log((x[0] ** 2) @ w["variance"] + 1e-6)


def _expectation(op: Op, x: list[Tensor], w: Weights) -> Tensor:
    return x[0].reshape(-1, op.out.size, w["atoms"].numel()).softmax(2) @ w["atoms"]


def _unscale(op: Op, x: list[Tensor], w: Weights) -> Tensor:
    scaled = x[0] * w["half"]
    return scaled + w["middle"] if "middle" in w else scaled


def _dynamic_quantize(op: Op, x: list[Tensor], w: Weights) -> Tensor:
    low, high, zero = (op.attrs[key] for key in ("low", "high", "zero"))
    return on_grid(x[0], dynamic_scale(x[0], high - zero), zero, low, high)


FUNCTIONS: Mapping[str, Function] = {
    **{name: lambda op, x, w, f=function: f(x[0]) for name, function in ACTIVATIONS.items()},  # type: ignore[misc]
    "add": lambda op, x, w: x[0] + x[1],
    "argmax": _argmax,
    "attention": lambda op, x, w: attend(op.attrs["heads"], *x),
    "cast": lambda op, x, w: x[0].to(_dtype(op.out.dtype)),
    "channels_first": lambda op, x, w: x[0].permute(0, 3, 1, 2),
    "clip": lambda op, x, w: torch.minimum(torch.maximum(x[0], w["low"]), w["high"]),
    "concat": lambda op, x, w: torch.cat(x, 1),
    "conv2d": _conv2d,
    "dynamic_quantize": _dynamic_quantize,
    "expectation": _expectation,
    "flatten": lambda op, x, w: x[0].flatten(1),
    "gemm": lambda op, x, w: F.linear(x[0], w["weight"], w.get("bias")),
    "group_argmax": _group_argmax,
    "gru_cell": _gru_cell,
    "gsde": _gsde,
    "identity": lambda op, x, w: x[0].clone(),
    "layer_norm": lambda op, x, w: F.layer_norm(x[0], w["weight"].shape, w["weight"], w["bias"], op.attrs["eps"]),
    "lstm_cell": _lstm_cell,
    "mask": _mask,
    "max_pool2d": lambda op, x, w: F.max_pool2d(x[0], op.attrs["kernel"], op.attrs["stride"], op.attrs["padding"]),
    "mean": lambda op, x, w: x[0].reshape(-1, op.attrs["groups"], op.out.size).mean(1),
    "normalize": _normalize,
    "one_hot": _one_hot,
    "quantize": lambda op, x, w: on_grid(x[0], w["scale"], w["zero"], op.attrs["low"], op.attrs["high"]),
    "repeat": lambda op, x, w: w["value"].expand(x[0].shape[0], *op.out.shape),
    "reshape": lambda op, x, w: x[0].reshape(-1, *op.out.shape),
    "scale": lambda op, x, w: x[0] / op.attrs["divisor"],
    "slice": lambda op, x, w: x[0][:, op.attrs["start"] : op.attrs["stop"]],
    "take": lambda op, x, w: x[0].index_select(1, w["places"]),
    "threshold": lambda op, x, w: x[0].sigmoid().round(),
    "unscale": _unscale,
}
