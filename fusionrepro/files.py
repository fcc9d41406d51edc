"""Writing files so that nothing is ever left half-written."""

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fusionrepro.errors import FusionReproError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, delete it on failure.

    The temporary name keeps the suffix, so writers that look at it choose the same format.

    Raises
    ------
    FusionReproError
        when the disk is full or the folder cannot be written, naming `path`.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # mkstemp makes private files; give the result the permissions of a plain open().
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FusionReproError(f"cannot write {path}: the disk is full; free some space and run again.") from e
        if isinstance(e, PermissionError | NotADirectoryError | IsADirectoryError | FileExistsError) or e.errno == errno.EROFS:
            raise FusionReproError(f"cannot write {path}: {_obstacle(path, e)}.") from e
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _obstacle(path: Path, e: OSError) -> str:
    """What keeps `path` from being written, and the mend."""
    if path.is_dir():
        return "it is a folder; give a file's name"
    if blocked := next((p for p in path.parents if p.is_file()), None):
        return f"{blocked} is a file, not a folder; choose another place"
    return f"{e.strerror}; change the permissions or choose another place"


def os_error(e: Exception) -> OSError:
    """The system's error behind one of a Rust library, which has its number in the text only; `atomic` knows what to say about it."""
    number = re.search(r"os error (\d+)", str(e))
    return OSError(int(number[1]) if number else errno.EIO, str(e))


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8, atomically; returns the path."""
    with atomic(path) as t:
        t.write_text(text, encoding="utf-8")
    return Path(path)


def sha256(path: str | Path) -> str:
    """The hex SHA-256 of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
