/* One bit per float: is it above zero? Equal to the torch reference in _mask.py, NaN included (not above). */
#include <stdint.h>
#include <string.h>

#define LANES 16
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

void pack_mask(const float *x, int64_t n, uint8_t *bits) {
    const int64_t whole = n / 8;
    for (int64_t i = 0; i < whole; i++) {
        uint32_t b = 0;
        for (int p = 0; p < 8; p++) b |= (uint32_t)(x[8 * i + p] > 0.0f) << p;
        bits[i] = (uint8_t)b;
    }
    if (n % 8) {
        uint32_t b = 0;
        for (int64_t j = 8 * whole; j < n; j++) b |= (uint32_t)(x[j] > 0.0f) << (j % 8);
        bits[whole] = (uint8_t)b;
    }
}

void unpack_mask(const uint8_t *bits, int64_t n, float level, float *x) {
    const ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const ints set = (ints)(level - (vec){0});
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        uint16_t word;
        memcpy(&word, bits + j / 8, 2);
        *(vec *)(x + j) = (vec)(set & -(((int32_t)word - (ints){0}) >> lane & 1));
    }
    for (; j < n; j++) x[j] = (bits[j / 8] >> (j % 8) & 1) ? level : 0.0f;
}
