// The neural band-pass filter in inference, see `operations.band_pass`: from coordinates to gains without leaving the cache.

namespace convolution {

struct Layer {
    const float *weight, *bias;
};

// gains (places): the logistic function of one sum of all maps at each place.
inline void gather(const float* x, const Norm& norm, long maps, long places, const Layer& last, float* gains) {
    const long strip = 256;  // places whose sums stay in the first cache
    measure(x, norm, 1, maps, places);
    const auto affine = affines(norm, 1, maps);
    #pragma omp parallel for
    for (long first = 0; first < places; first += strip) {
        const long count = std::min(strip, places - first);
        float sums[strip], rest;
        std::fill_n(sums, count, *last.bias);
        for (long i = 0; i < maps; i++) {
            const float* from = x + i * places + first;
            for (long j = 0; j < count; j++) sums[j] += last.weight[i] * affine[i].of<true>(from[j]);
        }
        for (long j = 0; j < count; j++) numbers::logistic(sums[j], gains[first + j], rest);
    }
}

// gains (rows, T, T) of `modulation` (rows, layers, 2, hidden): what each layer's norm has of scale and shift. `g` is the
// geometry of all layers but the first, which has two inputs, and the last, which makes the gains.
inline void band_pass(
    const Geometry& g, const std::vector<Layer>& layers, const float* modulation, long rows, float* gains) {
    static Scratch coordinates, beginning, maps[2];
    const long side = g.height, places = side * side, hidden = g.outputs;
    float* at = (float*)coordinates.at_least(sizeof(float) * 2 * places);
    const double step = 2.0 / std::max(1L, side - 1);
    for (long row = 0; row < side; row++)
        for (long column = 0; column < side; column++) {
            at[row * side + column] = row * step - 1;
            at[places + row * side + column] = column * step - 1;
        }
    float* first = (float*)beginning.at_least(sizeof(float) * hidden * places);
    Geometry narrow = g;
    narrow.inputs = 2;
    narrow.winograd = narrow.own = false;
    forward(narrow, true, at, {}, layers[0].weight, false, layers[0].bias, 1, nullptr, first);
    std::vector<float> scale(hidden);
    float statistics[3];
    const auto next_norm = [&] {
        for (long i = 0; i < hidden; i++) scale[i] = 1 + modulation[i];
        const Norm norm{scale.data(), modulation + hidden, hidden, 1, true, statistics};
        modulation += 2 * hidden;
        return norm;
    };
    for (long row = 0; row < rows; row++) {
        const float* x = first;
        for (size_t k = 1; k + 1 < layers.size(); k++) {
            float* y = (float*)maps[k % 2].at_least(sizeof(float) * hidden * places);
            forward(g, true, x, next_norm(), layers[k].weight, false, layers[k].bias, 1, nullptr, y);
            x = y;
        }
        gather(x, next_norm(), hidden, places, layers.back(), gains + row * places);
    }
}

}  // namespace convolution
