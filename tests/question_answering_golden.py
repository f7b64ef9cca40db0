"""Write `tests/golden/question_answering.json`: what the pipeline of transformers 4.57 answers.

Version 5 has no such pipeline, so its answers are kept. They come from random models whose weights are drawn
anew from a seed by whoever asks for them (`make_folder`), with real vocabularies. Version 4.57 is not in the
environment of the tests and does not go with newer versions of two other packages; it gets a folder of its
own::

    python -m pip install --target DIR --no-deps "transformers==4.57.6" "huggingface_hub==0.36.2" \
        "tokenizers==0.22.2"
    python -m pip install --target DIR requests
    PYTHONPATH=DIR:python:tests python tests/question_answering_golden.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from bert_folder import TINY, bert_tensors

ROOT = Path(__file__).resolve().parent.parent
PATH = ROOT / "tests/golden/question_answering.json"

SIZES = {
    "hidden_size": 36,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "intermediate_size": 50,
    "max_position_embeddings": 512,
}
MODELS: dict[str, dict[str, Any]] = {
    "english": SIZES | {"vocab_size": 30522, "architectures": ["BertForQuestionAnswering"]},
    "chinese": SIZES | {"vocab_size": 21128, "architectures": ["BertForQuestionAnswering"]},
    "roberta": SIZES
    | {
        "vocab_size": 400,
        "architectures": ["RobertaForQuestionAnswering"],
        "model_type": "roberta",
        "type_vocab_size": 1,
        "max_position_embeddings": 130,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "layer_norm_eps": 1e-5,
    },
}


def make_folder(model: str, folder: Path, data: Path, roberta_tokenizer: dict[str, Any]) -> Path:
    """Write one of `MODELS` into a new folder.

    Args:
        model: Its name.
        folder: Is made.
        data: What `make data` filled.
        roberta_tokenizer: The content of a ``tokenizer.json`` with 400 tokens.
    """
    folder.mkdir(parents=True)
    config = TINY | MODELS[model]
    tensors = bert_tensors(config, pooler=False, seed=len(model))
    prefix = config["model_type"]
    named = {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
    # Large enough that neighbours in the order of answers are far apart, as a trained model's are.
    random = np.random.default_rng(len(model))
    named["qa_outputs.weight"] = random.normal(0, 0.8, (2, config["hidden_size"])).astype(np.float32)
    named["qa_outputs.bias"] = random.normal(0, 0.8, 2).astype(np.float32)
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    settings: dict[str, Any] = {"model_max_length": config["max_position_embeddings"]}
    if model == "english":
        shutil.copy(data / "minilm/vocab.txt", folder)
        settings |= {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    elif model == "chinese":
        shutil.copy(data / "vocab-zh/vocab.txt", folder)
        settings |= {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    else:
        (folder / "tokenizer.json").write_text(json.dumps(roberta_tokenizer), "utf-8")
        settings |= {"tokenizer_class": "RobertaTokenizer", "model_max_length": 128}
        settings |= {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
        settings |= {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


BERLIN = (
    "My name is Wolfgang and I live in Berlin. Berlin is the capital of Germany; its 3,677,472 inhabitants "
    "(2021) make it the European Union's most populous city. BERLIN lies on the river Spree."
)
TRAPS = (
    "Caf\u00e9 r\u00e9sum\u00e9 NA\u00cfVE cafe\u0301 \u2014 \u201cquoted\u201d "
    "\U0001f600\U0001f468\u200d\U0001f469 \u4e2d\u6587\u5b57 \u0130stanbul \u039f\u0394\u039f\u03a3 "
    "unaffable internationalisation x[MASK]y [SEP] don't "
    "<b>bold</b>\tA\u00adB\u200b C\r\nD   E \ufb01ne 1\u00bd"
)
CHINESE = (
    "\u5317\u4eac\u662f\u4e2d\u534e\u4eba\u6c11\u5171\u548c\u56fd\u7684\u9996\u90fd\uff0c\u4f4d\u4e8e"
    "\u534e\u5317\u5e73\u539f\u3002\u674e\u767d(701\u5e74\u2014762\u5e74)\u662fTang Dynasty\u7684"
    "\u8bd7\u4eba\uff0c\u5317\u4eac\u6709iPhone 15\u4e13\u5356\u5e97\u3002"
)


def questions(data: Path) -> dict[str, list[tuple[str, str, list[dict[str, Any]]]]]:
    """For each model: questions with contexts, and the options that each is asked with."""
    bible = (data / "bible.txt").read_text("utf-8").split("\n")
    chinese = (data / "chinese.txt").read_text("utf-8").split("\n")
    chapter = " ".join(bible[:31])
    short = " ".join(bible[400:404])
    long_words = " ".join(["antidisestablishmentarianism", "pneumonoultramicroscopic", "a", "b"] * 12)
    verses = " ".join(bible[72:84])
    nothing: dict[str, Any] = {}
    changing = {"max_seq_len": 40, "doc_stride": 10, "align_to_words": False}
    tight = {"max_seq_len": 24, "doc_stride": 5}
    return {
        "english": [
            (
                "Where do I live?",
                BERLIN,
                [
                    nothing,
                    {"top_k": 3},
                    {"top_k": 20},
                    {"top_k": 5, "align_to_words": False},
                    {"align_to_words": False},
                    {"max_answer_len": 1, "top_k": 4},
                    {"max_answer_len": 1000, "top_k": 4},
                    {"handle_impossible_answer": True},
                    {"handle_impossible_answer": True, "top_k": 200},
                    tight,
                    tight | {"top_k": 7, "handle_impossible_answer": True},
                    tight | {"top_k": 7, "align_to_words": False, "doc_stride": 0},
                ],
            ),
            ("Who?", TRAPS, [nothing, {"top_k": 12}, {"top_k": 12, "align_to_words": False}]),
            ("What is affable?", TRAPS, [tight | {"top_k": 6, "max_answer_len": 3}, {"max_seq_len": 30}]),
            ("Which long word?", long_words, [nothing, tight | {"top_k": 4}, {"max_answer_len": 60}]),
            ("What did God create in the beginning?", chapter, [nothing, {"top_k": 5}]),
            (
                "What was the evening and the morning?",
                chapter,
                [
                    {"doc_stride": 300, "top_k": 3},
                    {"max_seq_len": 512, "top_k": 3},
                    {"max_seq_len": 64, "doc_stride": 0, "handle_impossible_answer": True, "top_k": 3},
                    {"max_answer_len": 100, "top_k": 3, "align_to_words": False},
                ],
            ),
            ("?", short, [nothing, {"top_k": 10, "max_seq_len": 40}]),
            # More answers asked for, and another one is the best.
            ("Who said it?", verses, [changing, changing | {"top_k": 2}, changing | {"top_k": 20}]),
            ("  Who \t said\n it? " * 12, short, [{"top_k": 3}, {"max_seq_len": 150, "doc_stride": 20}]),
            ("Is it one?", "one", [nothing, {"top_k": 2}, {"handle_impossible_answer": True, "top_k": 5}]),
            ("Is it there?", " \n ", [nothing, {"handle_impossible_answer": True}, {"top_k": 3}]),
            ("Is it two?", "Two two TWO", [{"top_k": 3, "max_answer_len": 1}, {"top_k": 9}]),
        ],
        "chinese": [
            (
                "\u4e2d\u56fd\u7684\u9996\u90fd\u662f\u54ea\u91cc\uff1f",
                CHINESE,
                [nothing, {"top_k": 4}, {"top_k": 4, "align_to_words": False}, tight | {"top_k": 3}],
            ),
            (
                "\u8fd9\u672c\u4e66\u600e\u4e48\u6837\uff1f",
                "".join(chinese[20:60])[:1500],
                [nothing, {"top_k": 3, "handle_impossible_answer": True}, {"max_seq_len": 48, "top_k": 3}],
            ),
        ],
        "roberta": [
            ("Where do I live?", BERLIN, [nothing, {"top_k": 4}, {"top_k": 4, "align_to_words": False}]),
            ("Who?", TRAPS, [{"top_k": 9}, {"top_k": 9, "align_to_words": False}]),
            ("Who was it?", short, [nothing, {"max_seq_len": 50, "doc_stride": 9, "top_k": 3}]),
            ("Is it two?", "Two two TWO", [{"handle_impossible_answer": True, "top_k": 3}]),
        ],
    }


def main() -> None:
    import tempfile

    import tokenizers
    import transformers

    from bertfast.vocabulary import save_vocabulary, train_vocabulary

    assert transformers.__version__.startswith("4.57."), transformers.__version__
    data = ROOT / ".data"
    asked = questions(data)
    with tempfile.TemporaryDirectory() as scratch:
        texts = [context for _, context, _ in asked["roberta"]]
        trained = train_vocabulary(texts * 5, kind="byte-bpe", size=400)
        save_vocabulary(trained, Path(scratch, "bpe"), kind="byte-bpe", max_length=128)
        roberta_tokenizer = json.loads(Path(scratch, "bpe/tokenizer.json").read_text("utf-8"))
        contexts: list[str] = []
        cases = []
        for model, examples in asked.items():
            folder = make_folder(model, Path(scratch, model), data, roberta_tokenizer)
            answer = transformers.pipeline("question-answering", str(folder), device="cpu")
            assert answer.tokenizer.is_fast
            for question, context, calls in examples:
                if context not in contexts:
                    contexts.append(context)
                for options in calls:
                    result = answer(question=question, context=context, **options)
                    case = {"model": model, "question": question, "context": contexts.index(context)}
                    cases.append(case | {"options": options, "result": result})
    golden = {
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "roberta_tokenizer": roberta_tokenizer,
        "contexts": contexts,
        "cases": cases,
    }
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items() if key != "cases")
    each = ",\n".join(json.dumps(case) for case in cases)
    PATH.write_text("{" + ",\n".join(lines) + ',\n"cases": [\n' + each + "\n]}\n", encoding="utf-8")
    print(f"{PATH}: {PATH.stat().st_size} bytes, {len(cases)} cases")


if __name__ == "__main__":
    main()
