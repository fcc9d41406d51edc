"""Fetching data sets and checking what is on disk.

Nothing counts as downloaded before its hash matches: bytes collect in a hidden part file beside the target, which survives an
interruption and is continued by the next run, and only a verified file gets its name.
"""

import errno
import gzip
import http.client
import lzma
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import requests
import urllib3

from fusionrepro import settings
from fusionrepro.data.hashes import matches
from fusionrepro.data.manifests import HOST, File, Manifest, find_pairs, load_dataset, load_manifest, locate
from fusionrepro.errors import DataError, DownloadError, FusionReproError, InputError, typed
from fusionrepro.files import check_regular, locked, sweep, temporary_prefix
from fusionrepro.progress import counting

__all__ = ["Fetched", "Verified", "get", "verify", "terms", "unpack", "fetch_file", "mirrored"]

THREADS = 4
ATTEMPTS = 4
TIMEOUT = (10, 60)  # seconds to connect, seconds between bytes
_CHUNK = 1 << 13  # what a broken connection loses at most
_TRANSIENT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_NONSENSE = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, ValueError)
_GONE = ("refused", "resolve", "unreachable", "ConnectTimeout", "NewConnection")  # the net fails, not one file
_SLACK = 1 << 20  # bytes by which a file in another format may differ from our copy, beside a factor of eight
_BOMB = (64 << 20, 100)  # an archive may always unpack to so many bytes, beyond that to so many times its own size


@dataclass(frozen=True)
class Fetched:
    """What `get` did."""

    name: str
    folder: Path
    new: tuple[str, ...]  # paths that were fetched
    kept: int  # files that were there and right
    unaddressed: tuple[str, ...]  # listed files that are absent and have no address
    by_hand: str = ""  # what else can be fetched by hand
    found: str = ""  # after an archive: which pairs of the set can be read now


@dataclass(frozen=True)
class Verified:
    """What `verify` found."""

    name: str
    folder: Path
    pairs: int
    checked: int  # files compared with a hash; of a set without hashes: pairs read
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    hashed: bool  # False: nothing to compare with, the pictures were only read

    @property
    def ok(self) -> bool:
        """Everything is there and right."""
        return not self.missing and not self.damaged and self.pairs > 0

    def __str__(self) -> str:
        how = f"{self.checked} files match their hashes" if self.hashed else f"{self.checked} pairs can be read; no hashes are known"
        if self.ok:
            return f"{self.name}: {self.pairs} pairs in {self.folder}, {how}."
        wrong = [f"{len(v)} {k} ({_some(v)})" for k, v in (("missing", self.missing), ("damaged", self.damaged)) if v]
        return f"{self.name}: {', '.join(wrong) or 'no pair'} in {self.folder}."


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def terms(name: str) -> str:
    """Licence and citation of a data set, shown before a download."""
    m = load_manifest(name)
    lines = [m.title, f"  {m.what}", f"  licence:  {m.licence}", f"  cite:     {m.citation}", f"  homepage: {m.homepage}"]
    return "\n".join([*lines, *(f"  copy:     {s['repo']} ({s['licence']})" for s in m.sources.values())])


# ---- one file ----------------------------------------------------------------------------------------------------------


class _Resuming:
    """A download that goes on from its part file, tries again, and ends with bytes that `right` accepts."""

    def __init__(self, part: Path, right: Callable[[Path], bool], limit: int, count: Callable[[int], None], wait: float):
        self.part, self.right, self.limit, self.count, self.wait = part, right, limit, count, wait

    def __call__(self, url: str) -> None:
        resumed = self.part.exists()
        self._fill(url)
        if resumed and not self.right(self.part):  # the part may stem from another state of the address
            self.part.unlink()
            self._fill(url)
        if not self.right(self.part):
            size = self.part.stat().st_size
            self.part.unlink()
            raise DownloadError(f"{url} gave {size} bytes whose checksum is wrong; nothing was kept. Try again later or set FUSIONREPRO_MIRROR.")

    def _fill(self, url: str) -> None:
        """Collect all bytes in the part file, however many attempts it takes, up to ATTEMPTS."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._continue(url)
            except _TRANSIENT as e:
                if attempt == ATTEMPTS:
                    kind = _Fatal if any(sign in repr(e) for sign in _GONE) else _Broken
                    raise kind(f"{url} could not be fetched after {ATTEMPTS} attempts ({_reason(e)}); what is here is kept, run again.") from e
            except _NONSENSE as e:
                raise DownloadError(f"{url} could not be fetched ({_reason(e)}).") from e
            except OSError as e:
                raise _disk_error(e, self.part) from e
            time.sleep(self.wait * 2 ** (attempt - 1))

    def _continue(self, url: str) -> None:
        have = self.part.stat().st_size if self.part.exists() else 0
        if self.limit and have > self.limit:  # longer than the file can be: the part is of something else
            self.part.unlink()
            have = 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416 and have:  # nothing follows what we have: complete, or not this file
                return
            if response.status_code in (429, 500, 502, 503, 504):
                raise requests.ConnectionError(f"status {response.status_code}")
            if response.status_code not in (200, 206):
                raise DownloadError(f"{url} was refused (status {response.status_code} {response.reason}); the address may have gone, see the homepage.")
            append = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if response.status_code == 206 and not append:
                self.part.unlink(missing_ok=True)
                raise requests.ConnectionError("the server sent another range than asked for")
            length = response.headers.get("Content-Length", "").strip()
            expected = int(length) if length.isascii() and length.isdecimal() else 0  # whatever else a server may write there
            self._check(url, expected + have * append)
            got = self._write(url, response, have if append else 0)
            if got < expected:
                raise requests.ConnectionError(f"{got} of {expected} bytes came")

    def _write(self, url: str, response: requests.Response, have: int) -> int:
        """The bytes of a response behind the first `have` of the part file; how many they were."""
        got = 0
        with open(self.part, "ab" if have else "wb") as f:
            for chunk in response.iter_content(_CHUNK):
                f.write(chunk)
                got += len(chunk)
                self.count(len(chunk))
                self._check(url, have + got)
        return got

    def _check(self, url: str, size: int) -> None:
        """DownloadError for more bytes than the file can have."""
        if self.limit and size > self.limit:
            self.part.unlink(missing_ok=True)
            raise DownloadError(f"{url} is larger than the {self.limit} bytes that the file may have at most; nothing was kept. The address may have changed.")


def _reason(e: Exception) -> str:
    text = str(e)
    for sign, reason in (("refused", "connection refused"), ("resolve", "the host name is unknown here"), ("timed out", "timed out")):
        if sign in text:
            return reason
    return text.splitlines()[0][:120] if text else type(e).__name__


def _disk_error(e: OSError, path: Path) -> FusionReproError:
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return _Fatal(f"cannot write {path.parent}: the disk is full; what is verified is kept, free some space and run again.")
    return _Fatal(f"cannot write {path.parent}: {e.strerror or e}; choose another folder.")


class _Fatal(DownloadError):
    """The net or the disk is gone: every other file would meet the same failure."""


class _Broken(DownloadError):
    """The server answers, but not to the end."""


@typed
def fetch_file(
    url: str,  # where the bytes are
    path: str | Path,  # where they go; its folder is made
    sha256: str = "",  # of the bytes; empty: not known
    pixels: str = "",  # of the decoded picture; either hash is enough
    count: Callable[[int], None] = lambda n: None,  # told the number of bytes as they come
    wait: float = 0.5,  # seconds before the second attempt, doubled each time
    limit: int = 0,  # bytes it has at most; 0: not known
) -> Path:
    """Fetch one file: resumed, retried, verified, then named. DownloadError in one sentence otherwise.

    What lies at `path` stays until its successor is verified. Of two processes that fetch one file the second waits for the first.
    """
    path = Path(path)
    if not path.name:
        raise InputError(f"'{path}' names no file to fetch {url} to.")
    part = path.with_name(f".{path.name}.part")
    known = bool(sha256 or pixels)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = _state(path)
        with locked(path):
            # The process that held the lock before us may have done the work.
            if path.is_file() and (matches(path, sha256, pixels) if known else _state(path) != before):
                return path
            if part.is_symlink() or (part.exists() and not known):  # never write through a link, nor go on with what nothing can check
                part.unlink()
            _Resuming(part, lambda p: matches(p, sha256, pixels), limit, count, wait)(url)
            part.replace(path)
    except OSError as e:
        raise _disk_error(e, path) from e
    return path


def _state(path: Path) -> tuple[int, int] | None:
    """What tells a file from its successor."""
    return (path.stat().st_mtime_ns, path.stat().st_ino) if path.exists() else None


def mirrored(url: str) -> str:
    """The address at the mirror of FUSIONREPRO_MIRROR, which serves the same paths as the host."""
    mirror = settings.get("mirror").rstrip("/")
    if mirror and not mirror.startswith(("http://", "https://")):
        raise InputError(f"FUSIONREPRO_MIRROR must be an http or https address, not '{mirror}'.")
    return mirror + url.removeprefix(HOST) if mirror else url


# ---- a data set --------------------------------------------------------------------------------------------------------


@typed
def get(
    name: str,  # a name of `datasets()`
    files: Iterable[str] | None = None,  # paths or ids to fetch; None: all
    progress: bool = True,  # show the terms first, and a bar after two seconds
    archive: str | Path | None = None,  # a zip or tar that was fetched by hand: unpacked into the data set's folder
    folder: str | Path | None = None,  # where to put it; None: the cache
    wait: float = 0.5,  # seconds before the second attempt at a file
) -> Fetched:
    """Fetch every listed file that has an address, keeping what is there and right.

    Raises
    ------
    DownloadError
        when a file could not be had; all others are fetched before, and kept.
    """
    manifest = load_manifest(name)
    if not (folder or files or archive) and (there := _complete(name)):
        return there
    target = Path(folder) if folder else settings.cache_dir() / "data" / manifest.folder
    if archive is not None:
        _check_archive(Path(archive), target)
    if progress:
        from rich.console import Console

        Console(stderr=True).print(terms(name), markup=False, highlight=False, soft_wrap=True)
    if archive is not None:
        new = unpack(archive, target, lambda root: _holds(manifest, root))
        return Fetched(name, target, tuple(p.relative_to(target).as_posix() for p in new), 0, (), manifest.by_hand, _found(manifest, target))
    wanted = _chosen(manifest, files)
    with counting(f"checking {name}", len(wanted), progress, bytes_=False) as count:
        right = [_is_right(f, target, count) for f in wanted]
    todo = [f for f, ok in zip(wanted, right, strict=True) if not ok and f.url]
    _check_space(target, sum(f.bytes for f in todo))
    with counting(f"fetching {name}", sum(f.bytes for f in todo), progress, bytes_=True) as count:
        _fetch_all(todo, target, count, wait)
    absent = tuple(f.path for f, ok in zip(wanted, right, strict=True) if not ok and not f.url)
    return Fetched(name, target, tuple(f.saved_as for f in todo), sum(right), absent, manifest.by_hand)


def _complete(name: str) -> Fetched | None:
    """What to answer when a complete and right copy lies there already."""
    try:
        found = verify(name, progress=False)
    except FusionReproError:  # absent, or the ruins of a download that was cut off
        return None
    return Fetched(name, found.folder, (), found.checked, ()) if found.ok else None


def _chosen(manifest: Manifest, files: Iterable[str] | None) -> list[File]:
    if files is None:
        return list(manifest.files)
    asked = {files} if isinstance(files, str) else set(files)
    known = {key for f in manifest.files for key in (f.path, f.id)}
    if strange := sorted(asked - known):
        raise InputError(f"{manifest.name} lists no file or pair '{strange[0]}'; leave `files` empty for all.")
    return [f for f in manifest.files if f.path in asked or f.id in asked]


def _is_right(file: File, folder: Path, count: Callable[[int], None]) -> bool:
    found = file.find(folder)
    right = found is not None and matches(found, file.sha256, file.pixels)
    count(1)
    return right


def _check_space(target: Path, needed: int) -> None:
    existing = next(p for p in (target, *target.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DownloadError(f"{target} needs about {needed / 2**20:.1f} MiB, but only {free / 2**20:.1f} MiB are free; free some space or set cache_path.")


def _limit(file: File) -> int:
    """Bytes that a file has at most: those of our copy, or some more where the address has it in another format."""
    return 8 * file.bytes + _SLACK if file.pixels else file.bytes


def _fetch_all(todo: list[File], folder: Path, count: Callable[[int], None], wait: float) -> None:
    """Fetch every file; one that fails stops the others only where they would meet the same failure."""
    stop, failures, broken = threading.Event(), [], [0]

    def one(file: File) -> None:
        if stop.is_set():
            return
        try:
            damaged, target = file.find(folder), folder / file.saved_as
            fetch_file(mirrored(file.url), target, file.sha256, file.pixels, count, wait, _limit(file))
            if damaged is not None and damaged != target:  # one file of a picture, and its successor is verified now
                damaged.unlink()
            broken[0] = 0
        except DownloadError as e:
            failures.append(e)
            broken[0] += isinstance(e, _Broken)
            if isinstance(e, _Fatal) or broken[0] > 2 * THREADS:
                stop.set()

    pool = ThreadPoolExecutor(THREADS)
    try:
        list(pool.map(one, todo))
    except BaseException:
        stop.set()  # an interrupt: let the files under way end, start no other
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    if failures:
        more = f" ({len(failures) - 1} more files failed)" if len(failures) > 1 else ""
        raise DownloadError(f"{failures[0]}{more}") from failures[0]


@typed
def verify(
    name: str,  # a name of `datasets()`
    data_root: str | Path | None = None,  # None: FUSIONREPRO_DATA or settings.ini, then the downloads
    progress: bool = True,  # show a bar after two seconds
) -> Verified:
    """Compare what is on disk with the manifest; a set without hashes is read through instead.

    Raises
    ------
    DataError
        when the data set is nowhere.
    """
    manifest, folder = load_manifest(name), locate(name, data_root)
    listed = [f for f in manifest.files if folder and (f.url or f.find(folder))]
    if not any(f.find(folder) for f in listed):
        return _read_through(name, data_root, folder, progress)
    with counting(f"verifying {name}", len(listed), progress, bytes_=False) as count, ThreadPoolExecutor(THREADS) as pool:
        right = list(pool.map(lambda f: _is_right(f, folder, count), listed))
    wrong = [f for f, ok in zip(listed, right, strict=True) if not ok]
    missing = tuple(f.path for f in wrong if f.find(folder) is None)
    damaged = tuple(f.path for f in wrong if f.find(folder) is not None)
    ids = {f.id for f in listed if f.role == "ir"} - {f.id for f in wrong if f.role in ("ir", "vi")}
    return Verified(name, folder, len(ids), sum(right), missing, damaged, True)


def _read_through(name: str, data_root, folder: Path | None, progress: bool) -> Verified:
    data = load_dataset(name, "all", data_root)
    damaged = []
    with counting(f"reading {name}", len(data), progress, bytes_=False) as count:
        for i, pair in enumerate(data.ids):
            try:
                data[i]
            except FusionReproError:
                damaged.append(pair)
            count(1)
    return Verified(name, folder, len(data) - len(damaged), len(data), (), tuple(damaged), False)


# ---- archives ----------------------------------------------------------------------------------------------------------

_OTHERS = ((b"Rar!\x1a\x07", "a RAR archive"), (b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"\x28\xb5\x2f\xfd", "a Zstandard archive"))
_SPLIT = re.compile(r"\.(z\d\d|\d{3})$", re.IGNORECASE)
_LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db")
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, ValueError, OverflowError, RuntimeError)


@typed
def unpack(
    archive: str | Path,  # .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz
    folder: str | Path,  # where its members go; made if need be
    is_root: Callable[[Path], bool] | None = None,  # whether a folder is the one meant; None: the first with more than one entry
) -> list[Path]:  # the files written
    """Unpack an archive inside `folder`: all of it, or nothing. Folders around everything, such as `NAME-main/`, are left away.

    Raises
    ------
    DataError
        when it is no archive that can be unpacked here, damaged, too large, or has a member that would land elsewhere or is no plain file.
    """
    archive, folder = Path(archive), Path(folder)
    _check_archive(archive, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            sweep(folder)
            with tempfile.TemporaryDirectory(prefix=temporary_prefix("unpack"), dir=folder) as t:
                _write_members(archive, folder, Path(t))
                return _move_into(_root(Path(t), is_root), folder)
    except tarfile.ReadError as e:  # lists what every decompressor said
        raise DataError(f"the archive {archive} is damaged or no archive (neither zip nor tar); fetch it again.") from e
    except NotImplementedError as e:
        raise DataError(f"the archive {archive} is packed in a way that Python cannot unpack ({e}): unpack it by hand into {folder}.") from e
    except _DAMAGE as e:
        raise DataError(f"the archive {archive} is damaged or no archive ({e}); fetch it again.") from e
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"cannot unpack {archive}: the disk is full; nothing was kept, free some space and run again.") from e
        if e.errno is None:  # what decompressors say
            raise DataError(f"the archive {archive} is damaged or no archive ({e}); fetch it again.") from e
        raise DataError(f"cannot unpack {archive} into {folder}: {e.strerror}.") from e


def _check_archive(archive: Path, folder: Path) -> None:
    """DataError for what is no archive, or one of a kind that is unpacked by hand."""
    if archive.is_dir():
        raise DataError(f"{archive} is a folder, not an archive; copy what it holds into {folder}.")
    if not archive.exists():
        raise DataError(f"the archive {archive} does not exist; check the name.")
    check_regular(archive)
    with open(archive, "rb") as f:
        head = f.read(512)
    if kind := next((kind for magic, kind in _OTHERS if head.startswith(magic)), None):
        raise DataError(f"{archive} is {kind}, which is not unpacked here: unpack it by hand into {folder}.")
    if _SPLIT.search(archive.name) or head.startswith(b"PK\x07\x08"):
        raise DataError(f"{archive} is one part of a split archive: join or unpack all its parts by hand into {folder}.")
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{archive} is a web page, not the archive: open its address in a browser and save what is offered there.")


def _write_members(archive: Path, folder: Path, to: Path) -> None:
    """Every member below `to`, as long as they stay within what such an archive may hold."""
    total, most = 0, max(_BOMB[0], _BOMB[1] * archive.stat().st_size)
    for name, size, reader in _members(archive, folder):
        total += size
        if total > most:
            raise DataError(f"the archive {archive} unpacks to more than {_BOMB[1]} times its own size; it is not unpacked. "
                            f"If you trust it, unpack it by hand into {folder}.")  # fmt: skip
        _check_space(folder, size)
        path = to / _inside(name, archive)
        path.parent.mkdir(parents=True, exist_ok=True)
        with reader() as source, open(path, "wb") as target:
            shutil.copyfileobj(source, target)


def _members(archive: Path, folder: Path) -> Iterator[tuple[str, int, Callable]]:
    """Name, size and a reader of each plain file; DataError for links, devices and encrypted members."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as z:
            for info in z.infolist():
                mode = info.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(f"the archive {archive} has the member '{info.filename}', which is a link or device; it is not unpacked.")
                if info.flag_bits & 1:
                    raise DataError(f"the archive {archive} is encrypted: unpack it by hand, with its password, into {folder}.")
                _inside(info.filename, archive)
                if not info.is_dir():
                    yield info.filename, info.file_size, lambda info=info: z.open(info)
        return
    with tarfile.open(archive) as t:
        for info in t:
            if not (info.isfile() or info.isdir()):
                raise DataError(f"the archive {archive} has the member '{info.name}', which is a link or device; it is not unpacked.")
            _inside(info.name, archive)
            if info.isfile():
                yield info.name, info.size, lambda info=info: t.extractfile(info)


def _root(top: Path, is_root: Callable[[Path], bool] | None) -> Path:
    """The folder of an unpacked archive that is meant: `top`, or one below it that alone lies there."""
    chain = [top]
    while len(inside := [p for p in chain[-1].iterdir() if p.name not in _LITTER]) == 1 and inside[0].is_dir():
        chain.append(inside[0])
    if is_root is None:
        return next((p for p in chain[:2] if sum(q.name not in _LITTER for q in p.iterdir()) > 1), top)
    return next((p for p in chain if is_root(p)), top)


def _inside(name: str, archive: Path) -> PurePosixPath:
    """A member's path when it stays inside the folder; DataError otherwise."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or not path.parts and name not in (".", "./"):
        raise DataError(f"the archive {archive} has the member '{name}', which would land outside its folder; it is not unpacked.")
    return path


def _move_into(source: Path, folder: Path) -> list[Path]:
    written = []
    for path in sorted(p for p in source.rglob("*") if p.is_file() and not set(_LITTER) & set(p.relative_to(source).parts)):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        written.append(target)
    return written


def _holds(manifest: Manifest, folder: Path) -> bool:
    """Whether pairs of the data set can be found below `folder`."""
    return any(find_pairs(manifest, split, folder) for split in manifest.splits)


def _found(manifest: Manifest, folder: Path) -> str:
    """Which pairs of the data set can be read from `folder`, in words."""
    pairs = {split: len(find_pairs(manifest, split, folder)) for split in manifest.splits}
    if any(pairs.values()):
        return ", ".join(f"{n} pair{'s' * (n > 1)} of the split {split}" for split, n in pairs.items() if n) + " can be read."
    return f"no pair of {manifest.name} is recognised there; its folders should lie as described below." if manifest.by_hand else "no pair is recognised there."
