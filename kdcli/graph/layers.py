"""Networks as operations: from features to the last hidden layer, with what they remember."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor, nn

from kdcli.agents.policy import Network
from kdcli.graph.graph_builder import GraphBuilder
from kdcli.graph.operations import Port
from kdcli.graph.preprocessing import ObservationFeatures
from kdcli.networks.activation_grid import DynamicQuantize, Quantize
from kdcli.networks.attention import Attention, AttentionCell
from kdcli.networks.layers import Activation
from kdcli.networks.memory import state_size
from kdcli.networks.mlp import MLP
from kdcli.networks.residual import Mean, Residual


def gemm(builder: GraphBuilder, x: Port, weight: Tensor, bias: Tensor | None) -> Port:
    """x (I,) or rows (N, I), weight (O, I), bias (O,) -> (O,) or (N, O)."""
    return builder.add("gemm", x, (*x.shape[:-1], len(weight)), weight=weight, bias=bias)


def linear(builder: GraphBuilder, layer: nn.Linear, x: Port) -> Port:
    """The layer's gemm."""
    return gemm(builder, x, layer.weight, layer.bias)


def hidden(
    builder: GraphBuilder, network: Network, input_shapes: ObservationFeatures, state: Port | None, start: int
) -> tuple[Port, list[Port]]:
    """The last hidden layer (H,), and the next state in parts; the network's state is in `state` from `start` on."""
    if isinstance(network, MLP):
        x = input_shapes.flat
        for layer in network.linears()[:-1]:
            x = builder.add(network.activation_name, linear(builder, layer, x))
        return x, []
    found = []
    for branch, modules in zip(network.parts, network.branches, strict=True):
        x = input_shapes.part(branch.start, branch.shape)
        for module in modules:  # type: ignore[attr-defined]
            x = _layer(builder, module, x)
        found.append(x)
    whole = state and builder.slice(state, start, start + network.state_size)
    return _steps(builder, network.trunk, builder.concat(found), whole)


def _steps(builder: GraphBuilder, modules: Iterable[nn.Module], x: Port, state: Port | None) -> tuple[Port, list[Port]]:
    """One step of layers whose states lie one after the other: what comes out, and the parts of their next states."""
    after: list[Port] = []
    start = 0
    for module in modules:
        size = state_size(module)
        if size:
            assert state is not None
            x, kept = _cell(builder, module, x, builder.slice(state, start, start + size))
            after += kept
            start += size
        else:
            x = _layer(builder, module, x)
    return x, after


def _cell(builder: GraphBuilder, cell: nn.Module, x: Port, state: Port) -> tuple[Port, list[Port]]:
    """One step of a layer that remembers: what comes out, and the parts of its next state."""
    if isinstance(cell, Residual):
        y, after = _steps(builder, cell.layers, x, state)
        return builder.add("add", (x, y)), after
    if isinstance(cell, AttentionCell):
        return _attention_cell(builder, cell, x, state)
    weights: dict[str, Any] = dict(cell.named_parameters())
    if isinstance(cell, nn.GRUCell):
        h = builder.add("gru_cell", (x, state), state.shape, **weights)
        return h, [h]
    half = state.size // 2
    before = builder.slice(state, 0, half), builder.slice(state, half, state.size)
    h, c = builder.add_pair("lstm_cell", (x, *before), (half,), **weights)
    return h, [h, c]


def _attention_cell(builder: GraphBuilder, cell: AttentionCell, x: Port, state: Port) -> tuple[Port, list[Port]]:
    """`AttentionCell.step`."""
    width, n, asked = cell.size, cell.history, linear(builder, cell.project, x)
    past = (n - 1) * width
    q, k, v = (builder.slice(asked, i * width, (i + 1) * width) for i in range(3))
    bias = builder.slice(asked, 3 * width, asked.size)
    one = builder.add("repeat", builder.slice(q, 0, 1), value=np.ones(1, np.float32))
    ends = (0, past, 2 * past, state.size)
    before = [builder.slice(state, start, stop) for start, stop in pairwise(ends)]
    keys, values, valid = (builder.concat(pair) for pair in zip(before, (k, v, one), strict=True))
    rows = [builder.reshape(port, (port.size // width, width)) for port in (q, keys, values)]
    y = builder.add("attention", (*rows, builder.reshape(bias, (cell.heads, 1, n)), valid), heads=cell.heads)
    kept = [builder.slice(port, port.size // n, port.size) for port in (keys, values, valid)]
    return linear(builder, cell.out, builder.flat(y)), kept


def _attention(builder: GraphBuilder, layer: Attention, x: Port) -> Port:
    """`Attention.forward`."""
    parts = [linear(builder, part, x) for part in (layer.query, layer.key, layer.value)]
    y = builder.add("attention", parts, heads=layer.heads)
    return linear(builder, layer.out, y)


def _residual(builder: GraphBuilder, layer: Residual, x: Port) -> Port:
    return builder.add("add", (x, _steps(builder, layer.layers, x, None)[0]))


def _mean(builder: GraphBuilder, _: Mean, x: Port) -> Port:
    return builder.add("mean", builder.flat(x), x.shape[1:], groups=x.shape[0])


def _conv2d(builder: GraphBuilder, layer: Any, x: Port) -> Port:
    sides: dict[str, Any] = {"stride": tuple(layer.stride), "padding": tuple(layer.padding)}
    weights: dict[str, Any] = dict(layer.named_parameters())
    shape = _moved(x.shape, len(layer.weight), tuple(layer.kernel_size), **sides)
    groups = layer.groups if layer.groups > 1 else None
    return builder.add("conv2d", x, shape, groups=groups, **sides, **weights)


def _max_pool2d(builder: GraphBuilder, layer: Any, x: Port) -> Port:
    given = {"kernel": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
    sides: dict[str, Any] = {name: _pair(value) for name, value in given.items()}
    return builder.add("max_pool2d", x, _moved(x.shape, x.shape[0], **sides), **sides)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _moved(
    shape: tuple[int, ...], channels: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, ...]:
    """The shape (C, H, W) that a window moved over `shape` gives."""
    sizes = zip(shape[1:], kernel, stride, padding, strict=True)
    return channels, *((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)


def _layer_norm(builder: GraphBuilder, layer: Any, x: Port) -> Port:
    return builder.add("layer_norm", x, eps=layer.eps, weight=layer.weight, bias=layer.bias)


def _quantize(builder: GraphBuilder, layer: Any, x: Port) -> Port:
    return builder.add("quantize", x, low=layer.low, high=layer.high, scale=layer.scale, zero=layer.zero)


def _dynamic_quantize(builder: GraphBuilder, layer: DynamicQuantize, x: Port) -> Port:
    return builder.add("dynamic_quantize", x, low=layer.low, high=layer.high, zero=layer.zero)


_LAYERS: Mapping[type[nn.Module], Callable[[GraphBuilder, Any, Port], Port]] = {
    Attention: _attention,
    Activation: lambda builder, layer, x: builder.add(layer.name, x),
    nn.Conv2d: _conv2d,
    DynamicQuantize: _dynamic_quantize,
    nn.Flatten: lambda builder, _, x: builder.flat(x),
    nn.LayerNorm: _layer_norm,
    nn.Linear: linear,
    nn.MaxPool2d: _max_pool2d,
    Mean: _mean,
    Residual: _residual,
    Quantize: _quantize,
}


def _layer(builder: GraphBuilder, module: nn.Module, x: Port) -> Port:
    return _LAYERS[type(module)](builder, module, x)
