// Winograd's transforms F(4x4, 3x3) and F(2x2, 3x3), of 16 tiles at a time in vectors of 512 bits.
#if WITH_WINOGRAD

namespace convolution {
namespace winograd {

const float A = 0.625f, B = 1.5f;  // what F(4x4, 3x3) evaluates polynomials at, beside 0 and infinity: +-A, +-B
const float AT_0 = 1 / (A * A * B * B);
const float AT_A = 1 / (2 * A * A * (A * A - B * B)), AT_B = 1 / (2 * B * B * (B * B - A * A));

inline __m512 all(float value) { return _mm512_set1_ps(value); }

inline void add(__m512 sum, bool begins, float* to) {
    _mm512_store_ps(to, begins ? sum : _mm512_add_ps(_mm512_load_ps(to), sum));
}

// The transforms along one axis: of pixels, of weights, and of products.
inline void transform(const __m512 (&x)[6], __m512 (&to)[6]) {
    const __m512 t = _mm512_fnmadd_ps(all(B * B), x[2], x[4]), q = _mm512_fnmadd_ps(all(B * B), x[1], x[3]);
    const __m512 u = _mm512_fnmadd_ps(all(A * A), x[2], x[4]), r = _mm512_fnmadd_ps(all(A * A), x[1], x[3]);
    to[0] = _mm512_fmadd_ps(all(A * A * B * B), x[0], _mm512_fnmadd_ps(all(A * A + B * B), x[2], x[4]));
    to[1] = _mm512_fmadd_ps(all(A), q, t);
    to[2] = _mm512_fnmadd_ps(all(A), q, t);
    to[3] = _mm512_fmadd_ps(all(B), r, u);
    to[4] = _mm512_fnmadd_ps(all(B), r, u);
    to[5] = _mm512_fmadd_ps(all(A * A * B * B), x[1], _mm512_fnmadd_ps(all(A * A + B * B), x[3], x[5]));
}

inline void transform(const __m512 (&w)[3], __m512 (&to)[6]) {
    const __m512 a = _mm512_fmadd_ps(all(A * A), w[2], w[0]), b = _mm512_fmadd_ps(all(B * B), w[2], w[0]);
    to[0] = _mm512_mul_ps(all(AT_0), w[0]);
    to[1] = _mm512_mul_ps(all(AT_A), _mm512_fmadd_ps(all(A), w[1], a));
    to[2] = _mm512_mul_ps(all(AT_A), _mm512_fnmadd_ps(all(A), w[1], a));
    to[3] = _mm512_mul_ps(all(AT_B), _mm512_fmadd_ps(all(B), w[1], b));
    to[4] = _mm512_mul_ps(all(AT_B), _mm512_fnmadd_ps(all(B), w[1], b));
    to[5] = w[2];
}

inline void transform(const __m512 (&m)[6], __m512 (&to)[4]) {
    const __m512 p = _mm512_add_ps(m[1], m[2]), q = _mm512_sub_ps(m[1], m[2]);
    const __m512 r = _mm512_add_ps(m[3], m[4]), s = _mm512_sub_ps(m[3], m[4]);
    to[0] = _mm512_add_ps(m[0], _mm512_add_ps(p, r));
    to[1] = _mm512_fmadd_ps(all(A), q, _mm512_mul_ps(all(B), s));
    to[2] = _mm512_fmadd_ps(all(A * A), p, _mm512_mul_ps(all(B * B), r));
    to[3] = _mm512_fmadd_ps(all(A * A * A), q, _mm512_fmadd_ps(all(B * B * B), s, m[5]));
}

// The same of F(2x2, 3x3), which evaluates at 0, 1, -1 and infinity.
inline void transform(const __m512 (&x)[4], __m512 (&to)[4]) {
    to[0] = _mm512_sub_ps(x[0], x[2]);
    to[1] = _mm512_add_ps(x[1], x[2]);
    to[2] = _mm512_sub_ps(x[2], x[1]);
    to[3] = _mm512_sub_ps(x[1], x[3]);
}

inline void transform(const __m512 (&w)[3], __m512 (&to)[4]) {
    const __m512 ends = _mm512_mul_ps(all(0.5f), _mm512_add_ps(w[0], w[2])), middle = _mm512_mul_ps(all(0.5f), w[1]);
    to[0] = w[0];
    to[1] = _mm512_add_ps(ends, middle);
    to[2] = _mm512_sub_ps(ends, middle);
    to[3] = w[2];
}

inline void transform(const __m512 (&m)[4], __m512 (&to)[2]) {
    to[0] = _mm512_add_ps(m[0], _mm512_add_ps(m[1], m[2]));
    to[1] = _mm512_sub_ps(_mm512_sub_ps(m[1], m[2]), m[3]);
}

// The other way, of gradients by F(4x4, 3x3): of pixels, and of weights.
inline void transform(const __m512 (&y)[4], __m512 (&to)[6]) {
    const __m512 a = _mm512_fmadd_ps(all(A * A), y[2], y[0]), c = _mm512_fmadd_ps(all(A * A), y[3], y[1]);
    const __m512 b = _mm512_fmadd_ps(all(B * B), y[2], y[0]), d = _mm512_fmadd_ps(all(B * B), y[3], y[1]);
    to[0] = y[0];
    to[1] = _mm512_fmadd_ps(all(A), c, a);
    to[2] = _mm512_fnmadd_ps(all(A), c, a);
    to[3] = _mm512_fmadd_ps(all(B), d, b);
    to[4] = _mm512_fnmadd_ps(all(B), d, b);
    to[5] = y[3];
}

inline void transform(const __m512 (&u)[6], __m512 (&to)[3]) {
    const __m512 p = _mm512_mul_ps(all(AT_A), _mm512_add_ps(u[1], u[2]));
    const __m512 q = _mm512_mul_ps(all(AT_A), _mm512_sub_ps(u[1], u[2]));
    const __m512 r = _mm512_mul_ps(all(AT_B), _mm512_add_ps(u[3], u[4]));
    const __m512 s = _mm512_mul_ps(all(AT_B), _mm512_sub_ps(u[3], u[4]));
    to[0] = _mm512_fmadd_ps(all(AT_0), u[0], _mm512_add_ps(p, r));
    to[1] = _mm512_fmadd_ps(all(A), q, _mm512_mul_ps(all(B), s));
    to[2] = _mm512_fmadd_ps(all(A * A), p, _mm512_fmadd_ps(all(B * B), r, u[5]));
}

// Along both axes: `from` in rows of `N`.
template <int N, int M>
inline __attribute__((always_inline)) void both(const __m512 (&from)[N][N], __m512 (&to)[M][M]) {
    __m512 half[M][N];
    #pragma GCC unroll 6
    for (int x = 0; x < N; x++) {
        __m512 column[N], turned[M];
        #pragma GCC unroll 6
        for (int y = 0; y < N; y++) column[y] = from[y][x];
        transform(column, turned);
        #pragma GCC unroll 6
        for (int y = 0; y < M; y++) half[y][x] = turned[y];
    }
    #pragma GCC unroll 6
    for (int y = 0; y < M; y++) transform(half[y], to[y]);
}

// Every fourth of 64 numbers, from the first `N` on.
template <int N> void apart(const __m512 (&from)[RUNS], __m512 (&to)[N]) {
    const __m512i low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    for (int k = 0; k < N; k += 2) {
        const __m512i index = _mm512_add_epi32(low, _mm512_set1_epi32(k));
        const __m512 a = _mm512_permutex2var_ps(from[0], index, from[1]);
        const __m512 b = _mm512_permutex2var_ps(from[2], index, from[3]);
        to[k] = _mm512_shuffle_f32x4(a, b, 0x44);
        to[k + 1] = _mm512_shuffle_f32x4(a, b, 0xee);
    }
}

// The other way.
inline void together(const __m512 (&from)[4], __m512 (&to)[4]) {
    const __m512i pairs = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i fours = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    for (int half = 0; half < 2; half++) {
        const __m512i index = _mm512_add_epi32(pairs, _mm512_set1_epi32(8 * half));
        const __m512d a = _mm512_castps_pd(_mm512_permutex2var_ps(from[0], index, from[1]));
        const __m512d b = _mm512_castps_pd(_mm512_permutex2var_ps(from[2], index, from[3]));
        for (int k = 0; k < 2; k++) {
            const __m512i at = _mm512_add_epi64(fours, _mm512_set1_epi64(4 * k));
            to[2 * half + k] = _mm512_castpd_ps(_mm512_permutex2var_pd(a, at, b));
        }
    }
}

// Of tiles two pixels wide.
inline void together(const __m512 (&from)[2], __m512 (&to)[2]) {
    const __m512i pairs = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    to[0] = _mm512_permutex2var_ps(from[0], pairs, from[1]);
    to[1] = _mm512_permutex2var_ps(from[0], _mm512_add_epi32(pairs, _mm512_set1_epi32(8)), from[1]);
}

// A row of spots of four runs, each of which begins at `from`.
inline void finish(Wide, const float* (&from)[RUNS], long, __m512 (&spots)[6]) {
    __m512 near[RUNS], far[RUNS], four[4], two[2];
    for (long k = 0; k < RUNS; k++) {
        near[k] = _mm512_loadu_ps(from[k]);
        far[k] = _mm512_loadu_ps(from[k] + Wide::SIDE);
    }
    apart(near, four);
    apart(far, two);
    transform({four[0], four[1], four[2], four[3], two[0], two[1]}, spots);
}

#if WITH_LOW_WINOGRAD
// The same of a pair of inputs, `next` numbers apart.
inline void finish(Low, const float* (&from)[RUNS], long next, __m512 (&spots)[4]) {
    const __m512i even = _mm512_setr_epi32(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const auto load = [&](long k, long at) {
        const __m512d low = _mm512_castpd256_pd512(_mm256_castps_pd(_mm256_loadu_ps(from[k] + at)));
        return _mm512_castpd_ps(_mm512_insertf64x4(low, _mm256_castps_pd(_mm256_loadu_ps(from[k + 1] + at)), 1));
    };
    __m512 half[2][4];
    for (long k = 0; k < 2; k++) {  // eight tiles of both inputs side by side
        const __m512 near = load(2 * k, 0), far = load(2 * k, 2);
        const __m512 near_2 = load(2 * k, next), far_2 = load(2 * k, next + 2);
        transform(
            {_mm512_permutex2var_ps(near, even, near_2), _mm512_permutex2var_ps(near, odd, near_2),
             _mm512_permutex2var_ps(far, even, far_2), _mm512_permutex2var_ps(far, odd, far_2)},
            half[k]);
    }
    for (long x = 0; x < 4; x++) spots[x] = (__m512)_mm512_cvtne2ps_pbh(half[1][x], half[0][x]);
}
#endif

}  // namespace winograd
}  // namespace convolution
#endif
