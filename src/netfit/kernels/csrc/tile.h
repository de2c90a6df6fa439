/* The innermost loop of all products of bit-packed matrices; read before the file that uses it. */
#include <stdint.h>
#include <string.h>
#ifdef __AVX512VPOPCNTDQ__
#include <immintrin.h>
#endif

#define ROWS 4  /* rows of A in registers */
#define COLS 16 /* columns (rows of B) in vector lanes */

/* Vectors of the compiler, which splits them where the processor's are shorter: left to itself it finds them in some
   callers of `tile` and not in others. */
typedef uint64_t Words __attribute__((vector_size(64)));

static inline Words counted(Words v) {
#ifdef __AVX512VPOPCNTDQ__
    return (Words)_mm512_popcnt_epi64((__m512i)v);
#else
    for (int i = 0; i < 8; i++) v[i] = (uint64_t)__builtin_popcountll(v[i]);
    return v;
#endif
}

/* ROWS x COLS inner products of bits: popcount(a ^ b) or popcount(a & b), summed over the words.
   `bt` is a block of B with the columns innermost, so that the lanes of a vector are columns. */
static inline void tile(const uint64_t *a, const uint64_t *bt, int64_t words, int rows, int differ,
                        uint64_t sum[ROWS][COLS]) {
    /* One pair of vectors a row, not one array of all rows: only those do compilers keep in registers. */
    const uint64_t *a1 = a + (rows > 1) * words, *a2 = a1 + (rows > 2) * words, *a3 = a2 + (rows > 3) * words;
    Words s0 = {0}, t0 = {0}, s1 = {0}, t1 = {0}, s2 = {0}, t2 = {0}, s3 = {0}, t3 = {0};
#define ADD(s, t, x) \
    s += counted(differ ? b ^ (x) : b & (x)); \
    t += counted(differ ? c ^ (x) : c & (x));
    for (int64_t w = 0; w < words; w++) {
        Words b, c;
        memcpy(&b, bt + w * COLS, sizeof b);
        memcpy(&c, bt + w * COLS + COLS / 2, sizeof c);
        ADD(s0, t0, a[w])
        ADD(s1, t1, a1[w])
        ADD(s2, t2, a2[w])
        ADD(s3, t3, a3[w])
    }
#undef ADD
    const Words all[ROWS][2] = {{s0, t0}, {s1, t1}, {s2, t2}, {s3, t3}};
    memcpy(sum, all, sizeof all);
}
