"""The C statements of steps on whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kdcli.exporters.c.fixed import INT32, Rescale, rescale
from kdcli.exporters.c.grids import FINE
from kdcli.exporters.c.matmul import Clamped, Finish, Scored, Stepped
from kdcli.exporters.c.source_builder import SourceBuilder, number
from kdcli.exporters.c.values import CTYPES, Step, Value


def _product(builder: SourceBuilder, step: Step) -> None:
    """A loop over the rows of weights; for a convolution, in one over its windows."""
    window, y = step.attrs["window"], step.y
    if window is None:
        lines = _rows(builder, step, step.x, builder.item(y, "o"))
        builder.add(*(lines if lines[0].startswith("for") else ["{", *_inside(lines), "}"]))
        return
    (under,) = step.scratch
    place, copy = builder.window(f"{y.root}_window", window.sizes.values()), f"under_{CTYPES[step.x.dtype]}"
    builder.used.add(copy)
    lines = _rows(builder, step, under, builder.item(y, f"k * {len(step.attrs['rows'].data)} + o"))
    copied = f"{copy}({place}, k, {builder.at(step.x)}, {builder.at(under)});"
    builder.add(f"for (int k = 0; k < {window.places}; k++) {{", *_inside([copied, *lines]), "}")


def _inside(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _rows(builder: SourceBuilder, step: Step, x: Value, item: str) -> list[str]:
    """The loop over rows, for numbers in x."""
    rows, name = step.attrs["rows"], step.y.root
    total, kind = _kind(step, x)
    table = builder.table(f"{name}_weight", rows.data)
    arguments = [step.attrs["n"], builder.at(x), f"{table} + {rows.stride} * o"]
    function, less, lines = f"{kind}_{rows.form}", "", []
    zero = _each(builder, f"{name}_zero", rows.zero.astype(np.int32))
    if rows.levels is not None:
        function += "_levels"
        arguments.append(builder.table(f"{name}_levels", rows.levels))
    elif total == "float":
        arguments.append(zero)
    elif rows.zero.any():
        builder.used.add(f"all_{kind}")
        lines.append(f"const {total} all = all_{kind}({step.attrs['n']}, {builder.at(x)});")
        less = f" - {zero} * all"
    arguments += [rows.bits] if rows.form == "bits" else []
    builder.used.add(function)
    found = f"{function}({', '.join(map(str, arguments))}){less}"
    if total == "int64_t":
        found = f"(int32_t)(({found}) >> {step.attrs['down']})"
    kept = "float" if total == "float" else "int32_t"
    done = _finished(builder, step.attrs["finish"], name, CTYPES[step.y.dtype])
    body = [f"const {kept} a = {found};", f"{item} = {done};"]
    return [*lines, f"for (int o = 0; o < {len(rows.data)}; o++) {{", *_inside(body), "}"]


def _kind(step: Step, x: Value) -> tuple[str, str]:
    """The C type of a sum, and what the functions that make such sums begin with."""
    if x.dtype == "float32":
        return "float", "real"
    wide = step.attrs["rows"].most > INT32
    return ("int64_t" if wide else "int32_t"), f"{'wide' if wide else 'dot'}_{CTYPES[x.dtype]}"


def _each(builder: SourceBuilder, name: str, array: np.ndarray) -> str:
    """C for the number that belongs to row o, or for the only one."""
    if (array == array.flat[0]).all():
        return number(array.flat[0].item(), array.dtype.name)
    return f"{builder.table(name, array)}[o]"


def _finished(builder: SourceBuilder, finish: Finish, name: str, kind: str) -> str:
    """C for what becomes of the sum a."""
    if isinstance(finish, Clamped | Stepped | Scored):
        whole = _rescaled(builder, finish.rescale, name)
        if isinstance(finish, Scored):
            return whole
        found = whole if isinstance(finish, Clamped) else _stepped(builder, finish, name, whole)
        builder.used.add("within")
        return f"({kind})within({found}, {finish.low}, {finish.high})"
    scale, bias = _each(builder, f"{name}_scale", finish.scale), _each(builder, f"{name}_bias", finish.bias)
    return f"{'' if kind == 'float' else '(float)'}a * {scale} + {bias}"


def _rescaled(builder: SourceBuilder, made: Rescale, name: str) -> str:
    builder.used.add("rescaled")
    multiplier, bias = (
        _each(builder, f"{name}_{key}", array) for key, array in (("multiplier", made.multiplier), ("bias", made.bias))
    )
    return f"rescaled(a, {multiplier}, {bias}, {made.up}, {made.shift})"


def _stepped(builder: SourceBuilder, finish: Stepped, name: str, z: str) -> str:
    function = "mirrored" if finish.odd else "reached"
    builder.used.add(function)
    found = f"{function}({z}, {len(finish.places)}, {builder.table(f'{name}_places', finish.places)})"
    return found if finish.odd else f"{found} + {finish.first}" if finish.first >= 0 else f"{found} - {-finish.first}"


def _codes(builder: SourceBuilder, step: Step) -> None:
    """As the graph has it, less the zero; clamped first, so that only small numbers are rounded."""
    x = builder.item(step.x)
    scale, low, high = (_of(builder, step, key) for key in ("scale", "low", "high"))
    builder.used.add("nearest")
    lines = [f"float v = {x} / {scale};", f"v = v < {low} ? {low} : v;", f"v = nearest(v > {high} ? {high} : v);"]
    if "fine" in step.weights:
        lines.append(f"v = nearest(v * {_of(builder, step, 'fine')});")
    lines.append(f"{builder.item(step.y)} = ({CTYPES[step.y.dtype]})v;")
    builder.add(f"for (int i = 0; i < {step.y.size}; i++) {{", *_inside(lines), "}")


def _encode(builder: SourceBuilder, step: Step) -> None:
    """By the digits of a float; on grids of their own, then in the fine steps that all share."""
    function = "units_float" if step.x.dtype == "float32" else "units_double"
    builder.used |= {function, "coded"}
    multiplier, shift, offset, low, high = (
        _of(builder, step, key) for key in ("multiplier", "shift", "offset", "low", "high")
    )
    units = f"{function}({builder.item(step.x)}, {multiplier}, {shift})"
    code, kind = f"coded({units}, {offset}, {step.attrs['up']}, {low}, {high})", CTYPES[step.y.dtype]
    if "fine" not in step.weights:
        builder.each(step.y.size, f"{builder.item(step.y)} = ({kind}){code};")
        return
    made = rescale(step.weights["fine"], np.zeros(()), (1 << FINE) / float(step.weights["fine"].max()))
    assert made is not None
    builder.used.add("rescaled")
    fine = _each(builder, f"{step.y.root}_fine", made.multiplier).replace("[o]", "[i]")
    bias = number(made.bias.item(), "int32")
    builder.each(step.y.size, f"{builder.item(step.y)} = rescaled({code}, {fine}, {bias}, {made.up}, {made.shift});")


def _of(builder: SourceBuilder, step: Step, key: str) -> str:
    """C for the number that belongs to i, or for the only one."""
    return _each(builder, f"{step.y.root}_{key}", step.weights[key]).replace("[o]", "[i]")


def _code_table(builder: SourceBuilder, step: Step) -> None:
    table = builder.table(f"{step.y.root}_table", step.weights["table"])
    builder.each(step.y.size, f"{builder.item(step.y)} = {table}[{builder.item(step.x)}];")


def _whole_to_real(builder: SourceBuilder, step: Step) -> None:
    step_ = number(float(np.float32(step.attrs["step"])), "float32")
    builder.each(step.y.size, f"{builder.item(step.y)} = (float){builder.item(step.x)} * {step_};")


WHOLE_WRITERS: Mapping[str, Callable[[SourceBuilder, Step], None]] = {
    "code_table": _code_table,
    "codes": _codes,
    "encode": _encode,
    "product": _product,
    "whole_to_real": _whole_to_real,
}
