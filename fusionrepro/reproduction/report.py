"""The report: one static folder, readable offline, drawn from the ledger and from what runs have recorded."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fusionrepro import __version__, settings
from fusionrepro.files import write_text
from fusionrepro.reproduction import claims, compare
from fusionrepro.reproduction.ledger import Artifact, Paper, PaperValue, ledger, paper_values


@dataclass(frozen=True)
class Recorded:
    """A run folder as the report sees it."""

    folder: Path
    results: dict[str, Any]
    run: dict[str, Any]
    job: dict[str, Any]

    @property
    def slug(self) -> str:
        return self.results["paper"]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def profile(self) -> str:
        return self.results["profile"]

    @property
    def status(self) -> str:
        """ok, failed, running or incomplete; the batch runner knows of a notebook that broke off."""
        return "failed" if self.job.get("status") == "failed" else self.results["status"]

    @property
    def rank(self) -> tuple:
        """Larger is better: finished, of a larger profile, later."""
        names = settings.profiles()
        size = names.index(self.profile) if self.profile in names else -1
        return ({"ok": 2, "failed": 0}.get(self.status, 1), size, self.run.get("started", ""))

    def items(self, artifact: str) -> list[dict]:
        return [i for i in self.results["items"] if i["id"] == artifact]

    def artifact(self, address: str) -> dict | None:
        return next((a for a in self.results["artifacts"] if a["id"] == address), None)


# ---- reading -----------------------------------------------------------------------------------------------------------


def recorded_runs(root: Path | None = None) -> tuple[list[Recorded], list[str]]:
    """All run folders below `root`, best first, and those that cannot be read."""
    root = root or settings.path("runs_path")
    found, broken = [], []
    for path in sorted(root.glob("*/*/results.json")):
        if path.parent.parent.name not in ledger():
            continue
        results = _read(path)
        if results.get("schema") != 1 or results.get("paper") != path.parent.parent.name or not isinstance(results.get("items"), list):
            broken.append(str(path))
            continue
        found.append(Recorded(path.parent, results, _read(path.with_name("run.json")), _read(path.with_name("job.json"))))
    return sorted(found, key=lambda r: r.rank, reverse=True), broken


def failed_before_recording(root: Path | None = None) -> list[dict]:
    """Notebooks that failed before their run recorded anything."""
    root = root or settings.path("runs_path")
    jobs = [_read(p) | {"folder": str(p.parent)} for p in sorted(root.glob("*/*/job.json")) if not p.with_name("results.json").exists()]
    return [j for j in jobs if j.get("status") == "failed"]


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# ---- what the pages show -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One cell of a table on the page."""

    ours: str = ""
    paper: str = ""
    verdict: str = ""  # match, close, differs, not-comparable, open; empty: nothing to say
    why: str = ""


def table_view(artifact: Artifact, items: list[dict], printed: tuple[PaperValue, ...]) -> dict | None:
    """Head and lines of a table: ours beside the paper's; printed rows and columns that we lack stand dimmed."""
    columns = _ordered([i["column"] for i in items] + [v.column for v in printed])
    ours = {(i["data"], i["row"], i["column"]): i for i in items}
    rows = _ordered([(i["data"], i["row"]) for i in items])
    shown = {(i["row"], i["column"]) for i in items if i["printed"] is not None}
    rest = [v for v in printed if (v.row, v.column) not in shown]
    extra = [key for key in _ordered([(v.data, v.row) for v in rest]) if not _same_row(key, rows)]
    texts = {(v.row, v.column): v.text for v in printed} if len({v.data for v in printed}) <= 1 else {}
    texts |= {(v.data, v.row, v.column): v.text for v in printed}
    if not rows and not extra:
        return None

    def cell(key: tuple[str, str], column: str) -> Cell:
        item = ours.get((*key, column))
        text = (item or {}).get("printed") or texts.get((*key, column)) or texts.get((key[1], column), "")
        return _cell(artifact, item, text, column)

    lines = [{"data": key[0], "row": key[1], "own": key in rows, "cells": [cell(key, c) for c in columns]} for key in [*rows, *extra]]
    return {"columns": columns, "lines": lines, "has_data": len({line["data"] for line in lines} - {""}) > 0}


def _same_row(key: tuple[str, str], rows: list[tuple[str, str]]) -> bool:
    """Whether a printed row already stands in the table under our name of its data."""
    return any(key[1] == row for _, row in rows)


def _cell(artifact: Artifact, item: dict | None, text: str, column: str) -> Cell:
    if item is None:
        return Cell("", text, "open" if text else "", artifact.missing.get(column, "") or artifact.reason)
    return Cell(_number(item["value"], text), text, item["verdict"].replace(" ", "-"), item["why"])


def _number(value: float | None, like: str = "") -> str:
    """A number with the decimals that the paper prints, else four digits."""
    if value is None:
        return "–"
    if like and like.lstrip("↓↑-").replace(".", "", 1).isdigit():
        return f"{value:.{len(like.partition('.')[2])}f}"
    return f"{value:.4g}"


def _ordered(values: list) -> list:
    return list(dict.fromkeys(values))


def artifact_view(paper: Paper, artifact: Artifact, run: Recorded | None) -> dict:
    """Everything the page shows of one artifact."""
    entry = run.artifact(artifact.address) if run else None
    items = run.items(artifact.address) if run else []
    printed = paper_values(paper.slug).get(artifact.id, ())
    reasons: dict[str, int] = {}
    for why in (part for i in items if i["paper"] is not None and i["verdict"] == "not comparable" for part in i["why"].split("; ")):
        reasons[why] = reasons.get(why, 0) + 1
    return {
        "artifact": artifact,
        "entry": entry,
        "table": table_view(artifact, items, printed),
        "counts": compare.counts([i for i in items if i["paper"] is not None]),
        "reasons": reasons,
        "missing": artifact.missing if printed else {},
        "comparable": paper.comparable_when(artifact),
        "page": printed[0].page if printed else "",
        "files": f"{paper.slug}/{run.name}" if run else "",
    }


def paper_view(paper: Paper, run: Recorded | None, others: list[Recorded]) -> dict:
    """Everything the page of a paper shows, with one run of it."""
    views = [artifact_view(paper, a, run) for a in paper.artifacts.values()]
    done = [v for v in views if v["entry"] and v["artifact"].status == "regenerated"]
    todo = [v for v in views if v not in done]
    found = run.results["claims"] if run else []
    return {
        "paper": paper,
        "run": run,
        "others": others,
        "done": done,
        "open": todo,
        "total": len(views),
        "counts": compare.counts([i for i in run.results["items"] if i["paper"] is not None]) if run else {},
        "claims": found,
        "claim_counts": {v: [c["verdict"] for c in found].count(v) for v in claims.VERDICTS},
        "thumbnail": next((f"{v['files']}/{v['entry']['figure']}" for v in _picturesque(done)), ""),
        "record": _record(run) if run else [],
    }


def _picturesque(views: list[dict]) -> list[dict]:
    """Views with a figure; those of pictures before drawings, so that a thumbnail shows results."""
    return sorted((v for v in views if v["entry"].get("figure")), key=lambda v: not v["entry"]["data"])


def _record(run: Recorded) -> list[tuple[str, str]]:
    """What a run was made with, as lines of a list."""
    r = run.run
    seconds = r.get("seconds")
    recipe = ", ".join(f"{k} {v}" for k, v in r.get("recipe", {}).items() if k not in ("paper", "profile"))
    data = "; ".join(f"{k}: {v['pairs']} pairs, {v['fingerprint'][:12]}" for k, v in r.get("data", {}).items())
    weights = "; ".join(f"{k}: {v[:12]}" for k, v in r.get("weights", {}).items())
    versions = ", ".join(f"{k} {v}" for k, v in r.get("versions", {}).items())
    dirty = " with changes" if r.get("dirty") else ""
    lines = [
        ("run", run.name),
        ("recipe", recipe),
        ("data", data),
        ("weights, SHA-256", weights),
        ("device", f"{r.get('device_name', '')}, {r.get('threads', '?')} threads" if r else ""),
        ("time", _duration(seconds) if seconds is not None else ""),
        ("peak memory", f"{r['peak_memory_mib']} MiB" if r.get("peak_memory_mib") else ""),
        ("commit", f"{r['commit'][:12]}{dirty}" if r.get("commit") else ""),
        ("started", r.get("started", "")),
        ("versions", versions),
    ]
    return [(name, text) for name, text in lines if text]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


# ---- writing -----------------------------------------------------------------------------------------------------------


def write_report(folder: Path | None = None, root: Path | None = None) -> Path:
    """Write the report of all runs below `root` (default: runs_path) to `folder` (default: report in it); gives index.html."""
    root = root or settings.path("runs_path")
    folder = folder or root / "report"
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".report-", dir=folder.parent))
    try:
        _build(building, root)
        building.chmod(0o755)
        if folder.exists():  # the old report goes only when the new one is whole
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder / "index.html"


def _build(folder: Path, root: Path) -> None:
    runs, broken = recorded_runs(root)
    pages = _environment()
    views = []
    for paper in ledger().values():
        own = [r for r in runs if r.slug == paper.slug]
        for position, run in enumerate(own or [None]):
            view = paper_view(paper, run, own)
            name = page_name(paper.slug, run if position else None)
            write_text(folder / name, pages.get_template("paper.html").render(view, home=False))
            if position == 0:
                views.append(view)
            if run:
                _copy(run, folder / paper.slug / run.name)
    context = {"views": views, "runs": runs, "broken": broken, "lost": failed_before_recording(root), "home": True}
    write_text(folder / "index.html", pages.get_template("index.html").render(context))


def page_name(slug: str, run: Recorded | None = None) -> str:
    """The file of a paper's page, or of an older run's."""
    return f"{slug}-{run.name}.html" if run else f"{slug}.html"


def _copy(run: Recorded, target: Path) -> None:
    """The figures, tables and records that the pages link to."""
    for name in ("figures", "tables"):
        if (run.folder / name).is_dir():
            shutil.copytree(run.folder / name, target / name, ignore=shutil.ignore_patterns(".*"))
    target.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "run.json", "notebook.ipynb", "log.txt"):
        if (run.folder / name).is_file():
            shutil.copy(run.folder / name, target / name)


def _environment() -> Environment:
    folder = Path(str(files("fusionrepro.reproduction").joinpath("templates")))
    pages = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.globals |= {
        "style": (folder / "style.css").read_text(encoding="utf-8"),
        "version": __version__,
        "made": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        "page_name": page_name,
        "duration": _duration,
        "exists": lambda run, name: (run.folder / name).is_file(),
    }
    return pages
