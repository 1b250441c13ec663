// What every use of cuDNN wants: its handle, memory for a while, plans that are kept, and an end where it reports an error.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cudnn.h>

#include <array>
#include <map>

#include "executor.h"
#include "mem/allocator.h"

namespace fused {

// Memory that is given back at the end of its scope, to what is started after that.
struct Scratch {
    explicit Scratch(size_t size) : size(size) {
        if (size) at = jittor::exe.temp_allocator->alloc(size, allocation);
    }
    Scratch(const Scratch&) = delete;
    ~Scratch() {
        if (size) jittor::exe.temp_allocator->free(at, size, allocation);
    }
    void* at = nullptr;

 private:
    size_t size, allocation = 0;
};

inline void check(cudnnStatus_t status) {
    if (status != CUDNN_STATUS_SUCCESS) LOGf << "cuDNN:" << cudnnGetErrorString(status);
}

inline cudnnHandle_t handle() {
    static cudnnHandle_t held = [] {
        cudnnHandle_t made;
        check(cudnnCreate(&made));
        return made;
    }();
    return held;
}

inline cudnnDataType_t type_of(Kind kind) {
    return kind == FP32 ? CUDNN_DATA_FLOAT : kind == BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_HALF;
}

// The plan of a convolution, made at its first use.
template <class Plan> const Plan& planned(const Shape& shape, Kind kind, bool last, Direction direction) {
    static std::map<std::array<int, 12>, Plan> known;
    const std::array<int, 12> key = {shape.n, shape.c,      shape.h,       shape.w, shape.k, shape.r,
                                     shape.s, shape.stride, shape.padding, kind,    last,    direction};
    const auto found = known.find(key);
    if (found != known.end()) return found->second;
    return known.emplace(key, Plan(shape, kind, last, direction)).first->second;
}

// An algorithm that wants more than a sixteenth of the GPU's memory for itself is passed over.
inline size_t most_scratch() {
    static const size_t most = [] {
        size_t free = 0, total = 0;
        return cudaMemGetInfo(&free, &total) == cudaSuccess ? total / 16 : (size_t)1 << 29;
    }();
    return most;
}

}  // namespace fused
