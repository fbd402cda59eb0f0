// Many queries per sequence, causal. A block takes ROWS rows (tokens x query heads of one key-value head, so that a
// tile of keys and values serves the whole group) and walks the keys they see; a warp owns 16 rows from end to end.
//
//   prefill_softmax    one pass: online softmax, weighted sum of values.
//   prefill_projected  the same with a given correction rho: o = vbar (1 + mean t) - mean (t v), t = rho.(k - c).
//   prefill_lla        three phases: softmax moments of the keys; conjugate gradients for all rows in step, C x taken
//                      as two products per tile, C never formed; output. Weights are found anew in each pass.
//
// Keys are centred on c, the mean of the first tile, before they are rounded (not for plain softmax, where half
// precision keys are exact operands). Tiles lie in shared memory in single precision, columns swizzled so that reads
// along a row (scores) and down a column (sums) both hit 32 banks.

// Which of the kernels is compiled: KIND.
#define PREFILL_SOFTMAX 0
#define PREFILL_PROJECTED 1
#define PREFILL_LLA 2

#define WARPS 4
#define THREADS (WARPS * 32)
#define ROWS (WARPS * 16)
#define TILE 32
#define KEY_ROW ROUND_UP(DK, 32)
#define VALUE_ROW ROUND_UP(DV, 32)
#define KEY_TILES (DK / 8)
#define VALUE_TILES (DV / 8)
#define SCORE_TILES (TILE / 8)
#define STATE (KEY_TILES * 4)

INLINE u32 swizzle(u32 row, u32 column) { return column ^ (((row ^ (row >> 1)) & 3) << 3); }

struct Block {
    Stored* stage;  // [TILE][DK], [TILE][DV] as stored
    float* keys;    // [TILE][KEY_ROW]
    float* values;  // [TILE][VALUE_ROW]
    float* query;   // [ROWS][KEY_ROW], scaled
    float* centre;  // [DK]
    float* squares; // [TILE] |k|^2
    float* state;   // prefill_lla: [3][STATE][THREADS], kbar, residual, x, each thread its own
    float* probe;   // prefill_projected, in the same place: [ROWS][KEY_ROW]
    const Stored* from_keys;
    const Stored* from_values;
    u32 begin, end; // keys that any row sees
    u32 warp, g, t;
    // The thread's two rows, g and g + 8 of its warp.
    u32 low[2], high[2]; // keys it sees
    u64 row[2];          // place in [tokens][heads]
    u32 head[2];
    bool here[2];
};

// Starts the copy of the tile at `at`; what lies past the end becomes zeros.
INLINE void fetch(const Block& b, u32 at, bool with_values) {
    const u32 each = 16 / sizeof(Stored), key_parts = DK / each, value_parts = DV / each;
    for (u32 i = thread_index(); i < TILE * key_parts; i += THREADS) {
        const u32 key = at + i / key_parts;
        const bool here = key < b.end;
        copy16(b.stage + i * each, b.from_keys + (u64)(here ? key : at) * DK + i % key_parts * each, here);
    }
    if (with_values)
        for (u32 i = thread_index(); i < TILE * value_parts; i += THREADS) {
            const u32 key = at + i / value_parts;
            const bool here = key < b.end;
            copy16(b.stage + TILE * DK + i * each, b.from_values + (u64)(here ? key : at) * DV + i % value_parts * each, here);
        }
    copies_end();
}

INLINE void place(float* row, u32 r, u32 column, const float v[8]) {
    Float4* to = (Float4*)(row + swizzle(r, column));
    const Float4 a = {operand(v[0]), operand(v[1]), operand(v[2]), operand(v[3])};
    const Float4 c = {operand(v[4]), operand(v[5]), operand(v[6]), operand(v[7])};
    to[0] = a;
    to[1] = c;
}

// Makes the fetched tile at `at` the current one and starts the next copy.
INLINE void turn(const Block& b, u32 at, bool with_values) {
    copies_wait<0>();
    barrier();
    for (u32 i = thread_index(); i < TILE * KEY_TILES; i += THREADS) {
        const u32 r = i / KEY_TILES, column = i % KEY_TILES * 8;
        float v[8];
        load8(b.stage + r * DK + column, v);
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] -= b.centre[column + k];
        place(b.keys + r * KEY_ROW, r, column, v);
    }
    if (with_values)
        for (u32 i = thread_index(); i < TILE * VALUE_TILES; i += THREADS) {
            const u32 r = i / VALUE_TILES, column = i % VALUE_TILES * 8;
            float v[8];
            load8(b.stage + TILE * DK + r * DV + column, v);
            place(b.values + r * VALUE_ROW, r, column, v);
        }
    barrier();
    if (at + TILE < b.end) fetch(b, at + TILE, with_values);
}

// The block's rows of a list laid out like the queries, times a factor; zeros past the last token.
INLINE void load_rows(float* to, const float* from, float factor, const Params& p, const Job& job, const Work& w) {
    for (u32 i = thread_index(); i < ROWS * KEY_TILES; i += THREADS) {
        const u32 r = i / KEY_TILES, column = i % KEY_TILES * 8, row = w.row + r, token = row / GROUP;
        const u64 at = ((u64)token * p.heads + w.head * GROUP + row % GROUP) * DK + column;
        float v[8];
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = token < job.tokens ? from[at + k] * factor : 0;
        place(to + r * KEY_ROW, r, column, v);
    }
}

// Reads the block's work, lays out shared memory, loads the queries and, if asked, finds the centre.
INLINE void set_up(Block& b, const Params& p, const Job& job, const Work& w, byte* shared, bool centred) {
    b.stage = (Stored*)shared;
    b.keys = (float*)(b.stage + TILE * (DK + DV));
    b.values = b.keys + TILE * KEY_ROW;
    b.query = b.values + TILE * VALUE_ROW;
    b.centre = b.query + ROWS * KEY_ROW;
    b.squares = b.centre + DK;
    b.state = b.probe = b.squares + TILE;
    b.from_keys = job.keys + (u64)w.head * job.stride * DK;
    b.from_values = job.values + (u64)w.head * job.stride * DV;
    b.begin = w.begin;
    b.end = w.end;
    const u32 lane = thread_index() & 31;
    b.warp = thread_index() >> 5;
    b.g = lane >> 2;
    b.t = lane & 3;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const u32 row = w.row + b.warp * 16 + b.g + r * 8, token = row / GROUP;
        b.here[r] = token < job.tokens;
        b.head[r] = w.head * GROUP + row % GROUP;
        b.row[r] = (u64)token * p.heads + b.head[r];
        b.low[r] = b.high[r] = 0;
        if (b.here[r]) visible(job, token, b.low[r], b.high[r]);
    }
    load_rows(b.query, job.queries, job.scale, p, job, w);
    for (u32 i = thread_index(); i < DK; i += THREADS) b.centre[i] = 0;
    if (!centred) return;
    fetch(b, b.begin, false);
    copies_wait<0>();
    barrier();
    const u32 count = MIN_OF((u32)TILE, b.end - b.begin);
    for (u32 i = thread_index(); i < DK; i += THREADS) {
        float s = 0;
        for (u32 r = 0; r < count; r++) s += load1(b.stage + r * DK + i);
        b.centre[i] = s / (float)count;
    }
    barrier();
}

// s = rows in shared memory times keys.
INLINE void products(float s[SCORE_TILES][4], const float* rows, const Block& b) {
#pragma unroll
    for (int j = 0; j < SCORE_TILES; j++) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0;
    const u32 r = b.warp * 16 + b.g;
#pragma unroll 2
    for (u32 c = 0; c < KEY_TILES; c++) {
        const u32 column = c * 8 + 2 * b.t;
        float a[4];
        left(a, rows + r * KEY_ROW + swizzle(r, column), rows + (r + 8) * KEY_ROW + swizzle(r + 8, column));
#pragma unroll
        for (u32 j = 0; j < SCORE_TILES; j++) {
            const u32 key = j * 8 + b.g;
            const Float2 k = *(const Float2*)(b.keys + key * KEY_ROW + swizzle(key, column));
            const float right[2] = {k.x, k.y};
            multiply(s[j], a, right);
        }
    }
}

// Scores, minus infinity where a row does not see a key.
INLINE void scores(float s[SCORE_TILES][4], const Block& b, u32 at) {
    products(s, b.query, b);
#pragma unroll
    for (u32 j = 0; j < SCORE_TILES; j++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const u32 key = at + j * 8 + 2 * b.t + (c & 1);
            if (key < b.low[c >> 1] || key >= b.high[c >> 1]) s[j][c] = -INFINITE;
        }
}

// s = x times keys, x a vector per row in the layout of a result.
INLINE void project(float s[SCORE_TILES][4], const float x[KEY_TILES][4], const Block& b) {
#pragma unroll
    for (int j = 0; j < SCORE_TILES; j++) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0;
#pragma unroll
    for (int c = 0; c < KEY_TILES; c++) {
        float a[4];
        left_of(a, x[c]);
#pragma unroll
        for (u32 j = 0; j < SCORE_TILES; j++) {
            const u32 key = j * 8 + b.g;
            const Float2 k = *(const Float2*)(b.keys + key * KEY_ROW + swizzle(key, c * 8 + 2 * b.t));
            const float right[2] = {k.x, k.y};
            multiply(s[j], a, right);
        }
    }
}

// sum += weights times the rows of a tile.
template <int TILES, int ROW>
INLINE void accumulate(float sum[TILES][4], const float w[SCORE_TILES][4], const float* tile, const Block& b) {
#pragma unroll
    for (int j = 0; j < SCORE_TILES; j++) {
        float a[4];
        left_of(a, w[j]);
        const u32 k0 = j * 8 + 2 * b.t, k1 = k0 + 1;
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            const u32 column = n * 8 + b.g;
            const float right[2] = {tile[k0 * ROW + swizzle(k0, column)], tile[k1 * ROW + swizzle(k1, column)]};
            multiply(sum[n], a, right);
        }
    }
}

// Sums and maxima over a row: its four lanes.
INLINE float row_sum(float v) {
    v += from_lane_xor(v, 1);
    return v + from_lane_xor(v, 2);
}
INLINE float row_most(float v) {
    v = fmaxf(v, from_lane_xor(v, 1));
    return fmaxf(v, from_lane_xor(v, 2));
}

// Scores to weights relative to the new maximum; `keep` is what to multiply older sums by.
INLINE void online(float s[SCORE_TILES][4], float most[2], float weight[2], float keep[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float best = most[r];
#pragma unroll
        for (int j = 0; j < SCORE_TILES; j++) best = fmaxf(best, fmaxf(s[j][2 * r], s[j][2 * r + 1]));
        best = row_most(best);
        const float level = settled(best);
        float sum = 0;
#pragma unroll
        for (int j = 0; j < SCORE_TILES; j++)
#pragma unroll
            for (int c = 2 * r; c < 2 * r + 2; c++) {
                s[j][c] = exp2f(s[j][c] - level);
                sum += s[j][c];
            }
        keep[r] = exp2f(most[r] - level);
        weight[r] = weight[r] * keep[r] + row_sum(sum);
        most[r] = best;
    }
}

template <int TILES> INLINE void rescale(float sum[TILES][4], const float keep[2]) {
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int c = 0; c < 4; c++) sum[n][c] *= keep[c >> 1];
}

template <int TILES> INLINE void clear(float sum[TILES][4]) {
#pragma unroll
    for (int n = 0; n < TILES; n++) sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0;
}

INLINE float inverse(float weight) { return weight == 0 ? 0 : 1 / weight; }

INLINE void write_row(float* out, const float value[VALUE_TILES][4], int r, const Block& b) {
#pragma unroll
    for (int n = 0; n < VALUE_TILES; n++) {
        const Float2 pair = {value[n][2 * r], value[n][2 * r + 1]};
        *(Float2*)(out + b.row[r] * DV + n * 8 + 2 * b.t) = pair;
    }
}

#if KIND == PREFILL_SOFTMAX

KERNEL(prefill_softmax, THREADS, 1) {
    const Work w = p.work[block_index()];
    const Job job = p.jobs[w.job];
    SHARED_BYTES;
    Block b;
    set_up(b, p, job, w, shared_bytes, false);
    float most[2] = {-INFINITE, -INFINITE}, weight[2] = {0, 0}, sum[VALUE_TILES][4];
    clear<VALUE_TILES>(sum);
    if (b.begin < b.end) fetch(b, b.begin, true);
    for (u32 at = b.begin; at < b.end; at += TILE) {
        turn(b, at, true);
        float s[SCORE_TILES][4], keep[2];
        scores(s, b, at);
        online(s, most, weight, keep);
        rescale<VALUE_TILES>(sum, keep);
        accumulate<VALUE_TILES, VALUE_ROW>(sum, s, b.values, b);
    }
    const float over[2] = {inverse(weight[0]), inverse(weight[1])};
    rescale<VALUE_TILES>(sum, over);
#pragma unroll
    for (int r = 0; r < 2; r++)
        if (b.here[r] && is_softmax(job, b.head[r])) write_row(job.out, sum, r, b);
}

#elif KIND == PREFILL_PROJECTED

KERNEL(prefill_projected, THREADS, 1) {
    const Work w = p.work[block_index()];
    const Job job = p.jobs[w.job];
    SHARED_BYTES;
    Block b;
    set_up(b, p, job, w, shared_bytes, true);
    load_rows(b.probe, job.rho, 1, p, job, w);
    float most[2] = {-INFINITE, -INFINITE}, weight[2] = {0, 0}, lean[2] = {0, 0};
    float sum[VALUE_TILES][4], leant[VALUE_TILES][4];
    clear<VALUE_TILES>(sum);
    clear<VALUE_TILES>(leant);
    fetch(b, b.begin, true);
    for (u32 at = b.begin; at < b.end; at += TILE) {
        turn(b, at, true);
        float s[SCORE_TILES][4], v[SCORE_TILES][4], keep[2], more[2] = {0, 0};
        scores(s, b, at);
        online(s, most, weight, keep);
        rescale<VALUE_TILES>(sum, keep);
        rescale<VALUE_TILES>(leant, keep);
        accumulate<VALUE_TILES, VALUE_ROW>(sum, s, b.values, b);
        products(v, b.probe, b);
#pragma unroll
        for (int j = 0; j < SCORE_TILES; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                s[j][c] *= v[j][c];
                more[c >> 1] += s[j][c];
            }
#pragma unroll
        for (int r = 0; r < 2; r++) lean[r] = lean[r] * keep[r] + row_sum(more[r]);
        accumulate<VALUE_TILES, VALUE_ROW>(leant, s, b.values, b);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float over = inverse(weight[r]), tilt = 1 + lean[r] * over;
#pragma unroll
        for (int n = 0; n < VALUE_TILES; n++)
#pragma unroll
            for (int c = 2 * r; c < 2 * r + 2; c++) sum[n][c] = sum[n][c] * over * tilt - leant[n][c] * over;
        if (b.here[r]) write_row(job.out, sum, r, b);
    }
}

#elif KIND == PREFILL_LLA

#define KBAR 0
#define RESIDUAL 1
#define SOLUTION 2
#define MINE(what, n, c) b.state[((what) * STATE + (n) * 4 + (c)) * THREADS + thread_index()]

// What the phases of prefill_lla hand on, per row of the thread.
struct Solve {
    float level[2], over[2]; // maximum, 1 / sum of weights
    float lambda[2], rr[2], stop[2];
    bool active[2], sound[2];
    int iterations[2];
};

// Row products of a vector in registers with kbar.
INLINE void along_mean(float dot[2], const float x[KEY_TILES][4], const Block& b) {
    dot[0] = dot[1] = 0;
#pragma unroll
    for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
        for (int c = 0; c < 4; c++) dot[c >> 1] = fmaf(x[n][c], MINE(KBAR, n, c), dot[c >> 1]);
    dot[0] = row_sum(dot[0]);
    dot[1] = row_sum(dot[1]);
}

// Phase 1: maximum, weight, kbar (relative to the centre), delta = kbar - q as residual and direction, lambda.
INLINE void moments(Solve& v, float direction[KEY_TILES][4], const Block& b, const Job& job) {
    float most[2] = {-INFINITE, -INFINITE}, weight[2] = {0, 0}, size[2] = {0, 0};
    clear<KEY_TILES>(direction);
    fetch(b, b.begin, false);
    for (u32 at = b.begin; at < b.end; at += TILE) {
        turn(b, at, false);
        // |k|^2 of the tile: four lanes per key.
        {
            const u32 key = thread_index() / 4;
            float square = 0;
            for (u32 c = thread_index() % 4; c < DK; c += 4) {
                const float k = b.keys[key * KEY_ROW + swizzle(key, c)] + b.centre[c];
                square = fmaf(k, k, square);
            }
            square = row_sum(square);
            if (thread_index() % 4 == 0) b.squares[key] = square;
            barrier();
        }
        float s[SCORE_TILES][4], keep[2], more[2] = {0, 0};
        scores(s, b, at);
        online(s, most, weight, keep);
        rescale<KEY_TILES>(direction, keep);
        accumulate<KEY_TILES, KEY_ROW>(direction, s, b.keys, b);
#pragma unroll
        for (u32 j = 0; j < SCORE_TILES; j++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                more[c >> 1] = fmaf(s[j][c], b.squares[j * 8 + 2 * b.t + (c & 1)], more[c >> 1]);
#pragma unroll
        for (int r = 0; r < 2; r++) size[r] = size[r] * keep[r] + row_sum(more[r]);
    }
    float far[2] = {0, 0};
#pragma unroll
    for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int r = c >> 1, column = n * 8 + 2 * b.t + (c & 1);
            const float mean = direction[n][c] * inverse(weight[r]);
            const float q = b.here[r] ? job.queries[b.row[r] * DK + column] - b.centre[column] : mean;
            MINE(KBAR, n, c) = mean;
            direction[n][c] = mean - q;
            MINE(RESIDUAL, n, c) = direction[n][c];
            MINE(SOLUTION, n, c) = 0;
            far[r] = fmaf(direction[n][c], direction[n][c], far[r]);
        }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        far[r] = row_sum(far[r]);
        v.level[r] = settled(most[r]);
        v.over[r] = inverse(weight[r]);
        const bool solves = b.here[r] && !is_softmax(job, b.head[r]);
        const float lambda = solves ? job.lambda[b.head[r]] : 1;
        v.lambda[r] = fmaxf(lambda, 64 * 1.1920929e-7f * size[r] * v.over[r]);
        v.lambda[r] = fmaxf(v.lambda[r], far[r] / (4 * job.radius * job.radius));
        v.rr[r] = far[r];
        v.stop[r] = job.tolerance * far[r];
        v.sound[r] = is_finite(far[r]) && is_finite(v.lambda[r]);
        v.active[r] = solves && v.sound[r] && far[r] > v.stop[r] && weight[r] > 0;
        v.iterations[r] = 0;
    }
}

// The weights of a tile, as phase 1 saw them.
INLINE void weights(float s[SCORE_TILES][4], const Solve& v, const Block& b, u32 at) {
    scores(s, b, at);
#pragma unroll
    for (int j = 0; j < SCORE_TILES; j++)
#pragma unroll
        for (int c = 0; c < 4; c++) s[j][c] = exp2f(s[j][c] - v.level[c >> 1]);
}

// Phase 2, one iteration: x += a d, r -= a (C d + lambda d), d = r + b d for the rows still at work.
INLINE void iterate(Solve& v, float direction[KEY_TILES][4], const Block& b) {
    float y[KEY_TILES][4], mean[2];
    clear<KEY_TILES>(y);
    along_mean(mean, direction, b);
    fetch(b, b.begin, false);
    for (u32 at = b.begin; at < b.end; at += TILE) {
        turn(b, at, false);
        float s[SCORE_TILES][4], u[SCORE_TILES][4];
        weights(s, v, b, at);
        project(u, direction, b);
#pragma unroll
        for (int j = 0; j < SCORE_TILES; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) s[j][c] *= u[j][c] - mean[c >> 1];
        accumulate<KEY_TILES, KEY_ROW>(y, s, b.keys, b);
    }
    float curve[2] = {0, 0}, next[2] = {0, 0}, step[2], turn_by[2];
#pragma unroll
    for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            y[n][c] = fmaf(v.lambda[c >> 1], direction[n][c], y[n][c] * v.over[c >> 1]);
            curve[c >> 1] = fmaf(direction[n][c], y[n][c], curve[c >> 1]);
        }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        curve[r] = row_sum(curve[r]);
        if (v.active[r] && !(curve[r] > 0 && is_finite(curve[r]))) v.sound[r] = v.active[r] = false;
        step[r] = v.active[r] ? v.rr[r] / curve[r] : 0;
    }
#pragma unroll
    for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int r = c >> 1;
            if (!v.active[r]) continue;
            MINE(SOLUTION, n, c) = fmaf(step[r], direction[n][c], MINE(SOLUTION, n, c));
            const float left_over = fmaf(-step[r], y[n][c], MINE(RESIDUAL, n, c));
            MINE(RESIDUAL, n, c) = left_over;
            next[r] = fmaf(left_over, left_over, next[r]);
        }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        next[r] = row_sum(next[r]);
        turn_by[r] = v.active[r] ? next[r] / v.rr[r] : 0;
    }
#pragma unroll
    for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            if (v.active[c >> 1]) direction[n][c] = fmaf(turn_by[c >> 1], direction[n][c], MINE(RESIDUAL, n, c));
#pragma unroll
    for (int r = 0; r < 2; r++)
        if (v.active[r]) {
            v.iterations[r]++;
            v.rr[r] = next[r];
            v.sound[r] = is_finite(next[r]);
            v.active[r] = v.sound[r] && next[r] > v.stop[r];
        }
}

// Phase 3: o = sum p (1 - x.(k - kbar)) v, into `sum`.
INLINE void apply(float sum[VALUE_TILES][4], const float x[KEY_TILES][4], const Solve& v, const Block& b) {
    float mean[2];
    along_mean(mean, x, b);
    clear<VALUE_TILES>(sum);
    fetch(b, b.begin, true);
    for (u32 at = b.begin; at < b.end; at += TILE) {
        turn(b, at, true);
        float s[SCORE_TILES][4], u[SCORE_TILES][4];
        weights(s, v, b, at);
        project(u, x, b);
#pragma unroll
        for (int j = 0; j < SCORE_TILES; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) s[j][c] *= 1 - u[j][c] + mean[c >> 1];
        accumulate<VALUE_TILES, VALUE_ROW>(sum, s, b.values, b);
    }
    rescale<VALUE_TILES>(sum, v.over);
}

KERNEL(prefill_lla, THREADS, 1) {
    const Work w = p.work[block_index()];
    const Job job = p.jobs[w.job];
    SHARED_BYTES;
    Block b;
    set_up(b, p, job, w, shared_bytes, true);
    Solve v;
    float x[KEY_TILES][4];
    moments(v, x, b, job);
    for (u32 i = 0; i < job.most && barrier_any(v.active[0] || v.active[1]); i++) iterate(v, x, b);
    // A row that failed, or whose output is out of range, falls back to softmax: rho = 0.
#pragma unroll 1
    for (int attempt = 0; attempt < 2; attempt++) {
        float sum[VALUE_TILES][4];
#pragma unroll
        for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) x[n][c] = v.sound[c >> 1] ? MINE(SOLUTION, n, c) : 0;
        apply(sum, x, v, b);
        bool odd[2] = {false, false};
#pragma unroll
        for (int n = 0; n < VALUE_TILES; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) odd[c >> 1] |= !is_finite(sum[n][c]);
#pragma unroll
        for (int r = 0; r < 2; r++) odd[r] = row_most(odd[r] && v.sound[r]) > 0;
        const bool again = barrier_any(odd[0] || odd[1]);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (odd[r]) v.sound[r] = false;
            else if (b.here[r] && !is_softmax(job, b.head[r])) {
                write_row(job.out, sum, r, b);
                if (b.t == 0) job.iterations[b.row[r]] = v.sound[r] ? v.iterations[r] : -1;
            }
        }
        if (!again) break;
    }
}

#endif
