// CUDA's words for a CPU: each thread of a block is a fiber, and blocks run one after the other.
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static

namespace emulated {

struct Place {
    int x;
};

struct Block {
    ucontext_t host;
    std::vector<ucontext_t> fibers;
    std::vector<std::vector<char>> stacks;
    std::vector<int> passed;  // barriers that each thread came to
    std::vector<bool> over;
    std::function<void()> body;
    long launches = 0;
};

inline Block& block() {
    static Block held;
    return held;
}

}  // namespace emulated

static emulated::Place threadIdx, blockIdx, gridDim;

namespace emulated {

inline void enter() {
    block().body();
    block().over[threadIdx.x] = true;
}

inline void run(int blocks, int threads, std::function<void()> body) {
    Block& b = block();
    b.body = body;
    b.launches++;
    b.fibers.resize(threads);
    b.stacks.resize(threads, std::vector<char>(1 << 16));
    gridDim.x = blocks;
    for (int number = 0; number < blocks; number++) {
        b.passed.assign(threads, 0);
        b.over.assign(threads, false);
        for (int thread = 0; thread < threads; thread++) {
            getcontext(&b.fibers[thread]);
            b.fibers[thread].uc_stack = {b.stacks[thread].data(), 0, b.stacks[thread].size()};
            b.fibers[thread].uc_link = &b.host;
            makecontext(&b.fibers[thread], (void (*)())enter, 0);
        }
        for (bool active = true; active;) {  // from one barrier to the next; odd rounds the other way round
            active = false;
            const bool backwards = b.passed[0] % 2;
            for (int turn = 0; turn < threads; turn++) {
                const int thread = backwards ? threads - 1 - turn : turn;
                if (b.over[thread]) continue;
                threadIdx.x = thread;
                blockIdx.x = number;
                swapcontext(&b.host, &b.fibers[thread]);
                active = true;
            }
            for (int thread = 1; thread < threads; thread++)
                if (b.passed[thread] != b.passed[0]) {
                    std::fprintf(stderr, "a barrier that not all threads come to\n");
                    std::abort();
                }
        }
    }
}

}  // namespace emulated

inline void __syncthreads() {
    emulated::Block& b = emulated::block();
    const int thread = threadIdx.x, number = blockIdx.x;
    b.passed[thread]++;
    swapcontext(&b.fibers[thread], &b.host);
    threadIdx.x = thread;
    blockIdx.x = number;
}

#define LAUNCH(kernel, blocks, ...) \
    emulated::run(blocks, fused::THREADS, [&] { kernel(__VA_ARGS__); })
