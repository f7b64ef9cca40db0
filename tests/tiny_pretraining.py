"""A corpus that a tiny model learns in seconds, and processes that pretrain on it.

As a program it calls `pretrain` with the arguments that it is given as JSON.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from bertfast.models import BertConfig, BertForPreTraining
from bertfast.pretraining import Corpus, PretrainingConfig, build_corpus
from bertfast.training.distributed import Ranks
from bertfast.training.loop import Trainer
from bertfast.training.options import TrainingOptions
from bertfast.training.pretraining import pretrain
from bertfast.training.pretraining_task import Phase, PretrainingTask

WORDS = [f"word{number}" for number in range(12)]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TINY: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(VOCABULARY) + 3,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.1,
}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""No dropout."""


def write_tokenizer(folder: Path, vocabulary: list[str] = VOCABULARY) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
    return folder


def write_corpus(folder: Path, documents: int = 120, seed: int = 0) -> Path:
    """A store: words follow each other in one order, across the sentences of a document."""
    draw = random.Random(seed)
    lines = []
    for _ in range(documents):
        place = draw.randrange(len(WORDS))
        for _ in range(draw.randint(3, 8)):
            length = draw.randint(4, 9)
            lines.append(" ".join(WORDS[(place + i) % len(WORDS)] for i in range(length)))
            place += length
        lines.append("")
    (folder / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    build_corpus(
        [folder / "texts.txt"], write_tokenizer(folder / "tokenizer"), folder / "store", num_threads=1
    )
    return folder / "store"


def write_config(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(TINY | changes), encoding="utf-8")
    return path


ALONE = Ranks(0, 1, torch.device("cpu"))


def trainer(
    store: Path,
    output: Path,
    *,
    phases: tuple[Phase, ...] = (Phase(32, 12, batch_size=6),),
    eval_store: Path | None = None,
    dropout: bool = True,
    ranks: Ranks = ALONE,
    task: type[PretrainingTask] = PretrainingTask,
    **options: Any,
) -> Trainer:
    asked = TrainingOptions(**{"log_every": 3, "device": "cpu"} | options)
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig.from_dict(TINY | ({} if dropout else STILL)))
    work = task(
        Corpus(store),
        PretrainingConfig.preset("bert"),
        phases,
        ranks=ranks,
        seed=asked.seed,
        parts=asked.gradient_accumulation_steps,
        eval_store=None if eval_store is None else Corpus(eval_store),
        eval_samples=40,
        num_threads=1,
    )
    return Trainer(model, asked, work, output, ranks=ranks, tokenizer=Corpus(store).tokenizer)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def gradients_of(one: Trainer, batches: int) -> dict[str, torch.Tensor]:
    """The gradients that the optimizer gets for the last of so many batches, without moving anything."""
    gradients: dict[str, torch.Tensor] = {}

    def look() -> None:
        gradients.update(
            (name, p.grad.clone()) for name, p in one.model.named_parameters() if p.grad is not None
        )

    one.optimizer.step = look  # type: ignore[method-assign]
    model = one._wrapped().train()
    for _, parts in zip(range(batches), one.task.batches(), strict=False):
        one._step(model, parts, 0.0)
    return gradients


def start(arguments: Any, processes: int = 1, program: str | Path = __file__) -> subprocess.Popen[str]:
    """This program, or another one, by ``torchrun`` if there are to be several processes."""
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    # Somewhere free: tests run beside each other.
    launcher += [] if processes == 1 else ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *launcher, str(program), json.dumps(arguments, default=str)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )


def run(arguments: Any, processes: int = 1, program: str | Path = __file__) -> str:
    """Its output."""
    process = start(arguments, processes, program)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def main() -> None:
    torch.set_num_threads(1)
    arguments = json.loads(sys.argv[1])
    options = TrainingOptions(**arguments.pop("options"))
    phases = [Phase(**phase) for phase in arguments.pop("phases")]
    say("begin")
    say(json.dumps(pretrain(**arguments, options=options, phases=phases, num_threads=1)))


def say(line: str) -> None:
    """Prints a line in one piece: processes share a pipe, and an unbuffered `print` writes its end apart."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
