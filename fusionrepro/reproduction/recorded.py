"""What runs have left behind: their folders under runs_path, and the runs that are kept with the repository as numbers.

A kept run is a folder `results/recorded/<paper>/` with the run's `run.json` (facts), its `results.json` (artifacts, claims, notes), its
`tables/*.csv`, and `cells.csv`: every cell of every table with the paper's number, the verdict and its reason. No pictures.
"""

import csv
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionrepro import settings
from fusionrepro.errors import DataError, InputError
from fusionrepro.files import write_text
from fusionrepro.reproduction import compare
from fusionrepro.reproduction.ledger import Artifact, Paper, PaperValue, ledger, paper_values

COMPARED = tuple(v for v in compare.VERDICTS if v != "not comparable")
NOT_PRINTED = "the paper prints no number here"
_CELL = ("id", "data", "row", "column", "value", "n", "paper", "printed", "page", "difference", "tolerance", "verdict", "why", "provenance")
_NUMBERS = {"value": float, "n": int, "paper": float, "difference": float, "tolerance": float}


@dataclass(frozen=True)
class Recorded:
    """A run as the report sees it: its folder, results.json, run.json and what the batch runner noted."""

    folder: Path
    results: dict[str, Any]
    run: dict[str, Any]
    job: dict[str, Any]

    @property
    def slug(self) -> str:
        return self.results["paper"]

    @property
    def name(self) -> str:
        return self.results["run"] if self.kept else self.folder.name

    @property
    def profile(self) -> str:
        return self.results["profile"]

    @property
    def kept(self) -> bool:
        """Whether it comes with the repository."""
        return self.folder.parent.name == "recorded"

    @property
    def status(self) -> str:
        """ok, failed, running or incomplete; the batch runner knows of a notebook that broke off."""
        return "failed" if self.job.get("status") == "failed" else self.results["status"]

    @property
    def size(self) -> int:
        """Place of the profile among smoke, laptop, gpu, paper; -1 for one that is no longer known."""
        names = settings.profiles()
        return names.index(self.profile) if self.profile in names else -1

    @property
    def rank(self) -> tuple:
        """Larger is better: finished, of a larger profile, later."""
        return ({"ok": 2, "failed": 0}.get(self.status, 1), self.size, str(self.run.get("started", "")))

    def items(self, artifact: str) -> list[dict]:
        return [i for i in self.results["items"] if i["id"] == artifact]

    def artifact(self, address: str) -> dict | None:
        return next((a for a in self.results["artifacts"] if a["id"] == address), None)


# ---- run folders -------------------------------------------------------------------------------------------------------


def recorded_runs(root: Path | None = None) -> tuple[list[Recorded], list[str]]:
    """All run folders below `root` in the order of their names, and the results that cannot be read."""
    root = root or settings.path("runs_path")
    found, broken = [], []
    for path in sorted(root.glob("*/*/results.json")):
        if path.parent.parent.name not in ledger():
            continue
        results = read_json(path)
        if results.get("schema") != 1 or results.get("paper") != path.parent.parent.name or not isinstance(results.get("items"), list):
            broken.append(str(path))
            continue
        found.append(Recorded(path.parent, results, read_json(path.with_name("run.json")), read_json(path.with_name("job.json"))))
    return found, broken


def failed_before_recording(root: Path | None = None) -> list[dict]:
    """Notebooks that failed before their run recorded anything."""
    root = root or settings.path("runs_path")
    jobs = [read_json(p) | {"folder": str(p.parent)} for p in sorted(root.glob("*/*/job.json")) if not p.with_name("results.json").exists()]
    return [j for j in jobs if j.get("status") == "failed"]


def read_json(path: Path) -> dict:
    """The object in a JSON file; empty where there is none to read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def reasons(item: dict) -> list[str]:
    """Why a cell is not comparable, one reason each; none where it is compared."""
    if item["verdict"] != "not comparable":
        return []
    return [r for r in item.get("reasons") or item["why"].split("; ") if r and r != NOT_PRINTED]


# ---- kept runs ---------------------------------------------------------------------------------------------------------


def kept_folder(slug: str) -> Path:
    return settings.path("results_path") / "recorded" / slug


def keep(run_folder: Path) -> Path:
    """Keep a finished run of a paper as numbers, in place of the one kept before; gives the folder."""
    results, run = read_json(run_folder / "results.json"), read_json(run_folder / "run.json")
    if results.get("status") != "ok" or not run:
        raise InputError(f"{run_folder} is no finished run; run `fusionrepro run {results.get('paper', 'PAPER')}` to its end.")
    if results["profile"] == "smoke":
        raise InputError(f"{run_folder} is a smoke run: its numbers show that the machine works and nothing else; keep a laptop run or a larger one.")
    pictureless = [{k: v for k, v in a.items() if k != "figure"} for a in results["artifacts"]]
    rest = {k: v for k, v in results.items() if k != "items"} | {"artifacts": pictureless}
    target = kept_folder(results["paper"])
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".keep-", dir=target.parent))
    try:
        building.chmod(0o755)
        for name, content in (("run", run), ("results", rest)):
            write_text(building / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        _write_cells(building / "cells.csv", results["items"])
        if (run_folder / "tables").is_dir():
            shutil.copytree(run_folder / "tables", building / "tables", ignore=shutil.ignore_patterns(".*"))
        shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _write_cells(path: Path, items: Sequence[dict]) -> None:
    """Cells one a line; `repr` of a float is read back as the same float, None is empty."""
    with open(path, "w", encoding="utf-8", newline="") as f:
        lines = csv.DictWriter(f, _CELL, extrasaction="ignore", restval="", lineterminator="\n")
        lines.writeheader()
        lines.writerows(items)


def kept_runs() -> dict[str, Recorded]:
    """The kept run of every paper that has one, by slug."""
    return {slug: run for slug in ledger() if (run := kept_run(slug))}


def kept_run(slug: str) -> Recorded | None:
    """The kept run of a paper; None without one, DataError when its files do not go together."""
    folder = kept_folder(slug)
    if not folder.is_dir():
        return None
    run, results = read_json(folder / "run.json"), read_json(folder / "results.json")
    try:
        with open(folder / "cells.csv", encoding="utf-8", newline="") as f:
            items = [_cell(line) for line in csv.DictReader(f)]
    except (OSError, LookupError, ValueError):
        items = []
    if not (run and results and items):
        raise DataError(f"{folder} cannot be read as a kept run; keep the run anew (python -m fusionrepro.reproduction.ship) or remove the folder.")
    return Recorded(folder, results | {"items": items}, run, {})


def _cell(line: dict[str, str]) -> dict[str, Any]:
    return line | {k: kind(line[k]) if line[k] else None for k, kind in _NUMBERS.items()} | {"printed": line["printed"] or None}


def stale(run: Recorded) -> list[str]:
    """What of a kept run no longer agrees with the ledger or the transcription of the paper, one sentence each."""
    known = {a.address: a for a in ledger()[run.slug].artifacts.values()}
    printed = {(f"{run.slug}/{name}", v.row, v.column, v.text) for name, cells in paper_values(run.slug).items() for v in cells}
    items = run.results["items"]
    lost = sorted({i["id"] for i in items} - set(known))
    changed = [i for i in items if i["printed"] is not None and (i["id"], i["row"], i["column"], i["printed"]) not in printed]
    found = [f"{run.slug}: the ledger has no {address}" for address in lost]
    return found + [f"{i['id']}: the paper's {i['row']}, {i['column']} is no longer {i['printed']}" for i in changed]


# ---- every printed number ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """One printed number and what a run says of it."""

    value: PaperValue
    verdict: str  # of compare.VERDICTS
    reasons: tuple[str, ...]  # why it is not comparable


def ours_named(paper: Paper, artifact: Artifact, data: str) -> str:
    """Our name of a data set that the paper names (empty: its only one); the paper's name where we do not have the set."""
    name = data or (artifact.data[0] if len(artifact.data) == 1 else "")
    return (paper.sets[name].set or name) if name in paper.sets else name


def same_place(paper: Paper, artifact: Artifact, item: dict, value: PaperValue) -> bool:
    """Whether a cell of ours stands for a printed number: same row and column, and the same data or a comparison all the same."""
    if (item["row"], item["column"]) != (value.row, value.column):
        return False
    same_data = ours_named(paper, artifact, value.data) in (item["data"], ours_named(paper, artifact, item["data"]))
    return same_data or (item["verdict"] in COMPARED and item["printed"] == value.text)


def judged(paper: Paper, run: Recorded) -> list[Judged]:
    """Every number that the paper prints, with the verdict of a run: what the run has not made is not comparable."""
    out = []
    for name, values in paper_values(paper.slug).items():
        artifact = paper.artifact(name)
        items = run.items(artifact.address)
        out += [_judged(paper, artifact, items, v) for v in values if v.number is not None]
    return out


def _judged(paper: Paper, artifact: Artifact, items: list[dict], value: PaperValue) -> Judged:
    found = [i for i in items if same_place(paper, artifact, i, value)]
    if found:
        best = min(found, key=lambda i: compare.VERDICTS.index(i["verdict"]))
        return Judged(value, best["verdict"], tuple(reasons(best)))
    elsewhere = next((i for i in items if i["printed"] == value.text and (i["row"], i["column"]) == (value.row, value.column)), None)
    why = reasons(elsewhere) if elsewhere else [_absent(artifact, items, value)]
    return Judged(value, "not comparable", tuple(why))


def _absent(artifact: Artifact, items: list[dict], value: PaperValue) -> str:
    """Why nothing of ours stands beside a printed number."""
    if artifact.reason or value.column in artifact.missing:
        return artifact.reason or artifact.missing[value.column]
    if not any(i["row"] == value.row for i in items):
        return "the paper's row is not built here"
    return "the run has no such column" if not any(i["column"] == value.column for i in items) else "the run did not use the paper's data"


def commonest_reason(found: Sequence[Judged]) -> str:
    """The reason that keeps most numbers from being compared; empty when all are."""
    counted = Counter(r for j in found for r in j.reasons)
    return counted.most_common(1)[0][0] if counted else ""
