// What kernels need where numbers become very small or very large.
#include <algorithm>
#include <cmath>
#if defined(__SSE__)
#include <xmmintrin.h>
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

inline float silu_slope(float z) {
    float s, rest;
    logistic(z, s, rest);
    return s * (1 + z * rest);
}

}  // namespace numbers
