"""Prints the tables of README.md: python3 eval/bench/attention/summary.py [result.json]"""
import json
import pathlib
import sys

file = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "result.json"
result = json.loads(pathlib.Path(file).read_text())


def iterations(row, method):
    """Those that the operations counted amount to: rounding ends some solves before the cap."""
    first = row["keys"] - row["tokens"]
    pairs = sum(first + i + 1 for i in range(row["tokens"])) * row["group"]
    return method["gflops"] * 1e3 * method["microseconds"] / (4 * pairs * row["dim"]) - 2


def cell(row, method):
    was = method["reference_microseconds"]
    text = f"{method['microseconds']:.1f}" + (f" ({was:g})" if was else "")
    if method["method"].startswith("CG"):
        ran = iterations(row, method)
        text += f" [{ran:.0f}]" if ran < int(method["method"][2:]) - 0.5 else ""
    return text


print(f"{result['level']}, {result['gflops_limit']:.0f} GFLOP/s from registers "
      f"({result['gflops_limit_after']:.0f} after the run); reading, GB/s: "
      + ", ".join(f"{size // 1024} KiB {speed:.0f}" for size, speed in result["read_gbytes"]))
for tokens in sorted({row["tokens"] for row in result["rows"]}):
    names = ["softmax", "CG4", "CG8", "CG16"] + (["Gram"] if tokens == 1 else [])
    print(f"\n| d, n, keys, g | {' | '.join(names)} | softmax: GFLOP/s, GB/s, share of limit | CG8 / softmax | CG8 GFLOP/s |")
    print("|---" * (len(names) + 4) + "|")
    for row in result["rows"]:
        if row["tokens"] != tokens:
            continue
        by = {method["method"]: method for method in row["methods"]}
        soft, eight = by["softmax"], by["CG8"]
        print(f"| {row['dim']}, {row['keys']}, {row['precision'].lower()}, {row['group']} | "
              + " | ".join(cell(row, by[name]) for name in names)
              + f" | {soft['gflops']:.0f}, {soft['gbytes']:.0f}, {100 * soft['share_of_limit']:.0f} % ({soft['limit']})"
              + f" | {eight['times_softmax']:.1f} | {eight['gflops']:.0f} |")
