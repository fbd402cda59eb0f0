// One query per head, all second moments in one pass over the keys: C = cov(k, k) and G = cov(v, k) under the softmax
// weights, then (solve.cu) the correction. A block takes one split for one query head; the blocks of a group are
// neighbours in the grid, so that their keys and values come from the second-level cache.
//
// Every tile is centred on its own mean before it is rounded, and merged into the running moments by the exact formula
//   S = f S1 + S2 + (Z1 Z2 / Z) d d^T,  d = mean2 - mean1,
// with the rank-one part in single precision: no product ever sees an uncentred key.
// The accumulators of [C | G] live in registers, spread over the warps as 16 x 8 tiles.

#define WARPS (DK > 64 || DV > 64 ? 8 : 4)
#define THREADS (WARPS * 32)
#define DKP ROUND_UP(DK, 16)
// Columns of [C | G], and rows of the centred tile.
#define COLUMNS (DKP + DV)
#if MATH == MATH_BF16
typedef u16 Cell;
#define TILE 64
#define STEP 16
#define CELLS 8 // per 16-byte store
#else
typedef float Cell;
#define TILE 32
#define STEP 8
#define CELLS 4
#endif
#define CENTRED_ROW (TILE + 8)
#define KEY_ROW (DK + 16 / (int)sizeof(Stored))
#define VALUE_ROW (DV + 16 / (int)sizeof(Stored))
#define STAGE (TILE * (KEY_ROW + VALUE_ROW))
#define OWNED ROUND_UP(COLUMNS, THREADS) / THREADS
// Tiles of the accumulator: down (keys), across (keys, then values), and how warps share them.
#define DOWN (DKP / 16)
#define ACROSS (COLUMNS / 8)
#define WARPS_DOWN (DOWN >= 4 && WARPS == 8 ? 4 : DOWN >= 2 ? 2 : 1)
#define WARPS_ACROSS (WARPS / WARPS_DOWN)
#define MY_DOWN ((DOWN + WARPS_DOWN - 1) / WARPS_DOWN)
#define MY_ACROSS ((ACROSS + WARPS_ACROSS - 1) / WARPS_ACROSS)
// Floats of a split: maximum, weight, two unused; means of keys and values; [C | G] times the weight.
#define PART (4 + COLUMNS + DK * COLUMNS)

// Starts the copy of a tile into its stage; rows past the end become zeros.
INLINE void fetch(Stored* stage, const Stored* keys, const Stored* values, u32 begin, u32 end) {
    const int each = 16 / sizeof(Stored), key_parts = DK / each, value_parts = DV / each;
    for (int i = thread_index(); i < TILE * key_parts; i += THREADS) {
        u32 row = i / key_parts, part = i % key_parts, at = begin + row;
        bool here = at < end;
        copy16(stage + row * KEY_ROW + part * each, keys + (u64)(here ? at : begin) * DK + part * each, here);
    }
    stage += TILE * KEY_ROW;
    for (int i = thread_index(); i < TILE * value_parts; i += THREADS) {
        u32 row = i / value_parts, part = i % value_parts, at = begin + row;
        bool here = at < end;
        copy16(stage + row * VALUE_ROW + part * each, values + (u64)(here ? at : begin) * DV + part * each, here);
    }
}

// Element `e` of the row of [key | value] number `j` in a stage.
INLINE float element(const Stored* stage, int j, int e) {
    if (e < DK) return load1(stage + j * KEY_ROW + e);
    if (e < DKP) return 0;
    return load1(stage + TILE * KEY_ROW + j * VALUE_ROW + e - DKP);
}

// Writes the row of one element: CELLS consecutive keys at a time.
INLINE void put(Cell* to, const float v[CELLS]) {
#if MATH == MATH_BF16
    Quad q = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
    *(Quad*)to = q;
#else
    Float4 f = {operand(v[0]), operand(v[1]), operand(v[2]), operand(v[3])};
    *(Float4*)to = f;
#endif
}

// [C | G] += X^T X for the warp's tiles.
INLINE void accumulate(float sum[MY_DOWN][MY_ACROSS][4], const Cell* centred, u32 down, u32 across, u32 g, u32 t) {
#pragma unroll 1
    for (int k = 0; k < TILE; k += STEP) {
#if MATH == MATH_BF16
        u32 a[MY_DOWN][4];
#pragma unroll
        for (int i = 0; i < MY_DOWN; i++) {
            u32 row = MIN_OF(down + i, DOWN - 1) * 16 + g;
            const u32* r0 = (const u32*)(centred + row * CENTRED_ROW + k) + t;
            const u32* r8 = (const u32*)(centred + (row + 8) * CENTRED_ROW + k) + t;
            a[i][0] = r0[0];
            a[i][1] = r8[0];
            a[i][2] = r0[4];
            a[i][3] = r8[4];
        }
#pragma unroll
        for (int j = 0; j < MY_ACROSS; j++) {
            u32 row = MIN_OF(across + j, ACROSS - 1) * 8 + g;
            const u32* r = (const u32*)(centred + row * CENTRED_ROW + k) + t;
            u32 b[2] = {r[0], r[4]};
#pragma unroll
            for (int i = 0; i < MY_DOWN; i++) multiply_bf16(sum[i][j], a[i], b);
        }
#else
        float a[MY_DOWN][4];
#pragma unroll
        for (int i = 0; i < MY_DOWN; i++) {
            u32 row = MIN_OF(down + i, DOWN - 1) * 16 + g;
            left(a[i], centred + row * CENTRED_ROW + k + 2 * t, centred + (row + 8) * CENTRED_ROW + k + 2 * t);
        }
#pragma unroll
        for (int j = 0; j < MY_ACROSS; j++) {
            u32 row = MIN_OF(across + j, ACROSS - 1) * 8 + g;
            Float2 r = *(const Float2*)(centred + row * CENTRED_ROW + k + 2 * t);
            float b[2] = {r.x, r.y};
#pragma unroll
            for (int i = 0; i < MY_DOWN; i++) multiply(sum[i][j], a[i], b);
        }
#endif
    }
}

KERNEL(decode_moments, THREADS, 1) {
    const Work w = p.work[block_index()];
    const Job job = p.jobs[w.job];
    const u32 thread = thread_index(), lane = thread & 31, warp = thread >> 5, g = lane >> 2, t = lane & 3;
    const u32 kv_head = w.head / GROUP;
    const Stored* keys = job.keys + (u64)kv_head * job.stride * DK;
    const Stored* values = job.values + (u64)kv_head * job.stride * DV;

    SHARED_BYTES;
    Stored* stages = (Stored*)shared_bytes;             // [2][STAGE]
    Cell* centred = (Cell*)(stages + 2 * STAGE);        // [COLUMNS][CENTRED_ROW]
    float* query = (float*)(centred + COLUMNS * CENTRED_ROW); // [DK]
    float* step = query + DK;                           // [COLUMNS]
    float* parts = step + COLUMNS;                      // [THREADS]
    float* weights = parts + THREADS;                   // [TILE]

    for (u32 i = thread; i < DK; i += THREADS)
        query[i] = job.queries[((u64)w.row * p.heads + w.head) * DK + i] * job.scale;
    const u32 down = warp / WARPS_ACROSS * MY_DOWN, across = warp % WARPS_ACROSS * MY_ACROSS;
    float sum[MY_DOWN][MY_ACROSS][4], mean[OWNED];
#pragma unroll
    for (int i = 0; i < MY_DOWN; i++)
#pragma unroll
        for (int j = 0; j < MY_ACROSS; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) sum[i][j][c] = 0;
#pragma unroll
    for (int i = 0; i < OWNED; i++) mean[i] = 0;
    float most = -INFINITE, weight = 0;

    fetch(stages, keys, values, w.begin, w.end);
    copies_end();
    u32 turn = 0;
    for (u32 begin = w.begin; begin < w.end; begin += TILE, turn ^= 1) {
        if (begin + TILE < w.end) fetch(stages + (turn ^ 1) * STAGE, keys, values, begin + TILE, w.end);
        copies_end();
        copies_wait<1>();
        barrier();
        const Stored* stage = stages + turn * STAGE;

        // Scores: a few threads per key.
        const u32 per_key = THREADS / TILE, key = thread % TILE, part = thread / TILE;
        float s = 0;
        for (u32 c = part; c < DK / 8; c += per_key) {
            float k[8];
            load8(stage + key * KEY_ROW + c * 8, k);
#pragma unroll
            for (int i = 0; i < 8; i++) s = fmaf(k[i], query[c * 8 + i], s);
        }
        parts[thread] = s;
        barrier();

        // Weights relative to the new maximum: every warp finds the same, the first writes them.
        float score[TILE / 32], best = -INFINITE, tile_weight = 0;
#pragma unroll
        for (int i = 0; i < TILE / 32; i++) {
            u32 j = lane + 32 * i;
            float total = 0;
            for (u32 q = 0; q < per_key; q++) total += parts[q * TILE + j];
            score[i] = begin + j < w.end ? total : -INFINITE;
            best = fmaxf(best, score[i]);
        }
#pragma unroll
        for (u32 mask = 1; mask < 32; mask *= 2) best = fmaxf(best, from_lane_xor(best, mask));
        best = fmaxf(best, most);
        const float level = settled(best), keep = exp2f(most - level);
#pragma unroll
        for (int i = 0; i < TILE / 32; i++) {
            float v = exp2f(score[i] - level);
            tile_weight += v;
            if (warp == 0) weights[lane + 32 * i] = v;
        }
#pragma unroll
        for (u32 mask = 1; mask < 32; mask *= 2) tile_weight += from_lane_xor(tile_weight, mask);
        barrier();

        const float old = weight * keep, all = old + tile_weight;
        const float over = tile_weight > 0 ? 1 / tile_weight : 0, share = all > 0 ? tile_weight / all : 0;
        most = best;
        weight = all;
        // Each thread owns an element of [key | value]: its mean over the tile, then its centred row.
#pragma unroll
        for (int o = 0; o < OWNED; o++) {
            const int e = thread + o * THREADS;
            if (e >= COLUMNS) continue;
            float middle = 0;
            for (int j = 0; j < TILE; j++) middle = fmaf(weights[j], element(stage, j, e), middle);
            middle *= over;
            const float d = tile_weight > 0 ? middle - mean[o] : 0;
            step[e] = d;
            mean[o] = fmaf(d, share, mean[o]);
            for (int j = 0; j < TILE; j += CELLS) {
                float v[CELLS];
#pragma unroll
                for (int i = 0; i < CELLS; i++) v[i] = sqrtf(weights[j + i]) * (element(stage, j + i, e) - middle);
                put(centred + e * CENTRED_ROW + j, v);
            }
        }
        barrier();

        const float between = old * share;
#pragma unroll
        for (int i = 0; i < MY_DOWN; i++) {
            const u32 row = MIN_OF(down + i, DOWN - 1) * 16 + g;
            const float d0 = between * step[row], d8 = between * step[row + 8];
#pragma unroll
            for (int j = 0; j < MY_ACROSS; j++) {
                const Float2 e = *(const Float2*)(step + MIN_OF(across + j, ACROSS - 1) * 8 + 2 * t);
                sum[i][j][0] = fmaf(d0, e.x, sum[i][j][0] * keep);
                sum[i][j][1] = fmaf(d0, e.y, sum[i][j][1] * keep);
                sum[i][j][2] = fmaf(d8, e.x, sum[i][j][2] * keep);
                sum[i][j][3] = fmaf(d8, e.y, sum[i][j][3] * keep);
            }
        }
        accumulate(sum, centred, down, across, g, t);
    }

    float* out = p.partial + (u64)w.slot * PART;
    if (thread == 0) {
        out[0] = most;
        out[1] = weight;
    }
#pragma unroll
    for (int o = 0; o < OWNED; o++)
        if (thread + o * THREADS < COLUMNS) out[4 + thread + o * THREADS] = mean[o];
    out += 4 + COLUMNS;
#pragma unroll
    for (int i = 0; i < MY_DOWN; i++)
#pragma unroll
        for (int j = 0; j < MY_ACROSS; j++) {
            const u32 row = (down + i) * 16 + g, column = (across + j) * 8 + 2 * t;
            if (column >= COLUMNS) continue;
            const Float2 low = {sum[i][j][0], sum[i][j][1]}, high = {sum[i][j][2], sum[i][j][3]};
            if (row < DK) *(Float2*)(out + row * COLUMNS + column) = low;
            if (row + 8 < DK) *(Float2*)(out + (row + 8) * COLUMNS + column) = high;
        }
}
