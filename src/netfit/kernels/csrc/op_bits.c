/* One bit-serial convolution with its sizes fixed, behind dense.c. BATCH, ROWS, CHANNELS, HEIGHT, WIDTH,
   TAPS_H, TAPS_W, STRIDE, PADDING and PLANES are the sizes; KC, MC and NC the blocks. */

#define PER 32
typedef int8_t weight_t;
typedef uint8_t input_t; /* codes of PLANES bits */
typedef int32_t output_t;
#define WORDS ((CHANNELS + PER - 1) / PER)
#define OUT_H ((HEIGHT + 2 * PADDING - TAPS_H) / STRIDE + 1)
#define OUT_W ((WIDTH + 2 * PADDING - TAPS_W) / STRIDE + 1)
#define DEPTH ((int64_t)WORDS * TAPS_H * TAPS_W)
#define FULL_ROWS ((ROWS + MR - 1) / MR * MR)
#define INPUTS ((int64_t)BATCH * CHANNELS * HEIGHT * WIDTH)
#define WEIGHTS ((int64_t)ROWS * CHANNELS * TAPS_H * TAPS_W)
#define OUTPUTS ((int64_t)BATCH * ROWS * OUT_H * OUT_W)

#ifdef READ_BLOCKS /* a tuner tries many with one build */
static int64_t blocks[3] = {KC, MC, NC};
#define BLOCKS blocks[0], blocks[1], blocks[2]
#else
#define BLOCKS KC, MC, NC
#endif
/* The compiler must not see the sizes: it would unroll every loop of the nest and never finish. */
static const Shape *op_shape(Shape *s) {
    *s = (Shape){BATCH, ROWS, CHANNELS, WORDS, HEIGHT, WIDTH, TAPS_H, TAPS_W, STRIDE, PADDING, 1, OUT_H, OUT_W, PLANES, 0,
                 BLOCKS};
    __asm__ volatile("" : "+r"(s) : : "memory");
    return s;
}

/* 32-bit words of packed weights, and of the memory a call needs. */
int64_t op_packed_words(void) { return FULL_ROWS * (DEPTH + 1); }
int64_t op_scratch_words(void) {
    Shape s;
    return dense_scratch_words(op_shape(&s));
}

static value packed_word(const weight_t *w, int64_t word, int64_t taps) {
    uint32_t bits = 0;
    for (int64_t c = 0; c < PER && word * PER + c < CHANNELS; c++) bits |= (uint32_t)(w[(word * PER + c) * taps] > 0) << c;
    return (value)bits;
}

/* w: (rows, channels, taps, taps), int8 of -1 and +1; bias: one a row, or null. */
void op_pack(const weight_t *w, const output_t *bias, void *packed) {
    const int64_t taps = TAPS_H * TAPS_W;
    value *words = packed, *start = words + FULL_ROWS * DEPTH;
    memset(packed, 0, (size_t)op_packed_words() * sizeof *words);
    for (int64_t r = 0; r < ROWS; r++) {
        const weight_t *row = w + r * CHANNELS * taps;
        start[r] = bias ? bias[r] : 0;
        for (int64_t word = 0; word < WORDS; word++)
            for (int64_t t = 0; t < taps; t++)
                words[(r / MR * DEPTH + word * taps + t) * MR + r % MR] = packed_word(row + t, word, taps);
    }
}

/* x: (batch, channels, height, width); out: (batch, rows, out_h, out_w), int32; scratch: aligned to 64 bytes. */
void op_run(const input_t *x, const void *packed, void *scratch, output_t *out) {
    Shape s;
    const value *words = packed;
    dense(op_shape(&s), x, words, words + FULL_ROWS * DEPTH, scratch, out);
}
/* TEST */
static input_t *op_x;
static weight_t *op_w;
static void *op_packed, *op_scratch;
static output_t *op_out;

static void op_setup(void) {
    op_x = reserve(INPUTS * (int64_t)sizeof *op_x), op_w = reserve(WEIGHTS * (int64_t)sizeof *op_w);
    op_packed = reserve(op_packed_words() * 4), op_scratch = reserve(op_scratch_words() * 4);
    op_out = reserve(OUTPUTS * (int64_t)sizeof *op_out);
    for (int64_t i = 0; i < INPUTS; i++) op_x[i] = (input_t)small(1 << PLANES);
    for (int64_t i = 0; i < WEIGHTS; i++) op_w[i] = (weight_t)(2 * small(2) - 1);
    op_pack(op_w, 0, op_packed);
}
static void op_once(void) { op_run(op_x, op_packed, op_scratch, op_out); }
static int64_t op_outputs(void) { return OUTPUTS; }
/* Relative error of one output against the sum as it is written; the inputs are small whole numbers, so it is exact. */
static double op_error(int64_t i) {
    const int64_t pixel = i % (OUT_H * OUT_W), row = i / (OUT_H * OUT_W) % ROWS, b = i / (OUT_H * OUT_W * ROWS);
    double sum = 0;
    for (int64_t c = 0; c < CHANNELS; c++)
        for (int64_t p = 0; p < TAPS_H * TAPS_W; p++) {
            const int64_t y = pixel / OUT_W * STRIDE + p / TAPS_W - PADDING, x = pixel % OUT_W * STRIDE + p % TAPS_W - PADDING;
            if (y < 0 || y >= HEIGHT || x < 0 || x >= WIDTH) continue;
            const input_t v = op_x[((b * CHANNELS + c) * HEIGHT + y) * WIDTH + x];
            sum += (double)v * op_w[(row * CHANNELS + c) * TAPS_H * TAPS_W + p];
        }
    const double error = (double)op_out[i] - sum;
    return (error < 0 ? -error : error) / (1 + (sum < 0 ? -sum : sum));
}
static double op_tolerance(void) { return 0; }
