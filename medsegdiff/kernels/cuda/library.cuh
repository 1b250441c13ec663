// What every use of cuDNN wants: its handle, memory for a while, and an end where it reports an error.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cudnn.h>

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

// An algorithm that wants more than a sixteenth of the GPU's memory for itself is passed over.
inline size_t most_scratch() {
    static const size_t most = [] {
        size_t free = 0, total = 0;
        return cudaMemGetInfo(&free, &total) == cudaSuccess ? total / 16 : (size_t)1 << 29;
    }();
    return most;
}

}  // namespace fused
