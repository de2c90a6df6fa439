/* One bit per float: is it above zero? Equal to the torch reference in _mask.py, NaN included (not above). */
#include <stdint.h>

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
    const int64_t whole = n / 8;
    for (int64_t i = 0; i < whole; i++)
        for (int p = 0; p < 8; p++) x[8 * i + p] = (bits[i] >> p & 1) ? level : 0.0f;
    for (int64_t j = 8 * whole; j < n; j++) x[j] = (bits[whole] >> (j % 8) & 1) ? level : 0.0f;
}
