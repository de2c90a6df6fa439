/* Chains of Kronecker-sparse factors on tiles of samples: lanes of a vector are samples, a tile never leaves the
   cache between the factors, and nothing is transposed in main memory.

   A factor has a*d blocks of b x c, block (i, l) mixing the inputs (i, :, l) of an (a, c, d) grid. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
typedef float vec __attribute__((vector_size(64), aligned(4)));

typedef struct {
    int64_t a, b, c, d;
    int64_t row, col; /* steps between the rows and the columns of a block: (c, 1), or (1, c) for the transpose */
    const float *weight;
    float *grad;
} Factor;

typedef struct {
    int64_t groups, features, samples; /* sizes, and their steps in floats */
    int64_t group, feature, sample;
} View;

typedef struct {
    const float *x, *bias, *g; /* input, bias or 0, gradient of the output */
    float *y;                  /* output, or gradient of the input */
    int64_t count, widest;     /* factors, and the largest number of features before or after one */
    View in, out;
    Factor factors[]; /* the first one is applied first */
} Call;

static inline void transpose(vec r[LANES]) {
#define SWAP(s, ...)                                                                  \
    for (int i = 0; i < LANES; i++)                                                   \
        if (!(i & s)) {                                                               \
            const vec a = r[i], b = r[i + s];                                         \
            r[i] = __builtin_shufflevector(a, b, __VA_ARGS__);                        \
            r[i + s] = SECOND(s, a, b);                                               \
        }
#define SECOND(s, a, b) SECOND_##s(a, b)
#define SECOND_8(a, b) __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#define SECOND_4(a, b) __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)
#define SECOND_2(a, b) __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define SECOND_1(a, b) __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31)
    SWAP(8, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
    SWAP(4, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
    SWAP(2, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
    SWAP(1, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
}

static inline float total(vec v) {
    v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    return v[0] + v[1];
}

/* `tile` lanes of x to one line per feature, in the order a factor reads them; the factor's `size` may be larger. */
static void load_tile(const float *x, View v, int64_t lanes, int64_t tile, const uint32_t *place, int64_t size,
                      float *to) {
    int64_t f = 0;
    if (v.feature == 1)
        for (; f + LANES <= v.features; f += LANES)
            for (int64_t s = 0; s < tile; s += LANES) {
                vec r[LANES] = {0};
                for (int i = 0; i < LANES && s + i < lanes; i++) r[i] = *(const vec *)(x + (s + i) * v.sample + f);
                transpose(r);
                for (int i = 0; i < LANES; i++) *(vec *)(to + place[f + i] + s) = r[i];
            }
    for (; f < v.features; f++) {
        float *line = to + place[f];
        if (v.sample == 1 && lanes == tile)
            for (int64_t s = 0; s < tile; s += LANES) *(vec *)(line + s) = *(const vec *)(x + f * v.feature + s);
        else if (v.sample == 1)
            memcpy(line, x + f * v.feature, (size_t)lanes * sizeof(float));
        else
            for (int64_t s = 0; s < lanes; s++) line[s] = x[f * v.feature + s * v.sample];
        memset(line + lanes, 0, (size_t)(tile - lanes) * sizeof(float));
    }
    for (; f < size; f++) memset(to + place[f], 0, (size_t)tile * sizeof(float));
}

static void store_tile(const float *from, View v, int64_t lanes, int64_t tile, const float *bias, float *y) {
    int64_t f = 0;
    if (v.feature == 1)
        for (; f + LANES <= v.features; f += LANES)
            for (int64_t s = 0; s < lanes; s += LANES) {
                vec r[LANES];
                for (int i = 0; i < LANES; i++) r[i] = *(const vec *)(from + (f + i) * tile + s);
                transpose(r);
                const vec add = bias ? *(const vec *)(bias + f) : (vec){0};
                for (int i = 0; i < LANES && s + i < lanes; i++) *(vec *)(y + (s + i) * v.sample + f) = r[i] + add;
            }
    for (; f < v.features; f++) {
        const float *line = from + f * tile, add = bias ? bias[f] : 0.0f;
        if (v.sample == 1 && lanes == tile)
            for (int64_t s = 0; s < tile; s += LANES) *(vec *)(y + f * v.feature + s) = *(const vec *)(line + s) + add;
        else
            for (int64_t s = 0; s < lanes; s++) y[f * v.feature + s * v.sample] = line[s] + add;
    }
}

/* `rows` outputs of a block; `count` vectors hold a tile. `ahead` is fetched meanwhile: weights are read once a tile.
   Whether the rows or the columns of a block lie side by side is known when this is compiled, and so are the addresses
   of eight weights as three pointers and multiples of one step: with any steps the additions cost more than the
   products. */
static inline __attribute__((always_inline)) void some_rows(const float *x, const float *w, const Factor *p, int by_rows,
                                                            int rows, int count, const float *ahead,
                                                            const uint32_t *place, float *y) {
    const int64_t row = by_rows ? p->row : 1, col = by_rows ? 1 : p->col, c = p->c, d = p->d;
    const float *three = w + 3 * row, *six = w + 6 * row;
    vec sum[8][2];
    for (int j = 0; j < rows; j++)
        for (int u = 0; u < count; u++) sum[j][u] = (vec){0};
    for (int64_t k = 0; k < c; k++) {
        __builtin_prefetch(ahead);
        vec in[2];
        for (int u = 0; u < count; u++) in[u] = *(const vec *)(x + u * LANES);
        for (int j = 0; j < rows; j++) {
            const float factor = j < 3 ? w[j * row] : j < 6 ? three[(j - 3) * row] : six[(j - 6) * row];
            for (int u = 0; u < count; u++) sum[j][u] += factor * in[u];
        }
        x += count * LANES, ahead += rows, w += col, three += col, six += col;
    }
    for (int j = 0; j < rows; j++) {
        float *line = y + place[j * d];
        for (int u = 0; u < count; u++) *(vec *)(line + u * LANES) = sum[j][u];
    }
}

static inline __attribute__((always_inline)) void multiply(const float *x, const Factor *p, int by_rows, int count,
                                                           const uint32_t *place, float *y) {
    for (int64_t i = 0; i < p->a; i++)
        for (int64_t l = 0; l < p->d; l++) {
            const float *w = p->weight + (i * p->d + l) * p->b * p->c, *next = w + p->b * p->c;
            const float *in = x + (i * p->d + l) * p->c * count * LANES;
            const uint32_t *out = place + i * p->b * p->d + l;
#define ROWS(n) some_rows(in, w + j * p->row, p, by_rows, n, count, next + j * p->c, out + j * p->d, y)
            int64_t j = 0;
            for (; j + 8 <= p->b; j += 8) ROWS(8);
            for (; j + 4 <= p->b; j += 4) ROWS(4);
            for (; j < p->b; j++) ROWS(1);
        }
}

static void apply(const float *x, const Factor *p, int64_t tile, const uint32_t *place, float *y) {
    if (tile == LANES)
        p->col == 1 ? multiply(x, p, 1, 1, place, y) : multiply(x, p, 0, 1, place, y);
    else
        p->col == 1 ? multiply(x, p, 1, 2, place, y) : multiply(x, p, 0, 2, place, y);
}

/* grad (rows x c of a block) += g x^T, from column k, for `rows` lines of g and `count` vectors of columns; `xt` is x
   transposed, `wide` floats a lane. */
static inline __attribute__((always_inline)) void some_grads(const float *g, const float *xt, int tile, int64_t wide,
                                                             int rows, int count, int64_t k, int64_t c, float *grad) {
    vec sum[8][2];
    for (int j = 0; j < rows; j++)
        for (int u = 0; u < count; u++) sum[j][u] = (vec){0};
    const float *line = xt + k;
    for (int t = 0; t < tile; t++, g++, line += wide) {
        vec in[2];
        for (int u = 0; u < count; u++) in[u] = *(const vec *)(line + u * LANES);
        for (int j = 0; j < rows; j++) {
            const float factor = g[j * tile];
            for (int u = 0; u < count; u++) sum[j][u] += factor * in[u];
        }
    }
    for (int j = 0; j < rows; j++)
        for (int u = 0; u < count; u++) {
            const int64_t at = k + u * LANES;
            if (at + LANES <= c)
                *(vec *)(grad + j * c + at) += sum[j][u];
            else
                for (int64_t rest = at; rest < c; rest++) grad[j * c + rest] += sum[j][u][rest - at];
        }
}

static inline __attribute__((always_inline)) void row_grads(const float *g, const float *xt, int tile, int64_t wide,
                                                            int rows, int64_t c, float *grad) {
    int64_t k = 0;
    for (; k + 2 * LANES <= wide; k += 2 * LANES) some_grads(g, xt, tile, wide, rows, 2, k, c, grad);
    if (k < wide) some_grads(g, xt, tile, wide, rows, 1, k, c, grad);
}

static inline __attribute__((always_inline)) void block_grads(const float *x, const float *g, const Factor *p, int tile,
                                                              float *xt) {
    const int64_t wide = (p->c + LANES - 1) / LANES * LANES;
    for (int64_t n = 0; n < p->a * p->d; n++) {
        const float *in = x + n * p->c * tile, *out = g + n * p->b * tile;
        float *grad = p->grad + n * p->b * p->c;
        if (p->c < 4) { /* lanes summed up at the end are cheaper than a transpose that is mostly padding */
            for (int64_t j = 0; j < p->b; j++)
                for (int64_t k = 0; k < p->c; k++) {
                    vec sum = {0};
                    for (int t = 0; t < tile; t += LANES)
                        sum += *(const vec *)(out + j * tile + t) * *(const vec *)(in + k * tile + t);
                    grad[j * p->c + k] += total(sum);
                }
            continue;
        }
        for (int64_t k = 0; k < wide; k += LANES)
            for (int t = 0; t < tile; t += LANES) {
                vec r[LANES] = {0};
                for (int i = 0; i < LANES && k + i < p->c; i++) r[i] = *(const vec *)(in + (k + i) * tile + t);
                transpose(r);
                for (int i = 0; i < LANES; i++) *(vec *)(xt + (t + i) * wide + k) = r[i];
            }
        int64_t j = 0;
        for (; j + 8 <= p->b; j += 8) row_grads(out + j * tile, xt, tile, wide, 8, p->c, grad + j * p->c);
        for (; j < p->b; j++) row_grads(out + j * tile, xt, tile, wide, 1, p->c, grad + j * p->c);
    }
}

/* Gradients of all blocks of a factor from the tiles of its inputs and of the gradients of its outputs. `xt` has room
   for one transposed block. */
static void grads(const float *x, const float *g, const Factor *p, int64_t tile, float *xt) {
    if (tile == LANES)
        block_grads(x, g, p, LANES, xt);
    else
        block_grads(x, g, p, 2 * LANES, xt);
}

/* Where the line of each value goes so that the blocks of the next factor read theirs one after another. */
static void places(const Factor *next, int64_t size, int64_t tile, uint32_t *place) {
    uint32_t at = 0;
    if (!next)
        for (int64_t m = 0; m < size; m++) place[m] = (uint32_t)(m * tile);
    else
        for (int64_t i = 0; i < next->a; i++)
            for (int64_t l = 0; l < next->d; l++)
                for (int64_t k = 0; k < next->c; k++, at += (uint32_t)tile)
                    place[(i * next->c + k) * next->d + l] = at;
}

/* Memory that stays with the thread: fresh pages would cost as much as the product of a small layer. */
static void *scratch(size_t floats, size_t ints, uint32_t **place) {
    static _Thread_local char *held;
    static _Thread_local size_t size;
    const size_t first = (floats * sizeof(float) + 63) / 64 * 64, wanted = (first + ints * sizeof(uint32_t) + 63) / 64 * 64;
    if (size < wanted) {
        free(held);
        held = aligned_alloc(64, wanted);
        size = held ? wanted : 0;
    }
    *place = (uint32_t *)(held + first);
    return held;
}

static int64_t inputs(const Factor *p) { return p->a * p->c * p->d; }
static int64_t outputs(const Factor *p) { return p->a * p->b * p->d; }
static int64_t tile_of(View v) { return v.samples > LANES ? 2 * LANES : LANES; }

/* place[n]: where the values before factor n go, place[count] those of the result. */
static void forward_places(const Factor *factors, int64_t count, int64_t widest, int64_t tile, uint32_t *place) {
    for (int64_t n = 0; n < count; n++) places(factors + n, inputs(factors + n), tile, place + n * widest);
    places(0, outputs(factors + count - 1), tile, place + count * widest);
}

static Factor transposed(const Factor *p) {
    return (Factor){p->a, p->c, p->b, p->d, p->col, p->row, p->weight, p->grad};
}

/* y = factors[count - 1] ... factors[0] x + bias. Returns 1 when there is no memory. */
int kronecker_forward(const Call *call) {
    const View in = call->in, out = call->out;
    const Factor *factors = call->factors;
    const int64_t count = call->count, widest = call->widest, tile = tile_of(in);
    uint32_t *place;
    float *buffer = scratch((size_t)(2 * widest * tile), (size_t)((count + 1) * widest), &place);
    if (!buffer) return 1;
    forward_places(factors, count, widest, tile, place);
    for (int64_t g = 0; g < in.groups; g++)
        for (int64_t s = 0; s < in.samples; s += tile) {
            const int64_t lanes = in.samples - s < tile ? in.samples - s : tile;
            float *from = buffer, *to = buffer + widest * tile;
            load_tile(call->x + g * in.group + s * in.sample, in, lanes, tile, place, inputs(factors), from);
            for (int64_t n = 0; n < count; n++) {
                apply(from, factors + n, tile, place + (n + 1) * widest, to);
                float *done = to;
                to = from;
                from = done;
            }
            store_tile(from, out, lanes, tile, call->bias, call->y + g * out.group + s * out.sample);
        }
    return 0;
}

/* Gradients of the input (y, unless 0) and of the factors (added to grad). The values between the factors are computed
   again: in the cache that is cheaper than keeping them in main memory. */
int kronecker_backward(const Call *call) {
    const View in = call->in, out = call->out;
    const Factor *factors = call->factors;
    const int64_t count = call->count, widest = call->widest, tile = tile_of(in), line = widest * tile;
    uint32_t *place;
    float *buffer = scratch((size_t)((count + 3) * line + LANES * tile), (size_t)(2 * (count + 1) * widest), &place);
    if (!buffer) return 1;
    float *values = buffer + 2 * line, *xt = values + count * line;
    uint32_t *back_place = place + (count + 1) * widest;
    forward_places(factors, count, widest, tile, place);
    places(0, inputs(factors), tile, back_place);
    for (int64_t n = 0; n < count; n++) {
        const Factor back = transposed(factors + n);
        places(&back, outputs(factors + n), tile, back_place + (n + 1) * widest);
    }
    for (int64_t g = 0; g < in.groups; g++)
        for (int64_t s = 0; s < in.samples; s += tile) {
            const int64_t lanes = in.samples - s < tile ? in.samples - s : tile;
            float *from = buffer, *to = buffer + line;
            load_tile(call->x + g * in.group + s * in.sample, in, lanes, tile, place, inputs(factors), values);
            for (int64_t n = 0; n + 1 < count; n++)
                apply(values + n * line, factors + n, tile, place + (n + 1) * widest, values + (n + 1) * line);
            load_tile(call->g + g * out.group + s * out.sample, out, lanes, tile, back_place + count * widest,
                      outputs(factors + count - 1), from);
            for (int64_t n = count - 1; n >= 0; n--) {
                const Factor back = transposed(factors + n);
                grads(values + n * line, from, factors + n, tile, xt);
                if (n || call->y) apply(from, &back, tile, back_place + n * widest, to);
                float *done = to;
                to = from;
                from = done;
            }
            if (call->y) store_tile(from, in, lanes, tile, 0, call->y + g * in.group + s * in.sample);
        }
    return 0;
}
