// What follows a convolution: a bias, of each channel or of each channel of each sample, and a residual.

namespace fused {

// x, residual (or null) and y (rows, P); bias (biases,), of row i that number i modulo their count.
__global__ void add_bias(const float* x, const float* bias, const float* residual, float* y, int rows, int P,
                         int biases) {
    const long count = (long)rows * P;
    for (long i = blockIdx.x * (long)THREADS + threadIdx.x; i < count; i += (long)gridDim.x * THREADS) {
        const float value = x[i] + bias[i / P % biases];
        y[i] = residual ? value + residual[i] : value;
    }
}

// The gradient of each bias: a block sums the rows that it was added to.
__global__ void sum_rows(const float* dy, float* dbias, int rows, int P, int biases) {
    Total sum;
    for (int row = blockIdx.x; row < rows; row += biases)
        for (int j = threadIdx.x; j < P; j += THREADS) sum.add(dy[(long)row * P + j]);
    const double total = sum.of_block();
    if (threadIdx.x == 0) dbias[blockIdx.x] = total;
}

inline void bias_forward(const float* x, const float* bias, const float* residual, float* y, int rows, int P,
                         int biases) {
    LAUNCH(add_bias, blocks_for((long)rows * P), x, bias, residual, y, rows, P, biases);
}

inline void bias_backward(const float* dy, float* dbias, int rows, int P, int biases) {
    LAUNCH(sum_rows, biases, dy, dbias, rows, P, biases);
}

}  // namespace fused
