/* Dense layers in whole numbers, made for few rows of input: float32 in, codes of 1 to 8 bits times weights of 1 to 8
   bits, float32 out. Read behind tile.h.

   Weights lie in blocks of 16 outputs, whose sums are the lanes of a vector:
     - codes of 3 to 8 bits: [block][k / 4][16 outputs][4 inputs], as bytes, or as bits where the processor makes bytes
       of bits in one instruction (`linear_expands_bits`);
     - codes of 1 or 2 bits: [block][k / 64][16 outputs] words of 64 inputs, one bit each, for `tile`. */
#include <math.h>
#include <stdlib.h>
#ifdef __AVX512BW__
#include <immintrin.h>
#endif

typedef struct {
    float scale, zero, top; /* code = clamp(round(x / scale) + zero, 0, top) */
} Codes;

typedef struct {
    int64_t rows, k;
    int64_t planes; /* 1 or 2: bit planes of the codes are multiplied; 0: the codes */
    int64_t bits;   /* weights are bits, 1 standing for +1 and 0 for -1 */
    int64_t relu;
    const void *weight;
    const float *gain, *shift; /* of every output: out = sum * gain + shift */
    Codes codes, early;        /* of the input, and a rounding before that; its scale is 0 where there is none */
} Layer;

enum { LANES = 16, FRAMES = 4, CHUNK = 16 };
static int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define EXPANDS 1
/* Sums of `frames` rows of codes and `blocks` blocks of weights; both are constants where this is called, so that the
   sums stay in registers. Weights that are bits count as -1 (for +1) and 0. */
static inline __attribute__((always_inline)) void products(int64_t groups, const uint8_t *codes, int64_t step,
                                                           const void *weight, const int frames, const int blocks,
                                                           const int bits, int32_t *sums, int64_t stride) {
    const uint64_t *words = weight;
    const int8_t *bytes = weight;
    __m512i sum[FRAMES][8];
#pragma GCC unroll 4
    for (int f = 0; f < frames; f++)
#pragma GCC unroll 8
        for (int b = 0; b < blocks; b++) sum[f][b] = _mm512_setzero_si512();
    for (int64_t g = 0; g < groups; g++) {
        __m512i w[8];
#pragma GCC unroll 8
        for (int b = 0; b < blocks; b++)
            w[b] = bits ? _mm512_movm_epi8(words[b * groups + g]) : _mm512_loadu_si512(bytes + (b * groups + g) * 64);
#pragma GCC unroll 4
        for (int f = 0; f < frames; f++) {
            int32_t four;
            memcpy(&four, codes + f * step + 4 * g, 4);
            const __m512i x = _mm512_set1_epi32(four);
#pragma GCC unroll 8
            for (int b = 0; b < blocks; b++) sum[f][b] = _mm512_dpbusd_epi32(sum[f][b], x, w[b]);
        }
    }
#pragma GCC unroll 4
    for (int f = 0; f < frames; f++)
#pragma GCC unroll 8
        for (int b = 0; b < blocks; b++) _mm512_storeu_si512(sums + f * stride + b * LANES, sum[f][b]);
}
#else
#define EXPANDS 0
static inline void products(int64_t groups, const uint8_t *codes, int64_t step, const void *weight, const int frames,
                            const int blocks, const int bits, int32_t *sums, int64_t stride) {
    (void)bits;
    for (int b = 0; b < blocks; b++)
        for (int f = 0; f < frames; f++) {
            const int8_t *w = (const int8_t *)weight + b * groups * 64;
            const uint8_t *x = codes + f * step;
            int32_t sum[LANES] = {0};
            for (int64_t g = 0; g < groups; g++, w += 64, x += 4)
                for (int i = 0; i < LANES; i++)
                    sum[i] += x[0] * w[4 * i] + x[1] * w[4 * i + 1] + x[2] * w[4 * i + 2] + x[3] * w[4 * i + 3];
            memcpy(sums + f * stride + b * LANES, sum, sizeof sum);
        }
}
#endif

int linear_expands_bits(void) { return EXPANDS; }

#define ROWS_OF(f, b, frames, blocks) \
    products(groups, codes + (f) * step, step, weight + (b) * size, frames, blocks, bits, \
             sums + (f) * stride + (b) * LANES, stride)
static inline __attribute__((always_inline)) void byte_products(const Layer *l, const uint8_t *codes, int64_t step,
                                                                int64_t n, const int bits, int32_t *sums,
                                                                int64_t stride) {
    const int64_t groups = up(l->k, 4) / 4, blocks = stride / LANES, full = n / FRAMES * FRAMES;
    const int64_t size = groups * (bits ? 8 : 64); /* of a block, in bytes */
    const char *weight = l->weight;
    int64_t b = 0;
    for (; b + 4 <= blocks; b += 4)
        for (int64_t f = 0; f < full; f += FRAMES) ROWS_OF(f, b, FRAMES, 4);
    for (; b < blocks; b++)
        for (int64_t f = 0; f < full; f += FRAMES) ROWS_OF(f, b, FRAMES, 1);
    for (int64_t f = full; f < n; f++) {
        for (b = 0; b + 8 <= blocks; b += 8) ROWS_OF(f, b, 1, 8);
        for (; b < blocks; b++) ROWS_OF(f, b, 1, 1);
    }
}
#undef ROWS_OF

/* Bit p of 64 codes. */
static inline uint64_t plane(const uint8_t *codes, int p) {
#ifdef __AVX512BW__
    return _mm512_test_epi8_mask(_mm512_loadu_si512(codes), _mm512_set1_epi8((char)(1 << p)));
#else
    uint64_t word = 0;
    for (int i = 0; i < 64; i++) word |= (uint64_t)(codes[i] >> p & 1) << i;
    return word;
#endif
}

/* Products of planes: the sum over the inputs of weight +1, of all planes. */
static void plane_products(const Layer *l, const uint8_t *codes, int64_t step, int64_t n, uint64_t *packed,
                           int32_t *sums, int64_t stride) {
    const int64_t words = step / 64;
    memset(sums, 0, (size_t)(n * stride) * sizeof *sums);
    for (int p = 0; p < l->planes; p++) {
        for (int64_t i = 0; i < n * words; i++) packed[i] = plane(codes + 64 * i, p);
        for (int64_t b = 0; b < stride / LANES; b++)
            for (int64_t f = 0; f < n; f += ROWS) {
                const int rows = n - f < ROWS ? (int)(n - f) : ROWS;
                uint64_t sum[ROWS][COLS];
                tile(packed + f * words, (const uint64_t *)l->weight + b * words * COLS, words, rows, 0, sum);
                for (int r = 0; r < rows; r++)
                    for (int i = 0; i < LANES; i++) sums[(f + r) * stride + b * LANES + i] += (int32_t)(sum[r][i] << p);
            }
    }
}

static inline float rounded(float x, Codes c) {
    const float q = rintf(x / c.scale) + c.zero, low = q > 0 ? q : 0;
    return low < c.top ? low : c.top;
}

/* Codes of one row, and their sum. */
static int32_t encode(const Layer *l, const float *restrict x, float *restrict work, uint8_t *restrict codes) {
    const Codes early = l->early, late = l->codes; /* copies: bytes that are written could be anything */
    const int64_t k = l->k;
    int32_t total = 0;
    if (early.scale != 0) {
        for (int64_t i = 0; i < k; i++) work[i] = (rounded(x[i], early) - early.zero) * early.scale;
        x = work;
    }
    for (int64_t i = 0; i < k; i++) codes[i] = (uint8_t)(int32_t)rounded(x[i], late);
    for (int64_t i = 0; i < k; i++) total += codes[i];
    memset(codes + k, 0, (size_t)(up(k, 64) - k));
    return total;
}

/* Up to CHUNK rows; `memory` holds what `linear` reserves. */
static void chunk(const Layer *l, int64_t n, const float *x, float *out, uint8_t *memory) {
    const int64_t step = up(l->k, 64), stride = up(l->rows, LANES);
    uint64_t *packed = (uint64_t *)memory;
    int32_t *sums = (int32_t *)(packed + CHUNK * step / 64), total[CHUNK];
    float *work = (float *)(sums + CHUNK * stride);
    uint8_t *codes = (uint8_t *)(work + step);
    for (int64_t f = 0; f < n; f++) total[f] = encode(l, x + f * l->k, work, codes + f * step);
    if (l->planes)
        plane_products(l, codes, step, n, packed, sums, stride);
    else if (l->bits)
        byte_products(l, codes, step, n, EXPANDS, sums, stride);
    else
        byte_products(l, codes, step, n, 0, sums, stride);
    /* Of bits the sum over the weights +1 is known: twice that less the sum of all codes. */
    const int32_t times = l->planes ? 2 : l->bits ? -2 : 1;
    for (int64_t f = 0; f < n; f++) {
        const int32_t *sum = sums + f * stride, less = l->planes || l->bits ? total[f] : 0;
        float *y = out + f * l->rows;
        for (int64_t i = 0; i < l->rows; i++) y[i] = (float)(times * sum[i] - less) * l->gain[i] + l->shift[i];
        if (l->relu)
            for (int64_t i = 0; i < l->rows; i++) y[i] = y[i] > 0 ? y[i] : 0;
    }
}

/* x (n, k) to out (n, rows). */
int linear(const Layer *l, int64_t n, const float *x, float *out) {
    const int64_t step = up(l->k, 64), stride = up(l->rows, LANES);
    uint8_t *memory = malloc((size_t)(CHUNK * (step / 8 + stride * 4 + step) + step * 4));
    if (!memory) return 1;
    for (int64_t f = 0; f < n; f += CHUNK)
        chunk(l, n - f < CHUNK ? n - f : CHUNK, x + f * l->k, out + f * l->rows, memory);
    free(memory);
    return 0;
}
