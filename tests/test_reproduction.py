"""Ledger, printed numbers, comparison, claims, runs and the report."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from fusionrepro import settings
from fusionrepro.errors import FusionReproError, InputError
from fusionrepro.reproduction import claims, compare, ledger, protocol, report, ship
from fusionrepro.reproduction.run import plan, start_run
from fusionrepro.reproduction.training import read_recipe

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
        assert {s.set for s in paper.sets.values() if s.set} <= set(datasets())
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
        ({"data": "scenes"}, "procedural scenes instead of MFNet"),
        ({"data": "tno"}, "tno instead of MFNet"),
        ({"n": 50}, "50 pairs instead of 361"),
        ({"n": None}, "an unknown number of pairs"),
        ({"eps": "8/255"}, "eps 8/255 instead of 4/255"),
        ({"post": "clip"}, "post clip instead of"),
        ({"value": float("nan")}, "not a finite number"),
        ({"value": float("inf")}, "not a finite number"),
    ],
)
def test_what_is_not_comparable_says_why(changes, why):
    item = judged(**({"value": 63.41} | changes))
    assert item["verdict"] == "not comparable" and why in item["why"]
    assert item["paper"] == 63.410, "the paper's number stands beside ours all the same"


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
    assert verdict(claim("smallest_change", a="A2RNet"), table)[0] == "holds", "an average is no rival"
    assert verdict(claim("highest", a="A2RNet / attack", among="* / attack"), table)[0] == "holds"
    assert verdict(claim("highest", a="A2RNet / clean", among="* / clean"), table)[0] == "fails"


def test_claims_that_cannot_be_tested_say_why():
    alone = cells({"A2RNet": {"X": 1.0}, "Average": {"X": 2.0}})
    assert verdict(claim("lowest", a="A2RNet"), alone) == ("not testable here", "no other learned method stands in the table")
    assert verdict(claim("higher", a="A2RNet", b="B"), alone) == ("not testable here", "the table has no row 'B'")
    assert verdict(claim("higher", a="A2RNet", b="Average", columns=("Z",)), alone)[1] == "the table has no column 'Z'"
    assert verdict(claim("higher", a="A2RNet", b="B"))[1] == "t was not regenerated"
    assert all(c["verdict"] == "not testable here" for c in claims.evaluate("a2rnet", {}, "smoke"))


def counted(rows: dict[str, tuple[int, float]], column: str) -> pd.DataFrame:
    frame = pd.DataFrame([{"row": row, "n": n, column: value} for row, (n, value) in rows.items()])
    return compare.long_form(frame, "row", "tno", None)


def test_means_over_different_pairs_are_not_compared():
    best = claim("highest", a="DeRUN", columns=("PSNR",))
    apart = counted({"DeRUN": (25, 9.0), "U2Fusion": (4, 5.0)}, "PSNR")
    assert verdict(best, apart) == ("not testable here", "the rows are means of PSNR over different pairs")
    fair = counted({"DeRUN": (25, 9.0), "DeRUN (same pairs)": (4, 4.0), "U2Fusion": (4, 5.0)}, "PSNR")
    assert verdict(best, fair)[0] == "fails", "over the same pairs it is not the best"
    # What is counted or timed needs no pairs, and is only in the method's own row.
    sizes = counted({"DeRUN": (25, 9.0), "DeRUN (same pairs)": (4, float("nan")), "U2Fusion": (4, 5.0)}, "parameters")
    assert verdict(claim("highest", a="DeRUN", columns=("parameters",)), sizes)[0] == "holds"


def test_fair_rows_are_over_the_pairs_that_all_saw():
    seen = lambda *values: protocol.Measured(pd.DataFrame([{"id": str(i), "EN": v} for i, v in enumerate(values)]), {"0": None, "2": None}, {})
    rows = protocol.fair({"Ours": seen(1.0, 2.0, 6.0), "Average": seen(5.0, 7.0)})
    assert list(rows) == ["Ours", "Ours (same pairs)", "Average"]
    assert rows["Ours"].mean()["EN"] == 3.0 and rows["Ours (same pairs)"].mean()["EN"] == 1.5 and list(rows["Ours (same pairs)"].pictures) == ["0"]
    table = protocol.comparable(pd.DataFrame({name: r.mean() for name, r in rows.items()}).T)
    assert list(table.index) == ["Ours", "Average"] and table.at["Ours", "EN"] == 1.5
    assert list(protocol.fair({"Ours": seen(1.0), "Average": seen(5.0)})) == ["Ours", "Average"]


def test_claims_name_tables_of_the_ledger():
    found = claims.claims("a2rnet")
    assert len(found) >= 6
    for c in found:
        assert "table" in ledger.paper("a2rnet").artifact(c.table).records


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
    assert len(shown) == 15 and set(shown["verdict"]) == {"not comparable"} and shown["paper"].notna().all()
    figure = plt.figure()
    run.figure("fig6", figure, data="scenes")
    with pytest.raises(FusionReproError, match=r"did not record .*fig1 \(table\)"):
        run.finish()
    results = json.loads((run.folder / "results.json").read_text())
    assert results["status"] == "incomplete" and results["schema"] == 1 and len(results["items"]) == 15
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


# ---- the report --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Links, texts and tag balance of a page."""

    VOID = {"meta", "img", "br", "link", "hr", "input"}

    def __init__(self, text: str):
        super().__init__()
        self.links, self.texts, self.open = [], [], []
        self.feed(text)
        assert not self.open, f"unclosed {self.open}"

    def handle_starttag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("href", "src")]
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
    run.table("table2", table2, "model", data="scenes", n=4, eps="4/255", post="clip")
    run.figure("fig6", plt.figure(), data="scenes", caption="<b>ours</b>")
    run.note("A <sentence> to read.")
    other = start_run("a2rnet", "smoke", 1)
    other.table("table2", table2, "model", data="scenes", n=4)
    (other.folder / "job.json").write_text(json.dumps({"status": "failed", "error": "cell 3: ValueError: no"}))
    (tmp_path / "runs" / "a2rnet" / "broken").mkdir()
    (tmp_path / "runs" / "a2rnet" / "broken" / "results.json").write_text('{"schema": 1')
    folder = report.write_report().parent
    found = pages(folder)
    main, failed = found["a2rnet.html"], found[f"a2rnet-{other.folder.name}.html"]
    at = main.texts.index("60.600")
    assert main.texts[at + 1] == "60.673", "the paper's number stands right below ours, with as many digits"
    assert any("procedural scenes instead of MFNet" in t for t in main.texts)
    assert "<b>ours</b>" in " ".join(main.texts) and "A <sentence> to read." in main.texts
    assert any("ValueError: no" in t for t in failed.texts)
    assert any("cannot be read" in t for t in found["index.html"].texts)
    assert (folder / "a2rnet" / run.folder.name / "figures" / "fig6.png").exists()
    report.write_report()
    assert len(list(folder.parent.glob(".report-*"))) == 0


def test_package_data_is_found_from_anywhere():
    """The YAML and the templates travel with the package."""
    code = "from fusionrepro.reproduction import ledger, claims; ledger.ledger(); claims.claims('a2rnet')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/", timeout=120)
