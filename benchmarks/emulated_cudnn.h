// In place of cuDNN, for a CPU: a convolution by its definition, and the short types.
// A float that is stored in sixteen bits, with so many of its fraction.
template <int FRACTION> struct Short {
    Short(float x) {
        int exponent;
        const float fraction = std::frexp(x, &exponent);
        held = std::isfinite(x) ? std::ldexp(std::nearbyint(std::ldexp(fraction, FRACTION)), exponent - FRACTION) : x;
    }
    operator float() const { return held; }
    float held;
};
using __nv_bfloat16 = Short<8>;
using __half = Short<11>;

namespace fused {

struct Scratch {
    explicit Scratch(size_t size) : at(std::malloc(size)) {}
    Scratch(const Scratch&) = delete;
    ~Scratch() { std::free(at); }
    void* at;
};

// A convolution by its definition, in place of cuDNN's.
template <class T>
void convolve_as(const Shape& s, bool last, Direction direction, const T* a, const T* b, T* out) {
    const T *x = a, *w = direction == TO_INPUT ? a : b, *y = b;
    const int rise = s.rise(), run = s.run(), P = s.h * s.w, Q = rise * run, R = s.r * s.s;
    const long counts[] = {(long)s.n * s.k * Q, (long)s.n * s.c * P, (long)s.k * s.c * R};
    std::vector<double> sums(counts[direction]);
    auto at = [last](int sample, int channel, int place, int channels, int places) {
        return last ? ((long)sample * places + place) * channels + channel
                    : ((long)sample * channels + channel) * places + place;
    };
    for (int n = 0; n < s.n; n++)
        for (int k = 0; k < s.k; k++)
            for (int c = 0; c < s.c; c++)
                for (int q = 0; q < Q; q++)
                    for (int r = 0; r < R; r++) {
                        const int i = q / run * s.stride - s.padding + r / s.s;
                        const int j = q % run * s.stride - s.padding + r % s.s;
                        if (i < 0 || j < 0 || i >= s.h || j >= s.w) continue;
                        const long in_x = at(n, c, i * s.w + j, s.c, P), in_w = at(k, c, r, s.c, R);
                        const long in_y = at(n, k, q, s.k, Q);
                        if (direction == FORWARD) sums[in_y] += (double)x[in_x] * w[in_w];
                        if (direction == TO_INPUT) sums[in_x] += (double)w[in_w] * y[in_y];
                        if (direction == TO_WEIGHT) sums[in_w] += (double)x[in_x] * y[in_y];
                    }
    for (size_t i = 0; i < sums.size(); i++) out[i] = T((float)sums[i]);
}

inline void convolve(const Shape& shape, Kind kind, bool last, Direction direction, const void* a, const void* b,
                     void* out) {
    if (kind == FP32)
        convolve_as(shape, last, direction, (const float*)a, (const float*)b, (float*)out);
    else if (kind == BF16)
        convolve_as(shape, last, direction, (const __nv_bfloat16*)a, (const __nv_bfloat16*)b, (__nv_bfloat16*)out);
    else
        convolve_as(shape, last, direction, (const __half*)a, (const __half*)b, (__half*)out);
}

}  // namespace fused
