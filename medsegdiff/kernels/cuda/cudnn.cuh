// Convolutions by cuDNN. Its heuristics choose the algorithm once for each shape; that and the memory it wants are kept,
// as cuDNN takes 1 to 5 ms to say the first and 0.1 for the second.
#include <cstdlib>
#include <cstring>

namespace fused {

// Float32 by float32's units, unless the environment permits TF32.
inline cudnnMathType_t arithmetic(Kind kind) {
    const char* permitted = std::getenv("NVIDIA_TF32_OVERRIDE");
    if (kind != FP32) return CUDNN_TENSOR_OP_MATH;
    return permitted && !std::strcmp(permitted, "1") ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH;
}

struct Plan {
    cudnnTensorDescriptor_t x, y;
    cudnnFilterDescriptor_t w;
    cudnnConvolutionDescriptor_t how;
    int algorithm = -1;
    size_t scratch = 0;

    Plan(const Shape& shape, Kind kind, bool last, Direction direction) {
        const auto layout = last ? CUDNN_TENSOR_NHWC : CUDNN_TENSOR_NCHW;
        const auto type = type_of(kind);
        check(cudnnCreateTensorDescriptor(&x));
        check(cudnnCreateTensorDescriptor(&y));
        check(cudnnCreateFilterDescriptor(&w));
        check(cudnnCreateConvolutionDescriptor(&how));
        check(cudnnSetTensor4dDescriptor(x, layout, type, shape.n, shape.c, shape.h, shape.w));
        check(cudnnSetTensor4dDescriptor(y, layout, type, shape.n, shape.k, shape.rise(), shape.run()));
        check(cudnnSetFilter4dDescriptor(w, type, layout, shape.k, shape.c, shape.r, shape.s));
        check(cudnnSetConvolution2dDescriptor(how, shape.padding, shape.padding, shape.stride, shape.stride, 1, 1,
                                              CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
        check(cudnnSetConvolutionMathType(how, arithmetic(kind)));
        if (direction == FORWARD)
            choose<cudnnConvolutionFwdAlgoPerf_t>(cudnnGetConvolutionForwardAlgorithm_v7,
                                                  cudnnGetConvolutionForwardWorkspaceSize, x, w, how, y);
        else if (direction == TO_INPUT)
            choose<cudnnConvolutionBwdDataAlgoPerf_t>(cudnnGetConvolutionBackwardDataAlgorithm_v7,
                                                      cudnnGetConvolutionBackwardDataWorkspaceSize, w, y, how, x);
        else
            choose<cudnnConvolutionBwdFilterAlgoPerf_t>(cudnnGetConvolutionBackwardFilterAlgorithm_v7,
                                                        cudnnGetConvolutionBackwardFilterWorkspaceSize, x, y, how, w);
    }

 private:
    // The first of what cuDNN recommends that works here.
    template <class Found, class Recommend, class Size, class... Given>
    void choose(Recommend recommend, Size size, Given... given) {
        Found found[8];
        int count = 0;
        check(recommend(handle(), given..., 8, &count, found));
        for (int i = 0; i < count; i++) {
            if (found[i].status != CUDNN_STATUS_SUCCESS) continue;
            if (size(handle(), given..., found[i].algo, &scratch) != CUDNN_STATUS_SUCCESS) continue;
            if (scratch > most_scratch()) continue;
            algorithm = found[i].algo;
            return;
        }
        LOGf << "cuDNN has no algorithm for this convolution; use another precision or a smaller batch";
    }
};

// `out` of `a` and `b`, all in `kind`; `last`: with their channels last.
inline void convolve(const Shape& shape, Kind kind, bool last, Direction direction, const void* a, const void* b,
                     void* out) {
    const Plan& plan = planned<Plan>(shape, kind, last, direction);
    const Scratch scratch(plan.scratch);
    const float one = 1, nothing = 0;
    if (direction == FORWARD)
        check(cudnnConvolutionForward(handle(), &one, plan.x, a, plan.w, b, plan.how,
                                      (cudnnConvolutionFwdAlgo_t)plan.algorithm, scratch.at, plan.scratch, &nothing,
                                      plan.y, out));
    else if (direction == TO_INPUT)
        check(cudnnConvolutionBackwardData(handle(), &one, plan.w, a, plan.y, b, plan.how,
                                           (cudnnConvolutionBwdDataAlgo_t)plan.algorithm, scratch.at, plan.scratch,
                                           &nothing, plan.x, out));
    else
        check(cudnnConvolutionBackwardFilter(handle(), &one, plan.x, a, plan.y, b, plan.how,
                                             (cudnnConvolutionBwdFilterAlgo_t)plan.algorithm, scratch.at, plan.scratch,
                                             &nothing, plan.w, out));
}

}  // namespace fused
