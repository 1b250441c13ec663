// Convolutions that keep the size of maps, in bfloat16 by the processor's matrix unit, AMX.
//
// It multiplies a tile of 16 x 32 numbers by one of 32 x 16, with float32 sums. So that any 16 neighbours are a tile,
// whichever of the kernel's taps is at work, maps lie as pixels of 32 channels with a border of zeros around; results
// leave the tiles as maps of ours, with bias and residual. A sample's maps do not depend on its batch.
#include <sys/syscall.h>
#include <unistd.h>
// No condition around these: what Jittor defines for a kernel, it writes after the last line that includes something.
#if defined(__AMX_BF16__) && defined(__AVX512F__)
#define WITH_AMX 1

namespace convolution {
namespace amx {

const long DEEP = 32;              // channels of a pixel: what one product sums over
const long NUMBERS = TILE * DEEP;  // in a tile of bfloat16
const size_t LINE = 64;            // bytes of a line of the cache, and of a tile's row
const long AHEAD = 4;              // tiles of weights that are asked for early
const long RUN = 8;                // groups of pixel tiles that a thread computes in turn
const long NEAR = 1 << 20;         // bytes of maps that stay in a core's own cache while weights pass

// While there is one, this thread may use tiles: eight of 16 rows of 64 bytes.
struct Session {
    Session() {
        struct alignas(64) {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } shape;
        _tile_loadconfig(&shape);
        asm volatile("" ::: "memory");  // loading a tile does not tell the compiler that it reads memory
    }
    ~Session() { _tile_release(); }
};

// The system gives a process the tiles' registers when it asks for them.
inline void permit() {
    static const bool granted = !syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */);
    if (!granted) throw std::runtime_error("the system does not allow AMX");
}

struct Layout {
    long samples, inputs, outputs, height, width, kernel, border, pitch, plane, taps, blocks;
    std::vector<long> starts;  // of tiles of 16 pixels; where rows are not whole tiles, some cross the border
    std::vector<long> shifts;  // of taps, in pixels

    Layout(const Geometry& g, bool turned)
        : samples(g.samples), inputs(turned ? g.outputs : g.inputs), outputs(turned ? g.inputs : g.outputs),
          height(g.height), width(g.width), kernel(g.kernel), border(g.padding), pitch(width + 2 * border),
          plane((height + 2 * border) * pitch), taps(kernel * kernel), blocks((inputs + DEEP - 1) / DEEP) {
        const long rows = width % TILE ? 1 : height, length = width % TILE ? height * pitch - 2 * border : width;
        for (long y = 0; y < rows; y++)
            for (long x = 0; x < length; x += TILE) starts.push_back(y * pitch + x);
        for (long tap = 0; tap < taps; tap++) shifts.push_back(tap / kernel * pitch + tap % kernel);
    }
    long numbers() const { return DEEP * blocks * plane; }  // in a sample's maps, as they lie
    size_t bytes() const { return sizeof(uint16_t) * (samples * numbers() + DEEP * TILE); }  // the last tile may end later
    long weights() const { return NUMBERS * taps * blocks; }  // of 16 outputs
    size_t weight_bytes() const { return sizeof(uint16_t) * weights() * ((outputs + TILE - 1) / TILE); }
};

// Maps (N, inputs, height, width) as tiles want them.
inline void enter(const Layout& l, const float* x, const Norm& norm, uint16_t* to) {
    const auto affine = affines(norm, l.samples, l.inputs);
    #pragma omp parallel for collapse(3)
    for (long n = 0; n < l.samples; n++)
        for (long c = 0; c < l.inputs; c += DEEP)
            for (long y = -l.border; y < l.height + l.border; y++) {
                uint16_t* row = to + n * l.numbers() + (c / DEEP * l.plane + (y + l.border) * l.pitch) * DEEP;
                const bool inside = y >= 0 && y < l.height;
                std::memset(row, 0, sizeof(uint16_t) * DEEP * (inside ? l.border : l.pitch));
                if (!inside) continue;
                row += l.border * DEEP;
                std::memset(row + l.width * DEEP, 0, sizeof(uint16_t) * DEEP * l.border);
                const long channel = n * l.inputs + c, area = l.height * l.width;
                for (long p = 0; p < l.width; p += TILE) {
                    const long wide = std::min(TILE, l.width - p);
                    Tile tile;
                    take<uint16_t>(
                        x + channel * area + y * l.width + p, affine.data() + channel, norm.silu, l.inputs - c, area, wide,
                        tile);
                    std::memcpy(row + p * DEEP, tile.at, sizeof(uint16_t) * DEEP * wide);
                }
            }
}

// Weights (O, I, taps) as tiles want them: 32 inputs, in pairs, by 16 outputs, for each tap of 32 channels. For the
// gradient of the maps they are turned: inputs and outputs change places, and the taps' order.
inline void pack(const Layout& l, bool turned, const float* weight, uint16_t* to) {
    const long by_output = turned ? l.taps : l.inputs * l.taps, by_input = turned ? l.outputs * l.taps : l.taps;
    const __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i of_outputs = _mm512_mullo_epi32(numbers, _mm512_set1_epi32(by_output));
    #pragma omp parallel for collapse(2)
    for (long o = 0; o < l.outputs; o += TILE)
        for (long block = 0; block < l.blocks; block++) {
            const __mmask16 mask = (1u << std::min(TILE, l.outputs - o)) - 1;
            uint16_t* target = to + o / TILE * l.weights() + block * l.taps * NUMBERS;
            for (long tap = 0; tap < l.taps; tap++)
                for (long i = block * DEEP; i < block * DEEP + DEEP; i += 2, target += DEEP) {
                    __m512 pair[2];
                    for (long k = 0; k < 2; k++) {
                        const float* from = weight + o * by_output + (i + k) * by_input + (turned ? l.taps - 1 - tap : tap);
                        const __mmask16 there = i + k < l.inputs ? mask : 0;
                        pair[k] = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), there, of_outputs, from, sizeof(float));
                    }
                    _mm512_storeu_ps(target, joined(pair[0], pair[1]));
                }
        }
}

// What 16 pixels from `start` are of 16 outputs from `o` goes home, with bias and residual.
inline void leave(
    const Layout& l, const Tile& tile, long start, long o, const float* bias, const float* residual, float* y) {
    __m512 sums[TILE];
    for (long q = 0; q < TILE; q++) sums[q] = _mm512_load_ps(tile.at[q]);
    transpose(sums);
    const long rows = std::min(TILE, l.outputs - o), area = l.height * l.width;
    long line = start / l.pitch, column = start % l.pitch;
    for (long q = 0; q < TILE && line < l.height; line++, q += l.pitch - column, column = 0) {
        if (column >= l.width) continue;
        // These are neighbours in memory too: sum q belongs to pixel `at`.
        const __mmask16 mask = (1u << std::min(TILE - q, l.width - column)) - 1 << q;
        const long at = o * area + line * l.width + column - q;
        for (long k = 0; k < rows; k++) {
            __m512 added = _mm512_set1_ps(bias ? bias[o + k] : 0);
            if (residual) added = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, residual + at + k * area), added);
            _mm512_mask_storeu_ps(y + at + k * area, mask, _mm512_add_ps(sums[k], added));
        }
    }
}

// The convolution: `maps` of `enter`, `weights` of `pack`; `bias` has no rows, one, or one for each sample. Four tiles of
// pixels at a time share weights, or five: fewer would be left over of 8 x 8 pixels. All weights pass over as many runs of
// pixels as stay near before the next ones come.
template <bool FIVE>
void multiply(
    const Layout& l, const uint16_t* maps, const uint16_t* weights, const float* bias, long rows, const float* residual,
    float* y) {
    const long count = l.starts.size(), map = l.outputs * l.height * l.width, group = FIVE ? 5 : 4, run = RUN * group;
    const long of_sample = (count + run - 1) / run, runs = l.samples * of_sample;
    const long part = std::min(runs, std::max(1L, NEAR / (run * TILE * l.blocks * (long)LINE)));
    #pragma omp parallel
    {
        Session session;
        #pragma omp for collapse(3)
        for (long first = 0; first < runs; first += part)
            for (long o = 0; o < l.outputs; o += TILE)
                for (long i = 0; i < part; i++) {
                    const long n = (first + i) / of_sample, begin = (first + i) % of_sample * run;
                    for (long s = begin; first + i < runs && s < std::min(begin + run, count); s += group) {
                        long at[5];
                        for (long k = 0; k < 5; k++) at[k] = l.starts[std::min(s + k, count - 1)];
                        const uint16_t* w = weights + o / TILE * l.weights();
                        _tile_zero(0);
                        _tile_zero(1);
                        _tile_zero(2);
                        _tile_zero(3);
                        _tile_zero(7);
                        for (long block = 0; block < l.blocks; block++)
                            for (const long shift : l.shifts) {
                                const uint16_t* x = maps + n * l.numbers() + (block * l.plane + shift) * DEEP;
                                _tile_loadd(6, w, 64);
                                _tile_loadd(4, x + at[0] * DEEP, 64);
                                _tile_dpbf16ps(0, 4, 6);
                                _tile_loadd(5, x + at[1] * DEEP, 64);
                                _tile_dpbf16ps(1, 5, 6);
                                _tile_loadd(4, x + at[2] * DEEP, 64);
                                _tile_dpbf16ps(2, 4, 6);
                                _tile_loadd(5, x + at[3] * DEEP, 64);
                                _tile_dpbf16ps(3, 5, 6);
                                if (FIVE) {
                                    _tile_loadd(4, x + at[4] * DEEP, 64);
                                    _tile_dpbf16ps(7, 4, 6);
                                    for (long k = 0; k < TILE; k++)  // few pixels share them: they come from far
                                        _mm_prefetch((const char*)(w + AHEAD * NUMBERS + k * DEEP), _MM_HINT_T0);
                                }
                                w += NUMBERS;
                            }
                        Tile sums[5];
                        _tile_stored(0, sums[0].at, 64);
                        _tile_stored(1, sums[1].at, 64);
                        _tile_stored(2, sums[2].at, 64);
                        _tile_stored(3, sums[3].at, 64);
                        if (FIVE) _tile_stored(7, sums[4].at, 64);
                        const float* shift = rows ? bias + n % rows * l.outputs : nullptr;
                        for (long k = 0; k < group && s + k < count; k++)
                            leave(l, sums[k], at[k], o, shift, residual ? residual + n * map : nullptr, y + n * map);
                    }
                }
    }
}

// Packed weights begin where a line of the cache does, or else each row of a tile would lie in two.
inline uint16_t* aligned(void* memory) {
    return reinterpret_cast<uint16_t*>(((uintptr_t)memory + LINE - 1) / LINE * LINE);
}

// The convolution, or the gradient of its maps where it is turned. Whichever is smaller stays in the cache while the other
// passes: a sample's maps, or the weights for all samples.
inline void run(
    const Geometry& g, bool turned, const float* x, const Norm& norm, const float* weight, bool packed, const float* bias,
    long rows, const float* residual, float* y) {
    static Scratch maps, factors;
    permit();
    Layout l(g.sample(), turned);
    if (l.weight_bytes() >= l.bytes()) l.samples = g.samples;
    auto* entered = static_cast<uint16_t*>(maps.at_least(l.bytes()));
    auto* ready = aligned(packed ? const_cast<float*>(weight) : factors.at_least(l.weight_bytes()));
    if (!packed) pack(l, turned, weight, ready);
    const auto chosen = l.starts.size() % 4 ? multiply<true> : multiply<false>;
    const long from = l.inputs * l.height * l.width, to = l.outputs * l.height * l.width;
    for (long n = 0; n < g.samples; n += l.samples) {
        enter(l, x + n * from, norm.from_sample(n, l.inputs), entered);
        const float* row = rows ? bias + n % rows * l.outputs : nullptr;
        chosen(l, entered, ready, row, rows, residual ? residual + n * to : nullptr, y + n * to);
    }
}

}  // namespace amx
}  // namespace convolution
#endif
