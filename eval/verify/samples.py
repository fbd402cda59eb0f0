"""Does a model agree with itself where it is right? Draws second answers through a running gateway, and measures.

    samples.py ask  --url http://127.0.0.1:8080 --model local/NAME --suite eval/suites/gsm8k.jsonl --out ANSWERS.jsonl
    samples.py show ANSWERS.jsonl [--json RESULT.json]

`ask` asks every question once at temperature 0 with log-probabilities and --count times at --temperature, and goes on where
an earlier run stopped. `show` (numpy and scikit-learn) compares what the beginnings of the second answers say, measured as
`verify.samples` does, with the log-probabilities of the first.
"""

import argparse
import collections
import concurrent.futures
import json
import pathlib
import re
import urllib.request

INSTRUCTIONS = {
    "number": "\nWork it out briefly, then end with: The answer is NUMBER.",
    "choice": "\n\nDo not explain. Reply in this form: The answer is (letter).",
}
TOKENS = {"number": 512, "choice": 128}
LENGTHS = [8, 16, 32, 64, 128, 512]


def text(question):
    options = "".join(f"\n{chr(65 + i)}. {o}" for i, o in enumerate(question.get("options") or []))
    return question["prompt"].strip() + options + INSTRUCTIONS[question["kind"]]


def asked(args, question, seed):
    body = {
        "model": args.model,
        "messages": [{"role": "user", "content": text(question)}],
        "max_tokens": TOKENS[question["kind"]],
        "temperature": args.temperature if seed else 0,
        "seed": seed,
        "logprobs": True,
    }
    request = urllib.request.Request(
        args.url + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=900) as answer:
        choice = json.load(answer)["choices"][0]
    tokens = choice["logprobs"]["content"]
    return {
        "text": choice["message"]["content"],
        "tokens": [t["token"] for t in tokens],
        "logprobs": [round(t["logprob"], 4) for t in tokens],
    }


def ask(args):
    questions = [json.loads(line) for line in pathlib.Path(args.suite).read_text().splitlines() if line.strip()]
    questions = [q for q in questions if q.get("kind") in INSTRUCTIONS][: args.limit]
    out = pathlib.Path(args.out)
    done = {json.loads(line)["id"] for line in out.read_text().splitlines()} if out.exists() else set()

    def one(question):
        answers = [asked(args, question, seed) for seed in range(args.count + 1)]
        first, others = answers[0], answers[1:]
        beginnings = [["".join(a["tokens"][:n]) for n in LENGTHS] for a in others]
        return {
            "id": question["id"],
            "kind": question["kind"],
            "right": [right(question, a["text"]) for a in answers],
            "said": [settled(question["kind"], a["text"]) for a in answers],
            "tokens": [len(a["tokens"]) for a in answers],
            "mean": round(sum(first["logprobs"]) / max(1, len(first["logprobs"])), 4),
            "least": min(first["logprobs"], default=0),
            "agreement": [[round(agreement(as_much(first["text"], b), b), 3) for b in each] for each in beginnings],
        }

    left = [q for q in questions if q["id"] not in done]
    with concurrent.futures.ThreadPoolExecutor(args.streams) as pool, out.open("a") as file:
        for n, future in enumerate(concurrent.futures.as_completed([pool.submit(one, q) for q in left]), 1):
            file.write(json.dumps(future.result()) + "\n")
            file.flush()
            print(f"\r{n} of {len(left)} questions", end="", flush=True)
    print()


def settled(kind, answer):
    """What an answer settles on: a letter or a number; nothing if none."""
    if kind == "choice":
        found = re.findall(r"answer is \(?([A-J])\b", answer) or re.findall(r"\b([A-J])\b", answer)
        return found[-1] if found else None
    stated = re.split(r"answer is|####", answer, flags=re.IGNORECASE)
    numbers = r"-?\d[\d,]*\.?\d*"
    found = re.findall(numbers, stated[-1])[:1] if len(stated) > 1 else []
    found = found or re.findall(numbers, answer)[-1:]
    return float(found[0].replace(",", "").rstrip(".")) if found else None


def right(question, answer):
    said = settled(question["kind"], answer)
    want = question["answer"] if question["kind"] == "choice" else float(str(question["answer"]).replace(",", ""))
    return said is not None and (said == want if question["kind"] == "choice" else abs(said - want) < 1e-6)


def words(said):
    return collections.Counter(re.findall(r"[^\W_]+", said.lower()))


def agreement(one, other):
    """F1 of words, as the gateway has it."""
    a, b = words(one), words(other)
    total = sum(a.values()) + sum(b.values())
    return 2 * sum((a & b).values()) / total if total else 1.0


def as_much(said, other):
    return said.encode()[: len(other.encode())].decode(errors="ignore")


def show(args):
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = [json.loads(line) for line in pathlib.Path(args.answers).read_text().splitlines()]
    rows.sort(key=lambda r: r["id"])
    y = np.array([r["right"][0] for r in rows])
    generator = np.random.default_rng(7)
    draws = [d for d in (generator.integers(0, len(y), len(y)) for _ in range(2000)) if 0 < y[d].sum() < len(y)]

    def figures(score):
        spread = [roc_auc_score(y[d], score[d]) for d in draws]
        return [round(float(x), 3) for x in (roc_auc_score(y, score), *np.percentile(spread, [2.5, 97.5]))]

    def gain(score, than):
        spread = [roc_auc_score(y[d], score[d]) - roc_auc_score(y[d], than[d]) for d in draws]
        here = roc_auc_score(y, score) - roc_auc_score(y, than)
        return [round(float(x), 3) for x in (here, *np.percentile(spread, [2.5, 97.5]))]

    def learned(*columns):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0))
        folds = StratifiedKFold(5, shuffle=True, random_state=7)
        return cross_val_predict(model, np.column_stack(columns), y, cv=folds, method="predict_proba")[:, 1]

    count = len(rows[0]["agreement"])
    first = [
        np.array([r["mean"] for r in rows]),
        np.array([r["least"] for r in rows]),
        np.log([max(1, r["tokens"][0]) for r in rows]),
    ]
    alone = learned(*first)
    result = {"n": len(y), "right": int(y.sum()), "second answers": count, "log-probabilities and length": figures(alone)}
    drawn = np.array([r["tokens"][1:] for r in rows])
    taken = np.mean([r["tokens"][0] for r in rows])
    for place, length in enumerate(LENGTHS):
        agree = np.array([[a[place] for a in r["agreement"]] for r in rows])
        for k in sorted({1, min(3, count), count}):
            mean = agree[:, :k].mean(1)
            both = learned(*first, mean)
            result[f"words, {length} tokens, {k}"] = {
                "alone": figures(mean),
                "with them": figures(both),
                "gain": gain(both, alone),
                "tokens more": round(float(np.minimum(drawn[:, :k], length).sum(1).mean() / taken), 2),
            }
    for k in sorted({1, min(3, count), count}):
        same = np.array([np.mean([s == r["said"][0] for s in r["said"][1 : k + 1]]) for r in rows])
        both = learned(*first, same)
        # As the policy joins them, with weights set by hand.
        logit = np.log(alone / (1 - alone))
        joined = {w: logit + w * (same - 0.5) for w in (1, 2, 4, 8)}
        result[f"same result, {k}"] = {
            "alone": figures(same),
            "with them, learned": figures(both),
            "gain, learned": gain(both, alone),
            "with them, by weight": {w: figures(z) for w, z in joined.items()},
            "gain, by weight": {w: gain(z, alone) for w, z in joined.items()},
            "Brier, by weight": {
                0: round(float(np.mean((alone - y) ** 2)), 4),
                **{w: round(float(np.mean((1 / (1 + np.exp(-z)) - y) ** 2)), 4) for w, z in joined.items()},
            },
            "tokens more": round(float(drawn[:, :k].sum(1).mean() / taken), 2),
        }
    print(json.dumps(result, indent=1))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("ask", help="draw the answers")
    one.add_argument("--url", default="http://127.0.0.1:8080")
    one.add_argument("--model", required=True)
    one.add_argument("--suite", required=True)
    one.add_argument("--out", required=True)
    one.add_argument("--count", type=int, default=5)
    one.add_argument("--temperature", type=float, default=0.7)
    one.add_argument("--limit", type=int, default=None)
    one.add_argument("--streams", type=int, default=8)
    one.set_defaults(run=ask)
    two = commands.add_parser("show", help="measure")
    two.add_argument("answers")
    two.add_argument("--json")
    two.set_defaults(run=show)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
