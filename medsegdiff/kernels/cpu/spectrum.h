// Attention of maps by their spectra, of one head of one sample, and its gradients; see `operations.spectral_attention`.
//
// Matrices lie row by row. Of T places, a complex map is a row of W = 2 T numbers, real parts first. The transform F acts on
// places and products sum over channels, so F q (F k)^T = F (q k^T) F^T: small matrices are transformed, not their factors.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace spectrum {

using Numbers = std::vector<float>;

// The orthonormal DFT of each column of a complex matrix (T, W), which is a map, forth or back (`sign` -1).
class Fourier {
public:
    Fourier(long height, long width, int sign)
        : T(height * width), W(2 * T), axes{{height, width, sign}, {width, 1, sign}}, near(vectors(2 * T)),
          half(vectors(2 * T)) {}

    // to = (F from)^T, a vector of columns at a time, which stay in the first cache.
    void operator()(const Numbers& from, Numbers& to) {
        for (long first = 0; first < T; first += LANES) {
            const long count = std::min(LANES, T - first);
            float* columns = (float*)near.get();  // of a row, LANES real parts and LANES imaginary ones
            for (long i = 0; i < 2 * T; i++) {
                float* target = columns + i * LANES;
                const float* source = from.data() + i * T + first;
                if (count < LANES) std::fill(std::copy_n(source, count, target), target + LANES, 0.f);
                else std::memcpy(target, source, sizeof(Lanes));
            }
            along(axes[0], near.get(), half.get());
            along(axes[1], half.get(), near.get());
            for (long j = 0; j < count; j++)
                for (long part = 0; part < 2; part++)
                    for (long i = 0; i < T; i++)
                        to[(first + j) * W + part * T + i] = columns[(2 * i + part) * LANES + j];
        }
    }

private:
    struct Axis {
        long length, step;  // from one place to the next along it
        Numbers cos, sin;   // (length, length)

        Axis(long length, long step, int sign) : length(length), step(step) {
            for (long i = 0; i < length * length; i++) {
                const double angle = 2 * M_PI * (i / length * (i % length) % length) / length;
                cos.push_back(std::cos(angle) / std::sqrt((double)length));
                sin.push_back(sign * std::sin(angle) / std::sqrt((double)length));
            }
        }
    };

    const long T, W;
    const Axis axes[2];
    const Vectors near, half;

    void along(const Axis& axis, const Lanes* from, Lanes* to) const {
        const long whole = axis.length * axis.step;
        for (long first = 0; first < T; first += whole)
            for (long k = 0; k < axis.length; k++)
                for (long i = first; i < first + axis.step; i++) {
                    const float *c = axis.cos.data() + k * axis.length, *s = axis.sin.data() + k * axis.length;
                    Lanes cos_re = {}, sin_im = {}, cos_im = {}, sin_re = {};
                    for (long l = 0; l < axis.length; l++) {
                        const Lanes *x = from + 2 * (i + l * axis.step);
                        cos_re += c[l] * x[0];
                        sin_im += s[l] * x[1];
                        cos_im += c[l] * x[1];
                        sin_re += s[l] * x[0];
                    }
                    Lanes* y = to + 2 * (i + k * axis.step);
                    y[0] = cos_re + sin_im;
                    y[1] = cos_im - sin_re;
                }
    }
};

class Head {
public:
    // `depth` channels of query and key, `values` of what is taken.
    Head(long depth, long values, long height, long width, bool softmax)
        : D(depth), V(values), T(height * width), W(2 * T), scale(1 / std::sqrt((float)depth)), softmax(softmax),
          there(height, width, 1), back(height, width, -1), products(T * W), scores(T * W), turned(T * W),
          affinity(T * T) {}

    // y (V, T); `gain` (T, T), or null for the sine.
    void forward(const float* query, const float* key, const float* value, const float* gain, float* y) {
        relate(query, key, gain);
        dnnl_sgemm('N', 'T', V, T, T, 1, value, T, affinity.data(), T, 0, y, T);
    }

    // The gradients; `dgain` is written where there is a gain.
    void backward(
        const float* query, const float* key, const float* value, const float* gain, const float* dy, float* dquery,
        float* dkey, float* dvalue, float* dgain) {
        relate(query, key, gain);
        dnnl_sgemm('N', 'N', V, T, T, 1, dy, T, affinity.data(), T, 0, dvalue, T);
        Numbers pull(T * T);
        dnnl_sgemm('T', 'N', T, T, V, 1, dy, T, value, T, 0, pull.data(), T);
        if (softmax) back_from_shares(pull);
        std::fill(scores.begin(), scores.end(), 0.f);
        for (long i = 0; i < T; i++) std::copy_n(pull.data() + i * T, T, scores.data() + i * W);
        transform(scores, there);
        back_from_scores(gain, dgain);
        transform(scores, back);
        const float *of_real = scores.data(), *of_imaginary = of_real + T;
        dnnl_sgemm('N', 'T', D, T, W, scale, key, W, of_real, W, 0, dquery, W);
        dnnl_sgemm('N', 'T', D, T, T, scale, key, W, of_imaginary, W, 0, dquery + T, W);
        dnnl_sgemm('N', 'T', D, T, T, -scale, key + T, W, of_real, W, 1, dquery + T, W);
        dnnl_sgemm('N', 'N', D, W, T, scale, query, W, of_real, W, 0, dkey, W);
        dnnl_sgemm('N', 'N', D, T, T, scale, query + T, W, of_imaginary, W, 1, dkey, W);
        dnnl_sgemm('N', 'N', D, T, T, -scale, query + T, W, of_real, W, 1, dkey + T, W);
    }

private:
    const long D, V, T, W;
    const float scale;
    const bool softmax;
    Fourier there, back;
    Numbers products, scores, turned;  // complex (T, W): the spectrum, before and after gain or sine, and room
    Numbers affinity;                  // (T, T): a row is what a place takes

    void relate(const float* query, const float* key, const float* gain) {
        float* real = products.data();
        dnnl_sgemm('T', 'N', T, W, D, scale, query, W, key, W, 0, real, W);
        dnnl_sgemm('T', 'N', T, T, D, -scale, query + T, W, key + T, W, 1, real, W);
        dnnl_sgemm('T', 'N', T, T, D, scale, query + T, W, key, W, 1, real + T, W);
        transform(products, there);
        for (long i = 0; i < T; i++) {
            const float* row = products.data() + i * W;
            float* score = scores.data() + i * W;
            if (gain) for (long j = 0; j < T; j++) score[j] = row[j] * gain[i * T + j];
            if (gain) for (long j = 0; j < T; j++) score[T + j] = row[T + j] * gain[i * T + j];
            else for (long j = 0; j < W; j++) score[j] = std::sin(row[j]);
        }
        transform(scores, back);
        for (long i = 0; i < T; i++) std::copy_n(scores.data() + i * W, T, affinity.data() + i * T);
        if (softmax) share();
    }

    // F M F^T in place of the complex matrix M, or back.
    void transform(Numbers& matrix, Fourier& fourier) {
        fourier(matrix, turned);
        fourier(turned, matrix);
    }

    void share() {
        for (long i = 0; i < T; i++) {
            float *row = affinity.data() + i * T, top = *std::max_element(row, row + T), sum = 0;
            for (long j = 0; j < T; j++) sum += row[j] = std::exp(row[j] - top);
            for (long j = 0; j < T; j++) row[j] /= sum;
        }
    }

    void back_from_shares(Numbers& pull) const {
        for (long i = 0; i < T; i++) {
            const float* row = affinity.data() + i * T;
            float *of_row = pull.data() + i * T, dot = 0;
            for (long j = 0; j < T; j++) dot += row[j] * of_row[j];
            for (long j = 0; j < T; j++) of_row[j] = row[j] * (of_row[j] - dot);
        }
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
