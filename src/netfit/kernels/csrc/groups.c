/* k-bit storage of float groups with stochastic rounding. Arithmetic and layout equal the torch reference in
   _groups.py bit for bit, so no fused multiply-add (-ffp-contract=off) and one hash for the random numbers. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t shorts __attribute__((vector_size(2 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1)));

static const ints LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* lowbias32 (C. Wellons, "Prospecting for Hash Functions", 2018). */
#define MIX(h) (h ^= h >> 16, h *= 0x7feb352dU, h ^= h >> 15, h *= 0x846ca68bU, h ^= h >> 16)

static inline vec either(ints which, vec yes, vec no) { return (vec)(((ints)yes & which) | ((ints)no & ~which)); }

/* Minimum and maximum; returns 0 when a value is NaN or infinite. */
static int range(const float *x, int64_t n, float *lo, float *hi) {
    const vec first = x[0] - (vec){0};
    vec a = first, b = first;
    ints broken = {0};
    for (int64_t j = 0; j < n; j += LANES) {
        vec v = first;
        if (j + LANES <= n)
            v = *(const vec *)(x + j);
        else
            memcpy(&v, x + j, (size_t)(n - j) * sizeof(float));
        a = either(v < a, v, a);
        b = either(v > b, v, b);
        broken |= ((ints)v & 0x7fffffff) >= 0x7f800000;
    }
#define FOLD(...)                                                       \
    {                                                                   \
        const vec c = __builtin_shufflevector(a, a, __VA_ARGS__);       \
        const vec d = __builtin_shufflevector(b, b, __VA_ARGS__);       \
        a = either(c < a, c, a);                                        \
        b = either(d > b, d, b);                                        \
        broken |= __builtin_shufflevector(broken, broken, __VA_ARGS__); \
    }
    FOLD(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)
    FOLD(4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)
    FOLD(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
    FOLD(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
    *lo = a[0];
    *hi = b[0];
    return !broken[0] && !isinf(*hi - *lo);
}

/* Codes lie one a byte; 8 / bits neighbours are the bytes of one number, which shifts fold into its lowest byte. There is
   room behind the codes and behind the folded ones. */
static inline void fold(const uint8_t *code, int64_t count, int bits, uint8_t *out) {
    if (bits == 4)
        for (int64_t i = 0; 2 * i < count; i += LANES) {
            const shorts v = *(const shorts *)(code + 2 * i);
            *(bytes *)(out + i) = __builtin_convertvector(v | v >> 4, bytes);
        }
    else if (bits == 2)
        for (int64_t i = 0; 4 * i < count; i += LANES) {
            words v = *(const words *)(code + 4 * i);
            v |= v >> 6;
            *(bytes *)(out + i) = __builtin_convertvector(v | v >> 12, bytes);
        }
    else
        for (int64_t i = 0; 8 * i < count; i++) {
            uint64_t v;
            memcpy(&v, code + 8 * i, 8);
            v |= v >> 7;
            v |= v >> 14;
            out[i] = (uint8_t)(v | v >> 28);
        }
}

/* `bits` is a constant after inlining. */
static inline void pack_group(const float *x, int64_t n, int bits, float lo, float inverse, uint32_t key,
                              uint8_t *out) {
    const int32_t most = (1 << bits) - 1;
    for (int64_t start = 0; start < n; start += 256) {
        uint8_t code[256 + 64] __attribute__((aligned(64))), folded[256];
        const int64_t count = n - start < 256 ? n - start : 256;
        for (int64_t j = 0; j < count; j += LANES) {
            vec v = {0};
            if (j + LANES <= count)
                v = *(const vec *)(x + start + j);
            else
                memcpy(&v, x + start + j, (size_t)(count - j) * sizeof(float));
            words h = key ^ (words)((int32_t)(start + j) + LANE);
            MIX(h);
            const vec u = __builtin_convertvector((ints)(h >> 8), vec) * 0x1p-24f;
            const ints c = __builtin_convertvector((v - lo) * inverse + u, ints), within = c < most;
            *(bytes *)(code + j) = __builtin_convertvector((c & within) | (most & ~within), bytes);
        }
        if (bits < 8) {
            memset(code + count, 0, 64);
            fold(code, count, bits, folded);
        }
        memcpy(out + start * bits / 8, bits < 8 ? folded : code, (size_t)((count * bits + 7) / 8));
    }
}

void pack_groups(const float *x, int64_t n, int64_t bits, int64_t group, uint64_t seed, uint8_t *codes,
                 float *lo, float *scale) {
    uint32_t base = (uint32_t)seed;
    MIX(base);
    base ^= (uint32_t)(seed >> 32);
    for (int64_t g = 0; g * group < n; g++) {
        const float *in = x + g * group;
        uint8_t *out = codes + g * group * bits / 8;
        const int64_t count = n - g * group < group ? n - g * group : group;
        uint32_t key = base + (uint32_t)g;
        MIX(key);
        float hi;
        if (!range(in, count, lo + g, &hi)) {
            lo[g] = scale[g] = NAN;
            memset(out, 0, (size_t)((count * bits + 7) / 8));
            continue;
        }
        scale[g] = (hi - lo[g]) / (float)((1 << bits) - 1);
        float inverse = 1.0f / scale[g];
        if (isinf(inverse)) inverse = 0.0f;
        switch (bits) {
        case 1: pack_group(in, count, 1, lo[g], inverse, key, out); break;
        case 2: pack_group(in, count, 2, lo[g], inverse, key, out); break;
        case 4: pack_group(in, count, 4, lo[g], inverse, key, out); break;
        default: pack_group(in, count, 8, lo[g], inverse, key, out); break;
        }
    }
}

static inline void unpack_group(const uint8_t *in, int64_t n, int bits, float lo, float scale, float *x) {
    const int per = 8 / bits, mask = (1 << bits) - 1;
    int64_t i = 0;
    if (bits <= 2)
        for (; (i + 2 * bits) * per <= n; i += 2 * bits) { /* LANES codes */
            uint32_t word = 0;
            memcpy(&word, in + i, 2 * (size_t)bits);
            const ints code = (ints)((word - (words){0}) >> (words)(LANE * bits)) & mask;
            *(vec *)(x + i * per) = __builtin_convertvector(code, vec) * scale + lo;
        }
    for (; (i + 1) * per <= n; i++)
        for (int p = 0; p < per; p++) x[i * per + p] = (float)(in[i] >> (p * bits) & mask) * scale + lo;
    for (int64_t j = i * per; j < n; j++) x[j] = (float)(in[i] >> ((j - i * per) * bits) & mask) * scale + lo;
}

void unpack_groups(const uint8_t *codes, const float *lo, const float *scale, int64_t n, int64_t bits,
                   int64_t group, float *x) {
    for (int64_t g = 0; g * group < n; g++) {
        const uint8_t *in = codes + g * group * bits / 8;
        const int64_t count = n - g * group < group ? n - g * group : group;
        switch (bits) {
        case 1: unpack_group(in, count, 1, lo[g], scale[g], x + g * group); break;
        case 2: unpack_group(in, count, 2, lo[g], scale[g], x + g * group); break;
        case 4: unpack_group(in, count, 4, lo[g], scale[g], x + g * group); break;
        default: unpack_group(in, count, 8, lo[g], scale[g], x + g * group); break;
        }
    }
}
