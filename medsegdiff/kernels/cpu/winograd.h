// 3x3 convolutions of large maps in float32 by Winograd's transform F(4x4, 3x3) (Lavin & Gray 2016), with AVX-512.
//
// Of each tile of 6 x 6 pixels, 36 sums; of each of them, a matrix product of inputs and weights; of their 36 results, 4 x 4
// pixels. A vector is 16 tiles, so nothing is turned round: two runs of eight tiles, each side by side in a row of them.
// Tiles go through all three steps in groups that stay in the cache. A tile's numbers do not depend on its group.
#include <omp.h>
#if defined(__AVX512F__)
#define WITH_WINOGRAD 1

namespace convolution {
namespace winograd {

const long SIDE = 4, SPOTS = 36;   // pixels of a tile's side that result; products of a tile
const long RUN = 8 * SIDE;         // pixels side by side of half a vector
const long MOST = 4;               // vectors of a group
const long ROWS = 12;              // outputs that are summed at a time, of two vectors
const long AHEAD = 768;             // weights that are asked for early
const long NEAR = 128;              // inputs of two vectors that stay in the first cache
const float A = 0.625f, B = 1.5f;  // what the transform evaluates polynomials at, beside 0 and infinity: +-A, +-B

inline __m512 all(float value) { return _mm512_set1_ps(value); }

struct Layout {
    long samples, inputs, outputs, height, width, runs, of_row, vectors, group;
    long of_inputs, of_outputs, of_weights;  // from one spot's numbers to the next one's; a line more than there are

    Layout(const Geometry& g, bool turned)
        : samples(g.samples), inputs(turned ? g.outputs : g.inputs), outputs(turned ? g.inputs : g.outputs),
          height(g.height), width(g.width), of_row((width + RUN - 1) / RUN), group(MOST) {
        runs = (height + SIDE - 1) / SIDE * of_row;
        vectors = (runs + 1) / 2;
        while (group > 1 && samples * groups() % omp_get_max_threads()) group /= 2;
        of_inputs = inputs * TILE + TILE;
        of_outputs = outputs_padded() * group * TILE + TILE;
        of_weights = outputs_padded() * inputs + TILE;
    }
    long groups() const { return (vectors + group - 1) / group; }
    long outputs_padded() const { return (outputs + 3) / 4 * 4; }
    long pitch() const { return of_row * RUN + RUN; }  // of lines with a border; a zero, a line, and what is read too much
    long lines() const { return SPOTS * of_inputs * group; }
    long results() const { return SPOTS * of_outputs; }
};

// The transforms along one axis: of pixels, of weights, and of products.
inline void transform(const __m512 (&x)[6], __m512 (&to)[6]) {
    const __m512 t = _mm512_fnmadd_ps(all(B * B), x[2], x[4]), q = _mm512_fnmadd_ps(all(B * B), x[1], x[3]);
    const __m512 u = _mm512_fnmadd_ps(all(A * A), x[2], x[4]), r = _mm512_fnmadd_ps(all(A * A), x[1], x[3]);
    to[0] = _mm512_fmadd_ps(all(A * A * B * B), x[0], _mm512_fnmadd_ps(all(A * A + B * B), x[2], x[4]));
    to[1] = _mm512_fmadd_ps(all(A), q, t);
    to[2] = _mm512_fnmadd_ps(all(A), q, t);
    to[3] = _mm512_fmadd_ps(all(B), r, u);
    to[4] = _mm512_fnmadd_ps(all(B), r, u);
    to[5] = _mm512_fmadd_ps(all(A * A * B * B), x[1], _mm512_fnmadd_ps(all(A * A + B * B), x[3], x[5]));
}

inline void transform(const __m512 (&w)[3], __m512 (&to)[6]) {
    const float at_a = 1 / (2 * A * A * (A * A - B * B)), at_b = 1 / (2 * B * B * (B * B - A * A));
    const __m512 a = _mm512_fmadd_ps(all(A * A), w[2], w[0]), b = _mm512_fmadd_ps(all(B * B), w[2], w[0]);
    to[0] = _mm512_mul_ps(all(1 / (A * A * B * B)), w[0]);
    to[1] = _mm512_mul_ps(all(at_a), _mm512_fmadd_ps(all(A), w[1], a));
    to[2] = _mm512_mul_ps(all(at_a), _mm512_fnmadd_ps(all(A), w[1], a));
    to[3] = _mm512_mul_ps(all(at_b), _mm512_fmadd_ps(all(B), w[1], b));
    to[4] = _mm512_mul_ps(all(at_b), _mm512_fnmadd_ps(all(B), w[1], b));
    to[5] = w[2];
}

inline void transform(const __m512 (&m)[6], __m512 (&to)[4]) {
    const __m512 p = _mm512_add_ps(m[1], m[2]), q = _mm512_sub_ps(m[1], m[2]);
    const __m512 r = _mm512_add_ps(m[3], m[4]), s = _mm512_sub_ps(m[3], m[4]);
    to[0] = _mm512_add_ps(m[0], _mm512_add_ps(p, r));
    to[1] = _mm512_fmadd_ps(all(A), q, _mm512_mul_ps(all(B), s));
    to[2] = _mm512_fmadd_ps(all(A * A), p, _mm512_mul_ps(all(B * B), r));
    to[3] = _mm512_fmadd_ps(all(A * A * A), q, _mm512_fmadd_ps(all(B * B * B), s, m[5]));
}

// Along both axes: `from` in rows of `N`.
template <int N, int M> inline __attribute__((always_inline)) void both(const __m512 (&from)[N][N], __m512 (&to)[M][M]) {
    __m512 half[M][N];
    #pragma GCC unroll 6
    for (int x = 0; x < N; x++) {
        __m512 column[N], turned[M];
        #pragma GCC unroll 6
        for (int y = 0; y < N; y++) column[y] = from[y][x];
        transform(column, turned);
        #pragma GCC unroll 6
        for (int y = 0; y < M; y++) half[y][x] = turned[y];
    }
    #pragma GCC unroll 6
    for (int y = 0; y < M; y++) transform(half[y], to[y]);
}

// Every fourth of 64 numbers, of which the first 32 are at `first` and the others at `second`.
template <int COUNT> void apart(const float* first, const float* second, __m512* to) {
    const __m512i low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    for (int k = 0; k < COUNT; k += 2) {
        const __m512i index = _mm512_add_epi32(low, _mm512_set1_epi32(k));
        const __m512 a = _mm512_permutex2var_ps(_mm512_loadu_ps(first), index, _mm512_loadu_ps(first + TILE));
        const __m512 b = _mm512_permutex2var_ps(_mm512_loadu_ps(second), index, _mm512_loadu_ps(second + TILE));
        to[k] = _mm512_shuffle_f32x4(a, b, 0x44);
        to[k + 1] = _mm512_shuffle_f32x4(a, b, 0xee);
    }
}

// The other way: two vectors of the first half's 32 numbers, and two of the second's.
inline void together(const __m512 (&from)[4], __m512 (&to)[4]) {
    const __m512i pairs = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i fours = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    for (int half = 0; half < 2; half++) {
        const __m512i index = _mm512_add_epi32(pairs, _mm512_set1_epi32(8 * half));
        const __m512d a = _mm512_castps_pd(_mm512_permutex2var_ps(from[0], index, from[1]));
        const __m512d b = _mm512_castps_pd(_mm512_permutex2var_ps(from[2], index, from[3]));
        for (int k = 0; k < 2; k++) {
            const __m512i at = _mm512_add_epi64(fours, _mm512_set1_epi64(4 * k));
            to[2 * half + k] = _mm512_castpd_ps(_mm512_permutex2var_pd(a, at, b));
        }
    }
}

// Weights (O, I, 3, 3) as products want them: for each spot, 12 outputs of each input side by side, or what is left of 12.
// For the gradient of the maps they are turned: inputs and outputs change places, and the taps' order.
inline void pack(const Layout& l, bool turned, const float* weight, float* to) {
    const long by_output = turned ? 9 : l.inputs * 9, by_input = turned ? l.outputs * 9 : 9;
    #pragma omp parallel for collapse(2)
    for (long o = 0; o < l.outputs_padded(); o += ROWS)
        for (long first = 0; first < l.inputs; first += TILE)
            for (long i = first; i < std::min(first + TILE, l.inputs); i++) {
                const long rows = std::min(ROWS, l.outputs_padded() - o);
                const float* from = weight + o * by_output + i * by_input;
                __m512 kernels[TILE], taps[3][3], spots[6][6];
                for (long k = 0; k < TILE; k++) {
                    const bool there = k < std::min(ROWS, l.outputs - o);
                    kernels[k] = _mm512_maskz_loadu_ps(there ? 0x1ff : 0, from + k * by_output);
                    if (there) _mm_prefetch((const char*)(from + k * by_output + 2 * TILE), _MM_HINT_T0);
                }
                transpose(kernels);
                for (long tap = 0; tap < 9; tap++) taps[tap / 3][tap % 3] = kernels[turned ? 8 - tap : tap];
                both(taps, spots);
                float* target = to + o * l.inputs + i * rows;
                for (long spot = 0; spot < SPOTS; spot++, target += l.of_weights) {
                    _mm512_mask_storeu_ps(target, (1u << rows) - 1, spots[spot / 6][spot % 6]);
                    __builtin_prefetch(target + 4 * TILE, 1);
                }
            }
}

// The sums of a group's tiles, vectors `first` to `last`, of a sample's map: for each vector and spot all inputs.
inline void enter(
    const Layout& l, const float* x, const norm::Affine* affine, bool silu, long first, long last, float* lines, float* to) {
    const long top = 2 * first / l.of_row * SIDE - 1, pitch = l.pitch();
    const long bottom = (std::min(2 * last, l.runs) - 1) / l.of_row * SIDE + SIDE + 1;
    alignas(64) float halfway[6][2][3 * TILE];
    for (long i = 0; i < l.inputs; i++) {
        for (long y = top; y < bottom; y++) {
            float* line = lines + (y - top) * pitch + 1;
            if (y < 0 || y >= l.height) {
                std::memset(line - 1, 0, sizeof(float) * pitch);
                continue;
            }
            const float* from = x + (i * l.height + y) * l.width;
            for (long p = 0; p < l.width; p += TILE) {
                const __mmask16 mask = (1u << std::min(TILE, l.width - p)) - 1;
                _mm_prefetch((const char*)(from + l.height * l.width + p), _MM_HINT_T0);
                const __m512 value = affine[i].of(_mm512_maskz_loadu_ps(mask, from + p), silu);
                _mm512_storeu_ps(line + p, _mm512_maskz_mov_ps(mask, value));
            }
        }
        for (long v = first; v < last; v++) {
            for (long half = 0; half < 2; half++) {  // first along columns, for pixels side by side
                const long run = std::min(2 * v + half, l.runs - 1);
                const float* from = lines + (run / l.of_row * SIDE - 1 - top) * pitch + run % l.of_row * RUN;
                for (long p = 0; p < 3; p++) {
                    __m512 column[6], spots[6];
                    for (long y = 0; y < 6; y++) column[y] = _mm512_loadu_ps(from + y * pitch + p * TILE);
                    transform(column, spots);
                    for (long y = 0; y < 6; y++) _mm512_store_ps(halfway[y][half] + p * TILE, spots[y]);
                }
            }
            float* target = to + (v - first) * SPOTS * l.of_inputs + i * TILE;
            for (long y = 0; y < 6; y++) {
                __m512 pixels[6], spots[6];
                apart<4>(halfway[y][0], halfway[y][1], pixels);
                apart<2>(halfway[y][0] + 4, halfway[y][1] + 4, pixels + 4);
                transform(pixels, spots);
                for (long x = 0; x < 6; x++, target += l.of_inputs) _mm512_store_ps(target, spots[x]);
            }
        }
    }
}

// What a group's products become, as pixels of `y`, with bias and residual.
inline void leave(
    const Layout& l, const float* products, long first, long last, const float* bias, const float* residual, float* y) {
    const long area = l.height * l.width;
    for (long o = 0; o < l.outputs; o++) {
        const __m512 shift = all(bias ? bias[o] : 0);
        for (long v = first; v < last; v++) {
            const float* from = products + (o * l.group + v - first) * TILE;
            __m512 spots[6][6], pixels[4][4];
            for (long spot = 0; spot < SPOTS; spot++)
                spots[spot / 6][spot % 6] = _mm512_load_ps(from + spot * l.of_outputs);
            both(spots, pixels);
            for (long k = 0; k < SIDE; k++) {
                __m512 line[4];
                together(pixels[k], line);
                for (long part = 0; part < 4; part++) {
                    const long run = 2 * v + part / 2, row = run / l.of_row * SIDE + k;
                    const long column = run % l.of_row * RUN + part % 2 * TILE;
                    if (run >= l.runs || row >= l.height || column >= l.width) continue;
                    const __mmask16 mask = (1u << std::min(TILE, l.width - column)) - 1;
                    const long at = o * area + row * l.width + column;
                    __m512 added = shift;
                    __builtin_prefetch(y + at + area, 1);
                    if (residual) {
                        _mm_prefetch((const char*)(residual + at + area), _MM_HINT_T0);
                        added = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, residual + at), added);
                    }
                    _mm512_mask_storeu_ps(y + at, mask, _mm512_add_ps(line[part], added));
                }
            }
        }
    }
}

// Adds to the sums over inputs, of `N` outputs and `V` vectors; the first inputs begin them.
template <int N, int V>
void product(long inputs, bool begins, const float* lines, long next, const float* weights, float* to, long row) {
    __m512 sums[N][V];
    #pragma GCC unroll 12
    for (int n = 0; n < N; n++)
        for (int v = 0; v < V; v++) sums[n][v] = begins ? _mm512_setzero_ps() : _mm512_load_ps(to + n * row + v * TILE);
    for (long i = 0; i < inputs; i++, lines += TILE, weights += N) {
        __m512 line[V];
        for (int v = 0; v < V; v++) line[v] = _mm512_load_ps(lines + v * next);
        _mm_prefetch((const char*)(weights + AHEAD), _MM_HINT_T0);
        #pragma GCC unroll 12
        for (int n = 0; n < N; n++)
            for (int v = 0; v < V; v++) sums[n][v] = _mm512_fmadd_ps(all(weights[n]), line[v], sums[n][v]);
    }
    #pragma GCC unroll 12
    for (int n = 0; n < N; n++)
        for (int v = 0; v < V; v++) _mm512_store_ps(to + n * row + v * TILE, sums[n][v]);
}

// Of one spot, and `V` vectors: of as many inputs at a time as stay in the first cache.
template <int V> void products(const Layout& l, const float* lines, const float* weights, float* to) {
    for (long first = 0; first < l.inputs; first += NEAR)
        for (long o = 0; o < l.outputs_padded(); o += ROWS) {
            const long rows = std::min(ROWS, l.outputs_padded() - o), count = std::min(NEAR, l.inputs - first);
            const auto chosen = rows == ROWS ? product<ROWS, V> : rows == 8 ? product<8, V> : product<4, V>;
            chosen(
                count, !first, lines + first * TILE, SPOTS * l.of_inputs, weights + o * l.inputs + first * rows,
                to + o * l.group * TILE, l.group * TILE);
        }
}

// The convolution, or the gradient of its maps where it is turned; `bias` has no rows, one, or one for each sample.
inline void run(
    const Geometry& g, bool turned, const float* x, const Norm& norm, const float* weight, const float* bias, long rows,
    const float* residual, float* y) {
    static Scratch factors, room;
    const Layout l(g, turned);
    const long lines = (l.group * 2 * SIDE + 2 * SIDE) * l.pitch() / TILE * TILE + TILE;
    const long own = l.lines() + l.results() + lines;
    auto* ready = static_cast<float*>(factors.at_least(sizeof(float) * SPOTS * l.of_weights));
    auto* start = static_cast<float*>(room.at_least(sizeof(float) * own * omp_get_max_threads()));
    pack(l, turned, weight, ready);
    const auto affine = affines(norm, l.samples, l.inputs);
    const long area = l.height * l.width;
    #pragma omp parallel
    {
        float* entered = start + own * omp_get_thread_num();
        float* results = entered + l.lines();
        float* padded = results + l.results();
        std::memset(padded, 0, sizeof(float) * lines);
        #pragma omp for collapse(2) schedule(dynamic)
        for (long n = 0; n < l.samples; n++)
            for (long first = 0; first < l.vectors; first += l.group) {
                const long last = std::min(first + l.group, l.vectors), to = n * l.outputs * area;
                enter(l, x + n * l.inputs * area, affine.data() + n * l.inputs, norm.silu, first, last, padded, entered);
                for (long spot = 0; spot < SPOTS; spot++)
                    for (long v = 0; v < last - first; v += 2) {
                        const float* line = entered + (v * SPOTS + spot) * l.of_inputs;
                        const auto chosen = v + 1 < last - first ? products<2> : products<1>;
                        chosen(l, line, ready + spot * l.of_weights, results + spot * l.of_outputs + v * TILE);
                    }
                leave(
                    l, results, first, last, rows ? bias + n % rows * l.outputs : nullptr,
                    residual ? residual + to : nullptr, y + to);
            }
    }
}

}  // namespace winograd
}  // namespace convolution
#endif
