"""Layers by name: how each changes the shape, and the torch module that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from torch import Tensor, nn

from kdcli.errors import RefusedError
from kdcli.networks.activation_grid import DynamicQuantize, Quantize
from kdcli.networks.activations import ACTIVATIONS, activation
from kdcli.networks.attention import Attention, AttentionCell
from kdcli.networks.residual import Mean, Residual

Shape = tuple[int, ...]
# A layer as JSON values: its name and its options, e.g. ("conv2d", {"out": 32, "kernel": 8, "stride": 4}).
LayerSpec = tuple[str, Mapping[str, Any]]
MAX_SIZE = 1 << 24


class Activation(nn.Module):
    """A function of each number, by its name in `ACTIVATIONS`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self._function = name, activation(name)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        return self._function(x)


def _pair(value: Any) -> tuple[int, int]:
    """One number for both axes, or one each (height, width)."""
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def _rows(shape: Shape) -> tuple[Shape, int]:
    """The shape of one vector or of rows of them -> what is before the last axis, and the vectors' width."""
    if not 1 <= len(shape) <= 2:
        raise ValueError("it takes a vector, or rows of vectors")
    return shape[:-1], shape[-1]


def _linear(shape: Shape, options: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    rows, width = _rows(shape)
    return nn.Linear(width, int(options["out"]), bool(options.get("bias", True))), (*rows, int(options["out"]))


def _conv2d(shape: Shape, options: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    channels, *size = shape
    kernel, stride, padding = (_pair(options.get(key, d)) for key, d in (("kernel", 1), ("stride", 1), ("padding", 0)))
    groups, bias = int(options.get("groups", 1)), bool(options.get("bias", True))
    module = nn.Conv2d(channels, int(options["out"]), kernel, stride, padding, groups=groups, bias=bias)
    after = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True)]
    return module, (int(options["out"]), *after)


def _max_pool2d(shape: Shape, options: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    channels, *size = shape
    kernel, padding = _pair(options["kernel"]), _pair(options.get("padding", 0))
    stride = _pair(options.get("stride", options["kernel"]))
    after = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True)]
    return nn.MaxPool2d(kernel, stride, padding), (channels, *after)


def _flatten(shape: Shape, _: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    return nn.Flatten(), (prod(shape),)


def _layer_norm(shape: Shape, options: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    _, width = _rows(shape)
    return nn.LayerNorm(width, float(options.get("eps", 1e-5))), shape


def _gru_cell(shape: Shape, options: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    (width,) = shape
    return nn.GRUCell(width, int(options["out"]), bool(options.get("bias", True))), (int(options["out"]),)


def _lstm_cell(shape: Shape, options: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    (width,) = shape
    return nn.LSTMCell(width, int(options["out"]), bool(options.get("bias", True))), (int(options["out"]),)


def _quantize(shape: Shape, options: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    size = shape[0] if options.get("each") and len(shape) == 1 else 0
    return Quantize(int(options["low"]), int(options["high"]), size), shape


def _dynamic_quantize(shape: Shape, options: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    return DynamicQuantize(*(int(options[key]) for key in ("low", "high", "zero"))), shape


def _check_rows(shape: Shape) -> None:
    if len(shape) != 2:
        raise ValueError("it takes rows of vectors")


def _attention(shape: Shape, options: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    _check_rows(shape)
    return Attention(shape[1], *_heads(shape[1], options)), shape


def _attention_cell(shape: Shape, options: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    (width,) = shape
    return AttentionCell(width, *_heads(width, options), int(options["history"])), shape


def _heads(width: int, options: Mapping[str, Any]) -> tuple[int, int]:
    """How many heads there are, and how many numbers they look at together."""
    return int(options.get("heads", 1)), int(options.get("size", width))


def _mean(shape: Shape, _: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    _check_rows(shape)
    return Mean(), shape[1:]


def inner(name: str, options: Mapping[str, Any]) -> list[LayerSpec]:
    """The layers inside a layer: those of a residual; none of others."""
    return [(str(name), dict(given)) for name, given in options["layers"]] if name == "residual" else []


def _residual(shape: Shape, options: Mapping[str, Any]) -> tuple[nn.Module, Shape]:
    specs = inner("residual", options)
    if any(name == "residual" for name, _ in specs):
        raise ValueError("a residual inside another")
    modules, after = build_layers(shape, specs)
    if after != shape:
        raise ValueError(f"its layers give {after}")
    return Residual(modules), shape


LAYERS: Mapping[str, Callable[[Shape, Mapping[str, Any]], tuple[nn.Module, Shape]]] = {
    "attention": _attention,
    "attention_cell": _attention_cell,
    "conv2d": _conv2d,
    "dynamic_quantize": _dynamic_quantize,
    "flatten": _flatten,
    "gru_cell": _gru_cell,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "lstm_cell": _lstm_cell,
    "max_pool2d": _max_pool2d,
    "mean": _mean,
    "quantize": _quantize,
    "residual": _residual,
}


def build_layer(shape: Shape, spec: LayerSpec) -> tuple[nn.Module, Shape]:
    """The module of one layer for inputs of `shape` (without the batch), and the shape of what it gives.

    Raises:
        RefusedError: an unknown name, a missing option, or a shape the layer does not take.
    """
    name, options = spec
    if name in ACTIVATIONS:
        return Activation(name), shape
    if name not in LAYERS:
        known = ", ".join([*LAYERS, *ACTIVATIONS])
        raise RefusedError(f"unknown layer {name!r}", f"known: {known}", "update kdcli")
    try:
        module, after = LAYERS[name](shape, options)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RefusedError(f"the layer {_told(spec)} does not fit {shape}", str(error) or repr(error)) from None
    if not all(0 < n <= MAX_SIZE for n in after) or prod(after) > MAX_SIZE:
        raise RefusedError(f"the layer {_told(spec)} makes no sense", f"from {shape} to {after}")
    return module, after


def _told(spec: LayerSpec) -> str:
    return f"{spec[0]} {dict(spec[1])}"[:200]


def build_layers(shape: Shape, specs: Sequence[LayerSpec]) -> tuple[list[nn.Module], Shape]:
    """The modules of several layers, one behind the other, and the shape of what the last gives.

    Raises:
        RefusedError: as `build_layer`.
    """
    modules = []
    for spec in specs:
        module, shape = build_layer(shape, spec)
        modules.append(module)
    return modules, shape
