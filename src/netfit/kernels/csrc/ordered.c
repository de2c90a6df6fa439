/* Matrix product whose sums saturate at every step, v <- clamp(leak * v + x[b][k] * w[k][n], lo, hi) in the order
   of k, and its gradient. Built with -ffp-contract=fast: results agree with the torch reference up to rounding.

   A block of ROWS x LANES sums lives in vector registers over all steps. Operands are packed so that a step reads
   ROWS + LANES neighbouring numbers. Steps are counted in floats: they are compared and blended like the sums. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 8
#define LANES 16
#define EACH_ROW _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++)

typedef float V __attribute__((vector_size(4 * LANES)));
typedef int32_t I __attribute__((vector_size(4 * LANES)));

static inline V splat(float a) { return a - (V){0}; }

static inline V load(const float *p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}

#ifdef __AVX512DQ__
#include <immintrin.h>
/* Between -reach and reach in one instruction: the smaller magnitude with the sign of the first. */
static inline V within(V v, V reach) { return _mm512_range_ps(v, reach, 2); }
static inline V between(V v, V lo, V hi) { return _mm512_min_ps(_mm512_max_ps(v, lo), hi); }
static inline V if_differ(V a, V b, V yes, V no) {
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ), yes);
}
static inline V add_if_after(V k, V last, V a, V b, V sum) {
    return _mm512_mask3_fmadd_ps(a, b, sum, _mm512_cmp_ps_mask(k, last, _CMP_GT_OQ));
}
#else
static inline V pick(I mask, V yes, V no) { return (V)((mask & (I)yes) | (~mask & (I)no)); }
static inline V between(V v, V lo, V hi) {
    v = pick(v < lo, lo, v);
    return pick(v > hi, hi, v);
}
static inline V within(V v, V reach) { return between(v, -reach, reach); }
static inline V if_differ(V a, V b, V yes, V no) { return pick(a != b, yes, no); }
static inline V add_if_after(V k, V last, V a, V b, V sum) { return sum + (V)((I)(a * b) & (k > last)); }
#endif

/* out[c][i] = in[i * row + c * col] for i < count, zero from there to `width`. */
static inline __attribute__((always_inline)) void pack(const float *in, int64_t row, int64_t col, int64_t count,
                                                       int64_t cols, int width, float *out) {
    for (int64_t c = 0; c < cols; c++, out += width, in += col)
        if (count >= width) /* a loop of fixed length, which becomes vector moves */
            for (int i = 0; i < width; i++) out[i] = in[i * row];
        else
            for (int i = 0; i < width; i++) out[i] = i < count ? in[i * row] : 0;
}

static int all_finite(const float *x, int64_t n) {
    uint32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, x + i, 4);
        u &= 0x7fffffffU;
        top = u > top ? u : top;
    }
    return top < 0x7f800000U;
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

struct law {
    float middle, reach, leak; /* sums stay within middle +- reach */
};

/* Sums are held relative to the middle of their range, which makes the range symmetric and a clamp one instruction;
   where the middle is so far from zero that this would cost digits, `wide` says to clamp at both ends instead. */
static inline __attribute__((always_inline)) void accumulate(const float *x, const float *w, int64_t k_count,
                                                             struct law law, int wide, int leaky, int track, V *v,
                                                             V *last) {
    const float middle = wide ? 0 : law.middle;
    const V lo = splat(law.middle - law.reach), hi = splat(law.middle + law.reach), reach = splat(law.reach);
    const V leak = splat(law.leak), pull = splat((law.leak - 1) * middle);
    V step = splat(0), sum[ROWS], at[ROWS];
    EACH_ROW sum[r] = splat(-middle), at[r] = splat(-1);
    for (int64_t k = 0; k < k_count; k++) {
        const V wk = load(w + k * LANES);
        EACH_ROW {
            const V before = leaky ? sum[r] * leak + pull : sum[r];
            const V free = before + splat(x[k * ROWS + r]) * wk;
            sum[r] = wide ? between(free, lo, hi) : within(free, reach);
            if (track) at[r] = if_differ(free, sum[r], step, at[r]);
        }
        step += 1;
    }
    EACH_ROW v[r] = sum[r] + middle, last[r] = at[r];
}

static void run(const float *x, const float *w, int64_t k, struct law law, int track, V *v, V *last) {
    const int wide = fabsf(law.middle) * 16 > law.reach, leaky = law.leak != 1;
    if (!wide && !leaky && track) accumulate(x, w, k, law, 0, 0, 1, v, last);
    else if (!wide && !leaky) accumulate(x, w, k, law, 0, 0, 0, v, last);
    else if (!wide) accumulate(x, w, k, law, 0, 1, 1, v, last);
    else accumulate(x, w, k, law, 1, 1, 1, v, last);
}

static void store(const V *from, int64_t rows, int64_t cols, int64_t stride, float *to) {
    for (int64_t r = 0; r < rows; r++)
        if (cols == LANES) memcpy(to + r * stride, from + r, sizeof *from); /* of fixed length: one move */
        else memcpy(to + r * stride, from + r, 4 * (size_t)cols);
}

/* x (b, k) with rows `ldx` apart, w (k, n), out (b, n), and last (b, n) or NULL: the last step that saturated, -1 for
   none. Returns 1 without memory, 2 when an operand is not finite. */
int ordered_forward(const float *x, const float *w, int64_t b, int64_t k, int64_t n, int64_t ldx, float lo, float hi,
                    float leak, float *out, float *last) {
    const int64_t panels = (n + LANES - 1) / LANES;
    float *buffer = aligned_alloc(64, 64 * (size_t)((panels + 1) * k + 1)), *xs = buffer + panels * k * LANES;
    const struct law law = {lo + (hi - lo) / 2, (hi - lo) / 2, leak};
    if (!buffer) return 1;
    for (int64_t p = 0; p < panels; p++)
        pack(w + p * LANES, 1, n, n - p * LANES, k, LANES, buffer + p * k * LANES);
    int ok = all_finite(buffer, panels * k * LANES);
    for (int64_t i = 0; i < b && ok; i += ROWS) {
        const int64_t rows = least(ROWS, b - i);
        pack(x + i * ldx, ldx, 1, rows, k, ROWS, xs);
        ok = all_finite(xs, k * ROWS);
        for (int64_t j = 0; j < n && ok; j += LANES) {
            V v[ROWS], s[ROWS];
            run(xs, buffer + j * k, k, law, last != NULL, v, s);
            store(v, rows, least(LANES, n - j), n, out + i * n + j);
            if (last) store(s, rows, least(LANES, n - j), n, last + i * n + j);
        }
    }
    free(buffer);
    return ok ? 0 : 2;
}

/* dx[b][k] = sum over n of g[b][n] * w[k][n] where k > last[b][n]; lanes are steps. */
static int by_input(const float *g, const float *w, const float *last, int64_t b, int64_t k, int64_t n, float *dx) {
    const int64_t panels = (k + LANES - 1) / LANES;
    float *buffer = aligned_alloc(64, 64 * (size_t)((panels + 2) * n + 1)), *gs = buffer + panels * n * LANES;
    if (!buffer) return 1;
    float *ls = gs + n * LANES;
    for (int64_t p = 0; p < panels; p++)
        pack(w + p * LANES * n, n, 1, k - p * LANES, n, LANES, buffer + p * n * LANES);
    V first;
    for (int l = 0; l < LANES; l++) first[l] = (float)l;
    for (int64_t i = 0; i < b; i += ROWS) {
        const int64_t rows = least(ROWS, b - i);
        pack(g + i * n, n, 1, rows, n, ROWS, gs);
        pack(last + i * n, n, 1, rows, n, ROWS, ls);
        for (int64_t p = 0; p < panels; p++) {
            const V steps = first + (float)(p * LANES);
            V sum[ROWS];
            EACH_ROW sum[r] = splat(0);
            for (int64_t j = 0; j < n; j++) {
                const V wj = load(buffer + (p * n + j) * LANES);
                EACH_ROW sum[r] = add_if_after(steps, splat(ls[j * ROWS + r]), splat(gs[j * ROWS + r]), wj, sum[r]);
            }
            store(sum, rows, least(LANES, k - p * LANES), k, dx + i * k + p * LANES);
        }
    }
    free(buffer);
    return 0;
}

/* dw[k][n] = sum over b of x[b][k] * g[b][n] where k > last[b][n]; lanes are columns. */
static int by_weight(const float *g, const float *x, const float *last, int64_t b, int64_t k, int64_t n, int64_t ldx,
                     float *dw) {
    const int64_t blocks = (k + ROWS - 1) / ROWS;
    float *buffer = aligned_alloc(64, 64 * (size_t)((blocks + 2) * b + 1)), *gs = buffer + blocks * b * LANES;
    if (!buffer) return 1;
    float *ls = gs + b * LANES;
    for (int64_t p = 0; p < blocks; p++)
        pack(x + p * ROWS, 1, ldx, k - p * ROWS, b, ROWS, buffer + p * b * ROWS);
    for (int64_t j = 0; j < n; j += LANES) {
        const int64_t cols = least(LANES, n - j);
        pack(g + j, 1, n, cols, b, LANES, gs);
        pack(last + j, 1, n, cols, b, LANES, ls);
        for (int64_t p = 0; p < blocks; p++) {
            const float *xs = buffer + p * b * ROWS;
            V sum[ROWS];
            EACH_ROW sum[r] = splat(0);
            for (int64_t i = 0; i < b; i++) {
                const V gi = load(gs + i * LANES), li = load(ls + i * LANES);
                EACH_ROW sum[r] = add_if_after(splat((float)(p * ROWS + r)), li, splat(xs[i * ROWS + r]), gi, sum[r]);
            }
            store(sum, least(ROWS, k - p * ROWS), cols, n, dw + p * ROWS * n + j);
        }
    }
    free(buffer);
    return 0;
}

/* Gradients without the factor leak^(k_count - 1 - k), which depends on the step only. NULL for one not wanted. */
int ordered_backward(const float *g, const float *x, const float *w, const float *last, int64_t b, int64_t k,
                     int64_t n, int64_t ldx, float *dx, float *dw) {
    return (dx && by_input(g, w, last, b, k, n, dx)) || (dw && by_weight(g, x, last, b, k, n, ldx, dw));
}
