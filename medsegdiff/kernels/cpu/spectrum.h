// Attention of maps by their spectra, of one head of one sample, and its gradients; see `operations.spectral_attention`.
//
// Matrices lie row by row. Of T places, a complex map is a row of W = 2 T numbers, real parts first. The transform F acts on
// places and products sum over channels, so F q (F k)^T = F (q k^T) F^T: small matrices are transformed, not their factors.
#include <algorithm>
#include <cmath>
#include <vector>

namespace spectrum {

using Numbers = std::vector<float>;

// The orthonormal DFT along the rows of a complex matrix (T, W), whose rows are places: along one axis, then the other.
class Fourier {
public:
    Fourier(long height, long width) : T(height * width), W(2 * T), axes{{height, width}, {width, 1}}, half(T * W) {}

    void forward(Numbers& matrix) { both(matrix, 1); }
    void inverse(Numbers& matrix) { both(matrix, -1); }

private:
    struct Axis {
        long length, step;  // from one row to the next along it
        Numbers cos, sin;

        Axis(long length, long step) : length(length), step(step) {
            for (long k = 0; k < length; k++) {
                cos.push_back(std::cos(2 * M_PI * k / length) / std::sqrt((double)length));
                sin.push_back(std::sin(2 * M_PI * k / length) / std::sqrt((double)length));
            }
        }
    };

    const long T, W;
    const Axis axes[2];
    Numbers half;

    void both(Numbers& matrix, float sign) {
        along(axes[0], sign, matrix.data(), half.data());
        along(axes[1], sign, half.data(), matrix.data());
    }

    void along(const Axis& axis, float sign, const float* from, float* to) const {
        std::fill_n(to, T * W, 0.f);
        for (long row = 0; row < T; row++) {
            const long place = row / axis.step % axis.length, first = row - place * axis.step;
            float *__restrict__ real = to + row * W, *__restrict__ imaginary = real + T;
            for (long k = 0; k < axis.length; k++) {
                const float c = axis.cos[place * k % axis.length], s = sign * axis.sin[place * k % axis.length];
                const float *re = from + (first + k * axis.step) * W, *im = re + T;
                for (long j = 0; j < T; j++) {
                    real[j] += c * re[j] + s * im[j];
                    imaginary[j] += c * im[j] - s * re[j];
                }
            }
        }
    }
};

class Head {
public:
    // `depth` channels of query and key, `values` of what is taken.
    Head(long depth, long values, long height, long width, bool softmax)
        : D(depth), V(values), T(height * width), W(2 * T), scale(1 / std::sqrt((float)depth)), softmax(softmax),
          fourier(height, width), products(T * W), turned(T * W), scores(T * W), affinity(T * T) {}

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
        Numbers pull(T * T);
        dnnl_sgemm('T', 'N', T, T, V, 1, value, T, dy, T, 0, pull.data(), T);
        if (softmax) back_from_shares(pull);
        std::fill(scores.begin(), scores.end(), 0.f);
        for (long i = 0; i < T; i++) std::copy_n(pull.data() + i * T, T, scores.data() + i * W);
        transform(scores, &Fourier::forward);
        back_from_scores(gain, dgain);
        transform(scores, &Fourier::inverse);
        const float *of_real = scores.data(), *of_imaginary = of_real + T;
        dnnl_sgemm('N', 'N', D, W, T, scale, key, W, of_real, W, 0, dquery, W);
        dnnl_sgemm('N', 'N', D, T, T, scale, key + T, W, of_imaginary, W, 1, dquery, W);
        dnnl_sgemm('N', 'N', D, T, T, -scale, key + T, W, of_real, W, 1, dquery + T, W);
        dnnl_sgemm('N', 'T', D, T, W, scale, query, W, of_real, W, 0, dkey, W);
        dnnl_sgemm('N', 'T', D, T, T, scale, query, W, of_imaginary, W, 0, dkey + T, W);
        dnnl_sgemm('N', 'T', D, T, T, -scale, query + T, W, of_real, W, 1, dkey + T, W);
    }

private:
    const long D, V, T, W;
    const float scale;
    const bool softmax;
    Fourier fourier;
    Numbers products, turned, scores;  // complex (T, W); `products` ends as the spectrum before gain or sine
    Numbers affinity;                  // (T, T): a column is what a place takes

    void relate(const float* query, const float* key, const float* gain) {
        float* real = products.data();
        dnnl_sgemm('T', 'N', T, W, D, scale, key, W, query, W, 0, real, W);
        dnnl_sgemm('T', 'N', T, T, D, -scale, key + T, W, query + T, W, 1, real, W);
        dnnl_sgemm('T', 'N', T, T, D, scale, key + T, W, query, W, 1, real + T, W);
        transform(products, &Fourier::forward);
        for (long i = 0; i < T; i++) {
            const float* row = products.data() + i * W;
            float* score = scores.data() + i * W;
            if (gain) for (long j = 0; j < T; j++) score[j] = row[j] * gain[i * T + j];
            if (gain) for (long j = 0; j < T; j++) score[T + j] = row[T + j] * gain[i * T + j];
            else for (long j = 0; j < W; j++) score[j] = std::sin(row[j]);
        }
        transform(scores, &Fourier::inverse);
        for (long i = 0; i < T; i++) std::copy_n(scores.data() + i * W, T, affinity.data() + i * T);
        if (softmax) share();
    }

    // F A^T F^T, or back, in place of the complex matrix A.
    void transform(Numbers& matrix, void (Fourier::*way)(Numbers&)) {
        (fourier.*way)(matrix);
        turn(matrix, turned);
        matrix.swap(turned);
        (fourier.*way)(matrix);
    }

    void turn(const Numbers& from, Numbers& to) const {
        const long block = 16;  // rows and columns that stay in the first cache
        for (long part = 0; part < W; part += T)
            for (long i = 0; i < T; i += block)
                for (long j = 0; j < T; j += block)
                    for (long k = i; k < std::min(i + block, T); k++)
                        for (long l = j; l < std::min(j + block, T); l++) to[part + l * W + k] = from[part + k * W + l];
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

    // In place of the gradient of `scores`, that of `products`, and the gain's.
    void back_from_scores(const float* gain, float* dgain) {
        for (long i = 0; i < T; i++) {
            const float* row = products.data() + i * W;
            float* d = scores.data() + i * W;
            for (long j = 0; gain && j < T; j++) {
                dgain[i * T + j] = d[j] * row[j] + d[T + j] * row[T + j];
                d[j] *= gain[i * T + j];
                d[T + j] *= gain[i * T + j];
            }
            for (long j = 0; !gain && j < W; j++) d[j] *= std::cos(row[j]);
        }
    }
};

}  // namespace spectrum
