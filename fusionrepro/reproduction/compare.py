"""Our number beside the paper's: difference, tolerance and a verdict that is computed, never typed."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from fusionrepro.errors import InputError
from fusionrepro.reproduction.ledger import Artifact, Paper, PaperValue, TestSet, paper_values

VERDICTS = ("match", "close", "differs", "not comparable")


@dataclass(frozen=True)
class Conditions:
    """What a table of a run was made with."""

    profile: str
    facts: Mapping[str, str]  # as recorded by the notebook: post, eps, ...


def long_form(frame: pd.DataFrame, row: str | list[str], data: str, n: int | None) -> pd.DataFrame:
    """A table as one line a cell: data, row, column, value, n.

    `row` names the columns that label a row, joined by " / "; the columns `data` and `n` of the frame win over the arguments.
    """
    keys = [row] if isinstance(row, str) else list(row)
    frame = frame.reset_index() if set(keys) - set(frame.columns) and set(keys) <= set(frame.index.names) else frame
    if lost := [k for k in keys if k not in frame.columns]:
        raise InputError(f"the table has no column '{lost[0]}' to label its rows; it has {', '.join(map(str, frame.columns))}.")
    columns = [c for c in frame.columns if c not in (*keys, "data", "n")]
    lines = []
    for line in frame.to_dict("records"):
        label = " / ".join(str(line[k]) for k in keys)
        where, count = line.get("data", data), line.get("n", n)
        lines += [{"data": str(where), "row": label, "column": str(c), "value": line[c], "n": count} for c in columns]
    out = pd.DataFrame(lines, columns=["data", "row", "column", "value", "n"])
    out["value"] = pd.to_numeric(out["value"], errors="coerce")
    if repeated := out.duplicated(["data", "row", "column"]).sum():
        raise InputError(f"{repeated} cells of the table appear twice; label its rows by more columns than {', '.join(keys)}.")
    return out


def items(paper: Paper, artifact: Artifact, cells: pd.DataFrame, conditions: Conditions) -> list[dict]:
    """One record a cell of our table, with the paper's value and the verdict."""
    printed = {(v.data, v.row, v.column): v for v in paper_values(paper.slug).get(artifact.id, ())}
    return [_item(paper, artifact, line, printed, conditions) for line in cells.to_dict("records")]


def _item(paper: Paper, artifact: Artifact, line: dict, printed: dict, conditions: Conditions) -> dict:
    test_set = _test_set(paper, artifact, line["data"])
    label = test_set.name if test_set else _only(v[0] for v in printed)
    value = printed.get((label, line["row"], line["column"])) or printed.get(("", line["row"], line["column"]))
    ours = float(line["value"]) if math.isfinite(line["value"]) else None
    count = None if line["n"] is None or pd.isna(line["n"]) else int(line["n"])
    reasons = _reasons(paper, artifact, line | {"n": count}, test_set, conditions)
    verdict = _judge(ours, value, reasons, paper.tolerance)
    return {
        "id": artifact.address,
        "data": line["data"],
        "row": line["row"],
        "column": line["column"],
        "value": ours,
        "n": count,
        "paper": value.number if value else None,
        "printed": value.text if value else None,
        "page": value.page if value else None,
        **verdict,
    }


def _judge(ours: float | None, value: PaperValue | None, reasons: list[str], tolerance: Mapping[str, float]) -> dict:
    if value is None or value.number is None:
        reasons = ["the paper prints no number here"]
    elif ours is None:
        reasons = ["our value is not a finite number", *reasons]
    paper_number = value.number if value else None
    difference = ours - paper_number if ours is not None and paper_number is not None else None
    if reasons or difference is None:
        return {"difference": difference, "tolerance": None, "verdict": "not comparable", "why": "; ".join(reasons)}
    match = max(tolerance["match"] * abs(paper_number), value.half_unit)
    close = max(tolerance["close"] * abs(paper_number), 2 * value.half_unit)
    verdict = "match" if abs(difference) <= match else "close" if abs(difference) <= close else "differs"
    bound = match if verdict == "match" else close
    why = f"|{difference:.3g}| {'<=' if abs(difference) <= bound else '>'} {bound:.3g}"
    return {"difference": difference, "tolerance": match, "verdict": verdict, "why": why}


def _reasons(paper: Paper, artifact: Artifact, line: dict, test_set: TestSet | None, conditions: Conditions) -> list[str]:
    """Everything that keeps a cell from being compared."""
    found = []
    if conditions.profile not in paper.profiles:
        found.append(f"{conditions.profile} profile: less training than published")
    if test_set is None:
        wanted = " or ".join(artifact.data) or "the paper's data"
        ours = "procedural scenes" if line["data"] == "scenes" else line["data"] or "unnamed data"
        found.append(f"{ours} instead of {wanted}")
    elif test_set.why:
        found.append(test_set.why)
    elif test_set.pairs and line["n"] != test_set.pairs:
        found.append(f"{line['n'] if line['n'] is not None else 'an unknown number of'} pairs instead of {test_set.pairs}")
    for name, wanted in artifact.conditions.items():
        if (given := conditions.facts.get(name)) != wanted:
            found.append(f"{name} {given or 'not recorded'} instead of {wanted}")
    if line["column"] in artifact.unknown:
        found.append(artifact.unknown[line["column"]])
    return found


def _test_set(paper: Paper, artifact: Artifact, data: str) -> TestSet | None:
    """The paper's name of our data set, where the artifact was made from it."""
    return next((paper.sets[name] for name in artifact.data if paper.sets[name].set == data and data), None)


def _only(names: Iterable[str]) -> str:
    """The single name, so that a run on other data still stands beside the paper's number; else none."""
    distinct = set(names)
    return distinct.pop() if len(distinct) == 1 else ""


def counts(found: Iterable[dict]) -> dict[str, int]:
    """Verdict -> number of cells."""
    verdicts = [i["verdict"] for i in found]
    return {v: verdicts.count(v) for v in VERDICTS}
