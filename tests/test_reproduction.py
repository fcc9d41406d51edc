"""Ledger, printed numbers, comparison, claims, runs and the report."""

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fusionrepro import settings
from fusionrepro.errors import DataError, FusionReproError, InputError
from fusionrepro.gallery.provenance import Provenance, provenance_of, trained_here
from fusionrepro.registry import METHODS
from fusionrepro.reproduction import claims, compare, expect, ledger, protocol, readings, readme, recorded, report, ship
from fusionrepro.reproduction.run import _guesses, paper_recipe, plan, start_run
from fusionrepro.reproduction.training import read_recipe, train
from fusionrepro.training.store import load

ROOT = Path(__file__).resolve().parents[1]
# Counted on the printed tables: rows times columns.
PRINTED = {
    "a2rnet": {"fig1": 2 * 6, "table1": 8 * 2 * 2, "table2": 3 * (2 + 6), "supp_table1": 8 * 7 * 2, "supp_table2": 8 * 10 * 2},
    "smfnet": {"table1": 30 * 8, "table2": 10 * 7, "table3": 10 * 10, "table4": 14 * 6, "table5": 8 * 4},
    "daefuse": {"table1": 8 * 21},
    "msfam": {"table1": 18, "table2": 12, "table3": 4 * 6 + 3 * 6, "table4": 18, "table5": 18, "table6": 11 * 9, "table7": 7 * 5},
    "derun": {"table1": 24 * 8, "table2": 24 * 8, "table3": 15 * 4, "table4": 6 * 8, "table5": 6 * 8},
}
FIGURES = {"a2rnet": 9, "smfnet": 6, "daefuse": 4, "msfam": 9, "derun": 8}  # A2RNet's two of the supplement apart


# ---- ledger and printed numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", PRINTED)
def test_printed_numbers_are_complete(slug):
    found = {name: len(cells) for name, cells in ledger.paper_values(slug).items()}
    assert found == PRINTED[slug]
    for name, cells in ledger.paper_values(slug).items():
        assert ledger.paper(slug).artifact(name).values, f"{slug}/{name} has numbers that the ledger does not know of"
        assert all(c.page and c.text for c in cells)
        assert len({(c.data, c.row, c.column) for c in cells}) == len(cells)


def test_printed_numbers_spot_checks():
    value = lambda slug, name, *key: next(c for c in ledger.paper_values(slug)[name] if (c.data, c.row, c.column) == key)
    assert value("a2rnet", "table2", "MFNet", "M3", "PSNR").number == 63.410
    assert value("a2rnet", "table1", "MFNet", "LRRNet", "mIoU change").number == -0.027
    assert value("a2rnet", "supp_table1", "M3FD", "LRRNet", "AP@.5 Motorcycle change").number == 0.014
    assert value("smfnet", "table1", "RoadScene", "Ours", "EN").text == "7.3909"
    assert value("smfnet", "table5", "RoadScene", "Ours", "EN").text == "7.3909"  # the same model, the same set
    assert value("msfam", "table6", "TNO and RoadScene", "TIF", "Params").number is None
    assert value("derun", "table5", "VOT-RGBT2019", "DeRUN", "LADCF Failures").number == 36.11


def test_ledger_lists_every_table_and_figure():
    for slug, paper in ledger.ledger().items():
        assert set(paper.evaluate) == set(settings.profiles())
        if paper.own:
            continue
        tables = {a.id for a in paper.artifacts.values() if a.kind == "table"}
        figures = [a.id for a in paper.artifacts.values() if a.kind == "figure" and not a.id.startswith("supp")]
        assert len(figures) == FIGURES[slug] - (slug == "a2rnet"), slug
        assert tables == {name for name in PRINTED[slug] if "table" in name}
        assert {a.id for a in paper.artifacts.values() if a.values} == set(PRINTED[slug])
    assert {"supp_fig1", "supp_fig2"} <= set(ledger.paper("a2rnet").artifacts)


def test_ledger_names_data_sets_and_splits_that_exist():
    from fusionrepro.data.manifests import datasets

    for paper in ledger.ledger().values():
        assert {name for s in paper.sets.values() if s.set for name in s.set.split(" + ")} <= set(datasets())
        assert {name for names in paper.evaluate.values() for name in names} <= set(datasets())


def test_every_regenerated_artifact_is_recorded_by_its_notebook():
    for paper in ledger.ledger().values():
        done = [a for a in paper.artifacts.values() if a.status == "regenerated"]
        if not done:
            continue
        code = "\n".join("".join(c["source"]) for c in json.loads(paper.notebook.read_text())["cells"] if c["cell_type"] == "code")
        recorded = set(re.findall(r"run\.(table|figure)\(\s*\"(\w+)\"", code))
        for a in done:
            for kind in a.records:
                assert (kind, a.id) in recorded, f"{paper.notebook.name} does not record {kind} {a.id}: regenerate it or call it open"
        known = {a.id for a in done}
        assert {name for _, name in recorded} <= known, "what a notebook records, the ledger calls regenerated"


def test_ledger_refuses_mistakes():
    raw = {"kind": "table", "caption": "c", "section": "s", "status": "open", "records": ["table"]}
    with pytest.raises(InputError, match="needs a reason"):
        ledger._artifact("x", "table1", raw, {})
    with pytest.raises(InputError, match="did you mean 'open'"):
        ledger._artifact("x", "table1", raw | {"status": "opn", "reason": "r"}, {})
    with pytest.raises(InputError, match="must record a table"):
        ledger._artifact("x", "table1", raw | {"records": ["figure"], "reason": "r"}, {})
    with pytest.raises(InputError, match="did you mean 'table2'"):
        ledger.paper("a2rnet").artifact("tabel2")


# ---- comparison --------------------------------------------------------------------------------------------------------


def judged(value: float, column="PSNR", profile="paper", data="msrs", n: int | None = 361, **facts) -> dict:
    paper = ledger.paper("a2rnet")
    artifact = paper.artifact("table2")
    frame = pd.DataFrame({"model": ["M3"], column: [value]})
    cells = compare.long_form(frame, "model", data, n)
    return compare.items(paper, artifact, cells, compare.Conditions(profile, artifact.conditions | facts))[0]


def test_verdicts_follow_the_tolerance():
    assert judged(63.410)["verdict"] == "match"
    assert judged(63.410 * 1.019)["verdict"] == "match"
    assert judged(63.410 * 1.05)["verdict"] == "close"
    differs = judged(63.410 * 1.2)
    assert differs["verdict"] == "differs" and ">" in differs["why"]
    assert differs["difference"] == pytest.approx(0.2 * 63.410)


def test_rounding_alone_is_never_a_difference():
    printed = ledger.PaperValue("", "r", "c", "0.01", "", "")
    assert compare._judge(0.0149, printed, [], {"match": 0.02, "close": 0.1})["verdict"] == "match"
    assert compare._judge(0.0251, printed, [], {"match": 0.02, "close": 0.1})["verdict"] == "differs"


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"profile": "smoke"}, "smoke profile"),
        ({"profile": "laptop"}, "laptop profile"),
        ({"n": 50}, "50 pairs instead of 361"),
        ({"n": None}, "an unknown number of pairs"),
        ({"attack": "as printed"}, "attack as printed instead of as released"),
        ({"post": "clip"}, "post clip instead of"),
        ({"value": float("nan")}, "not a finite number"),
        ({"value": float("inf")}, "not a finite number"),
    ],
)
def test_what_is_not_comparable_says_why(changes, why):
    item = judged(**({"value": 63.41} | changes))
    assert item["verdict"] == "not comparable" and why in item["why"]
    assert item["paper"] == 63.410, "the paper's number stands beside ours all the same"


@pytest.mark.parametrize("data, why", [("scenes", "procedural pairs instead of MFNet"), ("tno", "tno instead of MFNet")])
def test_a_row_never_stands_beside_the_number_of_another_set(data, why):
    item = judged(63.41, data=data)
    assert (item["verdict"], item["paper"], item["why"]) == ("not comparable", None, why)


# ---- verdicts are per row ----------------------------------------------------------------------------------------------

ROWS = {  # paper -> a table, one of its sets as we call it, a rival, a column, the conditions of its own row
    "smfnet": ("table1", "tno", "DenseFuse", "EN", {"post": "minmax", "preset": "smfnet"}),
    "daefuse": ("table1", "tno", "U2Fusion", "SD", {"post": "minmax", "rounding": "round", "preset": "cddfuse"}),
    "derun": ("table1", "llvip", "U2Fusion", "EN", {"post": "clip", "preset": "derun"}),
}


def own_row(slug: str, pairs: int = 1083, **changes) -> Provenance:
    """A network trained as published, but for `changes`."""
    paper = ledger.paper(slug)
    published = paper_recipe(slug, "paper").override(**readings.fields_of(slug, paper.reading))
    return trained_here(published.override(**changes), published, pairs, 1083)


def verdict_of_row(slug: str, row: str, provenance, value=None, data: str = "", n: int | None = None, reading: str | None = None, **facts) -> dict:
    name, where, _, column, conditions = ROWS[slug]
    paper = ledger.paper(slug)
    set_ = next(s for s in paper.sets.values() if s.set == where)
    printed = next(v for v in ledger.paper_values(slug)[name] if (v.data, v.row, v.column) == (set_.name, row, column))
    frame = pd.DataFrame([{"method": row, column: printed.number if value is None else value, "provenance": provenance, "facts": conditions | facts}])
    cells = compare.long_form(frame, "method", data or where, set_.pairs if n is None else n)
    told = compare.Conditions("laptop", {"preset": conditions["preset"]}, paper.reading if reading is None else reading)
    return compare.items(paper, paper.artifact(name), cells, told)[0]


@pytest.mark.parametrize("slug", ROWS)
def test_a_row_under_the_papers_conditions_is_compared(slug):
    own = "DeRUN" if slug == "derun" else "Ours"
    assert verdict_of_row(slug, own, own_row(slug))["verdict"] == "match"
    rival = Provenance("published", "published weights, unverified")
    theirs = {"post": "minmax_rgb", "rounding": "floor", "own post": "yes"}
    assert verdict_of_row(slug, ROWS[slug][2], rival, **theirs)["verdict"] == "match", "a rival is saved as its own program saves it, in every profile"
    assert verdict_of_row(slug, ROWS[slug][2], rival, value=99.0, **theirs)["verdict"] == "differs"
    foreign = verdict_of_row(slug, ROWS[slug][2], rival, **theirs | {"own post": "no"})
    assert foreign["verdict"] == "not comparable" and "post minmax_rgb" in foreign["why"]


@pytest.mark.parametrize("slug", ROWS)
@pytest.mark.parametrize(
    "pairs, changes, table, why",
    [
        (12, {}, {}, "pairs 12 instead of 1083"),
        (1083, {"epochs": 1}, {}, "epochs"),
        (1083, {"crop": 32}, {}, "crop 32 instead of 128"),
        (1083, {"batch": 1}, {}, "batch 1 instead of"),
        (1083, {"width": 4}, {}, "width 4 instead of"),
        (1083, {}, {"post": "minmax_rgb"}, "post minmax_rgb instead of"),
        (1083, {}, {"size": "longer side 96"}, "longer side 96"),
        (1083, {}, {"data": "msrs128"}, "msrs128 instead of"),
        (1083, {}, {"n": 5}, "5 pairs instead of"),
    ],
)
def test_less_than_the_paper_is_a_reason_of_its_own(slug, pairs, changes, table, why):
    item = verdict_of_row(slug, "DeRUN" if slug == "derun" else "Ours", own_row(slug, pairs, **changes), **table)
    assert item["verdict"] == "not comparable" and any(why in r for r in item["reasons"]), item["why"]


def test_another_reading_than_the_papers_is_a_reason():
    item = verdict_of_row("smfnet", "Ours", own_row("smfnet"), reading="ours")
    assert "reading 'ours' instead of 'released'" in item["reasons"]


@pytest.mark.parametrize("slug, row", [("smfnet", "Ours"), ("daefuse", "Ours"), ("derun", "DeRUN")])
def test_controls_and_shipped_weights_are_never_matches(slug, row):
    for provenance in (Provenance("control", "control: no fusion"), provenance_of(METHODS[slug], load(slug))):
        assert verdict_of_row(slug, row, provenance)["verdict"] == "not comparable"


def test_a_guessed_formula_gives_no_match():
    name, _, _, _, conditions = ROWS["derun"]
    printed = next(v for v in ledger.paper_values("derun")[name] if (v.data, v.row, v.column) == ("LLVIP", "DeRUN", "UIQI"))
    guess = {"UIQI": "the formula is inferred from magnitudes"}
    item = compare._judge(printed.number, printed, [], {"match": 0.02, "close": 0.1}, guess["UIQI"])
    assert item["verdict"] == "close" and "inferred" in item["why"]
    assert _guesses("derun", ["UIQI", "EN", "ms"]) == guess


def test_a_training_set_that_is_not_whole_is_refused(tmp_path, monkeypatch):
    for side in ("ir", "vi"):
        folder = tmp_path / "msrs" / "train" / side
        folder.mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.full((48, 64), 10 * i, np.uint8)).save(folder / f"{i}.png")
    gpu = paper_recipe("smfnet", "gpu")
    with pytest.raises(DataError, match="msrs has 2 of its 1083 train pairs"):
        expect.check_training_set(gpu, tmp_path)
    expect.check_training_set(gpu, tmp_path, limited=True)
    expect.check_training_set(paper_recipe("smfnet", "laptop"), tmp_path)
    monkeypatch.setenv("FUSIONREPRO_DATA", str(tmp_path))
    with pytest.raises(DataError, match="-p limit=2"):
        train("smfnet:paper", progress=False)


@pytest.mark.parametrize("slug", ["a2rnet", "smfnet", "daefuse", "msfam", "derun"])
def test_what_a_training_takes_is_said_before_it_starts(slug):
    recipe = paper_recipe(slug, "paper")
    found = expect.expectation(recipe, 100)
    assert found["steps"] == recipe.epochs * math.ceil(100 * recipe.repeat / recipe.batch) and 0.1 < found["GiB"] < 40 and found["PFLOP"] > 0
    assert expect.expectation(recipe, 200)["PFLOP"] == pytest.approx(2 * found["PFLOP"], rel=0.05)
    assert "recorded yet" in expect.told(recipe, 100)


def attacked_row(artifact: str, row: str, experiment: dict, n=361, data="msrs", reading="released", pairs=1083, facts=None, **recipe) -> list[dict]:
    """The cells of a table of A2RNet that a whole run in the paper profile would make, or one with these changes."""
    paper = ledger.paper("a2rnet")
    published = paper_recipe("a2rnet", "paper").override(**readings.fields_of("a2rnet", reading), **experiment)
    about = {"post": "minmax_rgb", "rounding": "floor", "own post": "no", "size": "own size", **(facts or {})}
    made = trained_here(published.override(**recipe), published, pairs, paper.training["pairs"])
    columns = {"EN": 6.5, "SD": 8.4, "PSNR": 63.4, "CC": 0.6, "SCD": 1.4}
    frame = pd.DataFrame([{"method": row, "data": data, "n": n, **columns, "provenance": made, "facts": about}])
    attack = {"released": "as released"}.get(reading, "as printed")
    conditions = compare.Conditions("paper", {"preset": "tang2022", "attack": attack}, reading)
    found = compare.items(paper, paper.artifact(artifact), compare.long_form(frame, "method", "", None), conditions)
    return [i for i in found if i["column"] in columns and i["row"] == row]


ATTACKED = [("table2", "M3", {}), ("table2", "M1", {"unet": False}), ("fig1", "without robust operations", {"adversarial": False})]


@pytest.mark.parametrize("artifact, row, experiment", ATTACKED)
def test_a2rnet_as_published_is_compared(artifact, row, experiment):
    found = attacked_row(artifact, row, experiment)
    assert len(found) == 5 and all(i["verdict"] in ("match", "close", "differs") for i in found), [i["why"] for i in found]
    assert all(i["verdict"] != "not comparable" for i in attacked_row(artifact, row, experiment, recompute="none", seed=5)), "they change no weights"


@pytest.mark.parametrize("artifact, row, experiment", ATTACKED)
@pytest.mark.parametrize(
    "changes, why",
    [
        ({"pairs": 12}, "pairs 12 instead of 1083"),
        ({"epochs": 1}, "epochs 1 instead of 50"),
        ({"crop": 256}, "crop 256 instead of 0"),
        ({"facts": {"post": "clip"}}, "post clip instead of minmax_rgb"),
        ({"facts": {"rounding": "round"}}, "rounding round instead of floor"),
        ({"facts": {"size": "longer side 96"}}, "pairs shrunk to a longer side 96"),
        ({"n": 50}, "50 pairs instead of 361"),
        ({"reading": "ours"}, "attack as printed instead of as released; reading 'ours' instead of 'released'"),
        ({"reading": "printed"}, "reading 'printed' instead of 'released'"),
    ],
)
def test_a2rnet_otherwise_is_not_compared(artifact, row, experiment, changes, why):
    found = attacked_row(artifact, row, experiment, **changes)
    assert len(found) == 5 and all(i["verdict"] == "not comparable" and why in i["why"] for i in found), [i["why"] for i in found]


@pytest.mark.parametrize("artifact, row, experiment", ATTACKED)
@pytest.mark.parametrize("data, why", [("tno", "tno instead of MFNet"), ("scenes", "procedural pairs instead of MFNet")])
def test_a2rnet_on_another_set_stands_beside_no_printed_number(artifact, row, experiment, data, why):
    found = attacked_row(artifact, row, experiment, data=data)
    ours, printed = ([i for i in found if (i["value"] is None) == absent] for absent in (False, True))
    assert len(ours) == len(printed) == 5
    assert all((i["paper"], i["verdict"], i["why"]) == (None, "not comparable", why) for i in ours)
    assert all(i["paper"] and i["why"] == "MFNet is not in this run" for i in printed), "the paper's cells are listed all the same"


def test_what_was_nothing_before_its_stretch_is_not_scored():
    frame = pd.DataFrame({"id": ["1"], "EN": [6.0]})
    stretched = protocol.Measured(None, frame, "tang2022", lifeless="flat before the stretch")
    assert stretched.dead == "flat before the stretch" and stretched.mean().isna().all() and protocol.alive([stretched]) == []


def test_a2rnet_reads_m3fd_as_the_paper_does(monkeypatch):
    from fusionrepro.data import manifests

    asked = []
    scenes = manifests.load_dataset("scenes", "test", None, 2)
    monkeypatch.setattr(manifests, "load_dataset", lambda name, split="", *args: asked.append((name, split)) or scenes)
    start_run("a2rnet", "laptop", sets="m3fd").view("m3fd")
    assert set(asked) == {("m3fd", "detection")}


def test_what_the_paper_does_not_print_is_not_comparable():
    assert judged(1.0, "Qabf")["why"] == "the paper prints no number here"


def test_table_labels():
    frame = pd.DataFrame({"method": ["A", "A"], "state": ["clean", "attack"], "data": ["tno", "tno"], "n": [25, 25], "EN": [7.0, 6.0]})
    cells = compare.long_form(frame, ["method", "state"], "", None)
    assert list(cells["row"]) == ["A / clean", "A / attack"] and set(cells["data"]) == {"tno"} and set(cells["n"]) == {25}
    with pytest.raises(InputError, match="appear twice"):
        compare.long_form(frame, "method", "", None)
    with pytest.raises(InputError, match="no column 'model'"):
        compare.long_form(frame, "model", "", None)


# ---- claims ------------------------------------------------------------------------------------------------------------


def cells(rows: dict[str, dict[str, float]], data="tno") -> pd.DataFrame:
    return compare.long_form(pd.DataFrame(rows).T.rename_axis("row"), "row", data, None)


def claim(check: str, **fields) -> claims.Claim:
    return claims.Claim("c", "a2rnet", "s", "", "t", check, fields.pop("columns", ("X",)), **fields)


def verdict(c: claims.Claim, *frames) -> tuple[str, str]:
    out = claims._verdict(c, {"t": pd.concat(frames)} if frames else {}, "laptop")
    return out["verdict"], out["why"]


def verdict_of(c: claims.Claim, *frames) -> tuple[str, str]:
    out = claims._verdict(c, {c.table: pd.concat(frames)}, "laptop")
    return out["verdict"], out["why"].split("; of the paper's")[0]


def test_claims_hold_and_fail():
    two = cells({"a": {"X": 2.0, "Y": 1.0}, "b": {"X": 1.0, "Y": 5.0}})
    assert verdict(claim("higher", a="a", b="b"), two)[0] == "holds"
    assert verdict(claim("lower", a="a", b="b"), two)[0] == "fails"
    assert verdict(claim("higher", a="a", b="b", columns=()), two)[0] == "fails", "every column has to be so"
    other = cells({"a": {"X": 0.0}, "b": {"X": 1.0}}, "msrs")
    state, why = verdict(claim("higher", a="a", b="b"), two, other)
    assert state == "fails" and "msrs X" in why and "1 of 2" in why


def test_claims_about_changes_and_rivals():
    table = cells({"A2RNet / clean": {"X": 5.0}, "A2RNet / attack": {"X": 4.5}, "U / clean": {"X": 6.0}, "U / attack": {"X": 3.0},
                   "Average / clean": {"X": 9.0}, "Average / attack": {"X": 9.0}})  # fmt: skip
    change = claim("smaller_change", a=("A2RNet / clean", "A2RNet / attack"), b=("U / clean", "U / attack"))
    assert verdict(change, table)[0] == "holds"
    assert verdict(claim("smallest_change", a="A2RNet", rivals="learned"), table)[0] == "holds", "an average is no network"
    assert verdict(claim("smallest_change", a="A2RNet"), table)[0] == "fails", "but it is a method"
    assert verdict(claim("highest", a="A2RNet / attack", among="* / attack"), table)[0] == "fails"
    assert verdict(claim("highest", a="A2RNet / attack", among=("U / attack", "V / attack")), table)[0] == "holds"
    assert verdict(claim("highest", a="A2RNet / clean", among="* / clean"), table)[0] == "fails"


def test_claims_that_cannot_be_tested_say_why():
    alone = cells({"A2RNet": {"X": 1.0}, "Average": {"X": 2.0}})
    assert verdict(claim("lowest", a="A2RNet", rivals="learned"), alone) == ("not testable here", "no other learned method stands in the table")
    only = cells({"A2RNet": {"X": 1.0}, "A2RNet (same weights)": {"X": 2.0}, "Copy of the visible": {"X": 3.0}})
    assert verdict(claim("lowest", a="A2RNet"), only) == ("not testable here", "no other method stands in the table")
    assert verdict(claim("higher", a="A2RNet", b="B"), alone) == ("not testable here", "the table has no row 'B'")
    assert verdict(claim("higher", a="A2RNet", b="Average", columns=("Z",)), alone)[1] == "the table has no column 'Z'"
    assert verdict(claim("higher", a="A2RNet", b="B"))[1] == "t was not regenerated"
    assert all(c["verdict"] == "not testable here" for c in claims.evaluate("a2rnet", {}, "smoke"))


def test_what_a_copy_passes_too_is_not_decided():
    copy = "Copy of the visible"
    best = claim("highest", a="Ours")
    table = {"Ours": {"X": 3.0}, "TIF": {"X": 2.0}, copy: {"X": 4.0}}
    state, why = verdict(best, cells(table))
    assert state == "not decided" and f"'{copy}' passes too" in why and "Ours: tno X 3 against 2 (TIF)" in why
    assert verdict(best, cells(table | {copy: {"X": 2.5}}))[0] == "not decided", "a copy need not beat ours, it takes its place"
    assert verdict(best, cells(table | {copy: {"X": 1.0}}))[0] == "holds", "a control is no rival either"
    assert verdict(best, cells(table | {copy: {"X": float("nan")}}))[0] == "holds"
    lost = verdict(best, cells(table | {"Ours": {"X": 1.0}}))
    assert lost[0] == "not decided" and "not so in 1 of 1" in lost[1], "a number that rewards copies does not refute either"
    assert verdict(claim("higher", a="Ours", b="TIF"), cells(table))[0] == "not decided"
    # In every column and every set, or it has not passed.
    assert verdict(best, cells(table), cells(table | {copy: {"X": 0.0}}, "msrs"))[0] == "holds"
    moved = {f"{m} / {s}": {"X": v} for m, pair in {"Ours": (5, 4), "U": (6, 1), copy: (3, 3)}.items() for s, v in zip(("clean", "attack"), pair, strict=True)}
    assert verdict(claim("smallest_change", a="Ours"), cells(moved))[0] == "not decided"
    assert verdict(claim("smaller_change", a=("Ours / clean", "Ours / attack"), b=("U / clean", "U / attack")), cells(moved))[0] == "not decided"
    cheap = cells({"Ours": {"parameters": 9.0}, "U": {"parameters": 10.0}, copy: {"parameters": 0.0}})
    assert verdict(claim("lowest", a="Ours", columns=("parameters",)), cheap)[0] == "holds", "that a copy costs nothing decides nothing"


def test_a_copy_over_other_pairs_decides_nothing():
    table = counted({"Ours": (25, 9.0), "U2Fusion": (25, 5.0), "Copy of the visible": (4, 99.0)}, "PSNR")
    assert verdict(claim("highest", a="Ours", columns=("PSNR",)), table)[0] == "holds"


def test_dead_rows_neither_win_nor_lose():
    nan = float("nan")
    dead = cells({"with L_a": {"error": nan}, "without L_a": {"error": 0.079}})
    loss = next(c for c in claims.claims("a2rnet") if c.id == "fig8_loss")
    out = {c["id"]: c for c in claims.evaluate("a2rnet", {"fig8": dead}, "laptop")}["a2rnet/fig8_loss"]
    assert (out["verdict"], out["why"]) == ("not decided", "'with L_a' has no value of error")
    assert verdict_of(loss, cells({"with L_a": {"error": 0.01}, "without L_a": {"error": nan}}))[0] == "not decided"
    best = claim("highest", a="Ours")
    assert verdict(best, cells({"Ours": {"X": nan}, "U": {"X": 1.0}}))[0] == "not decided"
    assert verdict(best, cells({"Ours": {"X": 2.0}, "U": {"X": 1.0}, "V": {"X": nan}})) == ("holds", "tno X 2 against 1 (U)")
    assert verdict(best, cells({"Ours": {"X": 2.0}, "U": {"X": nan}})) == ("not decided", "no rival has a value of X")
    half = cells({"Ours / clean": {"X": 2.0}, "Ours / attack": {"X": 1.0}, "U / clean": {"X": 2.0}, "U / attack": {"X": nan},
                  "V / clean": {"X": 2.0}, "V / attack": {"X": 0.0}})  # fmt: skip
    assert verdict(claim("smallest_change", a="Ours"), half) == ("holds", "tno X 1 against 2 (V)")


def test_ranks_and_counts():
    table = cells({"Ours": {"X": 3.0, "Y": 1.0}, "U": {"X": 4.0, "Y": 0.0}, "V": {"X": 5.0, "Y": 0.5}})
    top = lambda k: verdict(claim("top", a="Ours", columns=("X", "Y"), k=k), table)
    assert top(3)[0] == "holds" and top(2) == ("fails", "not so in 1 of 2 comparisons: tno X 3 is number 3 of 3")
    count = lambda k, of=2: verdict(claim("best_in", a="Ours", columns=("X", "Y"), k=k, of=of), table)
    assert count(1) == ("holds", "best in 1 of 2 cells, claimed are 1 (tno X is number 3)") and count(2)[0] == "fails"
    assert count(1, 4) == ("not testable here", "the paper counts 4 cells, and the table has 2 of them")
    judge = cells({"judge": {"accuracy": 0.995}})
    assert verdict(claim("above", a="judge", columns=("accuracy",), k=0.99), judge) == ("holds", "tno accuracy 0.995")
    assert verdict(claim("above", a="judge", columns=("accuracy",), k=0.999), judge)[0] == "fails"
    for wrong in ({"check": "top"}, {"check": "best_in", "k": 3}, {"check": "highest", "k": 3}, {"check": "tops"}, {"check": "highest", "rivals": "lerned"}):
        with pytest.raises(InputError, match="claims.yaml, a2rnet/c"):
            claim(a="Ours", **wrong)


def test_claims_about_some_sets_look_at_no_other():
    best = claims.Claim("c", "daefuse", "s", "", "t", "highest", ("SD",), "Ours", data=("MRI-CT",))
    good, bad = ({"Ours": {"SD": a}, "U": {"SD": 1.0}} for a in (2.0, 0.5))
    assert verdict_of(best, cells(good, "mri_ct"), cells(bad, "tno")) == ("holds", "mri_ct SD 2 against 1 (U)")
    assert verdict_of(best, cells(good, "tno")) == ("not testable here", "the table has none of MRI-CT")


def test_a_rival_of_the_paper_that_is_missing_is_named():
    best = next(c for c in claims.claims("daefuse") if c.id == "table1_both_sources")
    rows = {"Ours": {"SCD": 2.0}, "TarDAL": {"SCD": 1.0}, "cddfuse": {"SCD": 1.0}, "DIDFuse": {"SCD": 1.0}, "U2Fusion": {"SCD": 1.0}, "RFN-Nest": {"SCD": 1.0}}
    out = claims._verdict(best, {"table1": cells(rows)}, "laptop")
    assert out["verdict"] == "holds" and out["why"].endswith("of the paper's 7 rivals the table lacks DDcGAN, DDFM")


def test_papers_are_held_against_their_own_tables():
    found = {f"{slug}/{c.id}": claims.in_paper(c) for slug in PRINTED for c in claims.claims(slug)}
    assert {found[k]["verdict"] for k in found} == {"holds", "fails", "not printed"}
    refuted = {k: v["why"] for k, v in found.items() if v["verdict"] == "fails"}
    assert set(refuted) == {"smfnet/table1_fidelity", "smfnet/table1_second_ssim", "daefuse/table1_best", "msfam/table7_fusion_helps"}
    assert "RoadScene Qabf 0.5831 against 0.584 (SwinFusion)" in refuted["smfnet/table1_fidelity"] and "1 of 54" in refuted["smfnet/table1_fidelity"]
    assert "TNO SSIM 1.012 is number 3 of 10" in refuted["smfnet/table1_second_ssim"]
    assert "DDFM" in refuted["daefuse/table1_best"]
    for name in ("a2rnet/table1_smallest_drop", "smfnet/table1_second_mi", "msfam/table6_top_three", "derun/table1_best_count", "derun/table2_best_count"):
        assert found[name]["verdict"] == "holds", name
    # Only what is printed nowhere may go without: a wrong row or column of claims.yaml would show here.
    assert all("prints no numbers" in v["why"] for v in found.values() if v["verdict"] == "not printed")
    shown = claims.evaluate("a2rnet", {}, "smoke")
    assert all(c["in_paper"] == found[c["id"]] for c in shown) and json.dumps(shown)


def test_level_numbers_refute_no_paper(monkeypatch):
    printed = lambda row, text: ledger.PaperValue("tno", row, "X", text, "", "p. 1")
    values = {"t": (printed("Ours", "0.79"), printed("U", "0.79"), printed("V", "-"))}
    monkeypatch.setattr(claims, "paper_values", lambda slug: values)
    fresh = claims.in_paper.__wrapped__
    assert fresh(claim("highest", a="Ours"))["verdict"] == "holds" and fresh(claim("top", a="Ours", k=1))["verdict"] == "holds"
    assert fresh(claim("highest", a="V"))["verdict"] == "not printed"
    assert fresh(claim("highest", a="W")) == {"verdict": "not printed", "why": "in the paper the table has no row 'W'"}


def counted(rows: dict[str, tuple[int, float]], column: str) -> pd.DataFrame:
    frame = pd.DataFrame([{"row": row, "n": n, column: value} for row, (n, value) in rows.items()])
    return compare.long_form(frame, "row", "tno", None)


def test_means_over_different_pairs_are_not_compared():
    best = claim("highest", a="DeRUN", columns=("PSNR",))
    rivals_unfinished = counted({"DeRUN": (25, 9.0), "U2Fusion": (4, 5.0)}, "PSNR")
    assert verdict(best, rivals_unfinished)[0] == "not decided"
    one_whole = counted({"DeRUN": (25, 9.0), "U2Fusion": (4, 50.0), "SDNet": (25, 5.0)}, "PSNR")
    assert verdict(best, one_whole)[0] == "holds", "a rival whose pictures are not all made neither wins nor loses"
    ours_unfinished = counted({"DeRUN": (4, 9.0), "U2Fusion": (25, 5.0)}, "PSNR")
    assert verdict(best, ours_unfinished) == ("not testable here", "the rows are means of PSNR over different pairs")
    # What is counted or timed needs no pairs.
    sizes = counted({"DeRUN": (25, 9.0), "U2Fusion": (4, 5.0)}, "parameters")
    assert verdict(claim("highest", a="DeRUN", columns=("parameters",)), sizes)[0] == "holds"


def test_claims_name_tables_of_the_ledger():
    for slug in PRINTED:
        for c in claims.claims(slug):
            artifact = ledger.paper(slug).artifact(c.table)
            assert "table" in artifact.records or c.id == "fig5_judge", c.id  # its accuracy is a table beside a drawing
            assert set(c.data) <= set(artifact.data)


def test_a_kept_study_is_finished_and_says_how_it_was_made(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONREPRO_RESULTS_PATH", str(tmp_path / "results"))
    run = start_run("comparison", "smoke", 1)
    run.note("Four methods took part.")
    table = pd.DataFrame({"method": ["A", "B"], "condition": "clean", "n": 2, "rank": [1.0, 2.0]})
    run.table("table2", table, row=["method", "condition"], data="scenes")
    run._write("incomplete")
    with pytest.raises(InputError, match="is not finished"):
        ship.keep_study(run.folder)
    assert not (tmp_path / "results").exists()
    run._write("ok")
    kept = ship.keep_study(run.folder)
    assert kept == tmp_path / "results" / "comparison.csv" and list(pd.read_csv(kept)["rank"]) == [1.0, 2.0]
    facts = json.loads(kept.with_suffix(".json").read_text())
    assert facts["profile"] == "smoke" and facts["seed"] == 1 and facts["notes"] and facts["versions"]["torch"]


def test_a_shipped_training_says_what_it_was_trained_on_and_by_which_loss(tmp_path, monkeypatch):
    from fusionrepro.derun import training

    monkeypatch.setattr(ship, "TESTS", ("scenes",))
    recipe = training.recipe("smoke", objective="ours", data="scenes+phantoms_gfp", limit=1, crop=24, stages=2, epochs=2, repeat=4)
    training.train(recipe, tmp_path / "run", "cpu", progress=False, stop_after=1)
    with pytest.raises(InputError, match="holds no finished training"):
        ship.ship_training(tmp_path / "run", 1, tmp_path / "weights")
    training.train(recipe, tmp_path / "run", "cpu", progress=False)
    path = ship.ship_training(tmp_path / "run", 1, tmp_path / "weights")
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["data"] == "trained on 2 pairs of scenes:train, phantoms_gfp:train, crops of 24 pixels" and card["training"].startswith("4 steps, batch 4")
    assert card["loss"].startswith("ours, not the paper's") and card["recipe"]["objective"] == "ours" and card["recipe_hash"] == recipe.hash
    assert [(m["data"], m["pairs"]) for m in card["metrics"]] == [("scenes", 1)] and card["test_data"]["scenes/test"]["pairs"] == 1


# ---- runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def table2() -> pd.DataFrame:
    columns = {"EN": [5.2, 5.7, 6.5], "SD": [7.0, 7.6, 8.5], "PSNR": [60.6, 63.2, 63.4], "CC": [0.59, 0.58, 0.6], "SCD": [1.4, 1.3, 1.4]}
    return pd.DataFrame({"model": ["M1", "M2", "M3"], **columns})


def test_run_records_and_refuses_to_finish_incomplete(table2, tmp_path):
    run = start_run("a2rnet", "smoke", 5)
    assert run.folder.parent == tmp_path / "runs" / "a2rnet" and run.folder.name.startswith("smoke-s5-")
    shown = run.table("table2", table2, "model", data="scenes", n=4, eps="4/255")
    assert len(shown.dropna(subset="value")) == 15 and set(shown["verdict"]) == {"not comparable"}
    printed = shown[shown["value"].isna()]
    assert printed["paper"].notna().all() and set(printed["why"]) == {"MFNet is not in this run"}, "what is printed stands there all the same"
    figure, axis = plt.subplots()
    axis.plot([0, 1])
    run.figure("fig6", figure, data="scenes")
    with pytest.raises(FusionReproError, match=r"did not record .*fig1 \(table\)"):
        run.finish()
    results = json.loads((run.folder / "results.json").read_text())
    assert results["status"] == "incomplete" and results["schema"] == 1 and len(results["items"]) == len(shown)
    assert {a["id"] for a in results["artifacts"]} == {"a2rnet/table2", "a2rnet/fig6"}
    assert pd.read_csv(run.folder / "tables" / "table2.csv").equals(table2)
    assert (run.folder / "figures" / "fig6.png").stat().st_size and (run.folder / "figures" / "fig6.pdf").stat().st_size
    record = json.loads((run.folder / "run.json").read_text())
    assert record["recipe"]["seed"] == 5 and record["versions"]["torch"] and record["recipe_hash"] == run.recipe.hash

    # The same again: the same numbers and pictures, whatever the time.
    texts = [(run.folder / name).read_bytes() for name in ("results.json", "tables/table2.csv")]
    again = start_run("a2rnet", "smoke", 5)
    assert again.folder == run.folder and not list((run.folder / "tables").glob("*")), "old tables go"
    again.table("table2", table2, "model", data="scenes", n=4, eps="4/255")
    again.figure("fig6", figure, data="scenes")
    with pytest.raises(FusionReproError):
        again.finish()
    assert texts == [(run.folder / name).read_bytes() for name in ("results.json", "tables/table2.csv")]


def test_run_records_data_and_fingerprint():
    run = start_run("a2rnet", "smoke", 0, pairs=2)
    data = run.dataset("scenes")
    assert len(data) == 2
    record = json.loads((run.folder / "run.json").read_text())
    assert record["data"]["scenes/test"] == {"split": "test", "pairs": 2, "fingerprint": data.fingerprint}


def test_run_parameters():
    default = plan("a2rnet", "smoke", 0)[2]
    assert plan("a2rnet", "smoke", 0, epochs=0, pairs=0, sets="")[2] == default, "0 and empty mean: what the profile says"
    assert plan("a2rnet", "smoke", 0, pairs=2)[2] != default
    assert plan("a2rnet", "smoke", 0, epochs="2")[0].epochs == 2
    for call, words in [
        (lambda: start_run("a2rnt"), "did you mean 'a2rnet'"),
        (lambda: start_run("a2rnet", "smok"), "did you mean 'smoke'"),
        (lambda: start_run("a2rnet", "smoke", "one"), "whole number"),
        (lambda: start_run("a2rnet", epoks=3), "did you mean 'epochs'"),
        (lambda: start_run("a2rnet", epochs="three"), "whole number"),
        (lambda: start_run("a2rnet", pairs=-1), "pairs must be"),
    ]:
        with pytest.raises(InputError, match=words):
            call()


def test_read_recipe(tmp_path):
    assert read_recipe("a2rnet:laptop").profile == "laptop"
    recipe = read_recipe("a2rnet", epochs="3")
    path = tmp_path / "recipe.json"
    path.write_text(recipe.to_json())
    assert read_recipe(str(path)) == recipe
    path.write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        read_recipe(str(path))
    path.write_text("{}")
    with pytest.raises(InputError, match="does not name its paper"):
        read_recipe(str(path))
    with pytest.raises(InputError, match="does not exist"):
        read_recipe("nowhere.json")


# ---- kept runs ---------------------------------------------------------------------------------------------------------


def drawn():
    """A figure with something on it."""
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot([0, 1], [1, 0])
    return figure


@pytest.fixture
def laptop(table2, tmp_path, monkeypatch):
    """A laptop run of A2RNet that recorded Table 2 and one figure; kept runs go to a folder of their own."""
    results = tmp_path / "results"
    (results / "paper").mkdir(parents=True)
    for path in (ROOT / "results" / "paper").glob("*.csv"):
        (results / "paper" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("FUSIONREPRO_RESULTS_PATH", str(results))
    run = start_run("a2rnet", "laptop", 3)
    run.table("table2", table2, "model", data="msrs", n=50, eps="4/255", post="clip")
    run.figure("fig6", drawn(), data="msrs")
    run.note("Made for a test.")
    return run


def finished(run) -> Path:
    run._write("ok")
    return run.folder


def test_a_kept_run_is_read_back_as_it_was(laptop, tmp_path):
    folder = recorded.keep(finished(laptop))
    assert folder == tmp_path / "results" / "recorded" / "a2rnet"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {"run.json", "results.json", "cells.csv", "tables/table2.csv"}, "no pictures"
    kept = recorded.kept_run("a2rnet")
    written = json.loads((laptop.folder / "results.json").read_text())
    strip = lambda items: [{k: v for k, v in i.items() if k not in ("reasons",)} for i in items]
    assert strip(kept.results["items"]) == strip(written["items"])
    assert kept.results["claims"] == written["claims"] and kept.results["notes"] == ["Made for a test."]
    assert (kept.profile, kept.name, kept.status, kept.kept) == ("laptop", laptop.folder.name, "ok", True)
    assert kept.run["recipe"]["seed"] == 3 and kept.run["versions"]["torch"] and kept.run["device_name"]
    assert recorded.stale(kept) == [] and list(recorded.kept_runs()) == ["a2rnet"]


def test_only_finished_runs_of_substance_are_kept(laptop, table2):
    with pytest.raises(InputError, match="no finished run"):
        recorded.keep(laptop.folder)
    with pytest.raises(InputError, match="is a smoke run"):
        recorded.keep(finished(start_run("a2rnet", "smoke", 0)))
    assert recorded.kept_runs() == {}
    later = start_run("a2rnet", "laptop", 4)
    assert ship.best([finished(laptop), later.folder]) == [laptop.folder], "a finished run before one that is under way"
    with pytest.raises(InputError, match="no run folder"):
        ship.best([laptop.folder.parent])


def test_ship_keeps_the_best_run_of_each_paper(laptop, capsys):
    start_run("a2rnet", "laptop", 4)
    folders = sorted(map(str, finished(laptop).parent.iterdir()))
    assert len(folders) == 2
    ship.main(folders)
    assert capsys.readouterr().out.split() == [str(recorded.kept_folder("a2rnet"))]
    assert recorded.kept_run("a2rnet").name == laptop.folder.name


def test_a_changed_transcription_makes_a_kept_run_stale(laptop):
    cells = recorded.keep(finished(laptop)) / "cells.csv"
    text = cells.read_text()
    assert ",63.410," in text
    cells.write_text(text.replace(",63.410,", ",63.510,"))
    assert recorded.stale(recorded.kept_run("a2rnet")) == ["a2rnet/table2: the paper's M3, PSNR is no longer 63.510"]
    cells.write_text("id\n")
    with pytest.raises(FusionReproError, match="keep the run anew"):
        recorded.kept_run("a2rnet")


def test_every_printed_number_is_counted_once_in_the_readme(laptop):
    paper = ledger.paper("a2rnet")
    assert "none yet" in readme._results_section()
    recorded.keep(finished(laptop))
    found = recorded.judged(paper, recorded.kept_run("a2rnet"))
    printed = [v for cells in ledger.paper_values("a2rnet").values() for v in cells if v.number is not None]
    assert len(found) == len(printed) and {j.verdict for j in found} == {"not comparable"} and all(j.reasons for j in found)
    ours = [j for j in found if any("50 pairs instead of 361" in r for r in j.reasons)]
    assert len(ours) == 15, "the cells that the run made carry the run's own reasons"
    assert all(j.reasons == (paper.artifact("table1").reason,) for j in found if j.value in ledger.paper_values("a2rnet")["table1"])
    row = readme._result(paper, recorded.kept_run("a2rnet"))
    assert row["not comparable"] == row["printed numbers"] == len(printed) and row["commonest reason"] == recorded.commonest_reason(found) != ""


def test_a_comparable_cell_counts_with_its_verdict():
    paper = ledger.paper("a2rnet")
    items = [judged(63.410) | {"row": "M3"}, judged(1.0, "EN")]
    run = recorded.Recorded(Path("x"), {"paper": "a2rnet", "items": items, "artifacts": []}, {}, {})
    counts = compare.counts([{"verdict": j.verdict} for j in recorded.judged(paper, run)])
    assert counts["match"] == 1 and counts["differs"] == 1 and counts["close"] == 0


# ---- the report --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Links, texts, tags and tag balance of a page."""

    VOID = {"meta", "img", "br", "link", "hr", "input"}

    def __init__(self, text: str):
        super().__init__()
        self.links, self.texts, self.open, self.tags = [], [], [], []
        self.feed(text)
        assert not self.open, f"unclosed {self.open}"

    def handle_starttag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("href", "src")]
        if tag == "table":
            parent = next(a for t, a in reversed(self.tags) if t == "div")
            assert "scroll" in parent["class"], "a table scrolls in a region of its own"
            assert parent["tabindex"] == "0" and parent["role"] == "region" and parent["aria-label"]
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()

    def handle_data(self, data):
        self.texts.append(data.strip())


def pages(folder: Path) -> dict[str, Page]:
    found = {p.name: Page(p.read_text(encoding="utf-8")) for p in folder.glob("*.html")}
    for page in found.values():
        for link in page.links:
            assert not re.match(r"(https?:)?//", link), f"{link} needs a network"
            assert (folder / link.split("#")[0]).exists(), f"{link} leads nowhere"
        for tag, attributes in page.tags:
            assert "title" not in attributes, "nothing is said only to a pointer"
            assert tag != "img" or int(attributes["width"]) * int(attributes["height"]) > 0 and attributes["alt"]
    return found


def test_report_without_runs(tmp_path):
    index = report.write_report()
    assert index == tmp_path / "runs" / "report" / "index.html"
    found = pages(index.parent)
    assert set(found) == {"index.html", *(f"{slug}.html" for slug in ledger.ledger())}
    assert "0 of 59" in found["index.html"].texts
    assert "7.3909" in found["smfnet.html"].texts, "the paper's numbers stand there before any run"


def test_report_shows_ours_beside_the_papers(table2, tmp_path):
    run = start_run("a2rnet", "smoke", 0)
    run.table("table2", table2, "model", data="msrs", n=4, eps="4/255", post="clip")
    run.figure("fig6", drawn(), data="scenes", caption="<b>ours</b>")
    run.note("A <sentence> to read.")
    other = start_run("a2rnet", "smoke", 1)
    other.table("table2", table2, "model", data="scenes", n=4)
    (other.folder / "job.json").write_text(json.dumps({"status": "failed", "error": "cell 3: ValueError: no"}))
    folder = report.write_report().parent
    found = pages(folder)
    main, failed = found["a2rnet.html"], found[f"a2rnet-{other.folder.name}.html"]
    at = main.texts.index("60.600")
    assert main.texts[at + 1] == "60.673", "the paper's number stands right below ours, with as many digits"
    assert main.texts.count("60.673") == 1
    assert main.texts.count("4 pairs instead of 361") == 1, "a reason stands once below its table"
    at = failed.texts.index("60.6")
    assert failed.texts[at + 1] != "60.673" and "60.673" in failed.texts, "of other data the paper's number has a row of its own"
    assert "made by the run" in failed.texts and any(t.startswith("printed by the paper") for t in failed.texts)
    assert "<b>ours</b>" in " ".join(main.texts) and "A <sentence> to read." in main.texts
    assert "width" not in main.texts and "crop" in main.texts, "the entries of the recipe that differ from the published ones"
    assert any("ValueError: no" in t for t in failed.texts)
    assert (folder / "a2rnet" / run.folder.name / "figures" / "fig6.png").exists()
    report.write_report()
    assert len(list(folder.parent.glob(".report-*"))) == 0


def damage(run, **changes) -> None:
    path = run.folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [{"items": [{"id": "a2rnet/table2"}]}, {"claims": 3}, {"artifacts": ["fig6"]}, {"notes": None}, {"status": []}],
    ids=lambda c: "+".join(c),
)
def test_a_broken_record_costs_its_own_place_only(table2, changes, tmp_path):
    whole, broken = start_run("a2rnet", "smoke", 0), start_run("a2rnet", "smoke", 1)
    whole.table("table2", table2, "model", data="scenes", n=4)
    damage(broken, **changes)
    (tmp_path / "runs" / "a2rnet" / "cut").mkdir()
    (tmp_path / "runs" / "a2rnet" / "cut" / "results.json").write_text('{"schema": 1')
    found = pages(report.write_report().parent)
    assert set(found) == {"index.html", *(f"{slug}.html" for slug in ledger.ledger())}
    assert "60.6" in " ".join(found["a2rnet.html"].texts)
    said = [t for t in found["index.html"].texts if "cannot be read as results of a run" in t]
    assert len(said) == 2 and any(broken.folder.name in t for t in said)


def test_a_broken_kept_run_costs_its_own_place_only(laptop):
    folder = recorded.keep(finished(laptop))
    (folder / "cells.csv").write_text("id\n")
    found = pages(report.write_report().parent)
    assert "60.600" in found["a2rnet.html"].texts, "the run itself is shown"
    assert any("recorded/a2rnet" in t and "cannot be read" in t for t in found["index.html"].texts)


def test_what_failed_is_shown_failed(table2):
    run = start_run("a2rnet", "smoke", 0)
    for name in ("fig6", "fig2", "fig3"):
        run.figure(name, drawn(), data="scenes")
    (run.folder / "figures" / "fig2.png").unlink()
    entries = json.loads((run.folder / "results.json").read_text())["artifacts"]
    damage(run, artifacts=[a | {"status": "failed", "why": "every picture is flat"} if a["id"] == "a2rnet/fig6" else a for a in entries])
    view = report.paper_view(ledger.paper("a2rnet"), report.recorded_runs()[0][0], [])
    assert [v["artifact"].id for v in view["done"]] == ["fig3"] and [v["artifact"].id for v in view["failed"]] == ["fig2", "fig6"]
    texts = " ".join(pages(report.write_report().parent)["a2rnet.html"].texts)
    assert "every picture is flat" in texts and "figures/fig2.png is missing" in texts


def test_claims_stand_beside_the_papers_own_table_and_the_kept_run(laptop):
    recorded.keep(finished(laptop))
    run = start_run("a2rnet", "smoke", 0)
    own = json.loads((run.folder / "results.json").read_text())["claims"]
    first = own[0] | {"verdict": "not decided", "why": "a copy passes, too", "in_paper": {"verdict": "fails", "why": "0.5831 against 0.584"}}
    damage(run, claims=[first, *({k: v for k, v in c.items() if k != "in_paper"} for c in own[1:])])
    view = report.paper_view(ledger.paper("a2rnet"), next(r for r in report.recorded_runs()[0] if r.profile == "smoke"), [], recorded.kept_run("a2rnet"))
    assert [where for where, *_ in view["claims"][0]["verdicts"]] == ["this run", "the paper's own table", "kept laptop run"]
    assert [where for where, *_ in view["claims"][1]["verdicts"]] == ["this run", "kept laptop run"]
    found = pages(report.write_report().parent)
    assert {"0.5831 against 0.584", "a copy passes, too"} <= set(found["a2rnet-" + run.folder.name + ".html"].texts)


def test_the_kept_run_stands_beside_any_other_and_alone(laptop):
    recorded.keep(finished(laptop))
    for path in sorted(laptop.folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    texts = pages(report.write_report().parent)["a2rnet.html"].texts
    assert "Kept laptop run, tno, msrs" in texts and "60.600" in texts and "50 pairs instead of 361" in texts
    start_run("a2rnet", "smoke", 0)
    texts = pages(report.write_report().parent)["a2rnet.html"].texts
    assert "Kept laptop run, tno, msrs" in texts and "60.600" in texts


def item(row: str, column: str, value: float | None, **more) -> dict:
    """A cell of Table 2 of A2RNet that is not comparable."""
    plain = {"id": "a2rnet/table2", "data": "msrs", "row": row, "column": column, "value": value, "n": 4, "paper": 1.0, "printed": "1.0", "page": ""}
    return plain | {"difference": None, "tolerance": None, "verdict": "not comparable", "why": "; ".join(more.get("reasons", ()))} | more


def table(*items: dict) -> dict:
    paper = ledger.paper("a2rnet")
    values = tuple(ledger.PaperValue("MFNet", i["row"], i["column"], i["printed"], "", "") for i in items if i["printed"])
    return report.table_view(paper, paper.artifact("table2"), list(items), values)


def test_notes_of_a_table_are_given_once_and_where_they_belong():
    view = table(
        item("A", "EN", 1.0, reasons=["all", "row A", "one cell"], provenance="classic"),
        item("A", "SD", 2.0, reasons=["all", "row A"], provenance="classic"),
        item("B", "EN", 3.0, reasons=["all"], provenance="published weights, unverified"),
        item("C", "EN", None, reasons=["no weights", "sets differ"], provenance="printed by the paper, not built here: no weights"),
    )
    text = {n.number: n.text for n in view["notes"]}
    assert [n.text for n in view["notes"] if n.everywhere] == ["all"], "a row that only the paper has does not count"
    assert len(set(text.values())) == len(text) == 4
    a, b, c = view["lines"]
    said = lambda numbers: [text[n] for n in numbers]
    assert said(a.notes) == ["row A"] and said(a.cells[0].notes) == ["one cell"] and said(a.cells[1].notes) == []
    assert said(b.notes) == [] and said(c.notes) == ["sets differ"], "what the row itself says is not noted again"
    assert (a.own, c.own) == (True, False) and c.cells[0].paper == "1.0" and c.cells[0].ours == ""
    assert [line.provenance for line in view["lines"]] == ["classic", "published weights, unverified", "printed by the paper, not built here: no weights"]


def test_a_kept_table_shows_the_rows_that_the_run_made():
    paper = ledger.paper("a2rnet")
    values = (ledger.PaperValue("MFNet", "A", "EN", "1.0", "", ""), ledger.PaperValue("MFNet", "B", "EN", "2.0", "", ""))
    made = item("A", "EN", 1.0, reasons=["r"])
    lines = lambda **options: [line.row for line in report.table_view(paper, paper.artifact("table2"), [made], values, **options)["lines"]]
    assert lines() == ["A", "B"] and lines(ours_only=True) == ["A"]


def test_a_compared_cell_says_its_verdict_in_words():
    view = table(item("A", "EN", 1.05, verdict="close", why="|0.05| <= 0.1", difference=0.05, tolerance=0.02))
    cell = view["lines"][0].cells[0]
    assert (cell.verdict, cell.difference, cell.ours, cell.paper) == ("close", "+5.0%", "1.1", "1.0") and view["notes"] == []


def test_no_row_stands_beside_another_sets_number():
    paper = ledger.paper("smfnet")
    artifact = paper.artifact("table4")
    printed = ledger.paper_values("smfnet")["table4"]
    frame = pd.DataFrame({"method": ["Ours", "Ours", "Ours"], "data": ["phantoms_mri_ct", "mri_ct", "mri_pet"], "SF": [1.0, 2.0, 3.0]})
    items = compare.items(paper, artifact, compare.long_form(frame, "method", "", 4), compare.Conditions("laptop", {}))
    view = report.table_view(paper, artifact, items, printed)
    sf = [name for name, _ in view["columns"]].index("SF")
    beside = {line.data: line.cells[sf].paper for line in view["lines"] if line.own}
    assert beside["phantoms_mri_ct"] == beside["mri_ct"] == "" and beside["mri_pet"] != ""
    assert sum(1 for line in view["lines"] for c in line.cells if c.paper) == len(printed), "every printed number stands there once"


# ---- the report's colours ----------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb in [0, 1] (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_reports_colours_are_read_by_everybody(scheme):
    """WCAG AA: 4.5 for text, 3 for the ring around what the keyboard has reached."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    style = (ROOT / "fusionrepro" / "reproduction" / "templates" / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    colours = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]
    c = colours[0] if scheme == "light" else colours[1]
    assert len(colours) == 2 and set(colours[0]) == set(colours[1])
    pairs = {(kind, f"{kind}-bg") for kind in ("match", "close", "differs", "quiet")}  # chips, tiles, verdicts in cells
    pairs |= {(text, ground) for text in ("ink", "soft", "link", "accent") for ground in ("paper", "card")}
    pairs |= {(text, f"{kind}-bg") for text in ("ink", "soft") for kind in ("match", "close", "differs")}  # numbers in cells, notices
    low = {pair: round(contrast(c[pair[0]], c[pair[1]]), 2) for pair in pairs if contrast(c[pair[0]], c[pair[1]]) < 4.5}
    assert not low
    assert min(contrast(c["link"], c[ground]) for ground in ("paper", "card")) >= 3


def test_package_data_is_found_from_anywhere():
    """The YAML and the templates travel with the package."""
    code = "from fusionrepro.reproduction import ledger, claims; ledger.ledger(); claims.claims('a2rnet')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/", timeout=120)
