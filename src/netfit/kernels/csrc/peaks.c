/* What one core can do at most: reads of every cache level, and multiply-accumulates of every kind on registers. */
#include <sys/mman.h>
#if defined(__AMX_TILE__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define SUMS 12 /* independent sums: enough to hide a latency of 5 cycles on two units, few enough for 16 registers */

/* Memory that is really there, on large pages where the system has them. */
void *peak_memory(int64_t bytes) {
    void *p = mmap(0, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return 0;
#ifdef MADV_HUGEPAGE
    madvise(p, (size_t)bytes, MADV_HUGEPAGE);
#endif
    memset(p, 1, (size_t)bytes);
    return p;
}

void peak_free(void *p, int64_t bytes) { munmap(p, (size_t)bytes); }

/* Read `bytes` (a multiple of 8 vectors) `repeats` times. */
void peak_read(const char *p, int64_t bytes, int64_t repeats) {
    for (int64_t r = 0; r < repeats; r++)
        for (int64_t i = 0; i < bytes; i += 8 * BYTES) {
            const vint_u *at = (const vint_u *)(p + i);
            vint a = at[0], b = at[1], c = at[2], d = at[3], e = at[4], f = at[5], g = at[6], h = at[7];
            USE(a); USE(b); USE(c); USE(d);
            USE(e); USE(f); USE(g); USE(h);
        }
}

/* Write as many; a line that is not in the nearest cache is fetched first. */
void peak_write(char *p, int64_t bytes, int64_t repeats) {
    vint v = {0};
    for (int64_t r = 0; r < repeats; r++)
        for (int64_t i = 0; i < bytes; i += 8 * BYTES) {
            vint_u *at = (vint_u *)(p + i);
            OPAQUE(v);
            at[0] = v, at[1] = v, at[2] = v, at[3] = v, at[4] = v, at[5] = v, at[6] = v, at[7] = v;
            __asm__ volatile("" : : : "memory");
        }
}

#define REPEAT_12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define DECLARE(i) V s##i = {0};
#define KEEP(i) USE(s##i);
#define PEAK(name, type, mac)                                  \
    int64_t name(int64_t steps) {                              \
        typedef type V;                                        \
        V x = {0}, w = {0};                                    \
        REPEAT_12(DECLARE)                                     \
        OPAQUE(x);                                             \
        OPAQUE(w);                                             \
        for (int64_t i = 0; i < steps; i++) { REPEAT_12(mac) } \
        REPEAT_12(KEEP)                                        \
        return steps * SUMS * LANES;                           \
    }

/* Each returns how many 32-bit lanes were multiplied and accumulated, 0 where the processor has no such unit. */
#define FP32(i) s##i = mac_fp32(s##i, x, w); OPAQUE(s##i);
#define INT8(i) s##i = mac_int8(s##i, x, w); OPAQUE(s##i);
#define BITS(i) OPAQUE(x); s##i = mac_bits(s##i, x, w); OPAQUE(s##i); /* else x & w would be counted once */
PEAK(peak_fp32, vfloat, FP32)
PEAK(peak_int8, vint, INT8)
PEAK(peak_bits, vint, BITS)

#if (defined(__AVX512BF16__) && BYTES == 64) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
static inline vfloat mac_bf16(vfloat sum, vfloat x, vfloat w) {
#if defined(__aarch64__)
    __asm__("bfdot %0.4s, %1.8h, %2.8h" : "+w"(sum) : "w"(x), "w"(w));
#else
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
#endif
    return sum;
}
#define BF16(i) s##i = mac_bf16(s##i, x, w); OPAQUE(s##i);
PEAK(peak_bf16, vfloat, BF16)
#else
int64_t peak_bf16(int64_t steps) { return 0 * steps; }
#endif

/* One sum that waits for itself: the latency of a multiply-accumulate. Returns how many were made. */
int64_t peak_chain(int64_t steps) {
    float sum = 0, x = 0, w = 0;
    OPAQUE(x);
    OPAQUE(w);
    for (int64_t i = 0; i < 12 * steps; i++) {
        OPAQUE(x);
        sum = sum + x * w;
        OPAQUE(sum);
    }
    USE(sum);
    return 12 * steps;
}

/* Matrix tiles of 16 x 64 bytes; the kernel has to allow them to a process first. */
#if defined(__AMX_TILE__) && defined(__linux__)
static int tiles_ready(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    if (syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */)) return 0;
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = 16;
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
    return 1;
}

/* Four sums, two operands each; a tile product is 16 x 16 words times 16 words. */
#define TILES(name, instruction)                                                 \
    int64_t name(int64_t steps) {                                                \
        if (!tiles_ready()) return 0;                                            \
        for (int64_t i = 0; i < steps; i++)                                      \
            __asm__ volatile(instruction " %tmm5, %tmm4, %tmm0\n\t"              \
                             instruction " %tmm7, %tmm4, %tmm1\n\t"              \
                             instruction " %tmm5, %tmm6, %tmm2\n\t"              \
                             instruction " %tmm7, %tmm6, %tmm3");                \
        __asm__ volatile("tilerelease");                                         \
        return steps * 4 * 16 * 16 * 16;                                         \
    }
#else
#define TILES(name, instruction) \
    int64_t name(int64_t steps) { return 0 * steps; }
#endif
#if defined(__AMX_BF16__)
TILES(peak_bf16_tiles, "tdpbf16ps")
#else
int64_t peak_bf16_tiles(int64_t steps) { return 0 * steps; }
#endif
#if defined(__AMX_INT8__)
TILES(peak_int8_tiles, "tdpbusd")
#else
int64_t peak_int8_tiles(int64_t steps) { return 0 * steps; }
#endif

int64_t peak_vector_bytes(void) { return BYTES; }
