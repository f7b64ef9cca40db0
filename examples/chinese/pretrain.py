"""A vocabulary, a token store and a small pretrained model, from the texts of prepare.py.

    python examples/chinese/pretrain.py bert

What is there already is not made again, and training that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import OUTPUT, default_dtype, whole_folder, write_json
from families import FAMILIES, Family, Stage

from bertfast import Tokenizer
from bertfast.pretraining import Corpus, PretrainingDataset, build_corpus
from bertfast.training.options import TrainingOptions
from bertfast.training.pretraining import pretrain
from bertfast.vocabulary import save_vocabulary, train_vocabulary

EVAL_SAMPLES = 1_000


def make_vocabulary(texts: Path, family: Family, target: Path) -> Tokenizer:
    """The tokenizer, learned from the texts for pretraining."""
    if not target.exists():
        lines = [
            line for path in sorted(texts.iterdir()) for line in path.open(encoding="utf-8") if line.strip()
        ]
        some = islice((line.strip() for line in lines), 0, None, family.every)
        learned = train_vocabulary(some, kind=family.vocabulary, size=family.vocabulary_size)
        with whole_folder(target) as folder:
            save_vocabulary(learned, folder, kind=family.vocabulary)
    return Tokenizer.from_pretrained(target)


def make_store(texts: Path, tokenizer: Tokenizer, target: Path) -> Corpus:
    """The texts as tokens: documents are articles and reviews, sentences are cut by rules."""
    if target.joinpath("manifest.json").exists():
        return Corpus(target)
    return build_corpus(texts, tokenizer, target, split_sentences=True)


def tokens_per_character(texts: Path, store: Corpus) -> float:
    """How many tokens a character becomes."""
    characters = sum(
        len(path.read_text(encoding="utf-8").replace("\n", "")) for path in sorted(texts.iterdir())
    )
    return store.num_tokens / characters


def guessing(store: Corpus, held_out: Corpus, stage: Stage) -> tuple[str, float]:
    """The most frequent token, and how often it is what was masked: what knowing nothing of a text gives."""
    # docs/pretraining.md has the format; a vocabulary of this size has 16 bits a token.
    tokens = np.fromfile(store.folder / "tokens.bin", "<u2")
    guess = int(np.bincount(tokens).argmax())
    # Evaluated are samples of a stage's shortest phase.
    dataset = PretrainingDataset(held_out, stage.samples_of(stage.phases[0]), seed=0)
    batch = dataset.batch(dataset.order(0, min(EVAL_SAMPLES, len(dataset))), padding=None)
    labels = batch["labels"][batch["masked_positions"]]
    # Of a Unigram it may be a space, of which nothing is left in a text.
    shown = store.tokenizer.decode([guess]) or store.tokenizer.convert_ids_to_tokens(guess)
    return shown, float(np.mean(labels == guess))


def tokens_read(store: Corpus, family: Family) -> int:
    """Tokens of all steps, about: samples of a phase times their mean length."""
    return sum(
        round(PretrainingDataset(store, stage.samples_of(phase), seed=0).lengths().mean())
        * phase.steps
        * (phase.batch_size or 0)
        for stage in family.stages
        for phase in stage.phases
    )


def parser_of(description: str) -> argparse.ArgumentParser:
    """The options of pretraining."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="as for prepare.py (%(default)s)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default=default_dtype(), help="(%(default)s)"
    )
    parser.add_argument(
        "--miniature", action="store_true", help="a tiny model and a few steps, to try it out"
    )
    return parser


def options_of(family: Family, dtype: Any) -> TrainingOptions:
    """How a family's model is pretrained."""
    return TrainingOptions(
        learning_rate=family.learning_rate,
        betas=(0.9, 0.98),
        dtype=dtype,
        seed=1,
        eval_every=500,
        save_every=500,
    )


def train(
    stage: Stage,
    store: Corpus,
    held_out: Corpus,
    target: Path,
    *,
    options: TrainingOptions,
    init_from: Path | None,
) -> dict[str, float]:
    """One stage, from where it was; the model's ``config.json`` is beside its folder."""
    return pretrain(
        store.folder,
        target.with_name("config.json"),
        target,
        phases=stage.phases,
        options=options,
        samples=stage.samples,
        eval_store=held_out.folder,
        eval_samples=EVAL_SAMPLES,
        init_from=init_from,
        resume=True,
        quiet=False,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is missing, train, compare with guessing."""
    args = parser_of(__doc__.splitlines()[0]).parse_args(arguments)
    texts, folder = args.output / "data/texts", args.output / args.family
    results = folder / "pretraining.json"
    if results.exists():
        print(results.read_text(encoding="utf-8"))
        return
    family = FAMILIES[args.family].miniature() if args.miniature else FAMILIES[args.family]
    folder.mkdir(parents=True, exist_ok=True)

    tokenizer = make_vocabulary(texts / "pretraining", family, folder / "tokenizer")
    store = make_store(texts / "pretraining", tokenizer, folder / "store")
    held_out = make_store(texts / "held-out", tokenizer, folder / "held-out-store")
    ratio = tokens_per_character(texts / "pretraining", store)
    print(f"{family.vocabulary}: {tokenizer.vocab_size:,} tokens, {ratio:.2f} of them a character")
    print(f"{store.num_tokens:,} tokens to learn from, {held_out.num_tokens:,} to measure on")
    *earlier, last = family.stages
    guess, guessed = guessing(store, held_out, last)
    print(f"always guessing {guess!r}: {guessed:.1%} of the masked tokens")

    write_json(folder / "config.json", {**family.config, "vocab_size": tokenizer.vocab_size})
    start = time.monotonic()
    options = options_of(family, args.dtype)
    model = None
    for number, stage in enumerate(earlier, start=1):
        target = folder / f"stage-{number}"
        train(stage, store, held_out, target, options=options, init_from=model)
        model = target
    found = train(last, store, held_out, folder / "pretrained", options=options, init_from=model)
    print(f"after training: {found['mlm_accuracy']:.1%}")
    write_json(
        results,
        {
            "vocabulary": {
                "kind": family.vocabulary,
                "size": tokenizer.vocab_size,
                "tokens_per_character": ratio,
            },
            "tokens_of_an_epoch": store.num_tokens,
            "tokens_read": tokens_read(store, family),
            "most_frequent_token": guess,
            "accuracy_of_guessing": guessed,
            "held_out": found,
            "seconds_of_the_last_run": time.monotonic() - start,
        },
    )


if __name__ == "__main__":
    main()
