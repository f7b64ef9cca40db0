"""The three small models of the example: their vocabularies, sizes and samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bertfast.pretraining import Masking, PretrainingConfig
from bertfast.training.pretraining import Phase
from bertfast.vocabulary import Kind

_SIZES = {
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 512,
    # Models so small do not learn their texts by heart, and learn more slowly with dropout.
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": 0.1,
}


@dataclass(frozen=True)
class Stage:
    """A run of pretraining, with a warm-up and a decay of its own.

    Attributes:
        samples: What is learned from, but for its length.
        phases: Lengths, steps and sizes of batches. The longest are for positions that questions need.
    """

    samples: PretrainingConfig
    phases: tuple[Phase, ...]

    def samples_of(self, phase: Phase) -> PretrainingConfig:
        """What a phase is trained on."""
        return replace(self.samples, max_seq_length=phase.max_seq_length)


@dataclass(frozen=True)
class Family:
    """A model to be pretrained.

    Attributes:
        vocabulary: Of which kind.
        config: Of ``config.json`` all but the size of the vocabulary.
        stages: Each begins with the weights of the one before.
        learning_rate: The highest.
        vocabulary_size: Tokens at most.
        every: The vocabulary is learned from one text of so many.
    """

    vocabulary: Kind
    config: dict[str, Any]
    stages: tuple[Stage, ...]
    learning_rate: float = 1e-3
    vocabulary_size: int = 8_000
    every: int = 1

    def miniature(self) -> Family:
        """One that is pretrained in a second."""
        sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
        phases = (Phase(64, steps=3, batch_size=8), Phase(128, steps=2, batch_size=4))
        stages = tuple(replace(stage, phases=phases) for stage in self.stages)
        return replace(self, config={**self.config, **sizes}, stages=stages, vocabulary_size=3_000)


# Of every length 15 %: BERT's own limit of 20 tokens is for samples of 128. ALBERT's preset masks groups of
# words, and without spaces a sentence is one word.
_MASKING = Masking()

FAMILIES = {
    "bert": Family(
        "wordpiece",
        {"model_type": "bert", "pad_token_id": 0, **_SIZES},
        (
            Stage(
                PretrainingConfig.preset("bert", masking=_MASKING),
                (
                    Phase(32, steps=2_800, batch_size=64),
                    Phase(128, steps=1_600, batch_size=16),
                    Phase(256, steps=500, batch_size=8),
                ),
            ),
        ),
    ),
    "roberta": Family(
        "byte-bpe",
        {
            "model_type": "roberta",
            **_SIZES,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "type_vocab_size": 1,
            "max_position_embeddings": 514,
        },
        (
            Stage(
                PretrainingConfig.preset("roberta"),
                (
                    Phase(32, steps=2_400, batch_size=64),
                    Phase(128, steps=500, batch_size=16),
                    Phase(256, steps=200, batch_size=8),
                ),
            ),
        ),
    ),
    "albert": Family(
        "unigram",
        {"model_type": "albert", "pad_token_id": 0, "embedding_size": 128, **_SIZES},
        (
            # In pairs so short it does not begin to look at a mask's neighbours.
            Stage(
                PretrainingConfig.preset("roberta", masking=_MASKING),
                (Phase(32, steps=2_800, batch_size=64),),
            ),
            Stage(
                PretrainingConfig.preset("albert", masking=_MASKING),
                (Phase(128, steps=500, batch_size=16), Phase(256, steps=200, batch_size=8)),
            ),
        ),
        # Its layers are one, which each of them moves.
        learning_rate=5e-4,
        # Learning this kind takes minutes, and a third of the texts gives nearly the same.
        every=3,
    ),
}
