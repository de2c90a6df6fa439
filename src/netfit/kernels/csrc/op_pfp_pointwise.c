/* Rectifier (POOL 0) or maximum over POOL x POOL pixels of Gaussians. BATCH, CHANNELS, HEIGHT, WIDTH, POOL, STRIDE.
   Pixels of a row of the result are lanes. */

#if POOL
#define OUT_H ((HEIGHT - POOL) / STRIDE + 1)
#define OUT_W ((WIDTH - POOL) / STRIDE + 1)
#else
#define OUT_H HEIGHT
#define OUT_W WIDTH
#endif
#define INPUTS ((int64_t)BATCH * CHANNELS * HEIGHT * WIDTH)
#define OUTPUTS ((int64_t)BATCH * CHANNELS * OUT_H * OUT_W)
typedef float input_t;
typedef float output_t;

int64_t op_packed_words(void) { return 1; }
int64_t op_scratch_words(void) { return 1; }
void op_pack(const float *w, const float *bias, void *packed) { (void)w, (void)bias, (void)packed; }

#if POOL
static vfloat every(const float *x, int64_t count) {
    vfloat out = {0};
    for (int64_t i = 0; i < count; i++) out[i] = x[i * STRIDE];
    return out;
}

static void pooled(const float *x, int64_t count, float *out) {
    vfloat mean = every(x, count), second = every(x + INPUTS, count);
    for (int t = 1; t < POOL * POOL; t++) {
        const float *at = x + t / POOL * WIDTH + t % POOL;
        greatest(&mean, &second, every(at, count), every(at + INPUTS, count));
    }
    memcpy(out, &mean, (size_t)count * 4), memcpy(out + OUTPUTS, &second, (size_t)count * 4);
}
#endif

/* x: (batch, channels, height, width) means, then second moments; out: the same. */
void op_run(const float *x, const void *packed, void *scratch, float *out) {
    (void)packed, (void)scratch;
#if POOL
    for (int64_t p = 0; p < (int64_t)BATCH * CHANNELS; p++)
        for (int64_t y = 0; y < OUT_H; y++)
            for (int64_t i = 0; i < OUT_W; i += LANES)
                pooled(x + (p * HEIGHT + y * STRIDE) * WIDTH + i * STRIDE, OUT_W - i < LANES ? OUT_W - i : LANES,
                       out + (p * OUT_H + y) * OUT_W + i);
#else
    for (int64_t i = 0; i < INPUTS; i += LANES) {
        const size_t bytes = (size_t)(INPUTS - i < LANES ? INPUTS - i : LANES) * 4;
        vfloat mean = {0}, second = {0};
        memcpy(&mean, x + i, bytes), memcpy(&second, x + INPUTS + i, bytes);
        rectified(&mean, &second);
        memcpy(out + i, &mean, bytes), memcpy(out + OUTPUTS + i, &second, bytes);
    }
#endif
}
/* TEST */
static float *op_x, *op_out;
static void op_setup(void) {
    op_x = reserve(2 * INPUTS * 4), op_out = reserve(2 * OUTPUTS * 4);
    for (int64_t i = 0; i < INPUTS; i++) {
        op_x[i] = (float)(small(256) - 128) / 64;
        op_x[INPUTS + i] = op_x[i] * op_x[i] + 0.01f + (float)small(256) / 256;
    }
}
static void op_once(void) { op_run(op_x, 0, 0, op_out); }
static int64_t op_outputs(void) { return OUTPUTS; }
static double share_of(double z) { return 0.5 * erfc(-z * sqrt(0.5)); }
static double bell_of(double z) { return exp(-0.5 * z * z) * 0.3989422804014327; }
static double op_error(int64_t i) {
#if POOL
    const int64_t from = (i / OUT_W / OUT_H * HEIGHT + i / OUT_W % OUT_H * STRIDE) * WIDTH + i % OUT_W * STRIDE;
    double mean = op_x[from], second = op_x[INPUTS + from];
    for (int t = 1; t < POOL * POOL; t++) {
        const int64_t at = from + t / POOL * WIDTH + t % POOL;
        const double m = op_x[at], s = op_x[INPUTS + at];
        const double a = second - mean * mean, b = s - m * m, width = sqrt((a > 1e-4 ? a : 1e-4) + (b > 1e-4 ? b : 1e-4));
        const double share = share_of((mean - m) / width), bell = bell_of((mean - m) / width);
        second = second * share + s * (1 - share) + (mean + m) * width * bell;
        mean = mean * share + m * (1 - share) + width * bell;
    }
#else
    const double m = op_x[i], deviation = sqrt(op_x[INPUTS + i] - m * m), share = share_of(m / deviation);
    const double mean = m * share + deviation * bell_of(m / deviation);
    const double second = op_x[INPUTS + i] * share + m * deviation * bell_of(m / deviation);
#endif
    const double off = fabs(op_out[i] - mean) / (0.1 + fabs(mean)), other = fabs(op_out[OUTPUTS + i] - second) / (0.1 + second);
    return off > other ? off : other;
}
static double op_tolerance(void) { return 1e-4; }
