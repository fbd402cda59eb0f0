"""Softmax against torch's scaled_dot_product_attention, local linear attention against a naive torch version.

    python3 compare.py MEASURED.json > compared.json

MEASURED.json is what the program beside this file printed on the same device. The ceilings (a large copy, a large bf16 product)
are measured here in the same run, and every time is put beside the larger of its two floors.
"""

import json
import statistics
import sys

import torch
import torch.nn.functional as F


def seconds(run, repeat=30):
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(repeat):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def ceilings():
    a = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    b = torch.empty_like(a)
    copy = 2 * a.numel() / seconds(lambda: b.copy_(a))
    x = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    y = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    return copy, 2 * 8192**3 / seconds(lambda: x @ y)


def naive_lla(q, k, v, lam, causal):
    """q: heads x tokens x d, k and v: heads x keys x d, single precision; covariances in full."""
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    if causal:
        first = k.shape[1] - q.shape[1]
        seen = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).tril(first)
        scores = scores.masked_fill(~seen, float("-inf"))
    p = scores.softmax(-1)
    mean = p @ k
    out = torch.empty(*q.shape[:2], v.shape[-1], device=q.device)
    eye = lam * torch.eye(k.shape[-1], device=q.device)
    for t in range(q.shape[1]):
        u = k - mean[:, t, None]
        w = p[:, t, :, None]
        rho = torch.linalg.solve(u.transpose(1, 2) @ (w * u) + eye, (mean[:, t] - q[:, t])[..., None])
        out[:, t] = ((w * (1 - u @ rho)) * v).sum(1)
    return out


def compare(one, copy, product):
    heads, kv, d, tokens, keys = (one[x] for x in ("heads", "kv_heads", "dim", "tokens", "keys"))
    half = dict(dtype=torch.float16, device="cuda")
    sets = [(torch.randn(1, heads, tokens, d, **half), torch.randn(1, kv, keys, d, **half), torch.randn(1, kv, keys, d, **half))
            for _ in range(max(1, min(16, (512 << 20) // (keys * kv * d * 4))))]
    turn = iter(range(1 << 30))
    if one["way"] == "softmax":
        def run():
            q, k, v = sets[next(turn) % len(sets)]
            F.scaled_dot_product_attention(q, k, v, is_causal=tokens > 1, enable_gqa=heads != kv)
        torch_s, rival = seconds(run), "scaled_dot_product_attention"
    else:
        q, k, v = (x[0].float() for x in sets[0])
        k, v = k.repeat_interleave(heads // kv, 0), v.repeat_interleave(heads // kv, 0)
        rows = min(tokens, 16)  # the naive version is linear in rows: a few stand for all
        torch_s = seconds(lambda: naive_lla(q[:, -rows:], k, v, 10.0, tokens > 1), 5) * tokens / rows
        rival = "naive, from %d of %d tokens" % (rows, tokens)
    floor = max(keys * kv * 2 * d * 2 / copy, one["flops"] / product)
    return dict(one, torch_seconds=torch_s, torch=rival, speedup=torch_s / one["seconds"], floor_seconds=floor,
                share_of_floor=floor / one["seconds"])


def main():
    measured = json.load(open(sys.argv[1]))
    copy, product = ceilings()
    rows = [compare(one, copy, product) for one in measured["times"]]
    json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "copy_bytes_per_second": copy,
               "bf16_flops_per_second": product, "rows": rows}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
