/* Convolutions and matrix products of 32-bit words, blocked for the caches. One file for fp32 (a word is a value), int8
   (four channels a word) and bit planes (32 channels a word): only the multiply-accumulate differs.

   out[row][pixel] = init[row] + sum over channels and taps of w[row][word] * x[word][pixel]. Pixels are the lanes of
   vectors. A product of matrices is a convolution with one tap over an image of height 1. After "Anatomy of
   High-Performance Matrix Multiplication" (Goto and van de Geijn, 2008). PRECISION: 0 fp32, 1 int8, 2 bit planes. */

#ifdef MR /* a tuner has chosen the tile */
#elif defined(__AVX512F__) || defined(__aarch64__)
#define MR 8 /* rows and vectors of a tile of sums; 32 registers hold it */
#define NV 3
#else
#define MR 4
#define NV 2
#endif
#define NR (NV * LANES)
#define MOST_KC 512

#if PRECISION == 0
typedef float value;
typedef float number; /* of the input */
typedef vfloat vec;
typedef vfloat_u vec_u;
#define MAC mac_fp32
#define PAD 0
#else
typedef int32_t value;
typedef uint8_t number;
typedef vint vec;
typedef vint_u vec_u;
#if PRECISION == 1
#define MAC mac_int8
#define PAD ((value)(0x01010101u * OFFSET))
#else
#define MAC mac_bits
#define PAD 0
#endif
#endif

typedef struct {
    int64_t batch, rows, channels, words; /* rows: output channels; words: ceil(channels / channels of a word) */
    int64_t height, width, taps_h, taps_w, stride, padding, dilation, out_h, out_w;
    int64_t planes;     /* bits of an input, for bit planes */
    int64_t packed;     /* the input comes in words already */
    int64_t kc, mc, nc; /* words of the sum, rows and pixels of a block; mc is a multiple of MR, nc of NR */
} Shape;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t phase_h(const Shape *s) { return (s->height + 2 * s->padding + s->stride - 1) / s->stride; }
static int64_t phase_w(const Shape *s) { return (s->width + 2 * s->padding + s->stride - 1) / s->stride; }

int64_t dense_tile_rows(void) { return MR; }
int64_t dense_tile_vectors(void) { return NV; }
int64_t dense_lanes(void) { return LANES; }
int64_t dense_most_kc(void) { return MOST_KC; }
int64_t dense_offset(void) { return PRECISION == 1 ? OFFSET : 0; } /* of an activation in a word */

/* Vectors may be read and written up to one beyond the end of the image and of the packed block. */
static int64_t image_words(const Shape *s) {
    return s->words * s->stride * s->stride * phase_h(s) * phase_w(s) + LANES;
}

int64_t dense_scratch_words(const Shape *s) {
    return image_words(s) + phase_w(s) * s->stride + s->height * s->width + s->nc + s->kc * s->nc + 2 * LANES;
}

static int has_words(const Shape *s) { return PRECISION == 0 || s->packed; }

/* Words under one tap are read where they lie; everything else becomes an image first. */
static int in_place(const Shape *s) {
    return has_words(s) && s->taps_h * s->taps_w == 1 && s->padding == 0 && s->stride == 1;
}

#if PRECISION == 2
#define CHUNK 64
typedef uint8_t chunk __attribute__((vector_size(CHUNK), aligned(1), may_alias));
/* One bit of `count` channels of up to CHUNK pixels; eight channels a byte, because bytes are the most lanes. */
static void gather(const uint8_t *x, int64_t area, int64_t count, int64_t n, int plane, value *restrict words) {
    chunk bytes[4] = {0};
    for (int64_t c = 0; c < count; c++) {
        chunk pixels = {0};
        if (n == CHUNK)
            pixels = *(const chunk *)(x + c * area);
        else
            memcpy(&pixels, x + c * area, (size_t)n);
        bytes[c / 8] |= (chunk)((pixels & (uint8_t)(1 << plane)) != 0) & (uint8_t)(1 << c % 8);
    }
    uint8_t byte[4][CHUNK];
    memcpy(byte, bytes, sizeof byte);
    for (int64_t j = 0; j < n; j++)
        words[j] = (value)(byte[0][j] | byte[1][j] << 8 | byte[2][j] << 16 | (uint32_t)byte[3][j] << 24);
}
#endif

/* All pixels of one word of channels. */
static const value *words_of(const Shape *s, const number *x, int64_t word, int plane, value *restrict words) {
    const int64_t area = s->height * s->width;
    if (has_words(s)) return (const value *)(const void *)x + word * area;
#if PRECISION == 0
    (void)plane;
    return words;
#elif PRECISION == 1
    const number *channel[4];
    uint32_t mask[4]; /* of a word that is not full, the missing channels are zeros */
    (void)plane;
    for (int c = 0; c < 4; c++) {
        mask[c] = word * 4 + c < s->channels ? 0xFF : 0;
        channel[c] = x + (mask[c] ? word * 4 + c : 0) * area;
    }
    for (int64_t i = 0; i < area; i++)
        words[i] = PAD ^ (value)((channel[0][i] & mask[0]) | (channel[1][i] & mask[1]) << 8 |
                                 (channel[2][i] & mask[2]) << 16 | (channel[3][i] & mask[3]) << 24);
    return words;
#else
    const int64_t count = least(32, s->channels - word * 32);
    x += word * 32 * area;
    for (int64_t i = 0; i < area; i += CHUNK) gather(x + i, area, count, least(CHUNK, area - i), plane, words + i);
    return words;
#endif
}

/* Whether any tap reads the pixels that are `phase` beyond a multiple of the stride. */
static int is_read(const Shape *s, int64_t taps, int64_t phase) {
    for (int64_t t = 0; t < taps; t++)
        if (t * s->dilation % s->stride == phase) return 1;
    return 0;
}

static void split(const value *restrict from, int64_t stride, int64_t count, value *restrict to) {
    if (stride == 2) /* the common one, as vectors */
        for (int64_t i = 0; i < count; i++) to[i] = from[2 * i];
    else
        for (int64_t i = 0; i < count; i++) to[i] = from[stride * i];
}

/* The padded image in words, split into stride x stride phases: the pixels that a tap reads then lie side by side. */
static void make_image(const Shape *s, const number *x, int plane, value *image, value *row, value *words) {
    const int64_t st = s->stride, ph = phase_h(s), pw = phase_w(s), width = pw * st, pad = s->padding;
    for (int64_t word = 0; word < s->words; word++) {
        const value *pixels = words_of(s, x, word, plane, words);
        for (int64_t y = 0; y < ph * st; y++) {
            if (!is_read(s, s->taps_h, y % st)) continue;
            value *phase = image + ((word * st + y % st) * st * ph + y / st) * pw;
            value *to = st == 1 ? phase : row;
            const int64_t count = y >= pad && y < s->height + pad ? s->width : 0, left = count ? pad : 0;
            for (int64_t i = 0; i < left; i++) to[i] = PAD;
            memcpy(to + left, pixels + (count ? (y - pad) * s->width : 0), (size_t)count * 4);
            for (int64_t i = left + count; i < width; i++) to[i] = PAD;
            for (int64_t b = 0; b < st && st > 1; b++, phase += ph * pw)
                if (is_read(s, s->taps_w, b)) split(row + b, st, pw, phase);
        }
    }
    for (int64_t i = 0; i < LANES; i++) image[image_words(s) - LANES + i] = PAD;
}

typedef struct {
    int64_t from, to;
} Move;

/* The vectors to copy for the pixels [first, first + count); a vector may run over what the next one then writes. */
static int find_moves(const Shape *s, int64_t first, int64_t count, Move *moves) {
    const int64_t pitch = in_place(s) ? s->width : phase_w(s);
    const int64_t line = s->out_w == pitch ? s->out_h * s->out_w : s->out_w; /* pixels that lie side by side */
    int n = 0;
    for (int64_t done = 0; done < count;) {
        const int64_t y = (first + done) / line, x = (first + done) % line, end = least(line - x, count - done);
        for (int64_t i = 0; i < end; i += LANES) moves[n++] = (Move){y * pitch + x + i, done + i};
        done += end;
    }
    return n;
}

static void find_taps(const Shape *s, int64_t first, int64_t count, int64_t *taps) {
    const int64_t st = s->stride, pw = phase_w(s), area = phase_h(s) * pw;
    for (int64_t i = 0; i < count; i++) {
        const int64_t k = first + i, y = k / s->taps_w % s->taps_h * s->dilation, x = k % s->taps_w * s->dilation;
        const int64_t word = k / (s->taps_h * s->taps_w);
        taps[i] = ((word * st + y % st) * st + x % st) * area + y / st * pw + x / st;
    }
}

/* Panels of NR pixels, words of the sum outermost; `minus` gets what bit planes take off again, see store. */
static void pack(const Shape *s, const value *image, int64_t k0, int64_t kc, int64_t n0, int64_t nc, int plane,
                 value *packed, value *minus) {
    int64_t taps[MOST_KC];
    find_taps(s, k0, kc, taps);
    for (int64_t j = 0; j < nc; j += NR) {
        Move moves[NR];
        const int64_t cols = least(NR, nc - j), width = (cols + LANES - 1) / LANES * LANES;
        const int n = find_moves(s, n0 + j, cols, moves), exact = in_place(s) && cols < width;
        value *panel = packed + j * kc;
        for (int64_t k = 0; k < kc; k++) {
            const value *from = image + taps[k];
            value *to = panel + k * width;
            if (exact)
                memcpy(to, from + moves[0].from, (size_t)cols * 4);
            else
                for (int m = 0; m < n; m++) *(vec_u *)(to + moves[m].to) = *(const vec_u *)(from + moves[m].from);
            for (int64_t i = cols; i < width; i++) to[i] = 0;
        }
        (void)plane, (void)minus;
#if PRECISION == 2
        for (int64_t i = 0; i < width; i += LANES) {
            vec sum = {0};
            for (int64_t k = 0; k < kc; k++) sum += ones(*(const vec_u *)(panel + k * width + i));
            *(vec_u *)(minus + j + i) = sum << plane;
        }
#endif
    }
}

/* A tile of MR x nv vectors of sums; `start` holds what the rows start from, null to add to what is there. */
static inline __attribute__((always_inline)) void tile(const int nv, int64_t kc, const value *w, const value *x,
                                                       const value *start, const value *minus, int plane, value *out,
                                                       int64_t pitch, int64_t rows, int64_t cols) {
    vec sum[MR][NV] = {0};
    for (int64_t k = 0; k < kc; k++, w += MR, x += nv * LANES) {
        vec pixels[NV];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) pixels[v] = *(const vec_u *)(x + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++) {
            const vec weight = w[r] - (vec){0};
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) sum[r][v] = MAC(sum[r][v], pixels[v], weight);
        }
    }
    (void)plane, (void)minus;
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            value *to = out + r * pitch + v * LANES, part[LANES];
            vec done = sum[r][v];
            const int64_t count = cols - v * LANES;
            if (r >= rows) continue;
#if PRECISION == 2 /* weights are +-1, bits hold 0 for -1: twice the ones that meet, less all ones */
            done = (done << (plane + 1)) - *(const vec_u *)(minus + v * LANES);
#endif
            if (count >= LANES) {
                const vec before = start ? start[r] - (vec){0} : (vec) * (const vec_u *)to;
                *(vec_u *)to = done + before;
                continue;
            }
            *(vec_u *)part = done;
            for (int64_t i = 0; i < count; i++) to[i] = part[i] + (start ? start[r] : to[i]);
        }
}

static void block(const Shape *s, int64_t kc, const value *w, const value *packed, const value *start,
                  const value *minus, int plane, value *out, int64_t rows, int64_t cols) {
    const int64_t depth = s->words * s->taps_h * s->taps_w, pitch = s->out_h * s->out_w;
    for (int64_t j = 0; j < cols; j += NR)
        for (int64_t i = 0; i < rows; i += MR) {
            const int64_t m = least(MR, rows - i), n = least(NR, cols - j);
            const value *a = w + i * depth, *x = packed + j * kc, *from = start ? start + i : 0;
            value *to = out + i * pitch + j;
            switch ((n + LANES - 1) / LANES) {
#if NV > 1
            case 1: tile(1, kc, a, x, from, minus + j, plane, to, pitch, m, n); break;
#endif
#if NV > 2
            case 2: tile(2, kc, a, x, from, minus + j, plane, to, pitch, m, n); break;
#endif
#if NV > 3
            case 3: tile(3, kc, a, x, from, minus + j, plane, to, pitch, m, n); break;
#endif
            default: tile(NV, kc, a, x, from, minus + j, plane, to, pitch, m, n);
            }
        }
}

/* w: [ceil(rows / MR)][words x taps][MR]; start: one value a row, a multiple of MR of them. */
void dense(const Shape *s, const number *x, const value *w, const value *start, value *scratch, value *out) {
    const int64_t depth = s->words * s->taps_h * s->taps_w, pixels = s->out_h * s->out_w;
    value *image = scratch, *row = image + image_words(s), *words = row + phase_w(s) * s->stride;
    value *minus = words + s->height * s->width;
    const int64_t step = (has_words(s) ? s->words * 4 / (int64_t)sizeof *x : s->channels) * s->height * s->width;
    value *packed = (value *)(((uintptr_t)(minus + s->nc) + BYTES - 1) / BYTES * BYTES);
    for (int64_t b = 0; b < s->batch; b++, x += step, out += s->rows * pixels)
        for (int plane = 0; plane < s->planes; plane++) {
            if (!in_place(s)) make_image(s, x, plane, image, row, words);
            for (int64_t n = 0; n < pixels; n += s->nc)
                for (int64_t k = 0; k < depth; k += s->kc) {
                    const int64_t nc = least(s->nc, pixels - n), kc = least(s->kc, depth - k);
                    const value *from = k == 0 && plane == 0 ? start : 0;
                    pack(s, in_place(s) ? (const value *)(const void *)x : image, k, kc, n, nc, plane, packed, minus);
                    for (int64_t m = 0; m < s->rows; m += s->mc)
                        block(s, kc, w + m * depth + k * MR, packed, from ? from + m : 0, minus, plane,
                              out + m * pixels + n, least(s->mc, s->rows - m), nc);
                }
        }
}
