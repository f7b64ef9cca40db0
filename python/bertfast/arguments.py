"""Checks of the arguments that several calls share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertfast import _bertfast
from bertfast.errors import ArgumentError, DtypeError, ShapeError


def check_text(text: object, index: int) -> str:
    """``text`` if it is one, else `TypeError`."""
    if not isinstance(text, str):
        raise TypeError(f"sentences[{index}]: expected str, got {type(text).__name__}")
    return text


def check_utf8(name: str, text: str) -> str:
    """``text`` if it can be written as UTF-8, else `ArgumentError`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(
            f"{name}: expected text that can be written as UTF-8, "
            f"got a lone surrogate at character {error.start}"
        ) from None
    return text


def check_texts(sentences: str | Sequence[str]) -> tuple[list[str], bool]:
    """The texts as a list, and whether it was a single one; `TypeError` if there is anything but texts."""
    if isinstance(sentences, str):
        return [sentences], True
    if isinstance(sentences, (bytes, bytearray, Mapping)) or not isinstance(sentences, Iterable):
        raise TypeError(f"sentences: expected str or a sequence of str, got {type(sentences).__name__}")
    # `tolist` gives Python's own str for the elements of a numpy array.
    texts = sentences.tolist() if isinstance(sentences, np.ndarray) else list(sentences)
    if isinstance(texts, str):
        return [texts], True
    for index, text in enumerate(texts):
        check_text(text, index)
    return texts, False


def renamed(name: str, value: Any, other_name: str, other: Any) -> Any:
    """An argument that has two names; `TypeError` if both are given."""
    if value is not None and other is not None:
        raise TypeError(f"{name}, {other_name}: expected one of them, got both")
    return other if value is None else value


def nothing_else(**given: Any) -> None:
    """`ArgumentError` for anything but defaults beside an encoder that is open already."""
    for name, value in given.items():
        if value not in ("auto", None, False, ""):
            raise ArgumentError(f"{name}: expected nothing beside an encoder, which is open already")


def check_out(out: Any, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """``out``, or a new array if it is None.

    Raises:
        TypeError: Not a numpy array.
        DtypeError: Not float32.
        ShapeError: Another shape.
        ArgumentError: Not writeable or not C-contiguous.
    """
    if out is None:
        return np.empty(shape, np.float32)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: expected a numpy array or memmap, got {type(out).__name__}")
    if out.dtype != np.float32:
        raise DtypeError(f"out: expected float32, got {out.dtype}")
    if out.shape != shape:
        raise ShapeError(f"out: expected shape {shape}, got {out.shape}")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise ArgumentError("out: expected a writeable C-contiguous array")
    return out


def is_int(value: object) -> bool:
    """Whether it is an integer; a bool is none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


MAX_THREADS = 2**16


def check_num_threads(value: int | None) -> int | None:
    """``value`` if it is a positive integer up to `MAX_THREADS` or None, else `ArgumentError`."""
    if value is not None and (not is_int(value) or value < 1):
        raise ArgumentError(f"num_threads: expected a positive integer or None, got {value!r}")
    if value is not None and value > MAX_THREADS:
        raise ArgumentError(f"num_threads: expected at most {MAX_THREADS}, got {value}")
    return value


def check_positive(name: str, value: int) -> int:
    """``value`` if it is a positive integer, else `ArgumentError`."""
    if not is_int(value) or value < 1:
        raise ArgumentError(f"{name}: expected a positive integer, got {value!r}")
    return value


def check_from_0(name: str, value: Any, most: int) -> int:
    """``value`` as an int if it is an integer from 0 to ``most``, else `ArgumentError`."""
    if not is_int(value) or not 0 <= value <= most:
        raise ArgumentError(f"{name}: expected an integer from 0 to {most}, got {value!r}")
    return int(value)


def as_array(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """``values`` as a numpy array, else `ShapeError`."""
    try:
        return np.asarray(values)
    except ValueError:
        raise ShapeError(f"{name}: expected an array, got rows of different lengths") from None


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """``value`` if it is allowed, else `ArgumentError` with the list."""
    if value not in allowed:
        raise ArgumentError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


DTYPES = ("float32", "bfloat16", "int8")
"""What the Rust engine computes in."""


def check_dtypes(dtype: str | Sequence[str], known: Sequence[str] = DTYPES) -> tuple[str, ...]:
    """The dtypes that are meant, in order of preference; none for ``"auto"``.

    Args:
        dtype: ``"auto"``, a name, or names.
        known: The names that there are.

    Raises:
        ArgumentError: Something else.
    """
    if isinstance(dtype, str) and dtype == "auto":
        return ()
    wanted = (dtype,) if isinstance(dtype, str) else tuple(dtype) if isinstance(dtype, Iterable) else ()
    if not wanted or not all(name in known for name in wanted):
        names = ", ".join(map(repr, known))
        raise ArgumentError(f"dtype: expected 'auto', one of {names}, or several of these, got {dtype!r}")
    return wanted


def first_native(wanted: Sequence[str], isa: str | None) -> str:
    """The first of these dtypes that an instruction set multiplies natively; float32 if there are none.

    Args:
        wanted: What `check_dtypes` returned.
        isa: Name of the instruction set; None for the one that is chosen by default.

    Raises:
        ArgumentError: It has none of them (the message names those that it has), or there is no such
            instruction set.
    """
    if not wanted:
        return "float32"
    native = _bertfast.dtypes(isa)
    found = next((name for name in wanted if name in native), None)
    if found is None:
        asked = " and ".join(dict.fromkeys(wanted))
        raise ArgumentError(
            f"dtype: {asked} {'does' if len(set(wanted)) == 1 else 'do'} not run natively on "
            f"{isa or _bertfast.info()['isa']}; expected one of {', '.join(native)}"
        )
    return found


def differences(expected: Any, found: Any, name: str = "") -> Iterator[str]:
    """What is not the same in two nested mappings: "name expected, got found" with the names of both."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in sorted({*expected, *found}, key=str):
            yield from differences(expected.get(key), found.get(key), f"{name}.{key}".lstrip("."))
    elif expected != found:
        yield f"{name} {expected!r}, got {found!r}"
