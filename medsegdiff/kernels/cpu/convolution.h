// Convolution of float32 arrays in NCHW order for the operations of convolution.py: by oneDNN, in layouts of its own, or by
// amx.h or winograd.h.

namespace convolution {

// Bytes that `pack` fills.
inline size_t packed_bytes(const Geometry& g) {
#if WITH_AMX
    if (g.own && !g.winograd) return amx::Layout(g, false).weight_bytes() + amx::LINE;
#endif
#if WITH_WINOGRAD
    if (winograd::takes(g)) return winograd::Layout<winograd::Low>(g, false).weight_bytes();
#endif
    return planned<ForwardPlan>(g.sample()).weight.bytes();
}

// The weights as the convolution takes them.
inline void pack(const Geometry& g, const float* weight, float* packed) {
#if WITH_AMX
    if (g.own && !g.winograd) return amx::pack(amx::Layout(g, false), false, weight, amx::aligned(packed));
#endif
#if WITH_WINOGRAD
    if (winograd::takes(g)) {
        const winograd::Layout<winograd::Low> l(g, false);
        #pragma omp parallel
        winograd::pack(l, false, weight, packed);
        return;
    }
#endif
    planned<ForwardPlan>(g.sample()).weight.write(weight, packed);
}

// y = convolution + bias + residual; `bias` has no rows, one, or one for each sample; `residual` may be null.
// The weights are plain, or those of `pack`. With `each`, sample by sample: a sample's result does not depend on its
// batch.
inline void forward(
    const Geometry& g, bool each, const float* x, const Norm& norm, const float* weight, bool packed, const float* bias,
    long rows, const float* residual, float* y) {
#if WITH_AMX
    if (g.own && !g.winograd) {
        measure(x, norm, g.samples, g.inputs, g.height * g.width);
        return amx::run(g, false, x, norm, weight, packed, bias, rows, residual, y);
    }
#endif
#if WITH_WINOGRAD
    if (winograd::takes(g)) {
        measure(x, norm, g.samples, g.inputs, g.height * g.width);
        return winograd::convolve(g, false, x, norm, weight, packed, bias, rows, residual, y);
    }
#endif
    static Scratch scratch;
    const Geometry part = each ? g.sample() : g;
    const ForwardPlan& plan = planned<ForwardPlan>(part);
    const memory factors =
        packed ? memory(plan.weight.desc(), cpu(), const_cast<float*>(weight)) : plan.weight.in(weight, scratch);
    for (long n = 0; n < g.samples; n += part.samples) {
        const Norm own = norm.from_sample(n, g.inputs);
        const float *from = x + n * g.image(), *row = rows ? bias + n % rows * g.outputs : nullptr;
        measure(from, own, part.samples, g.inputs, g.height * g.width);
        plan.run(from, own, factors, row, rows > 1 && !each, residual ? residual + n * g.map() : nullptr, y + n * g.map());
    }
}

// The gradients of the weights and, if `dx` is not null, of what enters the convolution, by oneDNN.
inline void differentiate(
    const Geometry& g, const float* x, const Norm& norm, const float* weight, const float* dy, float* dx, float* dweight) {
    static Scratch scratch_x, scratch_y, scratch_result, scratch_weight;
    const BackwardPlan& plan = planned<BackwardPlan>(g);
    memory source = plan.x_for_weight.in(x, norm, scratch_x), pull = plan.y_for_weight.in(dy, {}, scratch_y);
    memory result = plan.dweight.result(dweight, scratch_weight);
    execute(
        plan.weights, plan.weights_scratch,
        {{DNNL_ARG_SRC, source}, {DNNL_ARG_DIFF_DST, pull}, {DNNL_ARG_DIFF_WEIGHTS, result}});
    plan.dweight.out(result, dweight);
    if (!dx) return;
    if (!plan.same_y) pull = plan.y_for_data.in(dy, {}, scratch_y);
    memory factors = plan.weight.in(weight, scratch_weight), target = plan.dx.result(dx, scratch_result);
    execute(
        plan.data, plan.data_scratch, {{DNNL_ARG_DIFF_DST, pull}, {DNNL_ARG_WEIGHTS, factors}, {DNNL_ARG_DIFF_SRC, target}});
    plan.dx.out(target, nullptr, nullptr, dx);
}

// The gradients of `forward`: of x, of the weights, of the bias (N, O) and, where there is a norm, of its weight and
// bias (N, C). `dx` may be null where there is none.
inline void backward(
    const Geometry& g, const float* x, const Norm& norm, const float* weight, const float* dy, float* dx, float* dweight,
    float* dbias, float* dnorm_weight, float* dnorm_bias) {
    static Scratch scratch_normed;
    const long area = g.area(), pixels = g.height * g.width, rows = g.inputs / std::max(norm.groups, 1L);
    float* to = dx && norm.groups ? (float*)scratch_normed.at_least(sizeof(float) * g.samples * g.image()) : dx;
#if WITH_AMX
    if (g.own && !g.winograd) {
        amx::to_weights(g, x, norm, dy, dweight);
        if (dx) amx::run(g, true, dy, {}, weight, false, nullptr, 0, nullptr, to);
    } else
#endif
#if WITH_WINOGRAD
    if (winograd::takes(g)) {
        if (winograd::pays(g)) winograd::to_weights(g, x, norm, dy, dweight);
        else differentiate(g, x, norm, weight, dy, nullptr, dweight);
        if (dx) winograd::convolve(g, true, dy, {}, weight, false, nullptr, 0, nullptr, to);
    } else
#endif
        differentiate(g, x, norm, weight, dy, to, dweight);
    #pragma omp parallel for
    for (long i = 0; i < (dx ? g.samples * norm.groups : 0); i++) {
        const norm::Unit unit{i * rows, 1, rows, pixels};
        const float* s = norm.statistics + 3 * i;
        const auto back = norm.silu ? norm::backward<true> : norm::backward<false>;
        back(
            unit, {s[0], s[1], s[2], 0, 0}, false, x, norm.weight, norm.bias, norm.weights, to, dx, dnorm_weight,
            dnorm_bias);
    }
    #pragma omp parallel for
    for (long row = 0; row < g.samples * g.outputs; row++) {
        double sum = 0;  // these may cancel, and there are many
        for (long i = row * area; i < (row + 1) * area; i++) sum += dy[i];
        dbias[row] = sum;
    }
}

}  // namespace convolution
