// What surrounds a convolution: changes of type and layout, a bias, of each channel or of each channel of each sample,
// and a residual.

namespace fused {

const int TILE = 32;  // channels and places that a block turns

// x, residual (or null) and y (rows, P); bias (biases,) or null, of row i that number i modulo their count.
template <class T>
__global__ void add_bias(const T* x, const float* bias, const float* residual, float* y, int rows, int P, int biases) {
    const long count = (long)rows * P;
    for (long i = blockIdx.x * (long)THREADS + threadIdx.x; i < count; i += (long)gridDim.x * THREADS) {
        const float value = (float)x[i] + (bias ? bias[i / P % biases] : 0);
        y[i] = residual ? value + residual[i] : value;
    }
}

template <class T> __global__ void narrow(const float* x, T* y, long count) {
    for (long i = blockIdx.x * (long)THREADS + threadIdx.x; i < count; i += (long)gridDim.x * THREADS) y[i] = (T)x[i];
}

// Where a block's tile begins: `n` samples of `c` channels of `P` places.
struct Tile {
    int sample, channel, place;
    __device__ Tile(int block, int c, int P) {
        const int across = (P + TILE - 1) / TILE, down = (c + TILE - 1) / TILE;
        place = block % across * TILE;
        channel = block / across % down * TILE;
        sample = block / across / down;
    }
};

inline int tiles(int n, int c, int P) { return n * ((c + TILE - 1) / TILE) * ((P + TILE - 1) / TILE); }

// (n, c, P) to (n, P, c).
template <class T> __global__ void channels_last(const float* x, T* y, int c, int P) {
    __shared__ float held[TILE][TILE + 1];
    const Tile tile(blockIdx.x, c, P);
    x += (long)tile.sample * c * P;
    y += (long)tile.sample * c * P;
    for (int i = threadIdx.x; i < TILE * TILE; i += THREADS) {
        const int channel = tile.channel + i / TILE, place = tile.place + i % TILE;
        if (channel < c && place < P) held[i / TILE][i % TILE] = x[(long)channel * P + place];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * TILE; i += THREADS) {
        const int place = tile.place + i / TILE, channel = tile.channel + i % TILE;
        if (channel < c && place < P) y[(long)place * c + channel] = (T)held[i % TILE][i / TILE];
    }
}

// (n, P, c) to (n, c, P), with what `add_bias` adds.
template <class T>
__global__ void channels_first(const T* x, const float* bias, const float* residual, float* y, int c, int P,
                               int biases) {
    __shared__ float held[TILE][TILE + 1];
    const Tile tile(blockIdx.x, c, P);
    x += (long)tile.sample * c * P;
    for (int i = threadIdx.x; i < TILE * TILE; i += THREADS) {
        const int place = tile.place + i / TILE, channel = tile.channel + i % TILE;
        if (channel < c && place < P) held[i / TILE][i % TILE] = (float)x[(long)place * c + channel];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * TILE; i += THREADS) {
        const int channel = tile.channel + i / TILE, place = tile.place + i % TILE;
        if (channel >= c || place >= P) continue;
        const int row = tile.sample * c + channel;
        const long at = (long)row * P + place;
        const float value = held[i % TILE][i / TILE] + (bias ? bias[row % biases] : 0);
        y[at] = residual ? value + residual[at] : value;
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
    LAUNCH(add_bias<float>, blocks_for((long)rows * P), x, bias, residual, y, rows, P, biases);
}

inline void bias_backward(const float* dy, float* dbias, int rows, int P, int biases) {
    LAUNCH(sum_rows, biases, dy, dbias, rows, P, biases);
}

// x (n, c, P) in type T; `last`: with the channels last.
template <class T> void enter(const float* x, T* y, int n, int c, int P, bool last) {
    if (last)
        LAUNCH(channels_last<T>, tiles(n, c, P), x, y, c, P);
    else
        LAUNCH(narrow<T>, blocks_for((long)n * c * P), x, y, (long)n * c * P);
}

// The way back, to float32, with a bias and a residual or null.
template <class T>
void leave(const T* x, const float* bias, const float* residual, float* y, int n, int c, int P, int biases,
           bool last) {
    if (last)
        LAUNCH(channels_first<T>, tiles(n, c, P), x, bias, residual, y, c, P, biases);
    else
        LAUNCH(add_bias<T>, blocks_for((long)n * c * P), x, bias, residual, y, n * c, P, biases);
}

}  // namespace fused
