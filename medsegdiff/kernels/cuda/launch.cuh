// How kernels are started, and sums over a block. The tests compile the same sources for a CPU, where they define this
// macro and the words of CUDA themselves.
#ifdef __CUDACC__
#define LAUNCH(kernel, blocks, ...)                                                                   \
    do {                                                                                              \
        kernel<<<blocks, fused::THREADS>>>(__VA_ARGS__);                                              \
        const cudaError_t error = cudaGetLastError();                                                 \
        if (error != cudaSuccess) LOGf << #kernel << "cannot be started:" << cudaGetErrorString(error); \
    } while (0)
#endif

namespace fused {

const int THREADS = 256;  // of every block

inline int blocks_for(long items, long most = 65535) {
    const long blocks = (items + THREADS - 1) / THREADS;
    return (int)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

struct Sum {
    template <class T> __device__ T operator()(T a, T b) const { return a + b; }
};

struct Largest {
    template <class T> __device__ T operator()(T a, T b) const { return a < b || b != b ? b : a; }
};

// What all threads of a block have, joined; every thread is given it, and the order is always the same.
template <class T, class Join> __device__ T joined(T value, Join join) {
    __shared__ T held[THREADS];
    held[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) held[threadIdx.x] = join(held[threadIdx.x], held[threadIdx.x + half]);
        __syncthreads();
    }
    const T result = held[0];
    __syncthreads();
    return result;
}

// A sum of many numbers: in float32 over at most 256, then in float64, which GPUs are slow at.
struct Total {
    double sum = 0;
    float part = 0;
    int count = 0;
    __device__ void add(float value) {
        part += value;
        if (++count == 256) settle();
    }
    __device__ void settle() {
        sum += part;
        part = 0;
        count = 0;
    }
    // Over all threads.
    __device__ double of_block() {
        settle();
        return joined(sum, Sum());
    }
};

}  // namespace fused
