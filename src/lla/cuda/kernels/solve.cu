// From the moments of the splits to the output of decode: merge, solve (C + lambda I) rho = kbar - q, apply.

#define DKP ROUND_UP(DK, 16)
#define COLUMNS (DKP + DV)
#define PART (4 + COLUMNS + DK * COLUMNS)
#define SLICE 8 // rows of [C | G] per block of the merge
#define MERGE_THREADS 128
#define MERGE_OWNED ROUND_UP(COLUMNS, MERGE_THREADS) / MERGE_THREADS
#define SOLVE_THREADS 256
#define SOLVE_WARPS (SOLVE_THREADS / 32)
#define MOST_PARTS 64 // splits of a row; the host's plan keeps to it

// Merges the splits of a row: a slice of [C | G] per block, normalised by the total weight.
//   C = sum e_s S_s + a_s d_s d_s^T,  e_s = 2^(m_s - m) / Z,  a_s = Z_s e_s,  d_s = mean_s - mean.
KERNEL(merge_moments, MERGE_THREADS, 1) {
    const Work w = p.work[block_index() / (DK / SLICE)]; // begin: first split, end: splits, slot: place of the result
    const u32 slice = block_index() % (DK / SLICE) * SLICE, thread = thread_index();
    const float* parts = p.partial + (u64)w.begin * PART;
    SHARED_BYTES;
    float* scale = (float*)shared_bytes; // [MOST_PARTS] e_s
    float* share = scale + MOST_PARTS;   // [MOST_PARTS] a_s
    float* mean = share + MOST_PARTS;    // [COLUMNS]

    float most = -INFINITE, weight = 0;
    for (u32 s = 0; s < w.end; s++) most = fmaxf(most, parts[(u64)s * PART]);
    const float level = settled(most);
    for (u32 s = 0; s < w.end; s++) weight += parts[(u64)s * PART + 1] * exp2f(parts[(u64)s * PART] - level);
    const float over = weight == 0 ? 0 : 1 / weight;
    for (u32 s = thread; s < w.end; s += MERGE_THREADS) {
        scale[s] = exp2f(parts[(u64)s * PART] - level) * over;
        share[s] = scale[s] * parts[(u64)s * PART + 1];
    }
    barrier();
    float* out = p.merged + (u64)w.slot * PART;
#pragma unroll
    for (int o = 0; o < MERGE_OWNED; o++) {
        const u32 e = thread + o * MERGE_THREADS;
        if (e >= COLUMNS) continue;
        float v = 0;
        for (u32 s = 0; s < w.end; s++) v = fmaf(share[s], parts[(u64)s * PART + 4 + e], v);
        mean[e] = v;
        if (slice == 0) out[4 + e] = v;
    }
    if (slice == 0 && thread == 0) {
        out[0] = most;
        out[1] = weight;
    }
    barrier();
#pragma unroll
    for (int o = 0; o < MERGE_OWNED; o++) {
        const u32 e = thread + o * MERGE_THREADS;
        if (e >= COLUMNS) continue;
        float v[SLICE];
#pragma unroll
        for (int i = 0; i < SLICE; i++) v[i] = 0;
        for (u32 s = 0; s < w.end; s++) {
            const float* means = parts + (u64)s * PART + 4;
            const float* rows = means + COLUMNS + slice * COLUMNS;
            const float d = share[s] * (means[e] - mean[e]);
#pragma unroll
            for (int i = 0; i < SLICE; i++)
                v[i] = fmaf(d, means[slice + i] - mean[slice + i], fmaf(scale[s], rows[i * COLUMNS + e], v[i]));
        }
#pragma unroll
        for (int i = 0; i < SLICE; i++) out[4 + COLUMNS + (slice + i) * COLUMNS + e] = v[i];
    }
}

// Sum over the block, the same in every thread.
INLINE float block_sum(float v, float* room) {
#pragma unroll
    for (u32 mask = 1; mask < 32; mask *= 2) v += from_lane_xor(v, mask);
    barrier();
    if ((thread_index() & 31) == 0) room[thread_index() >> 5] = v;
    barrier();
    float s = 0;
#pragma unroll
    for (int i = 0; i < SOLVE_WARPS; i++) s += room[i];
    return s;
}

#define SEGMENTS (SOLVE_THREADS / DK)
#define SOLVE_MATRIX MAX_OF(DK * DK, SOLVE_THREADS * 4)

// (C x)_i in thread i for i < DK; C is symmetric, so its rows are read along the threads.
INLINE float product(const float* c, const float* x, float* room) {
    const u32 i = thread_index() % DK, segment = thread_index() / DK;
    float s = 0;
    if (segment < SEGMENTS)
        for (u32 j = segment; j < DK; j += SEGMENTS) s = fmaf(c[j * DK + i], x[j], s);
    barrier();
    room[thread_index()] = s;
    barrier();
    s = 0;
    if (thread_index() < DK)
        for (u32 k = 0; k < SEGMENTS; k++) s += room[k * DK + thread_index()];
    return s;
}

// One row of one head: lambda with its guards, conjugate gradients, output.
KERNEL(solve, SOLVE_THREADS, 1) {
    const Work w = p.work[block_index()]; // slot: place of the merged moments
    const Job job = p.jobs[w.job];
    const u32 thread = thread_index();
    const float* moments = p.merged + (u64)w.slot * PART;
    const float* mean = moments + 4;
    const float* matrix = mean + COLUMNS;
    SHARED_BYTES;
    float* c = (float*)shared_bytes;    // [DK][DK], later the sums of the output: [SOLVE_MATRIX]
    float* direction = c + SOLVE_MATRIX; // [DK]
    float* room = direction + DK;       // [SOLVE_THREADS]
    float* sums = room + SOLVE_THREADS; // [SOLVE_WARPS]

    for (u32 i = thread; i < DK * DK; i += SOLVE_THREADS) c[i] = matrix[i / DK * COLUMNS + i % DK];
    barrier();
    // Thread i < DK owns element i of every vector.
    const bool mine = thread < DK;
    const float centre = mine ? mean[thread] : 0;
    const u64 row = (u64)w.row * p.heads + w.head;
    float residual = mine ? centre - job.queries[row * DK + thread] : 0, x = 0;
    const float far = block_sum(residual * residual, sums);
    // Mean |k|^2 under the weights: trace of C plus |kbar|^2.
    const float size = block_sum(mine ? c[thread * DK + thread] + centre * centre : 0, sums);
    float lambda = fmaxf(job.lambda[w.head], 64 * 1.1920929e-7f * size);
    lambda = fmaxf(lambda, far / (4 * job.radius * job.radius));

    float rr = far, stop = job.tolerance * far;
    int iterations = 0;
    bool sound = is_finite(far) && is_finite(size);
    if (mine) direction[thread] = residual;
    barrier();
    while (sound && iterations < (int)job.most && rr > stop) {
        const float d = mine ? direction[thread] : 0;
        const float y = fmaf(lambda, d, product(c, direction, room));
        const float curve = block_sum(d * y, sums);
        sound = curve > 0 && is_finite(curve);
        if (!sound) break;
        const float along = rr / curve;
        x = fmaf(along, d, x);
        residual = fmaf(-along, y, residual);
        const float next = block_sum(mine ? residual * residual : 0, sums);
        sound = is_finite(next);
        if (!sound) break;
        if (mine) direction[thread] = fmaf(next / rr, d, residual);
        rr = next;
        iterations++;
        barrier();
    }
    barrier();
    if (mine) direction[thread] = sound ? x : 0;
    barrier();

    // o = vbar - G rho; four values per thread, the keys' elements shared out among groups of threads.
    const u32 quads = DV / 4, groups = SOLVE_THREADS / quads, quad = thread % quads, group = thread / quads;
    Float4 g = {0, 0, 0, 0};
    if (group < groups)
        for (u32 i = group; i < DK; i += groups) {
            const Float4 v = *(const Float4*)(matrix + i * COLUMNS + DKP + quad * 4);
            const float r = direction[i];
            g.x = fmaf(v.x, r, g.x);
            g.y = fmaf(v.y, r, g.y);
            g.z = fmaf(v.z, r, g.z);
            g.w = fmaf(v.w, r, g.w);
        }
    // C is done with: its room holds the groups' sums, [groups][DV], at most 4 floats per thread.
    if (group < groups) *(Float4*)(c + group * DV + quad * 4) = g;
    barrier();
    float out[ROUND_UP(DV, SOLVE_THREADS) / SOLVE_THREADS];
    bool odd = false;
    for (u32 v = thread, k = 0; v < DV; v += SOLVE_THREADS, k++) {
        float s = 0;
        for (u32 q = 0; q < groups; q++) s += c[q * DV + v];
        out[k] = mean[DKP + v] - s;
        odd |= !is_finite(out[k]);
    }
    odd = barrier_any(odd);
    for (u32 v = thread, k = 0; v < DV; v += SOLVE_THREADS, k++)
        job.out[row * DV + v] = odd ? mean[DKP + v] : out[k];
    if (thread == 0) job.iterations[row] = sound && !odd ? iterations : -1;
}
