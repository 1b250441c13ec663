// One matrix (O, C) times each of many (N, C, P), and what follows: a few rows times a tile of columns at a time, in
// registers, so that the matrix, which is the larger part of all, is seldom read.
#include <algorithm>
#include <cmath>
#include <cstring>

namespace mixing {

const long VECTORS = LANES == 16 ? 4 : 2;
const long ROWS = 6, COLUMNS = LANES * VECTORS;
const long NEAR = 1 << 19;  // bytes of the many that stay in a core's own cache while the matrix passes

struct Tile {
    alignas(64) float at[ROWS][COLUMNS];
};

// The rows at `weight` (C each) times x (C, COLUMNS).
inline void multiply(const float* const* weight, const float* x, long C, Tile& tile) {
    Lanes sum[ROWS][VECTORS] = {};
    for (long c = 0; c < C; c++) {
        const Anywhere* column = (const Anywhere*)(x + c * COLUMNS);
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

// (N, tiles, C, COLUMNS) of x (N, C, P), with zeros where there are no columns.
inline void pack(const float* x, long N, long tiles, long C, long P, float* to) {
    #pragma omp parallel for collapse(3)
    for (long n = 0; n < N; n++)
        for (long tile = 0; tile < tiles; tile++)
            for (long c = 0; c < C; c++) {
                const long first = tile * COLUMNS, there = std::min(COLUMNS, P - first);
                float* row = to + ((n * tiles + tile) * C + c) * COLUMNS;
                std::fill(std::copy_n(x + (n * C + c) * P + first, there, row), row + COLUMNS, 0.f);
            }
}

// y = z + shift, after GELU on demand, + residual, which may be null.
inline void leave(const float* z, float shift, bool gelu, const float* residual, long count, float* y) {
    if (gelu) {
        for (long j = 0; j < count; j++) {
            const float half = 0.5f * (z[j] + shift);
            y[j] = half + half * std::erf(half * (float)M_SQRT2);
        }
        z = y;
        shift = 0;
    }
    if (residual) for (long j = 0; j < count; j++) y[j] = z[j] + shift + residual[j];
    else if (!gelu) for (long j = 0; j < count; j++) y[j] = z[j] + shift;
}

// y (N, O, P) = weight x + bias, after GELU on demand, + residual; without `bias` and `residual` where they are null.
inline void mix(
    const float* weight, const float* x, const float* bias, const float* residual, bool gelu, long N, long O, long C,
    long P, float* y) {
    const long tiles = (P + COLUMNS - 1) / COLUMNS, size = C * COLUMNS;
    const long part = std::max(1L, NEAR / (size * (long)sizeof(float)));
    const Vectors room = vectors(P == COLUMNS ? 0 : N * tiles * C * VECTORS);
    const float* packed = P == COLUMNS ? x : (float*)room.get();
    if (P != COLUMNS) pack(x, N, tiles, C, P, (float*)room.get());
    #pragma omp parallel for collapse(2)
    for (long begin = 0; begin < N * tiles; begin += part)
        for (long o = 0; o < O; o += ROWS) {
            const float* rows[ROWS];
            for (long r = 0; r < ROWS; r++) rows[r] = weight + std::min(o + r, O - 1) * C;
            for (long i = begin; i < std::min(begin + part, N * tiles); i++) {
                Tile tile;
                multiply(rows, packed + i * size, C, tile);
                const long first = i % tiles * COLUMNS, there = std::min(COLUMNS, P - first);
                for (long r = 0; r < std::min(ROWS, O - o); r++) {
                    const long at = (i / tiles * O + o + r) * P + first;
                    leave(tile.at[r], bias ? bias[o + r] : 0, gelu, residual ? residual + at : nullptr, there, y + at);
                }
            }
        }
}

}  // namespace mixing
