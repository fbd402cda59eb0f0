// New keys and values into their places: the host's rows, position by position, become rows per head.

#define THREADS 256

// job.queries: [tokens][kv_heads][DK] keys, then [tokens][kv_heads][DV] values; job.first: where the first goes.
KERNEL(append, THREADS, 1) {
    const Job job = p.jobs[0];
    const u64 keys = (u64)job.tokens * p.kv_heads * DK, all = keys + (u64)job.tokens * p.kv_heads * DV;
    const u64 i = (u64)block_index() * THREADS + thread_index();
    if (i >= all) return;
    const bool key = i < keys;
    const u64 width = key ? DK : DV, at = key ? i : i - keys;
    const u64 token = at / width / p.kv_heads, head = at / width % p.kv_heads;
    Stored* to = (Stored*)(key ? job.keys : job.values) + (head * job.stride + job.first + token) * width + at % width;
    const float v = job.queries[i];
#if HALF_KV
    // Finite numbers stay finite.
    *to = float_to_half(is_finite(v) ? fminf(fmaxf(v, -65504.0f), 65504.0f) : v);
#else
    *to = v;
#endif
}
