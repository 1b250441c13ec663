// The gradient of a convolution's weights by AMX: for each tap, the sum over pixels of dy times x shifted by it.
//
// Pixels are what a product sums over, so x lies in pairs of them, as maps with their border, and dy in rows, which begin
// earlier in memory for each tap: a shift, whatever it is.
#if WITH_AMX

namespace convolution {
namespace amx {

struct Sums {
    const Layout& l;
    long area, steps, length, before, row, groups, doubles;

    explicit Sums(const Layout& l)
        : l(l), area(l.height * l.width),
          steps((l.plane + DEEP - 1) / DEEP),                      // of 32 pixels, border and all
          length(steps * DEEP),                                    // of a row of x
          before((l.shifts.back() + DEEP - 1) / DEEP * DEEP),      // zeros that precede a row of dy
          row(before + length),                                    // of dy
          groups((l.inputs + TILE - 1) / TILE),                    // of 16 inputs
          doubles((l.outputs + DEEP - 1) / DEEP) {}                // of 32 outputs
    uint16_t* pairs_of(uint16_t* pairs, long n, long group) const { return pairs + (n * groups + group) * TILE * length; }
    uint16_t* rows_of(uint16_t* rows, long n, long output) const { return rows + (n * doubles * DEEP + output) * row; }
};

// A map's lines in bfloat16, `pitch` apart, from `first` on; zeros elsewhere in `length` numbers.
inline void lay(
    const Layout& l, const float* map, const norm::Affine& affine, bool silu, long first, long length, uint16_t* to) {
    std::memset(to, 0, sizeof(uint16_t) * length);
    for (long y = 0; y < l.height; y++) {
        const float* from = map + y * l.width;
        uint16_t* target = to + first + y * l.pitch;
        for (long p = 0; p < l.width; p += TILE) {
            const __mmask16 mask = (1u << std::min(TILE, l.width - p)) - 1;
            const __m512i bits = rounded(affine.of(_mm512_maskz_loadu_ps(mask, from + p), silu));
            _mm512_mask_cvtepi32_storeu_epi16(target + p, mask, _mm512_srli_epi32(bits, 16));
        }
    }
}

// 16 inputs of a sample: 16 pairs of pixels by 16 inputs, again and again.
inline void pair(
    const Sums& s, const float* x, const norm::Affine* affine, bool silu, long inputs, std::vector<uint16_t>& lines,
    uint16_t* to) {
    const Layout& l = s.l;
    lines.resize(TILE * s.length);
    for (long k = 0; k < std::min(TILE, inputs); k++)
        lay(l, x + k * s.area, affine[k], silu, l.border * (l.pitch + 1), s.length, lines.data() + k * s.length);
    for (long step = 0; step < s.steps; step++, to += NUMBERS) {
        Tile tile;
        for (long k = 0; k < TILE; k++)
            std::memcpy(tile.at[k], lines.data() + k * s.length + step * DEEP, sizeof tile.at[k]);
        tile.transpose();
        std::memcpy(to, tile.at, sizeof tile.at);
    }
}

// Of 32 outputs by 16 inputs, over all samples: `sums` (taps, 32, 16).
inline void sum(const Sums& s, uint16_t* pairs, uint16_t* rows, long o, long group, float sums[][DEEP][TILE]) {
    const Layout& l = s.l;
    const long bytes = sizeof(uint16_t) * s.row, half = TILE * s.row;
    for (long tap = 0; tap < l.taps; tap += l.kernel) {  // a line of the kernel at a time
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        _tile_zero(4);
        _tile_zero(5);
        for (long n = 0; n < l.samples; n++) {
            const uint16_t* x = s.pairs_of(pairs, n, group);
            const uint16_t* dy = s.rows_of(rows, n, o) + s.before - l.shifts[tap];
            for (long step = 0; step < s.steps; step++, x += NUMBERS, dy += DEEP) {
                _tile_loadd(6, x, 64);
                _tile_loadd(7, dy, bytes);
                _tile_dpbf16ps(0, 7, 6);
                _tile_loadd(7, dy + half, bytes);
                _tile_dpbf16ps(1, 7, 6);
                if (l.kernel == 1) continue;
                _tile_loadd(7, dy - 1, bytes);
                _tile_dpbf16ps(2, 7, 6);
                _tile_loadd(7, dy - 1 + half, bytes);
                _tile_dpbf16ps(3, 7, 6);
                _tile_loadd(7, dy - 2, bytes);
                _tile_dpbf16ps(4, 7, 6);
                _tile_loadd(7, dy - 2 + half, bytes);
                _tile_dpbf16ps(5, 7, 6);
            }
        }
        _tile_stored(0, sums[tap][0], 64);
        _tile_stored(1, sums[tap][TILE], 64);
        if (l.kernel == 1) continue;
        _tile_stored(2, sums[tap + 1][0], 64);
        _tile_stored(3, sums[tap + 1][TILE], 64);
        _tile_stored(4, sums[tap + 2][0], 64);
        _tile_stored(5, sums[tap + 2][TILE], 64);
    }
}

// The gradient (O, I, taps) of the weights; kernels are 1 or 3 wide.
inline void to_weights(const Geometry& g, const float* x, const Norm& norm, const float* dy, float* dweight) {
    static Scratch pairs_room, rows_room;
    permit();
    const Layout l(g, false);
    const Sums s(l);
    auto* pairs = static_cast<uint16_t*>(pairs_room.at_least(sizeof(uint16_t) * l.samples * s.groups * TILE * s.length));
    auto* rows = static_cast<uint16_t*>(rows_room.at_least(sizeof(uint16_t) * l.samples * s.doubles * DEEP * s.row));
    const auto affine = affines(norm, l.samples, l.inputs);
    #pragma omp parallel
    {
        std::vector<uint16_t> lines;
        #pragma omp for collapse(2)
        for (long n = 0; n < l.samples; n++)
            for (long group = 0; group < s.groups; group++) {
                const long channel = n * l.inputs + group * TILE;
                pair(
                    s, x + channel * s.area, affine.data() + channel, norm.silu, l.inputs - group * TILE, lines,
                    s.pairs_of(pairs, n, group));
            }
        #pragma omp for collapse(2)
        for (long n = 0; n < l.samples; n++)
            for (long o = 0; o < l.outputs; o++) {
                const float* map = dy + (n * l.outputs + o) * s.area;
                lay(l, map, {{0, 1, 0, 0, 0}, 1, 0}, false, s.before, s.row, s.rows_of(rows, n, o));
            }
        Session session;
        #pragma omp for collapse(2)
        for (long o = 0; o < l.outputs; o += DEEP)
            for (long group = 0; group < s.groups; group++) {
                alignas(64) float sums[9][DEEP][TILE];
                sum(s, pairs, rows, o, group, sums);
                for (long k = 0; k < std::min(DEEP, l.outputs - o); k++)
                    for (long i = 0; i < std::min(TILE, l.inputs - group * TILE); i++)
                        for (long tap = 0; tap < l.taps; tap++)
                            dweight[((o + k) * l.inputs + group * TILE + i) * l.taps + tap] = sums[tap][k][i];
            }
    }
}

}  // namespace amx
}  // namespace convolution
#endif
