"""The C statements of layers of real numbers: products, convolutions, cells, activations.

Products are written by `product` alone, from weights (I, O): another form of weights is another such function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kdcli.exporters.c.block_writers import tables
from kdcli.exporters.c.source_builder import SourceBuilder, number
from kdcli.exporters.c.values import ACTIVATIONS, Step, Value


def copied(builder: SourceBuilder, x: Value, y: Value) -> None:
    """Write a copy of `x` to `y`, unless they share their place."""
    if builder.at(x) != builder.at(y):
        builder.each(y.size, f"{builder.item(y)} = {builder.item(x)};")


def _begin(builder: SourceBuilder, name: str, bias: np.ndarray | None, y: Value) -> None:
    """y = bias, or zeros."""
    first = "0.0f" if bias is None else f"{builder.table(f'{name}_bias', bias)}[i]"
    builder.each(y.size, f"{builder.item(y)} = {first};")


def product(builder: SourceBuilder, name: str, x: Value, weight: np.ndarray, y: str, search: tuple[Value, ...]) -> None:
    """y (O,) += x (I,) times weight (I, O); with memory to search for what is not 0 in x, only that."""
    n, m = weight.shape
    table = builder.table(name, np.ascontiguousarray(weight))
    if not search:
        builder.call("dense", n, m, builder.at(x), table, y)
        return
    values, places = map(builder.at, search)
    builder.used |= {"nonzero", "sparse"}
    builder.add(f"sparse(nonzero({n}, {builder.at(x)}, {values}, {places}), {m}, {values}, {places}, {table}, {y});")


def _gemm(builder: SourceBuilder, step: Step) -> None:
    name, (n, m) = step.y.root, step.weights["weight"].shape
    if step.y.size > m:
        builder.call(
            "dense_rows", step.y.size // m, n, m, builder.at(step.x), *tables(builder, step), builder.at(step.y)
        )
        return
    _begin(builder, name, step.weights.get("bias"), step.y)
    product(builder, f"{name}_weight", step.x, step.weights["weight"], builder.at(step.y), step.scratch)


def _conv2d(builder: SourceBuilder, step: Step) -> None:
    name, out = step.y.root, step.attrs["out"]
    window = builder.window(f"{name}_window", step.attrs["window"].values())
    weight = builder.table(f"{name}_weight", np.ascontiguousarray(step.weights["weight"]))
    bias = builder.table(f"{name}_bias", step.weights.get("bias", np.zeros(out, np.float32)))
    source = "uint8_t" if step.x.divisor else "float"
    function = f"convolve_{source}" if len(step.scratch) == 2 else "convolve_sparse"
    places = [builder.at(value) for value in step.scratch]
    builder.call(function, window, out, builder.at(step.x), weight, bias, builder.at(step.y), *places)


def _max_pool2d(builder: SourceBuilder, step: Step) -> None:
    window = builder.window(f"{step.y.root}_window", step.attrs["window"].values())
    builder.call("max_pool", window, builder.at(step.x), builder.at(step.y))


def _gru_cell(builder: SourceBuilder, step: Step) -> None:
    """The sums lie as a_n, r, z, b_n: what x gives are the first three, what h gives the last three."""
    (x, h), y, sums, name = step.inputs, step.y, step.scratch[0], step.y.root
    n, weights = y.size, step.weights
    from_x, from_h = (np.split(weights[f"weight_{side}"], 3) for side in ("ih", "hh"))
    _begin(builder, name, _gru_bias(weights, n), sums)
    weight = np.concatenate([from_x[2], *from_x[:2]]).T
    product(builder, f"{name}_weight_ih", x, weight, builder.at(sums), step.scratch[1:])
    rest = [_part(sums, n, k) for k in range(4)]
    product(builder, f"{name}_weight_hh", h, np.concatenate(from_h).T, builder.at(rest[1]), ())
    builder.call("sigmoid_each", 2 * n, builder.at(rest[1]))
    a, r, z, b = map(builder.item, rest)
    builder.each(n, f"{a} += {r} * {b};")
    builder.call("tanh_each", n, builder.at(rest[0]))
    builder.each(n, f"{builder.item(y)} = (1.0f - {z}) * {a} + {z} * {builder.item(h)};")


def _gru_bias(weights: Mapping[str, np.ndarray], n: int) -> np.ndarray | None:
    if "bias_ih" not in weights:
        return None
    a, b = weights["bias_ih"], weights["bias_hh"]
    return np.concatenate([a[2 * n :], a[: 2 * n] + b[: 2 * n], b[2 * n :]])


def _lstm_cell(builder: SourceBuilder, step: Step) -> None:
    """The sums lie as i, f, g, o."""
    (x, h, c), (y, y_c), sums = step.inputs, step.outputs, step.scratch[0]
    n, weights, name = y.size, step.weights, step.y.root
    bias = weights["bias_ih"] + weights["bias_hh"] if "bias_ih" in weights else None
    _begin(builder, name, bias, sums)
    product(builder, f"{name}_weight_ih", x, weights["weight_ih"].T, builder.at(sums), step.scratch[1:])
    product(builder, f"{name}_weight_hh", h, weights["weight_hh"].T, builder.at(sums), ())
    parts = [_part(sums, n, k) for k in range(4)]
    builder.call("sigmoid_each", 2 * n, builder.at(sums))
    builder.call("tanh_each", n, builder.at(parts[2]))
    builder.call("sigmoid_each", n, builder.at(parts[3]))
    i, f, g, o = map(builder.item, parts)
    builder.each(n, f"{builder.item(y_c)} = {f} * {builder.item(c)} + {i} * {g};")
    copied(builder, y_c, y)
    builder.call("tanh_each", n, builder.at(y))
    builder.each(n, f"{builder.item(y)} *= {o};")


def _part(value: Value, n: int, k: int) -> Value:
    """The k-th n numbers of a value."""
    return Value(value.root, n, value.dtype, value.start + k * n)


def _layer_norm(builder: SourceBuilder, step: Step) -> None:
    copied(builder, step.x, step.y)
    weight, bias = (builder.table(f"{step.y.root}_{key}", step.weights[key]) for key in ("weight", "bias"))
    eps = number(float(step.attrs["eps"]), "float32")
    n = step.weights["weight"].size
    builder.call("layer_norm", step.y.size // n, n, eps, weight, bias, builder.at(step.y))


def _activation(builder: SourceBuilder, step: Step) -> None:
    copied(builder, step.x, step.y)
    builder.call(f"{step.kind}_each", step.y.size, builder.at(step.y))


LAYERS: Mapping[str, Callable[[SourceBuilder, Step], None]] = {
    **dict.fromkeys(ACTIVATIONS, _activation),
    "conv2d": _conv2d,
    "gemm": _gemm,
    "gru_cell": _gru_cell,
    "layer_norm": _layer_norm,
    "lstm_cell": _lstm_cell,
    "max_pool2d": _max_pool2d,
}
