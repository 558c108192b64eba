"""What a network sees: parts side by side, each with layers of its own before they come together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from kdcli.choice import Choice
from kdcli.errors import RefusedError, UsageError
from kdcli.networks.layers import LayerSpec, Shape
from kdcli.networks.mlp import parse_widths
from kdcli.networks.stack import Branch, Stack


def is_image(shape: Shape) -> bool:
    """Whether features of this shape are an image (C, H, W)."""
    return len(shape) == 3


def is_set(shape: Shape) -> bool:
    """Whether features of this shape are rows (N, D), one for each of N things."""
    return len(shape) == 2


def branches(input_shapes: Sequence[Shape], layers_for: Callable[[Shape], Sequence[LayerSpec]]) -> list[Branch]:
    """One branch a part with the layers it gets; a part that gets none is flat."""
    start, found = 0, []
    for shape in input_shapes:
        layers = tuple(layers_for(shape))
        found.append(Branch(start, shape if layers else (prod(shape),), layers))
        start += prod(shape)
    return found


def dense(widths: str, activation: str) -> list[LayerSpec]:
    """Linear layers of widths such as `64x32`, each with an activation; none of an empty text."""
    linears = [("linear", {"out": width}) for width in parse_widths(widths)] if widths else []
    return [layer for linear in linears for layer in (linear, (activation, {}))]


def stacked(choice: Choice, parts: Sequence[Branch], trunk: Sequence[LayerSpec], outputs: int, fix: str) -> Stack:
    """The network of a user's choice.

    Raises:
        UsageError: its layers do not fit; `fix` is what to do about it.
    """
    try:
        return Stack(parts, trunk, outputs)
    except RefusedError as error:
        raise UsageError(f"cannot build {choice}", f"{error.what}: {error.why}", fix) from None
