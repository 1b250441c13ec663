// Maps (N, C, H, W), float32, in the order and type that a primitive wants them in, and back: in one pass, which also
// normalises on the way in, and adds bias and residual on the way out.
#include <stdexcept>
#include <vector>

namespace convolution {

// What maps are before a convolution: themselves, or normalised (group norm), with SiLU on demand.
struct Norm {
    const float *weight, *bias;  // (N, C), or (1, C) for all samples
    long weights;                // numbers of each
    long groups;                 // 0: none
    bool silu;
    float* statistics;  // (N, groups, 3): of norm::Statistics about, rstd, rest

    Norm from_sample(long n, long channels) const {
        if (!groups) return *this;
        const long at = n * channels % weights;
        return {weight + at, bias + at, weights - at, groups, silu, statistics + n * groups * 3};
    }
};

const long STRIP = 32;  // pixels that a thread goes through at a time; then those beside them, as memory is read ahead

// What each channel of samples becomes: itself where there is no norm.
inline std::vector<norm::Affine> affines(const Norm& norm, long samples, long channels) {
    std::vector<norm::Affine> found(samples * channels, {{0, 1, 0, 0, 0}, 1, 0});
    const long of_group = channels / std::max(norm.groups, 1L);
    for (long i = 0; i < samples * norm.groups * of_group; i++) {
        const float* s = norm.statistics + 3 * (i / of_group);
        found[i] = {{s[0], s[1], s[2], 0, 0}, norm.weight[i % norm.weights], norm.bias[i % norm.weights]};
    }
    return found;
}

// `wide` pixels of as many channels as a row of a tile has of this type, `channels` of which there are; `x` and `affine`
// are the first one's, and `area` the pixels of a map. A row of the tile is a pixel then.
template <class T>
void take(
    const float* x, const norm::Affine* affine, bool silu, long channels, long area, long wide, Tile& tile) {
#if defined(__AVX512F__)
    const auto value = [=](long k) {
        if (k >= channels) return _mm512_setzero_ps();
        _mm_prefetch((const char*)(x + k * area + TILE), _MM_HINT_T0);  // so many maps at a time no cache reads ahead
        return affine[k].of(_mm512_maskz_loadu_ps((1u << wide) - 1, x + k * area), silu);
    };
    __m512 a[TILE];
    for (long k = 0; k < TILE; k++) a[k] = sizeof(T) == 2 ? joined(value(2 * k), value(2 * k + 1)) : value(k);
    transpose(a);
    for (long k = 0; k < TILE; k++) _mm512_store_ps(tile.at[k], a[k]);
#else
    Tile wider;
    for (long k = 0; k < TILE * (long)sizeof(float) / (long)sizeof(T); k++) {
        float* __restrict__ target = sizeof(T) == 2 ? wider.at[k % 2] : tile.at[k];
        const float* __restrict__ from = x + k * area;
        const long count = k < channels ? wide : 0;
        if (count < TILE) std::memset(target, 0, sizeof tile.at[0]);
        if (silu) for (long q = 0; q < count; q++) target[q] = affine[k].of<true>(from[q]);
        else for (long q = 0; q < count; q++) target[q] = affine[k].of<false>(from[q]);
        if (sizeof(T) == 2 && k % 2) join(wider.at[0], wider.at[1], tile.at[k / 2]);
    }
    tile.transpose();
#endif
}

class Maps {
public:
    Maps() = default;
    Maps(const memory::dims& dims, const memory::desc& wanted)
        : theirs(wanted), samples(dims[0]), channels(dims[1]), pixels(dims[2] * dims[3]) {
        const auto& order = wanted.data.format_desc.blocking;
        same = wanted == plain(dims);
        block = order.inner_nblks ? order.inner_blks[0] : order.strides[1] == 1 ? TILE : 1;
        padded = wanted.data.padded_dims[1];
        sample = order.strides[0];
        group = order.inner_nblks || block == 1 ? order.strides[1] : block;
        pixel = order.strides[3];
        const bool known = wanted.data.format_kind == dnnl_blocked && order.inner_nblks <= 1
            && (!order.inner_nblks || order.inner_idxs[0] == 1) && TILE % block == 0
            && (dims[2] == 1 || order.strides[2] == dims[3] * pixel) && !wanted.data.extra.flags;
        if (!known) throw std::runtime_error("oneDNN wants maps in an order that is not known here");
    }

    const memory::desc& desc() const { return theirs; }
    bool are_ours() const { return same; }

    // Their form of `x`: `x` itself, or a copy in `scratch`.
    memory in(const float* x, const Norm& norm, Scratch& scratch) const {
        if (same && !norm.groups) return memory(theirs, cpu(), const_cast<float*>(x));
        void* to = scratch.at_least(theirs.get_size());
        if (theirs.data_type() == Type::bf16) arrange(x, norm, static_cast<uint16_t*>(to));
        else arrange(x, norm, static_cast<float*>(to));
        return memory(theirs, cpu(), to);
    }

    // Where a primitive may write float32; `out` brings it home.
    memory result(float* y, Scratch& scratch) const {
        return memory(theirs, cpu(), same ? y : scratch.at_least(theirs.get_size()));
    }

    // y = result + bias (by rows) + residual; either may be null.
    void out(const memory& result, const float* bias, const float* residual, float* y) const {
        if (same && !bias && !residual) return;
        const float* from = static_cast<float*>(result.get_data_handle());
        const long deep = block == 1 ? 1 : TILE, wide = block == 1 ? pixels : STRIP;
        #pragma omp parallel for collapse(3)
        for (long n = 0; n < samples; n++)
            for (long c = 0; c < channels; c += deep)
                for (long p = 0; p < pixels; p += wide) {
                    const long row = n * channels + c;
                    if (block == 1) add(from + n * sample + c * group, bias, residual, row, 0, pixels, y);
                    else
                        for (long q = p; q < std::min(p + wide, pixels); q += TILE)
                            fetch(from + n * sample, c, q, bias, residual, row, y);
                }
    }

private:
    memory::desc theirs;
    bool same;  // as ours
    long samples, channels, pixels;
    // Channel c of pixel p is at c / block * group + p * pixel + c % block; to `padded` channels there are zeros.
    long block, padded, sample, group, pixel;

    template <class T> void arrange(const float* x, const Norm& norm, T* to) const {
        const auto affine = affines(norm, samples, channels);
        const long deep = block == 1 ? 1 : TILE * sizeof(float) / sizeof(T), wide = block == 1 ? pixels : STRIP;
        #pragma omp parallel for collapse(3)
        for (long n = 0; n < samples; n++)
            for (long c = 0; c < padded; c += deep)
                for (long p = 0; p < pixels; p += wide) {
                    const long row = n * channels + c;
                    if (block == 1) {
                        T* target = to + n * sample + c * group;
                        for (long q = 0; q < pixels; q++) put(affine[row].of(x[row * pixels + q], norm.silu), target[q]);
                    } else {
                        for (long q = p; q < std::min(p + wide, pixels); q += TILE)
                            store(x, affine.data(), norm.silu, n * channels, c, q, to + n * sample);
                    }
                }
    }

    // Channels from c, as many as a row of a tile has of this type, and 16 pixels from p, or what is left of both.
    template <class T>
    void store(const float* x, const norm::Affine* affine, bool silu, long rows, long c, long p, T* to) const {
        const long channels_of_tile = TILE * sizeof(float) / sizeof(T), wide = std::min(TILE, pixels - p);
        Tile tile;
        take<T>(x + (rows + c) * pixels + p, affine + rows + c, silu, channels - c, pixels, wide, tile);
        const long size = std::min(channels_of_tile, block < TILE ? block : TILE);
        const bool whole = block == TILE && c + channels_of_tile <= padded;
        for (long q = 0; q < wide; q++) {
            const T* from = reinterpret_cast<const T*>(tile.at[q]);
            T* target = to + (p + q) * pixel;
            for (long k = 0; k < channels_of_tile && c + k < padded; k += size) {
                T* part = target + (c + k) / block * group;
                if (whole) std::memcpy(part, from + k, TILE * sizeof(T));
                else std::memcpy(part, from + k, std::min(size, padded - c - k) * sizeof(T));
            }
        }
    }

    void fetch(
        const float* from, long c, long p, const float* bias, const float* residual, long row, float* y) const {
        const long high = std::min(TILE, channels - c), wide = std::min(TILE, pixels - p);
        Tile tile;
        for (long q = 0; q < wide; q++) {
            const float* source = from + (p + q) * pixel;
            if (block == TILE && c + TILE <= padded) std::memcpy(tile.at[q], source + c / block * group, sizeof tile.at[q]);
            else
                for (long k = 0; k < TILE && c + k < padded; k += block)
                    std::memcpy(
                        tile.at[q] + k, source + (c + k) / block * group,
                        std::min(block, padded - c - k) * sizeof(float));
        }
        tile.transpose();
        for (long k = 0; k < high; k++) {  // so many maps at a time no cache reads ahead
            const long next = (row + k) * pixels + p + TILE;
            __builtin_prefetch(y + next, 1);
            if (residual) __builtin_prefetch(residual + next);
        }
        for (long k = 0; k < high; k++) add(tile.at[k] - p, bias, residual, row + k, p, p + wide, y);
    }

    // Pixels `begin` to `end` of a row.
    void add(
        const float* from, const float* bias, const float* residual, long row, long begin, long end, float* y) const {
        const float shift = bias ? bias[row] : 0;
        float* to = y + row * pixels + begin;
        const float* other = residual + row * pixels + begin;
        const long count = end - begin;
        from += begin;  // this may be `to`
        if (residual) {
            #pragma GCC ivdep
            for (long p = 0; p < count; p++) to[p] = from[p] + (other[p] + shift);
        } else {
            #pragma GCC ivdep
            for (long p = 0; p < count; p++) to[p] = from[p] + shift;
        }
    }
};

// Fills in `norm.statistics`.
inline void measure(const float* x, const Norm& norm, long samples, long channels, long pixels) {
    const long rows = channels / std::max(norm.groups, 1L);
    #pragma omp parallel for
    for (long i = 0; i < samples * norm.groups; i++) {
        const norm::Statistics s = norm::statistics(x, {i * rows, 1, rows, pixels});
        norm.statistics[3 * i] = s.about;
        norm.statistics[3 * i + 1] = s.rstd;
        norm.statistics[3 * i + 2] = s.rest;
    }
}

}  // namespace convolution
