/* Dense layer or convolution on Gaussians: means and second moments of inputs and weights go in, those of the result
   come out. mean += xm wm; variance += xs ws - (xm wm)^2, both sums in one pass. Edges between layers carry second
   moments. BATCH, ROWS, CHANNELS, HEIGHT, WIDTH, TAPS_H, TAPS_W, STRIDE, PADDING, RELU; tile MR x NV vectors. Pixels are lanes; without pixels (a dense layer) the rows are. */

#define OUT_H ((HEIGHT + 2 * PADDING - TAPS_H) / STRIDE + 1)
#define OUT_W ((WIDTH + 2 * PADDING - TAPS_W) / STRIDE + 1)
#define DEPTH ((int64_t)CHANNELS * TAPS_H * TAPS_W)
#define INPUTS ((int64_t)BATCH * CHANNELS * HEIGHT * WIDTH)
#define WEIGHTS ((int64_t)ROWS * DEPTH)
#define OUTPUTS ((int64_t)BATCH * ROWS * OUT_H * OUT_W)
#define IS_DENSE (HEIGHT * WIDTH == 1)
#define PIXELS (IS_DENSE ? BATCH : OUT_H * OUT_W)
#define NR (NV * LANES)
/* Broadcast operand a and vector operand b: weights by pixels, or for a dense layer images by weights. */
#define A_COUNT (IS_DENSE ? BATCH : ROWS)
#define B_COUNT (IS_DENSE ? ROWS : PIXELS)
#define UP(x, n) (((x) + (n) - 1) / (n) * (n))
typedef float input_t;
typedef float output_t;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t op_packed_words(void) { return 2 * DEPTH * (IS_DENSE ? UP(ROWS, NR) : UP(ROWS, MR)) + 2 * ROWS; }
int64_t op_scratch_words(void) { return 2 * DEPTH * (IS_DENSE ? UP(BATCH, MR) : NR) + LANES; }

/* Panels of `width`, each [depth][mean, second][width], zeros behind the end. */
static void panels(const float *mean, const float *second, int64_t rows, int64_t width, float *to) {
    for (int64_t i = 0; i < UP(rows, width); i++)
        for (int64_t k = 0; k < DEPTH; k++) {
            float *at = to + (i / width * DEPTH + k) * 2 * width + i % width;
            at[0] = i < rows ? mean[i * DEPTH + k] : 0;
            at[width] = i < rows ? second[i * DEPTH + k] : 0;
        }
}

/* w: (rows, channels, taps, taps) means, then second moments; bias: rows means, then variances, or null. */
void op_pack(const float *w, const float *bias, void *packed) {
    float *to = packed, *last = to + op_packed_words() - 2 * ROWS;
    panels(w, w + WEIGHTS, ROWS, IS_DENSE ? NR : MR, to);
    for (int64_t i = 0; i < 2 * ROWS; i++) last[i] = bias ? bias[i] : 0;
}

#if !IS_DENSE
/* NR pixels of all sums: what one panel of b holds. */
static void gather(const float *x, int64_t first, float *to) {
    for (int64_t k = 0; k < DEPTH; k++) {
        const int64_t c = k / (TAPS_H * TAPS_W), dy = k / TAPS_W % TAPS_H - PADDING, dx = k % TAPS_W - PADDING;
        float *at = to + k * 2 * NR;
        for (int64_t j = 0, p = first; j < NR; j++, p++) {
            const int64_t y = p / OUT_W * STRIDE + dy, at_x = p % OUT_W * STRIDE + dx;
            const int inside = p < PIXELS && y >= 0 && y < HEIGHT && at_x >= 0 && at_x < WIDTH;
            const int64_t from = (c * HEIGHT + y) * WIDTH + at_x;
            at[j] = inside ? x[from] : 0;
            at[NR + j] = inside ? x[INPUTS + from] : 0;
        }
    }
}
#endif

typedef struct {
    vfloat mean[MR][NV], variance[MR][NV];
} Sums;

static inline void product(int64_t count, const float *a, const float *b, Sums *sums) {
    vfloat mean[MR][NV], variance[MR][NV];
    memcpy(mean, sums->mean, sizeof mean), memcpy(variance, sums->variance, sizeof variance);
    for (int64_t k = 0; k < count; k++, a += 2 * MR, b += 2 * NR) {
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++) {
                const vfloat p = *(const vfloat_u *)(b + v * LANES) * a[r];
                mean[r][v] += p;
                variance[r][v] += *(const vfloat_u *)(b + NR + v * LANES) * a[MR + r];
                variance[r][v] -= p * p;
            }
    }
    memcpy(sums->mean, mean, sizeof mean), memcpy(sums->variance, variance, sizeof variance);
}

/* Bias, rectifier, and the place of every result; i and j: of the tile among the broadcast and the vector operand. */
static void finish(const Sums *sums, const float *bias, int64_t i, int64_t j, float *out) {
    for (int64_t r = 0; r < least(MR, A_COUNT - i); r++)
        for (int64_t v = 0; v < NV; v++) {
            const int64_t count = least(LANES, B_COUNT - j - v * LANES);
            if (count <= 0) break;
            vfloat mean = sums->mean[r][v], variance = larger(sums->variance[r][v], splat(0));
            if (IS_DENSE) {
                vfloat extra[2] = {{0}};
                memcpy(&extra[0], bias + j + v * LANES, (size_t)count * 4);
                memcpy(&extra[1], bias + ROWS + j + v * LANES, (size_t)count * 4);
                mean += extra[0], variance += extra[1];
            } else {
                mean += bias[i + r], variance += bias[ROWS + i + r];
            }
            vfloat second = variance + mean * mean;
            if (RELU) rectified(&mean, &second);
            const int64_t at = (i + r) * B_COUNT + j + v * LANES;
            memcpy(out + at, &mean, (size_t)count * 4);
            memcpy(out + OUTPUTS + at, &second, (size_t)count * 4);
        }
}

static void multiply(const float *a, const float *b, int64_t j, const float *bias, float *out) {
    for (int64_t i = 0; i < A_COUNT; i += MR) {
        Sums sums;
        memset(&sums, 0, sizeof sums);
        product(DEPTH, a + i * 2 * DEPTH, b, &sums);
        finish(&sums, bias, i, j, out);
    }
}

/* x: (batch, channels, height, width) means, then second moments; out: (batch, rows, out_h, out_w), the same. */
void op_run(const float *x, const void *packed, void *scratch, float *out) {
    const float *w = packed, *bias = w + op_packed_words() - 2 * ROWS;
#if IS_DENSE
    panels(x, x + INPUTS, BATCH, MR, scratch);
    for (int64_t j = 0; j < ROWS; j += NR) multiply(scratch, w + j * 2 * DEPTH, j, bias, out);
#else
    for (int64_t b = 0; b < BATCH; b++, x += (int64_t)CHANNELS * HEIGHT * WIDTH, out += (int64_t)ROWS * PIXELS)
        for (int64_t j = 0; j < PIXELS; j += NR) {
            gather(x, j, scratch);
            multiply(w, scratch, j, bias, out);
        }
#endif
}
/* TEST */
static float *op_x, *op_w, *op_out;
static void *op_packed, *op_scratch;

static void op_setup(void) {
    op_x = reserve(2 * INPUTS * 4), op_w = reserve(2 * WEIGHTS * 4), op_out = reserve(2 * OUTPUTS * 4);
    op_packed = reserve(op_packed_words() * 4), op_scratch = reserve(op_scratch_words() * 4);
    for (int64_t i = 0; i < INPUTS; i++) {
        op_x[i] = (float)(small(256) - 128) / 128;
        op_x[INPUTS + i] = op_x[i] * op_x[i] + (float)small(256) / 1024;
    }
    for (int64_t i = 0; i < WEIGHTS; i++) {
        op_w[i] = (float)(small(256) - 128) / 512;
        op_w[WEIGHTS + i] = op_w[i] * op_w[i] + (float)small(256) / 65536;
    }
    op_pack(op_w, 0, op_packed);
}
static void op_once(void) { op_run(op_x, op_packed, op_scratch, op_out); }
static int64_t op_outputs(void) { return OUTPUTS; }
static double op_error(int64_t i) {
    const int64_t pixel = i % (OUT_H * OUT_W), row = i / (OUT_H * OUT_W) % ROWS, b = i / (OUT_H * OUT_W * ROWS);
    double mean = 0, variance = 0;
    for (int64_t k = 0; k < DEPTH; k++) {
        const int64_t y = pixel / OUT_W * STRIDE + k / TAPS_W % TAPS_H - PADDING;
        const int64_t x = pixel % OUT_W * STRIDE + k % TAPS_W - PADDING;
        if (y < 0 || y >= HEIGHT || x < 0 || x >= WIDTH) continue;
        const int64_t at = ((b * CHANNELS + k / (TAPS_H * TAPS_W)) * HEIGHT + y) * WIDTH + x;
        const double p = (double)op_x[at] * op_w[row * DEPTH + k];
        mean += p, variance += (double)op_x[INPUTS + at] * op_w[WEIGHTS + row * DEPTH + k] - p * p;
    }
    double second = variance + mean * mean;
    const double scale = 1e-3 + sqrt(second); /* of what goes into the rectifier: far below zero it cancels */
    if (RELU) {
        const double deviation = sqrt(variance > 1e-12 ? variance : 1e-12), z = mean / deviation;
        const double share = 0.5 * erfc(-z * sqrt(0.5)), peak = deviation * exp(-0.5 * z * z) * 0.3989422804014327;
        second = second * share + mean * peak, mean = mean * share + peak;
    }
    const double off = fabs(op_out[i] - mean) / scale, off_second = fabs(op_out[OUTPUTS + i] - second) / (scale * scale);
    return off > off_second ? off : off_second;
}
static double op_tolerance(void) { return 1e-4; }
