"""One function a kind of step: the C statements that do it.

Products are written by `_product` alone, from weights (I, O): another form of weights is another such function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from kdcli.exporters.c.block_writers import BLOCKS, tables
from kdcli.exporters.c.sheet import Sheet, number
from kdcli.exporters.c.values import ACTIVATIONS, CTYPES, Step, Value
from kdcli.exporters.c.whole_writers import WHOLE_WRITERS

Writer = Callable[[Sheet, Step], None]

# Computed in float32, the sigmoid of this is still a half; that of the next larger number is not.
HALF = float.fromhex("0x1.8p-24")
FORBIDDEN = -1e8


def _copy(sheet: Sheet, x: Value, y: Value) -> None:
    if sheet.at(x) != sheet.at(y):
        sheet.each(y.size, f"{sheet.item(y)} = {sheet.item(x)};")


def _begin(sheet: Sheet, name: str, bias: np.ndarray | None, y: Value) -> None:
    """y = bias, or zeros."""
    first = "0.0f" if bias is None else f"{sheet.table(f'{name}_bias', bias)}[i]"
    sheet.each(y.size, f"{sheet.item(y)} = {first};")


def _product(sheet: Sheet, name: str, x: Value, weight: np.ndarray, y: str, search: tuple[Value, ...]) -> None:
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
    _product(sheet, f"{name}_weight", step.x, step.weights["weight"], sheet.at(step.y), step.scratch)


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
    _product(sheet, f"{name}_weight_ih", x, weight, sheet.at(sums), step.scratch[1:])
    rest = [_part(sums, n, k) for k in range(4)]
    _product(sheet, f"{name}_weight_hh", h, np.concatenate(from_h).T, sheet.at(rest[1]), ())
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
    _product(sheet, f"{name}_weight_ih", x, weights["weight_ih"].T, sheet.at(sums), step.scratch[1:])
    _product(sheet, f"{name}_weight_hh", h, weights["weight_hh"].T, sheet.at(sums), ())
    parts = [_part(sums, n, k) for k in range(4)]
    sheet.call("sigmoid_each", 2 * n, sheet.at(sums))
    sheet.call("tanh_each", n, sheet.at(parts[2]))
    sheet.call("sigmoid_each", n, sheet.at(parts[3]))
    i, f, g, o = map(sheet.item, parts)
    sheet.each(n, f"{sheet.item(y_c)} = {f} * {sheet.item(c)} + {i} * {g};")
    _copy(sheet, y_c, y)
    sheet.call("tanh_each", n, sheet.at(y))
    sheet.each(n, f"{sheet.item(y)} *= {o};")


def _part(value: Value, n: int, k: int) -> Value:
    """The k-th n numbers of a value."""
    return Value(value.root, n, value.dtype, value.start + k * n)


def _layer_norm(sheet: Sheet, step: Step) -> None:
    _copy(sheet, step.x, step.y)
    weight, bias = (sheet.table(f"{step.y.root}_{key}", step.weights[key]) for key in ("weight", "bias"))
    eps = number(float(step.attrs["eps"]), "float32")
    n = step.weights["weight"].size
    sheet.call("layer_norm", step.y.size // n, n, eps, weight, bias, sheet.at(step.y))


def _activation(sheet: Sheet, step: Step) -> None:
    _copy(sheet, step.x, step.y)
    sheet.call(f"{step.kind}_each", step.y.size, sheet.at(step.y))


def _weight(sheet: Sheet, step: Step, key: str) -> str:
    """C for a weight's number that belongs to i, or for its only one."""
    array = step.weights[key]
    if array.size == 1:
        return number(array.item(), array.dtype.name)
    return f"{sheet.table(f'{step.y.root}_{key}', array.ravel())}[i]"


def _clip(sheet: Sheet, step: Step) -> None:
    y, low, high = sheet.item(step.y), _weight(sheet, step, "low"), _weight(sheet, step, "high")
    sheet.each(step.y.size, f"{y} = {sheet.item(step.x)} < {low} ? {low} : {sheet.item(step.x)};")
    sheet.each(step.y.size, f"{y} = {y} > {high} ? {high} : {y};")


def _normalize(sheet: Sheet, step: Step) -> None:
    y, clip = sheet.item(step.y), step.attrs["clip"]
    mean, scale = _weight(sheet, step, "mean"), _weight(sheet, step, "scale")
    sheet.each(step.y.size, f"{y} = ({sheet.item(step.x)} - {mean}) / {scale};")
    if not math.isinf(clip):
        low, high = number(-clip, "float64"), number(clip, "float64")
        sheet.each(step.y.size, f"{y} = {y} < {low} ? {low} : {y} > {high} ? {high} : {y};")


def _quantize(sheet: Sheet, step: Step) -> None:
    """Clamped before it is rounded, which is the same for whole bounds: only small numbers are rounded."""
    y, zero = sheet.item(step.y), step.weights["zero"]
    bounds = {key: (step.attrs[key] - zero).astype(np.float32) for key in ("low", "high")}
    step = replace(step, weights={"scale": step.weights["scale"], **bounds})
    scale, low, high = (_weight(sheet, step, key) for key in ("scale", "low", "high"))
    sheet.each(step.y.size, f"{y} = {sheet.item(step.x)} / {scale};")
    sheet.each(step.y.size, f"{y} = {y} < {low} ? {low} : {y};")
    sheet.each(step.y.size, f"{y} = {y} > {high} ? {high} : {y};")
    sheet.used.add("nearest")
    sheet.each(step.y.size, f"{y} = nearest({y}) * {scale};")


def _dynamic_quantize(sheet: Sheet, step: Step) -> None:
    _copy(sheet, step.x, step.y)
    bounds = (number(step.attrs[key] - step.attrs["zero"], "float32") for key in ("low", "high"))
    sheet.call("dynamic_quantize", step.y.size, *bounds, sheet.at(step.y))


def _unscale(sheet: Sheet, step: Step) -> None:
    middle = f" + {_weight(sheet, step, 'middle')}" if "middle" in step.weights else ""
    sheet.each(step.y.size, f"{sheet.item(step.y)} = {sheet.item(step.x)} * {_weight(sheet, step, 'half')}{middle};")


def _scale(sheet: Sheet, step: Step) -> None:
    divisor = number(step.attrs["divisor"], step.y.dtype)
    sheet.each(step.y.size, f"{sheet.item(step.y)} = {sheet.item(step.x)} / {divisor};")


def _cast(sheet: Sheet, step: Step) -> None:
    sheet.each(step.y.size, f"{sheet.item(step.y)} = ({CTYPES[step.y.dtype]}){sheet.item(step.x)};")


def _pixels(sheet: Sheet, step: Step) -> None:
    divisor = step.attrs["divisor"]
    over = "" if divisor == 1.0 else f" / {number(divisor, 'float32')}"
    sheet.each(step.y.size, f"{sheet.item(step.y)} = (float){sheet.item(step.x)}{over};")


def _threshold(sheet: Sheet, step: Step) -> None:
    """sigmoid(x) > 1/2, as float32 has it."""
    half = number(HALF, "float32")
    sheet.each(step.y.size, f"{sheet.item(step.y)} = {sheet.item(step.x)} > {half} ? 1.0f : 0.0f;")


def _mask(sheet: Sheet, step: Step) -> None:
    (x, allowed), y, forbidden = step.inputs, sheet.item(step.y), number(FORBIDDEN, "float32")
    if not step.attrs["bits"]:
        sheet.each(step.y.size, f"{y} = {sheet.item(allowed)} != 0 ? {sheet.item(x)} : {forbidden};")
        return
    one, zero = (f"(float){sheet.item(allowed, place)}" for place in ("2 * i + 1", "2 * i"))
    sheet.each(step.y.size, f"{y} = {sheet.item(x)} - {forbidden} * ({one} - {zero});")


def _argmax(sheet: Sheet, step: Step) -> None:
    _choose(sheet, step, 0, step.x, step.attrs["start"])


def _group_argmax(sheet: Sheet, step: Step) -> None:
    start = step.x.start
    for k, size in enumerate(step.attrs["sizes"]):
        _choose(sheet, step, k, replace(step.x, size=size, start=start), 0)
        start += size


def _choose(sheet: Sheet, step: Step, k: int, scores: Value, first: int) -> None:
    function = "argmax_whole" if step.x.dtype == "int32" else "argmax"
    sheet.used.add(function)
    plus = f" + {first}" if first > 0 else f" - {-first}" if first else ""
    sheet.add(f"{sheet.item(step.y, str(k))} = {function}({scores.size}, {sheet.at(scores)}){plus};")


def _one_hot(sheet: Sheet, step: Step) -> None:
    """No integer can write outside its group."""
    first, start = 0, step.attrs["start"]
    for k, size in enumerate(step.attrs["sizes"]):
        group = Value(step.y.root, size, start=step.y.start + first)
        here = f"i + {start}" if start > 0 else f"i - {-start}" if start else "i"
        sheet.each(size, f"{sheet.item(group)} = {sheet.item(step.x, str(k))} == {here} ? 1.0f : 0.0f;")
        first += size


def _mean(sheet: Sheet, step: Step) -> None:
    m, n = step.y.size, step.attrs["groups"]
    y = sheet.item(step.y)
    sheet.each(m, f"{y} = 0.0f;")
    sheet.add(f"for (int k = 0; k < {n}; k++)", f"    for (int i = 0; i < {m}; i++)")
    sheet.add(f"        {y} += {sheet.item(step.x, f'k * {m} + i')};")
    sheet.each(m, f"{y} /= {number(n, 'float32')};")


def _expectation(sheet: Sheet, step: Step) -> None:
    """The largest of each group is taken from all of it first, so that no power is infinite."""
    (powers,), m, n = step.scratch, step.y.size, step.weights["atoms"].size
    x, p = sheet.item(step.x, f"k * {n} + i"), sheet.item(powers, f"k * {n} + i")
    atoms = sheet.table(f"{step.y.root}_atoms", step.weights["atoms"])
    sheet.used.add("exp_each")
    sheet.add(f"for (int k = 0; k < {m}; k++) {{", f"    float top = {sheet.item(step.x, f'k * {n}')};")
    sheet.add(f"    for (int i = 1; i < {n}; i++)", f"        top = {x} > top ? {x} : top;")
    sheet.add(f"    for (int i = 0; i < {n}; i++)", f"        {p} = {x} - top;", "}")
    sheet.add(f"exp_each({m * n}, {sheet.at(powers)});")
    sheet.add(f"for (int k = 0; k < {m}; k++) {{", "    float sum = 0.0f, mean = 0.0f;")
    sheet.add(f"    for (int i = 0; i < {n}; i++) {{", f"        sum += {p};", f"        mean += {p} * {atoms}[i];")
    sheet.add("    }", f"    {sheet.item(step.y, 'k')} = mean / sum;", "}")


def _gsde(sheet: Sheet, step: Step) -> None:
    (squares,), y, x = step.scratch, sheet.item(step.y), sheet.item(step.x)
    sheet.each(step.x.size, f"{sheet.item(squares)} = {x} * {x};")
    sheet.each(step.y.size, f"{y} = 1e-06f;")
    _product(sheet, f"{step.y.root}_variance", squares, step.weights["variance"], sheet.at(step.y), ())
    sheet.used.add("log_of")
    sheet.each(step.y.size, f"{y} = 0.5f * log_of({y});")


def _repeat(sheet: Sheet, step: Step) -> None:
    value = np.broadcast_to(step.weights["value"], step.y.size).astype(step.y.dtype)
    sheet.each(step.y.size, f"{sheet.item(step.y)} = {sheet.table(f'{step.y.root}_value', value)}[i];")


def _concat(sheet: Sheet, step: Step) -> None:
    first = step.y.start
    for part in step.inputs:
        place = Value(step.y.root, part.size, step.y.dtype, first)
        sheet.each(part.size, f"{sheet.item(place)} = {sheet.item(part)};")
        first += part.size


def _take(sheet: Sheet, step: Step) -> None:
    places = sheet.table(f"{step.y.root}_places", step.attrs["places"].astype(np.int32))
    sheet.each(step.y.size, f"{sheet.item(step.y)} = {sheet.item(step.x, f'{places}[i]')};")


def _give(sheet: Sheet, step: Step) -> None:
    sheet.each(step.x.size, f"{sheet.outputs[step.attrs['port']]}[i] = {sheet.item(step.x)};")


WRITERS: Mapping[str, Writer] = {
    **WHOLE_WRITERS,
    **dict.fromkeys(ACTIVATIONS, _activation),
    **BLOCKS,
    "argmax": _argmax,
    "cast": _cast,
    "clip": _clip,
    "concat": _concat,
    "conv2d": _conv2d,
    "dynamic_quantize": _dynamic_quantize,
    "expectation": _expectation,
    "gemm": _gemm,
    "give": _give,
    "group_argmax": _group_argmax,
    "gru_cell": _gru_cell,
    "gsde": _gsde,
    "layer_norm": _layer_norm,
    "lstm_cell": _lstm_cell,
    "mask": _mask,
    "max_pool2d": _max_pool2d,
    "mean": _mean,
    "normalize": _normalize,
    "one_hot": _one_hot,
    "pixels": _pixels,
    "quantize": _quantize,
    "repeat": _repeat,
    "scale": _scale,
    "take": _take,
    "threshold": _threshold,
    "unscale": _unscale,
}
