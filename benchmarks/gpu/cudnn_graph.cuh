// In place of medsegdiff/kernels/cuda/cudnn.cuh, to be measured beside it: the same convolutions by cuDNN's graph
// interface, where a plan is made once and an execution names pointers only.
#include <array>
#include <vector>

namespace fused {

// What cuDNN describes things by; not given back, as a plan lives as long as the process.
struct Described {
    cudnnBackendDescriptor_t at = nullptr;
    explicit Described(cudnnBackendDescriptorType_t type) { check(cudnnBackendCreateDescriptor(type, &at)); }
    template <class T>
    Described& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T* values, int count = 1) {
        check(cudnnBackendSetAttribute(at, name, type, count, values));
        return *this;
    }
    Described& set(cudnnBackendAttributeName_t name, const Described& value) {
        return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, &value.at);
    }
    Described& made() {
        check(cudnnBackendFinalize(at));
        return *this;
    }
};

using Sizes = std::array<int64_t, 4>;

inline Described tensor(int64_t id, Kind kind, bool last, Sizes sizes) {
    const auto type = type_of(kind);
    const int64_t alignment = 16, c = sizes[1], h = sizes[2], w = sizes[3];
    const Sizes steps = last ? Sizes{h * w * c, 1, w * c, c} : Sizes{c * h * w, h * w, w, 1};
    Described it(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    it.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, &type);
    it.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, sizes.data(), 4);
    it.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, steps.data(), 4);
    it.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, &id);
    it.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, &alignment);
    return it.made();
}

enum Id : int64_t { X = 'x', W = 'w', Y = 'y' };

// What cuDNN calls an operation and its parts, for each direction.
struct Names {
    cudnnBackendDescriptorType_t operation;
    cudnnBackendAttributeName_t how, x, w, y, alpha, beta;
};
const Names NAMES[] = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

inline Described operation(const Shape& shape, Kind kind, bool last, Direction direction) {
    const Described x = tensor(X, kind, last, {shape.n, shape.c, shape.h, shape.w});
    const Described w = tensor(W, kind, last, {shape.k, shape.c, shape.r, shape.s});
    const Described y = tensor(Y, kind, last, {shape.n, shape.k, shape.rise(), shape.run()});
    const int64_t axes = 2, ones[] = {1, 1};
    const int64_t padding[] = {shape.padding, shape.padding}, stride[] = {shape.stride, shape.stride};
    const auto computed = CUDNN_DATA_FLOAT;
    const auto mode = CUDNN_CROSS_CORRELATION;
    Described how(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    how.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, &computed);
    how.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, &mode);
    how.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, &axes);
    how.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, padding, 2);
    how.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, padding, 2);
    how.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, ones, 2);
    how.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, stride, 2);
    how.made();
    const float one = 1, nothing = 0;
    const Names& names = NAMES[direction];
    Described it(names.operation);
    it.set(names.how, how).set(names.x, x).set(names.w, w).set(names.y, y);
    it.set(names.alpha, CUDNN_TYPE_FLOAT, &one).set(names.beta, CUDNN_TYPE_FLOAT, &nothing);
    return it.made();
}

struct Plan {
    cudnnBackendDescriptor_t plan = nullptr;
    int64_t scratch = 0;

    Plan(const Shape& shape, Kind kind, bool last, Direction direction) {
        const cudnnHandle_t held = handle();
        const Described does = operation(shape, kind, last, direction);
        Described graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
        graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, &held);
        graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, does).made();
        for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
            Described heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
            heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
            heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, &mode).made();
            if (choose(heuristics)) return;
        }
        LOGf << "cuDNN has no plan for this convolution";
    }

 private:
    // The first of what the heuristics recommend that works here.
    bool choose(const Described& heuristics) {
        const cudnnHandle_t held = handle();
        int64_t count = 0;
        const auto name = CUDNN_ATTR_ENGINEHEUR_RESULTS;
        check(cudnnBackendGetAttribute(heuristics.at, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr));
        std::vector<cudnnBackendDescriptor_t> found;
        for (int64_t i = 0; i < count; i++) found.push_back(Described(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).at);
        check(cudnnBackendGetAttribute(heuristics.at, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &count, found.data()));
        for (int64_t i = 0; i < count; i++) {
            Described tried(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
            tried.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, &held);
            tried.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, &found[i]);
            if (cudnnBackendFinalize(tried.at) != CUDNN_STATUS_SUCCESS) continue;
            int64_t returned = 0;
            check(cudnnBackendGetAttribute(tried.at, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                           &returned, &scratch));
            if (scratch > (int64_t)most_scratch()) continue;
            plan = tried.at;
            return true;
        }
        return false;
    }
};

inline void convolve(const Shape& shape, Kind kind, bool last, Direction direction, const void* a, const void* b,
                     void* out) {
    const Plan& plan = planned<Plan>(shape, kind, last, direction);
    const Scratch scratch(plan.scratch);
    const Id named[3][3] = {{X, W, Y}, {W, Y, X}, {X, Y, W}};
    const void* pointers[] = {a, b, out};
    Described pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, named[direction], 3);
    pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, pointers, 3);
    pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, &scratch.at);
    pack.made();
    check(cudnnBackendExecute(handle(), plan.plan, pack.at));
    check(cudnnBackendDestroyDescriptor(pack.at));
}

}  // namespace fused
