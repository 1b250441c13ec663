// The kernels' entries under plain names; compiled after the kernels themselves.
using namespace fused;

extern "C" {

void norm_forward_of(const float* x, const float* w, const float* b, float* y, float* statistics, int N, int C, int P,
                     int groups, int silu, int weights) {
    norm_forward(x, w, b, y, statistics, Units{N, C, P, groups, weights}, silu);
}

void norm_backward_of(const float* x, const float* w, const float* b, const float* statistics, const float* dy,
                      float* dx, float* dw, float* db, int N, int C, int P, int groups, int silu, int weights) {
    norm_backward(x, w, b, statistics, dy, dx, dw, db, Units{N, C, P, groups, weights}, silu);
}

void norm_backward_shared_of(const float* x, const float* w, const float* b, const float* statistics, const float* dy,
                             float* dx, float* dw, float* db, float* parts, int N, int C, int P, int groups, int silu) {
    norm_backward_shared(x, w, b, statistics, dy, dx, dw, db, parts, Units{N, C, P, groups, C}, silu);
}

void bias_forward_of(const float* x, const float* bias, const float* residual, float* y, int rows, int P, int biases) {
    bias_forward(x, bias, residual, y, rows, P, biases);
}

void bias_backward_of(const float* dy, float* dbias, int rows, int P, int biases) {
    bias_backward(dy, dbias, rows, P, biases);
}

void softmax_forward_of(const float* x, float* p, long rows, int T) { softmax_forward(x, p, rows, T); }

void softmax_backward_of(const float* p, const float* dp, float* dx, long rows, int T) {
    softmax_backward(p, dp, dx, rows, T);
}

// `values` are those of one array after the other, of each kind in an array of its own.
void adamw_of(float* g, float* p, float* m, float* v, const int* sizes, const float* keep, int count,
              const float* numbers) {
    Arrays<4> arrays = {};
    long start = 0;
    for (int i = 0; i < count; start += sizes[i++]) {
        float* kinds[] = {g, p, m, v};
        for (int kind = 0; kind < 4; kind++) arrays.at[kind][i] = kinds[kind] + start;
        arrays.add(sizes[i], keep[i]);
    }
    const float* n = numbers;
    adamw_all(arrays, Numbers{n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]});
}

void approach_of(float* value, float* average, const int* sizes, int count, float share) {
    Arrays<2> arrays = {};
    long start = 0;
    for (int i = 0; i < count; start += sizes[i++]) {
        arrays.at[0][i] = value + start;
        arrays.at[1][i] = average + start;
        arrays.add(sizes[i]);
    }
    approach_all(arrays, share);
}

int squares_of(float* value, const int* sizes, int count, double* sums) {
    Arrays<1> arrays = {};
    long start = 0;
    for (int i = 0; i < count; start += sizes[i++]) {
        arrays.at[0][i] = value + start;
        arrays.add(sizes[i]);
    }
    squares_all(arrays, sums);
    return arrays.blocks();
}

#ifndef __CUDACC__
long launches() { return emulated::block().launches; }
#endif

}
