// What Winograd's transforms work on: 16 tiles of a map in a vector of 512 bits, four runs of four tiles side by side.
#include <omp.h>
#if defined(__AVX512F__)
#define WITH_WINOGRAD 1
#if defined(__AVX512BF16__)
#define WITH_LOW_WINOGRAD 1
#else
#define WITH_LOW_WINOGRAD 0
#endif

namespace convolution {
namespace winograd {

const long RUNS = 4;  // of a vector, each of as many tiles

template <long S, long D> struct Form {
    enum : long {
        SIDE = S,                    // of the pixels that result of a tile
        ACROSS = S + 2,              // of those that enter it, and of their sums
        SPOTS = ACROSS * ACROSS,     // sums
        DEEP = D,                    // inputs in 32 bits
        NEAR = 64 * D,               // numbers of 32 bits that are summed at a time
        RUN = RUNS * S,              // pixels
        STRIPS = RUN * RUNS / TILE,  // vectors of pixels in a line of a vector's tiles
    };
};
// In float32 F(4x4, 3x3); in bfloat16, whose rounding that would amplify too much, F(2x2, 3x3). `part`: vectors that go
// through all steps at a time, where a sample has so many.
struct Wide : Form<4, 1> {
    static long part(long) { return 8; }
};
struct Low : Form<2, 2> {
    static long part(long vectors) { return vectors > 4 ? 16 : 4; }
};

template <class F> struct Layout {
    long samples, inputs, outputs, height, width, of_row, tile_rows, runs, vectors, rounded;
    long deep;                               // numbers of 32 bits that inputs take
    long part;                               // vectors that go through all steps at a time
    long beside;                             // runs that lie side by side in a vector of pixels, wherever it begins
    long of_inputs, of_outputs, of_weights;  // from one spot's numbers to the next one's; a line more than there are
    long pitch;                              // of lines with a zero before them, and what is read too much behind

    Layout(const Geometry& g, bool turned)
        : samples(g.samples), inputs(turned ? g.outputs : g.inputs), outputs(turned ? g.inputs : g.outputs),
          height(g.height), width(g.width), of_row((width + F::RUN - 1) / F::RUN),
          tile_rows((height + F::SIDE - 1) / F::SIDE), runs(tile_rows * of_row), vectors((runs + RUNS - 1) / RUNS),
          rounded((outputs + 3) / 4 * 4), deep((inputs + F::DEEP - 1) / F::DEEP), part(F::part(vectors)),
          beside(of_row % (TILE / F::RUN) ? 1 : TILE / F::RUN), of_inputs((deep + 3) / 4 * 4 * TILE + TILE),
          of_outputs(rounded * part * TILE + TILE), of_weights(rounded * deep + TILE),
          pitch((of_row * F::RUN + F::SIDE + TILE - 1) / TILE * TILE) {}
    long area() const { return height * width; }
    // The same for so many outputs from the one numbered `first` on, or what is left of them.
    Layout some(long first, long count) const {
        Layout found = *this;
        found.outputs = std::min(count, outputs - first);
        found.rounded = (found.outputs + 3) / 4 * 4;
        found.of_weights = found.rounded * deep + TILE;
        return found;
    }
    size_t weight_bytes() const { return sizeof(float) * F::SPOTS * of_weights; }
    // Rows of tiles that vectors of a sample share in, `first` to `last`.
    long top(long first) const { return first * RUNS / of_row; }
    long bottom(long last) const { return (std::min(last * RUNS, runs) - 1) / of_row + 1; }
    long most_rows() const { return std::min(tile_rows, part * RUNS / of_row + 2); }
    // Numbers that a thread works with for an input.
    long lines() const { return (most_rows() * F::SIDE + 2) * pitch; }
    long own() const { return lines() + most_rows() * F::ACROSS * pitch + TILE; }
};

// Room for so many numbers, kept from call to call.
enum Room { WEIGHTS, LINES, RESULTS, PULLS, OWN };
inline float* room_for(Room which, long numbers) {
    static Scratch rooms[OWN + 1];
    return static_cast<float*>(rooms[which].at_least(sizeof(float) * numbers));
}

// Vectors of one sample: `first` to `last` of its own.
struct Section {
    long sample, first, last;

    template <class L> Section(const L& l, long vector, long end)
        : sample(vector / l.vectors), first(vector % l.vectors), last(std::min(l.vectors, first + end - vector)) {}
    long count() const { return last - first; }
};

}  // namespace winograd
}  // namespace convolution
#endif
