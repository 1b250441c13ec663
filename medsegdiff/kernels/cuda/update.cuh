// Updates of many arrays by one launch: a block works on CHUNK numbers of one of them.

namespace fused {

const int MOST = 64;  // arrays a launch; what describes them must fit into the 4 KiB of a kernel's parameters
const int CHUNK = 8192;

template <int KINDS> struct Arrays {
    float* at[KINDS][MOST];
    int size[MOST];
    int end[MOST];  // the number of blocks up to and with this array
    float keep[MOST];
    int count;

    // Takes in the next array; `size` numbers of each kind.
    void add(int numbers, float kept = 1) {
        size[count] = numbers;
        keep[count] = kept;
        end[count] = (count ? end[count - 1] : 0) + (numbers + CHUNK - 1) / CHUNK;
        count++;
    }
    int blocks() const { return count ? end[count - 1] : 0; }
    // Which array this block works on, and from which number.
    __device__ int find(int block, int& start) const {
        int array = 0;
        while (end[array] <= block) array++;
        start = (block - (array ? end[array - 1] : 0)) * CHUNK;
        return array;
    }
};

struct Numbers {
    float scale, rate, correction, beta1, beta2, rest1, rest2, eps;
};

// The kinds: gradient, parameter, mean, square.
__global__ void adamw(Arrays<4> arrays, Numbers given) {
    int start;
    const int array = arrays.find(blockIdx.x, start);
    const int end = arrays.size[array] < start + CHUNK ? arrays.size[array] : start + CHUNK;
    for (int i = start + threadIdx.x; i < end; i += THREADS) {
        const float g = arrays.at[0][array][i] * given.scale;
        const float mean = given.beta1 * arrays.at[2][array][i] + given.rest1 * g;
        const float square = given.beta2 * arrays.at[3][array][i] + given.rest2 * g * g;
        arrays.at[2][array][i] = mean;
        arrays.at[3][array][i] = square;
        float& parameter = arrays.at[1][array][i];
        parameter = parameter * arrays.keep[array] - given.rate * mean / (sqrtf(square) * given.correction + given.eps);
    }
}

// The kinds: what is approached, the average.
__global__ void approach(Arrays<2> arrays, float share) {
    int start;
    const int array = arrays.find(blockIdx.x, start);
    const int end = arrays.size[array] < start + CHUNK ? arrays.size[array] : start + CHUNK;
    for (int i = start + threadIdx.x; i < end; i += THREADS) {
        float& average = arrays.at[1][array][i];
        average += share * (arrays.at[0][array][i] - average);
    }
}

// Of each block the sum of the squares, in float64: of float32 one is infinite from 2e19.
__global__ void squares(Arrays<1> arrays, double* sums) {
    int start;
    const int array = arrays.find(blockIdx.x, start);
    const int end = arrays.size[array] < start + CHUNK ? arrays.size[array] : start + CHUNK;
    double sum = 0;
    for (int i = start + threadIdx.x; i < end; i += THREADS) {
        const double value = arrays.at[0][array][i];
        sum += value * value;
    }
    sum = joined(sum, Sum());
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

inline void adamw_all(const Arrays<4>& arrays, const Numbers& given) {
    if (arrays.blocks()) LAUNCH(adamw, arrays.blocks(), arrays, given);
}

inline void approach_all(const Arrays<2>& arrays, float share) {
    if (arrays.blocks()) LAUNCH(approach, arrays.blocks(), arrays, share);
}

inline void squares_all(const Arrays<1>& arrays, double* sums) {
    if (arrays.blocks()) LAUNCH(squares, arrays.blocks(), arrays, sums);
}

}  // namespace fused
