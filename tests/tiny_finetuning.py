"""Tasks that a tiny model learns in seconds, and models to begin with."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from bertfast.models import (
    AlbertConfig,
    AlbertForPreTraining,
    BertConfig,
    BertModel,
    RobertaConfig,
    RobertaForMaskedLM,
)
from bertfast.training.options import TrainingOptions

FILLERS = [f"word{number}" for number in range(12)]
MOODS = {"good": "up", "fine": "up", "bad": "down", "poor": "down", "so": "between"}
PEOPLE, PLACES = ["ann", "bob", "cid"], ["rome", "oslo", "bern"]
SECOND = {"PER": ["dee", "eve"], "LOC": ["city", "town"]}
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *(*FILLERS, *MOODS, *PEOPLE, *PLACES, *SECOND["PER"], *SECOND["LOC"]),
    *("who", "where", "##s"),
]
SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY) + 3,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
    "initializer_range": 0.1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
KINDS: dict[str, Any] = {
    "bert": (BertConfig, BertModel, {}),
    "roberta": (
        RobertaConfig,
        RobertaForMaskedLM,
        {"type_vocab_size": 1, "pad_token_id": 0, "max_position_embeddings": 49},
    ),
    "albert": (AlbertConfig, AlbertForPreTraining, {"embedding_size": 16}),
}
FAST = TrainingOptions(learning_rate=5e-3, warmup=0.1, log_every=1000, device="cpu")


def make_model(folder: Path, family: str = "bert", **changes: Any) -> Path:
    """A random model with a tokenizer of `VOCABULARY`."""
    make_config, kind, own = KINDS[family]
    torch.manual_seed(0)
    kind(make_config(**SIZES | own | changes)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY))
    names = ["input_ids", "attention_mask"]
    settings: dict[str, Any] = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    if family == "roberta":
        settings["model_input_names"] = names
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_moods(path: Path, examples: int, seed: int = 0) -> Path:
    """A word says the label, which is called otherwise."""
    draw = random.Random(seed)
    lines = ["label\ttext\n"]
    for _ in range(examples):
        words = draw.choices(FILLERS, k=draw.randint(1, 7))
        mood = draw.choice(list(MOODS))
        words.insert(draw.randint(0, len(words)), mood)
        lines.append(f"{MOODS[mood]}\t{' '.join(words)}\n")
    path.write_text("".join(lines))
    return path


def tagged(draw: random.Random) -> list[tuple[str, str]]:
    """People and places of one or two words; a word may have two tokens, of which the second has no tag."""
    words: list[tuple[str, str]] = []
    for _ in range(draw.randint(1, 5)):
        kind = draw.choice(["PER", "LOC", "O", "O"])
        if kind == "O":
            words.append((draw.choice(FILLERS), "O"))
            continue
        words.append((draw.choice(PEOPLE if kind == "PER" else PLACES), f"B-{kind}"))
        if draw.random() < 0.5:
            words.append((draw.choice(SECOND[kind]), f"I-{kind}"))
    return [(f"{word}s" if draw.random() < 0.3 else word, tag) for word, tag in words]


def write_tags(path: Path, sentences: int, seed: int = 0, extra: str = "") -> Path:
    draw = random.Random(seed)
    text = "\n".join("".join(f"{word} {tag}\n" for word, tag in tagged(draw)) for _ in range(sentences))
    path.write_text(text + extra)
    return path


def write_questions(
    path: Path, questions: int, seed: int = 0, *, impossible: float = 0.0, fillers: int = 12
) -> Path:
    """Who or where somebody is: the one person or place of a text."""
    draw = random.Random(seed)
    paragraphs = []
    for number in range(questions):
        words = draw.choices(FILLERS, k=draw.randint(2, fillers))
        person, place = draw.choice(PEOPLE), draw.choice(PLACES)
        asked = draw.choice(["who", "where"])
        answer = person if asked == "who" else place
        is_impossible = draw.random() < impossible
        for word in (person, place):
            if word != answer or not is_impossible:
                words.insert(draw.randint(0, len(words)), word)
        context = " ".join(words)
        answers = [] if is_impossible else [{"text": answer, "answer_start": context.index(answer)}]
        entry = {"id": f"q{number}", "question": asked, "answers": answers, "is_impossible": is_impossible}
        paragraphs.append({"context": context, "qas": [entry]})
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path
