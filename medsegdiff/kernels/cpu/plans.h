// Plans: oneDNN's primitives for a geometry, with the reorders around them, made once and kept.
#include <map>
#include <memory>
#include <tuple>
#include <dnnl.hpp>

namespace convolution {

using Algorithm = dnnl::algorithm;

struct Geometry {
    long samples, inputs, height, width, outputs, kernel, stride, padding;
    bool low;       // bfloat16 inside; sums stay float32
    bool winograd;  // by the transform: oneDNN's, which has it in float32, or ours
    bool own;       // by our own kernels, where the compiler has AMX or, for the transform, AVX-512

    long out_height() const { return (height + 2 * padding - kernel) / stride + 1; }
    long out_width() const { return (width + 2 * padding - kernel) / stride + 1; }
    long area() const { return out_height() * out_width(); }
    long image() const { return inputs * height * width; }  // numbers in a sample
    long map() const { return outputs * area(); }
    memory::dims x() const { return {samples, inputs, height, width}; }
    memory::dims weight() const { return {outputs, inputs, kernel, kernel}; }
    memory::dims y() const { return {samples, outputs, out_height(), out_width()}; }
    memory::dims strides() const { return {stride, stride}; }
    memory::dims paddings() const { return {padding, padding}; }
    bool operator<(const Geometry& o) const {
        return std::tie(samples, inputs, height, width, outputs, kernel, stride, padding, low, winograd)
            < std::tie(o.samples, o.inputs, o.height, o.width, o.outputs, o.kernel, o.stride, o.padding, o.low, o.winograd);
    }
    Geometry sample() const {
        Geometry one = *this;
        one.samples = 1;
        return one;
    }
};

struct Descriptions {
    memory::desc x, weight, bias, y;

    Descriptions(const Geometry& g, bool low) {
        const Type type = low ? Type::bf16 : Type::f32;
        x = memory::desc(g.x(), type, Tag::any);
        weight = memory::desc(g.weight(), type, Tag::any);
        bias = memory::desc({g.outputs}, Type::f32, Tag::a);
        y = memory::desc(g.y(), type, Tag::any);
    }
};

// What oneDNN offers for a geometry; `y` is the type of the result.
inline dnnl::convolution_forward::primitive_desc describe_forward(const Geometry& g, bool winograd, Type y) {
    const Algorithm algorithm = winograd ? Algorithm::convolution_winograd : Algorithm::convolution_direct;
    Descriptions d(g, g.low);
    d.y = memory::desc(g.y(), y, Tag::any);
    const auto kind = dnnl::prop_kind::forward_training;
    try {
        return {
            {kind, algorithm, d.x, d.weight, d.bias, d.y, g.strides(), g.paddings(), g.paddings()},
            with_our_scratch(),
            cpu()};
    } catch (const dnnl::error&) {
        if (!winograd) throw;
        return describe_forward(g, false, y);  // this machine or this shape has none
    }
}

struct ForwardPlan {
    memory::dims outputs;
    Maps x, y;
    Exchange weight;
    memory::desc scratch;
    dnnl::convolution_forward convolution;

    explicit ForwardPlan(const Geometry& g) {
        auto found = describe_forward(g, g.winograd, Type::f32);
        outputs = {g.outputs};
        x = Maps(g.x(), found.src_desc());
        weight = Exchange(g.weight(), found.weights_desc());
        y = Maps(g.y(), found.dst_desc());
        scratch = found.scratchpad_desc();
        convolution = dnnl::convolution_forward(found);
    }

    // `bias`, if not null, has a row, or one for each sample.
    void run(
        const float* from, const Norm& norm, const memory& factors, const float* bias, bool rows, const float* residual,
        float* to) const {
        static Scratch scratch_x, scratch_y;
        const std::vector<float> zeros(outputs[0]);
        memory source = x.in(from, norm, scratch_x), result = y.result(to, scratch_y);
        memory shift(plain(outputs), cpu(), const_cast<float*>(bias && !rows ? bias : zeros.data()));
        execute(
            convolution, scratch,
            {{DNNL_ARG_SRC, source}, {DNNL_ARG_WEIGHTS, factors}, {DNNL_ARG_BIAS, shift}, {DNNL_ARG_DST, result}});
        y.out(result, rows ? bias : nullptr, residual, to);
    }
};

struct BackwardPlan {
    Maps x_for_weight, y_for_weight, y_for_data, dx;
    Exchange weight, dweight;
    bool same_y;
    memory::desc data_scratch, weights_scratch;
    dnnl::convolution_backward_data data;
    dnnl::convolution_backward_weights weights;

    explicit BackwardPlan(const Geometry& g) {
        try {
            make(g, g.winograd);
        } catch (const dnnl::error&) {
            if (!g.winograd) throw;
            make(g, false);
        }
    }

private:
    void make(const Geometry& g, bool winograd) {
        const Type low = g.low ? Type::bf16 : Type::f32;
        const auto hint = describe_forward(g, winograd, low);
        const Algorithm algorithm = winograd ? Algorithm::convolution_winograd : Algorithm::convolution_direct;
        const Descriptions d(g, g.low);
        const memory::desc wide_x(g.x(), Type::f32, Tag::any), wide_weight(g.weight(), Type::f32, Tag::any);
        dnnl::convolution_backward_data::primitive_desc to_x(
            {algorithm, wide_x, d.weight, d.y, g.strides(), g.paddings(), g.paddings()}, with_our_scratch(), cpu(),
            hint);
        dnnl::convolution_backward_weights::primitive_desc to_weight(
            {algorithm, d.x, wide_weight, d.y, g.strides(), g.paddings(), g.paddings()}, with_our_scratch(), cpu(), hint);
        x_for_weight = Maps(g.x(), to_weight.src_desc());
        y_for_weight = Maps(g.y(), to_weight.diff_dst_desc());
        y_for_data = Maps(g.y(), to_x.diff_dst_desc());
        same_y = to_weight.diff_dst_desc() == to_x.diff_dst_desc();
        weight = Exchange(g.weight(), to_x.weights_desc());
        dx = Maps(g.x(), to_x.diff_src_desc());
        dweight = Exchange(g.weight(), to_weight.diff_weights_desc(), true);
        data_scratch = to_x.scratchpad_desc();
        weights_scratch = to_weight.scratchpad_desc();
        data = dnnl::convolution_backward_data(to_x);
        weights = dnnl::convolution_backward_weights(to_weight);
    }
};

template <class Plan>
const Plan& planned(const Geometry& g) {
    static std::map<Geometry, std::unique_ptr<Plan>> plans;
    auto& plan = plans[g];
    if (!plan) plan.reset(new Plan(g));
    return *plan;
}

}  // namespace convolution
