"""Which picture belongs to which: by equal names, by a pattern of names, or by a list."""

import re
from pathlib import Path

from fusionrepro.data.rows import read_rows
from fusionrepro.errors import InputError, typed
from fusionrepro.imaging.io import list_images, match_images

__all__ = ["match_pairs"]

_LISTS = (".csv", ".tsv")
_IR = ("ir", "infrared", "thermal", "lwir", "inf", "ct", "pet", "spect", "gfp")  # what a name or a column calls the first source
_VI = ("vi", "vis", "visible", "rgb", "color", "colour", "mri", "pc")


@typed
def match_pairs(
    first: str | Path,  # folder of first sources
    second: str | Path,  # folder of second sources; with a pattern or a list it may be the same
    pairs: str | Path | None = None,  # a pattern such as "{id}_ir.* {id}_vi.*" or "IR{id} VIS{id}", or a CSV with the columns ir and vi
) -> dict[str, tuple[Path, Path]]:  # by id, sorted
    """The pairs of two folders; InputError for a picture without a partner or one that two pairs claim."""
    first, second = Path(first), Path(second)
    if pairs is None:
        try:
            return match_images(first, second)
        except InputError as e:
            if "no partner" in str(e) and (pattern := _guess(first, second)):
                raise InputError(f"{str(e).rstrip('.')}; their names fit --pairs \"{pattern}\".") from None
            raise
    if Path(pairs).suffix.lower() in _LISTS:
        return _by_list(Path(pairs), first, second)
    return _by_pattern(str(pairs), first, second)


def _by_pattern(pattern: str, first: Path, second: Path) -> dict[str, tuple[Path, Path]]:
    parts = re.split(r"\s+|(?<=\})/", pattern.strip())
    if len(parts) != 2 or any(p.count("{id}") != 1 for p in parts):
        raise InputError(f"the pattern '{pattern}' must be two names with {{id}} in each, such as \"{{id}}_ir.* {{id}}_vi.*\" or \"IR{{id}} VIS{{id}}\".")
    mine, theirs = (_matching(folder, part) for folder, part in zip((first, second), parts, strict=True))
    for name, found, folder in zip(parts, (mine, theirs), (first, second), strict=True):
        if not found:
            raise InputError(f"no picture in {folder} is named like '{name}'; look at the names there.")
    if alone := sorted((mine | theirs)[i].name for i in mine.keys() ^ theirs.keys()):
        more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        raise InputError(f"the pattern '{pattern}' finds no partner for {', '.join(alone[:3])}{more}; add it or take them away.")
    return {i: (mine[i], theirs[i]) for i in sorted(mine)}


def _matching(folder: Path, part: str) -> dict[str, Path]:
    """The pictures named like one half of a pattern, by what stands for {id}."""
    before, after = part.split("{id}")
    wild = lambda text: "".join({"*": ".*?", "?": "."}.get(c, re.escape(c)) for c in text)
    suffix = "" if "." in after else r"\.[^.]+"  # a name without a suffix stands for any
    form = re.compile(f"{wild(before)}(?P<id>.+?){wild(after)}{suffix}", re.IGNORECASE)
    found: dict[str, Path] = {}
    for path in list_images(folder):
        if match := form.fullmatch(path.name):
            if match["id"] in found:
                raise InputError(f"'{part}' fits both {found[match['id']].name} and {path.name} in {folder}; make the pattern narrower.")
            found[match["id"]] = path
    return found


def _by_list(table: Path, first: Path, second: Path) -> dict[str, tuple[Path, Path]]:
    if not table.is_file():
        raise InputError(f"there is no list of pairs {table}; check the name.")
    found: dict[str, tuple[Path, Path]] = {}
    for line, row in read_rows(table):
        names = [next((row[c] for c in columns if row.get(c)), "") for columns in (_IR, _VI)]
        if not all(names):
            raise InputError(f"{table}, line {line}: the columns ir and vi are needed, and perhaps id; found {', '.join(row)}.")
        paths = [_listed(name, (folder, table.parent, Path())) for name, folder in zip(names, (first, second), strict=True)]
        if None in paths:
            missing = names[paths.index(None)]
            raise InputError(f"{table}, line {line}: there is no {missing} in {first if paths[0] is None else second} nor beside the list.")
        key = re.sub(r"[\\/]+", "_", row.get("id") or paths[1].stem)
        if key in found:
            raise InputError(f"{table}, line {line}: the pair '{key}' is listed twice; give each an id of its own in a column id.")
        found[key] = (paths[0], paths[1])
    if not found:
        raise InputError(f"{table} lists no pair; the columns ir and vi are needed.")
    return found


def _listed(name: str, folders: tuple[Path, ...]) -> Path | None:
    """A file named in a list, whichever slashes it was written with."""
    return next((p for folder in folders for n in (name, name.replace("\\", "/")) if (p := folder / n).is_file()), None)


def _guess(first: Path, second: Path) -> str:
    """A pattern by which every picture of both folders has a partner; empty where there is none.

    The names are cut where those of one folder differ: `IR1`, `IR2` beside `VIS1`, `VIS2` give `IR{id} VIS{id}`.
    """
    stems = [[p.stem for p in _of_side(folder, side, first == second)] for folder, side in ((first, _IR), (second, _VI))]
    parts = []
    for names in stems:
        if not names:
            return ""
        parts.append(_around(names))
    pattern = f"{parts[0]} {parts[1]}"
    try:
        return pattern if parts[0] != parts[1] and _by_pattern(pattern, first, second) else ""
    except InputError:
        return ""


def _of_side(folder: Path, side: tuple[str, ...], mixed: bool) -> list[Path]:
    """The pictures of a folder, or where both sources lie in it those whose names say the side."""
    images = list_images(folder)
    words = re.compile(rf"(?<![a-z])({'|'.join(side)})(?![a-z])", re.IGNORECASE)
    return [p for p in images if words.search(p.stem)] if mixed else images


def _around(names: list[str]) -> str:
    """What all names begin and end with, without digits, around {id}."""
    if len(names) == 1:
        cut = re.search(r"\d+", names[0])
        return f"{names[0][: cut.start()]}{{id}}{names[0][cut.end() :]}" if cut else f"{names[0]}{{id}}"
    begin = re.sub(r"\d+$", "", _common(names))
    end = re.sub(r"^\d+", "", _common([n[len(begin) :][::-1] for n in names])[::-1])
    return f"{begin}{{id}}{end}"


def _common(names: list[str]) -> str:
    short, long = min(names), max(names)
    return short[: next((i for i, c in enumerate(short) if i >= len(long) or c != long[i]), len(short))]
