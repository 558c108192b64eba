"""The C statements of what blocks of layers are made of: sums, attention, convolutions of each channel alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kdcli.exporters.c.source_builder import SourceBuilder, number
from kdcli.exporters.c.values import Step


def tables(builder: SourceBuilder, step: Step) -> tuple[str, str]:
    """Tables of a step's weight (I, O) and its bias (O,), zeros where it has none."""
    weight = step.weights["weight"]
    bias = step.weights.get("bias", np.zeros(weight.shape[1], np.float32))
    name = step.y.root
    return builder.table(f"{name}_weight", np.ascontiguousarray(weight)), builder.table(f"{name}_bias", bias)


def _conv2d_alone(builder: SourceBuilder, step: Step) -> None:
    window = builder.window(f"{step.y.root}_window", step.attrs["window"].values())
    builder.call("convolve_alone", window, builder.at(step.x), *tables(builder, step), builder.at(step.y))


def _add(builder: SourceBuilder, step: Step) -> None:
    x, y = map(builder.item, step.inputs)
    builder.each(step.y.size, f"{builder.item(step.y)} = {x} + {y};")


def _attention(builder: SourceBuilder, step: Step) -> None:
    heads, width = step.attrs["heads"], step.attrs["width"]
    sizes = step.attrs["m"], step.attrs["n"], width, heads, number((width // heads) ** -0.5, "float32")
    places = [builder.at(value) for value in step.inputs]
    ends = [*places, *["0"] * (5 - len(places)), builder.at(step.scratch[0]), builder.at(step.y)]
    builder.call("attention", *sizes, *ends)


BLOCKS: Mapping[str, Callable[[SourceBuilder, Step], None]] = {
    "add": _add,
    "attention": _attention,
    "conv2d_alone": _conv2d_alone,
}
