// 3x3 convolutions by Winograd's transform (Lavin & Gray 2016), with AVX-512: F(4x4, 3x3) in float32, or F(2x2, 3x3) with
// products in bfloat16, of two inputs at a time.
//
// Of each tile of 6 x 6 pixels, or 4 x 4, as many sums ("spots"); of each of them, a matrix product of inputs and weights;
// of their results, 4 x 4 pixels, or 2 x 2. A vector is 16 tiles, so nothing is turned round. A part of all vectors, which
// stays in the cache, goes through these steps at a time. A tile's numbers do not depend on the others'.
#if WITH_WINOGRAD

namespace convolution {
namespace winograd {

const long ROWS = 12;          // outputs that are summed at a time, of two vectors
const long AHEAD = 768;        // weights that are asked for early
const long AT_ONCE = 1 << 20;  // transformed weights that stay in the cache

// Sums of products: of numbers, or of pairs in bfloat16.
inline __m512 multiplied(Wide, __m512 weights, __m512 line, __m512 sum) { return _mm512_fmadd_ps(weights, line, sum); }
#if WITH_LOW_WINOGRAD
inline __m512 multiplied(Low, __m512 weights, __m512 line, __m512 sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)weights, (__m512bh)line);
}
#endif

inline __m512 joined_inputs(const __m512 (&values)[1]) { return values[0]; }
inline __m512 joined_inputs(const __m512 (&values)[2]) { return joined(values[0], values[1]); }

// Weights (O, I, 3, 3) as products want them: for each spot, 12 outputs of each input, or pair of them, side by side, or
// what is left of 12. For the gradient of the maps they are turned: inputs and outputs change places, and the taps' order.
// All threads of a team share the work.
template <class F> void pack(const Layout<F>& l, bool turned, const float* weight, float* to) {
    const long by_output = turned ? 9 : l.inputs * 9, by_input = turned ? l.outputs * 9 : 9;
    #pragma omp for collapse(2)
    for (long o = 0; o < l.rounded; o += ROWS)
        for (long first = 0; first < l.deep; first += TILE)
            for (long i = first; i < std::min(first + TILE, l.deep); i++) {
                const long rows = std::min(ROWS, l.rounded - o);
                __m512 spots[F::DEEP][F::ACROSS][F::ACROSS];
                for (long d = 0; d < F::DEEP; d++) {
                    const long input = i * F::DEEP + d;
                    const float* from = weight + o * by_output + input * by_input;
                    __m512 kernels[TILE], taps[3][3];
                    for (long k = 0; k < TILE; k++) {
                        const bool there = k < std::min(ROWS, l.outputs - o) && input < l.inputs;
                        kernels[k] = _mm512_maskz_loadu_ps(there ? 0x1ff : 0, from + k * by_output);
                        if (there) _mm_prefetch((const char*)(from + k * by_output + 2 * TILE), _MM_HINT_T0);
                    }
                    transpose(kernels);
                    for (long tap = 0; tap < 9; tap++) taps[tap / 3][tap % 3] = kernels[turned ? 8 - tap : tap];
                    both(taps, spots[d]);
                }
                const long near = i / F::NEAR * F::NEAR;  // the first of those that are summed at a time
                float* target = to + near * l.rounded + o * std::min((long)F::NEAR, l.deep - near) + (i - near) * rows;
                for (long spot = 0; spot < F::SPOTS; spot++, target += l.of_weights) {
                    __m512 values[F::DEEP];
                    for (long d = 0; d < F::DEEP; d++) values[d] = spots[d][spot / F::ACROSS][spot % F::ACROSS];
                    _mm512_mask_storeu_ps(target, (1u << rows) - 1, joined_inputs(values));
                    __builtin_prefetch(target + 4 * TILE, 1);
                }
            }
}

// Lines of a section's tiles of a map `x` in `room`, which begins with zeros, as each line does; and what the transform
// makes of them along columns, where pixels still lie side by side.
template <class F>
void begin(const Layout<F>& l, const Section& s, const float* x, const norm::Affine& affine, bool silu, float* room) {
    const long top = l.top(s.first), rows = l.bottom(s.last) - top;
    float* halfway = room + l.lines();
    for (long line = 0; line < rows * F::SIDE + 2; line++) {
        const long y = top * F::SIDE - 1 + line;
        float* target = room + line * l.pitch + 1;
        if (y < 0 || y >= l.height) {
            std::memset(target, 0, sizeof(float) * (l.pitch - 1));
            continue;
        }
        for (long p = 0; p < l.width; p += TILE) {
            const __mmask16 mask = (1u << std::min(TILE, l.width - p)) - 1;
            const float* from = x + y * l.width + p;
            _mm_prefetch((const char*)(from + l.area()), _MM_HINT_T0);  // the next map: no cache reads that far ahead
            _mm512_storeu_ps(target + p, _mm512_maskz_mov_ps(mask, affine.of(_mm512_maskz_loadu_ps(mask, from), silu)));
        }
    }
    for (long row = 0; row < rows; row++)
        for (long p = 0; p < l.pitch; p += TILE) {
            const float* from = room + row * F::SIDE * l.pitch + p;
            __m512 column[F::ACROSS], spots[F::ACROSS];
            for (long y = 0; y < F::ACROSS; y++) column[y] = _mm512_load_ps(from + y * l.pitch);
            transform(column, spots);
            for (long y = 0; y < F::ACROSS; y++) _mm512_store_ps(halfway + (row * F::ACROSS + y) * l.pitch + p, spots[y]);
        }
}

// The sums of vectors `first` to `last` of all samples, of input i, or of the i-th pair of them.
template <class F>
void enter(
    const Layout<F>& l, long i, long first, long last, const float* x, const std::vector<norm::Affine>& affine, bool silu,
    float* room, float* lines) {
    for (long v = first; v < last;) {
        const Section s(l, v, last);
        for (long d = 0; d < F::DEEP; d++) {
            const long input = i * F::DEEP + d, map = s.sample * l.inputs + input;
            float* own = room + d * l.own();
            if (input < l.inputs) begin(l, s, x + map * l.area(), affine[map], silu, own);
            else std::memset(own + l.lines(), 0, sizeof(float) * (l.own() - l.lines()));
        }
        const long top = l.top(s.first);
        for (long at = s.first; at < s.last; at++, v++) {
            const float* from[RUNS];
            for (long k = 0; k < RUNS; k++) {
                const long run = std::min(at * RUNS + k, l.runs - 1);
                from[k] = room + l.lines() + (run / l.of_row - top) * F::ACROSS * l.pitch + run % l.of_row * F::RUN;
            }
            float* target = lines + (v - first) * F::SPOTS * l.of_inputs + i * TILE;
            for (long y = 0; y < F::ACROSS; y++) {
                __m512 spots[F::ACROSS];
                finish(F(), from, l.own(), spots);
                for (long k = 0; k < RUNS; k++) from[k] += l.pitch;
                for (long k = 0; k < F::ACROSS; k++, target += l.of_inputs) _mm512_store_ps(target, spots[k]);
            }
        }
    }
}

// What the products of a section and an output become: pixels of the map `y`, with bias and residual.
template <class F>
void leave(
    const Layout<F>& l, const Section& s, const float* products, float bias, const float* residual, float* y) {
    for (long v = s.first; v < s.last; v++, products += TILE) {
        __m512 spots[F::ACROSS][F::ACROSS], pixels[F::SIDE][F::SIDE];
        for (long spot = 0; spot < F::SPOTS; spot++)
            spots[spot / F::ACROSS][spot % F::ACROSS] = _mm512_load_ps(products + spot * l.of_outputs);
        both(spots, pixels);
        for (long k = 0; k < F::SIDE; k++) {
            __m512 strips[F::STRIPS];
            together(pixels[k], strips);
            for (long part = 0; part < RUNS; part += l.beside) {
                const long run = v * RUNS + part, row = run / l.of_row * F::SIDE + k, column = run % l.of_row * F::RUN;
                if (run >= l.runs || row >= l.height) continue;
                const long before = part * F::RUN % TILE;  // numbers of the strip that are another run's
                const __mmask16 mask = ((1u << std::min(l.beside * F::RUN, l.width - column)) - 1) << before;
                const long at = row * l.width + column - before;
                __m512 added = all(bias);
                __builtin_prefetch(y + at + l.area(), 1);
                if (residual) {
                    _mm_prefetch((const char*)(residual + at + l.area()), _MM_HINT_T0);
                    added = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, residual + at), added);
                }
                // By a masked sum, as -Ofast changes the order of others.
                _mm512_mask_storeu_ps(y + at, mask, _mm512_maskz_add_ps(mask, strips[part * F::RUN / TILE], added));
            }
        }
    }
}

// Adds what inputs sum up to, of `N` outputs and `V` vectors; the first inputs begin. Long sums of float32 would round more.
template <class F, int N, int V>
void product(long inputs, bool begins, const float* lines, long next, const float* weights, float* to, long row) {
    __m512 sums[N][V];
    #pragma GCC unroll 12
    for (int n = 0; n < N; n++)
        for (int v = 0; v < V; v++) sums[n][v] = _mm512_setzero_ps();
    for (long i = 0; i < inputs; i++, lines += TILE, weights += N) {
        __m512 line[V];
        for (int v = 0; v < V; v++) line[v] = _mm512_load_ps(lines + v * next);
        _mm_prefetch((const char*)(weights + AHEAD), _MM_HINT_T0);
        #pragma GCC unroll 12
        for (int n = 0; n < N; n++)
            for (int v = 0; v < V; v++) sums[n][v] = multiplied(F(), all(weights[n]), line[v], sums[n][v]);
    }
    #pragma GCC unroll 12
    for (int n = 0; n < N; n++)
        for (int v = 0; v < V; v++) add(sums[n][v], begins, to + n * row + v * TILE);
}

// Of one spot, and `V` vectors: of few inputs at a time, which stay in the first cache.
template <class F, int V> void products(const Layout<F>& l, const float* lines, const float* weights, float* to) {
    for (long first = 0; first < l.deep; first += F::NEAR)
        for (long o = 0; o < l.rounded; o += ROWS) {
            const long rows = std::min(ROWS, l.rounded - o), count = std::min((long)F::NEAR, l.deep - first);
            const auto chosen = rows == ROWS ? product<F, ROWS, V> : rows == 8 ? product<F, 8, V> : product<F, 4, V>;
            chosen(
                count, !first, lines + first * TILE, F::SPOTS * l.of_inputs, weights + first * l.rounded + o * count,
                to + o * l.part * TILE, l.part * TILE);
        }
}

// The convolution, or the gradient of its maps where it is turned; `bias` has no rows, one, or one for each sample. The
// weights are plain, or those of `pack`.
template <class F>
void run(
    const Geometry& g, bool turned, const float* x, const Norm& norm, const float* weight, bool packed, const float* bias,
    long rows, const float* residual, float* y) {
    const Layout<F> l(g, turned);
    const long all = l.samples * l.vectors;
    // Weights that are used once are transformed for some outputs at a time, and stay in the cache.
    const bool once = !packed && !turned && all <= l.part;
    const long count = once ? std::max(ROWS, AT_ONCE / (F::SPOTS * l.deep) / ROWS * ROWS) : l.rounded;
    const size_t numbers = F::SPOTS * l.some(0, count).of_weights;
    float* factors = packed ? const_cast<float*>(weight) : room_for(WEIGHTS, numbers);
    float* lines = room_for(LINES, F::SPOTS * l.of_inputs * l.part);
    float* results = room_for(RESULTS, F::SPOTS * l.of_outputs);
    const long own = F::DEEP * l.own();
    float* rooms = room_for(OWN, own * omp_get_max_threads());
    const auto affine = affines(norm, l.samples, l.inputs);
    #pragma omp parallel
    {
        float* room = rooms + own * omp_get_thread_num();
        std::memset(room, 0, sizeof(float) * own);
        if (!packed && !once) pack(l, turned, weight, factors);
        for (long first = 0; first < all; first += l.part) {
            const long last = std::min(first + l.part, all);
            #pragma omp for
            for (long i = 0; i < l.deep; i++) enter(l, i, first, last, x, affine, norm.silu, room, lines);
            for (long o = 0; o < l.outputs; o += count) {
                const Layout<F> some = l.some(o, count);
                if (once) pack(some, false, weight + o * l.inputs * 9, factors);
                #pragma omp for collapse(2)
                for (long spot = 0; spot < F::SPOTS; spot++)
                    for (long v = first; v < last; v += 2) {
                        const float* line = lines + ((v - first) * F::SPOTS + spot) * l.of_inputs;
                        float* to = results + spot * l.of_outputs + (o * l.part + v - first) * TILE;
                        const auto chosen = v + 1 < last ? products<F, 2> : products<F, 1>;
                        chosen(some, line, factors + spot * some.of_weights, to);
                    }
            }
            #pragma omp for
            for (long o = 0; o < l.outputs; o++)
                for (long v = first; v < last;) {
                    const Section s(l, v, last);
                    const long map = s.sample * l.outputs + o;
                    leave(
                        l, s, results + (o * l.part + v - first) * TILE, rows ? bias[s.sample % rows * l.outputs + o] : 0,
                        residual ? residual + map * l.area() : nullptr, y + map * l.area());
                    v += s.count();
                }
        }
    }
}

// Whether these kernels take a convolution: in bfloat16 the compiler must have its instructions.
inline bool takes(const Geometry& g) { return g.own && g.winograd && (!g.low || WITH_LOW_WINOGRAD); }

// `run` in the geometry's precision; in float32 weights are always plain.
inline void convolve(
    const Geometry& g, bool turned, const float* x, const Norm& norm, const float* weight, bool packed, const float* bias,
    long rows, const float* residual, float* y) {
#if WITH_LOW_WINOGRAD
    if (g.low) return run<Low>(g, turned, x, norm, weight, packed, bias, rows, residual, y);
#endif
    run<Wide>(g, turned, x, norm, weight, false, bias, rows, residual, y);
}

}  // namespace winograd
}  // namespace convolution
#endif
