"""The ledger: every table and figure of the five papers, what it needs and whether we regenerate it."""

import csv
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from fusionrepro import settings
from fusionrepro.errors import DataError, InputError, unknown

KINDS = ("table", "figure")
STATUSES = ("regenerated", "open")


@dataclass(frozen=True)
class TestSet:
    """Data as the paper names it, and what we have for it."""

    name: str  # the paper's name
    set: str = ""  # our data set; empty: not to be had
    split: str = "test"
    pairs: int = 0  # 0: unknown
    why: str = ""  # why a run on it cannot be compared
    drawn: str = ""  # the split with which a run draws its own test pairs as the paper drew its: such a run is compared in spite of `why`
    note: str = ""  # what every verdict on it must say

    def __str__(self) -> str:
        size = f", {self.pairs} pairs" if self.pairs else ""
        text = f"{self.name} ({self.set} {self.drawn or self.split}{size})" if self.set else self.name
        return f"{text}, {self.note}" if self.note else text

    def reason(self, split: str) -> str:
        """Why a run with this split is not compared; empty where it is."""
        return "" if self.drawn and split == self.drawn else self.why


@dataclass(frozen=True)
class Artifact:
    """One table or figure of a paper."""

    id: str  # as the paper numbers it: table2, fig5, supp_fig1
    paper: str  # slug
    kind: str  # table or figure
    caption: str  # in our words
    section: str
    status: str  # regenerated or open
    records: tuple[str, ...]  # what the notebook leaves: table, figure or both
    data: tuple[str, ...] = ()  # the paper's names of its data
    values: bool = False  # numbers are printed: results/paper/<slug>.csv
    conditions: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    always: tuple[str, ...] = ()  # columns that need no test data: parameters, operations
    formulas: dict[str, str] = field(default_factory=dict)  # column -> the metric of the preset that stands in it, where the names differ
    reason: str = ""  # why it is open

    @property
    def address(self) -> str:
        """`<slug>/<artifact>`, unique over all papers."""
        return f"{self.paper}/{self.id}"

    @property
    def label(self) -> str:
        """As a reader says it: Table 2, Fig. 5, Supplement Fig. 1."""
        name, supplement = self.id.removeprefix("supp_"), self.id.startswith("supp_")
        number = name.removeprefix(self.kind if self.kind == "table" else "fig")
        return f"{'Supplement ' if supplement else ''}{'Table' if self.kind == 'table' else 'Fig.'} {number}"


@dataclass(frozen=True)
class Paper:
    """A paper and its artifacts."""

    slug: str
    title: str
    subtitle: str
    reference: str
    profiles: tuple[str, ...]  # profiles whose runs are compared
    tolerance: dict[str, float]  # relative: match, close
    sets: dict[str, TestSet]  # by the paper's name
    evaluate: dict[str, tuple[str, ...]]  # profile -> our names of the test sets
    artifacts: dict[str, Artifact]
    own: bool = False  # a study of this package: nothing is printed, nothing is trained
    training: dict[str, Any] = field(default_factory=dict)  # of the paper: pairs, reading, and what this package cannot do of it

    @property
    def reading(self) -> str:
        """The reading that the paper's numbers come from; empty where text and program do not differ, or there is no program."""
        return self.training.get("reading", "")

    @property
    def notebook(self) -> Path:
        """The notebook that regenerates the paper, existing or not."""
        return settings.path("nbs_path") / "reproduction" / f"{self.slug}.ipynb"

    def artifact(self, name: str) -> Artifact:
        """The artifact of that id; InputError with the nearest name otherwise."""
        if name not in self.artifacts:
            raise unknown(f"artifact of {self.slug}", name, self.artifacts)
        return self.artifacts[name]

    def comparable_when(self, artifact: Artifact) -> str:
        """What makes a run of this artifact comparable, in words."""
        if self.own:
            return "never: no paper has it"
        if not artifact.values:
            return "never: the paper prints no numbers"
        sets = [self.sets[name] for name in artifact.data]
        if lost := [s for s in sets if s.why and not s.pairs and not s.drawn]:
            return "never: " + "; ".join(s.why for s in lost)
        parts = ["each row trained as published, or without training, or with its authors' weights", *map(str, sets)]
        parts += [f"{k} {v}" for k, v in artifact.conditions.items()]
        parts += [f"not {column} ({why})" for column, why in artifact.unknown.items()]
        return "; ".join(parts)


@dataclass(frozen=True)
class PaperValue:
    """One printed cell."""

    data: str
    row: str
    column: str
    text: str  # as printed
    unit: str
    page: str

    @property
    def number(self) -> float | None:
        """The printed number; an arrow down before it makes it negative; None when it is none."""
        try:
            return float(self.text.replace("↓", "-").replace("↑", ""))
        except ValueError:
            return None

    @property
    def half_unit(self) -> float:
        """Half of the last printed digit: what rounding alone can explain."""
        _, _, decimals = self.text.partition(".")
        return 0.5 * 10.0 ** -len(decimals)


@cache
def ledger() -> dict[str, Paper]:
    """All papers by slug, read and checked."""
    text = files("fusionrepro.reproduction").joinpath("ledger.yaml").read_text(encoding="utf-8")
    return {slug: _paper(slug, raw) for slug, raw in yaml.safe_load(text).items()}


def paper(slug: str) -> Paper:
    """The paper of that slug; InputError with the nearest name otherwise."""
    if slug not in ledger():
        raise unknown("paper", slug, ledger())
    return ledger()[slug]


def artifacts() -> list[Artifact]:
    """Every artifact of every paper."""
    return [a for p in ledger().values() for a in p.artifacts.values()]


def _paper(slug: str, raw: dict) -> Paper:
    sets = {name: TestSet(name, **(values or {})) for name, values in raw["sets"].items()}
    found = {name: _artifact(slug, name, values, sets) for name, values in raw["artifacts"].items()}
    evaluate = {profile: tuple(names) for profile, names in raw["evaluate"].items()}
    texts = {k: raw[k] for k in ("title", "subtitle", "reference", "tolerance")}
    return Paper(slug, profiles=tuple(raw["profiles"]), sets=sets, evaluate=evaluate, artifacts=found, own=raw.get("own", False),
                 training=raw.get("training", {}), **texts)  # fmt: skip


def _artifact(slug: str, name: str, raw: dict, sets: dict[str, TestSet]) -> Artifact:
    where = f"ledger.yaml, {slug}/{name}"
    lists = {k: tuple(raw.get(k, ())) for k in ("data", "records", "always")}
    try:
        conditions = {k: str(v) for k, v in raw.get("conditions", {}).items()}
        artifact = Artifact(name, slug, **(raw | lists | {"conditions": conditions}))
    except TypeError as e:
        raise InputError(f"{where}: {e}.") from None
    _one_of(where, "kind", artifact.kind, KINDS)
    _one_of(where, "status", artifact.status, STATUSES)
    for record in artifact.records:
        _one_of(where, "record", record, KINDS)
    for data in artifact.data:
        _one_of(where, "data", data, sets)
    if (artifact.status == "open") != bool(artifact.reason):
        raise InputError(f"{where}: an open artifact needs a reason, a regenerated one has none.")
    if artifact.kind not in artifact.records:
        raise InputError(f"{where}: a {artifact.kind} must record a {artifact.kind}.")
    return artifact


def _one_of(where: str, what: str, value: str, known) -> None:
    if value not in known:
        raise InputError(f"{where}: {unknown(what, value, known)}")


@cache
def paper_values(slug: str) -> dict[str, tuple[PaperValue, ...]]:
    """Artifact id -> its printed cells, from results/paper/<slug>.csv; none for a study of our own."""
    if paper(slug).own:
        return {}
    path = settings.path("results_path") / "paper" / f"{slug}.csv"
    if not path.is_file():
        raise DataError(f"{path} with the printed numbers of {slug} is missing; restore it from the repository.")
    found: dict[str, list[PaperValue]] = {}
    with open(path, encoding="utf-8", newline="") as f:
        for row in csv.DictReader(f):
            cell = PaperValue(row["data"], row["row"], row["column"], row["value"], row["unit"], row["page"])
            found.setdefault(row["artifact"], []).append(cell)
    return {name: tuple(cells) for name, cells in found.items()}


def as_rows() -> list[dict]:
    """The ledger as plain values, for `fusionrepro ledger --json`."""
    rows = []
    for p in ledger().values():
        for a in p.artifacts.values():
            extra = {
                "id": a.address,
                "label": a.label,
                "notebook": f"nbs/reproduction/{p.slug}.ipynb",
                "comparable": p.comparable_when(a),
                "values": len(paper_values(p.slug).get(a.id, ())),
            }
            rows.append(asdict(a) | extra)
    return rows
