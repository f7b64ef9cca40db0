"""The exceptions of bertfast, and its warning.

Each is also the builtin exception that a Python user would expect there, so ``except ValueError`` works.
Missing files raise the builtin ``FileNotFoundError``, wrong argument types the builtin ``TypeError``.
"""


class BertFastError(Exception):
    """Base of all errors that bertfast defines."""


class ShapeError(BertFastError, ValueError):
    """An array has the wrong rank or extent."""


class DtypeError(BertFastError, TypeError):
    """An array has a dtype that cannot be used there."""


class TokenIdError(BertFastError, IndexError):
    """A token id, token type id or position id lies outside its table."""


class ArgumentError(BertFastError, ValueError):
    """An argument has a value that is not allowed."""


class ConfigError(BertFastError, ValueError):
    """``config.json`` does not describe a model that bertfast can run."""


class CheckpointError(BertFastError, ValueError):
    """The weights are damaged, or tensors are missing or misshapen (all of them are listed)."""


class CorpusError(BertFastError, ValueError):
    """A corpus for pretraining is damaged, unfinished, or does not go with the others or with a tokenizer."""


class TrainingError(BertFastError, RuntimeError):
    """Training cannot go on: numbers that are not finite, too little memory, a folder of other training."""


class TokenizerError(BertFastError, ValueError):
    """A vocabulary or ``tokenizer.json`` is damaged, or cannot be opened here."""


class TokenizerKindError(TokenizerError):
    """``tokenizer.json`` is of another kind than BERT's, and the package that opens it is not installed."""


class ClusterError(BertFastError, RuntimeError):
    """A cluster cannot be reached, or a node of it lacks what the work needs."""


class TruncationWarning(UserWarning):
    """Texts are longer than the model takes, and were cut off."""
