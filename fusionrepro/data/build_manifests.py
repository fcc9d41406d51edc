"""Maintainer's tool: write the file lists of the manifests from a folder with the data sets.

    python -m fusionrepro.data.build_manifests SOURCE_FOLDER [NAME ...]

SOURCE_FOLDER has a folder per data set with a manifest.csv (id, ir, vi, split, sha256_ir, sha256_vi, source_ir, source_vi, seg,
seg_source, boxes, note), where a source is `owner/repo@commit:path`. Hashes are computed from the files, not copied.
"""

import csv
import io
import sys
from pathlib import Path

import yaml

from fusionrepro import settings
from fusionrepro.data.hashes import LOSSLESS, pixels_sha256
from fusionrepro.errors import DataError, FusionReproError
from fusionrepro.files import sha256, write_text

COLUMNS = ("id", "split", "role", "path", "source", "bytes", "sha256", "pixels", "note")


def build(name: str, source_folder: Path) -> str:
    """The file list of one data set as CSV text."""
    raw = yaml.safe_load((settings.path("manifests_path") / f"{name}.yaml").read_text(encoding="utf-8"))
    aliases = {f"{s['repo']}@{s['commit']}": alias for alias, s in (raw.get("sources") or {}).items()}
    label_alias = next((a for a, s in (raw.get("sources") or {}).items() if s.get("labels")), "")
    folder = source_folder / raw["folder"]
    table = folder / "manifest.csv" if (folder / "manifest.csv").is_file() else folder.parent / "manifest.csv"
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    with open(table, encoding="utf-8", newline="") as f:
        for row in csv.DictReader(f):
            if (table.parent / row["ir"]).is_relative_to(folder):
                writer.writerows(_rows(row, table.parent, folder, aliases, label_alias))
    for path in sorted(folder.glob("boxes.csv")):
        writer.writerow(_row("", "", "table", path, folder, "", ""))
    return out.getvalue()


def _rows(row: dict, base: Path, folder: Path, aliases: dict[str, str], label_alias: str):
    for role, key in (("ir", "ir"), ("vi", "vi"), ("mask", "seg")):
        if row[key]:
            given = row[f"source_{key}" if key != "seg" else "seg_source"]
            note = row["note"] if role == "ir" else ""
            yield _row(row["id"], row["split"], role, base / row[key], folder, _shorten(given, aliases, row["id"]), note)
    for name in filter(None, row["boxes"].split(";")):
        kind = Path(name).parent.name
        role = "boxes" if kind in ("fusion", "boxes") else f"boxes_{kind}"
        source = f"{label_alias}:{kind}/{row['split']}/{Path(name).name}" if label_alias else ""
        yield _row(row["id"], row["split"], role, base / name, folder, source, "")


def _shorten(source: str, aliases: dict[str, str], pair: str) -> str:
    repo, _, path = source.partition(":")
    if repo not in aliases:
        raise DataError(f"pair {pair}: {repo} is not among the sources of the manifest; add it there.")
    return f"{aliases[repo]}:{path}"


def _row(pair: str, split: str, role: str, path: Path, folder: Path, source: str, note: str) -> dict:
    pixels = pixels_sha256(path) if path.suffix.lower() in LOSSLESS else ""
    values = (pair, split, role, path.relative_to(folder).as_posix(), source, path.stat().st_size, sha256(path), pixels, note)
    return dict(zip(COLUMNS, values, strict=True))


def main(arguments: list[str]) -> int:
    """Write the lists; the exit status."""
    if not arguments:
        print(__doc__)
        return 2
    source, names = Path(arguments[0]), arguments[1:]
    try:
        for path in sorted(settings.path("manifests_path").glob("*.yaml")):
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
            if raw.get("sources") and (not names or path.stem in names):
                write_text(path.with_suffix(".csv"), build(path.stem, source))
    except FusionReproError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
