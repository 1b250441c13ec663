// Convolution of float32 arrays in NCHW order by oneDNN, in layouts of its own, for the operations of convolution.py.
#include <stdexcept>
#include <vector>

namespace convolution {

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
