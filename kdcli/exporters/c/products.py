"""C functions that multiply: products with matrices, convolutions, and the windows that move over images.

Weights lie in rows, one row of outputs for each input: the innermost loops run over neighbours in memory, and gcc 12
and clang make vector instructions of them from -O2 on. Sums are in another order than another program's: equal up to
rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

_DENSE = """
/* y (p, m) += x (p, n) w (n, m), four rows of w at a time. */
static void dense(int p, int n, int m, const float *restrict x, const float *restrict w, float *restrict y)
{
    const int fours = n - n % 4, wide = m - m % 16;
    for (int i = 0; i < fours; i += 4) {
        const float *const w0 = w + i * m, *const w1 = w0 + m, *const w2 = w1 + m, *const w3 = w2 + m;
        for (int k = 0; k < p; k++) {
            const float *const v = x + k * n + i;
            const float a = v[0], b = v[1], c = v[2], d = v[3];
            float *restrict z = y + k * m;
            for (int o = 0; o < wide; o += 16)
                for (int j = o; j < o + 16; j++)
                    z[j] += a * w0[j] + b * w1[j] + c * w2[j] + d * w3[j];
            for (int o = wide; o < m; o++)
                z[o] += a * w0[o] + b * w1[o] + c * w2[o] + d * w3[o];
        }
    }
    for (int k = 0; k < p; k++)
        for (int i = fours; i < n; i++) {
            const float a = x[k * n + i];
            for (int o = 0; o < m; o++)
                y[k * m + o] += a * w[i * m + o];
        }
}
"""

_NONZERO = """
/* The numbers of x (n) that are not 0, and their places, which may lie where x does; returns how many there are. */
static int nonzero(int n, const float *x, float *values, int32_t *places)
{
    int found = 0;
    for (int i = 0; i < n; i++) {
        const float v = x[i];
        values[found] = v;
        places[found] = i;
        found += v != 0.0f;
    }
    return found;
}
"""

_SPARSE = """
/* y (m) += the rows of w at n places, each times its value, four at a time. */
static void sparse(int n, int m, const float *restrict values, const int32_t *restrict places,
                   const float *restrict w, float *restrict y)
{
    const int fours = n - n % 4, wide = m - m % 16;
    for (int i = 0; i < fours; i += 4) {
        const float a = values[i], b = values[i + 1], c = values[i + 2], d = values[i + 3];
        const float *const w0 = w + places[i] * m, *const w1 = w + places[i + 1] * m;
        const float *const w2 = w + places[i + 2] * m, *const w3 = w + places[i + 3] * m;
        for (int o = 0; o < wide; o += 16)
            for (int j = o; j < o + 16; j++)
                y[j] += a * w0[j] + b * w1[j] + c * w2[j] + d * w3[j];
        for (int o = wide; o < m; o++)
            y[o] += a * w0[o] + b * w1[o] + c * w2[o] + d * w3[o];
    }
    for (int i = fours; i < n; i++)
        for (int o = 0; o < m; o++)
            y[o] += values[i] * w[places[i] * m + o];
}
"""

# Images: `planes` of `rows` by `cols`, in each place `cell` numbers.

_WINDOW = """
/* How a window moves over an image (planes, rows, cols, cell). */
typedef struct {
    int planes, rows, cols, cell;
    int height, width, step_rows, step_cols, pad_rows, pad_cols;
    int out_rows, out_cols;
} window;
"""

_PATCH = """
/* The part of x under the window at one place, zeros where it sticks out. */
static void patch_SOURCE(const window *s, const SOURCE *x, int row, int col, float *patch)
{
    const int left = col * s->step_cols - s->pad_cols, top = row * s->step_rows - s->pad_rows;
    const int first = left < 0 ? -left : 0;
    const int last = left + s->width > s->cols ? s->cols - left : s->width;
    for (int plane = 0; plane < s->planes; plane++)
        for (int r = top; r < top + s->height; r++) {
            const int at = ((plane * s->rows + r) * s->cols + left) * s->cell;
            const int inside = r >= 0 && r < s->rows;
            const int begin = (inside ? first : s->width) * s->cell, end = (inside ? last : 0) * s->cell;
            int i = 0;
            for (; i < begin; i++)
                patch[i] = 0.0f;
            for (; i < end; i++)
                patch[i] = (float)x[at + i];
            for (; i < s->width * s->cell; i++)
                patch[i] = 0.0f;
            patch += i;
        }
}
"""

_CONVOLVE = """
/* y (places of the window, m): the patch at each place times w, plus b; `patches` has room for four. */
static void convolve_SOURCE(const window *s, int m, const SOURCE *x, const float *w, const float *b, float *y,
                            float *patches)
{
    const int n = s->planes * s->height * s->width * s->cell, places = s->out_rows * s->out_cols;
    for (int first = 0; first < places; first += 4, y += 4 * m) {
        const int p = places - first < 4 ? places - first : 4;
        for (int k = 0; k < p; k++) {
            patch_SOURCE(s, x, (first + k) / s->out_cols, (first + k) % s->out_cols, patches + k * n);
            for (int o = 0; o < m; o++)
                y[k * m + o] = b[o];
        }
        dense(p, n, m, patches, w, y);
    }
}
"""

_CONVOLVE_SPARSE = """
/* The same where many numbers of x are 0: only the others are multiplied. */
static void convolve_sparse(const window *s, int m, const float *x, const float *w, const float *b, float *y,
                            float *patch, int32_t *places)
{
    const int n = s->planes * s->height * s->width * s->cell;
    for (int row = 0; row < s->out_rows; row++)
        for (int col = 0; col < s->out_cols; col++, y += m) {
            patch_float(s, x, row, col, patch);
            for (int o = 0; o < m; o++)
                y[o] = b[o];
            sparse(nonzero(n, patch, patch, places), m, patch, places, w, y);
        }
}
"""

_MAX_POOL = """
/* The largest number under the window, for each place, plane and number of a cell. */
static void max_pool(const window *s, const float *x, float *y)
{
    for (int plane = 0; plane < s->planes; plane++)
        for (int row = 0; row < s->out_rows; row++)
            for (int col = 0; col < s->out_cols; col++, y += s->cell) {
                const int top = row * s->step_rows - s->pad_rows, left = col * s->step_cols - s->pad_cols;
                for (int k = 0; k < s->cell; k++)
                    y[k] = -3.40282347e+38f;
                for (int r = top < 0 ? 0 : top; r < top + s->height && r < s->rows; r++)
                    for (int c = left < 0 ? 0 : left; c < left + s->width && c < s->cols; c++) {
                        const float *const v = x + ((plane * s->rows + r) * s->cols + c) * s->cell;
                        for (int k = 0; k < s->cell; k++)
                            y[k] = v[k] > y[k] ? v[k] : y[k];
                    }
            }
}
"""

PRODUCTS: Mapping[str, str] = {
    "dense": _DENSE,
    "nonzero": _NONZERO,
    "sparse": _SPARSE,
    "window": _WINDOW,
    "patch_float": _PATCH.replace("SOURCE", "float"),
    "patch_uint8_t": _PATCH.replace("SOURCE", "uint8_t"),
    "convolve_float": _CONVOLVE.replace("SOURCE", "float"),
    "convolve_uint8_t": _CONVOLVE.replace("SOURCE", "uint8_t"),
    "convolve_sparse": _CONVOLVE_SPARSE,
    "max_pool": _MAX_POOL,
}
