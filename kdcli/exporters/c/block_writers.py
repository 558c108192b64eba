"""The C statements of what blocks of layers are made of: sums, attention, convolutions of each channel alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kdcli.exporters.c.sheet import Sheet, number
from kdcli.exporters.c.values import Step


def tables(sheet: Sheet, step: Step) -> tuple[str, str]:
    """Tables of a step's weight (I, O) and its bias (O,), zeros where it has none."""
    weight = step.weights["weight"]
    bias = step.weights.get("bias", np.zeros(weight.shape[1], np.float32))
    name = step.y.root
    return sheet.table(f"{name}_weight", np.ascontiguousarray(weight)), sheet.table(f"{name}_bias", bias)


def _conv2d_alone(sheet: Sheet, step: Step) -> None:
    window = sheet.window(f"{step.y.root}_window", step.attrs["window"].values())
    sheet.call("convolve_alone", window, sheet.at(step.x), *tables(sheet, step), sheet.at(step.y))


def _add(sheet: Sheet, step: Step) -> None:
    x, y = map(sheet.item, step.inputs)
    sheet.each(step.y.size, f"{sheet.item(step.y)} = {x} + {y};")


def _attention(sheet: Sheet, step: Step) -> None:
    heads, width = step.attrs["heads"], step.attrs["width"]
    sizes = step.attrs["m"], step.attrs["n"], width, heads, number((width // heads) ** -0.5, "float32")
    places = [sheet.at(value) for value in step.inputs]
    ends = [*places, *["0"] * (5 - len(places)), sheet.at(step.scratch[0]), sheet.at(step.y)]
    sheet.call("attention", *sizes, *ends)


BLOCKS: Mapping[str, Callable[[Sheet, Step], None]] = {
    "add": _add,
    "attention": _attention,
    "conv2d_alone": _conv2d_alone,
}
