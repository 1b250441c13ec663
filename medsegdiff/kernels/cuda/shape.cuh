// What is convolved.

namespace fused {

// x (n, c, h, w), w (k, c, r, s), y (n, k, rise, run).
struct Shape {
    int n, c, h, w, k, r, s, stride, padding;
    int rise() const { return (h + 2 * padding - r) / stride + 1; }
    int run() const { return (w + 2 * padding - s) / stride + 1; }
    // Tensor cores take the channels of a place together: where they come last, cuDNN need not turn them itself.
    bool channels_last() const { return c % 8 == 0 && k % 8 == 0; }
};

enum Kind { FP32, BF16, FP16 };

// y of x and w; dx of w and dy; dw of x and dy.
enum Direction { FORWARD, TO_INPUT, TO_WEIGHT };

}  // namespace fused
