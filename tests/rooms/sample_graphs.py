"""Graphs written by hand and what torch makes of the same numbers: layers in shapes that no sample policy has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.graph.graph_builder import GraphBuilder, array
from kdcli.graph.operations import Graph, Port

N = 9
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Case:
    """A graph, inputs for it (N, *shape) by name, and what the outputs are."""

    graph: Graph
    given: Arrays
    wanted: Arrays


def _case(ports: list[Port], build: Callable[..., dict[str, Port]], expect: Callable[..., dict[str, Tensor]]) -> Case:
    """`build(tape, *ports)` gives outputs by name, `expect(*tensors)` what they should be; inputs are drawn."""
    builder, rng = GraphBuilder(), np.random.default_rng(0)
    graph = builder.graph(tuple(ports), build(builder, *ports))
    given = {port.name: _drawn(rng, port) for port in ports}
    with torch.no_grad():
        found = expect(*(torch.from_numpy(given[port.name]) for port in ports))
    kinds = {port.name: port.dtype for port in graph.outputs}
    return Case(graph, given, {name: tensor.numpy().astype(kinds[name]) for name, tensor in found.items()})


def _drawn(rng: np.random.Generator, port: Port) -> np.ndarray:
    shape = (N, *port.shape)
    if port.dtype.startswith("float"):
        return rng.normal(size=shape).astype(port.dtype)
    return rng.integers(0, 256 if port.dtype == "uint8" else 3, shape).astype(port.dtype)


def _seeded(make: Callable[[], Case]) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def _conv(builder: GraphBuilder, x: Port, layer: nn.Conv2d) -> Port:
    rows, cols = (
        (n + 2 * p - k) // s + 1  # type: ignore[operator]
        for n, p, k, s in zip(x.shape[1:], layer.padding, layer.kernel_size, layer.stride, strict=True)
    )
    weights = {name: array(tensor) for name, tensor in layer.named_parameters()}
    groups = layer.groups if layer.groups > 1 else None
    sides = {"stride": layer.stride, "padding": layer.padding, "groups": groups}
    return builder.add("conv2d", x, (layer.out_channels, rows, cols), **sides, **weights)


def _pool(builder: GraphBuilder, x: Port, kernel: Any, stride: Any, padding: Any) -> Port:
    size = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(x.shape[1:], kernel, stride, padding, strict=True)]
    return builder.add("max_pool2d", x, (x.shape[0], *size), kernel=kernel, stride=stride, padding=padding)


def _gemm(builder: GraphBuilder, x: Port, layer: nn.Linear) -> Port:
    bias = None if layer.bias is None else array(layer.bias)
    return builder.add("gemm", x, (*x.shape[:-1], layer.out_features), weight=array(layer.weight), bias=bias)


def _deep_convolutions() -> Case:
    """Strides, padding, no bias, wide layers behind a ReLU, pooling, and a product wide enough to look for zeros."""
    first, second = nn.Conv2d(3, 16, (3, 2), (2, 1), (1, 1), bias=False), nn.Conv2d(16, 18, 3, (1, 2), (0, 1))
    last = nn.Linear(18 * 4 * 5, 48)

    def build(builder: GraphBuilder, x: Port) -> dict[str, Port]:
        a = builder.add("relu", _conv(builder, x, first))
        b = builder.add("relu", _conv(builder, a, second))
        return {"map": b, "action": _gemm(builder, builder.flat(b), last)}

    def expect(x: Tensor) -> dict[str, Tensor]:
        b = second(first(x).relu()).relu()
        return {"map": b, "action": last(b.flatten(1))}

    return _case([Port("obs", (3, 11, 9))], build, expect)


def _bytes_in_both_orders() -> Case:
    """An image with the channels last, and one with them first, as bytes: convolved, pooled, and read flat."""
    conv, flat = nn.Conv2d(3, 5, 3, 2, 1), nn.Linear(3 * 7 * 6, 4)

    def build(builder: GraphBuilder, last: Port, first: Port) -> dict[str, Port]:
        a = builder.add("channels_first", builder.cast(last, "float32"), (3, 7, 6))
        b = builder.add("scale", builder.cast(first, "float32"), divisor=255.0)
        a = builder.add("scale", a, divisor=255.0)
        pooled = _pool(builder, a, (2, 3), (2, 2), (1, 0))
        found = {"conv_last": _conv(builder, a, conv), "conv_first": _conv(builder, b, conv), "pooled": pooled}
        return {
            "action": _gemm(builder, builder.flat(a), flat),
            "again": _gemm(builder, builder.flat(b), flat),
            **found,
        }

    def expect(last: Tensor, first: Tensor) -> dict[str, Tensor]:
        a, b = last.permute(0, 3, 1, 2).float() / 255, first.float() / 255
        pooled = F.pad(a, (0, 0, 1, 1), value=-torch.inf).unfold(2, 2, 2).unfold(3, 3, 2).amax((4, 5))
        found = {"conv_last": conv(a), "conv_first": conv(b), "pooled": pooled}
        return {"action": flat(a.flatten(1)), "again": flat(b.flatten(1)), **found}

    return _case([Port("last", (7, 6, 3), "uint8"), Port("first", (3, 7, 6), "uint8")], build, expect)


def _pooling() -> Case:
    """Windows that overlap, over numbers below zero, on planes and behind a convolution."""
    conv = nn.Conv2d(2, 3, 2)

    def build(builder: GraphBuilder, x: Port) -> dict[str, Port]:
        minus = builder.add("clip", x, low=np.array(-9.0, np.float32), high=np.array(-0.5, np.float32))
        after = _pool(builder, _conv(builder, minus, conv), (2, 2), (1, 1), (1, 1))
        return {"action": _pool(builder, minus, (3, 3), (2, 1), (1, 1)), "after": after}

    def expect(x: Tensor) -> dict[str, Tensor]:
        minus = x.clamp(-9.0, -0.5)
        return {"action": F.max_pool2d(minus, 3, (2, 1), 1), "after": F.max_pool2d(conv(minus), 2, 1, 1)}

    return _case([Port("obs", (2, 6, 5))], build, expect)


def _pieces() -> Case:
    """Maps and vectors side by side, cut inside and across them, behind a convolution and before it."""
    conv, norm, mix = nn.Conv2d(2, 3, 2), nn.LayerNorm(12), nn.Linear(12 + 4, 6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)

    def build(builder: GraphBuilder, x: Port, y: Port) -> dict[str, Port]:
        z = builder.flat(_conv(builder, x, conv))
        both = builder.concat([z, y])
        parts = {
            "across": builder.slice(both, 10, 14),
            "inside": builder.slice(both, 2, 5),
            "rest": builder.slice(both, 12, 16),
        }
        image = builder.reshape(builder.slice(builder.concat([y, builder.flat(x)]), 4, 22), (2, 3, 3))
        normed = builder.add("layer_norm", z, eps=0.1, weight=array(norm.weight), bias=array(norm.bias))
        doubled = builder.add("tanh", builder.concat([z, z]))
        found = {"again": _conv(builder, image, conv), "normed": normed, "doubled": doubled}
        return {"action": _gemm(builder, both, mix), **parts, **found}

    def expect(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        z = conv(x).flatten(1)
        both = torch.cat([z, y], 1)
        normed = F.layer_norm(z, (12,), norm.weight, norm.bias, 0.1)
        parts = {"across": both[:, 10:14], "inside": both[:, 2:5], "rest": y}
        found = {"again": conv(x), "normed": normed, "doubled": torch.cat([z, z], 1).tanh()}
        return {"action": mix(both), **parts, **found}

    return _case([Port("x", (2, 3, 3)), Port("y", (4,))], build, expect)


def _each_number() -> Case:
    """Numbers one by one, in the order of the channels and in another, with one setting for each."""
    rng = np.random.default_rng(1)
    mean, scale = rng.normal(size=(2, 3, 4)), rng.uniform(0.5, 2.0, (2, 3, 4))
    low, high = (rng.normal(size=24).astype(np.float32) + d for d in (-1, 1))
    half, middle = rng.normal(size=(2, 24)).astype(np.float32)

    def build(builder: GraphBuilder, x: Port) -> dict[str, Port]:
        a = builder.add("channels_first", builder.cast(x, "float64"), (2, 3, 4))
        a = builder.cast(builder.add("normalize", a, mean=mean, scale=scale, clip=1.2), "float32")
        b = builder.add("clip", builder.flat(a), low=low.astype(np.float32), high=high.astype(np.float32))
        c = builder.add("unscale", b, half=half, middle=middle)
        return {"action": c, "normalized": a, "ints": builder.cast(c, "int32")}

    def expect(x: Tensor) -> dict[str, Tensor]:
        a = ((x.permute(0, 3, 1, 2).double() - torch.tensor(mean)) / torch.tensor(scale)).clamp(-1.2, 1.2).float()
        b = a.flatten(1).clamp(torch.tensor(low), torch.tensor(high))
        c = b * torch.tensor(half) + torch.tensor(middle)
        return {"action": c, "normalized": a, "ints": c.int()}

    return _case([Port("obs", (3, 4, 2))], build, expect)


def _cells(bias: bool) -> Case:
    """Cells behind a wide ReLU, the second reading a part of the state, both giving a part of it."""
    first, gru, lstm = nn.Linear(7, 96), nn.GRUCell(96, 60, bias), nn.LSTMCell(60, 50, bias)

    def build(builder: GraphBuilder, x: Port, state: Port) -> dict[str, Port]:
        a = builder.add("relu", _gemm(builder, x, first))
        weights = [{name: array(t) for name, t in cell.named_parameters()} for cell in (gru, lstm)]
        h = builder.add("gru_cell", (a, builder.slice(state, 0, 60)), (60,), **weights[0])
        before = builder.slice(state, 60, 110), builder.slice(state, 110, 160)
        y, c = builder.add_pair("lstm_cell", (h, *before), (50,), **weights[1])
        return {"action": y, "state_out": builder.concat([h, y, c])}

    def expect(x: Tensor, state: Tensor) -> dict[str, Tensor]:
        h = gru(first(x).relu(), state[:, :60])
        y, c = lstm(h, (state[:, 60:110], state[:, 110:]))
        return {"action": y, "state_out": torch.cat([h, y, c], 1)}

    return _case([Port("obs", (7,)), Port("state_in", (160,))], build, expect)


def _integers() -> Case:
    """One-hot integers of several kinds, some outside their range, and a choice counted from a number."""

    def build(builder: GraphBuilder, x: Port, y: Port) -> dict[str, Port]:
        a = builder.add("one_hot", x, (5,), "float32", sizes=(2, 3), start=0)
        b = builder.add("one_hot", builder.cast(y, "int64"), (4,), "float32", sizes=(4,), start=-1)
        best = builder.add("argmax", builder.concat([a, b]), (), "int64", start=-3)
        return {"action": builder.cast(best, "int32"), "a": a, "b": b}

    def expect(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        a = torch.cat([x[:, :1] == torch.arange(2), x[:, 1:] == torch.arange(3)], 1).float()
        b = (y.long()[:, None] == torch.arange(-1, 3)).float()
        return {"action": torch.cat([a, b], 1).argmax(1) - 3, "a": a, "b": b}

    return _case([Port("x", (2,), "int64"), Port("y", (), "int32")], build, expect)


def _one_channel() -> Case:
    """Images of one channel and of one pixel, for which both orders are one."""
    conv, point = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, (2, 1))

    def build(builder: GraphBuilder, x: Port) -> dict[str, Port]:
        a = builder.add("channels_first", x, (1, 4, 3))
        b = _conv(builder, _conv(builder, a, conv), point)
        return {"action": builder.add("tanh", builder.flat(b))}

    def expect(x: Tensor) -> dict[str, Tensor]:
        return {"action": point(conv(x.permute(0, 3, 1, 2))).tanh().flatten(1)}

    return _case([Port("obs", (4, 3, 1))], build, expect)


def _through() -> Case:
    """Nothing is done: the observation itself, twice, and a constant."""
    value = np.array([1.5, -2.0], np.float32)

    def build(builder: GraphBuilder, x: Port) -> dict[str, Port]:
        first = builder.reshape(x, (2, 2))
        constant = builder.add("repeat", builder.slice(x, 0, 2), value=value)
        return {"action": first, "same": builder.add("identity", x), "constant": constant}

    def expect(x: Tensor) -> dict[str, Tensor]:
        return {"action": x.view(-1, 2, 2), "same": x, "constant": torch.tensor(value).expand(len(x), 2)}

    return _case([Port("obs", (4,))], build, expect)


def _sums() -> Case:
    """Sums of maps in one order and in two, of a value with itself, and of one that is needed again."""
    conv, same = nn.Conv2d(2, 3, 3, 1, 1), nn.Linear(20, 20)

    def build(builder: GraphBuilder, x: Port, y: Port) -> dict[str, Port]:
        a = _conv(builder, x, conv)
        b = builder.add("relu", _conv(builder, x, conv))
        cut = builder.reshape(builder.slice(builder.concat([y, builder.flat(x)]), 0, 60), (3, 4, 5))
        c = builder.add("add", (y, builder.add("tanh", _gemm(builder, y, same))))
        twice = builder.add("add", (c, c))
        found = {
            "maps": builder.add("add", (a, b)),
            "orders": builder.add("add", (a, cut)),
            "other": builder.add("add", (cut, a)),
        }
        return {"action": twice, "once": c, "kept": a, **found}

    def expect(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        a, c = conv(x), y + same(y).tanh()
        cut = torch.cat([y, x.flatten(1)], 1)[:, :60].view(-1, 3, 4, 5)
        return {"action": 2 * c, "once": c, "kept": a, "maps": a + a.relu(), "orders": a + cut, "other": a + cut}

    return _case([Port("x", (2, 4, 5)), Port("y", (20,))], build, expect)


def _groups() -> Case:
    """Convolutions of each channel alone, padded and with steps, of bytes in both orders, of one channel and one pixel;
    and of groups of channels.
    """
    alone, wide = nn.Conv2d(4, 4, (3, 2), (2, 1), (1, 1), groups=4), nn.Conv2d(4, 6, 3, groups=2, bias=False)
    single, point = nn.Conv2d(1, 1, 2), nn.Conv2d(4, 4, 1, groups=4, bias=False)

    def build(builder: GraphBuilder, first: Port, last: Port) -> dict[str, Port]:
        a = builder.add("scale", builder.cast(first, "float32"), divisor=255.0)
        b = builder.add("channels_first", builder.cast(last, "float32"), (4, 5, 6))
        c = builder.add("relu", _conv(builder, b, alone))
        d = builder.reshape(builder.slice(builder.flat(a), 0, 30), (1, 5, 6))
        e = builder.reshape(builder.slice(builder.flat(a), 0, 4), (4, 1, 1))
        maps = {"bytes": _conv(builder, a, alone), "again": _conv(builder, c, point), "wide": _conv(builder, a, wide)}
        return {"action": c, **maps, "single": _conv(builder, d, single), "pixel": _conv(builder, e, point), "same": a}

    def expect(first: Tensor, last: Tensor) -> dict[str, Tensor]:
        a, b = first.float() / 255, last.permute(0, 3, 1, 2).float()
        c, flat = alone(b).relu(), a.flatten(1)
        maps = {"bytes": alone(a), "again": point(c), "wide": wide(a), "same": a}
        few = {"single": single(flat[:, :30].view(-1, 1, 5, 6)), "pixel": point(flat[:, :4].view(-1, 4, 1, 1))}
        return {"action": c, **maps, **few}

    return _case([Port("first", (4, 5, 6), "uint8"), Port("last", (5, 6, 4), "uint8")], build, expect)


def _rows() -> Case:
    """Rows through a layer and a norm, attending to others, with and without a place that does not count."""
    layer, norm = nn.Linear(6, 8, bias=False), nn.LayerNorm(8)
    nn.init.normal_(norm.weight)

    def build(builder: GraphBuilder, x: Port, y: Port, b: Port, valid: Port) -> dict[str, Port]:
        a = _gemm(builder, x, layer)
        n = builder.add("layer_norm", a, eps=0.1, weight=array(norm.weight), bias=array(norm.bias))
        q = _gemm(builder, y, layer)
        seen = builder.add("attention", (q, a, n), heads=2)
        places = builder.concat([builder.slice(valid, 0, 2), builder.add("threshold", builder.slice(valid, 2, 5))])
        masked = builder.add("attention", (q, a, n, b, places), heads=2)
        return {
            "action": builder.add("mean", builder.flat(seen), (8,), groups=2),
            "normed": n,
            "seen": seen,
            "masked": masked,
        }

    def expect(x: Tensor, y: Tensor, b: Tensor, valid: Tensor) -> dict[str, Tensor]:
        a, q = layer(x), layer(y)
        n = F.layer_norm(a, (8,), norm.weight, norm.bias, 0.1)
        q, k, v = (t.unflatten(2, (2, 4)).transpose(1, 2) for t in (q, a, n))
        places = torch.cat([valid[:, :2], (valid[:, 2:] > 0).float()], 1)
        bias = b.masked_fill((places == 0)[:, None, None], -torch.inf)
        seen, masked = (
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2) for mask in (None, bias)
        )
        return {"action": seen.mean(1), "normed": n, "seen": seen, "masked": masked}

    ports = [Port("x", (5, 6)), Port("y", (2, 6)), Port("b", (2, 2, 5)), Port("valid", (5,), "float32")]
    return _case(ports, build, expect)


CASES: dict[str, Callable[[], Case]] = {
    "deep_convolutions": lambda: _seeded(_deep_convolutions),
    "bytes_in_both_orders": lambda: _seeded(_bytes_in_both_orders),
    "pooling": lambda: _seeded(_pooling),
    "pieces": lambda: _seeded(_pieces),
    "each_number": lambda: _seeded(_each_number),
    "cells": lambda: _seeded(lambda: _cells(True)),
    "cells_no_bias": lambda: _seeded(lambda: _cells(False)),
    "one_hot": lambda: _seeded(_integers),
    "one_channel": lambda: _seeded(_one_channel),
    "sums": lambda: _seeded(_sums),
    "groups": lambda: _seeded(_groups),
    "rows": lambda: _seeded(_rows),
    "through": lambda: _seeded(_through),
}
