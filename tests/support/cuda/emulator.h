// A host stand-in for device.cuh: the kernels' own source, compiled by a C++ compiler and run thread by thread.
//
// Every thread of a block is a fiber; a fiber runs until it reaches a barrier or an operation of its warp, and the
// scheduler goes on when all that must meet have met. What it checks on the way:
//   - threads that wait for different things, or end while others wait, are an error and not a hang;
//   - fibers run in an order drawn from a seed, so a missing barrier changes results between seeds;
//   - shared memory starts as NaN and ends in a guard, so wrong sizes and unwritten reads show;
//   - asynchronous copies happen only when they are waited for;
//   - the tensor cores' operands are cut to their formats, by the fragment layouts of the PTX manual.
// What it does not show: speed, bank conflicts, the rounding inside a tensor core's sum, races within one warp step.

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <vector>

typedef unsigned char byte;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define INLINE static inline __attribute__((unused))
#define INFINITE INFINITY
#define SHARED_BYTES byte* shared_bytes = emulator::shared

struct alignas(16) Quad { u32 x, y, z, w; };
struct alignas(16) Float4 { float x, y, z, w; };
struct alignas(8) Float2 { float x, y; };

namespace emulator {

enum class Wait { None, Block, Shuffle, Tf32, Float, Bf16, Ended };

struct Copy { void* to; const void* from; bool here; u32 group; };

struct Fiber {
    jmp_buf at;
    ucontext_t start;
    bool begun;
    Wait wait;
    bool vote, voted;       // barrier_any
    float value, result;    // shuffle
    u32 source;
    float* c;               // products
    float a[4], b[2];
    u32 packed_a[4], packed_b[2];
    std::vector<Copy> copies;
    u32 groups;
};

// Tests run side by side in one process: every thread emulates a device of its own.
static thread_local std::vector<Fiber> fibers;
static thread_local std::vector<byte> stacks;
static thread_local jmp_buf scheduler;
static thread_local ucontext_t home;
static thread_local u32 running, block_now;
static thread_local byte* shared;
static thread_local void (*entry)();
static thread_local char* complaint;
const size_t STACK = 128 * 1024, GUARD = 64 * 1024;

static void complain(const char* what, u32 thread) {
    if (complaint && !complaint[0]) snprintf(complaint, 256, "%s (block %u, thread %u)", what, block_now, thread);
}

// Hands control back until the wait is over.
static void pause(Wait wait) {
    Fiber& me = fibers[running];
    me.wait = wait;
    if (!_setjmp(me.at)) _longjmp(scheduler, 1);
}

static void begin_fiber() {
    entry();
    fibers[running].wait = Wait::Ended;
    _longjmp(scheduler, 1);
}

static void resume(u32 i) {
    running = i;
    Fiber& f = fibers[i];
    if (_setjmp(scheduler)) return;
    if (f.begun) _longjmp(f.at, 1);
    f.begun = true;
    setcontext(&f.start);
}

static float cut(float v, u32 mask) {
    u32 bits;
    memcpy(&bits, &v, 4);
    bits &= mask;
    memcpy(&v, &bits, 4);
    return v;
}

static float half_of(u32 word, int high) {
    u32 bits = (high ? word >> 16 : word & 0xffff) << 16;
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

// m16n8k8: a0 (g, t), a1 (g + 8, t), a2 (g, t + 4), a3 (g + 8, t + 4); b0 (t, g), b1 (t + 4, g).
static void multiply8(Fiber* warp, u32 mask) {
    float a[16][8], b[8][8];
    for (u32 l = 0; l < 32; l++) {
        u32 g = l / 4, t = l % 4;
        for (int i = 0; i < 4; i++) a[g + (i & 1) * 8][t + (i >> 1) * 4] = cut(warp[l].a[i], mask);
        for (int i = 0; i < 2; i++) b[t + i * 4][g] = cut(warp[l].b[i], mask);
    }
    for (u32 l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            u32 row = l / 4 + (i >> 1) * 8, column = l % 4 * 2 + (i & 1);
            float s = warp[l].c[i];
            for (int k = 0; k < 8; k++) s = (float)((double)a[row][k] * b[k][column] + s);
            warp[l].c[i] = s;
        }
}

// m16n8k16: a0 (g, 2t..), a1 (g + 8, 2t..), a2 (g, 2t + 8..), a3 (g + 8, 2t + 8..); b0 (2t.., g), b1 (2t + 8.., g).
static void multiply16(Fiber* warp) {
    float a[16][16], b[16][8];
    for (u32 l = 0; l < 32; l++) {
        u32 g = l / 4, t = l % 4;
        for (int i = 0; i < 4; i++)
            for (int h = 0; h < 2; h++) a[g + (i & 1) * 8][2 * t + h + (i >> 1) * 8] = half_of(warp[l].packed_a[i], h);
        for (int i = 0; i < 2; i++)
            for (int h = 0; h < 2; h++) b[2 * t + h + i * 8][g] = half_of(warp[l].packed_b[i], h);
    }
    for (u32 l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            u32 row = l / 4 + (i >> 1) * 8, column = l % 4 * 2 + (i & 1);
            float s = warp[l].c[i];
            for (int k = 0; k < 16; k++) s = (float)((double)a[row][k] * b[k][column] + s);
            warp[l].c[i] = s;
        }
}

// Lets a warp whose lanes all wait for the same operation go on.
static bool release_warp(Fiber* warp) {
    Wait wait = warp[0].wait;
    if (wait == Wait::None || wait == Wait::Block || wait == Wait::Ended) return false;
    for (u32 l = 1; l < 32; l++)
        if (warp[l].wait != wait) return false;
    switch (wait) {
    case Wait::Shuffle:
        for (u32 l = 0; l < 32; l++) warp[l].result = warp[warp[l].source & 31].value;
        break;
    case Wait::Tf32: multiply8(warp, 0xffffe000u); break;
    case Wait::Float: multiply8(warp, 0xffffffffu); break;
    default: multiply16(warp); break;
    }
    for (u32 l = 0; l < 32; l++) warp[l].wait = Wait::None;
    return true;
}

static bool release_block() {
    bool any = false;
    for (Fiber& f : fibers) {
        if (f.wait != Wait::Block) return false;
        any |= f.vote;
    }
    for (Fiber& f : fibers) {
        f.voted = any;
        f.wait = Wait::None;
    }
    return true;
}

static u32 draw(u64& seed) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (u32)(seed >> 33);
}

static bool run_block(u32 threads, u64& seed) {
    std::vector<u32> order(threads);
    for (u32 i = 0; i < threads; i++) order[i] = i;
    for (u32 i = 0; i < threads; i++) {
        Fiber& f = fibers[i];
        f.begun = false;
        f.wait = Wait::None;
        f.copies.clear();
        f.groups = 0;
        getcontext(&f.start);
        f.start.uc_stack.ss_sp = &stacks[i * STACK];
        f.start.uc_stack.ss_size = STACK;
        f.start.uc_link = &home;
        makecontext(&f.start, begin_fiber, 0);
    }
    while (true) {
        for (u32 i = threads - 1; i > 0; i--) {
            u32 j = draw(seed) % (i + 1), swap = order[i];
            order[i] = order[j];
            order[j] = swap;
        }
        bool ran = false;
        for (u32 i : order)
            if (fibers[i].wait == Wait::None) {
                resume(i);
                ran = true;
            }
        bool released = false, ended = true;
        for (u32 w = 0; w < threads; w += 32) released |= release_warp(&fibers[w]);
        if (!released) released = release_block();
        for (Fiber& f : fibers) ended &= f.wait == Wait::Ended;
        if (ended) return true;
        if (!ran && !released) {
            for (u32 i = 0; i < threads; i++)
                if (fibers[i].wait != Wait::Ended) {
                    complain("threads wait for different things", i);
                    return false;
                }
        }
    }
}

// Runs a grid; false with a reason when a block misbehaved.
static bool run(void (*body)(), u32 grid, u32 threads, u32 shared_size, u64 seed, char* reason) {
    complaint = reason;
    entry = body;
    if (threads % 32) {
        complain("a block must be whole warps", 0);
        return false;
    }
    fibers.assign(threads, Fiber());
    if (stacks.size() < threads * STACK) stacks.resize(threads * STACK);
    byte* memory = (byte*)aligned_alloc(128, (shared_size + GUARD + 127) / 128 * 128);
    shared = memory;
    bool sound = true;
    for (u32 b = 0; b < grid && sound; b++) {
        block_now = b;
        memset(memory, 0xff, shared_size);
        memset(memory + shared_size, 0xa5, GUARD);
        sound = run_block(threads, seed);
        for (size_t i = 0; i < GUARD && sound; i++)
            if (memory[shared_size + i] != 0xa5) {
                complain("a write past the shared memory asked for", 0);
                sound = false;
            }
        for (u32 i = 0; i < threads && sound; i++)
            for (const Copy& c : fibers[i].copies) {
                (void)c;
                complain("a copy that nobody waited for", i);
                sound = false;
                break;
            }
    }
    free(memory);
    return sound;
}

} // namespace emulator

#define KERNEL(name, threads, blocks)                                                                                  \
    static void name##_body(const Params p);                                                                          \
    static thread_local Params name##_params;                                                                          \
    extern "C" int name(const void* params, u32 grid, u32 block, u32 shared, u64 seed, char* reason) {                 \
        memcpy(&name##_params, params, sizeof(Params));                                                                \
        if (block != (threads)) {                                                                                      \
            snprintf(reason, 256, "%s wants %d threads, not %u", #name, (int)(threads), block);                        \
            return 0;                                                                                                  \
        }                                                                                                              \
        return emulator::run([] { name##_body(name##_params); }, grid, block, shared, seed, reason);                   \
    }                                                                                                                  \
    static void name##_body(const Params p)

INLINE u32 thread_index() { return emulator::running; }
INLINE u32 block_index() { return emulator::block_now; }

INLINE float bits_to_float(u32 v) {
    float f;
    memcpy(&f, &v, 4);
    return f;
}
INLINE u32 float_to_bits(float v) {
    u32 b;
    memcpy(&b, &v, 4);
    return b;
}

INLINE float half_to_float(u16 v) {
    u32 sign = (u32)(v & 0x8000) << 16, exponent = v >> 10 & 31, mantissa = v & 1023;
    if (exponent == 31) return bits_to_float(sign | 0x7f800000 | mantissa << 13);
    float f = exponent ? ldexpf((float)(1024 + mantissa), (int)exponent - 25) : ldexpf((float)mantissa, -24);
    return sign ? -f : f;
}

INLINE u16 float_to_half(float v) {
    u16 sign = (u16)(float_to_bits(v) >> 16 & 0x8000);
    float m = fabsf(v);
    if (m != m) return 0x7fff;
    if (m >= 65520.0f) return sign | 0x7c00;
    int e;
    frexpf(m, &e);
    int shift = e < -13 ? 24 : 11 - e;
    u32 units = (u32)rintf(ldexpf(m, shift)); // ties to even
    return m == 0 ? sign : (u16)(sign | (e < -13 ? units : ((u32)(e + 14) << 10) + units - 1024));
}

INLINE float from_lane(float v, u32 lane) {
    emulator::Fiber& me = emulator::fibers[emulator::running];
    me.value = v;
    me.source = lane;
    emulator::pause(emulator::Wait::Shuffle);
    return emulator::fibers[emulator::running].result;
}
INLINE float from_lane_xor(float v, u32 mask) { return from_lane(v, (emulator::running & 31) ^ mask); }

INLINE bool barrier_any(bool v) {
    emulator::fibers[emulator::running].vote = v;
    emulator::pause(emulator::Wait::Block);
    return emulator::fibers[emulator::running].voted;
}
INLINE void barrier() { barrier_any(false); }

INLINE void copy16(void* shared, const void* global, bool here) {
    emulator::Fiber& me = emulator::fibers[emulator::running];
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16) emulator::complain("a copy that is not aligned", emulator::running);
    me.copies.push_back({shared, global, here, me.groups});
}
INLINE void copies_end() { emulator::fibers[emulator::running].groups++; }
template <int Left> INLINE void copies_wait() {
    emulator::Fiber& me = emulator::fibers[emulator::running];
    std::vector<emulator::Copy> later;
    for (const emulator::Copy& c : me.copies) {
        if (c.group + Left >= me.groups) later.push_back(c);
        else if (c.here) memcpy(c.to, c.from, 16);
        else memset(c.to, 0, 16);
    }
    me.copies = later;
}

INLINE u32 pack_bf16(float low, float high) {
    auto round = [](float v) -> u32 {
        u32 bits = float_to_bits(v);
        if (v != v) return 0x7fff;
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    };
    return round(low) | round(high) << 16;
}

INLINE float round_tf32(float v) {
    if (!(fabsf(v) < INFINITY)) return v;
    return bits_to_float((float_to_bits(v) + 0x1000) & 0xffffe000u); // ties away from zero
}

INLINE void product_of_warp(float c[4], const float a[4], const float b[2], emulator::Wait kind) {
    emulator::Fiber& me = emulator::fibers[emulator::running];
    me.c = c;
    memcpy(me.a, a, 16);
    memcpy(me.b, b, 8);
    emulator::pause(kind);
}
INLINE void multiply_tf32(float c[4], const float a[4], const float b[2]) { product_of_warp(c, a, b, emulator::Wait::Tf32); }
INLINE void multiply_f32(float c[4], const float a[4], const float b[2]) { product_of_warp(c, a, b, emulator::Wait::Float); }
INLINE void multiply_bf16(float c[4], const u32 a[4], const u32 b[2]) {
    emulator::Fiber& me = emulator::fibers[emulator::running];
    me.c = c;
    memcpy(me.packed_a, a, 16);
    memcpy(me.packed_b, b, 8);
    emulator::pause(emulator::Wait::Bf16);
}
