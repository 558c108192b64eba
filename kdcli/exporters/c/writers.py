"""One function a kind of step: the C statements that do it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from kdcli.exporters.c.block_writers import BLOCKS
from kdcli.exporters.c.int_writers import WHOLE_WRITERS
from kdcli.exporters.c.layer_writers import LAYERS, copied, product
from kdcli.exporters.c.source_builder import SourceBuilder, number
from kdcli.exporters.c.values import CTYPES, Step, Value

Writer = Callable[[SourceBuilder, Step], None]

# Computed in float32, the sigmoid of this is still a half; that of the next larger number is not.
HALF = float.fromhex("0x1.8p-24")
FORBIDDEN = -1e8


def _weight(builder: SourceBuilder, step: Step, key: str) -> str:
    """C for a weight's number that belongs to i, or for its only one."""
    array = step.weights[key]
    if array.size == 1:
        return number(array.item(), array.dtype.name)
    return f"{builder.table(f'{step.y.root}_{key}', array.ravel())}[i]"


def _clip(builder: SourceBuilder, step: Step) -> None:
    y, low, high = builder.item(step.y), _weight(builder, step, "low"), _weight(builder, step, "high")
    builder.each(step.y.size, f"{y} = {builder.item(step.x)} < {low} ? {low} : {builder.item(step.x)};")
    builder.each(step.y.size, f"{y} = {y} > {high} ? {high} : {y};")


def _normalize(builder: SourceBuilder, step: Step) -> None:
    y, clip = builder.item(step.y), step.attrs["clip"]
    mean, scale = _weight(builder, step, "mean"), _weight(builder, step, "scale")
    builder.each(step.y.size, f"{y} = ({builder.item(step.x)} - {mean}) / {scale};")
    if not math.isinf(clip):
        low, high = number(-clip, "float64"), number(clip, "float64")
        builder.each(step.y.size, f"{y} = {y} < {low} ? {low} : {y} > {high} ? {high} : {y};")


def _quantize(builder: SourceBuilder, step: Step) -> None:
    """Clamped before it is rounded, which is the same for whole bounds: only small numbers are rounded."""
    y, zero = builder.item(step.y), step.weights["zero"]
    bounds = {key: (step.attrs[key] - zero).astype(np.float32) for key in ("low", "high")}
    step = replace(step, weights={"scale": step.weights["scale"], **bounds})
    scale, low, high = (_weight(builder, step, key) for key in ("scale", "low", "high"))
    builder.each(step.y.size, f"{y} = {builder.item(step.x)} / {scale};")
    builder.each(step.y.size, f"{y} = {y} < {low} ? {low} : {y};")
    builder.each(step.y.size, f"{y} = {y} > {high} ? {high} : {y};")
    builder.used.add("nearest")
    builder.each(step.y.size, f"{y} = nearest({y}) * {scale};")


def _dynamic_quantize(builder: SourceBuilder, step: Step) -> None:
    copied(builder, step.x, step.y)
    bounds = (number(step.attrs[key] - step.attrs["zero"], "float32") for key in ("low", "high"))
    builder.call("dynamic_quantize", step.y.size, *bounds, builder.at(step.y))


def _unscale(builder: SourceBuilder, step: Step) -> None:
    middle = f" + {_weight(builder, step, 'middle')}" if "middle" in step.weights else ""
    builder.each(
        step.y.size, f"{builder.item(step.y)} = {builder.item(step.x)} * {_weight(builder, step, 'half')}{middle};"
    )


def _scale(builder: SourceBuilder, step: Step) -> None:
    divisor = number(step.attrs["divisor"], step.y.dtype)
    builder.each(step.y.size, f"{builder.item(step.y)} = {builder.item(step.x)} / {divisor};")


def _cast(builder: SourceBuilder, step: Step) -> None:
    builder.each(step.y.size, f"{builder.item(step.y)} = ({CTYPES[step.y.dtype]}){builder.item(step.x)};")


def _pixels(builder: SourceBuilder, step: Step) -> None:
    divisor = step.attrs["divisor"]
    over = "" if divisor == 1.0 else f" / {number(divisor, 'float32')}"
    builder.each(step.y.size, f"{builder.item(step.y)} = (float){builder.item(step.x)}{over};")


def _threshold(builder: SourceBuilder, step: Step) -> None:
    """sigmoid(x) > 1/2, as float32 has it."""
    half = number(HALF, "float32")
    builder.each(step.y.size, f"{builder.item(step.y)} = {builder.item(step.x)} > {half} ? 1.0f : 0.0f;")


def _mask(builder: SourceBuilder, step: Step) -> None:
    (x, allowed), y, forbidden = step.inputs, builder.item(step.y), number(FORBIDDEN, "float32")
    if not step.attrs["bits"]:
        builder.each(step.y.size, f"{y} = {builder.item(allowed)} != 0 ? {builder.item(x)} : {forbidden};")
        return
    one, zero = (f"(float){builder.item(allowed, place)}" for place in ("2 * i + 1", "2 * i"))
    builder.each(step.y.size, f"{y} = {builder.item(x)} - {forbidden} * ({one} - {zero});")


def _argmax(builder: SourceBuilder, step: Step) -> None:
    _choose(builder, step, 0, step.x, step.attrs["start"])


def _group_argmax(builder: SourceBuilder, step: Step) -> None:
    start = step.x.start
    for k, size in enumerate(step.attrs["sizes"]):
        _choose(builder, step, k, replace(step.x, size=size, start=start), 0)
        start += size


def _choose(builder: SourceBuilder, step: Step, k: int, scores: Value, first: int) -> None:
    function = "argmax_whole" if step.x.dtype == "int32" else "argmax"
    builder.used.add(function)
    plus = f" + {first}" if first > 0 else f" - {-first}" if first else ""
    builder.add(f"{builder.item(step.y, str(k))} = {function}({scores.size}, {builder.at(scores)}){plus};")


def _one_hot(builder: SourceBuilder, step: Step) -> None:
    """No integer can write outside its group."""
    first, start = 0, step.attrs["start"]
    for k, size in enumerate(step.attrs["sizes"]):
        group = Value(step.y.root, size, start=step.y.start + first)
        here = f"i + {start}" if start > 0 else f"i - {-start}" if start else "i"
        builder.each(size, f"{builder.item(group)} = {builder.item(step.x, str(k))} == {here} ? 1.0f : 0.0f;")
        first += size


def _mean(builder: SourceBuilder, step: Step) -> None:
    m, n = step.y.size, step.attrs["groups"]
    y = builder.item(step.y)
    builder.each(m, f"{y} = 0.0f;")
    builder.add(f"for (int k = 0; k < {n}; k++)", f"    for (int i = 0; i < {m}; i++)")
    builder.add(f"        {y} += {builder.item(step.x, f'k * {m} + i')};")
    builder.each(m, f"{y} /= {number(n, 'float32')};")


def _expectation(builder: SourceBuilder, step: Step) -> None:
    """The largest of each group is taken from all of it first, so that no power is infinite."""
    (powers,), m, n = step.scratch, step.y.size, step.weights["atoms"].size
    x, p = builder.item(step.x, f"k * {n} + i"), builder.item(powers, f"k * {n} + i")
    atoms = builder.table(f"{step.y.root}_atoms", step.weights["atoms"])
    builder.used.add("exp_each")
    builder.add(f"for (int k = 0; k < {m}; k++) {{", f"    float top = {builder.item(step.x, f'k * {n}')};")
    builder.add(f"    for (int i = 1; i < {n}; i++)", f"        top = {x} > top ? {x} : top;")
    builder.add(f"    for (int i = 0; i < {n}; i++)", f"        {p} = {x} - top;", "}")
    builder.add(f"exp_each({m * n}, {builder.at(powers)});")
    builder.add(f"for (int k = 0; k < {m}; k++) {{", "    float sum = 0.0f, mean = 0.0f;")
    builder.add(f"    for (int i = 0; i < {n}; i++) {{", f"        sum += {p};", f"        mean += {p} * {atoms}[i];")
    builder.add("    }", f"    {builder.item(step.y, 'k')} = mean / sum;", "}")


def _gsde(builder: SourceBuilder, step: Step) -> None:
    (squares,), y, x = step.scratch, builder.item(step.y), builder.item(step.x)
    builder.each(step.x.size, f"{builder.item(squares)} = {x} * {x};")
    builder.each(step.y.size, f"{y} = 1e-06f;")
    product(builder, f"{step.y.root}_variance", squares, step.weights["variance"], builder.at(step.y), ())
    builder.used.add("log_of")
    builder.each(step.y.size, f"{y} = 0.5f * log_of({y});")


def _repeat(builder: SourceBuilder, step: Step) -> None:
    value = np.broadcast_to(step.weights["value"], step.y.size).astype(step.y.dtype)
    builder.each(step.y.size, f"{builder.item(step.y)} = {builder.table(f'{step.y.root}_value', value)}[i];")


def _concat(builder: SourceBuilder, step: Step) -> None:
    first = step.y.start
    for part in step.inputs:
        place = Value(step.y.root, part.size, step.y.dtype, first)
        builder.each(part.size, f"{builder.item(place)} = {builder.item(part)};")
        first += part.size


def _take(builder: SourceBuilder, step: Step) -> None:
    places = builder.table(f"{step.y.root}_places", step.attrs["places"].astype(np.int32))
    builder.each(step.y.size, f"{builder.item(step.y)} = {builder.item(step.x, f'{places}[i]')};")


def _give(builder: SourceBuilder, step: Step) -> None:
    builder.each(step.x.size, f"{builder.outputs[step.attrs['port']]}[i] = {builder.item(step.x)};")


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
