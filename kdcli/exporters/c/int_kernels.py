"""C functions on whole numbers, and those that multiply by weights on few levels.

A dot product is named by its sum, its x, and how weights lie: dot_int8_t_bits4, wide_int32_t_int8_t (64-bit sums),
real_bits4_levels (real x and levels in a table).

Products of two whole numbers are plain loops: compilers make vector instructions of those, of a sum of four products a
turn they do not. A loop that cannot be vectorized, as on a microcontroller, is unrolled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kdcli.exporters.c.values import CTYPES, under_as

CODES = ("int8_t", "uint8_t", "int16_t", "int32_t")

_EACH = """
/* The sum of x (n) times what w says. */
static SUM NAME(int n, const X *x, const FORM *wEXTRA)
{
    SUM sum = 0;
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 8)
#pragma GCC unroll 4
#endif
    for (int i = 0; i < n; i++)
        sum += (SUM)x[i] * VALUE(w[i]);
    return sum;
}
"""

_BITS4 = """
/* The sum of x (n) times what w says, two of them in a byte, the first in its low bits. */
static SUM NAME(int n, const X *x, const uint8_t *wEXTRA)
{
    const int fours = n - n % 4;
    SUM sum = 0;
    for (int i = 0; i < fours; i += 4) {
        const int a = w[i / 2], b = w[i / 2 + 1];
        sum += (SUM)x[i] * VALUE(a & 15) + (SUM)x[i + 1] * VALUE(a >> 4)
            + (SUM)x[i + 2] * VALUE(b & 15) + (SUM)x[i + 3] * VALUE(b >> 4);
    }
    for (int i = fours; i < n; i++)
        sum += (SUM)x[i] * VALUE(w[i / 2] >> 4 * (i % 2) & 15);
    return sum;
}
"""

_BITS2 = """
/* The sum of x (n) times what w says, four of them in a byte, the first in its low bits. */
static SUM NAME(int n, const X *x, const uint8_t *wEXTRA)
{
    const int fours = n - n % 4;
    SUM sum = 0;
    for (int i = 0; i < fours; i += 4) {
        const int all = w[i / 4];
        sum += (SUM)x[i] * VALUE(all & 3) + (SUM)x[i + 1] * VALUE(all >> 2 & 3)
            + (SUM)x[i + 2] * VALUE(all >> 4 & 3) + (SUM)x[i + 3] * VALUE(all >> 6);
    }
    for (int i = fours; i < n; i++)
        sum += (SUM)x[i] * VALUE(w[i / 4] >> 2 * (i % 4) & 3);
    return sum;
}
"""

_BITS = """
/* The sum of x (n) times what w says, each in so many bits, the first in the lowest of the first byte. */
static SUM NAME(int n, const X *x, const uint8_t *wEXTRA, int bits)
{
    const uint32_t mask = (1u << bits) - 1;
    uint32_t held = 0;
    SUM sum = 0;
    for (int i = 0, ready = 0; i < n; i++, ready -= bits, held >>= bits) {
        if (ready < bits) {
            held |= (uint32_t)*w++ << ready;
            ready += 8;
        }
        sum += (SUM)x[i] * VALUE((int)(held & mask));
    }
    return sum;
}
"""

_ALL = """
/* The sum of x (n). */
static SUM NAME(int n, const X *x)
{
    SUM sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i];
    return sum;
}
"""

_UNDER = """
/* What is under window k of an image, in the order of planes, rows, columns and what a place holds; 0 beyond it. */
static void under_X(const window *s, int k, const X *x, TO *y)
{
    const int top = k / s->out_cols * s->step_rows - s->pad_rows, left = k % s->out_cols * s->step_cols - s->pad_cols;
    for (int plane = 0; plane < s->planes; plane++)
        for (int r = top; r < top + s->height; r++)
            for (int c = left; c < left + s->width; c++) {
                const int inside = r >= 0 && r < s->rows && c >= 0 && c < s->cols;
                for (int i = 0; i < s->cell; i++)
                    *y++ = inside ? x[((plane * s->rows + r) * s->cols + c) * s->cell + i] : 0;
            }
}
"""

_RESCALED = """
/* a times a real factor plus a real number, rounded: in 64 bits, with a multiplier and shifts. */
static int32_t rescaled(int32_t a, int32_t multiplier, int32_t bias, int up, int shift)
{
    return (int32_t)(((int64_t)a * multiplier + (int64_t)bias * ((int64_t)1 << up)) >> shift);
}
"""

# A float is sign, exponent and digits; the least ones, below any normal number, count as 0.

_UNITS_FLOAT = """
/* x times multiplier / 2^shift in 1/2^20, rounded down. */
static int64_t units_float(float x, int32_t multiplier, int shift)
{
    union { float value; uint32_t bits; } number;
    number.value = x;
    const int exponent = (int)(number.bits >> 23 & 255);
    const int32_t digits = exponent ? (int32_t)((number.bits & 0x7fffff) | 0x800000) : 0;
    return shifted((int64_t)(number.bits >> 31 ? -digits : digits) * multiplier, shift + 130 - exponent);
}
"""

_UNITS_DOUBLE = """
/* x times multiplier / 2^shift in 1/2^20, rounded down; of the digits of x, the first 31. */
static int64_t units_double(double x, int32_t multiplier, int shift)
{
    union { double value; uint64_t bits; } number;
    if (sizeof(double) == sizeof(float)) /* as on AVR, XC16 and RX */
        return units_float((float)x, multiplier, shift);
    number.value = x;
    const int exponent = (int)(number.bits >> 52 & 2047);
    const int32_t digits = exponent ? (int32_t)((number.bits >> 22 & 0x3fffffff) | 0x40000000) : 0;
    return shifted((int64_t)(number.bits >> 63 ? -digits : digits) * multiplier, shift + 1033 - exponent);
}
"""

_SHIFTED = """
/* x / 2^down, rounded down; something very large, of the same sign, for down below 0. */
static int64_t shifted(int64_t x, int down)
{
    if (down < 0)
        return x < 0 ? -((int64_t)1 << 61) : x > 0 ? (int64_t)1 << 61 : 0;
    return down > 62 ? 0 : x >> down;
}
"""

_CODED = """
/* The code nearest to x - offset * 2^up, both in 1/2^20, from low to high; halves to even. */
static int32_t coded(int64_t x, int32_t offset, int up, int32_t low, int32_t high)
{
    const int64_t above = x - (int64_t)offset * ((int64_t)1 << up) + 0x80000;
    const int64_t code = (above >> 20) - ((above & 0x1fffff) == 0x100000);
    return code < low ? low : code > high ? high : (int32_t)code;
}
"""

_WITHIN = """
/* x, or the bound that it is beyond. */
static int32_t within(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : x > high ? high : x;
}
"""

_REACHED = """
/* How many of the rising numbers t (n) are not above z. */
static int32_t reached(int32_t z, int n, const int32_t *t)
{
    int32_t found = 0;
    while (n > 0) {
        const int half = n / 2, is_above = t[found + half] <= z;
        found += is_above ? half + 1 : 0;
        n = is_above ? n - half - 1 : half;
    }
    return found;
}
"""

_MIRRORED = """
/* The same for z above 0, and less than nothing for z below. */
static int32_t mirrored(int32_t z, int n, const int32_t *t)
{
    return z < 0 ? -reached(-z, n, t) : reached(z, n, t);
}
"""

_ARGMAX = """
/* The place of the first largest of x (n). */
static int argmax_whole(int n, const int32_t *x)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}
"""


def _dots(prefix: str, total: str, x: str) -> Iterator[tuple[str, str]]:
    """Name and text of the products of one type of x with every form of weights."""
    real = total == "float"
    plain = (", int zero", "(float)((PLACE) - zero)") if real else ("", "(PLACE)")
    table = (f", const {'float' if real else 'int32_t'} *t", "t[PLACE]")
    texts = dict.fromkeys(("int8_t", "int16_t", "uint8_t", "uint16_t"), _EACH)
    texts |= {"bits2": _BITS2, "bits4": _BITS4, "bits": _BITS}
    for form, text in texts.items():
        for kind, (extra, value) in {"": plain, "_levels": table}.items():
            name = f"{prefix}_{form}{kind}"
            made = _filled(text.replace("FORM", form).replace("EXTRA", extra), value)
            yield name, made.replace("NAME", name).replace("SUM", total).replace("X", x)


def _filled(text: str, value: str) -> str:
    """VALUE(place) as what stands for it."""
    head, *parts = text.split("VALUE(")
    for part in parts:
        depth, at = 1, 0
        while depth:
            depth += {"(": 1, ")": -1}.get(part[at], 0)
            at += 1
        head += value.replace("PLACE", part[: at - 1]) + part[at:]
    return head


def _texts() -> Iterator[tuple[str, str]]:
    for x in CODES:
        for prefix, total in (("dot", "int32_t"), ("wide", "int64_t")):
            yield from _dots(f"{prefix}_{x}", total, x)
            name = f"all_{prefix}_{x}"
            yield name, _ALL.replace("NAME", name).replace("SUM", total).replace("X", x)
        yield f"under_{x}", _UNDER.replace("X", x).replace("TO", CTYPES[under_as(x.removesuffix("_t"))])
    yield from _dots("real", "float", "float")


WHOLE: Mapping[str, str] = {
    "rescaled": _RESCALED,
    "within": _WITHIN,
    "units_float": _UNITS_FLOAT,
    "units_double": _UNITS_DOUBLE,
    "shifted": _SHIFTED,
    "coded": _CODED,
    "reached": _REACHED,
    "mirrored": _MIRRORED,
    "argmax_whole": _ARGMAX,
    **dict(_texts()),
}
