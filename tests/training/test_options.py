"""Options: what is allowed, and what has to be the same to go on."""

import math

import pytest

from bertfast.errors import ArgumentError
from bertfast.pretraining import PretrainingConfig
from bertfast.training.options import TrainingOptions
from bertfast.training.pretraining_task import Phase, changed_samples


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0}, "learning_rate: expected a positive number, got 0"),
        ({"learning_rate": math.nan}, "learning_rate: expected a positive number, got nan"),
        ({"learning_rate": "1e-4"}, "learning_rate: expected a positive number, got '1e-4'"),
        ({"warmup": -1}, "warmup: expected a number from 0 on, got -1"),
        ({"warmup": 1.5}, "warmup: expected a share below 1 or a whole number of steps, got 1.5"),
        ({"weight_decay": -0.1}, "weight_decay: expected a number from 0 on, got -0.1"),
        ({"max_grad_norm": math.inf}, "max_grad_norm: expected a number from 0 on, got inf"),
        ({"power": 0}, "power: expected a positive number, got 0"),
        ({"eps": True}, "eps: expected a positive number, got True"),
        ({"betas": (0.9, 1.0)}, r"betas: expected two numbers in \[0, 1\), got \(0.9, 1.0\)"),
        ({"betas": (0.9,)}, "betas: expected two numbers"),
        ({"decay": "cosine"}, "decay: expected one of 'linear', 'polynomial', 'constant', got 'cosine'"),
        ({"optimizer": "sgd"}, "optimizer: expected one of 'adamw', 'lamb', got 'sgd'"),
        ({"dtype": "float16"}, "dtype: expected one of 'float32', 'bfloat16', got 'float16'"),
        ({"seed": -1}, "seed: expected an integer from 0 to"),
        ({"compile": 2}, "compile: expected one of False, True, got 2"),
        (
            {"gradient_accumulation_steps": 0},
            "gradient_accumulation_steps: expected a positive integer, got 0",
        ),
        ({"log_every": None}, "log_every: expected a positive integer, got None"),
        ({"save_every": 0}, "save_every: expected a positive integer, got 0"),
        ({"keep": 0}, "keep: expected a positive integer, got 0"),
    ],
)
def test_values_that_are_not_allowed(changes, message):
    with pytest.raises(ArgumentError, match=message):
        TrainingOptions(**changes)


def test_warmup_is_a_number_of_steps_or_a_share():
    for warmup, expected in [(0, 0), (0.1, 10), (0.994, 99), (1, 1), (30, 30), (100, 100)]:
        assert TrainingOptions(warmup=warmup).warmup_steps(100) == expected
    with pytest.raises(ArgumentError, match="warmup: expected at most 100 steps, all of them, got 101"):
        TrainingOptions(warmup=101).warmup_steps(100)


def test_phases():
    with pytest.raises(
        ArgumentError, match="batch_size, batch_tokens: expected one of them, got None and None"
    ):
        Phase(128, 10)
    with pytest.raises(ArgumentError, match="batch_size, batch_tokens: expected one of them, got 8 and 1024"):
        Phase(128, 10, 8, 1024)
    for values, name in [((0, 1, 1), "max_seq_length"), ((8, 0, 1), "steps"), ((8, 1, -1), "batch_size")]:
        with pytest.raises(ArgumentError, match=f"{name}: expected a positive integer"):
            Phase(*values)
    Phase(128, 10, 4).check_ranks(4)
    with pytest.raises(
        ArgumentError, match="batch_size: expected at least 4, room for a sample of every process"
    ):
        Phase(128, 10, 3).check_ranks(4)
    Phase(128, 10, None, 512).check_ranks(4)
    with pytest.raises(
        ArgumentError, match="batch_tokens: expected at least 512, room for a sample of every"
    ):
        Phase(128, 10, None, 511).check_ranks(4)


def test_the_limit_of_masked_tokens_follows_the_length_and_the_share():
    bert = PretrainingConfig.preset("bert")
    assert changed_samples(bert, max_seq_length=512) == PretrainingConfig.preset("bert", max_seq_length=512)
    assert changed_samples(bert, masked_lm_prob=0.4).masking.max_predictions_per_seq == 52
    fixed = changed_samples(bert, max_seq_length=64)
    assert fixed.masking.max_predictions_per_seq == 10
    roberta = PretrainingConfig.preset("roberta")
    assert changed_samples(roberta, max_seq_length=64).masking.max_predictions_per_seq is None
    with pytest.raises(ArgumentError, match="max_seq_length"):
        changed_samples(bert, max_seq_length=4)
