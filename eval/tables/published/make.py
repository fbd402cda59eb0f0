"""Writes the published tables of this folder. Standard library only.

    python3 eval/tables/published/make.py IPW_DIR ROUTING_DIR

IPW_DIR holds the csv copies of the figures of arXiv 2511.07885 v4 (ipw_paper_models.csv, ipw_paper_domains.csv,
ipw_paper_efficiency.csv); ROUTING_DIR the per-query outcomes (mmlu_pro, zeroeval_gsm, zeroeval_crux, each NAME.jsonl.gz
with NAME.models.json). README.md says what is taken from where, and its licences.
"""
import csv, gzip, json, math, pathlib, sys

HERE = pathlib.Path(__file__).parent
IPW, ROUTING = (pathlib.Path(p) for p in sys.argv[1:3])
DOMAIN = {  # MMLU-Pro category -> domain; "other" stays None
    "math": "Computer and mathematical", "computer science": "Computer and mathematical",
    "physics": "Life, physical, and social science", "chemistry": "Life, physical, and social science",
    "biology": "Life, physical, and social science", "psychology": "Life, physical, and social science",
    "economics": "Business and financial operations", "business": "Business and financial operations",
    "engineering": "Architecture and engineering", "law": "Legal services",
    "health": "Healthcare practitioners and technical",
    "history": "Education instruction and library", "philosophy": "Education instruction and library",
    "other": "None",
}
NOMINAL = 1000  # n of a printed share whose counts are not printed; kept low so that its interval stays wide
PAPER = "arXiv 2511.07885 v4"
CHAT = ("WildChat is scored as win or tie against Qwen3-235B by a language model: GPT-5 reaches 81.9 % and GPT-OSS-120B "
        "89.2 %, so it measures style as much as ability.")


def wilson(correct, n, z=1.959963984540054):
    p, z2 = correct / n, z * z
    mid, half = p + z2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, (mid - half) / (1 + z2 / n)), min(1.0, (mid + half) / (1 + z2 / n))


def row(correct, n, baseline=None, **more):
    low, high = wilson(correct, n)
    out = {"n": n, "correct": correct, "coverage": round(correct / n, 6), "coverage_low": round(low, 6),
           "coverage_high": round(high, 6)}
    if baseline is not None:
        out |= {"baseline_coverage": round(baseline, 6), "gain": round(baseline - correct / n, 6)}
    return out | {k: v for k, v in more.items() if v is not None}


def share(percent, n=NOMINAL, **more):
    return row(round(percent * n / 100), n, **more)


def write(name, model, device, runtime, provenance, overall, domains, tokens=None):
    provenance = {"command": "python3 eval/tables/published/make.py IPW_DIR ROUTING_DIR", **provenance}
    head = {"schema": 1, "model": model, "device": device, "runtime": runtime, "attention": "softmax",
            "basis": "published", "provenance": provenance, "tokens": tokens or {}, "overall": overall}
    lines = [f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in head.items()]
    rows = [f"    {json.dumps(d)}: {json.dumps(r)}" for d, r in sorted(domains.items())]
    lines.append('  "domains": {' + ("\n" + ",\n".join(rows) + "\n  }" if rows else "}"))
    (HERE / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def rows_of(path):
    with open(path) as f:
        return list(csv.DictReader(line for line in f if not line.startswith("#")))


def paper():
    models = {r["model"]: r for r in rows_of(IPW / "ipw_paper_models.csv")}
    base = {"date": "2026-05-21", "licence": "figures from a paper under CC BY 4.0", "counts": "nominal"}
    suites = ["WildChat (ODC-BY)", "NaturalReasoning (CC BY-NC 4.0)", "MMLU-Pro (MIT)", "SuperGPQA"]
    mean = ["The coverage is the unweighted mean of the printed shares of four question sets; the counts behind them are "
            f"not printed per model, so n is set to {NOMINAL}, which keeps the interval wide.", CHAT]
    for name, r in models.items():
        if name == "GPT-OSS-120B":
            continue  # has per-domain figures, below
        cloud = r["type"] == "closed"
        notes = list(mean)
        if not r["wildchat"]:
            notes.append("Reference model of the WildChat judge: no WildChat share; mean of three sets.")
        write(slug(name), name, "provider" if cloud else "as served in the study", "provider" if cloud else "vLLM",
              {"source": f"{PAPER}, table 11", "suites": suites, **base, "notes": notes}, share(float(r["avg"])), {})
    write("qwen3-4b", "Qwen3-4B", "as served in the study", "vLLM",
          {"source": f"{PAPER}, section 4.1", "suites": suites, **base, "notes": mean}, share(49.6), {})
    gpt_oss(base, suites)
    devices(base, suites)


def gpt_oss(base, suites):
    domains = {}
    for r in rows_of(IPW / "ipw_paper_domains.csv"):
        if r["goss_avg"] and r["domain"] != "TOTAL":
            domains[r["domain"]] = share(float(r["goss_avg"]), min(NOMINAL, int(r["wc_count"])))
    notes = [f"Per domain: mean of WildChat, MMLU-Pro and SuperGPQA (the caption promises NaturalReasoning; the column "
             f"is absent). n is the domain's WildChat count, at most {NOMINAL}: the counts of the other sets are not printed.",
             CHAT, "Three figures for this model on MMLU-Pro: 78.3 (table 11), 80.3 (table 12), 80.4 (section 2)."]
    write("gpt-oss-120b", "GPT-OSS-120B", "as served in the study", "vLLM",
          {"source": f"{PAPER}, tables 4 and 11", "suites": suites, **base, "notes": notes}, share(72.0), domains)


def devices(base, suites):
    """IPJ of table 14 with the accuracy of table 13 (11 where 13 has none), batch 1."""
    rows = rows_of(IPW / "ipw_paper_efficiency.csv")
    ipw = {(r["model"], r["hardware"]): r for r in rows if r["table"] == "13"}
    for r in (r for r in rows if r["table"] == "14"):
        model, device = r["model"], r["hardware"]
        thirteen = ipw.get((model, device))
        acc = float(thirteen["acc"]) if thirteen else {"GPT-OSS-20B": 66.7, "GPT-OSS-120B": 72.0}[model]
        ipj = float(r["ipj"])
        overall = share(acc, ipw=float(thirteen["ipw"]) if thirteen else None, ipj=ipj,
                        joules_per_query=round(acc / 100 / ipj, 1))
        notes = [f"J per query follows from coverage and IPJ; n is set to {NOMINAL}.", CHAT,
                 "Energy of the accelerator alone, idle power charged to the query, batch 1."]
        if thirteen:
            notes.append("The mean power that IPW implies is the same for every Qwen3 size (352 W on M4 Max, 253 W on B200): "
                         "IPW is not to be trusted; IPJ is the lead figure.")
        if device == "M4 Max":
            notes.append("At 546 GB/s this device cannot have written as many tokens as the B200 did: the two are not the same workload.")
        tokens = {"relative_uncertainty": round(float(r["ipj_sd"]) / ipj, 3)}
        write(f"{slug(model)}@{slug(device)}", model, device, "vLLM" if r["framework"] else "not stated",
              {"source": f"{PAPER}, tables 13 and 14", "suites": suites, **base, "notes": notes}, overall, {}, tokens)


def outcomes(name):
    models = json.loads((ROUTING / f"{name}.models.json").read_text())["models"]
    ids = [m["id"] for m in models]
    with gzip.open(ROUTING / f"{name}.jsonl.gz", "rt") as f:
        return ids, [json.loads(line) for line in f]


def counted(sets, model, baseline, to_domain):
    """Right, asked, baseline right and characters per domain, over the queries that both answered."""
    cells = {}
    for ids, rows in sets:
        if model not in ids or baseline not in ids:
            continue
        i, b = ids.index(model), ids.index(baseline)
        for r in rows:
            if r["ok"][i] is None or r["ok"][b] is None:
                continue
            for key in (to_domain(r), "overall"):
                c = cells.setdefault(key, [0, 0, 0, 0])
                for k, add in enumerate((r["ok"][i], 1, r["ok"][b], r["out_chars"][i] or 0)):
                    c[k] += add
    same = model == baseline
    made = {k: row(c, n, None if same else b / n, output_tokens=round(o / n / 4, 1)) for k, (c, n, b, o) in cells.items()}
    return made.pop("overall"), made


def real():
    mmlu = outcomes("mmlu_pro")
    for model in ("microsoft/Phi-3-mini-4k-instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct",
                  "meta-llama/Meta-Llama-3.1-70B-Instruct", "mistralai/Mistral-7B-Instruct-v0.2",
                  "mistralai/Mixtral-8x7B-Instruct-v0.1", "google/gemini-1.5-flash-002", "google/gemini-1.5-pro-002"):
        overall, domains = counted([mmlu], model, "google/gemini-1.5-pro-002", lambda r: DOMAIN[r["domain"]])
        short = model.split("/")[1]
        write(slug(short.removeprefix("Meta-")), short, "provider" if "gemini" in model else "not stated", "not stated",
              {"source": "TIGER-AI-Lab/MMLU-Pro f418b11, eval_results, 5-shot", "date": "2026-03-18",
               "suites": ["MMLU-Pro test, MIT"], "licence": "Apache-2.0", "notes": [
                   "Multiple choice only: says little about chat. The category `other` is the row None.",
                   "The baseline is gemini-1.5-pro-002 on the same queries.",
                   "For the Llama-3.1 runs the authors had filled failed extractions with a random letter.",
                   "output_tokens is characters / 4."]}, overall, domains)
    zero = [outcomes("zeroeval_gsm"), outcomes("zeroeval_crux")]
    for model, short in (("gpt-4o-2024-08-06", "gpt-4o"), ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
                         ("claude-3-5-sonnet-20241022", "claude-3-5-sonnet"), ("claude-3-5-haiku-20241022", "claude-3-5-haiku"),
                         ("o1-mini-2024-09-12", "o1-mini"), ("gemma-2-9b-it", "gemma-2-9b-it")):
        overall, domains = counted(zero, model, "gpt-4o-2024-08-06", lambda r: DOMAIN["math"])
        write(short, model, "provider" if "gemma" not in model else "not stated", "not stated",
              {"source": "WildEval/ZeroEval 8c1485e, result_dirs/gsm and crux, graded here", "date": "2025-04-14",
               "suites": ["GSM8K test, MIT", "CRUXEval output prediction, MIT"], "licence": "Apache-2.0", "notes": [
                   "School mathematics and predicting the output of code: one domain. Other domains are shrunk to it and "
                   "carry a wide interval.", "The baseline is gpt-4o-2024-08-06 on the same queries.",
                   "output_tokens is characters / 4; hidden reasoning of o1 is not counted."]}, overall, domains)


def slug(name):
    return name.lower().replace(" ", "-").replace("-2025-08-07", "").replace("claude-sonnet-4.5", "claude-sonnet-4-5")


paper()
real()
