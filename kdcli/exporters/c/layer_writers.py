"""The C statements of layers of real numbers: products, convolutions, cells, activations.

Products are written by `product` alone, from weights (I, O): another form of weights is another such function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kdcli.exporters.c.block_writers import tables
from kdcli.exporters.c.sheet import Sheet, number
from kdcli.exporters.c.values import ACTIVATIONS, Step, Value


def copied(sheet: Sheet, x: Value, y: Value) -> None:
    if sheet.at(x) != sheet.at(y):
        sheet.each(y.size, f"{sheet.item(y)} = {sheet.item(x)};")


def _begin(sheet: Sheet, name: str, bias: np.ndarray | None, y: Value) -> None:
    """y = bias, or zeros."""
    first = "0.0f" if bias is None else f"{sheet.table(f'{name}_bias', bias)}[i]"
    sheet.each(y.size, f"{sheet.item(y)} = {first};")


def product(sheet: Sheet, name: str, x: Value, weight: np.ndarray, y: str, search: tuple[Value, ...]) -> None:
    """y (O,) += x (I,) times weight (I, O); with memory to search for what is not 0 in x, only that."""
    n, m = weight.shape
    table = sheet.table(name, np.ascontiguousarray(weight))
    if not search:
        sheet.call("dense", n, m, sheet.at(x), table, y)
        return
    values, places = map(sheet.at, search)
    sheet.used |= {"nonzero", "sparse"}
    sheet.add(f"sparse(nonzero({n}, {sheet.at(x)}, {values}, {places}), {m}, {values}, {places}, {table}, {y});")


def _gemm(sheet: Sheet, step: Step) -> None:
    name, (n, m) = step.y.root, step.weights["weight"].shape
    if step.y.size > m:
        sheet.call("dense_rows", step.y.size // m, n, m, sheet.at(step.x), *tables(sheet, step), sheet.at(step.y))
        return
    _begin(sheet, name, step.weights.get("bias"), step.y)
    product(sheet, f"{name}_weight", step.x, step.weights["weight"], sheet.at(step.y), step.scratch)


def _conv2d(sheet: Sheet, step: Step) -> None:
    name, out = step.y.root, step.attrs["out"]
    window = sheet.window(f"{name}_window", step.attrs["window"].values())
    weight = sheet.table(f"{name}_weight", np.ascontiguousarray(step.weights["weight"]))
    bias = sheet.table(f"{name}_bias", step.weights.get("bias", np.zeros(out, np.float32)))
    source = "uint8_t" if step.x.divisor else "float"
    function = f"convolve_{source}" if len(step.scratch) == 2 else "convolve_sparse"
    places = [sheet.at(value) for value in step.scratch]
    sheet.call(function, window, out, sheet.at(step.x), weight, bias, sheet.at(step.y), *places)


def _max_pool2d(sheet: Sheet, step: Step) -> None:
    window = sheet.window(f"{step.y.root}_window", step.attrs["window"].values())
    sheet.call("max_pool", window, sheet.at(step.x), sheet.at(step.y))


def _gru_cell(sheet: Sheet, step: Step) -> None:
    """The sums lie as a_n, r, z, b_n: what x gives are the first three, what h gives the last three."""
    (x, h), y, sums, name = step.inputs, step.y, step.scratch[0], step.y.root
    n, weights = y.size, step.weights
    from_x, from_h = (np.split(weights[f"weight_{side}"], 3) for side in ("ih", "hh"))
    _begin(sheet, name, _gru_bias(weights, n), sums)
    weight = np.concatenate([from_x[2], *from_x[:2]]).T
    product(sheet, f"{name}_weight_ih", x, weight, sheet.at(sums), step.scratch[1:])
    rest = [_part(sums, n, k) for k in range(4)]
    product(sheet, f"{name}_weight_hh", h, np.concatenate(from_h).T, sheet.at(rest[1]), ())
    sheet.call("sigmoid_each", 2 * n, sheet.at(rest[1]))
    a, r, z, b = map(sheet.item, rest)
    sheet.each(n, f"{a} += {r} * {b};")
    sheet.call("tanh_each", n, sheet.at(rest[0]))
    sheet.each(n, f"{sheet.item(y)} = (1.0f - {z}) * {a} + {z} * {sheet.item(h)};")


def _gru_bias(weights: Mapping[str, np.ndarray], n: int) -> np.ndarray | None:
    if "bias_ih" not in weights:
        return None
    a, b = weights["bias_ih"], weights["bias_hh"]
    return np.concatenate([a[2 * n :], a[: 2 * n] + b[: 2 * n], b[2 * n :]])


def _lstm_cell(sheet: Sheet, step: Step) -> None:
    """The sums lie as i, f, g, o."""
    (x, h, c), (y, y_c), sums = step.inputs, step.outputs, step.scratch[0]
    n, weights, name = y.size, step.weights, step.y.root
    bias = weights["bias_ih"] + weights["bias_hh"] if "bias_ih" in weights else None
    _begin(sheet, name, bias, sums)
    product(sheet, f"{name}_weight_ih", x, weights["weight_ih"].T, sheet.at(sums), step.scratch[1:])
    product(sheet, f"{name}_weight_hh", h, weights["weight_hh"].T, sheet.at(sums), ())
    parts = [_part(sums, n, k) for k in range(4)]
    sheet.call("sigmoid_each", 2 * n, sheet.at(sums))
    sheet.call("tanh_each", n, sheet.at(parts[2]))
    sheet.call("sigmoid_each", n, sheet.at(parts[3]))
    i, f, g, o = map(sheet.item, parts)
    sheet.each(n, f"{sheet.item(y_c)} = {f} * {sheet.item(c)} + {i} * {g};")
    copied(sheet, y_c, y)
    sheet.call("tanh_each", n, sheet.at(y))
    sheet.each(n, f"{sheet.item(y)} *= {o};")


def _part(value: Value, n: int, k: int) -> Value:
    """The k-th n numbers of a value."""
    return Value(value.root, n, value.dtype, value.start + k * n)


def _layer_norm(sheet: Sheet, step: Step) -> None:
    copied(sheet, step.x, step.y)
    weight, bias = (sheet.table(f"{step.y.root}_{key}", step.weights[key]) for key in ("weight", "bias"))
    eps = number(float(step.attrs["eps"]), "float32")
    n = step.weights["weight"].size
    sheet.call("layer_norm", step.y.size // n, n, eps, weight, bias, sheet.at(step.y))


def _activation(sheet: Sheet, step: Step) -> None:
    copied(sheet, step.x, step.y)
    sheet.call(f"{step.kind}_each", step.y.size, sheet.at(step.y))


LAYERS: Mapping[str, Callable[[Sheet, Step], None]] = {
    **dict.fromkeys(ACTIVATIONS, _activation),
    "conv2d": _conv2d,
    "gemm": _gemm,
    "gru_cell": _gru_cell,
    "layer_norm": _layer_norm,
    "lstm_cell": _lstm_cell,
    "max_pool2d": _max_pool2d,
}
