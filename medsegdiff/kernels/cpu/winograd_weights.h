// The gradient of a convolution's weights by Winograd's transform: for each spot, over all tiles, the sum of what pixels of
// dy become ("pulls") times that of x.
#if WITH_WINOGRAD

namespace convolution {
namespace winograd {

// Whether this, which is float32, is faster than oneDNN in the geometry's precision: than in bfloat16 for large maps.
inline bool pays(const Geometry& g) { return !g.low || g.height * g.width >= 24 * 24; }

// 16 outputs: for each vector and spot 16 tiles, and of each tile all outputs side by side.
inline void enter_gradient(const Layout<Wide>& l, long o, long first, long last, const float* dy, float* to, long of_spot) {
    const long count = std::min(TILE, l.outputs - o);
    float spots[Wide::SPOTS][TILE][TILE];
    for (long v = first; v < last; v++, to += Wide::SPOTS * of_spot) {
        const Section s(l, v, v + 1);
        for (long k = 0; k < TILE; k++) {
            const float* map = dy + (s.sample * l.outputs + o + std::min(k, count - 1)) * l.area();
            __m512 pixels[4][4], found[6][6];
            for (long y = 0; y < Wide::SIDE; y++) {
                __m512 runs[RUNS];
                for (long part = 0; part < RUNS; part++) {
                    const long run = s.first * RUNS + part, row = run / l.of_row * Wide::SIDE + y, column = run % l.of_row * TILE;
                    const bool there = k < count && run < l.runs && row < l.height;
                    const __mmask16 mask = there ? (1u << std::min(TILE, l.width - column)) - 1 : 0;
                    const float* from = map + row * l.width + column;
                    _mm_prefetch((const char*)(from + l.area()), _MM_HINT_T0);
                    runs[part] = _mm512_maskz_loadu_ps(mask, from);
                }
                apart(runs, pixels[y]);
            }
            both(pixels, found);
            for (long spot = 0; spot < Wide::SPOTS; spot++) _mm512_storeu_ps(spots[spot][k], found[spot / 6][spot % 6]);
        }
        for (long spot = 0; spot < Wide::SPOTS; spot++) {
            __m512 tiles[TILE];
            for (long k = 0; k < TILE; k++) tiles[k] = _mm512_loadu_ps(spots[spot][k]);
            transpose(tiles);
            for (long k = 0; k < TILE; k++) _mm512_store_ps(to + spot * of_spot + k * TILE, tiles[k]);
        }
    }
}

// Adds what `count` vectors sum up to, of `N` inputs and `V` times 16 outputs; the first vectors begin.
template <int N, int V>
void sum(
    long count, bool begins, const float* lines, long next_lines, const float* pulls, long next_pulls, float* to,
    long row) {
    __m512 sums[N][V];
    #pragma GCC unroll 12
    for (int n = 0; n < N; n++)
        for (int v = 0; v < V; v++) sums[n][v] = _mm512_setzero_ps();
    for (long k = 0; k < count; k++)
        for (long tile = 0; tile < TILE; tile++) {
            __m512 pull[V];
            for (int v = 0; v < V; v++) pull[v] = _mm512_load_ps(pulls + k * next_pulls + (v * TILE + tile) * TILE);
            const float* line = lines + k * next_lines + tile;
            #pragma GCC unroll 12
            for (int n = 0; n < N; n++)
                for (int v = 0; v < V; v++) sums[n][v] = _mm512_fmadd_ps(all(line[n * TILE]), pull[v], sums[n][v]);
        }
    #pragma GCC unroll 12
    for (int n = 0; n < N; n++)
        for (int v = 0; v < V; v++) add(sums[n][v], begins, to + v * row + n * TILE);
}

// The gradient (O, I, 3, 3) of the weights.
inline void to_weights(const Geometry& g, const float* x, const Norm& norm, const float* dy, float* dweight) {
    const Layout<Wide> l(g, false);
    const long blocks = (l.outputs + TILE - 1) / TILE, inputs = (l.inputs + 3) / 4 * 4;
    const long of_pull = blocks * TILE * TILE + TILE, row = inputs * TILE, of_sum = blocks * row + TILE;
    float* sums = room_for(WEIGHTS, Wide::SPOTS * of_sum);
    float* lines = room_for(LINES, Wide::SPOTS * l.of_inputs * l.part);
    float* pulls = room_for(PULLS, Wide::SPOTS * of_pull * l.part);
    float* rooms = room_for(OWN, l.own() * omp_get_max_threads());
    const auto affine = affines(norm, l.samples, l.inputs);
    const long all = l.samples * l.vectors;
    if (!all) {  // else the sums would be those of an earlier call
        std::fill(dweight, dweight + l.outputs * l.inputs * 9, 0.0f);
        return;
    }
    #pragma omp parallel
    {
        float* room = rooms + l.own() * omp_get_thread_num();
        std::memset(room, 0, sizeof(float) * l.own());
        for (long first = 0; first < all; first += l.part) {
            const long last = std::min(first + l.part, all);
            #pragma omp for nowait
            for (long i = 0; i < l.inputs; i++) enter(l, i, first, last, x, affine, norm.silu, room, lines);
            #pragma omp for
            for (long o = 0; o < blocks; o++)
                enter_gradient(l, o * TILE, first, last, dy, pulls + o * TILE * TILE, of_pull);
            #pragma omp for collapse(2)
            for (long spot = 0; spot < Wide::SPOTS; spot++)
                for (long o = 0; o < blocks; o += 2)
                    for (long i = 0; i < inputs; i += ROWS) {
                        const long rest = inputs - i;
                        const auto two = rest >= ROWS ? sum<ROWS, 2> : rest == 8 ? sum<8, 2> : sum<4, 2>;
                        const auto one = rest >= ROWS ? sum<ROWS, 1> : rest == 8 ? sum<8, 1> : sum<4, 1>;
                        (o + 1 < blocks ? two : one)(
                            last - first, !first, lines + spot * l.of_inputs + i * TILE, Wide::SPOTS * l.of_inputs,
                            pulls + spot * of_pull + o * TILE * TILE, Wide::SPOTS * of_pull,
                            sums + spot * of_sum + o * row + i * TILE, row);
                    }
        }
        #pragma omp for collapse(2)
        for (long o = 0; o < blocks; o++)
            for (long i = 0; i < l.inputs; i++) {
                __m512 spots[6][6], taps[3][3], kernels[TILE] = {};
                for (long spot = 0; spot < Wide::SPOTS; spot++)
                    spots[spot / 6][spot % 6] = _mm512_load_ps(sums + spot * of_sum + o * row + i * TILE);
                both(spots, taps);
                for (long tap = 0; tap < 9; tap++) kernels[tap] = taps[tap / 3][tap % 3];
                transpose(kernels);
                for (long k = 0; k < std::min(TILE, l.outputs - o * TILE); k++)
                    _mm512_mask_storeu_ps(dweight + ((o * TILE + k) * l.inputs + i) * 9, 0x1ff, kernels[k]);
            }
    }
}

}  // namespace winograd
}  // namespace convolution
#endif
