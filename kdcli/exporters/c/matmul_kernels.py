"""C functions that multiply: products with matrices, convolutions, and the windows that move over images.

Weights lie in rows, one row of outputs for each input: the innermost loops run over neighbours in memory, and gcc 12
and clang make vector instructions of them from -O2 on. Sums are in another order than another program's: equal up to
rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

_DENSE = """
/* y (m) += x (n) w (n, m), four rows of w at a time. */
static void dense(int n, int m, const float *restrict x, const float *restrict w, float *restrict y)
{
    const int fours = n - n % 4, wide = m - m % 16;
    for (int i = 0; i < fours; i += 4) {
        const float a = x[i], b = x[i + 1], c = x[i + 2], d = x[i + 3];
        const float *const w0 = w + i * m, *const w1 = w0 + m, *const w2 = w1 + m, *const w3 = w2 + m;
        for (int o = 0; o < wide; o += 16)
            for (int j = o; j < o + 16; j++)
                y[j] += a * w0[j] + b * w1[j] + c * w2[j] + d * w3[j];
        for (int o = wide; o < m; o++)
            y[o] += a * w0[o] + b * w1[o] + c * w2[o] + d * w3[o];
    }
    for (int i = fours; i < n; i++)
        for (int o = 0; o < m; o++)
            y[o] += x[i] * w[i * m + o];
}
"""

_DENSE_ROWS = """
/* Each row of y (rows, m): b plus that of x (rows, n) times w (n, m). */
static void dense_rows(int rows, int n, int m, const float *x, const float *w, const float *b, float *y)
{
    for (int row = 0; row < rows; row++, x += n, y += m) {
        for (int o = 0; o < m; o++)
            y[o] = b[o];
        dense(n, m, x, w, y);
    }
}
"""

_ATTENTION = """
/* y (m, d): for each row of q (m, d) the rows of v (n, d), each as much as q and the row of k (n, d) agree: exp of
   their product times scale, plus b (heads, m, n), over the sum of all n. Each head does so on its own part of d.
   Rows with 0 in valid (n) count for nothing; b and valid may be 0. p (n) is for what is computed on the way. */
static void attention(int m, int n, int d, int heads, float scale, const float *q, const float *k, const float *v,
                      const float *b, const float *valid, float *p, float *y)
{
    const int part = d / heads;
    for (int h = 0; h < heads; h++)
        for (int row = 0; row < m; row++) {
            const float *const a = q + row * d + h * part;
            float *const z = y + row * d + h * part;
            float top = -3.40282347e+38f, sum = 0.0f;
            for (int j = 0; j < n; j++) {
                const float *const c = k + j * d + h * part;
                float s = 0.0f;
                for (int i = 0; i < part; i++)
                    s += a[i] * c[i];
                s *= scale;
                if (b)
                    s += b[(h * m + row) * n + j];
                if (valid && !(valid[j] != 0.0f))
                    s = -1e8f;
                p[j] = s;
                top = s > top ? s : top;
            }
            for (int j = 0; j < n; j++)
                p[j] -= top;
            exp_each(n, p);
            for (int j = 0; j < n; j++)
                sum += p[j];
            for (int i = 0; i < part; i++)
                z[i] = 0.0f;
            for (int j = 0; j < n; j++)
                for (int i = 0; i < part; i++)
                    z[i] += p[j] / sum * v[j * d + h * part + i];
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

_BAND = """
/* The rows of x under a row of windows, as real numbers, with zeros where windows stick out. */
static void band_SOURCE(const window *s, const SOURCE *x, int row, float *band)
{
    const int edge = s->pad_cols * s->cell, width = s->cols * s->cell, top = row * s->step_rows - s->pad_rows;
    for (int plane = 0; plane < s->planes; plane++)
        for (int r = top; r < top + s->height; r++, band += width + 2 * edge) {
            const int inside = r >= 0 && r < s->rows, at = (plane * s->rows + r) * width;
            for (int i = 0; i < edge; i++)
                band[i] = band[edge + width + i] = 0.0f;
            if (inside)
                for (int i = 0; i < width; i++)
                    band[edge + i] = (float)x[at + i];
            else
                for (int i = 0; i < width; i++)
                    band[edge + i] = 0.0f;
        }
}
"""

_PLACES = """
/* Where in a band the numbers under its first window are; returns how many there are. */
static int places_in(const window *s, int32_t *places)
{
    const int width = (s->cols + 2 * s->pad_cols) * s->cell;
    int found = 0;
    for (int line = 0; line < s->planes * s->height; line++)
        for (int i = 0; i < s->width * s->cell; i++)
            places[found++] = line * width + i;
    return found;
}
"""

_SPREAD = """
/* y (windows, m) += the n numbers under each window, at `places` in the band, times w (n, m). */
static void spread(int windows, int step, int n, int m, const float *restrict band, const int32_t *restrict places,
                   const float *restrict w, float *restrict y)
{
    const int fours = n - n % 4, wide = m - m % 16;
    for (int i = 0; i < fours; i += 4) {
        const int at0 = places[i], at1 = places[i + 1], at2 = places[i + 2], at3 = places[i + 3];
        const float *const w0 = w + i * m, *const w1 = w0 + m, *const w2 = w1 + m, *const w3 = w2 + m;
        for (int k = 0; k < windows; k++) {
            const float *const x = band + k * step;
            const float a = x[at0], b = x[at1], c = x[at2], d = x[at3];
            float *restrict z = y + k * m;
            for (int o = 0; o < wide; o += 16)
                for (int j = o; j < o + 16; j++)
                    z[j] += a * w0[j] + b * w1[j] + c * w2[j] + d * w3[j];
            for (int o = wide; o < m; o++)
                z[o] += a * w0[o] + b * w1[o] + c * w2[o] + d * w3[o];
        }
    }
    for (int i = fours; i < n; i++)
        for (int k = 0; k < windows; k++)
            for (int o = 0; o < m; o++)
                y[k * m + o] += band[k * step + places[i]] * w[i * m + o];
}
"""

_CONVOLVE = """
/* y (out_rows, out_cols, m): what is under each window times w, plus b. */
static void convolve_SOURCE(const window *s, int m, const SOURCE *x, const float *w, const float *b, float *y,
                            float *band, int32_t *places)
{
    const int n = places_in(s, places);
    for (int row = 0; row < s->out_rows; row++, y += s->out_cols * m) {
        band_SOURCE(s, x, row, band);
        for (int k = 0; k < s->out_cols; k++)
            for (int o = 0; o < m; o++)
                y[k * m + o] = b[o];
        spread(s->out_cols, s->step_cols * s->cell, n, m, band, places, w, y);
    }
}
"""

_CONVOLVE_SPARSE = """
/* The same where many numbers of x are 0: under each window, only the others are multiplied. */
static void convolve_sparse(const window *s, int m, const float *x, const float *w, const float *b, float *y,
                            float *band, int32_t *places, float *values, int32_t *rows)
{
    const int n = places_in(s, places);
    for (int row = 0; row < s->out_rows; row++) {
        band_float(s, x, row, band);
        for (int col = 0; col < s->out_cols; col++, y += m) {
            const float *const under = band + col * s->step_cols * s->cell;
            int found = 0;
            for (int i = 0; i < n; i++) {
                const float v = under[places[i]];
                values[found] = v;
                rows[found] = i;
                found += v != 0.0f;
            }
            for (int o = 0; o < m; o++)
                y[o] = b[o];
            sparse(found, m, values, rows, w, y);
        }
    }
}
"""

_CONVOLVE_ALONE = """
/* y (out_rows, out_cols, cell): each number of a cell by itself, what is under its window times w, plus b. */
static void convolve_alone(const window *s, const float *x, const float *w, const float *b, float *restrict y)
{
    const int m = s->cell;
    for (int row = 0; row < s->out_rows; row++)
        for (int col = 0; col < s->out_cols; col++, y += m) {
            const int top = row * s->step_rows - s->pad_rows, left = col * s->step_cols - s->pad_cols;
            for (int o = 0; o < m; o++)
                y[o] = b[o];
            for (int r = 0; r < s->height; r++)
                for (int c = 0; c < s->width; c++)
                    if (top + r >= 0 && top + r < s->rows && left + c >= 0 && left + c < s->cols) {
                        const float *const u = w + (r * s->width + c) * m;
                        const float *const v = x + ((top + r) * s->cols + left + c) * m;
                        for (int o = 0; o < m; o++)
                            y[o] += v[o] * u[o];
                    }
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
    "dense_rows": _DENSE_ROWS,
    "attention": _ATTENTION,
    "nonzero": _NONZERO,
    "sparse": _SPARSE,
    "window": _WINDOW,
    "places_in": _PLACES,
    "band_float": _BAND.replace("SOURCE", "float"),
    "band_uint8_t": _BAND.replace("SOURCE", "uint8_t"),
    "spread": _SPREAD,
    "convolve_float": _CONVOLVE.replace("SOURCE", "float"),
    "convolve_uint8_t": _CONVOLVE.replace("SOURCE", "uint8_t"),
    "convolve_sparse": _CONVOLVE_SPARSE,
    "convolve_alone": _CONVOLVE_ALONE,
    "max_pool": _MAX_POOL,
}
