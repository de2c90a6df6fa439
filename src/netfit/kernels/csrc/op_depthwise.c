/* One depthwise convolution, channels last: every channel is a lane. Tiles of TILE_W outputs share weights in
   registers. BATCH, CHANNELS, HEIGHT, WIDTH, TAPS_H, TAPS_W, STRIDE, PADDING; PRECISION 0: fp32, 1: int8 to int32. */

#if PRECISION == 0
typedef float input_t;
typedef float output_t;
typedef vfloat vec;
#else
typedef int8_t input_t;
typedef int32_t output_t;
typedef vint vec;
#endif
#define OUT_H ((HEIGHT + 2 * PADDING - TAPS_H) / STRIDE + 1)
#define OUT_W ((WIDTH + 2 * PADDING - TAPS_W) / STRIDE + 1)
#define INPUTS ((int64_t)BATCH * CHANNELS * HEIGHT * WIDTH)
#define WEIGHTS ((int64_t)CHANNELS * TAPS_H * TAPS_W)
#define OUTPUTS ((int64_t)BATCH * CHANNELS * OUT_H * OUT_W)

int64_t op_packed_words(void) { return WEIGHTS; }
int64_t op_scratch_words(void) { return 1; }

/* w: (channels, taps, taps) becomes (taps, taps, channels). */
void op_pack(const input_t *w, const output_t *bias, void *packed) {
    output_t *to = packed;
    (void)bias;
    for (int64_t c = 0; c < CHANNELS; c++)
        for (int64_t t = 0; t < TAPS_H * TAPS_W; t++) to[t * CHANNELS + c] = w[c * TAPS_H * TAPS_W + t];
}

static inline vec lanes(const input_t *x, int64_t n) {
    output_t wide[LANES] = {0};
    vec out;
    if (n >= LANES)
        for (int i = 0; i < LANES; i++) wide[i] = x[i];
    else
        for (int64_t i = 0; i < n; i++) wide[i] = x[i];
    memcpy(&out, wide, sizeof out);
    return out;
}

static void tile_at(const input_t *image, const output_t *w, int64_t oy, int64_t ox, int64_t c, output_t *out) {
    const int64_t count = OUT_W - ox < TILE_W ? OUT_W - ox : TILE_W, n = CHANNELS - c < LANES ? CHANNELS - c : LANES;
    vec sum[TILE_W] = {{0}};
    for (int64_t r = 0; r < TAPS_H; r++) {
        const int64_t y = oy * STRIDE + r - PADDING;
        if (y < 0 || y >= HEIGHT) continue;
        for (int64_t s = 0; s < TAPS_W; s++) {
            vec weight = {0};
            memcpy(&weight, w + (r * TAPS_W + s) * CHANNELS + c, (size_t)n * 4);
            for (int64_t j = 0; j < count; j++) {
                const int64_t x = (ox + j) * STRIDE + s - PADDING;
                if (x >= 0 && x < WIDTH) sum[j] += weight * lanes(image + (y * WIDTH + x) * CHANNELS + c, n);
            }
        }
    }
    for (int64_t j = 0; j < count; j++) memcpy(out + (oy * OUT_W + ox + j) * CHANNELS + c, &sum[j], (size_t)n * 4);
}

/* x: (batch, height, width, channels); out: (batch, out_h, out_w, channels). */
void op_run(const input_t *x, const void *packed, void *scratch, output_t *out) {
    (void)scratch;
    for (int64_t b = 0; b < BATCH; b++, x += (int64_t)HEIGHT * WIDTH * CHANNELS, out += (int64_t)OUT_H * OUT_W * CHANNELS)
        for (int64_t y = 0; y < OUT_H; y++)
            for (int64_t ox = 0; ox < OUT_W; ox += TILE_W)
                for (int64_t c = 0; c < CHANNELS; c += LANES) tile_at(x, packed, y, ox, c, out);
}
/* TEST */
static input_t *op_x, *op_w;
static void *op_packed;
static output_t *op_out;

static void op_setup(void) {
    op_x = reserve(INPUTS * (int64_t)sizeof *op_x), op_w = reserve(WEIGHTS * (int64_t)sizeof *op_w);
    op_packed = reserve(op_packed_words() * 4), op_out = reserve(OUTPUTS * (int64_t)sizeof *op_out);
    for (int64_t i = 0; i < INPUTS; i++) op_x[i] = (input_t)(small(16) - 8);
    for (int64_t i = 0; i < WEIGHTS; i++) op_w[i] = (input_t)(small(16) - 8);
    op_pack(op_w, 0, op_packed);
}
static void op_once(void) { op_run(op_x, op_packed, 0, op_out); }
static int64_t op_outputs(void) { return OUTPUTS; }
static double op_error(int64_t i) {
    const int64_t c = i % CHANNELS, ox = i / CHANNELS % OUT_W, oy = i / CHANNELS / OUT_W % OUT_H;
    const input_t *image = op_x + i / CHANNELS / OUT_W / OUT_H * ((int64_t)HEIGHT * WIDTH * CHANNELS);
    double sum = 0;
    for (int64_t t = 0; t < TAPS_H * TAPS_W; t++) {
        const int64_t y = oy * STRIDE + t / TAPS_W - PADDING, x = ox * STRIDE + t % TAPS_W - PADDING;
        if (y >= 0 && y < HEIGHT && x >= 0 && x < WIDTH)
            sum += (double)image[(y * WIDTH + x) * CHANNELS + c] * op_w[c * TAPS_H * TAPS_W + t];
    }
    const double error = (double)op_out[i] - sum;
    return (error < 0 ? -error : error) / (1 + (sum < 0 ? -sum : sum));
}
static double op_tolerance(void) { return 0; }
