// Convolution of float32 arrays in NCHW order by oneDNN, in layouts of its own, for the operations of convolution.py.
// Plans (primitives with their reorders) are made once for each geometry and kept.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <tuple>
#include <unordered_map>
#include <vector>
#include <dnnl.hpp>

namespace convolution {

using dnnl::memory;
using dnnl::primitive;
using Tag = memory::format_tag;
using Type = memory::data_type;
using Algorithm = dnnl::algorithm;

struct Geometry {
    long samples, inputs, height, width, outputs, kernel, stride, padding;
    bool low;       // bfloat16 inside; sums stay float32
    bool winograd;  // by the transform, where oneDNN has it; in float32

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

inline dnnl::engine& cpu() {
    static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    return engine;
}

inline dnnl::stream& stream() {
    static dnnl::stream stream(cpu());
    return stream;
}

// Memory that is kept from call to call and grows when it must.
class Scratch {
public:
    void* at_least(size_t bytes) {
        if (bytes > size) {
            const size_t wanted = (bytes + 4095) / 4096 * 4096;
            std::free(start);
            size = 0;
            start = ::aligned_alloc(4096, wanted);
            if (!start) throw std::bad_alloc();
            size = wanted;
        }
        return start;
    }

private:
    void* start = nullptr;
    size_t size = 0;
};

inline void to_bfloat16(const float* from, void* to, long count) {
    uint16_t* target = static_cast<uint16_t*>(to);
    const uint32_t* bits = reinterpret_cast<const uint32_t*>(from);
    #pragma omp parallel for
    for (long i = 0; i < count; i++) {  // to nearest, ties to even; what is not a number stays so
        const bool nan = (bits[i] & 0x7fffffff) > 0x7f800000;
        target[i] = nan ? 0x7fc0 : (bits[i] + 0x7fff + (bits[i] >> 16 & 1)) >> 16;
    }
}

inline memory::desc plain(const memory::dims& dims) {
    return memory::desc(dims, Type::f32, dims.size() == 1 ? Tag::a : Tag::abcd);
}

// An array of ours as a primitive wants it, or the other way.
class Exchange {
public:
    Exchange() = default;
    Exchange(const memory::dims& dims, const memory::desc& wanted, bool out = false) : ours(plain(dims)), theirs(wanted) {
        between = theirs;
        if (theirs.data_type() == Type::bf16 && theirs.data.format_kind == dnnl_blocked && !theirs.data.extra.flags) {
            between.data.data_type = dnnl_f32;  // oneDNN is slow at changing order and type in one go
        }
        if (ours != between) {
            reorder = out ? dnnl::reorder({cpu(), between, cpu(), ours}) : dnnl::reorder({cpu(), ours, cpu(), between});
        }
    }

    const memory::desc& desc() const { return theirs; }
    size_t bytes() const { return theirs.get_size(); }

    // Their form of `data`: `data` itself, or a copy in `scratch`.
    memory in(const float* data, Scratch& scratch) const {
        if (ours == theirs) return memory(theirs, cpu(), const_cast<float*>(data));
        void* target = scratch.at_least(bytes());
        write(data, target);
        return memory(theirs, cpu(), target);
    }

    void write(const float* data, void* target) const {
        static Scratch wide;
        const float* ordered = data;
        if (ours != between) {
            memory from(ours, cpu(), const_cast<float*>(data));
            memory to(between, cpu(), between == theirs ? target : wide.at_least(between.get_size()));
            dnnl::reorder(reorder).execute(stream(), from, to);
            stream().wait();
            ordered = static_cast<float*>(to.get_data_handle());
        }
        if (between != theirs) to_bfloat16(ordered, target, theirs.get_size() / 2);
        else if (ours == theirs) std::memcpy(target, data, bytes());
    }

    // Where a primitive may write; `out` brings it home.
    memory result(float* data, Scratch& scratch) const {
        return memory(theirs, cpu(), ours == theirs ? data : scratch.at_least(bytes()));
    }

    void out(const memory& result, float* data) const {
        if (ours == theirs) return;
        memory from = result, to(ours, cpu(), data);
        dnnl::reorder(reorder).execute(stream(), from, to);
        stream().wait();
    }

private:
    memory::desc ours, between, theirs;
    dnnl::reorder reorder;
};

// oneDNN's own scratch memory belongs to the thread that made a primitive: in another one there is none.
inline dnnl::primitive_attr with_our_scratch() {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return attributes;
}

inline void execute(const primitive& work, const memory::desc& scratch, std::unordered_map<int, memory> arguments) {
    static Scratch room;
    arguments.insert({DNNL_ARG_SCRATCHPAD, memory(scratch, cpu(), room.at_least(scratch.get_size()))});
    work.execute(stream(), arguments);
    stream().wait();
}

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
    Exchange x, weight, y;
    memory::desc scratch;
    dnnl::convolution_forward convolution;

    explicit ForwardPlan(const Geometry& g) {
        auto found = describe_forward(g, g.winograd, Type::f32);
        outputs = {g.outputs};
        x = Exchange(g.x(), found.src_desc());
        weight = Exchange(g.weight(), found.weights_desc());
        y = Exchange(g.y(), found.dst_desc(), true);
        scratch = found.scratchpad_desc();
        convolution = dnnl::convolution_forward(found);
    }

    void run(const float* from, const memory& factors, const float* bias, float* to) const {
        static Scratch scratch_x, scratch_y;
        memory source = x.in(from, scratch_x), result = y.result(to, scratch_y);
        memory shift(plain(outputs), cpu(), const_cast<float*>(bias));
        execute(
            convolution, scratch,
            {{DNNL_ARG_SRC, source}, {DNNL_ARG_WEIGHTS, factors}, {DNNL_ARG_BIAS, shift}, {DNNL_ARG_DST, result}});
        y.out(result, to);
    }
};

struct BackwardPlan {
    Exchange x_for_weight, y_for_weight, y_for_data, weight, dx, dweight;
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
        x_for_weight = Exchange(g.x(), to_weight.src_desc());
        y_for_weight = Exchange(g.y(), to_weight.diff_dst_desc());
        y_for_data = Exchange(g.y(), to_x.diff_dst_desc());
        same_y = to_weight.diff_dst_desc() == to_x.diff_dst_desc();
        weight = Exchange(g.weight(), to_x.weights_desc());
        dx = Exchange(g.x(), to_x.diff_src_desc(), true);
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

// The weights as the convolution takes them, in `room` bytes at `packed`.
inline void pack(const Geometry& g, const float* weight, float* packed, size_t room) {
    const Exchange& exchange = planned<ForwardPlan>(g.sample()).weight;
    if (exchange.bytes() > room) throw std::runtime_error("oneDNN wants more room for packed weights than is known");
    exchange.write(weight, packed);
}

// y += bias (by rows) + residual; either may be null.
inline void add(const Geometry& g, const float* bias, const float* residual, float* y) {
    const long area = g.area();
    #pragma omp parallel for
    for (long row = 0; row < g.samples * g.outputs; row++) {
        const float shift = bias ? bias[row] : 0;
        float* to = y + row * area;
        const float* from = residual + row * area;
        if (residual) for (long i = 0; i < area; i++) to[i] += from[i] + shift;
        else for (long i = 0; i < area; i++) to[i] += shift;
    }
}

// y = convolution + bias + residual; `bias` has no rows, one, or one for each sample; `residual` may be null.
// The weights are plain, or those of `pack`.
inline void forward(
    const Geometry& g, const float* x, const float* weight, bool packed, const float* bias, long rows,
    const float* residual, float* y) {
    static Scratch scratch;
    const std::vector<float> zeros(g.outputs);
    const ForwardPlan& plan = planned<ForwardPlan>(g);
    const memory factors =
        packed ? memory(plan.weight.desc(), cpu(), const_cast<float*>(weight)) : plan.weight.in(weight, scratch);
    plan.run(x, factors, rows == 1 ? bias : zeros.data(), y);
    if (rows > 1 || residual) add(g, rows > 1 ? bias : nullptr, residual, y);
}

// The same sample by sample: a sample's result does not depend on its batch.
inline void forward_each(
    const Geometry& g, const float* x, const float* weight, bool packed, const float* bias, long rows,
    const float* residual, float* y) {
    static Scratch scratch;
    const Geometry one = g.sample();
    const ForwardPlan& plan = planned<ForwardPlan>(one);
    const memory factors =
        packed ? memory(plan.weight.desc(), cpu(), const_cast<float*>(weight)) : plan.weight.in(weight, scratch);
    for (long n = 0; n < g.samples; n++) {
        const float* row = rows ? bias + n % rows * g.outputs : nullptr;
        forward(one, x + n * g.image(), static_cast<float*>(factors.get_data_handle()), true, row, row ? 1 : 0,
            residual ? residual + n * g.map() : nullptr, y + n * g.map());
    }
}

// The gradients of `forward`; `dx` may be null.
inline void backward(
    const Geometry& g, const float* x, const float* weight, const float* dy, float* dx, float* dweight, float* dbias) {
    static Scratch scratch_x, scratch_y, scratch_result, scratch_weight;
    const BackwardPlan& plan = planned<BackwardPlan>(g);
    {
        memory source = plan.x_for_weight.in(x, scratch_x), pull = plan.y_for_weight.in(dy, scratch_y);
        memory result = plan.dweight.result(dweight, scratch_weight);
        execute(
            plan.weights, plan.weights_scratch,
            {{DNNL_ARG_SRC, source}, {DNNL_ARG_DIFF_DST, pull}, {DNNL_ARG_DIFF_WEIGHTS, result}});
        plan.dweight.out(result, dweight);
        if (dx) {
            if (!plan.same_y) pull = plan.y_for_data.in(dy, scratch_y);
            memory factors = plan.weight.in(weight, scratch_weight), target = plan.dx.result(dx, scratch_result);
            execute(
                plan.data, plan.data_scratch,
                {{DNNL_ARG_DIFF_DST, pull}, {DNNL_ARG_WEIGHTS, factors}, {DNNL_ARG_DIFF_SRC, target}});
            plan.dx.out(target, dx);
        }
    }
    const long area = g.area();
    #pragma omp parallel for
    for (long row = 0; row < g.samples * g.outputs; row++) {
        double sum = 0;  // these may cancel, and there are many
        for (long i = row * area; i < (row + 1) * area; i++) sum += dy[i];
        dbias[row] = sum;
    }
}

}  // namespace convolution
