"""What other authors published: weights of their networks, fused pictures and the sources of these.

`data_manifests/baselines.yaml` says where they are and under which licence, `baselines.csv` lists the files with their hashes. The files
are third-party data for checking our own code. They are looked for in the folder of FUSIONREPRO_ORACLES, below the data root and among
the downloads, and fetched only when a user asks for what needs them.
"""

import csv
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import yaml

from fusionrepro import settings
from fusionrepro.data.download import fetch_file, mirrored
from fusionrepro.data.manifests import HOST, OTHER
from fusionrepro.errors import DataError, DownloadError, unknown
from fusionrepro.files import atomic, sha256
from fusionrepro.progress import counting

__all__ = ["Scene", "Published", "PublishedFile", "WeightSet", "published", "published_methods", "locate", "obtain", "absent_sentence"]

ROLES = ("weights", "dictionary", "fused", "ir", "vi")


@dataclass(frozen=True)
class PublishedFile:
    """One file: where it is in the world, and what it must be."""

    path: str  # below the folder of the user
    role: str  # one of ROLES
    method: str  # empty for a source, which several methods share
    scene: str
    repository: str  # owner/name
    commit: str
    licence: str
    url: str  # of the file, or of the archive that has it
    member: str  # of the archive; empty: `url` is the file itself
    bytes: int
    sha256: str
    ir: str = ""  # of a fused picture: the paths of its sources
    vi: str = ""
    note: str = ""


@dataclass(frozen=True)
class WeightSet:
    """Files that make one trained network, and how it is built."""

    name: str
    files: tuple[PublishedFile, ...]
    options: dict[str, Any] = field(default_factory=dict)  # of the method


@dataclass(frozen=True)
class Scene:
    """A published picture and its sources."""

    name: str
    fused: PublishedFile
    ir: PublishedFile
    vi: PublishedFile


@dataclass(frozen=True)
class Published:
    """What there is of one method."""

    method: str
    weights: dict[str, WeightSet]  # the default first
    scenes: tuple[Scene, ...]
    how: str = ""  # how the published pictures were made
    level: dict[str, float] = field(default_factory=dict)  # largest and mean difference of the worst of `pictures` pictures, rounded up
    made: dict[str, str] = field(default_factory=dict)  # what the publisher's program did beside the method's defaults: options, `reading`
    scenes_made: dict[str, dict[str, str]] = field(default_factory=dict)  # and where it did otherwise


# ---- the manifest ------------------------------------------------------------------------------------------------------


@cache
def _manifest() -> dict[str, Published]:
    path = settings.path("manifests_path") / f"{OTHER[0]}.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        files = _files(path.with_suffix(".csv"), raw["repositories"])
        names = dict.fromkeys([*raw["methods"], *(f.method for f in files.values() if f.method)])
        return {name: _method(name, raw["methods"].get(name) or {}, files) for name in names}
    except FileNotFoundError as e:
        raise DataError(f"{e.filename} is missing: get it from the project again.") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise DataError(f"{path} or the list beside it is not as it should be ({type(e).__name__}: {' '.join(str(e).split())}).") from None


def _files(path: Path, repositories: dict) -> dict[str, PublishedFile]:
    with open(path, encoding="utf-8", newline="") as f:
        return {row["path"]: _file(row, repositories) for row in csv.DictReader(f)}


def _file(row: dict, repositories: dict) -> PublishedFile:
    alias, _, where = row["source"].partition(":")
    where, _, member = where.partition("!")
    place = repositories[alias]
    parts = PurePosixPath(row["path"]).parts
    if row["role"] not in ROLES or ".." in parts or row["path"].startswith("/") or not re.fullmatch(r"[0-9a-f]{64}", row["sha256"]):
        raise ValueError(f"row {row['path']}")
    url = f"{HOST}/{place['repo']}/{place['commit']}/{quote(where)}"
    return PublishedFile(row["path"], row["role"], row["method"], row["scene"], place["repo"], place["commit"], place["licence"],
                         url, member, int(row["bytes"]), row["sha256"], row["ir"], row["vi"], row["note"])  # fmt: skip


def _method(name: str, raw: dict, files: dict[str, PublishedFile]) -> Published:
    sets = raw.pop("weights", None) or {}
    weights = {k: WeightSet(k, tuple(files[p] for p in v["files"]), v.get("options") or {}) for k, v in sets.items()}
    fused = [f for f in files.values() if f.role == "fused" and f.method == name]
    scenes = tuple(Scene(f.scene, f, files[f.ir], files[f.vi]) for f in sorted(fused, key=lambda f: f.scene))
    return Published(name, weights, scenes, raw.pop("fused", ""), **raw)


def published_methods() -> tuple[str, ...]:
    """The names of all methods in the manifest."""
    return tuple(_manifest())


def published(method: str) -> Published:
    """What others published of a method; InputError for one that is not in the manifest."""
    if method not in _manifest():
        raise unknown("method with published files", method, _manifest())
    return _manifest()[method]


# ---- finding and fetching ----------------------------------------------------------------------------------------------


def _downloads() -> Path:
    return settings.cache_dir() / "published"


def places() -> list[Path]:
    """The folders where published files may lie, in the order in which they are tried."""
    own = settings.get("oracles")
    root = settings.data_root()
    return [*([settings.root() / Path(own).expanduser()] if own else []), *([root] if root else []), _downloads()]


def locate(file: PublishedFile, folder: str | Path | None = None) -> Path | None:
    """Where the very file lies, or None.

    Parameters
    ----------
    folder
        look only there, also for the bare name; None: at the usual places.

    Raises
    ------
    DataError
        when a file of that name is there but has other bytes.
    """
    name = PurePosixPath(file.path).name
    candidates = [Path(folder) / file.path, Path(folder) / name] if folder else [p / file.path for p in places()]
    there = [p for p in candidates if p.is_file()]
    if right := next((p for p in there if sha256(p) == file.sha256), None):
        return right
    # A download that is not what it should be is simply fetched again.
    if wrong := next((p for p in there if not p.is_relative_to(_downloads())), None):
        raise DataError(f"{wrong} is not the file that {file.repository} published (other SHA-256): get it again or take it away.")
    return None


def absent_sentence(files: Iterable[PublishedFile], what: str) -> str:
    """What is missing, from where it comes, and what to do."""
    files = list(files)
    size = sum(f.bytes for f in files) / 2**20
    origin = " and ".join(dict.fromkeys(f.repository for f in files))
    return (f"{what} need {len(files)} file{'s' * (len(files) > 1)} of github.com/{origin} ({size:.1f} MiB; {files[0].path}, …), which "
            f"{'are' if len(files) > 1 else 'is'} not here: put them under these paths into the folder of FUSIONREPRO_ORACLES, or let them be fetched")  # fmt: skip


def obtain(
    files: Iterable[PublishedFile],
    what: str,  # the plural noun of the messages, such as "the published weights of u2fusion"
    folder: str | Path | None = None,  # look only there, and fetch nothing
    fetch: bool = True,  # False: only look
    progress: bool = True,  # say what is fetched, under which licence, and show a bar
    wait: float = 0.5,  # seconds before the second attempt at a file
) -> list[Path]:
    """The files on this machine, fetched where they are absent.

    Raises
    ------
    DataError
        when a file has other bytes than it should.
    DownloadError
        when it is not here and could not be, or must not be fetched: one sentence says what is needed.
    """
    files = list(dict.fromkeys(files))
    found = {f: locate(f, folder) for f in files}
    absent = [f for f, path in found.items() if path is None]
    if absent and folder:
        raise DataError(f"{folder} lacks {absent[0].path}, one of {len(files)} files of {what}.")
    if absent and not fetch:
        raise DownloadError(f"{absent_sentence(absent, what)}.")
    if absent and progress:
        _announce(absent, what)
    with counting(f"fetching {what}", sum(f.bytes for f in absent), progress, bytes_=True) as count:
        for file in absent:
            try:
                found[file] = _fetch(file, count, wait)
            except DownloadError as e:
                raise DownloadError(f"{absent_sentence(absent, what)}; this failed now: {e}") from e
    return [found[f] for f in files]


def _announce(files: list[PublishedFile], what: str) -> None:
    from rich.console import Console

    console = Console(stderr=True)
    for repository, commit, licence in dict.fromkeys((f.repository, f.commit, f.licence) for f in files):
        chosen = [f for f in files if (f.repository, f.commit, f.licence) == (repository, commit, licence)]
        size = sum(f.bytes for f in chosen) / 2**20
        text = f"{what}: fetching {len(chosen)} files ({size:.1f} MiB) from github.com/{repository} at {commit[:8]}\n  licence: {licence}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _fetch(file: PublishedFile, count, wait: float) -> Path:
    path = _downloads() / file.path
    if not file.member:
        return fetch_file(mirrored(file.url), path, file.sha256, count=count, wait=wait, limit=file.bytes)
    archive = _downloads() / "archives" / file.repository / PurePosixPath(file.url).name
    if not archive.is_file():
        fetch_file(mirrored(file.url), archive, count=count, wait=wait)
    try:
        with zipfile.ZipFile(archive) as z:
            if z.getinfo(file.member).file_size != file.bytes:
                raise KeyError
            content = z.read(file.member)
    except (zipfile.BadZipFile, KeyError, OSError):
        archive.unlink(missing_ok=True)
        raise DownloadError(f"{file.url} is not the archive that had {file.member}; nothing was kept.") from None
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    if sha256(path) != file.sha256:
        path.unlink()
        archive.unlink()
        raise DownloadError(f"{file.member} in {file.url} has another checksum; nothing was kept.")
    return path
