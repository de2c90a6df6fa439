/* A convolution of 1- or 2-bit codes with weights of -1 and +1 as an operator of OpenVINO, over the tiles of tile.h.

   A code is q = the number of thresholds that x reaches, and stands for scale * (q - zero_point). With bit planes q_p,
   sum(q * w) = sum_p 2^p * (2 * popcount(q_p & w) - popcount(q_p)). Padding is the code of zero, so it adds nothing.
   The CPU plugin swallows exceptions and leaves garbage: everything here that can fail returns false instead. */
#include <algorithm>
#include <limits>
#include <vector>

#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/onnx/extension/op.hpp>
#include <openvino/op/op.hpp>

namespace {

using Sizes = std::vector<int64_t>;
constexpr int64_t LANES = 16;

struct Geometry {
    int64_t channels, height, width;   // of one input image
    int64_t out_height, out_width;
    const Sizes &kernel, &strides, &pads, &dilations;
    int64_t words() const { return (channels + 63) / 64; }
    int64_t row() const { return words() * kernel[0] * kernel[1]; }  // words that one result reads
    int64_t pixels() const { return out_height * out_width; }
    int64_t padded() const { return (pixels() + COLS - 1) / COLS * COLS; }
};

/* Vectors of the compiler, not of one processor: it splits them where the processor's are shorter. */
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Bits __attribute__((vector_size(64)));

/* Codes of 16 pixels in 32 channels: bit c of low and high is bit 0 and bit 1 of the code of channel c. */
template <int BITS>
inline void pack_block(const float *x, int64_t channels, int64_t size, const float *thresholds, Bits *low, Bits *high) {
    Bits first = {}, second = {};
    for (int64_t c = 0; c < channels; c++) {
        Floats v;
        memcpy(&v, x + c * size, sizeof v);
        const Bits bit = Bits{} + (int32_t)(1u << c);
        const Bits one = v >= thresholds[0];
        if (BITS == 1) {
            first |= one & bit;
        } else {
            const Bits two = v >= thresholds[1], three = v >= thresholds[2];
            first |= (one ^ two ^ three) & bit;
            second |= two & bit;
        }
    }
    *low = first;
    *high = second;
}

/* Half words of an image: half[(p * halves + h) * size + i] has bit p of the codes of channels 32 h to 32 h + 31. */
template <int BITS>
void pack(const float *x, int64_t channels, int64_t size, const float *thresholds, uint32_t *half) {
    const int64_t halves = (channels + 63) / 64 * 2;
    float rest[32 * LANES];
    for (int64_t h = 0; h < halves; h++) {
        const int64_t used = std::max<int64_t>(0, std::min<int64_t>(32, channels - 32 * h));
        for (int64_t i = 0; i < size; i += LANES) {
            const int64_t count = std::min<int64_t>(LANES, size - i);
            const float *from = x + 32 * h * size + i;
            if (count < LANES) {
                for (int64_t c = 0; c < used; c++) memcpy(rest + c * LANES, from + c * size, (size_t)count * 4);
                from = rest;
            }
            Bits low, high;
            pack_block<BITS>(from, used, count < LANES ? LANES : size, thresholds, &low, &high);
            memcpy(half + h * size + i, &low, (size_t)count * 4);
            if (BITS == 2) memcpy(half + (halves + h) * size + i, &high, (size_t)count * 4);
        }
    }
}

/* One plane as a matrix in blocks of COLS results: word r of result i is at matrix[(i / COLS * row + r) * COLS + i % COLS]. */
void gather(const uint32_t *half, const Geometry &g, bool one, std::vector<uint64_t> &line, uint64_t *matrix) {
    const int64_t size = g.height * g.width, row = g.row();
    line.assign((size_t)g.padded(), 0);
    int64_t r = 0;
    for (int64_t w = 0; w < g.words(); w++) {
        const int64_t used = g.channels - 64 * w;
        const uint64_t outside = !one ? 0 : used >= 64 ? ~0ULL : (1ULL << used) - 1;
        const uint32_t *first = half + 2 * w * size, *second = first + size;
        for (int64_t ky = 0; ky < g.kernel[0]; ky++)
            for (int64_t kx = 0; kx < g.kernel[1]; kx++, r++) {
                const int64_t left = kx * g.dilations[1] - g.pads[1], step = g.strides[1];
                /* results from..to of an output row read inside the image: 0 <= left + step * ox < width */
                const int64_t from = std::min(g.out_width, left < 0 ? (-left + step - 1) / step : 0);
                const int64_t to = std::max(from, std::min(g.out_width, left < g.width ? (g.width - 1 - left) / step + 1 : 0));
                for (int64_t oy = 0; oy < g.out_height; oy++) {
                    const int64_t y = oy * g.strides[0] + ky * g.dilations[0] - g.pads[0];
                    uint64_t *out = line.data() + oy * g.out_width;
                    const bool inside = y >= 0 && y < g.height;
                    const int64_t begin = inside ? from : g.out_width, end = inside ? to : g.out_width;
                    const int64_t at = y * g.width + left;
                    for (int64_t ox = 0; ox < begin; ox++) out[ox] = outside;
                    if (step == 1)
                        for (int64_t ox = begin; ox < end; ox++)
                            out[ox] = (uint64_t)second[at + ox] << 32 | first[at + ox];
                    else
                        for (int64_t ox = begin; ox < end; ox++)
                            out[ox] = (uint64_t)second[at + step * ox] << 32 | first[at + step * ox];
                    for (int64_t ox = end; ox < g.out_width; ox++) out[ox] = outside;
                }
                for (int64_t i = 0; i < g.padded(); i += COLS)
                    memcpy(matrix + (i / COLS * row + r) * COLS, line.data() + i, COLS * 8);
            }
    }
}

struct Layer {
    int bits;
    bool relu;
    int64_t zero_point, outputs;
    const uint64_t *weight;  // (outputs, row)
    const float *thresholds, *scale, *bias;
};

/* Memory that is kept between calls of one thread. */
struct Scratch {
    std::vector<uint32_t> half;
    std::vector<uint64_t> line, matrix;
    std::vector<int32_t> shift;
};

typedef uint64_t Sums __attribute__((vector_size(8 * COLS)));

/* The results of COLS pixels of one output channel; like `tile` in vectors, whatever the compiler would find. */
template <int BITS>
inline void finish(const uint64_t *sum, const uint64_t *upper, const int32_t *ones, int32_t shift, float scale,
                   float bias, float least, int64_t count, float *out) {
    Sums both;
    Bits below;
    memcpy(&both, sum, sizeof both);
    memcpy(&below, ones, sizeof below);
    if (BITS == 2) {
        Sums twice;
        memcpy(&twice, upper, sizeof twice);
        both += twice << 1;
    }
    const Bits dot = (__builtin_convertvector(both, Bits) << 1) - below - shift;
    const Floats value = __builtin_convertvector(dot, Floats) * scale + bias;
    const Floats floor = Floats{} + least;
    const Floats result = value < floor ? floor : value;
    if (count == COLS)
        memcpy(out, &result, sizeof result);
    else
        memcpy(out, &result, (size_t)count * 4);
}

template <int BITS>
void convolve(const float *x, const Layer &layer, const Geometry &g, Scratch &s, float *out) {
    const int64_t row = g.row(), pixels = g.pixels(), plane = row * g.padded(), size = g.height * g.width;
    const int64_t halves = 2 * g.words() * size;
    s.half.resize((size_t)(BITS * halves));
    s.matrix.resize((size_t)(BITS * plane));
    pack<BITS>(x, g.channels, size, layer.thresholds, s.half.data());
    for (int p = 0; p < BITS; p++)
        gather(s.half.data() + p * halves, g, layer.zero_point >> p & 1, s.line, s.matrix.data() + p * plane);
    const float least = layer.relu ? 0.0f : std::numeric_limits<float>::lowest();
    for (int64_t i = 0; i < pixels; i += COLS) {
        const uint64_t *block = s.matrix.data() + i * row;
        const int64_t count = std::min<int64_t>(COLS, pixels - i);
        int32_t ones[COLS] = {0};  // sum of the codes that each result reads
        for (int p = 0; p < BITS; p++)
            for (int64_t r = 0; r < row; r++)
                for (int c = 0; c < COLS; c++) ones[c] += __builtin_popcountll(block[p * plane + r * COLS + c]) << p;
        for (int64_t o = 0; o < layer.outputs; o += ROWS) {
            const int rows = layer.outputs - o < ROWS ? (int)(layer.outputs - o) : ROWS;
            uint64_t sum[ROWS][COLS], upper[ROWS][COLS];
            tile(layer.weight + o * row, block, row, rows, 0, sum);
            if (BITS == 2) tile(layer.weight + o * row, block + plane, row, rows, 0, upper);
            for (int k = 0; k < rows; k++)
                finish<BITS>(sum[k], upper[k], ones, s.shift[(size_t)(o + k)], layer.scale[o + k], layer.bias[o + k],
                             least, count, out + (o + k) * pixels + i);
        }
    }
}

/* zero_point times the sum of each output channel's weights. */
void find_shift(const Layer &layer, const Geometry &g, std::vector<int32_t> &shift) {
    shift.assign((size_t)layer.outputs, 0);
    if (layer.zero_point == 0) return;
    const int64_t taps = g.channels * g.kernel[0] * g.kernel[1], row = g.row();
    for (int64_t o = 0; o < layer.outputs; o++) {
        int64_t positive = 0;
        for (int64_t r = 0; r < row; r++) positive += __builtin_popcountll(layer.weight[o * row + r]);
        shift[(size_t)o] = (int32_t)(layer.zero_point * (2 * positive - taps));
    }
}

class BitConv : public ov::op::Op {
public:
    OPENVINO_OP("BitConv", "netfit");
    BitConv() = default;

    bool visit_attributes(ov::AttributeVisitor &visitor) override {
        visitor.on_attribute("kernel_shape", kernel_);
        visitor.on_attribute("strides", strides_);
        visitor.on_attribute("pads", pads_);
        visitor.on_attribute("dilations", dilations_);
        visitor.on_attribute("bits", bits_);
        visitor.on_attribute("zero_point", zero_point_);
        visitor.on_attribute("relu", relu_);
        return true;
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector &inputs) const override {
        auto copy = std::make_shared<BitConv>();
        copy->kernel_ = kernel_;
        copy->strides_ = strides_;
        copy->pads_ = pads_;
        copy->dilations_ = dilations_;
        copy->bits_ = bits_;
        copy->zero_point_ = zero_point_;
        copy->relu_ = relu_;
        copy->set_arguments(inputs);
        copy->constructor_validate_and_infer_types();
        return copy;
    }

    void validate_and_infer_types() override {
        const auto least = [](const Sizes &values, size_t count, int64_t bound) {
            return values.size() == count && *std::min_element(values.begin(), values.end()) >= bound;
        };
        /* A file is data: what it says must not become a division by zero or a read beyond a tensor. */
        NODE_VALIDATION_CHECK(this, get_input_size() == 5 && (bits_ == 1 || bits_ == 2), "5 inputs, 1 or 2 bits");
        NODE_VALIDATION_CHECK(this, zero_point_ >= 0 && zero_point_ < 1 << bits_, "zero_point is a code");
        NODE_VALIDATION_CHECK(this, least(kernel_, 2, 1) && least(strides_, 2, 1) && least(dilations_, 2, 1) &&
                                        least(pads_, 4, 0), "kernel, strides, dilations and pads of two dimensions");
        const auto &shape = get_input_partial_shape(0);
        const auto &scale = get_input_partial_shape(3);
        ov::PartialShape result = ov::PartialShape::dynamic(4);
        if (shape.rank().is_static() && scale.rank().is_static()) {
            NODE_VALIDATION_CHECK(this, shape.size() == 4 && scale.size() == 1, "an image batch, a scale per channel");
            if (shape[1].is_static() && scale.is_static()) {
                const int64_t words = (shape[1].get_length() + 63) / 64, outputs = scale[0].get_length();
                require_size(1, outputs * words * kernel_[0] * kernel_[1] * 8);
                require_size(2, (1 << bits_) - 1);
                require_size(4, outputs);
            }
            result = {shape[0], scale[0], length(shape[2], 0), length(shape[3], 1)};
        }
        set_output_type(0, ov::element::f32, result);
    }

    bool has_evaluate() const override { return true; }

    /* Sizes were checked when the shapes were: the plugin ignores what goes wrong here. */
    bool evaluate(ov::TensorVector &outputs, const ov::TensorVector &inputs) const override {
        try {
            const auto shape = inputs[0].get_shape();
            const auto made = outputs[0].get_shape();
            const Geometry g{(int64_t)shape[1], (int64_t)shape[2], (int64_t)shape[3], (int64_t)made[2], (int64_t)made[3],
                             kernel_, strides_, pads_, dilations_};
            const Layer layer{(int)bits_, relu_ != 0, zero_point_, (int64_t)inputs[3].get_size(),
                              reinterpret_cast<const uint64_t *>(inputs[1].data<uint8_t>()), inputs[2].data<float>(),
                              inputs[3].data<float>(), inputs[4].data<float>()};
            thread_local Scratch scratch;
            find_shift(layer, g, scratch.shift);
            const int64_t in = g.channels * g.height * g.width, out = layer.outputs * g.pixels();
            for (size_t n = 0; n < shape[0]; n++)
                (bits_ == 1 ? convolve<1> : convolve<2>)(inputs[0].data<float>() + n * in, layer, g, scratch,
                                                         outputs[0].data<float>() + n * out);
            return true;
        } catch (...) {
            return false;
        }
    }

private:
    void require_size(size_t input, int64_t size) const {
        const auto &shape = get_input_partial_shape(input);
        const bool fits = shape.is_static() && (int64_t)ov::shape_size(shape.get_shape()) == size;
        NODE_VALIDATION_CHECK(this, fits, "input ", input, " must have ", size, " values");
    }

    ov::Dimension length(const ov::Dimension &size, int axis) const {
        if (size.is_dynamic()) return ov::Dimension::dynamic();
        const int64_t reach = dilations_[axis] * (kernel_[axis] - 1) + 1;
        const int64_t room = size.get_length() + pads_[axis] + pads_[axis + 2] - reach;
        NODE_VALIDATION_CHECK(this, room >= 0, "the kernel is larger than the padded image");
        return room / strides_[axis] + 1;
    }

    Sizes kernel_, strides_, pads_, dilations_;
    int64_t bits_ = 1, zero_point_ = 0, relu_ = 0;
};

}  // namespace

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>(
    {std::make_shared<ov::OpExtension<BitConv>>(),
     std::make_shared<ov::frontend::onnx::OpExtension<BitConv>>("BitConv", "netfit")}));
