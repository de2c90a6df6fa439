/* Vectors of 32-bit words as wide as the processor's, and the three multiply-accumulates of them. GCC and Clang. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define LANES (BYTES / 4)

typedef float vfloat __attribute__((vector_size(BYTES)));
typedef int32_t vint __attribute__((vector_size(BYTES)));
typedef uint32_t vword __attribute__((vector_size(BYTES)));
/* The same in memory: at any address, of any type. */
typedef vfloat vfloat_u __attribute__((aligned(4), may_alias));
typedef vint vint_u __attribute__((aligned(4), may_alias));
typedef vword vword_u __attribute__((aligned(4), may_alias));

#if defined(__x86_64__) || defined(__i386__)
#define REGISTER "v"
#elif defined(__aarch64__)
#define REGISTER "w"
#else
#define REGISTER "m"
#endif
/* The compiler may assume nothing about x, and must have it in a register. */
#define OPAQUE(x) __asm__ volatile("" : "+" REGISTER(x))
#define USE(x) __asm__ volatile("" : : REGISTER(x))

static inline vfloat mac_fp32(vfloat sum, vfloat x, vfloat w) { return sum + x * w; }

/* Four products of bytes a word: x holds activations, w signed weights. VNNI multiplies unsigned by signed bytes, so
   there activations are stored with 128 added, which the caller takes back. */
#if defined(__AVX512VNNI__) && BYTES == 64
#define OFFSET 128
static inline vint mac_int8(vint sum, vint x, vint w) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
    return sum;
}
#elif defined(__AVXVNNI__) && BYTES == 32
#define OFFSET 128
static inline vint mac_int8(vint sum, vint x, vint w) {
    __asm__("{vex} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(x), "x"(w));
    return sum;
}
#elif defined(__ARM_FEATURE_DOTPROD)
#define OFFSET 0
static inline vint mac_int8(vint sum, vint x, vint w) {
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(x), "w"(w));
    return sum;
}
#else
#define OFFSET 0
static inline vint mac_int8(vint sum, vint x, vint w) {
    for (int b = 0; b < 32; b += 8) sum += ((x << b) >> 24) * ((w << b) >> 24);
    return sum;
}
#endif

/* Ones of every 32-bit word. */
static inline vint ones(vint x) {
#if defined(__AVX512VPOPCNTDQ__) && BYTES == 64
    __asm__("vpopcntd %1, %0" : "=v"(x) : "v"(x));
    return x;
#elif defined(__aarch64__)
    __asm__("cnt %0.16b, %0.16b\n\tuaddlp %0.8h, %0.16b\n\tuaddlp %0.4s, %0.8h" : "+w"(x));
    return x;
#else
    vword v = (vword)x;
    v -= (v >> 1) & 0x55555555u;
    v = (v & 0x33333333u) + ((v >> 2) & 0x33333333u);
    v = (v + (v >> 4)) & 0x0F0F0F0Fu;
    v += v >> 8;
    return (vint)((v + (v >> 16)) & 0x3Fu);
#endif
}

static inline vint mac_bits(vint sum, vint x, vint w) { return sum + ones(x & w); }
