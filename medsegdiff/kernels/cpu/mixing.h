// One matrix (O, C) times each of many (N, C, P), and what follows: a few rows times a tile of columns at a time, in
// registers, so that the matrix, which is the larger part of all, is seldom read.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace mixing {

#if defined(__AVX512F__)
const long LANES = 16, VECTORS = 4;
#else
const long LANES = 8, VECTORS = 2;
#endif
const long ROWS = 6, COLUMNS = LANES * VECTORS;
const long NEAR = 1 << 19;  // bytes of the many that stay in a core's own cache while the matrix passes
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));

struct Tile {
    alignas(64) float at[ROWS][COLUMNS];
};

// The rows at `weight` (C each) times x (C, COLUMNS).
inline void multiply(const float* const* weight, const float* x, long C, Tile& tile) {
    Lanes sum[ROWS][VECTORS] = {};
    for (long c = 0; c < C; c++) {
        const Lanes* column = (const Lanes*)(x + c * COLUMNS);
        if (c % 16 == 0)
            for (long r = 0; r < ROWS; r++) __builtin_prefetch(weight[r] + ROWS * C + c);
#pragma GCC unroll 6
        for (long r = 0; r < ROWS; r++) {
            const Lanes w = weight[r][c] - Lanes{};
#pragma GCC unroll 4
            for (long j = 0; j < VECTORS; j++) sum[r][j] += w * column[j];
        }
    }
    std::memcpy(tile.at, sum, sizeof sum);
}

// y (N, O, P) = weight x + bias, after GELU on demand, + residual; without `bias` and `residual` where they are null.
inline void mix(
    const float* weight, const float* x, const float* bias, const float* residual, bool gelu, long N, long O, long C,
    long P, float* y) {
    const long tiles = (P + COLUMNS - 1) / COLUMNS, size = C * COLUMNS;
    const long part = std::max(1L, NEAR / (size * (long)sizeof(float)));
    std::unique_ptr<float, decltype(&std::free)> buffer(
        (float*)aligned_alloc(64, N * tiles * size * sizeof(float)), &std::free);
    float* packed = buffer.get();  // (N, tiles, C, COLUMNS), with zeros where there are no columns
#pragma omp parallel
    {
#pragma omp for
        for (long i = 0; i < N * tiles * C; i++) {
            const long c = i % C, first = i / C % tiles * COLUMNS, there = std::min(COLUMNS, P - first);
            float* row = packed + i * COLUMNS;
            std::copy_n(x + (i / C / tiles * C + c) * P + first, there, row);
            std::fill(row + there, row + COLUMNS, 0.f);
        }
        Tile tile;
#pragma omp for collapse(2)
        for (long begin = 0; begin < N * tiles; begin += part)
            for (long o = 0; o < O; o += ROWS) {
                const float* rows[ROWS];
                for (long r = 0; r < ROWS; r++) rows[r] = weight + std::min(o + r, O - 1) * C;
                for (long i = begin; i < std::min(begin + part, N * tiles); i++) {
                    multiply(rows, packed + i * size, C, tile);
                    const long first = i % tiles * COLUMNS, there = std::min(COLUMNS, P - first);
                    for (long r = 0; r < std::min(ROWS, O - o); r++) {
                        const long at = (i / tiles * O + o + r) * P + first;
                        float* z = tile.at[r];
                        for (long j = 0; bias && j < there; j++) z[j] += bias[o + r];
                        for (long j = 0; gelu && j < there; j++) z[j] *= 0.5f * (1 + std::erf(z[j] * (float)M_SQRT1_2));
                        for (long j = 0; j < there; j++) y[at + j] = residual ? z[j] + residual[at + j] : z[j];
                    }
                }
            }
    }
}

}  // namespace mixing
