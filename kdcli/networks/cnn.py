"""Convolutional networks of any width, as students of those that see images."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from kdcli.choice import Choice
from kdcli.errors import RefusedError, UsageError
from kdcli.networks.layers import LayerSpec, Shape
from kdcli.networks.mlp import parse_widths
from kdcli.networks.stack import Branch, Stack

# Kernels and strides: those of Mnih et al. 2015, which need 36 pixels, and 3x3 for boards of a few squares.
_NATURE, _NATURE_SIZE = ((8, 4), (4, 2), (3, 1)), 36
_SMALL = ((3, 1), (3, 1), (3, 1))


def is_image(shape: Shape) -> bool:
    """Whether features of this shape are an image (C, H, W)."""
    return len(shape) == 3


def cnn(choice: Choice, sight: Sequence[Shape], outputs: int) -> Stack:
    """The network of `cnn:8x16x16,hidden=64[,activation=relu]`: channels of each convolution, then a hidden layer.

    Images go through the convolutions, what is flat beside them straight to the hidden layer.

    Raises:
        UsageError: nothing seen is an image, or one is too small.
    """
    choice.only("hidden", "activation")
    widths = parse_widths(choice.value)
    if len(widths) > len(_NATURE):
        raise UsageError(f"{choice} has {len(widths)} convolutions", f"at most {len(_NATURE)}", "e.g. cnn:8x16x16")
    if not any(map(is_image, sight)):
        raise UsageError("a cnn needs an image", f"this agent sees {sum(map(prod, sight))} numbers", "choose an mlp")
    name = choice.options.get("activation", "relu")
    start, branches = 0, []
    for shape in sight:
        layers = _convolutions(shape, widths, name) if is_image(shape) else ()
        branches.append(Branch(start, shape if is_image(shape) else (prod(shape),), layers))
        start += prod(shape)
    hidden = [("linear", {"out": width}) for width in parse_widths(choice.options.get("hidden", "64"))]
    try:
        return Stack(branches, [layer for linear in hidden for layer in (linear, (name, {}))], outputs)
    except RefusedError as error:
        raise UsageError(f"cannot build {choice}", error.what, "use fewer convolutions") from None


def _convolutions(shape: Shape, widths: Sequence[int], activation: str) -> tuple[LayerSpec, ...]:
    steps = _NATURE if min(shape[1:]) >= _NATURE_SIZE else _SMALL
    layers: list[LayerSpec] = []
    for width, (kernel, stride) in zip(widths, steps, strict=False):
        layers += [("conv2d", {"out": width, "kernel": kernel, "stride": stride}), (activation, {})]
    return (*layers, ("flatten", {}))
