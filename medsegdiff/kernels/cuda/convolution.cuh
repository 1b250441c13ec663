// A convolution of float32 values, inside in float32, bfloat16 or float16, with its bias and a residual; and its gradients.

namespace fused {

// A float32 array in type T, while the value lives.
template <class T> struct Narrowed {
    Narrowed(const float* x, int n, int c, int P, bool last) : held(sizeof(T) * n * c * P) {
        enter<T>(x, (T*)held.at, n, c, P, last);
    }
    Scratch held;
};

template <class T>
void narrow_forward(const Shape& shape, Kind kind, const float* x, const float* w, const float* bias, int biases,
                    const float* residual, float* y) {
    const bool last = shape.channels_last();
    const int Q = shape.rise() * shape.run();
    const Narrowed<T> narrow_x(x, shape.n, shape.c, shape.h * shape.w, last);
    const Narrowed<T> narrow_w(w, shape.k, shape.c, shape.r * shape.s, last);
    const Scratch out(sizeof(T) * shape.n * shape.k * Q);
    convolve(shape, kind, last, FORWARD, narrow_x.held.at, narrow_w.held.at, out.at);
    leave<T>((const T*)out.at, bias, residual, y, shape.n, shape.k, Q, biases, last);
}

template <class T>
void narrow_backward(const Shape& shape, Kind kind, const float* x, const float* w, const float* dy, float* dx,
                     float* dw) {
    const bool last = shape.channels_last();
    const int P = shape.h * shape.w, Q = shape.rise() * shape.run(), R = shape.r * shape.s;
    const Narrowed<T> narrow_dy(dy, shape.n, shape.k, Q, last);
    {
        const Narrowed<T> narrow_w(w, shape.k, shape.c, R, last);
        const Scratch out(sizeof(T) * shape.n * shape.c * P);
        convolve(shape, kind, last, TO_INPUT, narrow_w.held.at, narrow_dy.held.at, out.at);
        leave<T>((const T*)out.at, nullptr, nullptr, dx, shape.n, shape.c, P, 1, last);
    }
    const Narrowed<T> narrow_x(x, shape.n, shape.c, P, last);
    const Scratch out(sizeof(T) * shape.k * shape.c * R);
    convolve(shape, kind, last, TO_WEIGHT, narrow_x.held.at, narrow_dy.held.at, out.at);
    leave<T>((const T*)out.at, nullptr, nullptr, dw, shape.k, shape.c, R, 1, last);
}

// bias (biases,) or null; residual, as y, or null.
inline void convolution_forward(const Shape& shape, Kind kind, const float* x, const float* w, const float* bias,
                                int biases, const float* residual, float* y) {
    if (kind == BF16) return narrow_forward<__nv_bfloat16>(shape, kind, x, w, bias, biases, residual, y);
    if (kind == FP16) return narrow_forward<__half>(shape, kind, x, w, bias, biases, residual, y);
    convolve(shape, kind, false, FORWARD, x, w, y);
    if (bias || residual) bias_forward(y, bias, residual, y, shape.n * shape.k, shape.rise() * shape.run(), biases);
}

// dbias (biases,) or null.
inline void convolution_backward(const Shape& shape, Kind kind, const float* x, const float* w, const float* dy,
                                 float* dx, float* dw, float* dbias, int biases) {
    if (dbias) bias_backward(dy, dbias, shape.n * shape.k, shape.rise() * shape.run(), biases);
    if (kind == BF16) return narrow_backward<__nv_bfloat16>(shape, kind, x, w, dy, dx, dw);
    if (kind == FP16) return narrow_backward<__half>(shape, kind, x, w, dy, dx, dw);
    convolve(shape, kind, false, TO_INPUT, w, dy, dx);
    convolve(shape, kind, false, TO_WEIGHT, x, dy, dw);
}

}  // namespace fused
