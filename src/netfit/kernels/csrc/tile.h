/* The innermost loop of all products of bit-packed matrices; read before the file that uses it. */
#include <stdint.h>
#include <string.h>

#define ROWS 4  /* rows of A in registers */
#define COLS 16 /* columns (rows of B) in vector lanes */

/* ROWS x COLS inner products of bits: popcount(a ^ b) or popcount(a & b), summed over the words.
   `bt` is a block of B with the columns innermost, so that the lanes of a vector are columns. */
static inline void tile(const uint64_t *a, const uint64_t *bt, int64_t words, int rows, int differ,
                        uint64_t sum[ROWS][COLS]) {
    /* One array a row, not one of all rows: only those do compilers keep in vector registers. */
    const uint64_t *a1 = a + (rows > 1) * words, *a2 = a1 + (rows > 2) * words, *a3 = a2 + (rows > 3) * words;
    uint64_t s0[COLS] = {0}, s1[COLS] = {0}, s2[COLS] = {0}, s3[COLS] = {0};
    for (int64_t w = 0; w < words; w++)
        for (int c = 0; c < COLS; c++) {
            const uint64_t b = bt[w * COLS + c];
            s0[c] += (uint64_t)__builtin_popcountll(differ ? a[w] ^ b : a[w] & b);
            s1[c] += (uint64_t)__builtin_popcountll(differ ? a1[w] ^ b : a1[w] & b);
            s2[c] += (uint64_t)__builtin_popcountll(differ ? a2[w] ^ b : a2[w] & b);
            s3[c] += (uint64_t)__builtin_popcountll(differ ? a3[w] ^ b : a3[w] & b);
        }
    memcpy(sum[0], s0, sizeof s0);
    memcpy(sum[1], s1, sizeof s1);
    memcpy(sum[2], s2, sizeof s2);
    memcpy(sum[3], s3, sizeof s3);
}
