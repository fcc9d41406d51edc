"""Errors that a user can mend: one clear sentence that names the file or the parameter."""

from collections.abc import Iterable
from difflib import get_close_matches


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
