/* A convolution as everybody writes it down first: the baseline that tuned kernels are compared with. INPUT, SUM and
   MAC(sum, x, w) come from outside: floats, bytes, or words of bits. */
#include <stdint.h>

/* x (batch, channels, height, width), w (rows, channels, taps, taps), out (batch, rows, out_h, out_w). */
void naive(int64_t batch, int64_t rows, int64_t channels, int64_t height, int64_t width, int64_t taps_h,
           int64_t taps_w, int64_t stride, int64_t padding, int64_t dilation, int64_t out_h, int64_t out_w,
           const INPUT *x, const INPUT *w, SUM *out) {
    for (int64_t b = 0; b < batch; b++, x += channels * height * width)
        for (int64_t m = 0; m < rows; m++)
            for (int64_t i = 0; i < out_h; i++)
                for (int64_t j = 0; j < out_w; j++) {
                    SUM sum = 0;
                    for (int64_t c = 0; c < channels; c++)
                        for (int64_t r = 0; r < taps_h; r++)
                            for (int64_t q = 0; q < taps_w; q++) {
                                const int64_t y = i * stride + r * dilation - padding;
                                const int64_t z = j * stride + q * dilation - padding;
                                if (y < 0 || y >= height || z < 0 || z >= width) continue;
                                sum = MAC(sum, x[(c * height + y) * width + z],
                                          w[((m * channels + c) * taps_h + r) * taps_w + q]);
                            }
                    *out++ = sum;
                }
}
