// 3x3 convolutions of large maps in float32 by Winograd's transform F(4x4, 3x3) (Lavin & Gray 2016), with AVX-512.
//
// Of each tile of 6 x 6 pixels, 36 sums ("spots"); of each of them, a matrix product of inputs and weights; of their results,
// 4 x 4 pixels. A vector is 16 tiles, so nothing is turned round: four runs of four tiles side by side. A part of all
// vectors, which stays in the cache, goes through these steps at a time. A tile's numbers do not depend on the others'.
#if WITH_WINOGRAD

namespace convolution {
namespace winograd {

const long PART = 8;               // vectors that go through all steps at a time
const long ROWS = 12;              // outputs that are summed at a time, of two vectors
const long NEAR = 64;              // inputs that are summed at a time
const long AHEAD = 768;            // weights that are asked for early

struct Layout {
    long samples, inputs, outputs, height, width, of_row, tile_rows, runs, vectors, rounded;
    long of_inputs, of_outputs, of_weights;  // from one spot's numbers to the next one's; a line more than there are
    long pitch;                              // of lines with a zero before them, and what is read too much behind

    Layout(const Geometry& g, bool turned)
        : samples(g.samples), inputs(turned ? g.outputs : g.inputs), outputs(turned ? g.inputs : g.outputs),
          height(g.height), width(g.width), of_row((width + TILE - 1) / TILE), tile_rows((height + SIDE - 1) / SIDE),
          runs(tile_rows * of_row), vectors((runs + RUNS - 1) / RUNS), rounded((outputs + 3) / 4 * 4),
          of_inputs((inputs + 3) / 4 * 4 * TILE + TILE), of_outputs(rounded * PART * TILE + TILE),
          of_weights(rounded * inputs + TILE), pitch(of_row * TILE + TILE) {}
    long area() const { return height * width; }
    // Rows of tiles that vectors of a sample share in, `first` to `last`.
    long top(long first) const { return first * RUNS / of_row; }
    long bottom(long last) const { return (std::min(last * RUNS, runs) - 1) / of_row + 1; }
    long most_rows() const { return std::min(tile_rows, PART * RUNS / of_row + 2); }
    long own() const { return (10 * most_rows() + 2) * pitch; }  // numbers that a thread works with
};

// Room for so many numbers, kept from call to call.
enum Room { WEIGHTS, LINES, RESULTS, PULLS, OWN };
inline float* room_for(Room which, long numbers) {
    static Scratch rooms[OWN + 1];
    return static_cast<float*>(rooms[which].at_least(sizeof(float) * numbers));
}

// Vectors of one sample: `first` to `last` of its own.
struct Section {
    long sample, first, last;

    Section(const Layout& l, long vector, long end)
        : sample(vector / l.vectors), first(vector % l.vectors), last(std::min(l.vectors, first + end - vector)) {}
    long count() const { return last - first; }
};

// Weights (O, I, 3, 3) as products want them: for each spot, 12 outputs of each input side by side, or what is left of 12.
// For the gradient of the maps they are turned: inputs and outputs change places, and the taps' order.
inline void pack(const Layout& l, bool turned, const float* weight, float* to) {
    const long by_output = turned ? 9 : l.inputs * 9, by_input = turned ? l.outputs * 9 : 9;
    #pragma omp parallel for collapse(2)
    for (long o = 0; o < l.rounded; o += ROWS)
        for (long first = 0; first < l.inputs; first += TILE)
            for (long i = first; i < std::min(first + TILE, l.inputs); i++) {
                const long rows = std::min(ROWS, l.rounded - o);
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

// The sums of a section's tiles of a map `x`, for each vector and spot; `room` begins with zeros, as each line does.
inline void enter(
    const Layout& l, const Section& s, const float* x, const norm::Affine& affine, bool silu, float* room, float* to) {
    const long top = l.top(s.first), rows = l.bottom(s.last) - top;
    float* halfway = room + (l.most_rows() * SIDE + 2) * l.pitch;
    for (long line = 0; line < rows * SIDE + 2; line++) {
        const long y = top * SIDE - 1 + line;
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
    for (long row = 0; row < rows; row++)  // first along columns, where pixels still lie side by side
        for (long p = 0; p < l.pitch; p += TILE) {
            const float* from = room + row * SIDE * l.pitch + p;
            __m512 column[6], spots[6];
            for (long y = 0; y < 6; y++) column[y] = _mm512_load_ps(from + y * l.pitch);
            transform(column, spots);
            for (long y = 0; y < 6; y++) _mm512_store_ps(halfway + (row * 6 + y) * l.pitch + p, spots[y]);
        }
    for (long v = s.first; v < s.last; v++, to += SPOTS * l.of_inputs) {
        const float* from[RUNS];
        for (long k = 0; k < RUNS; k++) {
            const long run = std::min(v * RUNS + k, l.runs - 1);
            from[k] = halfway + (run / l.of_row - top) * 6 * l.pitch + run % l.of_row * TILE;
        }
        float* target = to;
        for (long y = 0; y < 6; y++) {
            __m512 near[RUNS], far[RUNS], four[4], two[2], spots[6];
            for (long k = 0; k < RUNS; k++) {
                near[k] = _mm512_loadu_ps(from[k] + y * l.pitch);
                far[k] = _mm512_loadu_ps(from[k] + y * l.pitch + SIDE);
            }
            apart(near, four);
            apart(far, two);
            transform({four[0], four[1], four[2], four[3], two[0], two[1]}, spots);
            for (long x = 0; x < 6; x++, target += l.of_inputs) _mm512_store_ps(target, spots[x]);
        }
    }
}

// The same of vectors `first` to `last` of all samples, of input i.
inline void enter(
    const Layout& l, long i, long first, long last, const float* x, const std::vector<norm::Affine>& affine, bool silu,
    float* room, float* lines) {
    for (long v = first; v < last;) {
        const Section s(l, v, last);
        const long map = s.sample * l.inputs + i;
        float* to = lines + (v - first) * SPOTS * l.of_inputs + i * TILE;
        enter(l, s, x + map * l.area(), affine[map], silu, room, to);
        v += s.count();
    }
}

// What the products of a section and an output become: pixels of the map `y`, with bias and residual.
inline void leave(
    const Layout& l, const Section& s, const float* products, float bias, const float* residual, float* y) {
    for (long v = s.first; v < s.last; v++, products += TILE) {
        __m512 spots[6][6], pixels[4][4];
        for (long spot = 0; spot < SPOTS; spot++)
            spots[spot / 6][spot % 6] = _mm512_load_ps(products + spot * l.of_outputs);
        both(spots, pixels);
        for (long k = 0; k < SIDE; k++) {
            __m512 lines[RUNS];
            together(pixels[k], lines);
            for (long part = 0; part < RUNS; part++) {
                const long run = v * RUNS + part, row = run / l.of_row * SIDE + k, column = run % l.of_row * TILE;
                if (run >= l.runs || row >= l.height) continue;
                const __mmask16 mask = (1u << std::min(TILE, l.width - column)) - 1;
                const long at = row * l.width + column;
                __m512 added = all(bias);
                __builtin_prefetch(y + at + l.area(), 1);
                if (residual) {
                    _mm_prefetch((const char*)(residual + at + l.area()), _MM_HINT_T0);
                    added = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, residual + at), added);
                }
                _mm512_mask_storeu_ps(y + at, mask, _mm512_add_ps(lines[part], added));
            }
        }
    }
}

// Adds what inputs sum up to, of `N` outputs and `V` vectors; the first inputs begin. Long sums of float32 would round more.
template <int N, int V>
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
            for (int v = 0; v < V; v++) sums[n][v] = _mm512_fmadd_ps(all(weights[n]), line[v], sums[n][v]);
    }
    #pragma GCC unroll 12
    for (int n = 0; n < N; n++)
        for (int v = 0; v < V; v++) add(sums[n][v], begins, to + n * row + v * TILE);
}

// Of one spot, and `V` vectors: of few inputs at a time, which stay in the first cache.
template <int V> void products(const Layout& l, const float* lines, const float* weights, float* to) {
    for (long first = 0; first < l.inputs; first += NEAR)
        for (long o = 0; o < l.rounded; o += ROWS) {
            const long rows = std::min(ROWS, l.rounded - o), count = std::min(NEAR, l.inputs - first);
            const auto chosen = rows == ROWS ? product<ROWS, V> : rows == 8 ? product<8, V> : product<4, V>;
            chosen(
                count, !first, lines + first * TILE, SPOTS * l.of_inputs, weights + o * l.inputs + first * rows,
                to + o * PART * TILE, PART * TILE);
        }
}

// The convolution, or the gradient of its maps where it is turned; `bias` has no rows, one, or one for each sample.
inline void run(
    const Geometry& g, bool turned, const float* x, const Norm& norm, const float* weight, const float* bias, long rows,
    const float* residual, float* y) {
    const Layout l(g, turned);
    float* factors = room_for(WEIGHTS, SPOTS * l.of_weights);
    float* lines = room_for(LINES, SPOTS * l.of_inputs * PART);
    float* results = room_for(RESULTS, SPOTS * l.of_outputs);
    float* rooms = room_for(OWN, l.own() * omp_get_max_threads());
    const auto affine = affines(norm, l.samples, l.inputs);
    const long all = l.samples * l.vectors;
    pack(l, turned, weight, factors);
    #pragma omp parallel
    {
        float* room = rooms + l.own() * omp_get_thread_num();
        std::memset(room, 0, sizeof(float) * l.own());
        for (long first = 0; first < all; first += PART) {
            const long last = std::min(first + PART, all);
            #pragma omp for
            for (long i = 0; i < l.inputs; i++) enter(l, i, first, last, x, affine, norm.silu, room, lines);
            #pragma omp for collapse(2)
            for (long spot = 0; spot < SPOTS; spot++)
                for (long v = first; v < last; v += 2) {
                    const float* line = lines + ((v - first) * SPOTS + spot) * l.of_inputs;
                    const auto chosen = v + 1 < last ? products<2> : products<1>;
                    chosen(l, line, factors + spot * l.of_weights, results + spot * l.of_outputs + (v - first) * TILE);
                }
            #pragma omp for
            for (long o = 0; o < l.outputs; o++)
                for (long v = first; v < last;) {
                    const Section s(l, v, last);
                    const long map = s.sample * l.outputs + o;
                    leave(
                        l, s, results + (o * PART + v - first) * TILE, rows ? bias[s.sample % rows * l.outputs + o] : 0,
                        residual ? residual + map * l.area() : nullptr, y + map * l.area());
                    v += s.count();
                }
        }
    }
}

}  // namespace winograd
}  // namespace convolution
#endif
