"""Token ids that SentencePiece gives for small vocabularies, for the engine's tests.

    python pieces.py ../../lla/texts/*.txt > tests/fixtures/sentencepiece.json

Needs `pip install sentencepiece`. Two vocabularies, trained on the texts: one as Llama 2 has it (a space is put before the text), one
as Gemma has it (none is, and runs of blanks and line ends are pieces of their own). Kinds are GGUF's numbers.
"""

import io
import json
import sys

import sentencepiece

RUNS = ["\n", "\n\n", "\n\n\n", "\t", "▁▁", "▁▁▁", "▁▁▁▁"]
VOCABULARIES = {
    "llama": {"add_dummy_prefix": True},
    "gemma": {"add_dummy_prefix": False, "user_defined_symbols": RUNS},
}
CASES = [
    "",
    " ",
    "a",
    " a",
    "The lighthouse keeper",
    "the  the   the",
    "Hello, world!\n",
    "\n\nTwo lines.\n\n\n\nFour.",
    "\tif x == 1:\n\t\treturn  0",
    "naïve café — “quoted” … ½",
    "日本語のテキスト",
    "emoji 🙂🏳️‍🌈 and\u00a0nbsp",
    "<s> </s> <unk> <0x41> <start_of_turn>user",
    "1234567890 3.14159 -1e-9",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
    "▁ is a piece's space",
    "It was a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.",
    "x" * 40 + " " * 9 + "y",
    "\u0000\u0001\u007f",
    "mixed\r\nline\rends",
]


def kind(model, i):
    if model.is_unknown(i):
        return 2
    if model.is_control(i):
        return 3
    if model.is_byte(i):
        return 6
    return 4 if model.id_to_piece(i) in RUNS else 1


def main():
    text = [line for path in sys.argv[1:] for line in open(path, encoding="utf-8").read().split("\n") if line.strip()]
    out = []
    for name, settings in VOCABULARIES.items():
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text), model_writer=written, model_type="bpe", vocab_size=700, byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.999,
            num_threads=1, minloglevel=2, **settings,
        )
        model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
        ids = range(model.get_piece_size())
        out.append(
            {
                "name": name,
                "space_prefix": settings["add_dummy_prefix"],
                "tokens": [model.id_to_piece(i) for i in ids],
                "scores": [model.get_score(i) for i in ids],
                "kinds": [kind(model, i) for i in ids],
                "cases": [{"text": text, "ids": model.encode(text)} for text in CASES],
            }
        )
    print(json.dumps({"sentencepiece": sentencepiece.__version__, "vocabularies": out}, ensure_ascii=False))


if __name__ == "__main__":
    main()
