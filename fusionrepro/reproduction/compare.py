"""Our number beside the paper's: difference, tolerance and a verdict that is computed, never typed."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from fusionrepro.errors import InputError
from fusionrepro.gallery.provenance import Provenance
from fusionrepro.reproduction.ledger import Artifact, Paper, PaperValue, TestSet, paper_values

VERDICTS = ("match", "close", "differs", "not comparable")


# Columns of a table that say something about a row and are no values of it.
_ABOUT = ("data", "n", "provenance", "facts")


@dataclass(frozen=True)
class Conditions:
    """What a table of a run was made with."""

    profile: str
    facts: Mapping[str, str]  # as recorded by the notebook: post, eps, ...; the facts of a row win
    reading: str = ""  # of the paper where text and program differ; empty: the paper has but one
    absent: Mapping[str, str] = field(default_factory=dict)  # printed rows that are not here, and why
    guesses: Mapping[str, str] = field(default_factory=dict)  # columns whose formula is inferred, and from what


def long_form(frame: pd.DataFrame, row: str | list[str], data: str, n: int | None) -> pd.DataFrame:
    """A table as one line a cell: data, row, column, value, n, provenance, facts.

    `row` names the columns that label a row, joined by " / "; the columns `data`, `n`, `provenance` and `facts` of the frame are about rows.
    """
    keys = [row] if isinstance(row, str) else list(row)
    frame = frame.reset_index() if set(keys) - set(frame.columns) and set(keys) <= set(frame.index.names) else frame
    if lost := [k for k in keys if k not in frame.columns]:
        raise InputError(f"the table has no column '{lost[0]}' to label its rows; it has {', '.join(map(str, frame.columns))}.")
    columns = [c for c in frame.columns if c not in (*keys, *_ABOUT)]
    lines = []
    for line in frame.to_dict("records"):
        about = {"data": str(line.get("data", data)), "row": " / ".join(str(line[k]) for k in keys), "n": line.get("n", n)}
        about |= {"provenance": line.get("provenance"), "facts": line.get("facts") or {}}
        lines += [about | {"column": str(c), "value": line[c]} for c in columns]
    out = pd.DataFrame(lines, columns=["data", "row", "column", "value", "n", "provenance", "facts"])
    out["value"] = pd.to_numeric(out["value"], errors="coerce")
    if repeated := out.duplicated(["data", "row", "column"]).sum():
        raise InputError(f"{repeated} cells of the table appear twice; label its rows by more columns than {', '.join(keys)}.")
    return out


def items(paper: Paper, artifact: Artifact, cells: pd.DataFrame, conditions: Conditions) -> list[dict]:
    """One record a cell, with the paper's value and the verdict: all cells of our table, then the printed ones that it has not."""
    printed = {(v.data, v.row, v.column): v for v in paper_values(paper.slug).get(artifact.id, ())}
    ours = [_item(paper, artifact, line, printed, conditions) for line in cells.to_dict("records")]
    met = [i for i in ours if i["paper"] is not None]
    there, unlabelled = {(i["label"], i["row"], i["column"]) for i in met}, {(i["row"], i["column"]) for i in met}
    anywhere = lambda key: (key[0] == "" or key[2] in artifact.always) and key[1:] in unlabelled
    rest = [v for key, v in printed.items() if v.number is not None and key not in there and not anywhere(key)]
    made, rows = {i["label"] for i in ours}, lambda data: {i["row"] for i in ours if data in ("", i["label"])}
    return ours + [_printed_item(artifact, v, made, rows(v.data), conditions) for v in rest]


def _item(paper: Paper, artifact: Artifact, line: dict, printed: dict, conditions: Conditions) -> dict:
    test_set = _test_set(paper, artifact, line["data"])
    label = test_set.name if test_set else ""
    # What is printed without the name of its set is of the artifact's.
    places = [label, ""] if test_set or not artifact.data or line["column"] in artifact.always else []
    value = next((v for place in places if (v := printed.get((place, line["row"], line["column"])))), None)
    if value is None and line["column"] in artifact.always:  # it needs no data, so the paper's data do not matter
        value = next((v for (_, row, column), v in printed.items() if (row, column) == (line["row"], line["column"])), None)
    ours = float(line["value"]) if math.isfinite(line["value"]) else None
    count = None if line["n"] is None or pd.isna(line["n"]) else int(line["n"])
    reasons = _reasons(paper, artifact, line | {"n": count}, test_set, conditions)
    if value is None or value.number is None:
        # On other pairs than the paper's that is the reason; else there is just nothing printed.
        foreign = artifact.data and not test_set
        reasons = _pairs(artifact, line | {"n": count}, test_set, {}) if foreign else ["the paper prints no number here"]
    remarks = [conditions.guesses.get(line["column"], ""), test_set.note if test_set and line["column"] not in artifact.always else ""]
    verdict = _judge(ours, value, reasons, paper.tolerance, *remarks)
    about = {"id": artifact.address, "data": line["data"], "label": label, "row": line["row"], "column": line["column"], "value": ours, "n": count}
    return about | _paper(value) | {"provenance": _text(line["provenance"]), "kind": _kind(line["provenance"])} | verdict


def _printed_item(artifact: Artifact, value: PaperValue, made: set[str], rows: set[str], conditions: Conditions) -> dict:
    """A printed cell that this run has not."""
    column = artifact.missing.get(value.column, "")
    sets = (value.data,) if value.data else artifact.data
    if sets and not made & set(sets):
        why = f"{' or '.join(sets)} is not in this run"
    elif value.row not in rows:
        why = conditions.absent.get(value.row, "this row is not rebuilt here")
    else:
        why = column or "this column is not rebuilt here"
    about = {"id": artifact.address, "data": value.data, "label": value.data, "row": value.row, "column": value.column, "value": None, "n": None}
    text = "" if value.row in rows else f"printed by the paper: {why}"
    verdict = {"difference": None, "tolerance": None, "verdict": "not comparable", "why": why, "reasons": [why]}
    return about | _paper(value) | {"provenance": text, "kind": "" if value.row in rows else "printed"} | verdict


def _paper(value: PaperValue | None) -> dict:
    return {"paper": value.number, "printed": value.text, "page": value.page} if value else {"paper": None, "printed": None, "page": None}


def _text(provenance: Provenance | str | None) -> str:
    return getattr(provenance, "text", provenance or "")


def _kind(provenance: Provenance | str | None) -> str:
    return getattr(provenance, "kind", "")


def _judge(ours: float | None, value: PaperValue | None, reasons: list[str], tolerance: Mapping[str, float], guess: str = "", note: str = "") -> dict:
    if ours is None and value is not None and value.number is not None:
        reasons = ["our value is not a finite number", *reasons]
    paper_number = value.number if value else None
    difference = ours - paper_number if ours is not None and paper_number is not None else None
    if reasons or difference is None:
        return {"difference": difference, "tolerance": None, "verdict": "not comparable", "why": "; ".join(reasons), "reasons": reasons}
    match = max(tolerance["match"] * abs(paper_number), value.half_unit)
    close = max(tolerance["close"] * abs(paper_number), 2 * value.half_unit)
    verdict = "match" if abs(difference) <= match else "close" if abs(difference) <= close else "differs"
    bound = match if verdict == "match" else close
    why = f"|{difference:.3g}| {'<=' if abs(difference) <= bound else '>'} {bound:.3g}"
    if guess and verdict == "match":  # a formula that was chosen because it fits proves nothing by fitting
        verdict = "close"
    return {"difference": difference, "tolerance": match, "verdict": verdict, "why": "; ".join(filter(None, (why, guess, note))), "reasons": []}


def _reasons(paper: Paper, artifact: Artifact, line: dict, test_set: TestSet | None, conditions: Conditions) -> list[str]:
    """Everything that keeps a cell from being compared: the training of its row, its pairs, the conditions of the table."""
    kind, facts = _kind(line["provenance"]), conditions.facts | {k: str(v) for k, v in line["facts"].items()}
    if line["column"] in artifact.always:
        return [] if kind != "trained" or facts.get("counted at") == "published width" else [r for r in line["provenance"].shortfalls if r.startswith(_STRUCTURE)]
    return [*_training(paper, line["provenance"], conditions), *_pairs(artifact, line, test_set, facts), *_how(paper, artifact, kind, facts, conditions),
            *([artifact.unknown[line["column"]]] if line["column"] in artifact.unknown else [])]  # fmt: skip


# Shortfalls of a training that change what a network is, not only how well it was trained.
_STRUCTURE = ("width", "heads", "groups", "stages", "block", "channels", "depth", "filters")


def _training(paper: Paper, provenance: Provenance | str | None, conditions: Conditions) -> list[str]:
    """What is wanting in the training of the row; nothing for methods that need none or have their authors' weights."""
    kind = _kind(provenance)
    if kind in ("classic", "published"):
        return []
    if kind == "control":
        return ["a control: no method of the paper"]
    if kind in ("trained", "untrained"):
        return list(provenance.shortfalls)
    return [] if conditions.profile in paper.profiles else [f"{conditions.profile} profile: less training than published"]


def _pairs(artifact: Artifact, line: dict, test_set: TestSet | None, facts: Mapping[str, str]) -> list[str]:
    """What is other than the paper's test set."""
    found = []
    if test_set is None:
        if artifact.data:
            ours = "procedural pairs" if line["data"].startswith(("scenes", "phantoms")) else line["data"] or "unnamed data"
            found.append(f"{ours} instead of {' or '.join(artifact.data)}")
    elif why := test_set.reason(facts.get("split", "")):
        found.append(why)
    elif test_set.pairs and line["n"] != test_set.pairs:
        found.append(f"{line['n'] if line['n'] is not None else 'an unknown number of'} pairs instead of {test_set.pairs}")
    if facts.get("size", "own size") != "own size":
        found.append(f"pairs shrunk to a {facts['size']} of pixels")
    return found


def _how(paper: Paper, artifact: Artifact, kind: str, facts: Mapping[str, str], conditions: Conditions) -> list[str]:
    """What is other than the conditions of the table. Rivals are saved as their own programs save them: that is the paper's way with them."""
    own = kind in ("classic", "published") and facts.get("own post") == "yes"
    found = []
    for name, wanted in artifact.conditions.items():
        if name in ("post", "rounding") and own:
            continue
        if (given := facts.get(name)) != wanted:
            found.append(f"{name} {given or 'not recorded'} instead of {wanted}")
    if paper.reading and kind == "trained" and conditions.reading != paper.reading:
        found.append(f"reading '{conditions.reading or 'not recorded'}' instead of '{paper.reading}'")
    return found


def _test_set(paper: Paper, artifact: Artifact, data: str) -> TestSet | None:
    """The paper's name of our data set, where the artifact was made from it."""
    return next((paper.sets[name] for name in artifact.data if paper.sets[name].set == data and data), None)


def counts(found: Iterable[dict]) -> dict[str, int]:
    """Verdict -> number of cells."""
    verdicts = [i["verdict"] for i in found]
    return {v: verdicts.count(v) for v in VERDICTS}
