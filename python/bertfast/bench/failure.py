"""Why something could not be measured, in one line."""

from __future__ import annotations

from bertfast.errors import BertFastError


def reason(error: BaseException) -> str:
    """The message alone where it says enough, else with the kind of error before it.

    Example:
        >>> reason(ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"))
        'onnxruntime is not installed'
    """
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name} is not installed"
    if isinstance(error, (BertFastError, ImportError)) and text:
        return text
    return f"{type(error).__name__}: {text}"[:300]
