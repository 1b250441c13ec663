// Normalisation: the statistics of a unit, and its gradient.
//
// A unit is what has statistics of its own: rows of `area` numbers, `first`, `first + step`, ...; one thread works on it,
// in the same order whatever else is computed. Sums are in float32 over at most 1024 numbers, then in float64, of
// values from which the mean was taken: a norm's gradient is a small difference of large sums. Where float32 overflows,
// and a square does from 2e19, they are taken again in float64. EPS is what is added to a variance.
#include <algorithm>
#include <cmath>

namespace norm {

const double LARGE = 1e37;  // what is larger may have overflowed

struct Unit {
    long first, step, rows, area;

    double count() const { return (double)rows * area; }
    long row(long k) const { return first + k * step; }
};

// normed = (x - about) * rstd - rest: `rest` is what `about` lost to rounding.
struct Statistics {
    float about, rstd, rest;
    double mean, variance;
};

template <class Part> double total(const float* in, const Unit& unit) {
    double sum = 0;
    for (long k = 0; k < unit.rows; k++)
        for (long j = 0; j < unit.area; j += 1024) {
            const float* x = in + unit.row(k) * unit.area;
            const long end = std::min(j + 1024, unit.area);  // in the loop it would be read anew for each number
            Part part = 0;
            for (long e = j; e < end; e++) part += x[e];
            sum += part;
        }
    return sum;
}

template <class Part> void moments(const float* in, const Unit& unit, float about, double& off, double& squares) {
    off = squares = 0;
    for (long k = 0; k < unit.rows; k++)
        for (long j = 0; j < unit.area; j += 1024) {
            const float* x = in + unit.row(k) * unit.area;
            const long end = std::min(j + 1024, unit.area);
            Part part = 0, square = 0;
            for (long e = j; e < end; e++) {
                const Part d = (Part)x[e] - about;
                part += d;
                square += d * d;
            }
            off += part;
            squares += square;
        }
}

inline Statistics statistics(const float* in, const Unit& unit) {
    const double count = unit.count();
    double sum = total<float>(in, unit), off, squares;
    if (numbers::beyond(sum, LARGE)) sum = total<double>(in, unit);
    float about = sum / count;
    moments<float>(in, unit, about, off, squares);
    if (numbers::beyond(squares, LARGE)) moments<double>(in, unit, about, off, squares);
    if (off / count * off > 0.01 * squares) {  // nearly a constant, whose mean was lost to rounding
        about += off / count;
        moments<double>(in, unit, about, off, squares);
    }
    const double mean = off / count, variance = std::max(squares / count - mean * mean, 0.0);
    const float rstd = 1 / std::sqrt(variance + EPS);
    return {about, rstd, (float)(mean * rstd), about + mean, variance};
}

// What a row becomes: (x - about) * scale + shift, and SiLU of that on demand.
struct Affine {
    float about, scale, shift;

    Affine(const Statistics& s, float weight, float bias)
        : about(s.about), scale(s.rstd * weight), shift(bias - s.rest * weight) {}

    template <bool SILU> float of(float x) const {
        const float z = (x - about) * scale + shift;
        return SILU ? numbers::silu(z) : z;
    }

    float of(float x, bool silu) const { return silu ? of<true>(x) : of<false>(x); }

#if defined(__AVX512F__)
    __m512 of(__m512 x, bool silu) const {
        const __m512 z = _mm512_fmadd_ps(x - _mm512_set1_ps(about), _mm512_set1_ps(scale), _mm512_set1_ps(shift));
        return silu ? numbers::silu(z) : z;
    }
#endif
};

// The gradients of a unit. `dw` and `db` are those of weight and bias: for each row, or one for all of them (`shared`).
// There are so many `weights`, and as many biases; where rows are more, they are taken in turns.
template <bool SILU>
void backward(
    const Unit& unit, const Statistics& s, bool shared, const float* x, const float* weight, const float* bias,
    long weights, const float* dy, float* dx, float* dw, float* db) {
    const long area = unit.area;
    double sum_d = 0, sum_dx = 0, unit_dw = 0, unit_db = 0;
    for (long k = 0; k < unit.rows; k++) {
        const long row = unit.row(k), at = shared ? unit.first : row;
        const float* __restrict__ from = x + row * area;
        const float* __restrict__ pull = dy + row * area;
        const float w = weight[at % weights], b = bias[at % weights];
        float* __restrict__ to = dx + row * area;
        double row_dw = 0, row_db = 0;
        for (long j = 0; j < area; j += 1024) {
            const long end = std::min(j + 1024, area);
            float part_w = 0, part_b = 0;
            for (long e = j; e < end; e++) {
                const float normed = (from[e] - s.about) * s.rstd - s.rest;
                float d = pull[e];
                if (SILU) d *= numbers::silu_slope(normed * w + b);
                part_w += d * normed;
                part_b += d;
                to[e] = d * w;
            }
            row_dw += part_w;
            row_db += part_b;
        }
        unit_dw += row_dw;
        unit_db += row_db;
        sum_d += row_db * w;
        sum_dx += row_dw * w;
        dw[at] = shared ? unit_dw : row_dw;
        db[at] = shared ? unit_db : row_db;
    }
    const float mean_d = sum_d / unit.count(), mean_dx = sum_dx / unit.count();
    for (long k = 0; k < unit.rows; k++) {
        const float* __restrict__ from = x + unit.row(k) * area;
        float* __restrict__ to = dx + unit.row(k) * area;
        for (long j = 0; j < area; j++)
            to[j] = s.rstd * (to[j] - mean_d - ((from[j] - s.about) * s.rstd - s.rest) * mean_dx);
    }
}

}  // namespace norm
