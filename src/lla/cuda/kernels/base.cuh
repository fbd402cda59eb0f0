// Sizes, parameters and tiles that all kernels share. The host defines, per variant:
//   DK, DV      values per key and per value, multiples of 8 up to 128
//   HALF_KV     1: keys and values are half precision, 0: single
//   GROUP       query heads that share a key-value head
//   MATH        how products of tiles are taken: one of the four below

#define MATH_F32 0
#define MATH_TF32 1
#define MATH_TF32X3 2
#define MATH_BF16 3

#define ROUND_UP(v, to) (((v) + (to) - 1) / (to) * (to))
#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))
#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))

#if HALF_KV
typedef u16 Stored;
#else
typedef float Stored;
#endif

// One sequence of a call. Laid out as the host's (layout.rs); pointers first so that nothing is padded.
struct Job {
    const Stored* keys;   // [kv_heads][stride][DK]
    const Stored* values; // [kv_heads][stride][DV]
    const float* queries; // [tokens][heads][DK]
    const float* rho;     // [tokens][heads][DK] when the correction is given
    const float* lambda;  // [heads]; infinity is softmax
    float* out;           // [tokens][heads][DV]
    int* iterations;      // [tokens][heads]; -1 where the row fell back to softmax
    u32 stride, keys_held, first, tokens;
    u32 window; // keys a query sees at most, itself included
    float scale; // of a score, times log2(e)
    float tolerance; // squared, relative
    u32 most;        // iterations
    float radius;    // of the guard; infinity is none
    u32 unused;
};

// One block's part of a call. `row` is a token for decode, the first row (token x group) for prefill.
struct Work {
    u32 job, head, row, begin, end, slot;
};

struct Params {
    const Job* jobs;
    const Work* work;
    float* partial; // one stretch per split
    float* merged;  // one stretch per row
    u32 heads, kv_heads;
    u32 unused[2];
};

// Keys that the query of `token` sees: from `begin` to before `end`.
INLINE void visible(const Job& job, u32 token, u32& begin, u32& end) {
    u32 at = job.first + token + 1;
    end = MIN_OF(at, job.keys_held);
    begin = at > job.window ? at - job.window : 0;
    begin = MIN_OF(begin, end);
}

// Heads with a finite lambda are written by the solving kernels, all others by the softmax kernels.
INLINE bool is_softmax(const Job& job, u32 head) { return !(job.lambda[head] < INFINITE); }

// A finite stand-in for the maximum of nothing, so that exp2(-inf - m) is 0 and not NaN.
INLINE float settled(float m) { return m == -INFINITE ? 0.0f : m; }

INLINE bool is_finite(float v) { return fabsf(v) < INFINITE; }

// Eight stored values in single precision; the address is a multiple of 16 bytes.
INLINE void load8(const Stored* from, float to[8]) {
#if HALF_KV
    Quad q = *(const Quad*)from;
    u32 w[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[2 * i] = half_to_float((u16)(w[i] & 0xffff));
        to[2 * i + 1] = half_to_float((u16)(w[i] >> 16));
    }
#else
    Float4 a = *(const Float4*)from, b = *(const Float4*)(from + 4);
    to[0] = a.x; to[1] = a.y; to[2] = a.z; to[3] = a.w;
    to[4] = b.x; to[5] = b.y; to[6] = b.z; to[7] = b.w;
#endif
}

INLINE float load1(const Stored* from) {
#if HALF_KV
    return half_to_float(*from);
#else
    return *from;
#endif
}
