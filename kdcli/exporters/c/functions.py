"""C functions of each number of an array, and the few of a whole array that are no product.

Nothing here calls the C library. Loops over each number become vector instructions from -O3 on; clamping stands in
loops of its own, since compilers give up on the others with it.
"""

from __future__ import annotations

from collections.abc import Mapping

_CLAMP = """
/* Each x into low..high; what is not a number stays so. */
static void clamp(int n, float low, float high, float *x)
{
    for (int i = 0; i < n; i++)
        x[i] = x[i] > high ? high : x[i];
    for (int i = 0; i < n; i++)
        x[i] = x[i] < low ? low : x[i];
}
"""

_TANH = """
/* tanh of each x, as a fraction of two polynomials; absolute error below 4e-7, never beyond -1 and 1. */
static void tanh_each(int n, float *x)
{
    clamp(n, -7.90531111f, 7.90531111f, x);
    for (int i = 0; i < n; i++) {
        const float v = x[i], s = v * v;
        float p = -2.76076847742355e-16f, q = 1.19825839466702e-06f;
        p = p * s + 2.00018790482477e-13f;
        p = p * s - 8.60467152213735e-11f;
        p = p * s + 5.12229709037114e-08f;
        p = p * s + 1.48572235717979e-05f;
        p = p * s + 6.37261928875436e-04f;
        p = p * s + 4.89352455891786e-03f;
        q = q * s + 1.18534705686654e-04f;
        q = q * s + 2.26843463243900e-03f;
        q = q * s + 4.89352518554385e-03f;
        x[i] = v * p / q;
    }
}
"""

_EXP = """
/* exp of each x: infinity above 88.3, below -87 as it is there; relative error below 2e-7. */
static void exp_each(int n, float *x)
{
    clamp(n, -87.0f, 89.0f, x);
    for (int i = 0; i < n; i++) {
        union { int32_t bits; float value; } power;
        const float v = x[i] == x[i] ? x[i] : 0.0f;
        const int32_t k = (int32_t)(v * 1.44269504f + 128.5f) - 128;
        const float r = x[i] - (float)k * 0.693359375f + (float)k * 2.12194440e-4f;
        float p = 1.9875691500e-4f;
        p = p * r + 1.3981999507e-3f;
        p = p * r + 8.3334519073e-3f;
        p = p * r + 4.1665795894e-2f;
        p = p * r + 1.6666665459e-1f;
        p = p * r + 5.0000001201e-1f;
        power.bits = (k + 127) * 8388608;
        x[i] = (p * r * r + r + 1.0f) * power.value;
    }
}
"""

_LOG = """
/* log of x, a normal number above 0: of its power of two, and of the rest as a series. */
static float log_of(float x)
{
    union { float value; uint32_t bits; } number;
    int32_t k;
    float s, q;
    number.value = x;
    k = (int32_t)((number.bits + 0x004afb0d) >> 23) - 127;
    number.bits -= (uint32_t)k * 8388608;
    s = (number.value - 1.0f) / (number.value + 1.0f);
    q = s * s;
    return (float)k * 0.693147181f
        + 2.0f * s * (1.0f + q * (0.333333333f + q * (0.2f + q * (0.142857143f + q * 0.111111111f))));
}
"""

_SQRT = """
/* The root of x, 0 or a normal number above it: Newton's method, from half the exponent. */
static float sqrt_of(float x)
{
    union { float value; int32_t bits; } root;
    root.value = x;
    root.bits = (root.bits >> 1) + 0x1fc00000;
    for (int i = 0; i < 4; i++)
        root.value = 0.5f * (root.value + x / root.value);
    return x > 0.0f ? root.value : 0.0f;
}
"""

_LAYER_NORM = """
/* Each row of x (rows, n) less its mean, over its standard deviation, times w, plus b. */
static void layer_norm(int rows, int n, float eps, const float *w, const float *b, float *x)
{
    for (int row = 0; row < rows; row++, x += n) {
        float mean = 0.0f, variance = 0.0f, scale;
        for (int i = 0; i < n; i++)
            mean += x[i];
        mean /= (float)n;
        for (int i = 0; i < n; i++)
            variance += (x[i] - mean) * (x[i] - mean);
        scale = 1.0f / sqrt_of(variance / (float)n + eps);
        for (int i = 0; i < n; i++)
            x[i] = (x[i] - mean) * scale * w[i] + b[i];
    }
}
"""

_NEAREST = """
/* The whole number nearest to x, a small number; halves to even; 0 for what is no number. */
static float nearest(float x)
{
    const int32_t k = x == x ? (int32_t)x : 0;
    const float r = x - (float)k;
    const int32_t odd = k & 1;
    return (float)(k + ((r > 0.5f) | ((r == 0.5f) & odd)) - ((r < -0.5f) | ((r == -0.5f) & odd)));
}
"""

_DYNAMIC_QUANTIZE = """
/* x (n) on a grid of its own from low to high steps, its largest |number| on the last. */
static void dynamic_quantize(int n, float low, float high, float *x)
{
    float scale = 0.0f;
    for (int i = 0; i < n; i++) {
        const float size = x[i] < 0.0f ? -x[i] : x[i];
        scale = size > scale ? size : scale;
    }
    scale /= high;
    scale = scale < 1e-12f ? 1e-12f : scale;
    for (int i = 0; i < n; i++) {
        const float step = x[i] / scale;
        x[i] = nearest(step < low ? low : step > high ? high : step) * scale;
    }
}
"""

_ARGMAX = """
/* The place of the first largest of x (n). */
static int argmax(int n, const float *x)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}
"""


def _plain(name: str, what: str, value: str) -> str:
    """A function of each x[i]."""
    return f"""
/* {what} */
static void {name}_each(int n, float *x)
{{
    for (int i = 0; i < n; i++)
        x[i] = {value};
}}
"""


def _by_exp(name: str, what: str, exponent: str, value: str) -> str:
    """A function of each x[i] that follows from e[i], the exponential of another number."""
    return f"""
/* {what} */
static void {name}_each(int n, float *x)
{{
    float e[32] = {{0.0f}};
    for (; n > 0; n -= 32, x += 32) {{
        const int m = n < 32 ? n : 32;
        for (int i = 0; i < m; i++)
            e[i] = {exponent};
        exp_each(m, e);
        for (int i = 0; i < m; i++)
            x[i] = {value};
    }}
}}
"""


_GELU = """
/* x (1 + erf(x / sqrt(2))) / 2 by Abramowitz and Stegun 7.1.26, with e = exp(-x x / 2); absolute error below 4e-7. */
static float gelu_of(float x, float e)
{
    const float t = 1.0f / (1.0f + 0.3275911f * 0.707106781f * (x < 0.0f ? -x : x));
    const float tail = 0.5f * x * e * t
        * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    return x < 0.0f ? tail : x - tail;
}
"""

_SOFTPLUS = """
/* log(1 + exp(x)), with e = exp(-|x|): the larger of x and 0, plus log(1 + e) as a series; error below 2e-7. */
static float softplus_of(float x, float e)
{
    const float s = e / (2.0f + e), q = s * s;
    const float log = 2.0f * s
        * (1.0f + q * (0.333333333f + q * (0.2f + q * (0.142857143f + q * (0.111111111f + q * 0.0909090909f)))));
    return (x < 0.0f ? 0.0f : x) + log;
}
"""

_TANHSHRINK = """
/* x - tanh(x). */
static void tanhshrink_each(int n, float *x)
{
    float t[32] = {0.0f};
    for (; n > 0; n -= 32, x += 32) {
        const int m = n < 32 ? n : 32;
        for (int i = 0; i < m; i++)
            t[i] = x[i];
        tanh_each(m, t);
        for (int i = 0; i < m; i++)
            x[i] -= t[i];
    }
}
"""

FUNCTIONS: Mapping[str, str] = {
    "clamp": _CLAMP,
    "exp_each": _EXP,
    "log_of": _LOG,
    "sqrt_of": _SQRT,
    "layer_norm": _LAYER_NORM,
    "argmax": _ARGMAX,
    "dynamic_quantize": _DYNAMIC_QUANTIZE,
    "nearest": _NEAREST,
    "gelu_of": _GELU,
    "softplus_of": _SOFTPLUS,
    "elu_each": _by_exp("elu", "x where it is above 0, else exp(x) - 1.", "x[i]", "x[i] > 0.0f ? x[i] : e[i] - 1.0f"),
    "gelu_each": _by_exp("gelu", "x (1 + erf(x / sqrt(2))) / 2.", "-0.5f * x[i] * x[i]", "gelu_of(x[i], e[i])"),
    "hardshrink_each": _plain(
        "hardshrink", "x where |x| > 0.5, else 0.", "x[i] > 0.5f || x[i] < -0.5f || x[i] != x[i] ? x[i] : 0.0f"
    ),
    "hardsigmoid_each": _plain(
        "hardsigmoid",
        "x / 6 + 1 / 2 within 0 and 1.",
        "x[i] < -3.0f ? 0.0f : x[i] > 3.0f ? 1.0f : x[i] * 0.166666667f + 0.5f",
    ),
    "hardswish_each": _plain(
        "hardswish",
        "x (x / 6 + 1 / 2), the second within 0 and 1.",
        "x[i] < -3.0f ? 0.0f : x[i] > 3.0f ? x[i] : x[i] * (x[i] * 0.166666667f + 0.5f)",
    ),
    "hardtanh_each": _plain("hardtanh", "x within -1 and 1.", "x[i] < -1.0f ? -1.0f : x[i] > 1.0f ? 1.0f : x[i]"),
    "log_sigmoid_each": _by_exp(
        "log_sigmoid", "-log(1 + exp(-x)).", "x[i] < 0.0f ? x[i] : -x[i]", "-softplus_of(-x[i], e[i])"
    ),
    "mish_each": _by_exp(
        "mish",
        "x tanh(log(1 + exp(x))), which is x / (e + 1 / 2 + 1 / (4 e + 2)) with e = exp(-x).",
        "-x[i]",
        "x[i] / (e[i] + 0.5f + 0.5f / (2.0f * e[i] + 1.0f))",
    ),
    "relu6_each": _plain("relu6", "x within 0 and 6.", "x[i] < 0.0f ? 0.0f : x[i] > 6.0f ? 6.0f : x[i]"),
    "rrelu_each": _plain("rrelu", "x where it is above 0, else 11 / 48 x.", "x[i] > 0.0f ? x[i] : 0.229166667f * x[i]"),
    "softshrink_each": _plain(
        "softshrink",
        "x, 0.5 nearer to 0.",
        "x[i] > 0.5f ? x[i] - 0.5f : x[i] < -0.5f ? x[i] + 0.5f : 0.0f * x[i]",
    ),
    "tanhshrink_each": _TANHSHRINK,
    "leaky_relu_each": _plain("leaky_relu", "x where it is above 0, else 0.01 x.", "x[i] > 0.0f ? x[i] : 0.01f * x[i]"),
    "relu_each": _plain("relu", "x where it is above 0, else 0.", "x[i] < 0.0f ? 0.0f : x[i]"),
    "selu_each": _by_exp(
        "selu",
        "As elu, below 0 times 1.6732632, in all times 1.0507010.",
        "x[i]",
        "1.05070099f * (x[i] > 0.0f ? x[i] : 1.67326324f * (e[i] - 1.0f))",
    ),
    "sigmoid_each": _by_exp("sigmoid", "1 / (1 + exp(-x)).", "-x[i]", "1.0f / (1.0f + e[i])"),
    "silu_each": _by_exp("silu", "x / (1 + exp(-x)).", "-x[i]", "x[i] / (1.0f + e[i])"),
    "softplus_each": _by_exp("softplus", "log(1 + exp(x)).", "x[i] < 0.0f ? x[i] : -x[i]", "softplus_of(x[i], e[i])"),
    "softsign_each": _plain("softsign", "x / (1 + |x|).", "x[i] / (1.0f + (x[i] < 0.0f ? -x[i] : x[i]))"),
    "tanh_each": _TANH,
}
