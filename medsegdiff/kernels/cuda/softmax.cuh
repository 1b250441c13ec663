// Softmax of each row of T numbers, and its gradient; a block works on one row after the other.

namespace fused {

__global__ void softmax(const float* x, float* p, long rows, int T) {
    for (long row = blockIdx.x; row < rows; row += gridDim.x) {
        const float* from = x + row * T;
        float top = -INFINITY;
        for (int j = threadIdx.x; j < T; j += THREADS) top = Largest()(top, from[j]);
        top = joined(top, Largest());
        Total sum;
        for (int j = threadIdx.x; j < T; j += THREADS) sum.add(expf(from[j] - top));
        const float share = 1 / sum.of_block();
        for (int j = threadIdx.x; j < T; j += THREADS) p[row * T + j] = expf(from[j] - top) * share;
    }
}

__global__ void softmax_back(const float* p, const float* dp, float* dx, long rows, int T) {
    for (long row = blockIdx.x; row < rows; row += gridDim.x) {
        Total sum;
        for (int j = threadIdx.x; j < T; j += THREADS) sum.add(p[row * T + j] * dp[row * T + j]);
        const float along = sum.of_block();
        for (int j = threadIdx.x; j < T; j += THREADS) {
            const long i = row * T + j;
            dx[i] = p[i] * (dp[i] - along);
        }
    }
}

inline void softmax_forward(const float* x, float* p, long rows, int T) {
    LAUNCH(softmax, (int)(rows < 65535 ? rows : 65535), x, p, rows, T);
}

inline void softmax_backward(const float* p, const float* dp, float* dx, long rows, int T) {
    LAUNCH(softmax_back, (int)(rows < 65535 ? rows : 65535), p, dp, dx, rows, T);
}

}  // namespace fused
