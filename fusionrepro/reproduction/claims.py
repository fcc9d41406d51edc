"""The papers' statements as checks over the tables of a run, and over the tables that the papers print themselves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

import pandas as pd
import yaml

from fusionrepro.errors import InputError, unknown
from fusionrepro.metrics.evaluate import METRICS
from fusionrepro.registry import titles
from fusionrepro.reproduction.ledger import paper as paper_of
from fusionrepro.reproduction.ledger import paper_values

HOLDS, FAILS, UNDECIDED, UNTESTABLE = VERDICTS = ("holds", "fails", "not decided", "not testable here")
IN_PAPER = (HOLDS, FAILS, "not printed")
CHECKS = ("higher", "lower", "highest", "lowest", "top", "best_in", "above", "smaller_change", "smallest_change")
RIVALS = ("all", "learned")
# A copy costs nothing; that says nothing about what a cost is worth.
_COSTS = {"ms", "FPS", "GFLOP", "GFlops", "parameters", "Params"}
_LESS = ("lower", "lowest", "smaller_change", "smallest_change")
# Their training is too short for a statement about trained networks to be tested.
_UNTRAINED = {"smoke": "the smoke profile trains for seconds"}


class _Dead(LookupError):
    """A row stands in the table without a number: its pictures are dead, or nothing was measured."""


@dataclass(frozen=True)
class Claim:
    """A statement of a paper and the check that decides it."""

    id: str
    paper: str
    statement: str
    source: str
    table: str  # artifact id of the table that decides
    check: str
    columns: tuple[str, ...]  # empty: all
    a: str | tuple[str, ...]
    b: str | tuple[str, ...] = ""
    among: str | tuple[str, ...] = "*"  # patterns of the rows it competes with
    rivals: str = "all"  # or learned: the statement is about networks only
    states: tuple[str, str] = (" / clean", " / attack")
    data: tuple[str, ...] = ()  # the paper's names of the sets that it is about; empty: all of the table
    k: float = 0  # top: the lowest rank; best_in: so many cells; above: the bound
    of: int = 0  # best_in: cells that the paper counts

    def __post_init__(self):
        where = f"claims.yaml, {self.paper}/{self.id}"
        for what, value, known in (("check", self.check, CHECKS), ("rivals", self.rivals, RIVALS)):
            if value not in known:
                raise InputError(f"{where}: {unknown(what, value, known)}")
        if (self.check in ("top", "best_in", "above")) != bool(self.k):
            raise InputError(f"{where}: the checks top, best_in and above need k, the others have none.")
        if (self.check == "best_in") != bool(self.of):
            raise InputError(f"{where}: the check best_in needs `of`, the number of cells, the others have none.")

    def competes(self, row: str) -> bool:
        """Whether the claim names this row among the rivals."""
        return any(fnmatchcase(row, p) for p in ([self.among] if isinstance(self.among, str) else self.among))


@cache
def claims(paper: str) -> tuple[Claim, ...]:
    """The claims of a paper; none for a paper without an entry."""
    text = files("fusionrepro.reproduction").joinpath("claims.yaml").read_text(encoding="utf-8")
    raw = yaml.safe_load(text).get(paper, {})
    frozen = lambda v: tuple(v) if isinstance(v, list) else v
    return tuple(Claim(name, paper, **{k: frozen(v) for k, v in values.items()}) for name, values in raw.items())


def evaluate(paper: str, tables: Mapping[str, pd.DataFrame], profile: str) -> list[dict]:
    """Verdict and reason of every claim, here and (`in_paper`) in the table that the paper prints.

    `tables`: artifact id -> one line a cell (data, row, column, value, n). A row whose pictures are dead has NaN.
    """
    return [_verdict(claim, tables, profile) for claim in claims(paper)]


def _verdict(claim: Claim, tables: Mapping[str, pd.DataFrame], profile: str) -> dict:
    record = {"id": f"{claim.paper}/{claim.id}", "statement": claim.statement, "source": claim.source, "table": claim.table}
    verdict, why = _here(claim, tables, profile)
    return record | {"verdict": verdict, "why": why, "in_paper": in_paper(claim)}


def _here(claim: Claim, tables: Mapping[str, pd.DataFrame], profile: str) -> tuple[str, str]:
    if profile in _UNTRAINED:
        return UNTESTABLE, _UNTRAINED[profile]
    if claim.table not in tables:
        return UNTESTABLE, f"{claim.table} was not regenerated"
    wanted = {paper_of(claim.paper).sets[name].set: name for name in claim.data}
    try:
        found = _outcomes(claim, tables[claim.table], wanted)
        verdict, why = _sum(found)
        if copies := _passing_copies(claim, tables[claim.table], wanted):
            return UNDECIDED, f"{copies}: the check rewards what is no fusion. Ours: {why}"
    except _Dead as e:
        return UNDECIDED, str(e.args[0])
    except LookupError as e:
        return UNTESTABLE, str(e.args[0])
    return verdict, why + (_absent(claim, tables[claim.table]) if verdict == HOLDS else "")


@cache
def in_paper(claim: Claim) -> dict[str, str]:
    """Whether the numbers that the paper prints support its own statement: verdict (one of IN_PAPER) and why.

    What is level to the last printed digit does not refute it.
    """
    printed = paper_values(claim.paper).get(claim.table, ())
    if not printed:
        return {"verdict": IN_PAPER[2], "why": f"the paper prints no numbers of {claim.table}"}
    lines = [{"data": v.data, "row": v.row, "column": v.column, "value": v.number, "n": None} for v in printed]
    cells = pd.DataFrame(lines).astype({"value": float})
    try:
        verdict, why = _sum(_outcomes(claim, cells, {name: name for name in claim.data}, level=True))
    except LookupError as e:
        verdict, why = IN_PAPER[2], f"in the paper {e.args[0]}"
    return {"verdict": verdict, "why": why}


def _sum(outcomes: list[tuple[bool, str]]) -> tuple[str, str]:
    """The verdict of all comparisons together, and the telling ones in words."""
    failed = [o for good, o in outcomes if not good]
    if not failed:
        return HOLDS, _some([o for _, o in outcomes])
    return FAILS, f"not so in {len(failed)} of {len(outcomes)} comparisons: {_some(failed)}"


def _some(texts: list[str], most: int = 4) -> str:
    shown = "; ".join(texts[:most])
    return f"{shown}; and {len(texts) - most} more" if len(texts) > most else shown


# ---- comparisons -------------------------------------------------------------------------------------------------------


def _outcomes(
    claim: Claim, cells: pd.DataFrame, wanted: Mapping[str, str], level: bool = False, copy: str = ""
) -> list[tuple[bool, str]]:
    """Every comparison that the claim asks for: whether it is as claimed, and its numbers.

    `wanted`: names of the sets in these cells that the claim is about; empty: all. `level`: equal numbers are as claimed.
    `copy`: title of a control whose row stands in for the method's own.
    """
    found = []
    groups = [(data, part) for data, part in cells.groupby("data", sort=True) if not wanted or data in wanted]
    if not groups:
        raise LookupError(f"the table has none of {', '.join(claim.data)}")
    # One table of a paper may hold scores of one set and detections of another.
    having = [g for g in groups if not claim.columns or set(claim.columns) & set(g[1]["column"])]
    for data, part in having or groups:
        table = _Table(part, claim, copy)
        for column in claim.columns or table.columns:
            found += [(f"{data} {column}".strip(), *one) for one in table.compare(column)]
    good = lambda ours, other: (ours < other if claim.check in _LESS else ours > other) or (level and ours == other)
    if claim.check == "above":
        return [(ours > claim.k, f"{where} {ours:.4g}") for where, ours, _ in found]
    if claim.check in ("top", "best_in"):
        return _ranked(claim, found, good)
    return [
        (good(ours, other), f"{where} {ours:.4g} against {other:.4g} ({row})") for where, ours, rest in found for other, row in rest
    ]


def _ranked(claim: Claim, found: list, good) -> list[tuple[bool, str]]:
    """The rank of every cell, or how many cells are the best."""
    ranks = [(where, ours, 1 + sum(not good(ours, other) for other, _ in rest), len(rest) + 1) for where, ours, rest in found]
    if claim.check == "top":
        return [(rank <= claim.k, f"{where} {ours:.4g} is number {rank} of {rows}") for where, ours, rank, rows in ranks]
    if len(ranks) != claim.of:
        raise LookupError(f"the paper counts {claim.of} cells, and the table has {len(ranks)} of them")
    others = [f"{where} is number {rank}" for where, _, rank, _ in ranks if rank > 1]
    best = len(ranks) - len(others)
    return [(best >= claim.k, f"best in {best} of {len(ranks)} cells, claimed are {claim.k}" + (f" ({_some(others)})" if others else ""))]


class _Table:
    """One data set of a table, a row a method, and the rows that a claim is about."""

    def __init__(self, cells: pd.DataFrame, claim: Claim, copy: str = ""):
        known = cells.assign(n=cells["n"].where(cells["value"].notna()))
        self.values, self.counts = (known.pivot(index="row", columns="column", values=v) for v in ("value", "n"))
        self.columns = tuple(c for c in self.values.columns if self.values[c].notna().any())
        self.claim, self.copy = claim, copy
        self._sizes: set = set()

    def compare(self, column: str) -> Iterator[tuple[float, list[tuple[float, str]]]]:
        """Our number and those that it competes with, each with its row. LookupError where nothing can be compared."""
        claim, self._sizes = self.claim, set()
        change = lambda rows, own=False: abs(self._value(rows[0], column, own) - self._value(rows[1], column, own))
        if claim.check == "above":
            pair = self._value(claim.a, column, True), []
        elif claim.check in ("higher", "lower"):
            pair = self._value(claim.a, column, True), [(self._value(claim.b, column), claim.b)]
        elif claim.check == "smaller_change":
            pair = change(claim.a, True), [(change(claim.b), claim.b[1])]
        elif claim.check == "smallest_change":
            both = lambda m: [m + state for state in claim.states]
            methods = [r.removesuffix(claim.states[0]) for r in self.values.index if r.endswith(claim.states[0])]
            alive = [m for m in self._others(methods, claim.a) if not any(self._dead(r, column) for r in both(m))]
            pair = change(both(claim.a), True), [(change(both(m)), m) for m in self._some(alive, column)]
        else:
            alive = [r for r in self._others(self.values.index, claim.a) if not self._dead(r, column)]
            pair = self._value(claim.a, column, True), [(self._value(r, column), r) for r in self._some(alive, column)]
        if len(self._sizes) > 1 and column in METRICS:
            raise LookupError(f"the rows are means of {column} over different pairs")
        yield pair

    def _others(self, rows, own: str) -> list[str]:
        """Rows of the rivals. A control is none, nor is "Own (other weights)"; a plain average is, unless the claim is about networks."""
        out = titles("control") | (titles("classic") if self.claim.rivals == "learned" else set())
        rival = lambda row: _method(row) not in out and not _method(row).startswith((f"{_method(own)} (", f"{_method(own)},"))
        found = [r for r in rows if r != own and self.claim.competes(r) and rival(r)]
        if not found:
            kind = "learned method" if self.claim.rivals == "learned" else "method"
            raise LookupError(f"no other {kind} stands in the table")
        return found

    def _some(self, alive: list[str], column: str) -> list[str]:
        if not alive:
            raise _Dead(f"no rival has a value of {column}")
        return alive

    def _dead(self, row: str, column: str) -> bool:
        """A rival without a number, or one whose pictures are not all made yet, neither wins nor loses."""
        if column not in self.values.columns or row not in self.values.index:
            return False
        return pd.isna(self.values.at[row, column]) or (column in METRICS and self._fewer(row, column))

    def _fewer(self, row: str, column: str) -> bool:
        """Whether a row is a mean over fewer pairs than the fullest one."""
        return self.counts.at[row, column] < self.counts[column].max()

    def _value(self, row: str, column: str, own: bool = False) -> float:
        row = self.copy + row[len(_method(row)) :] if own and self.copy else row
        if row not in self.values.index:
            raise LookupError(f"the table has no row '{row}'")
        if column not in self.values.columns:
            raise LookupError(f"the table has no column '{column}'")
        found = self.values.at[row, column]
        if pd.isna(found):
            raise _Dead(f"'{row}' has no value of {column}")
        self._sizes.update(self.counts.loc[[row], column].dropna())
        return float(found)


def _method(row: str) -> str:
    return row.split(" / ")[0]


def _passing_copies(claim: Claim, cells: pd.DataFrame, wanted: Mapping[str, str]) -> str:
    """The controls that satisfy the same comparisons as the method, in words; empty: none does, or none stands in the table."""
    passing = []
    if claim.columns and set(claim.columns) <= _COSTS:
        return ""
    for title in sorted(titles("control") & {_method(row) for row in cells["row"]}):
        try:
            outcomes = _outcomes(claim, cells, wanted, copy=title)
        except LookupError:
            continue
        if all(good for good, _ in outcomes):
            passing.append(f"'{title}' passes too ({_some([o for _, o in outcomes], 2)})")
    return ", and ".join(passing)


def _absent(claim: Claim, cells: pd.DataFrame) -> str:
    """The paper's rivals that the table lacks, where the claim is about all of them."""
    if claim.check not in ("highest", "lowest", "top", "best_in"):
        return ""
    printed = dict.fromkeys(v.row for v in paper_values(claim.paper).get(claim.table, ()) if v.row != claim.a and claim.competes(v.row))
    here = {row.casefold() for row in cells["row"]}
    lost = [row for row in printed if row.casefold() not in here]
    return f"; of the paper's {len(printed)} rivals the table lacks {', '.join(lost)}" if lost else ""
