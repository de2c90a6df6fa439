/* Means and variances of a whole network in one call: a list of operators over buffers, image by image.

   A buffer holds one image after the other, each as four planes of `plane` floats: mean, variance, second moment and
   mean slope of the activation. Images are stored with the channels innermost. Weights are packed [K][2][columns] per
   panel, mean and variance side by side, so that one stream feeds both products:
       mean += x * w,   var += (x^2 + v) * w_var + v * w^2
   which adds only what is not negative. Read vectors.h before. */
#include <math.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { INPUT, PAD, PRODUCT, RELU, MAX_POOL, AVG_POOL, ADD, AFFINE, COVARIANCE };

typedef struct {
    int32_t kind, in, in2, out, known, relu, gain, clark;
    int32_t c, h, w, n, oh, ow, kh, kw, sh, sw, ph, pw; /* input, columns, output, window, steps, border */
    int32_t panel, reserved;                            /* vectors side by side in a panel */
    float rho, unused;
    const float *weight, *extra; /* packed weights, or scales; starting sums, or shifts */
} Op;

typedef struct {
    float *at;
    int64_t plane; /* floats of one plane; a multiple of LANES with one vector to spare */
} Buffer;

static inline float *plane(const Buffer *b, int64_t image, int which) { return b->at + (4 * image + which) * b->plane; }

static inline vfloat splat(float x) { return x - (vfloat){0}; }
static inline vfloat load(const float *p) { return *(const vfloat_u *)p; }
static inline void store(float *p, vfloat x, int64_t count) {
    if (count >= LANES) *(vfloat_u *)p = x;
#if defined(__AVX512F__)
    else if (count > 0) _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)x);
#else
    else for (int64_t i = 0; i < count; i++) p[i] = x[i];
#endif
}
static inline vfloat pick(vint mask, vfloat a, vfloat b) { return (vfloat)((mask & (vint)a) | (~mask & (vint)b)); }
static inline vfloat larger(vfloat a, vfloat b) { return pick(a > b, a, b); }
static inline vfloat smaller(vfloat a, vfloat b) { return pick(a < b, a, b); }
static inline float total(vfloat x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
#endif
}
static inline vfloat root(vfloat x) {
#if defined(__AVX512F__)
    return (vfloat)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX__)
    return (vfloat)_mm256_sqrt_ps((__m256)x);
#elif defined(__aarch64__)
    return (vfloat)vsqrtq_f32((float32x4_t)x);
#else
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

/* e^x for -80 <= x <= 0, to 2 units in the last place. */
static inline vfloat exponential(vfloat x) {
    const vfloat magic = splat(12582912.0f);
    vfloat z = x * 1.44269504f + magic, n = z - magic;
    vfloat r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vfloat p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (vfloat)((vint)p + (((vint)z - (vint)magic) << 23));
}

/* Phi(a), 1 - Phi(a) and phi(a) from one exponential: Abramowitz and Stegun 7.1.26, absolute error 1.5e-7. */
static inline void normal(vfloat a, vfloat *below, vfloat *above, vfloat *density) {
    vfloat x = larger(a, -a) * 0.70710678f;
    vfloat e = exponential(larger(-x * x, splat(-80.0f)));
    vfloat t = 1.0f / (1.0f + 0.3275911f * x);
    vfloat p = splat(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    vfloat tail = 0.5f * p * t * e;
    *below = pick(a > 0, 1.0f - tail, tail);
    *above = pick(a > 0, tail, 1.0f - tail);
    *density = 0.39894228f * e;
}

static inline void relu(vfloat m, vfloat v, vfloat *mean, vfloat *var, vfloat *gain) {
    vfloat s = root(larger(v, splat(1e-20f))), below, above, density;
    vfloat a = larger(smaller(m / s, splat(1e8f)), splat(-1e8f));
    normal(a, &below, &above, &density);
    vfloat share = below + a * (a * below * above + density * (above - below)) - density * density;
    *mean = m * below + s * density;
    *var = v * larger(share, splat(0));
    *gain = below;
}

static inline void clark(vfloat *m, vfloat *v, vfloat m2, vfloat v2) {
    vfloat spread = larger(*v + v2, splat(1e-20f)), s = root(spread), first, second, density;
    vfloat a = larger(smaller((*m - m2) / s, splat(30.0f)), splat(-30.0f));
    normal(a, &first, &second, &density);
    vfloat shared = a * (a * first * second + density * (second - first)) - density * density;
    *m = *m * first + m2 * second + s * density;
    *v = larger(*v * first + v2 * second + spread * shared, splat(0));
}

/* NV vectors of columns by MR rows. Row r reads `taps` runs of `run` floats, `jump` apart, from x[r]. */
#define INLINE static inline __attribute__((always_inline))
INLINE void tile(const int NV, const int MR, const Op *op, const float *const *x, float *const *y, int64_t p, int64_t q,
                 int64_t taps, int64_t run, int64_t jump, const float *w, const float *start, int64_t columns) {
    vfloat mean[6][4], var[6][4];
#pragma GCC unroll 6
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) mean[r][j] = load(start + j * LANES), var[r][j] = load(start + (NV + j) * LANES);
    for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t i = tap * jump; i < tap * jump + run; i++, w += 2 * NV * LANES) {
            vfloat own[4];
#pragma GCC unroll 4
            for (int j = 0; j < NV; j++) {
                vfloat wm = load(w + j * LANES), wv = load(w + (NV + j) * LANES);
                if (!op->known) own[j] = wm * wm;
#pragma GCC unroll 6
                for (int r = 0; r < MR; r++) {
                    mean[r][j] += x[r][i] * wm;
                    var[r][j] += x[r][2 * p + i] * wv;
                    if (!op->known) var[r][j] += x[r][p + i] * own[j];
                }
            }
        }
#pragma GCC unroll 6
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) {
            vfloat m = mean[r][j], v = var[r][j], gain = {0};
            if (op->relu) relu(m, v, &m, &v, &gain);
            int64_t left = columns - j * LANES;
            float *out = y[r] + j * LANES;
            store(out, m, left), store(out + q, v, left), store(out + 2 * q, m * m + v, left);
            if (op->gain) store(out + 3 * q, gain, left);
        }
}

#define ARGS const Op *op, const float *const *x, float *const *y, int64_t p, int64_t q, int64_t taps, int64_t run, \
             int64_t jump, const float *w, const float *start, int64_t columns
typedef void Tile(ARGS);
/* Whether the input is known is settled outside the loops. */
#define TILE(NV, MR)                                                                                  \
    static void tile_##NV##_##MR(ARGS) {                                                              \
        Op own = *op;                                                                                 \
        if (op->known) own.known = 1, tile(NV, MR, &own, x, y, p, q, taps, run, jump, w, start, columns); \
        else own.known = 0, tile(NV, MR, &own, x, y, p, q, taps, run, jump, w, start, columns);           \
    }
TILE(1, 1) TILE(1, 2) TILE(1, 3) TILE(1, 4) TILE(1, 5) TILE(1, 6)
TILE(2, 1) TILE(2, 2) TILE(2, 3) TILE(2, 4)
TILE(3, 1) TILE(3, 2) TILE(3, 3)
TILE(4, 1) TILE(4, 2)
static Tile *const TILES[4][6] = {{tile_1_1, tile_1_2, tile_1_3, tile_1_4, tile_1_5, tile_1_6},
                                  {tile_2_1, tile_2_2, tile_2_3, tile_2_4},
                                  {tile_3_1, tile_3_2, tile_3_3},
                                  {tile_4_1, tile_4_2}};
static const int MOST[4] = {6, 4, 3, 2};

/* All rows of one run of places, every panel: `count` rows whose inputs lie `dx` apart and outputs `dy`. */
static void rows(const Op *op, const float *x, int64_t dx, float *y, int64_t dy, int64_t count, int64_t p, int64_t q,
                 int64_t taps, int64_t run, int64_t jump) {
    const float *w = op->weight, *start = op->extra;
    int64_t vectors = (op->n + LANES - 1) / LANES;
    for (int64_t done = 0; done < vectors;) {
        int64_t nv = vectors - done < op->panel ? vectors - done : op->panel;
        for (int64_t r = 0; r < count;) {
            int64_t mr = count - r < MOST[nv - 1] ? count - r : MOST[nv - 1];
            const float *xs[6];
            float *ys[6];
            for (int64_t i = 0; i < mr; i++) xs[i] = x + (r + i) * dx, ys[i] = y + (r + i) * dy + done * LANES;
            TILES[nv - 1][mr - 1](op, xs, ys, p, q, taps, run, jump, w, start, op->n - done * LANES);
            r += mr;
        }
        w += 2 * nv * LANES * taps * run, start += 2 * nv * LANES, done += nv;
    }
}

static void product(const Op *op, const Buffer *in, const Buffer *out, int64_t images) {
    if (op->oh * op->ow == 1 && op->kh == op->h && op->kw == op->w) {
        rows(op, in->at, 4 * in->plane, out->at, 4 * out->plane, images, in->plane, out->plane, 1,
             (int64_t)op->c * op->h * op->w, 0);
        return;
    }
    for (int64_t b = 0; b < images; b++)
        for (int64_t i = 0; i < op->oh; i++)
            rows(op, plane(in, b, 0) + i * op->sh * op->w * op->c, (int64_t)op->sw * op->c,
                 plane(out, b, 0) + i * op->ow * op->n, op->n, op->ow, in->plane, out->plane, op->kh,
                 (int64_t)op->kw * op->c, (int64_t)op->w * op->c);
}

static void input(const Op *op, const float *x, const Buffer *out, int64_t images) {
    int64_t pixels = (int64_t)op->h * op->w;
    for (int64_t b = 0; b < images; b++) {
        float *m = plane(out, b, 0), *e = plane(out, b, 2);
        memset(plane(out, b, 1), 0, sizeof(float) * op->c * pixels);
        const float *from = x + b * op->c * pixels;
        for (int64_t c = 0; c < op->c; c++)
            for (int64_t i = 0; i < pixels; i++) {
                float value = from[c * pixels + i];
                m[i * op->c + c] = value, e[i * op->c + c] = value * value;
            }
    }
}

static void pad(const Op *op, const Buffer *in, const Buffer *out, int64_t images) {
    int64_t run = (int64_t)op->w * op->c, wide = (int64_t)op->ow * op->c;
    for (int64_t b = 0; b < images; b++)
        for (int k = 0; k < 3; k++) {
            const float *from = plane(in, b, k);
            float *to = plane(out, b, k);
            memset(to, 0, sizeof(float) * wide * op->oh);
            for (int64_t i = 0; i < op->h; i++)
                memcpy(to + (i + op->ph) * wide + op->pw * op->c, from + i * run, sizeof(float) * run);
        }
}

static void activate(const Op *op, const Buffer *in, const Buffer *out, int64_t images) {
    int64_t n = (int64_t)op->c * op->h * op->w;
    for (int64_t b = 0; b < images; b++)
        for (int64_t i = 0; i < n; i += LANES) {
            vfloat m, v, gain;
            relu(load(plane(in, b, 0) + i), load(plane(in, b, 1) + i), &m, &v, &gain);
            *(vfloat_u *)(plane(out, b, 0) + i) = m;
            *(vfloat_u *)(plane(out, b, 1) + i) = v;
            *(vfloat_u *)(plane(out, b, 2) + i) = m * m + v;
            if (op->gain) *(vfloat_u *)(plane(out, b, 3) + i) = gain;
        }
}

enum { MOST_ROWS = 8 };
/* The window of one output pixel, for LANES channels or fewer. */
static inline void window(const Op *op, const float *m, const float *v, int64_t i, int64_t j, vfloat *mean, vfloat *var) {
    vfloat rm[MOST_ROWS] = {{0}}, rv[MOST_ROWS] = {{0}};
    int64_t left = 0;
    for (int64_t a = 0; a < op->kh; a++)
        for (int64_t b = 0; b < op->kw; b++) {
            int64_t at = ((i * op->sh + a) * op->w + j * op->sw + b) * op->c;
            vfloat m2 = load(m + at), v2 = load(v + at);
            if (!op->clark) {
                if (!left) rm[0] = m2, rv[0] = v2, left = 1;
                else rv[0] = pick(rm[0] >= m2, rv[0], v2), rm[0] = larger(rm[0], m2);
            } else if (!b) rm[a] = m2, rv[a] = v2;
            else clark(&rm[a], &rv[a], m2, v2);
        }
    for (int64_t a = 1; op->clark && a < op->kh; a++) clark(&rm[0], &rv[0], rm[a], rv[a]);
    *mean = rm[0], *var = rv[0];
}

static void max_pool(const Op *op, const Buffer *in, const Buffer *out, int64_t images) {
    for (int64_t b = 0; b < images; b++) {
        const float *m = plane(in, b, 0), *v = plane(in, b, 1);
        float *y = plane(out, b, 0);
        for (int64_t i = 0; i < op->oh; i++)
            for (int64_t j = 0; j < op->ow; j++)
                for (int64_t c = 0; c < op->c; c += LANES) {
                    vfloat mean, var;
                    window(op, m + c, v + c, i, j, &mean, &var);
                    float *to = y + (i * op->ow + j) * op->c + c;
                    int64_t left = op->c - c;
                    store(to, mean, left), store(to + out->plane, var, left);
                    store(to + 2 * out->plane, mean * mean + var, left);
                }
    }
}

static void avg_pool(const Op *op, const Buffer *in, const Buffer *out, int64_t images) {
    float n = 1.0f / (float)(op->kh * op->kw);
    for (int64_t b = 0; b < images; b++)
        for (int64_t i = 0; i < op->oh; i++)
            for (int64_t j = 0; j < op->ow; j++)
                for (int64_t c = 0; c < op->c; c += LANES) {
                    vfloat m = {0}, v = {0}, s = {0};
                    for (int64_t a = 0; a < op->kh; a++)
                        for (int64_t d = 0; d < op->kw; d++) {
                            int64_t at = ((i * op->sh + a) * op->w + j * op->sw + d) * op->c + c;
                            vfloat own = load(plane(in, b, 1) + at);
                            m += load(plane(in, b, 0) + at), v += own;
                            if (op->rho > 0) s += root(larger(own, splat(0)));
                        }
                    m *= n, s *= n;
                    v = op->rho * s * s + (1.0f - op->rho) * v * n * n;
                    float *to = plane(out, b, 0) + (i * op->ow + j) * op->c + c;
                    int64_t left = op->c - c;
                    store(to, m, left), store(to + out->plane, v, left), store(to + 2 * out->plane, m * m + v, left);
                }
}

static void add(const Op *op, const Buffer *in, const Buffer *in2, const Buffer *out, int64_t images) {
    int64_t n = (int64_t)op->c * op->h * op->w;
    for (int64_t b = 0; b < images; b++)
        for (int64_t i = 0; i < n; i += LANES) {
            vfloat m = load(plane(in, b, 0) + i) + load(plane(in2, b, 0) + i);
            vfloat v = load(plane(in, b, 1) + i) + load(plane(in2, b, 1) + i);
            *(vfloat_u *)(plane(out, b, 0) + i) = m;
            *(vfloat_u *)(plane(out, b, 1) + i) = v;
            *(vfloat_u *)(plane(out, b, 2) + i) = m * m + v;
        }
}

static void affine(const Op *op, const Buffer *in, const Buffer *out, int64_t images) {
    int64_t pixels = (int64_t)op->h * op->w;
    for (int64_t b = 0; b < images; b++)
        for (int64_t i = 0; i < pixels; i++)
            for (int64_t c = 0; c < op->c; c++) {
                int64_t at = i * op->c + c;
                float m = plane(in, b, 0)[at] * op->weight[c] + op->extra[c];
                float v = op->known ? 0.0f : plane(in, b, 1)[at] * op->weight[c] * op->weight[c];
                plane(out, b, 0)[at] = m, plane(out, b, 1)[at] = v, plane(out, b, 2)[at] = m * m + v;
            }
}

/* out = a b, R rows of a (depth numbers, `stride` apart) against NV vectors of the rows of b (`wide` apart). */
INLINE void block(const int R, const int NV, const float *a, int64_t stride, const float *b, int64_t depth,
                  int64_t wide, float *out, int64_t to) {
    vfloat sum[5][4] = {{{0}}};
    for (int64_t k = 0; k < depth; k++) {
        vfloat row[4];
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) row[j] = load(b + k * wide + j * LANES);
#pragma GCC unroll 5
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int j = 0; j < NV; j++) sum[r][j] += row[j] * a[r * stride + k];
    }
#pragma GCC unroll 5
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) *(vfloat_u *)(out + r * to + j * LANES) = sum[r][j];
}

/* out (rows x wide, rows `to` apart) = a (rows x depth) b (depth x wide). */
static void multiply(const float *a, int64_t stride, int64_t rows, const float *b, int64_t depth, int64_t wide,
                     float *out, int64_t to) {
    int64_t r = 0, j;
    for (; r + 5 <= rows; r += 5) {
        for (j = 0; j + 2 * LANES <= wide; j += 2 * LANES)
            block(5, 2, a + r * stride, stride, b + j, depth, wide, out + r * to + j, to);
        if (j < wide) block(5, 1, a + r * stride, stride, b + j, depth, wide, out + r * to + j, to);
    }
    for (; r < rows; r++) {
        for (j = 0; j + 4 * LANES <= wide; j += 4 * LANES)
            block(1, 4, a + r * stride, 0, b + j, depth, wide, out + r * to + j, 0);
        switch ((wide - j) / LANES) {
        case 3: block(1, 3, a + r * stride, 0, b + j, depth, wide, out + r * to + j, 0); break;
        case 2: block(1, 2, a + r * stride, 0, b + j, depth, wide, out + r * to + j, 0); break;
        case 1: block(1, 1, a + r * stride, 0, b + j, depth, wide, out + r * to + j, 0);
        }
    }
}

/* cov = a diag(v) a^T with a (n x wide); `row` holds one row. */
static void outer(const float *a, const float *v, int64_t wide, int64_t n, float *row, float *cov) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < wide; k += LANES) *(vfloat_u *)(row + k) = load(a + i * wide + k) * load(v + k);
        for (int64_t j = 0; j <= i; j += 4) {
            int64_t last = i - j < 3 ? i - j : 3;
            const float *with[4];
            vfloat sum[4] = {{0}};
            for (int r = 0; r < 4; r++) with[r] = a + (j + (r < last ? r : last)) * wide;
            for (int64_t k = 0; k < wide; k += LANES) {
                vfloat own = load(row + k);
#pragma GCC unroll 4
                for (int r = 0; r < 4; r++) sum[r] += own * load(with[r] + k);
            }
            for (int64_t r = 0; r <= last; r++) cov[i * n + j + r] = cov[(j + r) * n + i] = total(sum[r]);
        }
    }
}

/* Logits' covariance. op->weight holds the last weights (n x c, rows padded), op->extra the hidden ones (c x h, rows
   padded) and after them their squares transposed (h x c, rows padded). `in` is the last layer's input with the slopes,
   `in2` the hidden layer's input, `out` the logits. With J = last diag(slope) hidden, the logits are linear in two
   independent vectors, [last, J], of the variances [rest, those of in2]. */
static void covariance(const Op *op, const Buffer *in, const Buffer *in2, const Buffer *out, float *mean, float *var,
                       float *cov, float *scratch, int64_t images) {
    int64_t n = op->n, near = (op->c + LANES - 1) / LANES * LANES, deep = (op->h + LANES - 1) / LANES * LANES;
    int64_t wide = near + deep;
    float *v = scratch, *row = v + wide, *shared = row + wide, *scaled = shared + near, *both = scaled + n * near;
    for (int64_t i = 0; i < n; i++) memcpy(both + i * wide, op->weight + i * near, sizeof(float) * near);
    memset(shared, 0, sizeof(float) * near);
    for (int64_t b = 0; b < images; b++) {
        float *to = cov + b * n * n;
        const float *hidden = plane(in, b, 1), *before = plane(in2, b, 1), *gain = plane(in, b, 3);
        memcpy(mean + b * n, plane(out, b, 0), sizeof(float) * n);
        if (op->h) multiply(before, 0, 1, op->extra + op->c * deep, op->h, near, shared, 0);
        for (int64_t k = 0; k < near; k += LANES) {
            vfloat slope = op->h ? load(gain + k) : splat(0);
            *(vfloat_u *)(v + k) = larger(load(hidden + k) - slope * slope * load(shared + k), splat(0));
            for (int64_t i = 0; op->h && i < n; i++)
                *(vfloat_u *)(scaled + i * near + k) = load(op->weight + i * near + k) * slope;
        }
        if (op->h) {
            memcpy(v + near, before, sizeof(float) * deep);
            multiply(scaled, near, n, op->extra, op->c, deep, both + near, wide);
        }
        outer(both, v, wide, n, row, to);
        for (int64_t i = 0; i < n; i++) {
            vfloat through = {0};
            for (int64_t k = 0; k < near; k += LANES) {
                vfloat mu = load(op->weight + i * near + k);
                through += mu * mu * load(hidden + k);
            }
            to[i * n + i] += fmaxf(plane(out, b, 1)[i] - total(through), 0.0f); /* what the last weights add */
            var[b * n + i] = to[i * n + i];
        }
    }
}

int moments_lanes(void) { return LANES; }

/* Everything a call needs beside its input. */
typedef struct {
    const Op *ops;
    const Buffer *buffers;
    float *scratch;
    int64_t count, tile, in_size, classes;
} Net;

/* `images` inputs of x, a tile at a time. The logits leave the last buffer; cov is NULL without a covariance. */
void moments_run(const Net *net, int64_t images, const float *x, float *mean, float *var, float *cov) {
    int64_t n = net->classes;
#if defined(__x86_64__)
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040); /* tails of the normal density underflow; as zeros they cost nothing */
#endif
    for (int64_t done = 0; done < images; done += net->tile) {
        int64_t now = images - done < net->tile ? images - done : net->tile;
        const Buffer *last = net->buffers;
        for (const Op *op = net->ops; op < net->ops + net->count; op++) {
            const Buffer *in = net->buffers + op->in, *in2 = net->buffers + op->in2;
            last = net->buffers + op->out;
            switch (op->kind) {
            case INPUT: input(op, x + done * net->in_size, last, now); break;
            case PAD: pad(op, in, last, now); break;
            case PRODUCT: product(op, in, last, now); break;
            case RELU: activate(op, in, last, now); break;
            case MAX_POOL: max_pool(op, in, last, now); break;
            case AVG_POOL: avg_pool(op, in, last, now); break;
            case ADD: add(op, in, in2, last, now); break;
            case AFFINE: affine(op, in, last, now); break;
            case COVARIANCE:
                covariance(op, in, in2, last, mean + done * n, var + done * n, cov + done * n * n, net->scratch, now);
            }
        }
        for (int64_t b = 0; !cov && b < now; b++) {
            memcpy(mean + (done + b) * n, plane(last, b, 0), sizeof(float) * n);
            memcpy(var + (done + b) * n, plane(last, b, 1), sizeof(float) * n);
        }
    }
#if defined(__x86_64__)
    _mm_setcsr(mode);
#endif
}
