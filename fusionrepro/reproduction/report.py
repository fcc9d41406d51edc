"""The report: one static folder, readable offline, drawn from the ledger and from what runs have recorded."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from PIL import Image

from fusionrepro import __version__, settings
from fusionrepro.errors import FusionReproError
from fusionrepro.files import write_text
from fusionrepro.reproduction import claims, compare
from fusionrepro.reproduction.ledger import Artifact, Paper, PaperValue, ledger, paper_values
from fusionrepro.reproduction.recorded import (
    COMPARED,
    Recorded,
    failed_before_recording,
    kept_folder,
    kept_run,
    ours_named,
    reasons,
    recorded_runs,
    same_place,
)
from fusionrepro.reproduction.run import paper_recipe

# What a record that is no longer whole, or of another age, makes of the code that reads it.
_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, OSError, TemplateError, FusionReproError)
_NO_RECIPE = ("paper", "profile", "seed")  # fields of a recipe that say nothing about how much is trained


# ---- tables ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One cell of a table on the page."""

    ours: str = ""
    paper: str = ""
    verdict: str = ""  # match, close, differs, not-comparable, open; empty: nothing to say
    difference: str = ""  # to the paper's number, in percent, where the two are compared
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Line:
    """One row of a table on the page."""

    data: str
    row: str
    provenance: str  # what the row is
    own: bool  # whether the run made it
    starts: bool  # whether another data set begins here
    cells: tuple[Cell, ...]
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Note:
    """A reason below a table, given once; cells, rows and columns refer to its number."""

    number: int
    text: str
    everywhere: bool  # whether it is said of every number of ours beside which the paper has one


def table_view(
    paper: Paper, artifact: Artifact, items: list[dict], printed: tuple[PaperValue, ...], *, ours_only: bool = False
) -> dict | None:
    """Columns, lines and notes of a table; None where there is no line.

    The paper's number stands beside ours where the data are the same, else in a row of its own, which `ours_only` leaves out.
    """
    columns = _ordered([i["column"] for i in items] + [v.column for v in printed])
    # A cell is (our name of the data, row, column), whichever name the record gives the data.
    cells = {(ours_named(paper, artifact, i["data"]) if i["data"] else "", i["row"], i["column"]): i for i in items}
    texts = {}
    for v in printed:
        found = [key for key, item in cells.items() if same_place(paper, artifact, item, v)]
        texts |= dict.fromkeys(found or [(ours_named(paper, artifact, v.data), v.row, v.column)], v.text)
    paper_names = {ours_named(paper, artifact, v.data): v.data for v in printed if v.data}
    made = {key[:2] for key, item in cells.items() if item["value"] is not None}
    rows = _by_data([row for row in _ordered([key[:2] for key in [*cells, *texts]]) if row in made or not ours_only])
    if not rows:
        return None
    said = {key: _said(item, texts.get(key, "")) for key, item in cells.items() if key[:2] in rows}
    common, by_row = _shared(said, made)
    missing = {c: artifact.missing[c] for c in columns if c in artifact.missing and printed}
    reasons_shown = _ordered([*sorted(common), *(r for found in said.values() for r in found), *missing.values()])
    number = {text: i for i, text in enumerate(reasons_shown, 1)}
    refer = lambda found: tuple(sorted(number[text] for text in found))

    def line(row: tuple[str, str], before: str) -> Line:
        own, shared = row in made, by_row.get(row, set())
        found = [(cells.get((*row, c)), texts.get((*row, c), ""), set(said.get((*row, c), ())) - common - shared) for c in columns]
        shown = tuple(_cell(item, text, own, refer(rest)) for item, text, rest in found)
        where = row[0] if own else paper_names.get(row[0], row[0])
        return Line(where, row[1], _provenance([item for item, *_ in found if item], own), own, row[0] != before, shown, refer(shared - common))

    return {
        "columns": [(c, refer([missing[c]]) if c in missing else ()) for c in columns],
        "lines": [line(row, rows[max(0, i - 1)][0]) for i, row in enumerate(rows)],
        "notes": [Note(i, text, text in common) for text, i in number.items()],
        "has_data": any(data for data, _ in rows),
    }


def _by_data(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rows (data, name) with those of one data set together, in the order of first mention."""
    order = _ordered([data for data, _ in rows])
    return sorted(rows, key=lambda row: order.index(row[0]))


def _said(item: dict, text: str) -> list[str]:
    """The reasons that a reader asks for: beside a number of the paper, and where our own is missing."""
    return reasons(item) if text or item["paper"] is not None or item["value"] is None else []


def _shared(said: dict[tuple, list[str]], made: set[tuple[str, str]]) -> tuple[set[str], dict[tuple, set[str]]]:
    """What is said of all cells of the rows that we made, and of all cells of each row: noted once, not in every cell."""
    rows: dict[tuple, list[set[str]]] = {}
    for key, found in said.items():
        if found:
            rows.setdefault(key[:2], []).append(set(found))
    ours = [found for row, cells in rows.items() if row in made for found in cells]
    return set.intersection(*ours) if ours else set(), {row: set.intersection(*cells) for row, cells in rows.items()}


def _provenance(items: list[dict], own: bool) -> str:
    """What a row is: as the run recorded it, else who made it."""
    recorded = next((i["provenance"] for i in items if i.get("provenance")), "")
    return recorded or ("made by the run" if own else "printed by the paper")


def _cell(item: dict | None, text: str, own: bool, notes: tuple[int, ...]) -> Cell:
    if item is None or not own:
        return Cell("", text, "open" if text else "", "", notes)
    verdict = item["verdict"].replace(" ", "-") if text else ""
    return Cell(_number(item["value"], text or item["printed"] or ""), text, verdict, _percent(item) if item["verdict"] in COMPARED else "", notes)


def _percent(item: dict) -> str:
    """The difference to the paper's number; as it is where that number is zero."""
    return f"{item['difference'] / abs(item['paper']):+.1%}" if item["paper"] else f"{item['difference']:+.2g}"


def _number(value: float | None, like: str = "") -> str:
    """A number with the decimals that the paper prints, else four digits."""
    if value is None:
        return "–"
    if like and like.lstrip("↓↑-").replace(".", "", 1).isdigit():
        return f"{value:.{len(like.partition('.')[2])}f}"
    return f"{value:.4g}"


def _ordered(values: list) -> list:
    return list(dict.fromkeys(values))


# ---- what the pages show -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A figure of a run as the page links it."""

    path: str  # relative to the report
    width: int
    height: int
    pdf: str = ""  # empty: the run left none


def _picture(run: Recorded, entry: dict) -> Picture | None:
    """The figure of an artifact; None when the run has none, OSError when its file is gone or broken."""
    if not entry.get("figure"):
        return None
    path = run.folder / entry["figure"]
    with Image.open(path) as image:
        width, height = image.size
    where = f"{run.slug}/{run.name}/"
    pdf = path.with_suffix(".pdf")
    return Picture(where + entry["figure"], width, height, where + str(pdf.relative_to(run.folder)) if pdf.is_file() else "")


def artifact_view(paper: Paper, artifact: Artifact, run: Recorded | None, kept: Recorded | None) -> dict:
    """Everything the page shows of one artifact: what the run made, and beside it what the kept run made."""
    printed = paper_values(paper.slug).get(artifact.id, ())
    entry = run.artifact(artifact.address) if run else None
    items = run.items(artifact.address) if run else []
    older = kept.items(artifact.address) if kept else []
    fault, picture = "", None
    if entry and entry.get("status") == "failed":
        fault = entry.get("why") or "the run says no more"
    try:
        picture = _picture(run, entry) if entry else None
    except OSError:
        fault = fault or f"its picture {entry['figure']} is missing from the run's folder or broken"
    return {
        "artifact": artifact,
        "state": _state(artifact, entry, fault),
        "entry": entry,
        "fault": fault,
        "picture": picture,
        "table": table_view(paper, artifact, items, printed),
        "counts": _counts(items),
        "kept": table_view(paper, artifact, older, printed, ours_only=True),
        "kept_counts": _counts(older),
        "comparable": paper.comparable_when(artifact),
        "page": printed[0].page if printed else "",
        "files": f"{paper.slug}/{run.name}" if run else "",
    }


def _state(artifact: Artifact, entry: dict | None, fault: str) -> str:
    """regenerated, failed, not in this run, or open."""
    if artifact.status != "regenerated":
        return "open"
    return "not in this run" if entry is None else "failed" if fault else "regenerated"


def _counts(items: list[dict]) -> dict[str, int]:
    return compare.counts([i for i in items if i["paper"] is not None])


def paper_view(paper: Paper, run: Recorded | None, others: list[Recorded], kept: Recorded | None = None) -> dict:
    """Everything the page of a paper shows, with one run of it and the kept one."""
    views = [artifact_view(paper, a, run, kept) for a in paper.artifacts.values()]
    done = [v for v in views if v["state"] == "regenerated"]
    found = run.results["claims"] if run else []
    return {
        "paper": paper,
        "run": run,
        "others": others,
        "done": done,
        "failed": [v for v in views if v["state"] == "failed"],
        "open": [v for v in views if v["state"] not in ("regenerated", "failed")],
        "total": len(views),
        "counts": _counts(run.results["items"]) if run else {},
        "claims": _claims(run, kept),
        "claim_counts": {v: [c["verdict"] for c in found].count(v) for v in _ordered([*claims.VERDICTS, "not decided"])},
        "thumbnail": next((v["picture"] for v in _picturesque(done)), None),
        "record": _record(run) if run else [],
        "shortfalls": shortfalls(run) if run else [],
        "kept": kept,
        "kept_counts": _counts(kept.results["items"]) if kept else {},
        "kept_record": _record(kept) if kept else [],
    }


def _claims(run: Recorded | None, kept: Recorded | None) -> list[dict]:
    """Every claim with its verdicts side by side: the run made here, the paper's own table, the kept run."""
    here, then = ({c["id"]: c for c in r.results["claims"]} if r else {} for r in (run, kept))
    lines = []
    for c in (here[i] if i in here else then[i] for i in _ordered([*here, *then])):
        own, older, paper = here.get(c["id"]), then.get(c["id"]), c.get("in_paper")
        verdicts = [("this run", own), ("the paper's own table", paper), (f"kept {kept.profile} run" if kept else "", older)]
        lines.append({"statement": c["statement"], "source": c["source"], "verdicts": [(where, v["verdict"], v["why"]) for where, v in verdicts if v]})
    return lines


def shortfalls(run: Recorded) -> list[tuple[str, Any, Any]]:
    """Fields of the run's recipe that are not the published ones: name, in this run, in the paper's profile."""
    paper = ledger()[run.slug]
    recipe = run.run.get("recipe") or {}
    if paper.own or not recipe:
        return []
    published = asdict(paper_recipe(run.slug, "paper"))
    plain = lambda v: list(v) if isinstance(v, tuple) else v
    return [(k, recipe[k], plain(v)) for k, v in published.items() if k in recipe and k not in _NO_RECIPE and recipe[k] != plain(v)]


def _picturesque(views: list[dict]) -> list[dict]:
    """Views with a figure; those of pictures before drawings, so that a thumbnail shows results."""
    return sorted((v for v in views if v["picture"]), key=lambda v: not v["entry"]["data"])


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
    readable = []
    for run in runs:
        if fault := _fault(pages, run):
            broken.append(f"{run.folder / 'results.json'} ({fault})")
        else:
            readable.append(run)
    readable.sort(key=lambda r: r.rank, reverse=True)
    views = []
    for paper in ledger().values():
        own = [r for r in readable if r.slug == paper.slug]
        kept = _readable_kept(pages, paper, broken)
        for position, run in enumerate(own or [None]):
            view = paper_view(paper, run, own, kept)
            name = page_name(paper.slug, run if position else None)
            write_text(folder / name, pages.get_template("paper.html").render(view, home=False))
            if position == 0:
                views.append(view)
            if run:
                _copy(run, folder / paper.slug / run.name)
    write_text(folder / "index.html", _index(pages, views, readable, broken, failed_before_recording(root)))


def _index(pages: Environment, views: list[dict], runs: list[Recorded], broken: Sequence[str] = (), lost: Sequence[dict] = ()) -> str:
    return pages.get_template("index.html").render(views=views, runs=runs, broken=broken, lost=lost, home=True)


def _fault(pages: Environment, run: Recorded) -> str:
    """What keeps the record of a run from being shown, empty when nothing does: one bad record must not cost the report."""
    try:
        hash(run.rank)  # what the runs are sorted by
        view = paper_view(ledger()[run.slug], run, [run])
        pages.get_template("paper.html").render(view, home=False)
        _index(pages, [view], [run])
    except _UNREADABLE as e:
        return f"{type(e).__name__}: {e}"
    return ""


def _readable_kept(pages: Environment, paper: Paper, broken: list[str]) -> Recorded | None:
    """The kept run of a paper; None without one, and when it cannot be shown, which then stands in `broken`."""
    try:
        kept = kept_run(paper.slug)
        pages.get_template("paper.html").render(paper_view(paper, None, [], kept), home=False)
    except _UNREADABLE as e:
        broken.append(f"{kept_folder(paper.slug)} ({type(e).__name__}: {e})")
        return None
    return kept


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
