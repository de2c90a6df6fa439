/* Matrix products of bit-packed matrices, over the tiles of tile.h: 64 values a word, the inner dimension padded with
   zero bits. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Bit p of every code to plane p. Multiplying by the magic number gathers the low bits of eight bytes. */
void pack_planes(const uint8_t *codes, int64_t rows, int64_t k, int64_t bits, uint64_t *planes) {
    const int64_t words = (k + 63) / 64;
    for (int64_t p = 0; p < bits; p++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t w = 0; w < words; w++) {
                uint8_t chunk[64] = {0};
                const int64_t count = k - w * 64 < 64 ? k - w * 64 : 64;
                uint64_t word = 0;
                memcpy(chunk, codes + r * k + w * 64, (size_t)count);
                for (int i = 0; i < 64; i += 8) {
                    uint64_t eight = 0;
                    for (int b = 0; b < 8; b++) eight |= (uint64_t)chunk[i + b] << (8 * b);
                    eight = eight >> p & 0x0101010101010101ULL;
                    word |= (eight * 0x0102040810204080ULL >> 56) << i;
                }
                planes[(p * rows + r) * words + w] = word;
            }
}

static void transpose_block(const uint64_t *b, int64_t words, int64_t cols, uint64_t *bt) {
    for (int64_t c = 0; c < COLS; c++)
        for (int64_t w = 0; w < words; w++) bt[w * COLS + c] = c < cols ? b[c * words + w] : 0;
}

/* out (m, n) = k - 2 * popcount(a ^ b): the product of two +-1 matrices, bit 1 standing for +1. */
int binary_gemm(const uint64_t *a, const uint64_t *b, int64_t m, int64_t n, int64_t words, int64_t k,
                int32_t *out) {
    uint64_t *bt = aligned_alloc(64, (size_t)(words + 1) * COLS * 8);
    if (!bt) return 1;
    for (int64_t j = 0; j < n; j += COLS) {
        const int64_t cols = n - j < COLS ? n - j : COLS;
        transpose_block(b + j * words, words, cols, bt);
        for (int64_t i = 0; i < m; i += ROWS) {
            uint64_t sum[ROWS][COLS];
            const int rows = m - i < ROWS ? (int)(m - i) : ROWS;
            tile(a + i * words, bt, words, rows, 1, sum);
            for (int r = 0; r < rows; r++)
                for (int64_t c = 0; c < cols; c++)
                    out[(i + r) * n + j + c] = (int32_t)(k - 2 * (int64_t)sum[r][c]);
        }
    }
    free(bt);
    return 0;
}

/* out (m, n) = sum over planes of 2^p * (2 * popcount(a_p & b) - popcount(a_p)): unsigned codes times +-1. */
int planes_gemm(const uint64_t *a, const uint64_t *b, int64_t planes, int64_t m, int64_t n, int64_t words,
                int32_t *out) {
    uint64_t *bt = aligned_alloc(64, (size_t)(words + 1) * COLS * 8);
    if (!bt) return 1;
    memset(out, 0, (size_t)(m * n) * 4);
    for (int64_t j = 0; j < n; j += COLS) {
        const int64_t cols = n - j < COLS ? n - j : COLS;
        transpose_block(b + j * words, words, cols, bt);
        for (int64_t p = 0; p < planes; p++)
            for (int64_t i = 0; i < m; i += ROWS) {
                uint64_t sum[ROWS][COLS];
                const uint64_t *rows_a = a + (p * m + i) * words;
                const int rows = m - i < ROWS ? (int)(m - i) : ROWS;
                tile(rows_a, bt, words, rows, 0, sum);
                for (int r = 0; r < rows; r++) {
                    int64_t ones = 0;
                    for (int64_t w = 0; w < words; w++) ones += __builtin_popcountll(rows_a[r * words + w]);
                    for (int64_t c = 0; c < cols; c++)
                        out[(i + r) * n + j + c] += (int32_t)((2 * (int64_t)sum[r][c] - ones) << p);
                }
            }
    }
    free(bt);
    return 0;
}
