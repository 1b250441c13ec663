// Normalisation with its affine map and SiLU. A unit is what has statistics of its own: `rows` rows of P numbers,
// `first`, `first + step`, ...; a block works on each. Of group norm a unit is a group of a sample, of batch norm,
// where there are no groups, a channel.

namespace fused {

const float EPS = 1e-5f;

struct Units {
    int N, C, P, groups, weights;
    __host__ __device__ int count() const { return groups ? N * groups : C; }
    __device__ int rows() const { return groups ? C / groups : N; }
    __device__ int step() const { return groups ? 1 : C; }
    __device__ int first(int unit) const { return groups ? unit * rows() : unit; }
    // Which weight belongs to a row: (N, C) or (1, C) of them with groups, else (C,).
    __device__ int weight(int unit, int row) const { return groups ? row % weights : unit; }
};

__device__ inline float silu(float z) { return z / (1 + expf(-z)); }

__device__ inline float silu_slope(float z) {
    const float s = 1 / (1 + expf(-z));
    return s + z * s * (1 - s);
}

// y (N, C, P); of each unit `statistics` has the mean, the variance, and what the mean's rounding leaves of the
// normalised values: normed = (x - mean) * rstd - rest.
template <bool SILU>
__global__ void normalise(const float* x, const float* weight, const float* bias, float* y, float* statistics,
                          Units units) {
    const int unit = blockIdx.x, rows = units.rows(), step = units.step(), first = units.first(unit), P = units.P;
    const int count = rows * P;
    Total sum;
    for (int e = threadIdx.x; e < count; e += THREADS) sum.add(x[(long)(first + e / P * step) * P + e % P]);
    const float mean = sum.of_block() / count;
    Total off, squares;
    for (int e = threadIdx.x; e < count; e += THREADS) {
        const float d = x[(long)(first + e / P * step) * P + e % P] - mean;
        off.add(d);
        squares.add(d * d);
    }
    const double shift = off.of_block() / count, raw = squares.of_block() / count - shift * shift;
    const double variance = raw < 0 ? 0 : raw;  // and NaN stays NaN
    const float rstd = 1 / sqrt(variance + EPS), rest = shift * rstd;
    if (threadIdx.x == 0) {
        statistics[3 * unit] = mean;
        statistics[3 * unit + 1] = variance;
        statistics[3 * unit + 2] = rest;
    }
    for (int e = threadIdx.x; e < count; e += THREADS) {
        const int row = first + e / P * step, at = units.weight(unit, row);
        const long i = (long)row * P + e % P;
        const float z = ((x[i] - mean) * rstd - rest) * weight[at] + bias[at];
        y[i] = SILU ? silu(z) : z;
    }
}

// The gradients of x, weight and bias, given that of y; with groups those of the weights for each sample, (N, C).
template <bool SILU>
__global__ void normalise_back(const float* x, const float* weight, const float* bias, const float* statistics,
                               const float* dy, float* dx, float* dweight, float* dbias, Units units) {
    const int unit = blockIdx.x, rows = units.rows(), step = units.step(), first = units.first(unit), P = units.P;
    const float mean = statistics[3 * unit], rest = statistics[3 * unit + 2];
    const float rstd = 1 / sqrt((double)statistics[3 * unit + 1] + EPS);
    double along = 0, plain = 0, unit_weight = 0, unit_bias = 0;
    for (int k = 0; k < rows; k++) {
        const int row = first + k * step, at = units.weight(unit, row);
        const float w = weight[at], b = bias[at];
        Total products, sums;
        for (int j = threadIdx.x; j < P; j += THREADS) {
            const long i = (long)row * P + j;
            const float normed = (x[i] - mean) * rstd - rest;
            const float d = SILU ? dy[i] * silu_slope(normed * w + b) : dy[i];
            products.add(d * normed);
            sums.add(d);
        }
        const double row_weight = products.of_block(), row_bias = sums.of_block();
        along += row_weight * w;
        plain += row_bias * w;
        unit_weight += row_weight;
        unit_bias += row_bias;
        if (units.groups && threadIdx.x == 0) {
            dweight[row] = row_weight;
            dbias[row] = row_bias;
        }
    }
    if (!units.groups && threadIdx.x == 0) {
        dweight[unit] = unit_weight;
        dbias[unit] = unit_bias;
    }
    const int count = rows * P;
    const float mean_along = along / count, mean_plain = plain / count;
    for (int e = threadIdx.x; e < count; e += THREADS) {
        const int row = first + e / P * step, at = units.weight(unit, row);
        const long i = (long)row * P + e % P;
        const float normed = (x[i] - mean) * rstd - rest;
        float d = dy[i] * weight[at];
        if (SILU) d *= silu_slope(normed * weight[at] + bias[at]);
        dx[i] = rstd * (d - mean_plain - normed * mean_along);
    }
}

// Sums (C,) over the samples of both arrays (N, C).
__global__ void over_samples(const float* weights, const float* biases, float* weight, float* bias, int N, int C) {
    for (int c = blockIdx.x * THREADS + threadIdx.x; c < C; c += gridDim.x * THREADS) {
        double of_weight = 0, of_bias = 0;
        for (int n = 0; n < N; n++) {
            of_weight += weights[n * C + c];
            of_bias += biases[n * C + c];
        }
        weight[c] = of_weight;
        bias[c] = of_bias;
    }
}

inline void norm_forward(const float* x, const float* weight, const float* bias, float* y, float* statistics,
                         Units units, bool with_silu) {
    if (with_silu) LAUNCH(normalise<true>, units.count(), x, weight, bias, y, statistics, units);
    else LAUNCH(normalise<false>, units.count(), x, weight, bias, y, statistics, units);
}

inline void norm_backward(const float* x, const float* weight, const float* bias, const float* statistics,
                          const float* dy, float* dx, float* dweight, float* dbias, Units units, bool with_silu) {
    if (with_silu)
        LAUNCH(normalise_back<true>, units.count(), x, weight, bias, statistics, dy, dx, dweight, dbias, units);
    else LAUNCH(normalise_back<false>, units.count(), x, weight, bias, statistics, dy, dx, dweight, dbias, units);
}

// The same with groups and weights (1, C), which all samples share; `parts` (2, N, C) is filled on the way.
inline void norm_backward_shared(const float* x, const float* weight, const float* bias, const float* statistics,
                                 const float* dy, float* dx, float* dweight, float* dbias, float* parts, Units units,
                                 bool with_silu) {
    float* biases = parts + (long)units.N * units.C;
    norm_backward(x, weight, bias, statistics, dy, dx, parts, biases, units, with_silu);
    LAUNCH(over_samples, blocks_for(units.C), parts, biases, dweight, dbias, units.N, units.C);
}

}  // namespace fused
