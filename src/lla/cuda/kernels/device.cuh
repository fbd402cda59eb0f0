// What the kernels need of the hardware, as inline PTX: the run-time compiler has no headers to include.
// The tests replace this one file with an emulation for the host; everything else is compiled unchanged by both.

typedef unsigned char byte;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL(name, threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks) name(const Params p)
#define INLINE static __device__ __forceinline__
#define SHARED_BYTES extern __shared__ __align__(16) byte shared_bytes[]
#define INFINITE __int_as_float(0x7f800000)

struct __align__(16) Quad { u32 x, y, z, w; };
struct __align__(16) Float4 { float x, y, z, w; };
struct __align__(8) Float2 { float x, y; };

INLINE u32 thread_index() { return threadIdx.x; }
INLINE u32 block_index() { return blockIdx.x; }

INLINE float bits_to_float(u32 v) { return __uint_as_float(v); }
INLINE u32 float_to_bits(float v) { return __float_as_uint(v); }

INLINE float half_to_float(u16 v) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v));
    return f;
}

INLINE u16 float_to_half(float v) {
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}

// Values across a warp; all lanes take part.
INLINE float from_lane_xor(float v, u32 mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
INLINE float from_lane(float v, u32 lane) { return __shfl_sync(0xffffffffu, v, lane); }

INLINE void barrier() { __syncthreads(); }
// Whether any thread of the block says so; also a barrier.
INLINE bool barrier_any(bool v) { return __syncthreads_or(v); }

#if __CUDA_ARCH__ >= 800

// 16 bytes from global to shared memory behind the program's back; zeros where `here` is false.
INLINE void copy16(void* shared, const void* global, bool here) {
    u32 to = (u32)__cvta_generic_to_shared(shared);
    u32 bytes = here ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}
INLINE void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `Left` groups of copies of this thread are under way. A barrier makes them visible to others.
template <int Left> INLINE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory"); }

// Two floats rounded to bf16; `low` in the lower half.
INLINE u32 pack_bf16(float low, float high) {
    u32 v;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
    return v;
}

INLINE float round_tf32(float v) {
    u32 r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v));
    return __uint_as_float(r);
}

// c (16 x 8) += a (16 x 8) b (8 x 8), operands rounded to tf32 by the caller.
INLINE void multiply_tf32(float c[4], const float a[4], const float b[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

// c (16 x 8) += a (16 x 16) b (16 x 8) of packed bf16.
INLINE void multiply_bf16(float c[4], const u32 a[4], const u32 b[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else // before Ampere: no asynchronous copies, no tf32 or bf16 units; the host compiles only the f32 path

INLINE void copy16(void* shared, const void* global, bool here) {
    Quad v = {0, 0, 0, 0};
    if (here) v = *(const Quad*)global;
    *(Quad*)shared = v;
}
INLINE void copies_end() {}
template <int Left> INLINE void copies_wait() {}

#endif

// The same product in plain single precision: lanes exchange what the tensor cores would. Slow; the yardstick of the
// others. A call and not inlined: hundreds of copies would take the run-time compiler half a minute.
static __device__ __noinline__ Float4 exchanged(Float4 c, Float4 a, float b0, float b1) {
    const u32 lane = threadIdx.x & 31, row = lane & ~3u, left = (lane & 3) * 8;
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
        float a0 = from_lane(a.x, row + k), a1 = from_lane(a.y, row + k);
        float a2 = from_lane(a.z, row + k), a3 = from_lane(a.w, row + k);
        float b00 = from_lane(b0, left + k), b10 = from_lane(b1, left + k);
        float b01 = from_lane(b0, left + 4 + k), b11 = from_lane(b1, left + 4 + k);
        c.x = fmaf(a2, b10, fmaf(a0, b00, c.x));
        c.y = fmaf(a2, b11, fmaf(a0, b01, c.y));
        c.z = fmaf(a3, b10, fmaf(a1, b00, c.z));
        c.w = fmaf(a3, b11, fmaf(a1, b01, c.w));
    }
    return c;
}

INLINE void multiply_f32(float c[4], const float a[4], const float b[2]) {
    const Float4 sum = {c[0], c[1], c[2], c[3]}, left = {a[0], a[1], a[2], a[3]};
    const Float4 r = exchanged(sum, left, b[0], b[1]);
    c[0] = r.x;
    c[1] = r.y;
    c[2] = r.z;
    c[3] = r.w;
}
