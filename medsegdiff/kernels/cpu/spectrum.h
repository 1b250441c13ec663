// Attention of maps by their spectra, of one head of one sample, and its gradients; see `operations.spectral_attention`.
//
// Matrices lie row by row. Of T places, a complex map is a row of W = 2 T numbers, real parts first.
#include <algorithm>
#include <cmath>
#include <vector>

namespace spectrum {

using Numbers = std::vector<float>;

class Head {
public:
    // `depth` channels of query and key, `values` of what is taken; a row times `matrix` (W, W) is its spectrum.
    Head(long depth, long values, long places, bool softmax, const float* matrix)
        : D(depth), V(values), T(places), W(2 * places), scale(1 / std::sqrt((float)depth)), softmax(softmax),
          matrix(matrix), q(D * W), k(D * W), products(W * W), plain(T * W), scores(T * W), half(T * W),
          affinity(T * T) {}

    // y (V, T); `gain` (T, T), or null for the sine.
    void forward(const float* query, const float* key, const float* value, const float* gain, float* y) {
        relate(query, key, gain);
        dnnl_sgemm('N', 'N', V, T, T, 1, value, T, affinity.data(), T, 0, y, T);
    }

    // The gradients; `dgain` is written where there is a gain.
    void backward(
        const float* query, const float* key, const float* value, const float* gain, const float* dy, float* dquery,
        float* dkey, float* dvalue, float* dgain) {
        relate(query, key, gain);
        dnnl_sgemm('N', 'T', V, T, T, 1, dy, T, affinity.data(), T, 0, dvalue, T);
        Numbers pull(T * T), of_q(D * W);
        dnnl_sgemm('T', 'N', T, T, V, 1, value, T, dy, T, 0, pull.data(), T);
        if (softmax) back_from_shares(pull);
        for (long part = 0; part < W; part += T)
            dnnl_sgemm('T', 'T', T, T, T, 1, matrix + part, W, pull.data(), T, 0, half.data() + part, W);
        dnnl_sgemm('N', 'N', T, W, W, 1, half.data(), W, matrix, W, 0, scores.data(), W);
        back_from_scores(gain, dgain);
        dnnl_sgemm('N', 'T', D, W, W, scale, k.data(), W, products.data(), W, 0, of_q.data(), W);
        dnnl_sgemm('N', 'N', D, W, W, scale, q.data(), W, products.data(), W, 0, k.data(), W);
        dnnl_sgemm('N', 'T', D, W, W, 1, of_q.data(), W, matrix, W, 0, dquery, W);
        dnnl_sgemm('N', 'T', D, W, W, 1, k.data(), W, matrix, W, 0, dkey, W);
    }

private:
    const long D, V, T, W;
    const float scale;
    const bool softmax;
    const float* matrix;
    Numbers q, k;              // spectra (D, W)
    Numbers products;          // of real and imaginary parts, all four (W, W); in `backward` then their gradient
    Numbers plain, scores;     // the complex products (T, W), before and after gain or sine
    Numbers half, affinity;    // back on one side (T, W), on both (T, T): a column is what a place takes

    void relate(const float* query, const float* key, const float* gain) {
        dnnl_sgemm('N', 'N', D, W, W, 1, query, W, matrix, W, 0, q.data(), W);
        dnnl_sgemm('N', 'N', D, W, W, 1, key, W, matrix, W, 0, k.data(), W);
        dnnl_sgemm('T', 'N', W, W, D, scale, q.data(), W, k.data(), W, 0, products.data(), W);
        for (long i = 0; i < T; i++) {
            const float *real = products.data() + i * W, *imaginary = real + T * W;
            float *row = plain.data() + i * W, *score = scores.data() + i * W;
            for (long j = 0; j < T; j++) row[j] = real[j] - imaginary[T + j];
            for (long j = 0; j < T; j++) row[T + j] = real[T + j] + imaginary[j];
            if (gain) for (long j = 0; j < T; j++) score[j] = row[j] * gain[i * T + j];
            if (gain) for (long j = 0; j < T; j++) score[T + j] = row[T + j] * gain[i * T + j];
            else for (long j = 0; j < W; j++) score[j] = std::sin(row[j]);
        }
        dnnl_sgemm('N', 'T', T, W, W, 1, scores.data(), W, matrix, W, 0, half.data(), W);
        for (long part = 0; part < W; part += T)
            dnnl_sgemm('T', 'T', T, T, T, 1, half.data() + part, W, matrix + part, W, part > 0, affinity.data(), T);
        if (softmax) share();
    }

    void share() {
        Numbers top(affinity.begin(), affinity.begin() + T), sum(T);
        for (long i = 0; i < T; i++)
            for (long j = 0; j < T; j++) top[j] = std::max(top[j], affinity[i * T + j]);
        for (long i = 0; i < T; i++)
            for (long j = 0; j < T; j++) sum[j] += affinity[i * T + j] = std::exp(affinity[i * T + j] - top[j]);
        for (long i = 0; i < T; i++)
            for (long j = 0; j < T; j++) affinity[i * T + j] /= sum[j];
    }

    void back_from_shares(Numbers& pull) const {
        Numbers dot(T);
        for (long i = 0; i < T; i++)
            for (long j = 0; j < T; j++) dot[j] += affinity[i * T + j] * pull[i * T + j];
        for (long i = 0; i < T; i++)
            for (long j = 0; j < T; j++) pull[i * T + j] = affinity[i * T + j] * (pull[i * T + j] - dot[j]);
    }

    // From the gradient of `scores`, in its place, to those of the gain and of `products`.
    void back_from_scores(const float* gain, float* dgain) {
        for (long i = 0; i < T; i++) {
            const float* row = plain.data() + i * W;
            float *d = scores.data() + i * W, *real = products.data() + i * W, *imaginary = real + T * W;
            for (long j = 0; gain && j < T; j++) {
                dgain[i * T + j] = d[j] * row[j] + d[T + j] * row[T + j];
                d[j] *= gain[i * T + j];
                d[T + j] *= gain[i * T + j];
            }
            for (long j = 0; !gain && j < W; j++) d[j] *= std::cos(row[j]);
            for (long j = 0; j < T; j++) real[j] = imaginary[T + j] = d[j];
            for (long j = 0; j < T; j++) real[T + j] = imaginary[j] = d[T + j];
            for (long j = 0; j < T; j++) imaginary[T + j] = -imaginary[T + j];
        }
    }
};

}  // namespace spectrum
