"""Writing files so that nothing is ever left half-written."""

import errno
import getpass
import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from fusionrepro.errors import FusionReproError, InputError, notice, typed

_HERE = hashlib.sha256(platform.node().encode()).hexdigest()[:4]  # this machine, in the names of temporary files
_TORN = re.compile(rf"\..*-{_HERE}-(\d+)-[a-z0-9_]{{8}}(\..*)?")
_swept: set[Path] = set()
_SILENT = 2.0  # seconds to wait for another process without a word


def temporary_prefix(name: str) -> str:
    """How the hidden names begin that this process writes to before `name` is ready: they tell whose they are."""
    plain = name[:40].encode("ascii", "replace").decode().replace("?", "_")  # for writers that know no other alphabet, or no bytes beyond UTF-8
    return f".{plain}-{_HERE}-{os.getpid()}-"


def sweep(folder: Path) -> None:
    """Remove what processes that are gone left half-written in `folder`; once a process and folder."""
    folder = folder.absolute()
    if folder in _swept:
        return
    _swept.add(folder)
    for entry in os.scandir(folder):
        torn = _TORN.fullmatch(entry.name)
        if not torn or psutil.pid_exists(int(torn[1])):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path, patience: float = -1) -> Iterator[None]:
    """Hold `path`, which need not exist, against the other processes and threads of this user on this machine.

    The lock itself lies among the system's temporary files, so nothing is left beside `path`; the system lets go when a process dies.

    Raises
    ------
    FusionReproError
        when another one still holds it after `patience` seconds (negative: never given up).
    """
    path = Path(path).expanduser().resolve()
    folder = Path(tempfile.gettempdir()) / f"fusionrepro-locks-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:24]}.lock")
    try:
        try:
            lock.acquire(timeout=min(patience, _SILENT) if patience >= 0 else _SILENT)
        except Timeout:
            if 0 <= patience <= _SILENT:
                raise
            notice(f"another process is writing {path}: waiting for it.")
            lock.acquire(timeout=patience)
    except Timeout:
        raise FusionReproError(f"another process is writing {path}: wait for it, or stop it first.") from None
    try:
        yield
    finally:
        lock.release()


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
        sweep(path.parent)
        handle, name = tempfile.mkstemp(prefix=temporary_prefix(path.stem), suffix=path.suffix, dir=path.parent)
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


@typed
def write_text(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8, atomically; returns the path."""
    with atomic(path) as t:
        t.write_text(text, encoding="utf-8")
    return Path(path)


@typed
def sha256(path: str | Path) -> str:
    """The hex SHA-256 of a file's bytes."""
    check_regular(path)
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def check_regular(path: str | Path) -> None:
    """InputError for a pipe, a device or a socket: reading one may never end. What is absent is left to the reader."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    for kind, words in ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISSOCK, "a socket")):
        if kind(mode):
            raise InputError(f"{path} is {words}, not a file; save its content to a file first.")
