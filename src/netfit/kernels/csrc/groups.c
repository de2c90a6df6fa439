/* k-bit storage of float groups with stochastic rounding. Arithmetic and layout equal the torch reference in
   _groups.py bit for bit, so no fused multiply-add (-ffp-contract=off) and one hash for the random numbers. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16

/* lowbias32 (C. Wellons, "Prospecting for Hash Functions", 2018). */
static inline uint32_t mix(uint32_t h) {
    h ^= h >> 16;
    h *= 0x7feb352dU;
    h ^= h >> 15;
    h *= 0x846ca68bU;
    return h ^ (h >> 16);
}

/* Minimum and maximum; returns 0 when a value is NaN or infinite. Separate lanes let the compiler use vector
   registers without reordering one float reduction. */
static int range(const float *x, int64_t n, float *lo, float *hi) {
    float a[LANES], b[LANES];
    uint32_t top = 0;
    int64_t j = 0;
    for (int l = 0; l < LANES; l++) a[l] = b[l] = x[0];
    for (; j + LANES <= n; j += LANES)
        for (int l = 0; l < LANES; l++) {
            a[l] = x[j + l] < a[l] ? x[j + l] : a[l];
            b[l] = x[j + l] > b[l] ? x[j + l] : b[l];
        }
    for (; j < n; j++) {
        a[0] = x[j] < a[0] ? x[j] : a[0];
        b[0] = x[j] > b[0] ? x[j] : b[0];
    }
    for (j = 0; j < n; j++) {
        uint32_t u;
        memcpy(&u, x + j, 4);
        u &= 0x7fffffffU;
        top = u > top ? u : top;
    }
    *lo = a[0];
    *hi = b[0];
    for (int l = 1; l < LANES; l++) {
        *lo = a[l] < *lo ? a[l] : *lo;
        *hi = b[l] > *hi ? b[l] : *hi;
    }
    return top < 0x7f800000U && !isinf(*hi - *lo);
}

/* Packs eight codes at a time into `bits` bytes; `bits` is a constant after inlining. */
static inline void pack_group(const float *x, int64_t n, int bits, float lo, float inverse, uint32_t key,
                              uint8_t *out) {
    const int32_t most = (1 << bits) - 1;
    for (int64_t start = 0; start < n; start += 256) {
        uint8_t code[256];
        const int64_t count = n - start < 256 ? n - start : 256;
        for (int64_t j = 0; j < count; j++) {
            const float u = (float)(mix(key ^ (uint32_t)(start + j)) >> 8) * 0x1p-24f;
            const int32_t c = (int32_t)((x[start + j] - lo) * inverse + u);
            code[j] = (uint8_t)(c < most ? c : most);
        }
        const int per = 8 / bits;
        const int64_t bytes = (count + per - 1) / per;
        memset(code + count, 0, (size_t)(bytes * per - count));
        for (int64_t i = 0; i < bytes; i++) {
            uint32_t b = 0;
            for (int p = 0; p < per; p++) b |= (uint32_t)code[i * per + p] << (p * bits);
            out[start / per + i] = (uint8_t)b;
        }
    }
}

void pack_groups(const float *x, int64_t n, int64_t bits, int64_t group, uint64_t seed, uint8_t *codes,
                 float *lo, float *scale) {
    const uint32_t base = mix((uint32_t)seed) ^ (uint32_t)(seed >> 32);
    for (int64_t g = 0; g * group < n; g++) {
        const float *in = x + g * group;
        uint8_t *out = codes + g * group * bits / 8;
        const int64_t count = n - g * group < group ? n - g * group : group;
        const uint32_t key = mix(base + (uint32_t)g);
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
