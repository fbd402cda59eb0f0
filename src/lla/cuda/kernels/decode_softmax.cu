// One query per head against all keys: the weighted mean of the values, by splits of the keys.
//
// A block takes one split for all query heads of a key-value head, so keys and values are read once for the group.
// LANES lanes hold one key (8 values each); the warp's sub-groups walk different keys, each with a running maximum of
// its own, and meet at the end. Nothing but registers is touched inside the loop.
//
// PROJECTED: the correction vector rho is given (learned probe): o = vbar (1 + mean t) - mean (t v) with
// t = rho . (k - k0), k0 the first key seen; any fixed k0 gives the same output and this one keeps t small.

#define THREADS 128
#define WARPS (THREADS / 32)
#define CHUNKS (MAX_OF(DK, DV) / 8)
#define LANES (CHUNKS <= 1 ? 1 : CHUNKS <= 2 ? 2 : CHUNKS <= 4 ? 4 : CHUNKS <= 8 ? 8 : 16)
#define SUBS (32 / LANES)
// Heads per block, and keys per lane and turn: as many as registers hold.
#define HEADS MIN_OF(GROUP, (PROJECTED ? 4 : 8))
#define UNROLL (HEADS > 4 || PROJECTED ? 2 : 4)
// Floats of one head of one split: maximum, weight, sums of values; with a probe also sum of t and of t times values.
#define PART (PROJECTED ? 2 * DV + 3 : DV + 2)

struct Sum {
    float most, weight, lean, value[8], leant[8];
};

// a absorbs b; afterwards both are relative to the larger maximum.
INLINE void absorb(Sum& a, float most, float weight, float lean, const float value[8], const float leant[8]) {
    float m = fmaxf(a.most, most), s = settled(m), fa = exp2f(a.most - s), fb = exp2f(most - s);
    a.most = m;
    a.weight = a.weight * fa + weight * fb;
    if (PROJECTED) a.lean = a.lean * fa + lean * fb;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        a.value[i] = a.value[i] * fa + value[i] * fb;
        if (PROJECTED) a.leant[i] = a.leant[i] * fa + leant[i] * fb;
    }
}

INLINE float dot_lanes(const float a[8], const float b[8]) {
    float s = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) s = fmaf(a[i], b[i], s);
#pragma unroll
    for (u32 mask = 1; mask < LANES; mask *= 2) s += from_lane_xor(s, mask);
    return s;
}

INLINE void finish(const Params& p, const Work& w, const Job& job, u32 head, u32 chunk, const Sum& sum, bool whole) {
    if (whole) {
        if (!is_softmax(job, head)) return;
        float* out = job.out + ((u64)w.row * p.heads + head) * DV;
        float over = sum.weight == 0 ? 0 : 1 / sum.weight;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float mean = sum.value[i] * over;
            if (PROJECTED) mean = mean * (1 + sum.lean * over) - sum.leant[i] * over;
            out[chunk * 8 + i] = mean;
        }
        return;
    }
    float* part = p.partial + ((u64)w.slot * HEADS + (head - w.head)) * PART;
    if (chunk == 0) {
        part[0] = sum.most;
        part[1] = sum.weight;
        if (PROJECTED) part[2 * DV + 2] = sum.lean;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        part[2 + chunk * 8 + i] = sum.value[i];
        if (PROJECTED) part[2 + DV + chunk * 8 + i] = sum.leant[i];
    }
}

KERNEL(decode_softmax, THREADS, 1) {
    const Work w = p.work[block_index()];
    const Job job = p.jobs[w.job];
    const u32 lane = thread_index() & 31, warp = thread_index() >> 5;
    const u32 chunk = lane % LANES, sub = warp * SUBS + lane / LANES;
    const u32 kv_head = w.head / GROUP;
    const u32 heads = MIN_OF(HEADS, (kv_head + 1) * GROUP - w.head);
    const Stored* keys = job.keys + (u64)kv_head * job.stride * DK;
    const Stored* values = job.values + (u64)kv_head * job.stride * DV;
    const bool has_key = chunk < DK / 8, has_value = chunk < DV / 8;
    u32 sees_from, sees_to;
    visible(job, w.row, sees_from, sees_to);

    float query[HEADS][8], probe[PROJECTED ? HEADS : 1][8], lean0[HEADS];
    Sum sum[HEADS];
    float base[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (PROJECTED && has_key && w.begin < w.end) load8(keys + (u64)sees_from * DK + chunk * 8, base);
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        u64 at = ((u64)w.row * p.heads + w.head + h) * DK + chunk * 8;
        bool here = has_key && h < heads;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            query[h][i] = here ? job.queries[at + i] * job.scale : 0;
            if (PROJECTED) probe[h][i] = here ? job.rho[at + i] : 0;
            sum[h].value[i] = sum[h].leant[i] = 0;
        }
        sum[h].most = -INFINITE;
        sum[h].weight = sum[h].lean = 0;
        lean0[h] = PROJECTED ? dot_lanes(probe[PROJECTED ? h : 0], base) : 0;
    }

    for (u32 start = w.begin + sub - lane / LANES; start < w.end; start += WARPS * SUBS * UNROLL) {
        // The same trip count for all lanes of a warp: the sums across lanes need them all.
        float key[UNROLL][8], value[UNROLL][8];
        bool in[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            u32 at = start + lane / LANES + u * WARPS * SUBS;
            in[u] = at < w.end;
#pragma unroll
            for (int i = 0; i < 8; i++) key[u][i] = value[u][i] = 0;
            if (in[u] && has_key) load8(keys + (u64)at * DK + chunk * 8, key[u]);
            if (in[u] && has_value) load8(values + (u64)at * DV + chunk * 8, value[u]);
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float score[UNROLL], lean[UNROLL], most = sum[h].most;
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
                float s = dot_lanes(query[h], key[u]);
                score[u] = in[u] ? s : -INFINITE;
                lean[u] = PROJECTED ? dot_lanes(probe[PROJECTED ? h : 0], key[u]) - lean0[h] : 0;
                most = fmaxf(most, score[u]);
            }
            float level = settled(most), keep = exp2f(sum[h].most - level);
            sum[h].most = most;
            sum[h].weight *= keep;
            if (PROJECTED) sum[h].lean *= keep;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                sum[h].value[i] *= keep;
                if (PROJECTED) sum[h].leant[i] *= keep;
            }
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
                float weight = exp2f(score[u] - level), leant = weight * lean[u];
                sum[h].weight += weight;
                if (PROJECTED) sum[h].lean += leant;
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    sum[h].value[i] = fmaf(weight, value[u][i], sum[h].value[i]);
                    if (PROJECTED) sum[h].leant[i] = fmaf(leant, value[u][i], sum[h].leant[i]);
                }
            }
        }
    }

    // Sub-groups of a warp meet by shuffles, warps in shared memory, head by head.
    SHARED_BYTES;
    float* meet = (float*)shared_bytes; // [WARPS][PART]
    const bool whole = w.slot == ~0u;
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
#pragma unroll
        for (u32 mask = LANES; mask < 32; mask *= 2) {
            float value[8], leant[8];
            float most = from_lane_xor(sum[h].most, mask), weight = from_lane_xor(sum[h].weight, mask);
            float lean = PROJECTED ? from_lane_xor(sum[h].lean, mask) : 0;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                value[i] = from_lane_xor(sum[h].value[i], mask);
                leant[i] = PROJECTED ? from_lane_xor(sum[h].leant[i], mask) : 0;
            }
            absorb(sum[h], most, weight, lean, value, leant);
        }
        float* mine = meet + warp * PART;
        if (lane < LANES && has_value) {
            if (chunk == 0) {
                mine[0] = sum[h].most;
                mine[1] = sum[h].weight;
                if (PROJECTED) mine[2 * DV + 2] = sum[h].lean;
            }
#pragma unroll
            for (int i = 0; i < 8; i++) {
                mine[2 + chunk * 8 + i] = sum[h].value[i];
                if (PROJECTED) mine[2 + DV + chunk * 8 + i] = sum[h].leant[i];
            }
        }
        barrier();
        if (warp == 0 && lane < LANES && has_value && h < heads) {
            for (int other = 1; other < WARPS; other++) {
                const float* o = meet + other * PART;
                const float* leant = PROJECTED ? o + 2 + DV + chunk * 8 : o + 2 + chunk * 8;
                absorb(sum[h], o[0], o[1], PROJECTED ? o[2 * DV + 2] : 0, o + 2 + chunk * 8, leant);
            }
            finish(p, w, job, w.head + h, chunk, sum[h], whole);
        }
        barrier();
    }
}

// Splits of one row of one head become its output; 128 threads over the values.
KERNEL(merge_softmax, THREADS, 1) {
    const Work w = p.work[block_index()]; // begin: first slot, end: slots
    const Job job = p.jobs[w.job];
    if (!is_softmax(job, w.head)) return;
    const u32 lead = w.slot; // the head's place in its splits
    float most = -INFINITE;
    for (u32 s = 0; s < w.end; s++) most = fmaxf(most, p.partial[((u64)(w.begin + s) * HEADS + lead) * PART]);
    const float level = settled(most);
    for (u32 v = thread_index(); v < DV; v += THREADS) {
        float weight = 0, value = 0, lean = 0, leant = 0;
        for (u32 s = 0; s < w.end; s++) {
            const float* part = p.partial + ((u64)(w.begin + s) * HEADS + lead) * PART;
            float f = exp2f(part[0] - level);
            weight += part[1] * f;
            value += part[2 + v] * f;
            if (PROJECTED) {
                lean += part[2 * DV + 2] * f;
                leant += part[2 + DV + v] * f;
            }
        }
        float over = weight == 0 ? 0 : 1 / weight, mean = value * over;
        if (PROJECTED) mean = mean * (1 + lean * over) - leant * over;
        job.out[((u64)w.row * p.heads + w.head) * DV + v] = mean;
    }
}
