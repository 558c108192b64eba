"""Weights that lie on few levels: whole-number codes, what they stand for, and the bytes they fit into.

Three forms. Linear: weight = (code - zero) * scale, codes signed, scale and zero one number for all or one for each row
(the first axis). A table: weight = levels[code]. Half: the code is the bit pattern of a float16 or bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

MAX_BITS = 16
MAX_CODES = 2**27
HALVES = ("float16", "bfloat16")
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Packed:
    """Codes in the weight's shape, of `bits` bits each, and what they stand for.

    Attributes:
        codes: whole numbers: -2**(bits - 1) up to 2**(bits - 1) - 1 where linear, else 0 up to 2**bits - 1.
        bits: 1 to 16.
        levels: (n,) float32, what each code stands for; None in the other forms.
        scale: () or (O,) float32 above 0, one for all or one for each row; None where not linear.
        zero: () or (O,) int32, the code of 0, as `scale` is; None stands for 0.
        half: `float16` or `bfloat16` where a code is the bit pattern of one; else empty.

    Raises:
        ValueError: codes that do not fit, or not exactly one of the three forms.
    """

    codes: np.ndarray
    bits: int
    levels: np.ndarray | None = None
    scale: np.ndarray | None = None
    zero: np.ndarray | None = None
    half: str = ""

    def __post_init__(self) -> None:
        if [self.levels is not None, self.scale is not None, bool(self.half)].count(True) != 1:
            raise ValueError("packed weights are linear, on a table of levels, or half floats")
        if not 1 <= self.bits <= MAX_BITS or self.codes.dtype.kind not in "iu" or self.codes.size == 0:
            raise ValueError(f"codes {self.codes.dtype} {self.codes.shape} of {self.bits} bits")
        low, high = self.range
        if int(self.codes.min()) < low or int(self.codes.max()) > high:
            raise ValueError(f"a code outside {low} to {high}")
        _check_form(self)

    @property
    def linear(self) -> bool:
        """Whether weight = (code - zero) * scale."""
        return self.scale is not None

    @property
    def range(self) -> tuple[int, int]:
        """The lowest and the highest code."""
        if self.linear:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1 if self.levels is None else len(self.levels) - 1

    def decoded(self) -> np.ndarray:
        """The weights, float32, in the shape of the codes; computed in float32."""
        if self.levels is not None:
            return self.levels[self.codes]
        if self.scale is not None:
            zero = np.zeros((), np.int32) if self.zero is None else self.zero
            steps = (self.codes.astype(np.int32) - self._rows(zero)).astype(np.float32)
            return steps * self._rows(self.scale)
        bits = self.codes.astype(np.uint16)
        if self.half == "float16":
            return bits.view(np.float16).astype(np.float32)
        return (bits.astype(np.uint32) << 16).view(np.float32)

    def _rows(self, numbers: np.ndarray) -> np.ndarray:
        """One number for all, or one a row beside all that follow."""
        return numbers.reshape(-1, *(1,) * (self.codes.ndim - 1)) if numbers.ndim else numbers

    @property
    def n_bytes(self) -> int:
        """What codes, levels, scales and zeros take in a file."""
        beside = sum(array.nbytes for array in (self.levels, self.scale, self.zero) if array is not None)
        return packed_size(self.codes.size, self.bits) + beside

    def describe(self) -> dict[str, Any]:
        """JSON values that `from_arrays` needs beside the arrays."""
        return {"shape": list(self.codes.shape), "bits": self.bits, "half": self.half}

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of a file by name: the codes as packed bytes, and what they stand for."""
        named = {"levels": self.levels, "scale": self.scale, "zero": self.zero}
        codes = pack_bits(self.codes.astype(np.int64) - self.range[0], self.bits)
        return {"codes": codes, **{name: array for name, array in named.items() if array is not None}}

    @classmethod
    def from_arrays(cls, told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Packed:
        """The inverse of `describe` and `arrays`; nothing is allocated before the sizes are looked at.

        Raises:
            ValueError, TypeError, KeyError: they do not belong together.
        """
        shape, bits = tuple(int(n) for n in told["shape"]), int(told["bits"])
        levels, scale, zero = arrays.get("levels"), *(_single(arrays.get(name)) for name in ("scale", "zero"))
        if not 1 <= bits <= MAX_BITS or not 1 <= len(shape) <= 4 or min(shape) < 1 or prod(shape) > MAX_CODES:
            raise ValueError(f"packed weights {str(shape)[:60]} of {bits} bits")
        first = 0 if scale is None else 1 << (bits - 1)
        codes = unpack_bits(arrays["codes"], prod(shape), bits).astype(np.int32) - first
        typed = codes.reshape(shape).astype(_code_dtype(bits, scale is not None))
        return cls(typed, bits, levels, scale, zero, str(told["half"]))


def _single(numbers: np.ndarray | None) -> np.ndarray | None:
    """One number for all where there is one: files know no arrays without an axis."""
    return numbers if numbers is None or numbers.size != 1 else numbers.reshape(())


def _check_form(packed: Packed) -> None:
    """Raise ValueError unless what the codes stand for is of the right dtype, shape and size."""
    levels, scale, zero = packed.levels, packed.scale, packed.zero
    if levels is not None:
        fits = levels.dtype == np.float32 and levels.ndim == 1 and 1 <= len(levels) <= 1 << packed.bits
        if not fits or not np.isfinite(levels).all():
            raise ValueError(f"levels {levels.dtype} {levels.shape} for {packed.bits} bits")
    if scale is not None:
        shapes = ((), packed.codes.shape[:1]) if packed.codes.ndim > 1 else ((),)
        if scale.dtype != np.float32 or scale.shape not in shapes or not (np.isfinite(scale) & (scale > 0)).all():
            raise ValueError(f"a scale {scale.dtype} {scale.shape} for codes {packed.codes.shape}")
    if zero is not None:
        low, high = packed.range
        if scale is None or zero.dtype != np.int32 or zero.shape != scale.shape:
            raise ValueError(f"a zero {zero.dtype} {zero.shape} beside another scale")
        if (zero < low).any() or (zero > high).any():
            raise ValueError(f"a zero outside {low} to {high}")
    if packed.half and (packed.half not in HALVES or packed.bits != MAX_BITS):
        raise ValueError(f"{packed.bits} bits of {packed.half[:20]!r}")


def _code_dtype(bits: int, signed: bool) -> type[np.integer]:
    if signed:
        return np.int8 if bits <= 8 else np.int16
    return np.uint8 if bits <= 8 else np.uint16


def packed_size(n: int, bits: int) -> int:
    """Bytes of n codes, the last one filled up with zeros."""
    return (n * bits + 7) // 8


def pack_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers below 2**bits, any shape -> bytes (uint8), the first code in the lowest bits of the first."""
    flat = codes.reshape(-1).astype(np.uint16)
    if bits in (8, 16):
        return flat.astype("<u2" if bits == 16 else np.uint8).view(np.uint8).copy()
    places = np.arange(bits, dtype=np.uint16)
    return np.packbits((flat[:, None] >> places & 1).astype(np.uint8).reshape(-1), bitorder="little")


def unpack_bits(data: np.ndarray, n: int, bits: int) -> np.ndarray:
    """The inverse of `pack_bits`: n codes, uint16.

    Raises:
        ValueError: not as many bytes as n codes take, or something after the last.
    """
    if data.dtype != np.uint8 or data.shape != (packed_size(n, bits),):
        raise ValueError(f"{n} codes of {bits} bits in {data.dtype} {data.shape}")
    if bits in (8, 16):
        return np.ascontiguousarray(data).view("<u2" if bits == 16 else np.uint8).astype(np.uint16)
    found = np.unpackbits(data, bitorder="little")
    if found[n * bits :].any():
        raise ValueError("something after the last code")
    places = np.arange(bits, dtype=np.uint16)
    return (found[: n * bits].reshape(n, bits).astype(np.uint16) << places).sum(1, dtype=np.uint16)
