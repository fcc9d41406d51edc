"""Data sets by name: what they are, where they lie, and what to do when they are not there.

`data_manifests/<name>.yaml` describes a data set; `<name>.csv` beside it lists the files whose address is known.
A data set is looked for under the data root, then among the downloads. What lies there may be the listed files,
or a larger copy of the set in one of the layouts of the manifest, or any two folders named like a pair of sources.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import quote

import numpy as np
import yaml

from fusionrepro import settings
from fusionrepro.data.pairing import match_pairs
from fusionrepro.data.pairs import Pair, PairDataset, PairFiles, check_box, pair_files
from fusionrepro.data.rows import read_rows
from fusionrepro.errors import DataError, InputError, typed, unknown
from fusionrepro.imaging.io import READ_SUFFIXES

__all__ = ["File", "Layout", "Manifest", "Status", "datasets", "load_manifest", "load_dataset", "folder_dataset", "locate", "places", "status"]

HOST = "https://raw.githubusercontent.com"
OTHER = ("baselines",)  # manifests beside those of data sets: see `published`
ROLES = ("ir", "vi", "mask", "boxes", "boxes_infrared", "boxes_visible", "table")
SIDES = (  # names of the two folders of a pair, lower case
    ("ir", "vi"), ("infrared", "visible"), ("ir", "vis"), ("ir", "visible"), ("thermal", "visible"), ("lwir", "visible"),
    ("ir", "color"), ("ir", "rgb"), ("inf", "vis"), ("ct", "mri"), ("pet", "mri"), ("spect", "mri"), ("gfp", "pc"),
)  # fmt: skip
_FIRST_SEED = {"test": 0, "train": 10_000, "val": 20_000}  # of procedural sets: splits never share a scene
_PROCEDURAL_PAIRS = 16
_PHANTOMS = ("mri_ct", "mri_pet", "mri_spect", "gfp")


@dataclass(frozen=True)
class File:
    """A file of a data set, as one row of the list beside the manifest."""

    id: str  # of the pair; empty for a file that belongs to all
    split: str
    role: str  # one of ROLES
    path: str  # below the folder of the data set
    url: str  # empty: no address is known
    bytes: int  # of the copy that `sha256` belongs to
    sha256: str  # of the bytes
    pixels: str  # hash of the decoded picture; empty for JPEG and text
    note: str = ""

    @property
    def saved_as(self) -> str:
        """`path` with the suffix that the file has at its address: a BMP is never called .png."""
        return str(Path(self.path).with_suffix(Path(self.url).suffix)) if self.url else self.path

    def find(self, folder: Path) -> Path | None:
        """Where the file lies under `folder`, or None."""
        return next((p for p in (folder / self.path, folder / self.saved_as) if p.is_file()), None)


@dataclass(frozen=True)
class Layout:
    """How a split lies on disk: folders below the one of the data set; `*` and `[0-5]` match as in a shell.

    Where `ir` and `vi` are the same folder, the files have four channels and the thermal image is the last.
    """

    ir: str
    vi: str
    mask: str = ""  # folder of label pictures of the same stems
    boxes: str = ""  # folder of YOLO files of the same stems
    listed: str = ""  # text file with one stem a line


@dataclass(frozen=True)
class Manifest:
    """What is known about a data set."""

    name: str
    title: str
    what: str
    licence: str
    citation: str
    homepage: str
    folder: str  # below the data root
    splits: dict[str, str]  # name: what is in it
    sources: dict[str, dict] = field(default_factory=dict)  # alias: repo, commit and licence of a public copy
    files: tuple[File, ...] = ()
    layouts: dict[str, tuple[Layout, ...]] = field(default_factory=dict)  # split: how a complete copy lies
    by_hand: str = ""  # what to fetch where, and where to put it
    used: dict[str, str] = field(default_factory=dict)  # paper: how it used the set
    notes: str = ""
    classes: tuple[str, ...] = ()
    binary_masks: bool = False
    whole: dict[str, int] = field(default_factory=dict)  # split -> its pairs where the set is complete
    boxes_table: str = ""  # the annotation to take from a table of boxes

    @property
    def default_split(self) -> str:
        """`test` where there is one, otherwise the first."""
        return "test" if "test" in self.splits else next(iter(self.splits))

    def pairs(self, split: str = "") -> int:
        """How many pairs are listed, in one split or in all."""
        return len({f.id for f in self.files if f.role == "ir" and split in ("", f.split)})

    @property
    def download_size(self) -> int:
        """Bytes of all files with an address; a little off where the address has another format than our copy."""
        return sum(f.bytes for f in self.files if f.url)

    @property
    def known_pixels(self) -> dict[str, str]:
        """Byte hash to pixel hash of all listed pictures."""
        return {f.sha256: f.pixels for f in self.files if f.pixels}


@dataclass(frozen=True)
class Status:
    """A line of `fusionrepro data list`."""

    name: str
    title: str
    pairs: int  # that are there, or that are listed; 0: not known before the set is there
    where: str  # folder it was found in, or empty
    licence: str
    state: str  # built in, ready, incomplete, download or by hand


# ---- reading manifests ------------------------------------------------------------------------------------------------


@cache
def datasets() -> tuple[str, ...]:
    """The names of all data sets: the procedural ones first, then those with a manifest."""
    return (*_procedural_names(), *sorted(p.stem for p in settings.path("manifests_path").glob("*.yaml") if p.stem not in OTHER))


def _procedural_names() -> tuple[str, ...]:
    return ("scenes", "phantoms", *(f"phantoms_{kind}" for kind in _PHANTOMS))


@cache
def load_manifest(name: str) -> Manifest:
    """The manifest of that name.

    Raises
    ------
    InputError
        for an unknown name, or one of a procedural set.
    DataError
        when the manifest itself is not as it should be, naming the field or the line.
    """
    if not isinstance(name, str):
        raise InputError(f"the name of a data set must be text, not {type(name).__name__}.")
    if name != name.lower():
        return load_manifest(name.lower())
    if name in _procedural_names():
        raise InputError(f"'{name}' is made by the program: there is nothing to fetch or to verify.")
    path = settings.path("manifests_path") / f"{name}.yaml"
    if not re.fullmatch(r"[a-z0-9_]+", name) or name in OTHER or not path.is_file():
        raise unknown("data set", name, datasets())
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise DataError(f"{path} is no valid YAML: {' '.join(str(e).split())}.") from None
    if not isinstance(raw, dict):
        raise DataError(f"{path} must be a mapping with title, licence, …")
    for key in ("title", "what", "licence", "citation", "homepage", "folder", "splits"):
        if not raw.get(key):
            raise DataError(f"{path}: the field '{key}' is missing.")
    known = set(Manifest.__dataclass_fields__) - {"name", "files"}
    if extra := set(raw) - known:
        raise DataError(f"{path}: unknown field '{sorted(extra)[0]}'; known are {', '.join(sorted(known))}.")
    if not isinstance(raw["splits"], dict):
        raise DataError(f"{path}: 'splits' must map each split to what is in it.")
    sources = raw.setdefault("sources", {})
    layouts = raw.pop("layouts", None) or {}
    try:
        raw["layouts"] = {s: tuple(Layout(**d) for d in (v if isinstance(v, list) else [v])) for s, v in layouts.items()}
    except TypeError as e:
        raise DataError(f"{path}: a layout is wrong: {e}.") from None
    raw["classes"] = tuple(raw.get("classes") or ())
    texts = {k: " ".join(v.split()) if k != "by_hand" else v.strip() for k, v in raw.items() if isinstance(v, str)}
    return Manifest(name=name, files=_read_files(path.with_suffix(".csv"), sources), **(raw | texts))


def _read_files(path: Path, sources: dict) -> tuple[File, ...]:
    """The rows of a file list; a source is `alias:path` with the alias from the manifest."""
    if not path.is_file():
        return ()
    files = []
    for line, row in read_rows(path):
        try:
            files.append(_file(row, sources))
        except (KeyError, ValueError, TypeError, AttributeError) as e:
            raise DataError(f"{path}, line {line}: not a file of a data set ({type(e).__name__}: {e}).") from None
    return tuple(files)


def _file(row: dict, sources: dict) -> File:
    if row["role"] not in ROLES:
        raise ValueError(f"role '{row['role']}'")
    parts = Path(row["path"]).parts
    if not parts or ".." in parts or Path(row["path"]).is_absolute():
        raise ValueError(f"path '{row['path']}' leaves the folder of the data set")
    for key in ("sha256", "pixels"):
        if row[key] and not re.fullmatch(r"[0-9a-f]{64}", row[key]):
            raise ValueError(f"{key} '{row[key]}'")
    url = ""
    if row["source"]:
        alias, _, where = row["source"].partition(":")
        url = f"{HOST}/{sources[alias]['repo']}/{sources[alias]['commit']}/{quote(where)}"
    return File(row["id"], row["split"], row["role"], row["path"], url, int(row["bytes"]), row["sha256"], row["pixels"], row["note"])


# ---- finding data sets ------------------------------------------------------------------------------------------------


@typed
def places(manifest: Manifest, data_root: str | Path | None = None) -> list[Path]:
    """The folders where a data set may lie, in the order in which they are tried."""
    root = settings.data_root(data_root)
    return [*([root / manifest.folder] if root else []), settings.cache_dir() / "data" / manifest.folder]


@typed
def locate(name: str, data_root: str | Path | None = None) -> Path | None:
    """The first folder that holds something of the data set, or None."""
    return next((p for p in places(load_manifest(name), data_root) if p.is_dir() and any(p.iterdir())), None)


@typed
def load_dataset(
    name_or_folder: str | Path,  # a name of `datasets()`, or a folder with two subfolders such as ir and vi
    split: str = "",  # empty: `test` where there is one; `all`: every split
    data_root: str | Path | None = None,  # None: FUSIONREPRO_DATA or settings.ini
    limit: int = 0,  # the first n pairs by id; 0: all (16 of a procedural set)
    *,
    memory: bool = False,  # keep every pair that was read
    boxes: str = "",  # whose annotation where there are several: infrared or visible
    pairs: str | Path = "",  # of a folder: a pattern of names such as "{id}_ir.* {id}_vi.*", or a CSV, see `pairing.match_pairs`
) -> Sequence[Pair]:
    """A data set by its name or its folder.

    Raises
    ------
    InputError
        for an unknown name, split or annotation.
    DataError
        when files are not there, saying which command or folder mends it.
    """
    if limit < 0:
        raise InputError(f"limit must be 0 (all) or more, not {limit}.")
    if pairs:
        return PairDataset(_paired(Path(name_or_folder), pairs), Path(name_or_folder).resolve().name, memory).take(limit)
    name = str(name_or_folder)
    if not Path(name).is_dir() and name.lower() in datasets():
        name = name.lower()
    if name in _procedural_names():
        return _procedural(name, split or "test", limit)
    if name in datasets():
        manifest = load_manifest(name)
        found, known = _find(manifest, split or manifest.default_split, data_root, limit, boxes)
        data = PairDataset(found, name, memory, manifest.classes, known)
    elif Path(name).is_dir():
        data = folder_dataset(name, split, memory=memory)
    elif "/" in name or "\\" in name or isinstance(name_or_folder, Path):
        raise DataError(f"{name} is no folder; give a data set's name or a folder with two subfolders such as ir and vi.")
    else:
        raise unknown("data set", name, datasets())
    return data.take(limit)


def _procedural(name: str, split: str, limit: int) -> Sequence[Pair]:
    if split not in _FIRST_SEED:
        raise unknown(f"split of {name}", split, _FIRST_SEED)
    n, seed = limit or _PROCEDURAL_PAIRS, _FIRST_SEED[split]
    if name == "scenes":
        from fusionrepro.data.scenes import scene_dataset

        return scene_dataset(n, seed=seed)
    from fusionrepro.data.phantoms import phantom_dataset

    return phantom_dataset(name.removeprefix("phantoms").lstrip("_") or "mri_ct", n, seed=seed)


def _find(manifest: Manifest, split: str, data_root, limit: int, boxes: str) -> tuple[list[PairFiles], dict[str, str]]:
    """The pairs of a split from the first place that has them, and what spares hashing."""
    splits = list(manifest.splits) if split == "all" else [split]
    if split not in (*manifest.splits, "all"):
        raise unknown(f"split of {manifest.name}", split, (*manifest.splits, "all"))
    incomplete = None
    for folder in places(manifest, data_root):
        try:
            found = {f.id: f for s in splits for f in _find_split(manifest, s, folder, limit, boxes)}
        except DataError as e:  # another place may have a complete copy
            incomplete = incomplete or e
            continue
        if found:
            return [found[i] for i in sorted(found)], manifest.known_pixels
    raise incomplete or DataError(_absent(manifest, split, data_root))


def _find_split(manifest: Manifest, split: str, folder: Path, limit: int, boxes: str) -> list[PairFiles]:
    """A split in one folder: a complete copy, the listed files, or a plain pair of folders."""
    if found := [f for layout in manifest.layouts.get(split, ()) for f in _by_layout(layout, folder, manifest, split)]:
        return found
    if found := _listed(manifest, split, folder, limit, boxes):
        return found
    return _plain(folder, split, manifest)


def find_pairs(manifest: Manifest, split: str, folder: Path) -> list[PairFiles]:
    """The pairs of a split that lie below `folder`; none where they are incomplete."""
    try:
        return _find_split(manifest, split, folder, 0, "")
    except DataError:
        return []


def _listed(manifest: Manifest, split: str, folder: Path, limit: int, boxes: str) -> list[PairFiles]:
    """The listed pairs of a split; an incomplete copy is an error, none at all is an empty list."""
    rows: dict[str, dict[str, File]] = {}
    for f in manifest.files:
        if f.split == split and f.id:
            rows.setdefault(f.id, {})[f.role] = f
    role = f"boxes_{boxes}" if boxes else "boxes"
    annotations = {r for files in rows.values() for r in files if r.startswith("boxes")}
    if boxes and role not in annotations:
        raise unknown(f"annotation of {manifest.name}", boxes, (r.removeprefix("boxes_") for r in annotations - {"boxes"}))
    ids = sorted(rows)[: limit or None]
    paths = {i: {r: f.find(folder) for r, f in rows[i].items()} for i in ids}
    missing = [rows[i][r].path for i in ids for r in ("ir", "vi") if paths[i][r] is None]
    if len(missing) == 2 * len(ids):
        return []
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise DataError(f"{manifest.name}: {folder} lacks {shown}; run `fusionrepro data get {manifest.name}` or add them there.")
    table = _boxes_table(manifest, folder, ids, boxes)
    return [
        PairFiles(i, paths[i]["ir"], paths[i]["vi"], table.get(i) if table else paths[i].get(role), paths[i].get("mask"),
                  manifest.binary_masks, {"dataset": manifest.name, "split": split, "note": rows[i]["ir"].note})
        for i in ids
    ]  # fmt: skip


def _boxes_table(manifest: Manifest, folder: Path, ids: list[str], boxes: str) -> dict[str, np.ndarray]:
    """Boxes of a set that keeps them in one table: id, annotated_on, class, cx, cy, w, h."""
    path = next((p for f in manifest.files if f.role == "table" and (p := f.find(folder))), None)
    if path is None:
        return {}
    wanted, found = boxes or manifest.boxes_table, {i: [] for i in ids}
    for line, row in read_rows(path):
        try:
            if row["annotated_on"] != wanted or row["id"] not in found:
                continue
            box = [float(row[k].replace(",", ".")) for k in ("class", "cx", "cy", "w", "h")]
        except (KeyError, ValueError, TypeError):
            raise DataError(f"{path}, line {line}: expected id, annotated_on, class, cx, cy, w, h; get the file again.") from None
        if wrong := check_box(box, len(manifest.classes)):
            raise DataError(f"{path}, line {line}: {wrong}.")
        found[row["id"]].append(box)
    return {i: np.array(rows, np.float32).reshape(-1, 5) for i, rows in found.items()}


def _by_layout(layout: Layout, folder: Path, manifest: Manifest, split: str) -> Iterator[PairFiles]:
    """The pairs of a complete copy."""
    wild = re.compile(r"[*?\[]")
    meta = {"dataset": manifest.name, "split": split, "note": ""}
    for ir_dir in sorted(p for p in folder.glob(layout.ir) if p.is_dir()):
        parts = zip(layout.ir.split("/"), ir_dir.relative_to(folder).parts, strict=True)
        matched = [name for part, name in parts if wild.search(part)]
        names = iter(matched)
        vi_dir = folder / "/".join(next(names) if wild.search(part) else part for part in layout.vi.split("/"))
        prefix = "".join(f"{name}_" for name in matched)
        if not vi_dir.is_dir():
            raise DataError(f"{ir_dir} is there, but its partner {vi_dir} is not; copy both.")
        stems = _stems(folder / layout.listed) if layout.listed else None
        for files in pair_files(ir_dir, vi_dir, prefix):
            stem = files.ir.stem
            if stems is None or stem in stems:
                yield PairFiles(files.id, files.ir, files.vi, _label(folder, layout.boxes, stem, ".txt"),
                                _label(folder, layout.mask, stem, ".png"), manifest.binary_masks, meta)  # fmt: skip


def _label(folder: Path, labels: str, stem: str, suffix: str) -> Path | None:
    path = folder / labels / f"{stem}{suffix}"
    return path if labels and path.is_file() else None


def _stems(path: Path) -> set[str]:
    if not path.is_file():
        raise DataError(f"{path} is missing: the file lists which pictures belong to the split; copy it from the data set.")
    return {line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()}


def _sides(folder: Path) -> tuple[Path, Path] | None:
    """The two folders of a pair of sources, whatever the case of their names."""
    inside = {p.name.lower(): p for p in folder.iterdir() if p.is_dir()} if folder.is_dir() else {}
    return next(((inside[a], inside[b]) for a, b in SIDES if a in inside and b in inside), None)


def _plain(folder: Path, split: str, manifest: Manifest) -> list[PairFiles]:
    """`folder/split/{ir,vi}`, or `folder/{ir,vi}` for the default split of a set."""
    sides = _sides(folder / split) or (_sides(folder) if split == manifest.default_split else None)
    if sides is None or not any(_holds_images(side) for side in sides):  # a download that broke off leaves bare folders
        return []
    meta = {"dataset": manifest.name, "split": split, "note": ""}
    return [PairFiles(f.id, f.ir, f.vi, meta=meta) for f in pair_files(*sides)]


def _holds_images(folder: Path) -> bool:
    return any(p.suffix.lower() in READ_SUFFIXES and not p.name.startswith(".") for p in folder.iterdir())


def _absent(manifest: Manifest, split: str, data_root) -> str:
    """One sentence about a data set that is nowhere."""
    looked = " and ".join(str(p) for p in places(manifest, data_root))
    if any(f.url and split in (f.split, "all") for f in manifest.files):
        return (f"{manifest.name} ({split}) is not there (looked in {looked}): run `fusionrepro data get {manifest.name}`, "
                f"or set FUSIONREPRO_DATA to a folder that has {manifest.folder}.")  # fmt: skip
    return (f"{manifest.name} ({split}) is not there (looked in {looked}) and must be fetched by hand from {manifest.homepage}: "
            f"`fusionrepro data get {manifest.name}` says how.")  # fmt: skip


def _paired(folder: Path, pairs: str | Path) -> list[PairFiles]:
    """The pairs of a folder, or of its two subfolders, by a pattern of names or a list."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; pairs by a pattern or a list are looked for in one.")
    sides = _sides(folder) or (folder, folder)
    return [PairFiles(i, ir, vi, meta={"dataset": folder.resolve().name, "split": "", "note": ""}) for i, (ir, vi) in match_pairs(*sides, pairs).items()]


# ---- folders -----------------------------------------------------------------------------------------------------------


@typed
def folder_dataset(
    folder: str | Path,  # has two subfolders such as ir and vi; or a manifest.csv; or a folder per split
    split: str = "",  # empty: all, or `test` where the folder has splits
    memory: bool = False,  # keep every pair that was read
) -> PairDataset:
    """A data set that is described by its folder alone; InputError or DataError when it is not one."""
    folder = Path(folder)
    if (folder / "manifest.csv").is_file():
        return PairDataset(_by_table(folder, split), folder.resolve().name, memory)
    split_folder = folder / (split or "test")
    sides = _sides(folder) if not split else None
    sides = sides or _sides(split_folder)
    if sides is None:
        names = ", ".join(f"{a}+{b}" for a, b in SIDES)
        raise DataError(f"{folder} has no two subfolders that make pairs{f' of the split {split}' if split else ''}; name them as one of {names}.")
    return PairDataset(pair_files(*sides), folder.resolve().name, memory)


def _by_table(folder: Path, split: str) -> list[PairFiles]:
    """The pairs of a folder with a manifest.csv: columns id, ir, vi, and perhaps split, seg, boxes, note."""
    table, found, splits = folder / "manifest.csv", [], set()
    for line, row in read_rows(table):
        if not all(row.get(k) for k in ("id", "ir", "vi")):
            raise DataError(f"{table}, line {line}: the columns id, ir and vi are needed; found {', '.join(k for k, v in row.items() if v)}.")
        splits.add(row.get("split") or "")
        if split in ("", "all", row.get("split")):
            found.append(_table_row(folder, row, f"{table}, line {line}"))
    if not found:
        raise unknown(f"split of {folder}", split, splits) if splits else DataError(f"{table} lists no pair.")
    return sorted(found, key=lambda f: f.id)


def _table_row(folder: Path, row: dict, where: str) -> PairFiles:
    boxes = [b for b in (row.get("boxes") or "").split(";") if b]
    names = {"ir": row["ir"], "vi": row["vi"], "mask": row.get("seg") or "", "boxes": boxes[-1] if boxes else ""}
    paths = {role: _below(folder, name) if name else None for role, name in names.items()}
    for path in paths.values():
        if path is not None and not path.is_file():
            raise DataError(f"{where}: {path} is missing.")
    binary = "binary" in (row.get("seg_kind") or "")
    meta = {"dataset": folder.resolve().name, "split": row.get("split") or "", "note": row.get("note") or ""}
    return PairFiles(row["id"], paths["ir"], paths["vi"], paths["boxes"], paths["mask"], binary, meta)


def _below(folder: Path, name: str) -> Path:
    """A file of a table, whichever slashes it was written with."""
    path = folder / name
    return path if path.is_file() or "\\" not in name else folder / name.replace("\\", "/")


# ---- overview ----------------------------------------------------------------------------------------------------------


@typed
def status(name: str, data_root: str | Path | None = None) -> Status:
    """What is there of a data set, without reading a picture."""
    if name in _procedural_names():
        title = "Procedural road scenes" if name == "scenes" else "Procedural phantoms: " + (name.partition("_")[2] or "mri_ct")
        return Status(name, title, _PROCEDURAL_PAIRS, "", "MIT, part of this project", "built in")
    manifest, folder = load_manifest(name), locate(name, data_root)
    listed = [f for f in manifest.files if f.role in ("ir", "vi")]
    pairs = manifest.pairs()
    if folder is None:
        state = "download" if any(f.url for f in listed) else "by hand"
    else:
        try:
            pairs = len(_find(manifest, "all", data_root, 0, "")[0])
            here = [f for f in listed if f.find(folder)]
            state = "ready" if len(here) in (0, len(listed)) else "incomplete"
        except (DataError, InputError):
            state = "incomplete"
    return Status(name, manifest.title, pairs, str(folder or ""), manifest.licence, state)
