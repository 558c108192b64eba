"""One function a kind of step: the C statements that do it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from kdcli.exporters.c.block_writers import BLOCKS
from kdcli.exporters.c.layer_writers import LAYERS, copied, product
from kdcli.exporters.c.sheet import Sheet, number
from kdcli.exporters.c.values import CTYPES, Step, Value
from kdcli.exporters.c.whole_writers import WHOLE_WRITERS

Writer = Callable[[Sheet, Step], None]

# Computed in float32, the sigmoid of this is still a half; that of the next larger number is not.
HALF = float.fromhex("0x1.8p-24")
FORBIDDEN = -1e8


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
    copied(sheet, step.x, step.y)
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
    product(sheet, f"{step.y.root}_variance", squares, step.weights["variance"], sheet.at(step.y), ())
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
    **BLOCKS,
    **LAYERS,
    "argmax": _argmax,
    "cast": _cast,
    "clip": _clip,
    "concat": _concat,
    "dynamic_quantize": _dynamic_quantize,
    "expectation": _expectation,
    "give": _give,
    "group_argmax": _group_argmax,
    "gsde": _gsde,
    "mask": _mask,
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
