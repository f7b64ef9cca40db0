"""The pretrained model, pretrained further on the reviews alone: what to do with texts that have no labels.

    python examples/chinese/adapt.py bert

`finetune.py` begins with it where reviews are to be classified. Source: Gururangan et al. 2020, "Don't Stop
Pretraining", https://arxiv.org/abs/2004.10964.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from common import write_json
from families import FAMILIES, Stage
from pretrain import make_store, options_of, parser_of, train

from bertfast import Tokenizer
from bertfast.pretraining import Masking, PretrainingConfig
from bertfast.training.pretraining import Phase

# Blocks of sentences: most reviews are too short to ask which of two comes first.
STAGE = Stage(
    PretrainingConfig.preset("roberta", masking=Masking()),
    (Phase(32, steps=1_500, batch_size=64), Phase(128, steps=1_500, batch_size=16)),
)
MINIATURE = (Phase(32, steps=2, batch_size=4), Phase(128, steps=1, batch_size=4))


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a store of the reviews, train."""
    args = parser_of(__doc__.splitlines()[0]).parse_args(arguments)
    texts, folder = args.output / "data/texts", args.output / args.family
    results = folder / "adaptation.json"
    if results.exists():
        print(results.read_text(encoding="utf-8"))
        return
    tokenizer = Tokenizer.from_pretrained(folder / "tokenizer")
    store = make_store(texts / "pretraining/reviews.txt", tokenizer, folder / "reviews-store")
    held_out = make_store(texts / "held-out/reviews.txt", tokenizer, folder / "held-out-reviews-store")
    found = train(
        replace(STAGE, phases=MINIATURE) if args.miniature else STAGE,
        store,
        held_out,
        folder / "adapted",
        options=options_of(FAMILIES[args.family], args.dtype),
        init_from=folder / "pretrained",
    )
    print(f"{store.num_tokens:,} tokens of reviews; after training on them: {found['mlm_accuracy']:.1%}")
    write_json(results, {"tokens_of_an_epoch": store.num_tokens, "held_out": found})


if __name__ == "__main__":
    main()
