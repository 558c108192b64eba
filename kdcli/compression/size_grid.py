"""The sizes a search walks: architectures from linear upwards, each clearly smaller than the teacher."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from kdcli.choice import Choice
from kdcli.networks import build
from kdcli.networks.feature_branches import is_image
from kdcli.networks.layers import Shape

_WIDTHS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_CHANNELS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
# Fewer places of a large image to look at: half the time of a small network, or less.
_WIDE_STRIDES, _LARGE = "8x2x1", 36
# The first size tried is this many times smaller than the teacher.
_FIRST_RATIO = 30


@dataclass(frozen=True)
class Architecture:
    """An architecture and the parameters it comes to."""

    student: str
    n_params: int


def mlp_params(inputs: int, hidden: tuple[int, ...], outputs: int) -> int:
    """Weights and biases of a multi-layer perceptron."""
    widths = (inputs, *hidden, outputs)
    return sum((a + 1) * b for a, b in pairwise(widths))


def size_grid(
    input_shapes: Sequence[Shape], outputs: int, teacher_params: int, quick: bool = False, memory: bool = False
) -> list[Architecture]:
    """Architectures of growing size, all of at most half the teacher's parameters.

    `input_shapes` are the shapes of the features side by side. Linear comes first, unless an image is among them; then
    convolutions of growing width, also with wide strides where `quick` ones are asked for. With `memory`, GRUs.
    """
    if memory:
        return _remembering(input_shapes, outputs, teacher_params)
    if any(map(is_image, input_shapes)):
        images = [shape for shape in input_shapes if is_image(shape)]
        wide = [_WIDE_STRIDES] if quick and all(min(shape[1:]) >= _LARGE for shape in images) else []
        found = [_cnn_rung(width, strides, input_shapes, outputs) for width in _CHANNELS for strides in ("", *wide)]
        architectures = sorted(found, key=lambda architecture: architecture.n_params)
        return [
            architectures[0],
            *(architecture for architecture in architectures[1:] if architecture.n_params <= teacher_params / 2),
        ]
    inputs = sum(map(prod, input_shapes))
    shapes = [Architecture(f"mlp:{w}x{w}", mlp_params(inputs, (w, w), outputs)) for w in _WIDTHS]
    linear = Architecture("linear", mlp_params(inputs, (), outputs))
    return [linear, *(r for r in shapes if linear.n_params < r.n_params <= teacher_params / 2)]


def _cnn_rung(width: int, strides: str, input_shapes: Sequence[Shape], outputs: int) -> Architecture:
    text = f"cnn:{width}x{2 * width}x{2 * width},hidden={16 * width}{strides and f',strides={strides}'}"
    return _rung(text, input_shapes, outputs)


def _rung(text: str, input_shapes: Sequence[Shape], outputs: int) -> Architecture:
    network = build(Choice.parse(text), input_shapes, outputs, 0)
    return Architecture(text, sum(p.numel() for p in network.parameters()))


def _remembering(input_shapes: Sequence[Shape], outputs: int, teacher_params: int) -> list[Architecture]:
    """Linear, where nothing seen is an image, and GRUs; before those of images, convolutions."""
    if any(map(is_image, input_shapes)):
        texts = [f"gru:{8 * width},cnn={width}x{2 * width}x{2 * width}" for width in _CHANNELS]
    else:
        texts = ["linear", *(f"gru:{width}" for width in _WIDTHS)]
    first, *rest = (_rung(text, input_shapes, outputs) for text in texts)
    return [
        first,
        *(architecture for architecture in rest if first.n_params < architecture.n_params <= teacher_params / 2),
    ]


def first_size(architectures: Sequence[Architecture], teacher_params: int) -> int:
    """Index of the size to try after the linear one."""
    at = bisect_right([r.n_params for r in architectures], teacher_params / _FIRST_RATIO) - 1
    return min(max(at, 1), len(architectures) - 1)
