"""Makes a suite from published outcome tables: `python3 eval/suites/make.py FOLDER NAME > eval/suites/NAME.jsonl`.

NAME is first, mmlu-pro, gsm8k, cruxeval or mt-bench. FOLDER holds mmlu_pro.jsonl.gz, zeroeval_gsm.jsonl.gz,
zeroeval_crux.jsonl.gz and routellm_mt_bench.jsonl.gz
(id, domain, prompt, options, reference). Questions are taken in the order of the SHA-256 of their id, so that the choice
depends on nothing else.
"""
import gzip, hashlib, json, sys

DOMAIN = {
    "math": "Computer and mathematical",
    "computer science": "Computer and mathematical",
    "physics": "Life, physical, and social science",
    "chemistry": "Life, physical, and social science",
    "biology": "Life, physical, and social science",
    "psychology": "Life, physical, and social science",
    "economics": "Business and financial operations",
    "business": "Business and financial operations",
    "engineering": "Architecture and engineering",
    "law": "Legal services",
    "health": "Healthcare practitioners and technical",
    "history": "Education instruction and library",
    "philosophy": "Education instruction and library",
}
LONGEST = 1500


def rows(name):
    with gzip.open(f"{sys.argv[1]}/{name}", "rt") as f:
        found = [json.loads(line) for line in f]
    return sorted(found, key=lambda r: hashlib.sha256(r["id"].encode()).hexdigest())


def put(**row):
    print(json.dumps(row, ensure_ascii=False))


def choices(each):
    taken = {c: 0 for c in DOMAIN}
    for r in rows("mmlu_pro.jsonl.gz"):
        c = r["domain"]
        size = len(r["prompt"]) + sum(map(len, r["options"]))
        if c in taken and taken[c] < each and size <= LONGEST and len(r["options"]) <= 10:
            taken[c] += 1
            put(id=r["id"], domain=DOMAIN[c], kind="choice", prompt=r["prompt"], options=r["options"], answer=r["reference"])


def numbers(count):
    for r in rows("zeroeval_gsm.jsonl.gz")[:count]:
        put(id=r["id"], domain=DOMAIN["math"], kind="number", prompt=r["prompt"], answer=r["reference"])


def literals(count):
    for r in rows("zeroeval_crux.jsonl.gz")[:count]:
        put(id=r["id"], domain=DOMAIN["math"], kind="literal", prompt=r["prompt"], answer=r["reference"])


TALK = {
    "writing": "Arts, design, sports, entertainment, and media",
    "roleplay": "Arts, design, sports, entertainment, and media",
    "reasoning": "None",
    "math": "Computer and mathematical",
    "coding": "Computer and mathematical",
    "extraction": "Office and administrative support",
    "stem": "Life, physical, and social science",
    "humanities": "Education instruction and library",
}


def first_turns():
    for r in sorted(rows("routellm_mt_bench.jsonl.gz"), key=lambda r: r["id"]):
        if r["subject"] == "turn1":
            put(id=r["id"], domain=TALK[r["domain"]], kind="pair", prompt=r["prompt"], **({"answer": r["reference"]} if r["reference"] else {}))


match sys.argv[2]:
    case "first":
        choices(24)
        numbers(60)
    case "mmlu-pro":
        choices(40)
    case "gsm8k":
        numbers(200)
    case "cruxeval":
        literals(200)
    case "mt-bench":
        first_turns()
    case other:
        sys.exit(f"no suite {other}: first, mmlu-pro, gsm8k, cruxeval or mt-bench")
