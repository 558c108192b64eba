"""Weights on few levels as they lie in flash: a row for each output, of bytes, of fewer bits, of places in a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdcli.exporters.c.fixed import INT32
from kdcli.networks.packed_weights import Packed, pack_bits

_FINEST = 1 << 23  # the largest level of a table, in its integers, where sums have 64 bits
_SHORT = 1 << 12  # x below this leaves a level 19 bits less those of the number of inputs
_SPECIAL = (2, 4)  # bits with a function of their own


@dataclass(frozen=True, eq=False)
class Rows:
    """Weights (O, n) that C multiplies by.

    Attributes:
        form: `int8_t` or `int16_t` where a number is one of these; `bits2`, `bits4`, or `bits` in fewer.
        data: what lies in flash, rows one after the other, each from a whole byte on.
        stride: numbers of `data` in a row.
        bits: of one weight.
        zero: () or (O,), what is taken from each number that is read.
        levels: what each number that is read stands for (n,), int32 or float32; None where it stands for itself.
        scale: () or (O,), what one is worth.
        most: the largest sum of |weight| * |x| over a row can be, before and after `zero` is taken off.
    """

    form: str
    data: np.ndarray
    stride: int
    bits: int
    zero: np.ndarray
    levels: np.ndarray | None
    scale: np.ndarray
    most: int


def rows(packed: Packed, codes: np.ndarray, most: int | None) -> Rows | None:
    """Codes (O, n) for whole x up to `most`, or for real x (None); None where weights are halves.

    For whole x the levels of a table are rounded to the integers that sums have room for.
    """
    if packed.half:
        return None
    wide = codes.astype(np.int64)
    zero, levels, scale = np.zeros((), np.int64), packed.levels, np.ones(())
    if packed.scale is not None:
        zero = np.zeros((), np.int64) if packed.zero is None else packed.zero.astype(np.int64)
        scale = packed.scale.astype(np.float64)
    if levels is not None and most is not None:
        unit = _unit(levels, codes, most)
        levels, scale = np.round(levels / unit).astype(np.int32), np.array(unit)
    return _stored(packed, wide, zero, levels, scale, most or 1)


def _unit(levels: np.ndarray, codes: np.ndarray, most: int) -> float:
    """What one is worth so that sums fill 32 bits; where that would be coarse, they get 64."""
    sizes, room = np.abs(levels.astype(np.float64)), INT32 - (codes.shape[1] + 1) * most
    fine = float(sizes.max()) / _FINEST or 1.0
    return max(float(sizes[codes].sum(1).max()) * most / room, fine) if most <= _SHORT and room > INT32 / 2 else fine


def _stored(
    packed: Packed, codes: np.ndarray, zero: np.ndarray, levels: np.ndarray | None, scale: np.ndarray, most: int
) -> Rows:
    form, bits = _form(packed), packed.bits
    if packed.linear and bits >= 8:
        less, known = codes - zero.reshape(-1, 1), np.iinfo(form.removesuffix("_t"))
        if known.min <= less.min() and less.max() <= known.max:
            codes, zero = less, np.zeros((), np.int64)
    else:
        codes, zero = codes - packed.range[0], zero - packed.range[0] if packed.linear else zero
    data = np.stack([_line(row, form, bits) for row in codes])
    read = codes if levels is None else levels[codes].astype(np.float64)
    longest = float(np.abs(read).sum(1).max()) + float(np.abs(zero).max()) * codes.shape[1]
    return Rows(form, data, data.shape[1], bits, zero, levels, scale, int(longest * most) + 1)


def _form(packed: Packed) -> str:
    if packed.bits >= 8:
        return f"{'' if packed.linear else 'u'}int{8 if packed.bits == 8 else 16}_t"
    return f"bits{packed.bits}" if packed.bits in _SPECIAL else "bits"


def _line(codes: np.ndarray, form: str, bits: int) -> np.ndarray:
    """One row as it lies in flash."""
    return pack_bits(codes, bits) if bits < 8 else codes.astype(form.removesuffix("_t"))
