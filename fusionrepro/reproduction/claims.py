"""The papers' statements as checks over the tables of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

import pandas as pd
import yaml

from fusionrepro.errors import InputError, unknown
from fusionrepro.metrics.evaluate import METRICS
from fusionrepro.registry import METHODS

VERDICTS = ("holds", "fails", "not testable here")
CHECKS = ("higher", "lower", "highest", "lowest", "smaller_change", "smallest_change")
# Their training is too short for a statement about trained networks to be tested.
_UNTRAINED = {"smoke": "the smoke profile trains for seconds"}


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
    among: str = "*"  # rows it competes with
    states: tuple[str, str] = (" / clean", " / attack")

    def __post_init__(self):
        if self.check not in CHECKS:
            raise InputError(f"claims.yaml, {self.paper}/{self.id}: {unknown('check', self.check, CHECKS)}")


@cache
def claims(paper: str) -> tuple[Claim, ...]:
    """The claims of a paper; none for a paper without an entry."""
    text = files("fusionrepro.reproduction").joinpath("claims.yaml").read_text(encoding="utf-8")
    raw = yaml.safe_load(text).get(paper, {})
    frozen = lambda v: tuple(v) if isinstance(v, list) else v
    return tuple(Claim(name, paper, **{k: frozen(v) for k, v in values.items()}) for name, values in raw.items())


def evaluate(paper: str, tables: Mapping[str, pd.DataFrame], profile: str) -> list[dict]:
    """Verdict and reason of every claim. `tables`: artifact id -> one line a cell (data, row, column, value)."""
    return [_verdict(claim, tables, profile) for claim in claims(paper)]


def _verdict(claim: Claim, tables: Mapping[str, pd.DataFrame], profile: str) -> dict:
    record = {"id": f"{claim.paper}/{claim.id}", "statement": claim.statement, "source": claim.source, "table": claim.table}
    if profile in _UNTRAINED:
        return record | {"verdict": VERDICTS[2], "why": _UNTRAINED[profile]}
    if claim.table not in tables:
        return record | {"verdict": VERDICTS[2], "why": f"{claim.table} was not regenerated"}
    try:
        outcomes = [o for data, cells in tables[claim.table].groupby("data", sort=True) for o in _decide(claim, data, cells)]
    except LookupError as e:
        return record | {"verdict": VERDICTS[2], "why": str(e.args[0])}
    failed = [o for good, o in outcomes if not good]
    why = f"not so in {len(failed)} of {len(outcomes)} comparisons: " + "; ".join(failed[:4]) if failed else _praise(outcomes)
    return record | {"verdict": VERDICTS[1 if failed else 0], "why": why}


def _praise(outcomes: list[tuple[bool, str]]) -> str:
    shown = "; ".join(o for _, o in outcomes[:4])
    return f"{shown}; and {len(outcomes) - 4} more" if len(outcomes) > 4 else shown


def _decide(claim: Claim, data: str, cells: pd.DataFrame) -> list[tuple[bool, str]]:
    """Every single comparison on one data set: whether it is as claimed, and its numbers."""
    known = cells.assign(n=cells["n"].where(cells["value"].notna()))
    table, counts = (known.pivot(index="row", columns="column", values=v) for v in ("value", "n"))
    columns = claim.columns or tuple(c for c in table.columns if table[c].notna().any())
    prefix = f"{data} " if data else ""
    return [(good, f"{prefix}{column} {text}") for column in columns for good, text in _column(claim, table, counts, column)]


def _column(claim: Claim, table: pd.DataFrame, counts: pd.DataFrame, column: str) -> list[tuple[bool, str]]:
    sizes = set()

    def value(row: str) -> float:
        found = _cell(table, row, column)
        sizes.update(counts.loc[[row], column].dropna())
        return found

    less = claim.check in ("lower", "lowest", "smaller_change", "smallest_change")
    if claim.check in ("higher", "lower"):
        pairs = [(value(claim.a), value(claim.b), claim.b)]
    elif claim.check in ("highest", "lowest"):
        pairs = [(value(claim.a), value(r), r) for r in _others(table.index, claim.among, claim.a)]
    elif claim.check == "smaller_change":
        change = lambda rows: abs(value(rows[0]) - value(rows[1]))
        pairs = [(change(claim.a), change(claim.b), claim.b[1])]
    else:
        change = lambda m: abs(value(m + claim.states[0]) - value(m + claim.states[1]))
        methods = [r.removesuffix(claim.states[0]) for r in table.index if r.endswith(claim.states[0])]
        pairs = [(change(claim.a), change(m), m) for m in _others(methods, claim.among, claim.a)]
    if len(sizes) > 1 and column in METRICS:
        raise LookupError(f"the rows are means of {column} over different pairs")
    return [(ours < other if less else ours > other, f"{ours:.4g} against {other:.4g} ({row})") for ours, other, row in pairs]


def _others(rows, among: str, own: str) -> list[str]:
    """Rows of the learned rivals: the papers' statements are about those. A plain average is none, nor is "Own (other weights)"."""
    classic = {text for m in METHODS.values() if m.kind == "classic" for text in (m.name, m.title)}
    method = lambda row: row.split(" / ")[0]
    rival = lambda row: method(row) not in classic and not method(row).startswith((f"{method(own)} (", f"{method(own)},"))
    found = [r for r in rows if r != own and fnmatchcase(r, among) and rival(r)]
    if not found:
        raise LookupError("no other learned method stands in the table")
    return found


def _cell(table: pd.DataFrame, row: str, column: str) -> float:
    if row not in table.index:
        raise LookupError(f"the table has no row '{row}'")
    if column not in table.columns:
        raise LookupError(f"the table has no column '{column}'")
    found = table.at[row, column]
    if pd.isna(found):
        raise LookupError(f"'{row}' has no value of {column}")
    return float(found)
