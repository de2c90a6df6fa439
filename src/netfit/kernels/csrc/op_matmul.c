/* Products of matrices and convolutions on packed weights: fp32, int8 with int32 sums, and Gaussians. Weights lie along
   the vectors, pixels (or rows) are broadcast. A product of matrices is a convolution of one tap over an image of one row.

   BATCH, ROWS (output channels), CHANNELS, HEIGHT, WIDTH, TAPS_H, TAPS_W, STRIDE, PADDING are the sizes; LAST: channels
   come last in input and output; MATRIX: weights are (channels, rows). PRECISION: 0 fp32, 1 int8. GAUSS: means and second
   moments, RELU: then the rectifier. UNIT 0: vectors, a tile of TH x TW pixels and NV vectors; UNIT 1: the matrix unit of
   x86 (AMX), MT tiles of TW pixels and NV tiles of 16 rows. KC cells of the sum, MC tiles and NC panels make a block.

   The matrix unit multiplies bytes and bf16. An fp32 number is the sum of three bf16 ones, so six products of pieces
   carry an fp32 product (the rest is below 2^-24 of it); "Leveraging the bfloat16 Artificial Intelligence Datatype For
   Higher-Precision Computations" (2019). Moments take two pieces, three products, 2^-17.

   Gaussians: mean = sum of xm wm; variance = sum of xv ws + xm^2 wv: three products, and no cancellation. */
#include <math.h>

#if UNIT && !(defined(__AMX_BF16__) && defined(__AMX_INT8__) && defined(__linux__))
#undef UNIT /* written for another processor: the same result on vectors */
#define UNIT 0
#undef TW
#define TW 4
#undef MT
#define MT 1
#undef KC
#define KC 1024
#endif
#if UNIT
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define UP(x, n) (((x) + (n) - 1) / (n) * (n))
#define OUT_H ((HEIGHT + 2 * PADDING - TAPS_H) / STRIDE + 1)
#define OUT_W ((WIDTH + 2 * PADDING - TAPS_W) / STRIDE + 1)
#define PIXELS ((int64_t)OUT_H * OUT_W)
#define SUMS (CHANNELS * TAPS_H * TAPS_W)
#define AREA ((int64_t)HEIGHT * WIDTH)
#define INPUTS ((int64_t)BATCH * CHANNELS * AREA)
#define WEIGHTS ((int64_t)ROWS * SUMS)
#define OUTPUTS ((int64_t)BATCH * ROWS * PIXELS)

#if PRECISION
typedef uint8_t input_t; /* int8 as bytes */
typedef int8_t weight_t;
typedef int32_t value;
typedef vint vec;
typedef vint_u vec_u;
#define MAC mac_int8
#else
typedef float input_t, weight_t, value;
typedef vfloat vec;
typedef vfloat_u vec_u;
#define MAC mac_fp32
#endif
typedef value output_t;

/* Quantities of a place (Gaussians have three), pieces of each, bytes of a channel, and channels of a 32-bit word. */
#define QUANTITIES (GAUSS ? 3 : 1)
#define PIECES (!UNIT || PRECISION ? 1 : GAUSS ? 2 : 3)
#define PLANES (QUANTITIES * PIECES)
#define SIZE (PRECISION ? 1 : UNIT ? 2 : 4)
#define PER (4 / SIZE)
#define CELL (UNIT ? 64 : 4) /* bytes that one step of the sum takes: a row of a tile, or a word */
#define SHIFT (PRECISION && !UNIT ? OFFSET : 0) /* added to activations where the processor wants them unsigned */
#define FULL (UNIT ? CHANNELS : UP(CHANNELS, PER)) /* channels of a pixel with their padding */

/* Channels side by side are a run; all taps of a row too, where that wastes less. */
#define FUSED (TAPS_W > 1 && CHANNELS * SIZE % CELL != 0)
#define IN_PLACE (LAST && !PADDING && !GAUSS && !SHIFT && FULL == CHANNELS && CHANNELS * SIZE % 2048 != 0 && \
                  (UNIT ? PRECISION && CHANNELS % 64 == 0 : 1))
/* Rows a power of two apart would all want the same lines of the cache. */
#define PITCH (FULL * SIZE + (!FUSED && !IN_PLACE && FULL * SIZE % 512 == 0 ? 64 : 0))
#define LINE ((int64_t)(WIDTH + 2 * PADDING) * PITCH)
#define RUN_CELLS (((FUSED ? TAPS_W : 1) * FULL * SIZE + CELL - 1) / CELL)
#define RUNS (TAPS_H * (FUSED ? 1 : TAPS_W))
#define DEPTH ((int64_t)RUNS * RUN_CELLS)

/* Under one tap the matrix unit gets its tiles whole: [tile][cell][plane][pixel][64 bytes]. */
#define TILED (UNIT && !IN_PLACE && TAPS_H * TAPS_W == 1 && PADDING == 0)
#define PLANE (TILED ? 1024 : UP((HEIGHT + 2 * PADDING) * LINE + 64, 64))
#define ROW_STEP (TILED ? 64 : STRIDE * PITCH)
#define CELL_STEP (TILED ? PLANES * 1024 : CELL)
#define TILE_STEP ((int64_t)RUN_CELLS * CELL_STEP)

#define WIDE (UNIT ? 16 : LANES)
#define NR (NV * WIDE)
#define PANELS ((ROWS + NR - 1) / NR)
/* Words of weights from one cell of the sum to the next, from one piece to the next, and of a panel; the pieces of a
   cell lie side by side for the matrix unit. */
#define WEIGHT_STEP ((UNIT ? PLANES * 16 : 1) * NR)
#define PANEL_WORDS (DEPTH * WEIGHT_STEP)
#define PIECE_STEP (UNIT ? 16 * NR : PANELS * PANEL_WORDS)
#define PACKED_WORDS ((UNIT ? 1 : PLANES) * PANELS * PANEL_WORDS)
#define TILES_W ((OUT_W + TW - 1) / TW)
#define TILES ((int64_t)(OUT_H + TH - 1) / TH * TILES_W)

/* Products of planes of pixels and pieces of weights; the second pass of Gaussians is the variance. */
typedef struct {
    int a, b;
} Term;
#if !UNIT || PRECISION
static const Term terms[] = {{0, 0}, {1, 1}, {2, 2}};
static const int pass_ends[] = {0, 1, 3};
#elif GAUSS
static const Term terms[] = {{0, 1}, {0, 0}, {1, 0}, {2, 3}, {2, 2}, {3, 2}, {4, 4}, {4, 5}, {5, 4}};
static const int pass_ends[] = {0, 3, 9};
#else
static const Term terms[] = {{0, 2}, {0, 1}, {1, 1}, {1, 0}, {0, 0}, {2, 0}};
static const int pass_ends[] = {0, 6};
#endif
#define PASSES (GAUSS ? 2 : 1)

#ifdef READ_BLOCKS /* a tuner tries many with one build */
static int64_t blocks[3] = {KC, MC, NC};
#else
static const int64_t blocks[3] = {KC, MC, NC};
#endif

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

#define RESULT_STEP (LAST ? OUTPUTS : PIXELS * ROWS) /* from the first result of a pass to that of the next */
#define STARTS (PASSES * (int64_t)PANELS * NR)
#define IMAGE_WORDS (IN_PLACE ? 0 : TILED ? TILES * TILE_STEP / 4 : PLANES * PLANE / 4)
#define ROW_WORDS (LAST ? 0 : UP((int64_t)WIDTH * CHANNELS, 16) * (GAUSS ? 2 : 1))
#define RESULT_WORDS (LAST ? 0 : PASSES * PIXELS * ROWS)
int64_t op_packed_words(void) { return PACKED_WORDS + STARTS; }
int64_t op_scratch_words(void) { return IMAGE_WORDS + ROW_WORDS + RESULT_WORDS + 64; }

#if UNIT && !PRECISION
/* The bf16 piece of a number, rounded, and what is left of it. */
static inline vword piece(vfloat *x) {
    const vword bits = ((vword)*x + 0x8000u) & 0xFFFF0000u;
    *x -= (vfloat)bits;
    return bits >> 16;
}
#endif

/* ---- weights ---- */

static value quantity(const weight_t *w, int64_t at, int q) {
#if GAUSS
    const float mean = w[at], second = w[WEIGHTS + at], variance = second - mean * mean;
    return q == 0 ? mean : q == 1 ? second : variance > 0 ? variance : 0;
#else
    (void)q;
    return w[at];
#endif
}

/* Channel `place` of a run, in its first piece and the following ones. */
static void put(uint32_t *run, int64_t place, int64_t column, value x) {
    const int64_t n = place / PER, rows = CELL / 4;
    uint32_t *word = run + n / rows * WEIGHT_STEP + n % rows * NR + column;
#if !UNIT && !PRECISION
    memcpy(word, &x, 4);
#elif PRECISION
    *word |= (uint32_t)(uint8_t)x << (8 * (place % PER));
#else
    vfloat rest = {x};
    for (int i = 0; i < PIECES; i++, word += PIECE_STEP) *word |= piece(&rest)[0] << (16 * (place % PER));
#endif
}

/* w: (rows, channels, taps, taps), or (channels, rows) of a product of matrices; Gaussians: means, then second moments.
   bias: one a row (Gaussians: means, then variances), or null. */
void op_pack(const weight_t *w, const output_t *bias, void *packed) {
    value *start = (value *)packed + PACKED_WORDS;
    memset(packed, 0, (size_t)op_packed_words() * 4);
    for (int64_t r = 0; r < ROWS; r++) {
        for (int p = 0; p < PASSES; p++) start[p * (STARTS / PASSES) + r] = bias ? bias[p * ROWS + r] : 0;
        for (int64_t c = 0; c < CHANNELS; c++)
            for (int64_t t = 0; t < TAPS_H * TAPS_W; t++) {
                const int64_t at = MATRIX ? c * ROWS + r : (r * CHANNELS + c) * TAPS_H * TAPS_W + t;
                const int64_t run = FUSED ? t / TAPS_W : t, place = (FUSED ? t % TAPS_W * FULL : 0) + c;
                for (int q = 0; q < QUANTITIES; q++)
                    put((uint32_t *)packed + r / NR * PANEL_WORDS + q * PIECES * PIECE_STEP + run * RUN_CELLS * WEIGHT_STEP,
                        place, r % NR, quantity(w, at, q));
                if (SHIFT) start[r] -= (value)(SHIFT * w[at]);
            }
    }
}

/* ---- pixels ---- */

/* One row of pixels with its channels last. */
static const input_t *row_of(const input_t *x, int64_t y, input_t *row) {
    if (LAST) return x + y * WIDTH * CHANNELS;
    x += y * WIDTH;
    int64_t c = 0;
#if !PRECISION
    for (; c + LANES <= CHANNELS; c += LANES) {
        int64_t i = 0;
        for (; i + LANES <= WIDTH; i += LANES) {
            vfloat square[LANES];
#pragma GCC unroll 16
            for (int k = 0; k < LANES; k++) square[k] = *(const vfloat_u *)(x + (c + k) * AREA + i);
            transpose(square);
#pragma GCC unroll 16
            for (int k = 0; k < LANES; k++) *(vfloat_u *)(row + (i + k) * CHANNELS + c) = square[k];
        }
        for (; i < WIDTH; i++)
            for (int k = 0; k < LANES; k++) row[i * CHANNELS + c + k] = x[(c + k) * AREA + i];
    }
#endif
    for (; c < CHANNELS; c++)
        for (int64_t i = 0; i < WIDTH; i++) row[i * CHANNELS + c] = x[c * AREA + i];
    return row;
}

/* `count` channels side by side as they are multiplied; s: second moments of Gaussians. */
static void convert(const input_t *x, const input_t *s, int64_t count, uint8_t *to) {
    (void)s;
#if PRECISION
    if (SHIFT)
        for (int64_t i = 0; i < count; i++) to[i] = x[i] ^ SHIFT;
    else
        memcpy(to, x, (size_t)count);
#elif !UNIT && !GAUSS
    memcpy(to, x, (size_t)count * 4);
#else
    for (int64_t i = 0; i < count; i += LANES, to += LANES * SIZE) {
        const int64_t n = least(LANES, count - i);
        vfloat v[3] = {{0}};
        if (n == LANES) {
            v[0] = *(const vfloat_u *)(x + i);
            if (GAUSS) v[1] = *(const vfloat_u *)(s + i);
        } else {
            memcpy(v, x + i, (size_t)n * 4);
            if (GAUSS) memcpy(v + 1, s + i, (size_t)n * 4);
        }
        if (GAUSS) {
            v[2] = v[0] * v[0];
            v[1] -= v[2];
            v[1] = (vfloat)((vint)v[1] & (v[1] > 0));
        }
#pragma GCC unroll 3
        for (int q = 0; q < QUANTITIES; q++) {
#if UNIT
#pragma GCC unroll 3
            for (int p = 0; p < PIECES; p++) {
                const vword bits = piece(v + q);
                typedef uint16_t half __attribute__((vector_size(BYTES / 2), aligned(1), may_alias));
                const half narrow = __builtin_convertvector(bits, half);
                uint8_t *at = to + (q * PIECES + p) * PLANE;
                if (n == LANES)
                    *(half *)at = narrow;
                else
                    memcpy(at, &narrow, (size_t)n * 2);
            }
#else
            memcpy(to + q * PLANE, v + q, (size_t)n * 4);
#endif
        }
    }
#endif
}

static void margin(uint8_t *to, int64_t bytes) {
    for (int p = 0; p < PLANES; p++) memset(to + p * PLANE, SHIFT, (size_t)bytes);
}

/* The pixels of a row that are read, cut into tiles. */
static void cut(const input_t *x, const input_t *s, uint8_t *to) {
    const int64_t most = 64 / SIZE;
    for (int64_t i = 0; i < OUT_W; i++)
        for (int64_t cell = 0; cell < RUN_CELLS; cell++) {
            const int64_t at = i * STRIDE * CHANNELS + cell * most, count = least(most, CHANNELS - cell * most);
            uint8_t *place = to + i / TW * TILE_STEP + cell * CELL_STEP + i % TW * 64;
            if (count < most) margin(place, 64);
            convert(x + at, GAUSS ? s + at : 0, count, place);
        }
}

/* The image with its padding, channels last, as pieces. */
static void make_image(const input_t *x, uint8_t *image, input_t *rows) {
    const int64_t edge = (int64_t)PADDING * PITCH;
    uint8_t *const start = image;
    for (int64_t y = 0; y < HEIGHT + 2 * PADDING; y++, image += LINE) {
        if (y < PADDING || y >= HEIGHT + PADDING) {
            margin(image, LINE);
            continue;
        }
        if (TILED && (y % STRIDE || y / STRIDE >= OUT_H)) continue; /* no tap reads it */
        const input_t *from = row_of(x, y - PADDING, rows), *second = 0;
        if (GAUSS) second = row_of(x + INPUTS, y - PADDING, rows + ROW_WORDS / 2);
        if (TILED) {
            cut(from, second, start + y / STRIDE * TILES_W * TILE_STEP);
            continue;
        }
        margin(image, edge), margin(image + LINE - edge, edge);
        if (PITCH == CHANNELS * SIZE)
            convert(from, second, (int64_t)WIDTH * CHANNELS, image + edge);
        else
            for (int64_t i = 0; i < WIDTH; i++)
                convert(from + i * CHANNELS, GAUSS ? second + i * CHANNELS : 0, CHANNELS, image + edge + i * PITCH);
    }
    if (!TILED) margin(image, 64);
}

static int64_t offset_of(int64_t run) { return FUSED ? run * LINE : run / TAPS_W * LINE + run % TAPS_W * PITCH; }

/* ---- sums ---- */

#if UNIT
#define STR(x) #x
#define LOAD(tile, from, step) __asm__ volatile("tileloadd (%0,%1,1), %%tmm" STR(tile) : : "r"(from), "r"((int64_t)(step)))
#define STORE(tile, to, step) \
    __asm__ volatile("tilestored %%tmm" STR(tile) ", (%0,%1,1)" : : "r"(to), "r"((int64_t)(step)) : "memory")
#define ZERO(tile) __asm__ volatile("tilezero %%tmm" STR(tile) :)
#if PRECISION
#define DOT(c, a, b) __asm__ volatile("tdpbssd %%tmm" STR(b) ", %%tmm" STR(a) ", %%tmm" STR(c) :)
#else
#define DOT(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" STR(b) ", %%tmm" STR(a) ", %%tmm" STR(c) :)
#endif

/* Rows of the pixel tiles and columns of the weight tiles, where they are not full. */
static void configure(int64_t rows0, int64_t rows1, int64_t cols0, int64_t cols1) {
    uint8_t c[64] __attribute__((aligned(64))) = {1};
    const int64_t rows[8] = {rows0, rows0, rows1, rows1, rows0, rows1, 16, 16};
    const int64_t cols[8] = {cols0, cols1, cols0, cols1, 16, 16, cols0, cols1};
    for (int i = 0; i < 8; i++) c[16 + 2 * i] = (uint8_t)(4 * cols[i]), c[48 + i] = (uint8_t)rows[i];
    __asm__ volatile("ldtilecfg %0" : : "m"(c));
}

/* Tiles 0 to 3 hold sums, 4 and 5 pixels, 6 and 7 weights. */
static inline __attribute__((always_inline)) void tiles(const int mt, const int nt, const int pass, const uint8_t *a0,
                                                        const uint8_t *a1, const uint32_t *b, const value *start,
                                                        int64_t d0, int64_t d1, value *out0, value *out1) {
    const int64_t pitch = ROWS * 4;
    const value *from0 = start ? start : out0, *from1 = start ? start : out1;
    LOAD(0, from0, start ? 0 : pitch);
    if (nt > 1) LOAD(1, from0 + 16, start ? 0 : pitch);
    if (mt > 1) LOAD(2, from1, start ? 0 : pitch);
    if (mt > 1 && nt > 1) LOAD(3, from1 + 16, start ? 0 : pitch);
    for (int64_t d = d0; d < d1;) {
        const int64_t run = d / RUN_CELLS, first = d % RUN_CELLS, count = least(RUN_CELLS - first, d1 - d);
        const int64_t at = offset_of(run) + first * CELL_STEP;
        const uint8_t *x0 = a0 + at, *x1 = a1 + at;
        const uint32_t *w = b + d * WEIGHT_STEP;
        for (int64_t k = 0; k < count; k++, x0 += CELL_STEP, x1 += CELL_STEP, w += WEIGHT_STEP) {
#pragma GCC unroll 8
            for (int t = pass_ends[pass]; t < pass_ends[pass + 1]; t++) {
                const int fresh = t == pass_ends[pass];
                if (fresh || terms[t].a != terms[t - 1].a) {
                    LOAD(4, x0 + terms[t].a * PLANE, ROW_STEP);
                    if (mt > 1) LOAD(5, x1 + terms[t].a * PLANE, ROW_STEP);
                }
                if (fresh || terms[t].b != terms[t - 1].b) {
                    LOAD(6, w + terms[t].b * PIECE_STEP, NR * 4);
                    if (nt > 1) LOAD(7, w + terms[t].b * PIECE_STEP + 16, NR * 4);
                }
                DOT(0, 4, 6);
                if (nt > 1) DOT(1, 4, 7);
                if (mt > 1) DOT(2, 5, 6);
                if (mt > 1 && nt > 1) DOT(3, 5, 7);
            }
        }
        d += count;
    }
    STORE(0, out0, pitch);
    if (nt > 1) STORE(1, out0 + 16, pitch);
    if (mt > 1) STORE(2, out1, pitch);
    if (mt > 1 && nt > 1) STORE(3, out1 + 16, pitch);
}

/* The tiles i to i + MT of pixels against panel j. */
static inline void one(const uint8_t *image, const uint32_t *w, const value *start, int64_t d0, int64_t d1, int64_t i,
                       int64_t j, value *out, int64_t *shape) {
    const int64_t y0 = i / TILES_W, x0 = i % TILES_W * TW, y1 = (i + 1) / TILES_W, x1 = (i + 1) % TILES_W * TW;
    const int two = MT > 1 && i + 1 < TILES;
    const int64_t left = ROWS - j * NR, rows0 = least(TW, OUT_W - x0), rows1 = two ? least(TW, OUT_W - x1) : rows0;
    const int64_t cols0 = least(16, left), cols1 = NV > 1 && left > 16 ? least(16, left - 16) : cols0;
    const int64_t now = rows0 | rows1 << 8 | cols0 << 16 | cols1 << 24;
    if (now != *shape) configure(rows0, rows1, cols0, cols1), *shape = now;
    const uint8_t *a0 = image + (TILED ? i * TILE_STEP : y0 * STRIDE * LINE + x0 * STRIDE * PITCH);
    const uint8_t *a1 = image + (TILED ? (i + 1) * TILE_STEP : y1 * STRIDE * LINE + x1 * STRIDE * PITCH);
    value *out0 = out + (y0 * OUT_W + x0) * ROWS + j * NR, *out1 = out + (y1 * OUT_W + x1) * ROWS + j * NR;
    const int wide = NV > 1 && left > 16;
#pragma GCC unroll 2
    for (int p = 0; p < PASSES; p++) {
        const value *from = start ? start + p * (STARTS / PASSES) + j * NR : 0;
        value *to0 = out0 + p * RESULT_STEP, *to1 = out1 + p * RESULT_STEP;
        if (two && wide)
            tiles(MT, NV, p, a0, a1, w, from, d0, d1, to0, to1);
        else if (two)
            tiles(MT, 1, p, a0, a1, w, from, d0, d1, to0, to1);
        else if (wide)
            tiles(1, NV, p, a0, a1, w, from, d0, d1, to0, to1);
        else
            tiles(1, 1, p, a0, a1, w, from, d0, d1, to0, to1);
    }
}
#else
/* A tile of th x tw pixels and nv vectors, the last of them with `tail` rows where that is not 0. */
static inline __attribute__((always_inline)) void tile(const int th, const int tw, const int nv, const int tail,
                                                       const int pass, const uint8_t *a, const value *b,
                                                       const value *start, int64_t d0, int64_t d1, value *out) {
    vec sum[TH * TW][NV] = {0};
    for (int t = pass_ends[pass]; t < pass_ends[pass + 1]; t++)
        for (int64_t d = d0; d < d1;) {
            const int64_t run = d / RUN_CELLS, first = d % RUN_CELLS, count = least(RUN_CELLS - first, d1 - d);
            const uint8_t *x = a + terms[t].a * PLANE + offset_of(run) + first * 4;
            const value *w = b + terms[t].b * PIECE_STEP + d * WEIGHT_STEP;
            for (int64_t k = 0; k < count; k++, x += 4, w += NR) {
                vec weight[NV];
#pragma GCC unroll 8
                for (int v = 0; v < nv; v++) weight[v] = *(const vec_u *)(w + v * LANES);
#pragma GCC unroll 32
                for (int r = 0; r < th * tw; r++) {
                    const int64_t at = r / tw * STRIDE * LINE + r % tw * STRIDE * PITCH;
                    const vec pixel = *(const value *)(const void *)(x + at) - (vec){0};
#pragma GCC unroll 8
                    for (int v = 0; v < nv; v++) sum[r][v] = MAC(sum[r][v], pixel, weight[v]);
                }
            }
            d += count;
        }
#pragma GCC unroll 32
    for (int r = 0; r < th * tw; r++)
#pragma GCC unroll 8
        for (int v = 0; v < nv; v++) {
            value *to = out + (r / tw * OUT_W + r % tw) * (int64_t)ROWS + v * LANES;
            const size_t bytes = v == nv - 1 && tail ? (size_t)tail * 4 : BYTES;
            vec before = {0};
            if (start)
                before = *(const vec_u *)(start + v * LANES);
            else
                memcpy(&before, to, bytes);
            before += sum[r][v];
            memcpy(to, &before, bytes);
        }
}

#define LEFT (ROWS % NR) /* rows, vectors and tail of the last panel */
#define LAST_NV (LEFT ? (LEFT + LANES - 1) / LANES : NV)
#define LAST_TAIL (ROWS % LANES)
#define LAST_TW (OUT_W % TW ? OUT_W % TW : TW)
#define LAST_TH (OUT_H % TH ? OUT_H % TH : TH)

static inline void one(const uint8_t *image, const uint32_t *w, const value *start, int64_t d0, int64_t d1, int64_t i,
                       int64_t j, value *out, int64_t *shape) {
    const int64_t y = i / TILES_W * TH, x = i % TILES_W * TW;
    const uint8_t *a = image + y * STRIDE * LINE + x * STRIDE * PITCH;
    const int low = LAST_TH != TH && y + TH > OUT_H, narrow = LAST_TW != TW && x + TW > OUT_W;
    const value *b = (const value *)(const void *)w;
    out += (y * OUT_W + x) * ROWS + j * NR;
    (void)shape;
#pragma GCC unroll 2
    for (int p = 0; p < PASSES; p++, out += RESULT_STEP) {
        const value *from = start ? start + p * (STARTS / PASSES) + j * NR : 0;
#define CASE(th, tw) \
    if (LEFT && j == PANELS - 1) \
        tile(th, tw, LAST_NV, LAST_TAIL, p, a, b, from, d0, d1, out); \
    else \
        tile(th, tw, NV, 0, p, a, b, from, d0, d1, out)
        if (low && narrow) {
            CASE(LAST_TH, LAST_TW);
        } else if (low) {
            CASE(LAST_TH, TW);
        } else if (narrow) {
            CASE(TH, LAST_TW);
        } else {
            CASE(TH, TW);
        }
    }
}
#endif

static void nest(const uint8_t *image, const uint32_t *packed, value *out) {
    const value *start = (const value *)(const void *)(packed + PACKED_WORDS);
    int64_t shape = 0;
    __asm__ volatile("" : : "r"(image) : "memory"); /* the unit reads behind the compiler's back */
    for (int64_t n = 0; n < PANELS; n += blocks[2])
        for (int64_t d = 0; d < DEPTH; d += blocks[0])
            for (int64_t m = 0; m < TILES; m += blocks[1] * MT)
                for (int64_t j = n; j < least(PANELS, n + blocks[2]); j++)
                    for (int64_t i = m; i < least(TILES, m + blocks[1] * MT); i += MT)
                        one(image, packed + j * PANEL_WORDS, d ? 0 : start, d, least(DEPTH, d + blocks[0]), i, j, out,
                            &shape);
}

/* ---- results ---- */

#if GAUSS
/* Variances become second moments, or both moments go through the rectifier. */
static void finish(float *mean, float *second, int64_t count) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        vfloat m = *(const vfloat_u *)(mean + i), s = *(const vfloat_u *)(second + i) + m * m;
        if (RELU) rectified(&m, &s), *(vfloat_u *)(mean + i) = m;
        *(vfloat_u *)(second + i) = s;
    }
    if (i < count) {
        const size_t bytes = (size_t)(count - i) * 4;
        vfloat m = {0}, s = {0};
        memcpy(&m, mean + i, bytes), memcpy(&s, second + i, bytes);
        s += m * m;
        if (RELU) rectified(&m, &s), memcpy(mean + i, &m, bytes);
        memcpy(second + i, &s, bytes);
    }
}
#endif

/* (pixels, rows) to (rows, pixels). */
static void turn(const value *from, value *out) {
    int64_t r = 0;
    for (; r + LANES <= ROWS; r += LANES) {
        int64_t i = 0;
        for (; i + LANES <= PIXELS; i += LANES) {
            vfloat square[LANES];
#pragma GCC unroll 16
            for (int k = 0; k < LANES; k++) square[k] = *(const vfloat_u *)(from + (i + k) * ROWS + r);
            transpose(square);
#pragma GCC unroll 16
            for (int k = 0; k < LANES; k++) *(vfloat_u *)(out + (r + k) * PIXELS + i) = square[k];
        }
        for (; i < PIXELS; i++)
            for (int k = 0; k < LANES; k++) out[(r + k) * PIXELS + i] = from[i * ROWS + r + k];
    }
    for (; r < ROWS; r++)
        for (int64_t i = 0; i < PIXELS; i++) out[r * PIXELS + i] = from[i * ROWS + r];
}

/* x: (batch, channels, height, width), or channels last; out: (batch, rows, out_h, out_w), or rows last; Gaussians: means,
   then second moments. scratch: aligned to 64 bytes. */
void op_run(const input_t *x, const void *packed, void *scratch, output_t *out) {
    uint8_t *image = scratch;
    input_t *rows = (input_t *)((uint32_t *)scratch + IMAGE_WORDS);
    value *result = (value *)scratch + IMAGE_WORDS + ROW_WORDS;
#if UNIT /* the system lends the unit to those who ask; asking again costs little against a call */
    static int asked;
    if (!asked) syscall(SYS_arch_prctl, 0x1023, 18), asked = 1;
#endif
    for (int64_t b = 0; b < BATCH; b++, x += CHANNELS * AREA, out += ROWS * PIXELS) {
        if (!IN_PLACE) make_image(x, image, rows);
        value *to = LAST ? out : result;
        nest(IN_PLACE ? (const uint8_t *)x : image, packed, to);
#if GAUSS
        finish(to, to + RESULT_STEP, PIXELS * ROWS);
#endif
        if (!LAST)
            for (int p = 0; p < PASSES; p++) turn(result + p * RESULT_STEP, out + p * OUTPUTS);
    }
#if UNIT
    __asm__ volatile("tilerelease");
#endif
}
/* TEST */
static input_t *op_x;
static weight_t *op_w;
static void *op_packed, *op_scratch;
static output_t *op_out;
#define STACK (GAUSS ? 2 : 1)

static void op_setup(void) {
    op_x = reserve(STACK * INPUTS * (int64_t)sizeof *op_x), op_w = reserve(STACK * WEIGHTS * (int64_t)sizeof *op_w);
    op_packed = reserve(op_packed_words() * 4), op_scratch = reserve(op_scratch_words() * 4);
    op_out = reserve(STACK * OUTPUTS * (int64_t)sizeof *op_out);
    for (int64_t i = 0; i < INPUTS; i++) {
        op_x[i] = (input_t)(GAUSS ? (small(256) - 128) / 128.0 : PRECISION ? small(256) : small(16) - 8);
        if (GAUSS) op_x[INPUTS + i] = (input_t)(op_x[i] * op_x[i] + small(256) / 1024.0);
    }
    for (int64_t i = 0; i < WEIGHTS; i++) {
        op_w[i] = (weight_t)(GAUSS ? (small(256) - 128) / 512.0 : PRECISION ? small(256) - 128 : small(16) - 8);
        if (GAUSS) op_w[WEIGHTS + i] = (weight_t)(op_w[i] * op_w[i] + small(256) / 65536.0);
    }
    op_pack(op_w, 0, op_packed);
}
static void op_once(void) { op_run(op_x, op_packed, op_scratch, op_out); }
static int64_t op_outputs(void) { return OUTPUTS; }

/* Error of one output against the sum as it is written: relative, for Gaussians to the deviation; whole numbers are exact. */
static double op_error(int64_t i) {
    const int64_t rest = i % (PIXELS * ROWS), pixel = LAST ? rest / ROWS : rest % PIXELS;
    const int64_t row = LAST ? rest % ROWS : rest / PIXELS, b = i / (PIXELS * ROWS);
    double mean = 0, variance = 0;
    for (int64_t k = 0; k < SUMS; k++) {
        const int64_t c = k / (TAPS_H * TAPS_W), t = k % (TAPS_H * TAPS_W);
        const int64_t y = pixel / OUT_W * STRIDE + t / TAPS_W - PADDING, x = pixel % OUT_W * STRIDE + t % TAPS_W - PADDING;
        if (y < 0 || y >= HEIGHT || x < 0 || x >= WIDTH) continue;
        const int64_t place = y * WIDTH + x;
        const int64_t from = b * CHANNELS * AREA + (LAST ? place * CHANNELS + c : c * AREA + place);
        const int64_t at = MATRIX ? c * ROWS + row : row * SUMS + k;
        const double p = (PRECISION ? (double)(int8_t)op_x[from] : (double)op_x[from]) * op_w[at];
        mean += p;
        if (GAUSS) variance += (double)op_x[INPUTS + from] * op_w[WEIGHTS + at] - p * p;
    }
    if (!GAUSS) return fabs((double)op_out[i] - mean) / (1 + fabs(mean));
    double second = variance + mean * mean;
    const double scale = 1e-3 + sqrt(second); /* of what goes into the rectifier: far below zero it cancels */
    if (RELU) {
        const double deviation = sqrt(variance > 1e-12 ? variance : 1e-12), z = mean / deviation;
        const double share = 0.5 * erfc(-z * sqrt(0.5)), peak = deviation * exp(-0.5 * z * z) * 0.3989422804014327;
        second = second * share + mean * peak, mean = mean * share + peak;
    }
    const double off = fabs(op_out[i] - mean) / scale, off_second = fabs(op_out[OUTPUTS + i] - second) / (scale * scale);
    return off > off_second ? off : off_second;
}
static double op_tolerance(void) { return GAUSS ? 1e-4 : 0; }
