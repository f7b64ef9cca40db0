"""A classifier on a frozen encoder: which part of speech does a dictionary's definition define?

The encoder reads definitions, scikit-learn fits the linear layer on top, and both are saved as the Hugging
Face folder of a `BertForSequenceClassification`. Its accuracy is measured in every dtype that this CPU runs,
and how often the label is that of float32. Run it in a clone after `make test` (which fetches the model and
the dictionary):

    .venv/bin/python examples/dictionary_classifier.py
"""

import argparse
import json
import re
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression

import bertfast

ROOT = Path(__file__).parent.parent
LABELS = {"n": "noun", "a": "adjective", "v. t": "verb", "v. i": "verb", "adv": "adverb"}
# An entry is its headword, how that is pronounced between backslashes, and its part of speech.
ENTRY = re.compile(
    r"^\S.{0,60}?\\[^\\]*\\[^.]{0,40}?\b(n|a|adv|v\. t|v\. i)\.\s+(?:\[[^\]]*\]\s*)?(.{20,300})"
)


def definitions(path: Path) -> tuple[list[str], np.ndarray]:
    """The texts behind the parts of speech, and the numbers of their labels; each text once."""
    found: dict[str, str] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if entry := ENTRY.match(line):
                found.setdefault(entry[2].strip(), LABELS[entry[1]])
    names = sorted(set(LABELS.values()))
    return list(found), np.array([names.index(label) for label in found.values()])


def save(source: Path, folder: Path, weight: np.ndarray, bias: np.ndarray) -> None:
    """The model of ``source`` with this linear layer as its head."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / "modules.json").unlink(missing_ok=True)
    config = json.loads((source / "config.json").read_text())
    names = dict(enumerate(sorted(set(LABELS.values()))))
    config |= {"architectures": ["BertForSequenceClassification"], "id2label": names}
    config["label2id"] = {name: number for number, name in names.items()}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(source / "model.safetensors").items()}
    # safetensors writes the memory of an array as it lies there, so it must lie row by row.
    head = {"classifier.weight": weight, "classifier.bias": bias}
    tensors |= {name: np.ascontiguousarray(value, np.float32) for name, value in head.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Fit, save, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=12_000, help="definitions to fit on")
    parser.add_argument("--test", type=int, default=5_000, help="definitions to measure on")
    args = parser.parse_args()
    source = ROOT / ".data/minilm"
    texts, labels = definitions(ROOT / ".data/english.txt")
    order = np.random.default_rng(0).permutation(len(texts))
    train, test = order[: args.train], order[args.train : args.train + args.test]
    print(f"{len(texts):,} definitions; {len(train):,} to fit on, {len(test):,} to measure on")

    # What the head of a BERT reads: its pooler on the first token.
    encoder = bertfast.Encoder.from_pretrained(source)
    features = []
    for start in range(0, len(train), 500):
        ragged = encoder.tokenizer.encode_ragged(
            [texts[i] for i in train[start : start + 500]], truncation=True, max_length=128
        )
        features.append(encoder.forward_ragged(ragged.input_ids, ragged.cu_seqlens).pooler_output)
    fit = LogisticRegression(max_iter=1000, C=10).fit(np.concatenate(features), labels[train])

    with tempfile.TemporaryDirectory() as folder:
        save(source, Path(folder), fit.coef_, fit.intercept_)
        names = sorted(set(LABELS.values()))
        exact = None
        for dtype in ("float32", "bfloat16", "int8"):
            try:
                classify = bertfast.pipeline("text-classification", folder, dtype=dtype)
            except bertfast.errors.ArgumentError as error:
                print(f"{dtype}: {error}")
                continue
            start = time.perf_counter()
            results = classify([texts[i] for i in test], truncation=True, max_length=128)
            seconds = time.perf_counter() - start
            got = np.array([names.index(result["label"]) for result in results])
            exact = got if exact is None else exact
            print(
                f"{dtype:9} accuracy {np.mean(got == labels[test]):.4f}, "
                f"same label as float32 {np.mean(got == exact):.4f}, {len(test) / seconds:,.0f} definitions/s"
            )


if __name__ == "__main__":
    main()
