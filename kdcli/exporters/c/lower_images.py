"""Steps of convolutions and pooling: bands of rows, and windows that move over them."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from kdcli.exporters.c.values import Joined, Step, Value
from kdcli.exporters.c.windows import Window, channels_last, dense, window_over, windowed
from kdcli.graph.operations import Op, Port

WIDE = 16  # channels from which on a convolution of many zeros looks for what is none


class Host(Protocol):
    """Where values lie, and the steps so far."""

    steps: list[Step]

    def real(self, port: Port) -> Value:
        """The value side by side in memory, in whatever order."""

    def logical(self, port: Port) -> Value:
        """As `real`, in its own order."""

    def lies(self, port: Port) -> Value | Joined:
        """Where the real numbers of the value are."""

    def lay(self, port: Port, value: Value) -> None:
        """The real numbers of a value are here from now on."""

    def scratch(self, op: Op, name: str, size: int, dtype: str = "float32") -> Value:
        """Memory for one step of the operation."""

    def keep(self, step: Step, op: Op) -> None:
        """Add a step that gives the operation's outputs."""


def conv2d(host: Host, op: Op) -> None:
    """A convolution over bands of rows, bytes of an image as they are."""
    if op.attrs.get("groups") == op.out.shape[0] == op.inputs[0].shape[0]:
        _alone(host, op)
        return
    x, window = _windowed(host, op, op.weights["weight"].shape[2:])
    weight = dense(op.weights["weight"], op.attrs.get("groups", 1))
    rows = window.laid(weight).T / np.float32(x.divisor or 1.0)
    n, out = rows.shape
    scratch = _under_windows(host, op, window, n, x.zeros and out >= WIDE)
    y = Value(op.out.name, op.out.size, order=window.order(out))
    weights = {**op.weights, "weight": rows}
    host.keep(Step("conv2d", (x,), (y,), {"window": window.sizes, "out": out}, weights, scratch), op)


def _alone(host: Host, op: Op) -> None:
    """A convolution of each channel by itself: side by side in memory, and so are their weights."""
    _lay_channels_last(host, op.inputs[0])
    x, window = _windowed(host, op, op.weights["weight"].shape[2:], as_bytes=False)
    out = op.out.shape[0]
    sizes = {**window.sizes, "planes": 1, "cell": out}
    weights = {**op.weights, "weight": op.weights["weight"].reshape(out, -1).T}
    y = Value(op.out.name, op.out.size, order=window.order(out))
    host.keep(Step("conv2d_alone", (x,), (y,), {"window": sizes}, weights), op)


def _lay_channels_last(host: Host, port: Port) -> None:
    """Put an image in the order in which its channels are innermost, if it is in another."""
    value, order = host.real(port), channels_last(port.shape)
    if order is None or (value.order is not None and np.array_equal(value.order, order)):
        return
    value = host.logical(port)
    turned = Value(f"{port.name}.turned", value.size, value.dtype, order=order, zeros=value.zeros)
    host.steps.append(Step("take", (value,), (turned,), {"places": order}))
    host.lay(port, turned)


def _under_windows(host: Host, op: Op, window: Window, n: int, searching: bool) -> tuple[Value, ...]:
    """Memory for a band of rows, for where n numbers are in it, and for those that are not 0 and their rows."""
    width = (window.cols + 2 * window.pad_cols) * window.cell
    band = host.scratch(op, "band", window.planes * window.height * width)
    found = band, host.scratch(op, "places", n, "int32")
    return (*found, host.scratch(op, "values", n), host.scratch(op, "rows", n, "int32")) if searching else found


def max_pool2d(host: Host, op: Op) -> None:
    """The largest under each window."""
    x, window = _windowed(host, op, op.attrs["kernel"], as_bytes=False)
    order = channels_last(op.out.shape) if window.cell > 1 else None
    y = Value(op.out.name, op.out.size, order=order, zeros=x.zeros)
    host.keep(Step("max_pool2d", (x,), (y,), {"window": window.sizes}), op)


def _windowed(host: Host, op: Op, kernel: tuple[int, ...], as_bytes: bool = True) -> tuple[Value, Window]:
    """The image, and how a window moves over it: over one plane a channel, or one with the channels innermost."""
    found = host.lies(op.inputs[0])
    x = found if as_bytes and isinstance(found, Value) else host.real(op.inputs[0])
    if window_over(op, x, kernel) is None:
        x = host.real(op.inputs[0])
    return windowed(host.steps, op, x, kernel)
