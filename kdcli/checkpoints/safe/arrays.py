"""numpy values rebuilt from pickled parts, each part checked; numpy's own constructors are never called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
MAX_AXES = 16
MAX_AXIS = 2**31


class MalformedError(ValueError):
    """A pickled value is not what numpy writes; the reader of the pickle says where."""


@dataclass(eq=False)
class DType:
    """A pickled `numpy.dtype`; its byte order comes with a later opcode, hence mutable."""

    kind: str
    order: str = "="

    def set_state(self, state: Any) -> None:
        """Take the state of `dtype.__setstate__`: (version, byte order, no sub-dtype, names or fields, ...)."""
        plain = isinstance(state, tuple) and len(state) == 8 and state[2:5] == (None, None, None)
        if not plain or state[1] not in ("<", ">", "=", "|"):
            raise MalformedError("a numpy dtype that is not a plain number")
        self.order = state[1]

    def numpy(self) -> np.dtype:
        """The dtype of a plain number."""
        if self.kind not in KINDS:
            raise MalformedError(f"numpy values of kind {self.kind!r}, not plain numbers")
        return np.dtype(self.order + self.kind)


@dataclass(eq=False)
class Array:
    """A pickled `numpy.ndarray`; its content comes with a later opcode, hence mutable. `value` is read-only."""

    value: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """Take the state of `ndarray.__setstate__`: (version, shape, dtype, Fortran order?, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise MalformedError("a numpy array with an unknown state")
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, DType) or order not in ("C", "F"):
        raise MalformedError("a numpy array without a plain dtype")
    size = _size(shape)
    if dtype.kind == "O8" and size == 0:
        return np.zeros(shape)
    kind = dtype.numpy()
    if not isinstance(content, bytes | bytearray) or len(content) != size * kind.itemsize:
        raise MalformedError("a numpy array whose bytes do not fill its shape")
    flat = np.frombuffer(content, kind)
    if kind.kind == "b" and np.frombuffer(content, "u1").max(initial=0) > 1:
        raise MalformedError("a numpy array of truth values that are neither 0 nor 1")
    flat.flags.writeable = False
    return flat.reshape(shape, order=order)


def _size(shape: Any) -> int:
    whole = isinstance(shape, tuple) and len(shape) <= MAX_AXES and all(type(n) is int for n in shape)
    if not whole or not all(0 <= n < MAX_AXIS for n in shape):
        raise MalformedError("a numpy array of an impossible shape")
    return prod(shape)


def dtype(kind: Any, *_: Any) -> DType:
    """`numpy.dtype(kind, align, copy)`."""
    if not isinstance(kind, str) or kind not in (*KINDS, "O8"):
        raise MalformedError(f"numpy values of kind {str(kind)[:20]!r}, not plain numbers")
    return DType(kind)


def reconstruct(*_: Any) -> Array:
    """`numpy.core.multiarray._reconstruct(ndarray, (0,), b'b')`: an array to be filled."""
    return Array()


def scalar(kind: Any, content: Any = None) -> bool | int | float:
    """`numpy.core.multiarray.scalar(dtype, bytes)`, as a plain Python number."""
    return _array(content, kind, (1,), "C")[0].item()


def frombuffer(content: Any, kind: Any, shape: Any, order: Any = "C") -> Array:
    """`numpy.core.numeric._frombuffer(buffer, dtype, shape, order)` of pickle protocol 5."""
    return Array(_array(content, kind, shape, order))


_PARTS: dict[str, Callable[..., Any]] = {
    "multiarray._reconstruct": reconstruct,
    "multiarray.scalar": scalar,
    "numeric._frombuffer": frombuffer,
}

# numpy 2 renamed numpy.core to numpy._core.
BUILDERS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": dtype,
    **{f"numpy.{core}.{name}": part for core in ("core", "_core") for name, part in _PARTS.items()},
}
