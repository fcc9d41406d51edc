"""Errors that a user can mend: one clear sentence that names the file or the parameter."""

import inspect
import numbers
import warnings
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache, wraps
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


class FusionReproError(Exception):
    """Base of all errors that the command line prints as one sentence, without a traceback."""


class InputError(FusionReproError, ValueError):
    """A file, an array or a parameter that cannot be used as given."""


class DataError(FusionReproError):
    """A data set that is absent, incomplete or not what its manifest says."""


class DownloadError(DataError):
    """A download that was refused, broke off or failed its checksum."""


class CheckpointError(FusionReproError):
    """A weight file that is broken, unsafe or belongs to another model."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not among `known`, with the nearest name as the mend.

    `kind` is the singular noun shown to the user, for example ``"model"``.
    """
    names = sorted(known)
    plain = {n.lower(): n for n in names}
    near = get_close_matches(str(name).lower(), plain, n=1, cutoff=0.4)
    hint = f"did you mean '{plain[near[0]]}'?" if near else "see the list."
    return InputError(f"unknown {kind} '{name}': {hint} Known: {', '.join(names) or 'none'}.")


class Notice(UserWarning):
    """Something that a user should know of a result that was made all the same; the command line prints it as one line."""


def notice(text: str) -> None:
    """Say `text` once, as a `Notice`."""
    warnings.warn(text, Notice, stacklevel=3)


def typed(function: Callable) -> Callable:
    """Arguments of a wrong type get one sentence, as wrong values do, instead of a TypeError from somewhere inside.

    The annotations say what is right. Whole numbers pass for floats, NumPy's numbers for Python's, and whatever NumPy can read as an
    array for an array. Kinds of contents, as in ``Iterable[str]``, are left to the function.
    """
    signature, hints = inspect.signature(function), cache(lambda: get_type_hints(function))

    @wraps(function)
    def checked(*args, **kwargs):
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as e:
            raise InputError(f"{function.__name__}: {e}; see help({function.__name__}).") from None
        for name, value in given.items():
            kind = signature.parameters[name].kind
            if name in hints() and kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL) and not _fits(value, hints()[name]):
                raise InputError(f"{name} of {function.__name__} must be {_told(hints()[name])}, not {_shown(value)}.")
        return function(*args, **kwargs)

    return checked


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value may stand where `hint` does."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, h) for h in get_args(hint))
    if get_origin(hint) is Literal:  # which words are right the function says, with the nearest one
        return any(isinstance(value, type(word)) for word in get_args(hint))
    hint = get_origin(hint) or hint
    if hint is Any or not isinstance(hint, type):  # Any is a class in Python 3.11
        return True
    if hint in (int, float):
        return isinstance(value, numbers.Integral if hint is int else numbers.Real) and not isinstance(value, bool)
    if hint.__name__ == "ndarray":
        return hasattr(value, "__array__") or hasattr(value, "__array_interface__") or isinstance(value, list | tuple)
    if hint is Iterable:
        return hasattr(value, "__iter__") or hasattr(value, "__getitem__")
    return isinstance(value, hint)


def _told(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) in (Union, UnionType):
        names = list(dict.fromkeys(_told(h) for h in get_args(hint)))
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    if get_origin(hint) is Literal:
        return _told(type(get_args(hint)[0]))
    hint = get_origin(hint) or hint
    words = {str: "text", int: "a whole number", float: "a number", bool: "True or False", type(None): "None", Path: "a path", Callable: "a function"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text} ({type(value).__name__})" if isinstance(value, str | int | float | list | tuple | dict | bytes) and len(text) < 40 else type(value).__name__
