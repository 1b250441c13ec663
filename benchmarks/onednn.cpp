// What oneDNN reaches in the network's convolutions: GFLOP/s by the direct count, for each algorithm and direction.
//
//     g++ -std=c++14 -O2 -fopenmp -I$ENV/include benchmarks/onednn.cpp -L$ENV/lib -ldnnl -Wl,-rpath,$ENV/lib -o onednn
//     ./onednn [batch]
//
// $ENV is the environment that pip installed onednn-cpu-gomp and onednn-devel-cpu-gomp into.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <unordered_map>
#include <vector>
#include <dnnl.hpp>

using dnnl::memory;
using Type = memory::data_type;
using Tag = memory::format_tag;
using Algorithm = dnnl::algorithm;

static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
static dnnl::stream stream(cpu);

struct Layer { long inputs, outputs, size, kernel, stride; };
struct Way { const char* name; Type type; Tag order; Algorithm algorithm; };

static double median_seconds(const std::function<void()>& work) {
    using Clock = std::chrono::steady_clock;
    std::vector<double> seconds;
    for (int turn = 0; turn < 9; turn++) {
        const auto begun = Clock::now();
        work();
        stream.wait();
        if (turn > 1) seconds.push_back(std::chrono::duration<double>(Clock::now() - begun).count());
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
}

static memory filled(const memory::desc& desc) {
    memory result(desc, cpu);
    std::memset(result.get_data_handle(), 0x3c, desc.get_size());  // a small number in both types
    return result;
}

static void measure(long batch, const Layer& layer, const Way& way) {
    const long padding = layer.kernel / 2, out = (layer.size + 2 * padding - layer.kernel) / layer.stride + 1;
    const double work = 2e-9 * batch * layer.inputs * layer.outputs * out * out * layer.kernel * layer.kernel;
    const memory::dims strides{layer.stride, layer.stride}, paddings{padding, padding};
    const memory::desc x({batch, layer.inputs, layer.size, layer.size}, way.type, way.order);
    const memory::desc weight({layer.outputs, layer.inputs, layer.kernel, layer.kernel}, way.type, Tag::any);
    const memory::desc wide({layer.outputs, layer.inputs, layer.kernel, layer.kernel}, Type::f32, Tag::any);
    const memory::desc y({batch, layer.outputs, out, out}, way.type, way.order);
    std::printf("  %-16s", way.name);
    try {
        dnnl::convolution_forward::primitive_desc forward(
            {dnnl::prop_kind::forward_training, way.algorithm, x, weight, y, strides, paddings, paddings}, cpu);
        dnnl::convolution_backward_data::primitive_desc data(
            {way.algorithm, x, weight, y, strides, paddings, paddings}, cpu, forward);
        dnnl::convolution_backward_weights::primitive_desc weights(
            {way.algorithm, x, wide, y, strides, paddings, paddings}, cpu, forward);
        const auto report = [&](const dnnl::primitive& primitive, std::unordered_map<int, memory> memories) {
            std::printf("%7.0f", work / median_seconds([&] { primitive.execute(stream, memories); }));
        };
        report(dnnl::convolution_forward(forward), {{DNNL_ARG_SRC, filled(forward.src_desc())},
            {DNNL_ARG_WEIGHTS, filled(forward.weights_desc())}, {DNNL_ARG_DST, filled(forward.dst_desc())}});
        report(dnnl::convolution_backward_data(data), {{DNNL_ARG_DIFF_SRC, filled(data.diff_src_desc())},
            {DNNL_ARG_WEIGHTS, filled(data.weights_desc())}, {DNNL_ARG_DIFF_DST, filled(data.diff_dst_desc())}});
        report(dnnl::convolution_backward_weights(weights), {{DNNL_ARG_SRC, filled(weights.src_desc())},
            {DNNL_ARG_DIFF_WEIGHTS, filled(weights.diff_weights_desc())},
            {DNNL_ARG_DIFF_DST, filled(weights.diff_dst_desc())}});
        std::printf("  %s\n", forward.impl_info_str());
    } catch (const dnnl::error& error) {
        std::printf("  none: %s\n", error.what());
    }
}

int main(int count, char** arguments) {
    const long batch = count > 1 ? std::atol(arguments[1]) : 1;
    const std::vector<Layer> layers = {{128, 128, 64, 3, 1}, {384, 128, 64, 3, 1}, {256, 256, 64, 3, 1},
        {256, 256, 32, 3, 1}, {640, 256, 32, 3, 1}, {384, 384, 16, 3, 1}, {512, 512, 8, 3, 1}, {1024, 512, 8, 3, 1},
        {256, 256, 32, 1, 1}, {128, 128, 64, 3, 2}, {32, 32, 64, 3, 1}};
    const std::vector<Way> ways = {{"float32", Type::f32, Tag::any, Algorithm::convolution_direct},
        {"float32 nhwc", Type::f32, Tag::nhwc, Algorithm::convolution_direct},
        {"float32 Winograd", Type::f32, Tag::any, Algorithm::convolution_winograd},
        {"bfloat16", Type::bf16, Tag::any, Algorithm::convolution_direct},
        {"bfloat16 nhwc", Type::bf16, Tag::nhwc, Algorithm::convolution_direct}};
    for (const Layer& layer : layers) {
        std::printf("%ld -> %ld, %ld x %ld, kernel %ld, stride %ld: forward, to data, to weights\n", layer.inputs,
            layer.outputs, layer.size, layer.size, layer.kernel, layer.stride);
        for (const Way& way : ways) measure(batch, layer, way);
    }
}
