"""Convolutional networks of any width, as students of those that see images."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from kdcli.choice import Choice
from kdcli.errors import UsageError
from kdcli.networks.feature_branches import branches, dense, is_image, stacked
from kdcli.networks.layers import LayerSpec, Shape
from kdcli.networks.mlp import parse_widths
from kdcli.networks.stack import Stack

# Kernels and strides: those of Mnih et al. 2015, which need 36 pixels, and 3x3 for boards of a few squares.
_NATURE, _NATURE_SIZE = ((8, 4), (4, 2), (3, 1)), 36
_SMALL = ((3, 1), (3, 1), (3, 1))
_FEWER = "use fewer convolutions"


def cnn(choice: Choice, input_shapes: Sequence[Shape], outputs: int) -> Stack:
    """The network of `cnn:8x16x16,hidden=64[,strides=4x2x1][,activation=relu]`: convolutions, then a hidden layer.

    The numbers are the channels of each convolution. A larger first stride looks at fewer places of the image, where a
    small network spends its time. Images go through the convolutions, what is flat beside them to the hidden layer.

    Raises:
        UsageError: nothing seen is an image, one is too small, or an option cannot be read.
    """
    choice.only("hidden", "activation", "strides")
    channels, name = channels_of(choice, choice.value), choice.options.get("activation", "relu")
    strides = channels_of(choice, choice.options["strides"]) if "strides" in choice.options else ()
    if strides and len(strides) != len(channels):
        why = f"{len(strides)} strides of {len(channels)} convolutions"
        raise UsageError(f"cannot build {choice}", why, "give each convolution its stride: strides=8x2x1")
    _need_image(choice, input_shapes)
    parts = branches(input_shapes, lambda shape: convolutions(shape, channels, name, strides))
    return stacked(choice, parts, dense(choice.options.get("hidden", "64"), name), outputs, _FEWER)


def channels_of(choice: Choice, text: str) -> tuple[int, ...]:
    """The channels of up to three convolutions, such as `8x16x16`.

    Raises:
        UsageError: they are more, or not positive integers.
    """
    channels = parse_widths(text)
    if len(channels) > len(_NATURE):
        raise UsageError(f"{choice} has {len(channels)} convolutions", f"at most {len(_NATURE)}", "e.g. 8x16x16")
    return channels


def convolutions(
    shape: Shape, channels: Sequence[int], activation: str, strides: Sequence[int] = ()
) -> list[LayerSpec]:
    """Convolutions of an image, with their usual strides where none are given; nothing for what is none."""
    if not is_image(shape):
        return []
    steps = _NATURE if min(shape[1:]) >= _NATURE_SIZE else _SMALL
    layers: list[LayerSpec] = []
    usual = [stride for _, stride in steps]
    for width, (kernel, _), stride in zip(channels, steps, strides or usual, strict=False):
        layers += [("conv2d", {"out": width, "kernel": kernel, "stride": stride}), (activation, {})]
    return [*layers, ("flatten", {})]


def _need_image(choice: Choice, input_shapes: Sequence[Shape]) -> None:
    if not any(map(is_image, input_shapes)):
        seen = sum(map(prod, input_shapes))
        raise UsageError(f"{choice.name} needs an image", f"this agent sees {seen} numbers", "choose an mlp")


def mobilenet(choice: Choice, input_shapes: Sequence[Shape], outputs: int) -> Stack:
    """The network of `mobilenet:8x16x16[,expand=4][,hidden=64][,activation=relu]`: Sandler et al. 2018, figure 4b.

    The first number is the channels of a first convolution, which from 36 pixels on makes the image a quarter as high
    and wide. Each of the others is an inverted residual, which halves it where more than 8 pixels are left; it adds to
    what it reads where neither size nor channels change.

    Raises:
        UsageError: nothing seen is an image, or an option cannot be read.
    """
    choice.only("expand", "hidden", "activation")
    channels, expand = parse_widths(choice.value), choice.whole("expand", 4, 64)
    name = choice.options.get("activation", "relu")
    _need_image(choice, input_shapes)
    parts = branches(input_shapes, lambda shape: _inverted(shape, channels, expand, name))
    return stacked(choice, parts, dense(choice.options.get("hidden", "64"), name), outputs, _FEWER)


def _inverted(shape: Shape, channels: Sequence[int], expand: int, name: str) -> list[LayerSpec]:
    if not is_image(shape):
        return []
    large = min(shape[1:]) >= _NATURE_SIZE
    kernel, stride, padding = (*_NATURE[0], 0) if large else (3, 1, 1)
    first = {"out": channels[0], "kernel": kernel, "stride": stride, "padding": padding}
    layers: list[LayerSpec] = [("conv2d", first), (name, {})]
    size, before = (min(shape[1:]) + 2 * padding - kernel) // stride + 1, channels[0]
    for out in channels[1:]:
        step = 2 if size > 8 else 1
        block = _inverted_block(before, out, expand * before, step, name)
        layers += [("residual", {"layers": block})] if (step, out) == (1, before) else block
        size, before = (size - 1) // step + 1, out
    return [*layers, ("flatten", {})]


def _inverted_block(before: int, out: int, inside: int, stride: int, name: str) -> list[LayerSpec]:
    """1x1 to more channels, 3x3 in each of them alone, 1x1 back to few without an activation."""
    alone = {"out": inside, "kernel": 3, "stride": stride, "padding": 1, "groups": inside}
    wide: list[LayerSpec] = [("conv2d", {"out": inside}), (name, {})] if inside > before else []
    return [*wide, ("conv2d", alone), (name, {}), ("conv2d", {"out": out})]
