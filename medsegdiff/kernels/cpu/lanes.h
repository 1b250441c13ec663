// Vectors as wide as the processor's, memory for them, and a sum by them.
#include <cstdlib>
#include <memory>

#if defined(__AVX512F__)
const long LANES = 16;
#else
const long LANES = 8;
#endif
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef Lanes Anywhere __attribute__((aligned(sizeof(float)), may_alias));  // wherever numbers may lie

using Vectors = std::unique_ptr<Lanes, decltype(&std::free)>;
inline Vectors vectors(long count) { return {(Lanes*)aligned_alloc(64, count * sizeof(Lanes)), &std::free}; }

// The sum of products of two times so many numbers, in the same order wherever they lie.
inline float dot(const float* a, const float* b, long count) {
    Lanes sums[4] = {};
    const long whole = count / (4 * LANES) * 4 * LANES;
    for (long k = 0; k < whole; k += 4 * LANES)
        for (long j = 0; j < 4; j++) sums[j] += ((const Anywhere*)(a + k))[j] * ((const Anywhere*)(b + k))[j];
    const Lanes sum = sums[0] + sums[1] + (sums[2] + sums[3]);
    float total = 0;
    for (long j = 0; j < LANES; j++) total += sum[j];
    for (long k = whole; k < count; k++) total += a[k] * b[k];
    return total;
}
