// oneDNN's engine, memory that is kept from call to call, and weights in the order that a primitive wants.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <unordered_map>
#include <dnnl.hpp>
#include <sys/mman.h>

namespace convolution {

using dnnl::memory;
using dnnl::primitive;
using Tag = memory::format_tag;
using Type = memory::data_type;

inline dnnl::engine& cpu() {
    static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    return engine;
}

inline dnnl::stream& stream() {
    static dnnl::stream stream(cpu());
    return stream;
}

// Memory that is kept from call to call and grows when it must: from the system, to which what was too small goes back.
// Of the heap it would leave holes.
class Scratch {
public:
    void* at_least(size_t bytes) {
        if (bytes > size) {
            const size_t wanted = (bytes + 4095) / 4096 * 4096;
            if (start) ::munmap(start, size);
            start = nullptr;
            size = 0;
            void* found = ::mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (found == MAP_FAILED) throw std::bad_alloc();
            start = found;
            size = wanted;
        }
        return start;
    }

private:
    void* start = nullptr;
    size_t size = 0;
};

// To bfloat16, the upper half of these bits: to nearest, ties to even; what is not a number stays so.
inline uint32_t rounded(uint32_t bits) {
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : bits + 0x7fff + (bits >> 16 & 1);
}

inline uint16_t narrowed(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return rounded(bits) >> 16;
}

#if defined(__AVX512F__)
inline __m512i rounded(__m512 values) {
    const __m512i bits = _mm512_castps_si512(values), size = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i found = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 none = _mm512_cmpgt_epi32_mask(size, _mm512_set1_epi32(0x7f800000));
    return _mm512_mask_mov_epi32(found, none, _mm512_set1_epi32(0x7fc00000));
}

// Two numbers in bfloat16 side by side in 32 bits.
inline __m512 joined(__m512 low, __m512 high) {
    const __m512i upper = _mm512_and_si512(rounded(high), _mm512_set1_epi32(0xffff0000));
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_srli_epi32(rounded(low), 16), upper));
}
#endif

inline void to_bfloat16(const float* from, void* to, long count) {
    uint16_t* target = static_cast<uint16_t*>(to);
    #pragma omp parallel for
    for (long i = 0; i < count; i++) target[i] = narrowed(from[i]);
}

inline memory::desc plain(const memory::dims& dims) {
    return memory::desc(dims, Type::f32, dims.size() == 1 ? Tag::a : Tag::abcd);
}

// Weights of ours as a primitive wants them, or the other way.
class Exchange {
public:
    Exchange() = default;
    Exchange(const memory::dims& dims, const memory::desc& wanted, bool out = false) : ours(plain(dims)), theirs(wanted) {
        between = theirs;
        if (theirs.data_type() == Type::bf16 && theirs.data.format_kind == dnnl_blocked && !theirs.data.extra.flags) {
            between.data.data_type = dnnl_f32;  // oneDNN is slow at changing order and type in one go
        }
        if (ours != between) {
            reorder = out ? dnnl::reorder({cpu(), between, cpu(), ours}) : dnnl::reorder({cpu(), ours, cpu(), between});
        }
    }

    const memory::desc& desc() const { return theirs; }
    size_t bytes() const { return theirs.get_size(); }

    // Their form of `data`: `data` itself, or a copy in `scratch`.
    memory in(const float* data, Scratch& scratch) const {
        if (ours == theirs) return memory(theirs, cpu(), const_cast<float*>(data));
        void* target = scratch.at_least(bytes());
        write(data, target);
        return memory(theirs, cpu(), target);
    }

    void write(const float* data, void* target) const {
        static Scratch wide;
        const float* ordered = data;
        if (ours != between) {
            memory from(ours, cpu(), const_cast<float*>(data));
            memory to(between, cpu(), between == theirs ? target : wide.at_least(between.get_size()));
            dnnl::reorder(reorder).execute(stream(), from, to);
            stream().wait();
            ordered = static_cast<float*>(to.get_data_handle());
        }
        if (between != theirs) to_bfloat16(ordered, target, theirs.get_size() / 2);
        else if (ours == theirs) std::memcpy(target, data, bytes());
    }

    // Where a primitive may write; `out` brings it home.
    memory result(float* data, Scratch& scratch) const {
        return memory(theirs, cpu(), ours == theirs ? data : scratch.at_least(bytes()));
    }

    void out(const memory& result, float* data) const {
        if (ours == theirs) return;
        memory from = result, to(ours, cpu(), data);
        dnnl::reorder(reorder).execute(stream(), from, to);
        stream().wait();
    }

private:
    memory::desc ours, between, theirs;
    dnnl::reorder reorder;
};

// oneDNN's own scratch memory belongs to the thread that made a primitive: in another one there is none.
inline dnnl::primitive_attr with_our_scratch() {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return attributes;
}

inline void execute(const primitive& work, const memory::desc& scratch, std::unordered_map<int, memory> arguments) {
    static Scratch room;
    arguments.insert({DNNL_ARG_SCRATCHPAD, memory(scratch, cpu(), room.at_least(scratch.get_size()))});
    work.execute(stream(), arguments);
    stream().wait();
}

}  // namespace convolution
