"""Fetching data sets and checking what is on disk.

Nothing counts as downloaded before its hash matches: bytes collect in a hidden part file beside the target, which survives an
interruption and is continued by the next run, and only a verified file gets its name.
"""

import errno
import re
import shutil
import stat
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

import pooch
import requests

from fusionrepro import settings
from fusionrepro.data.hashes import matches
from fusionrepro.data.manifests import HOST, File, Manifest, load_dataset, load_manifest, locate
from fusionrepro.errors import DataError, DownloadError, FusionReproError, InputError
from fusionrepro.progress import counting

__all__ = ["Fetched", "Verified", "get", "verify", "terms", "unpack", "fetch_file", "mirrored"]

THREADS = 4
ATTEMPTS = 4
TIMEOUT = (10, 60)  # seconds to connect, seconds between bytes
_CHUNK = 1 << 13  # what a broken connection loses at most
_TRANSIENT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


@dataclass(frozen=True)
class Fetched:
    """What `get` did."""

    name: str
    folder: Path
    new: tuple[str, ...]  # paths that were fetched
    kept: int  # files that were there and right
    unaddressed: tuple[str, ...]  # listed files that are absent and have no address
    by_hand: str = ""  # what else can be fetched by hand


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


class _Resuming(pooch.HTTPDownloader):
    """Pooch's HTTP downloader, made to continue a part file, to try again, and to accept only what `right` accepts."""

    def __init__(self, part: Path, right: Callable[[Path], bool], count: Callable[[int], None], wait: float):
        super().__init__(progressbar=False, timeout=TIMEOUT)
        self.part, self.right, self.count, self.wait = part, right, count, wait

    def __call__(self, url, output_file, pooch=None, check_only=False):
        if check_only:
            return super().__call__(url, output_file, pooch, check_only=True)
        resumed = self.part.exists()
        self._fill(url)
        if resumed and not self.right(self.part):  # the part may stem from another state of the address
            self.part.unlink()
            self._fill(url)
        if not self.right(self.part):
            size = self.part.stat().st_size
            self.part.unlink()
            raise DownloadError(f"{url} gave {size} bytes whose checksum is wrong; nothing was kept. Try again later or set FUSIONREPRO_MIRROR.")
        self.part.replace(output_file)  # pooch gives it its name

    def _fill(self, url: str) -> None:
        """Collect all bytes in the part file, however many attempts it takes, up to ATTEMPTS."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._continue(url)
            except _TRANSIENT as e:
                if attempt == ATTEMPTS:
                    raise _Fatal(f"{url} could not be fetched after {ATTEMPTS} attempts ({_reason(e)}); what is here is kept, run again.") from e
            except requests.RequestException as e:
                raise DownloadError(f"{url} could not be fetched ({_reason(e)}).") from e
            except OSError as e:
                raise _disk_error(e, self.part) from e
            time.sleep(self.wait * 2 ** (attempt - 1))

    def _continue(self, url: str) -> None:
        have = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416:  # nothing follows what we have: complete, or not this file
                return
            if response.status_code in (429, 500, 502, 503, 504):
                raise requests.ConnectionError(f"status {response.status_code}")
            if response.status_code not in (200, 206):
                raise DownloadError(f"{url} was refused (status {response.status_code} {response.reason}); the address may have gone, see the homepage.")
            append = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if response.status_code == 206 and not append:
                self.part.unlink()
                raise requests.ConnectionError("the server sent another range than asked for")
            got = 0
            with open(self.part, "ab" if append else "wb") as f:
                for chunk in response.iter_content(_CHUNK):
                    f.write(chunk)
                    got += len(chunk)
                    self.count(len(chunk))
            expected = int(response.headers.get("Content-Length", got))
            if got < expected:
                raise requests.ConnectionError(f"{got} of {expected} bytes came")


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


def fetch_file(
    url: str,  # where the bytes are
    path: str | Path,  # where they go; its folder is made
    sha256: str = "",  # of the bytes; empty: not known
    pixels: str = "",  # of the decoded picture; either hash is enough
    count: Callable[[int], None] = lambda n: None,  # told the number of bytes as they come
    wait: float = 0.5,  # seconds before the second attempt, doubled each time
) -> Path:
    """Fetch one file: resumed, retried, verified, then named. DownloadError in one sentence otherwise."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        # Without a hash of its own pooch takes what the downloader has verified; the upstream bytes may differ from our copy's.
        pooch.get_logger().setLevel("WARNING")
        downloader = _Resuming(part, lambda p: matches(p, sha256, pixels), count, wait)
        pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent, downloader=downloader)
    except OSError as e:
        raise _disk_error(e, path) from e
    return path


def mirrored(url: str) -> str:
    """The address at the mirror of FUSIONREPRO_MIRROR, which serves the same paths as the host."""
    mirror = settings.get("mirror").rstrip("/")
    if mirror and not mirror.startswith(("http://", "https://")):
        raise InputError(f"FUSIONREPRO_MIRROR must be an http or https address, not '{mirror}'.")
    return mirror + url.removeprefix(HOST) if mirror else url


# ---- a data set --------------------------------------------------------------------------------------------------------


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
    if archive is not None and not Path(archive).is_file():
        raise DataError(f"the archive {archive} does not exist; check the name.")
    if progress:
        from rich.console import Console

        Console(stderr=True).print(terms(name), markup=False, highlight=False, soft_wrap=True)
    if archive is not None:
        new = unpack(archive, target)
        return Fetched(name, target, tuple(p.relative_to(target).as_posix() for p in new), 0, (), manifest.by_hand)
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


def _fetch_all(todo: list[File], folder: Path, count: Callable[[int], None], wait: float) -> None:
    stop, failures = threading.Event(), []

    def one(file: File) -> None:
        if stop.is_set():
            return
        try:
            if (damaged := file.find(folder)) is not None:
                damaged.unlink()
            fetch_file(mirrored(file.url), folder / file.saved_as, file.sha256, file.pixels, count, wait)
        except DownloadError as e:
            failures.append(e)
            if isinstance(e, _Fatal):
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


def unpack(
    archive: str | Path,  # .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz
    folder: str | Path,  # where its members go; made if need be
) -> list[Path]:  # the files written
    """Unpack an archive inside `folder`: all of it, or nothing.

    Raises
    ------
    DataError
        when it is no archive, damaged, too large, or has a member that would land elsewhere or is no plain file.
    """
    archive, folder = Path(archive), Path(folder)
    if not archive.is_file():
        raise DataError(f"the archive {archive} does not exist; check the name.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as t:
            for name, size, reader in _members(archive):
                _check_space(folder, size)
                path = Path(t) / _inside(name, archive)
                path.parent.mkdir(parents=True, exist_ok=True)
                with reader() as source, open(path, "wb") as target:
                    shutil.copyfileobj(source, target)
            return _move_into(Path(t), folder)
    except tarfile.ReadError as e:  # lists what every decompressor said
        raise DataError(f"the archive {archive} is damaged or no archive (neither zip nor tar); fetch it again.") from e
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as e:
        raise DataError(f"the archive {archive} is damaged or no archive ({e}); fetch it again.") from e
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"cannot unpack {archive}: the disk is full; nothing was kept, free some space and run again.") from e
        raise DataError(f"cannot unpack {archive} into {folder}: {e.strerror or e}.") from e


def _members(archive: Path) -> Iterator[tuple[str, int, Callable]]:
    """Name, size and a reader of each plain file; DataError for links and devices."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as z:
            for info in z.infolist():
                mode = info.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(f"the archive {archive} has the member '{info.filename}', which is a link or device; it is not unpacked.")
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


def _inside(name: str, archive: Path) -> PurePosixPath:
    """A member's path when it stays inside the folder; DataError otherwise."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or not path.parts and name not in (".", "./"):
        raise DataError(f"the archive {archive} has the member '{name}', which would land outside its folder; it is not unpacked.")
    return path


def _move_into(source: Path, folder: Path) -> list[Path]:
    written = []
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        written.append(target)
    return written
