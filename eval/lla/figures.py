"""Draws the figures of the study from `results/*.json`: one PNG each, colours that colour-blind readers can tell apart."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"
COLOURS = {"black": "#000000", "orange": "#E69F00", "sky": "#56B4E9", "green": "#009E73", "blue": "#0072B2", "red": "#D55E00", "pink": "#CC79A7"}
ARMS = {
    "softmax": ("softmax, fixed temperature", "orange", "o", "-"),
    "softmax gain=true": ("softmax, learned temperature", "orange", "o", "--"),
    "lla": ("LLA, fixed temperature", "blue", "s", "-"),
    "lla gain=true": ("LLA, learned temperature", "blue", "s", "--"),
    "projection": ("learned probe", "green", "^", "-"),
    "projection gain=true": ("learned probe, learned temperature", "green", "^", ":"),
    "linear": ("linear attention", "pink", "v", "-"),
    "delta": ("delta rule", "red", "D", "-"),
}


def load(part):
    path = RESULTS / f"{part}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def save(figure, name):
    figure.savefig(RESULTS / f"{name}.png", dpi=100)
    plt.close(figure)


def panels(count, width=5.0, height=4.2, **rest):
    figure, axes = plt.subplots(1, count, figsize=(width * count, height), layout="constrained", squeeze=False, **rest)
    for axis in axes[0]:
        axis.grid(True, which="major", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes[0]


def regression():
    cells = load("regression").values()
    if not cells:
        return
    figure, (left, right) = panels(2)
    names = {"softmax": ("orange", "o"), "lla": ("blue", "s"), "mesanet": ("green", "^"), "deltanet": ("red", "D")}
    for name, (colour, marker) in names.items():
        of = lambda c: next(m for m in c["models"] if m["model"] == name)
        clean = sorted((c["dim"], of(c)) for c in cells if c["noise"] == 0)
        x, y, e = [d for d, _ in clean], [m["mse"] for _, m in clean], [m["half95"] for _, m in clean]
        label = {"softmax": "softmax", "lla": "LLA", "mesanet": "MesaNet", "deltanet": "DeltaNet"}[name]
        left.errorbar(x, y, e, color=COLOURS[colour], marker=marker, capsize=3, label=label)
        noisy = sorted((c["segment"], of(c)) for c in cells if c["noise"] and c["dim"] == 16)
        x, y, e = [s for s, _ in noisy], [m["mse"] for _, m in noisy], [m["half95"] for _, m in noisy]
        right.errorbar(x, y, e, color=COLOURS[colour], marker=marker, capsize=3, label=label)
    left.set(xscale="log", yscale="log", xlabel="dimension d of keys and values", ylabel="mean squared error per number", title="no noise, segments of 8d pairs")
    left.set_xticks([8, 16, 32, 64], ["8", "16", "32", "64"])
    right.set(xscale="log", yscale="log", xlabel="segment length (pairs)", ylabel="mean squared error per number", title="noise of 0.1 on the values, d = 16")
    right.set_xticks([64, 128, 256, 512], ["64", "128", "256", "512"])
    for axis in (left, right):
        axis.minorticks_off()
        axis.legend(frameon=False)
    figure.suptitle("Test-time regression: mean over draws, bars are 95 % intervals")
    save(figure, "regression")


def recall():
    cells = load("recall").values()
    if not cells:
        return
    figure, axes = panels(2, sharey=True)
    styles = [("inf", "softmax", "orange", "o"), (10.0, "LLA, ridge 10", "sky", "s"), (1.0, "LLA, ridge 1", "blue", "^"), (0.1, "LLA, ridge 0.1", "black", "D")]
    for axis, noise in zip(axes, (0, 0.5)):
        for ridge, label, colour, marker in styles:
            rows = sorted((c["pairs"], next(r for r in c["rows"] if r["ridge"] == ridge)) for c in cells if c["query_noise"] == noise and c["inverse_temperature"] == 1)
            x = [n for n, _ in rows]
            axis.errorbar(x, [r["squared_error"] for _, r in rows], [r["half95"] for _, r in rows], color=COLOURS[colour], marker=marker, capsize=3, label=label)
        axis.set(xscale="log", yscale="log", ylim=(1e-7, 2), xlabel="stored pairs", title=f"noise on the query: {noise}")
        axis.set_xticks([64, 512, 4096], ["64", "512", "4096"])
        axis.minorticks_off()
    axes[0].set_ylabel("squared error (values have length 1)")
    axes[1].legend(frameon=False, loc="lower right")
    figure.suptitle("Recall without training, d = 64: mean over trials, bars are 95 % intervals")
    save(figure, "recall")


def curve():
    models = load("curve")
    if not models:
        return
    figure, (axis,) = panels(1, width=6.4)
    reference = {1000: 0.0009, 300: 0.0075, 100: 0.0426, 30: 0.2175, 10: 0.762, 1: 5.16}
    axis.plot(reference.keys(), reference.values(), ls=":", color="grey", marker="x", label="SmolLM2-135M, other texts (section 6 of the specification)")
    for (kind, model), (colour, marker) in zip(models.items(), [("blue", "s"), ("red", "D")]):
        rows = [(float(r), c["change"], 1.96 * c["change_se"]) for r, c in model["ridges"].items() if r != "inf"]
        x, y, e = map(np.array, zip(*rows))
        axis.errorbar(x, y, e, color=COLOURS[colour], marker=marker, capsize=3, label=f"{model['model'].replace('Smollm2 135M 8k Lc100K Mix1 Ep2', 'SmolLM2-135M')}{' (queries and keys normed)' if 'QK' in kind else ''}")
    axis.axhline(0, color="black", lw=0.8)
    axis.set(xscale="log", xlabel="ridge lambda, all layers and heads (infinity is softmax)", ylabel="change of loss (nats per token)")
    axis.set_yscale("symlog", linthresh=0.01)
    axis.set_yticks([-0.01, 0, 0.01, 0.1, 1, 10], ["-0.01", "0", "0.01", "0.1", "1", "10"])
    axis.set_ylim(-0.02, 20)
    axis.legend(frameon=False, fontsize=8)
    figure.suptitle("LLA put into models trained with softmax attention", fontsize=11)
    save(figure, "curve")


def trained(task, variants, quantity, titles, **axes_settings):
    cells = {k: c for k, c in load("train").items() if k.startswith(f"{task} ")}
    if not cells:
        return
    figure, axes = panels(len(variants), width=5.4, height=4.6, sharey=True)
    for axis, variant, title in zip(axes, variants, titles):
        for arm, (label, colour, marker, line) in ARMS.items():
            runs = [c for k, c in cells.items() if k.startswith(f"{task} {variant} {arm} seed=")]
            if not runs:
                continue
            points = {}
            for point in (p for run in runs for p in run["points"]):
                points.setdefault(point["setting"], []).append(point[quantity])
            x = sorted(points)
            axis.plot(x, [np.median(points[s]) for s in x], color=COLOURS[colour], marker=marker, ls=line, label=label)
            for setting in x:
                axis.plot([setting] * len(points[setting]), points[setting], color=COLOURS[colour], marker="_", ms=10, ls="", alpha=0.6)
        axis.set(xscale="log", title=title, **axes_settings)
        axis.set_xticks(x, [str(s) for s in x])
        axis.minorticks_off()
    return figure, axes


def train_recall():
    made = trained("recall", ["dim=8", "dim=16"], "accuracy", ["head width 8", "head width 16"], xlabel="stored pairs (trained on 8 to 64)", ylim=(0, 1.02))
    if made:
        figure, axes = made
        axes[0].axvspan(64, 280, color="grey", alpha=0.1, lw=0)
        axes[1].axvspan(64, 280, color="grey", alpha=0.1, lw=0)
        axes[0].set_ylabel("share of queries answered rightly")
        figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=4)
        figure.suptitle("Associative recall, 2 layers: median of 5 seeds and every seed (dash); grey: longer than in training")
        save(figure, "train_recall")


def train_regression():
    made = trained("regression", ["vector=8", "vector=16"], "loss", ["vectors of 8", "vectors of 16"], xlabel="segment length (pairs)")
    if made:
        figure, axes = made
        axes[0].set_ylabel("mean squared error per number")
        handles, labels = axes[1].get_legend_handles_labels()
        axes[1].legend(handles, [label.split(",")[0] for label in labels], frameon=False, fontsize=8)
        figure.suptitle("In-context regression, 2 layers, no MLP: median of 3 seeds and every seed (dash)")
        save(figure, "train_regression")


def eviction():
    texts = load("eviction")
    if not texts:
        return
    tuned, shown = texts["austen"]["errors"], texts["mixed"]
    figure, axes = panels(2, width=5.4, height=4.6)
    families = [
        ("keys and values in few bits", "orange", "o", lambda n: n.startswith("keys in")),
        ("keys in few bits, values by LLA", "blue", "s", lambda n: n.startswith("LLA, keys in")),
        ("LLA towards block means", "green", "^", lambda n: n.startswith("LLA, block means")),
        ("block means as tokens", "pink", "v", lambda n: n == "block means as tokens"),
    ]
    for axis, quantity in zip(axes, ("mean", "median")):
        for label, colour, marker, belongs in families:
            points = []
            for name, bits in shown["bits_per_evicted_token"].items():
                if belongs(name):
                    # The ridge is the one that was best on the other text.
                    choices = [n for n in tuned if n == name or n.startswith(f"{name}, ridge")]
                    best = min(choices, key=lambda n: tuned[n]["mean"])
                    points.append((bits, shown["errors"][best], name))
            points.sort(key=lambda p: p[0])
            x, y = [p[0] for p in points], np.array([p[1][quantity] for p in points])
            bars = None
            if quantity == "mean":
                bars = np.array([[p[1]["mean"] - p[1]["low95"] for p in points], [p[1]["high95"] - p[1]["mean"] for p in points]])
            axis.errorbar(x, y, bars, color=COLOURS[colour], marker=marker, ls="", capsize=3, label=label)
            for x, row, name in points:
                bits = [c for c in name if c.isdigit()]
                left = name == "keys in 3 bits, values in 1"
                place = (-20 if left else 5, 4)
                axis.annotate("+".join(bits), (x, row[quantity]), xytext=place, textcoords="offset points", fontsize=7)
        axis.axhline(shown["errors"]["kept only"][quantity], color="black", lw=1, label="kept keys only")
        oracle = min((n for n in tuned if n.startswith("LLA, true")), key=lambda n: tuned[n]["mean"])
        axis.axhline(shown["errors"][oracle][quantity], color="black", lw=1, ls=":", label="LLA, true mean key")
        axis.set(xscale="log", yscale="log", xlabel="bits per evicted token and head (whole: 2048)", ylabel=f"{quantity} relative error of the output")
        axis.set_xticks([16, 32, 64, 128, 256, 512], ["16", "32", "64", "128", "256", "512"])
        axis.set_yticks([0.005, 0.01, 0.02, 0.05, 0.1, 0.2], ["0.005", "0.01", "0.02", "0.05", "0.1", "0.2"])
        axis.minorticks_off()
    axes[1].legend(frameon=False, fontsize=8, loc="lower left")
    figure.suptitle(f"1500 keys cut to 260, {shown['heads']} heads of SmolLM2; labels: bits of keys + of values")
    save(figure, "eviction")


def main():
    for draw in (regression, recall, curve, train_recall, train_regression, eviction):
        draw()
    return 0


if __name__ == "__main__":
    sys.exit(main())
