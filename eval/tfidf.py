#!/usr/bin/env python3
"""TF-IDF and logistic regression on the same questions and the same splits as the classifier of MMLU-Pro's categories.

    pip install scikit-learn
    eval/tfidf.py

Words and word pairs, one model for questions alone and one for questions with options: right on the test split, and right on
questions of sources that were not trained on (`wattroute train domain --taxonomy mmlu-pro --across subject` deals them the
same way, but for sources of equal size). It says how hard a split is, where figures of another set of exams are known for the
same method.
"""

import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

PARTS = 4
FILE = Path(__file__).parent / "data/domain/mmlu_pro.jsonl.gz"


def text(row, options):
    lettered = (f"{chr(65 + i)}. {option}" for i, option in enumerate(row["options"]))
    return "\n".join([row["prompt"], *(lettered if options else ())])


def right(train, test, options):
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    model = LogisticRegression(C=10, max_iter=300)
    model.fit(words.fit_transform(text(r, options) for r in train), [r["category"] for r in train])
    said = model.predict(words.transform(text(r, options) for r in test))
    return sum(label == row["category"] for label, row in zip(said, test))


def deal(rows):
    """Part of every source of every category, large ones first."""
    sizes = defaultdict(Counter)
    for row in rows:
        sizes[row["category"]][row["subject"]] += 1
    part = {}
    for category, sources in sizes.items():
        loads = [0] * PARTS
        for source, n in sorted(sources.items(), key=lambda one: (-one[1], one[0])):
            least = loads.index(min(loads))
            loads[least] += n
            part[category, source] = least
    return part


def main():
    with gzip.open(FILE, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    train = [r for r in rows if r["split"] == "train"]
    test = [r for r in rows if r["split"] == "test"]
    part = deal(train)
    of = lambda row: part.get((row["category"], row["subject"]))
    for options in (False, True):
        share = right(train, test, options) / len(test)
        hits = asked = 0
        for one in range(PARTS):
            kept = [r for r in train if of(r) != one]
            all_of, left = (Counter(r["category"] for r in of_them) for of_them in (train, kept))
            other = [r for r in test if of(r) == one and 2 * left[r["category"]] >= all_of[r["category"]]]
            hits, asked = hits + right(kept, other, options), asked + len(other)
        form = "with options" if options else "question only"
        print(f"{form}: test {share:.3f} (n = {len(test)}), other sources {hits / asked:.3f} (n = {asked})", flush=True)


if __name__ == "__main__":
    main()
