// Vectors as wide as the processor's, and memory for them.
#include <cstdlib>
#include <memory>

#if defined(__AVX512F__)
const long LANES = 16;
#else
const long LANES = 8;
#endif
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));

using Vectors = std::unique_ptr<Lanes, decltype(&std::free)>;
inline Vectors vectors(long count) { return {(Lanes*)aligned_alloc(64, count * sizeof(Lanes)), &std::free}; }
