// What kernels need where numbers become very small or very large.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace numbers {

// Takes subnormal numbers for zero in this thread as long as it lives, whatever the thread was told before.
class Flushed {
#if defined(__SSE__)
public:
    Flushed() : before(_mm_getcsr()) { _mm_setcsr(before | 0x8040); }
    ~Flushed() { _mm_setcsr(before); }
    Flushed(const Flushed&) = delete;

private:
    const unsigned before;
#endif
};

// Whether the size of x is over `limit`, infinite, or not a number: by its bits, as -Ofast leaves out such questions.
inline bool beyond(double x, double limit) {
    uint64_t of_x, of_limit;
    std::memcpy(&of_x, &x, sizeof x);
    std::memcpy(&of_limit, &limit, sizeof limit);
    return of_x << 1 > of_limit << 1;  // without the sign
}

// The logistic function of z and of -z. The exponential never overflows, so nothing is divided by infinity.
inline void logistic(float z, float& of_z, float& of_minus_z) {
    const float e = std::exp(-std::abs(z)), large = 1 / (1 + e), small = e * large;
    of_z = z < 0 ? small : large;
    of_minus_z = z < 0 ? large : small;
}

inline float silu(float z) {
    float s, rest;
    logistic(z, s, rest);
    return z * s;
}

#if defined(__AVX512F__)
// Within a unit in the last place, for what is not positive: 2^n times a polynomial, interpolated at Chebyshev's points,
// of what is left, |r| < ln(2) / 2; ln(2) in two parts (Cody & Waite 1980).
inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-104), x);  // this is 0 already; what is not a number stays so
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 sum = _mm512_set1_ps(1.3926182e-3f);
    for (const float next : {8.363178e-3f, 4.1666556e-2f, 0.16666576f, 0.5f, 1.f, 1.f})
        sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(next));
    return _mm512_scalef_ps(sum, n);
}

inline __m512 silu(__m512 z) {
    const __m512i sign = _mm512_set1_epi32(0x80000000), bits = _mm512_castps_si512(z);
    const __m512 e = exponential(_mm512_castsi512_ps(_mm512_or_si512(bits, sign))), whole = _mm512_set1_ps(1) + e;
    __m512 large = _mm512_rcp14_ps(whole);
    large = _mm512_mul_ps(large, _mm512_fnmadd_ps(whole, large, _mm512_set1_ps(2)));  // a step of Newton's
    return z * _mm512_mask_mul_ps(large, _mm512_test_epi32_mask(bits, sign), large, e);
}
#endif

inline float silu_slope(float z) {
    float s, rest;
    logistic(z, s, rest);
    return s * (1 + z * rest);
}

}  // namespace numbers
