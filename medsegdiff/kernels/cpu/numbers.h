// What kernels need where numbers become very small or very large.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
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

inline float silu_slope(float z) {
    float s, rest;
    logistic(z, s, rest);
    return s * (1 + z * rest);
}

}  // namespace numbers
