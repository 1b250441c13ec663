// 16 x 16 numbers of 32 bits, or as many pairs of bfloat16, which change rows and columns in registers.
#include <cstdint>
#include <cstring>

namespace convolution {

const long TILE = 16;  // numbers of 32 bits that are turned at a time, either way

#if defined(__AVX512F__)
inline void transpose(__m512 (&a)[TILE]) {
    __m512 b[TILE];
    for (int i = 0; i < TILE; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < TILE; i += 4)
        for (int j = 0; j < 2; j++) {
            const __m512d low = _mm512_castps_pd(b[i + j]), high = _mm512_castps_pd(b[i + j + 2]);
            a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    for (int j = 0; j < 4; j++) {  // now each quarter of a register is done, and quarters change places
        const __m512 even = _mm512_shuffle_f32x4(a[j], a[4 + j], 0x88), odd = _mm512_shuffle_f32x4(a[j], a[4 + j], 0xdd);
        const __m512 even_2 = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0x88);
        const __m512 odd_2 = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0xdd);
        a[j] = _mm512_shuffle_f32x4(even, even_2, 0x88);
        a[4 + j] = _mm512_shuffle_f32x4(odd, odd_2, 0x88);
        a[8 + j] = _mm512_shuffle_f32x4(even, even_2, 0xdd);
        a[12 + j] = _mm512_shuffle_f32x4(odd, odd_2, 0xdd);
    }
}
#endif

// A tile: 16 x 16 numbers of 32 bits.
struct Tile {
    alignas(64) float at[TILE][TILE];

    void transpose() {
#if defined(__AVX512F__)
        __m512 a[TILE];
        for (int i = 0; i < TILE; i++) a[i] = _mm512_load_ps(at[i]);
        convolution::transpose(a);
        for (int i = 0; i < TILE; i++) _mm512_store_ps(at[i], a[i]);
#else
        float* a = at[0];  // four perfect shuffles, which compilers make vectors of
        alignas(64) float b[TILE * TILE];
        const long half = TILE * TILE / 2;
        for (int twice = 0; twice < 2; twice++) {
            for (long i = 0; i < half; i++) b[2 * i] = a[i], b[2 * i + 1] = a[i + half];
            for (long i = 0; i < half; i++) a[2 * i] = b[i], a[2 * i + 1] = b[i + half];
        }
#endif
    }
};

inline void put(float value, float& to) { to = value; }
inline void put(float value, uint16_t& to) { to = narrowed(value); }

// Two rows of numbers as one of the tile: in bfloat16, side by side in 32 bits.
inline void join(const float* __restrict__ low, const float* __restrict__ high, void* __restrict__ to) {
    uint32_t a[TILE], b[TILE], c[TILE];
    std::memcpy(a, low, sizeof a);
    std::memcpy(b, high, sizeof b);
    for (long i = 0; i < TILE; i++) c[i] = rounded(a[i]) >> 16 | (rounded(b[i]) & 0xffff0000);
    std::memcpy(to, c, sizeof c);
}

}  // namespace convolution
