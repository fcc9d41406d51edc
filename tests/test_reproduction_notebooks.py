"""The main job: every reproduction notebook runs under `smoke` and leaves what the ledger promises; one does so twice."""

import json
from pathlib import Path

import pytest

from fusionrepro import settings
from fusionrepro.reproduction import ledger, runner
from fusionrepro.reproduction.report import write_report

# Less of everything: what is computed is the same.
LESS = {"pairs": "2", "epochs": "1", "side": "56"}
PAPERS = [p.slug for p in ledger.ledger().values() if p.notebook.is_file()]
TWICE = "a2rnet"  # one is run again; that trainings of the others repeat themselves, their own tests say


def smoke(slug: str, folder: Path, monkeypatch) -> tuple[Path, dict]:
    """The run folder and results of a fresh smoke run whose every file lies below `folder`."""
    monkeypatch.setenv("FUSIONREPRO_RUNS_PATH", str(folder))
    monkeypatch.delenv("FUSIONREPRO_DATA", raising=False)
    less = {k: v for k, v in LESS.items() if k != "epochs" or not ledger.paper(slug).own}
    outcomes = runner.batch(runner.plan([slug], "smoke", 0, "", less))
    assert [o.status for o in outcomes] == ["ok"], outcomes
    found = list((settings.path("runs_path") / slug).glob("smoke-*/results.json"))
    assert len(found) == 1
    return found[0].parent, json.loads(found[0].read_text())


@pytest.mark.parametrize("slug", PAPERS)
def test_smoke_run_leaves_what_the_ledger_promises(slug, tmp_path, monkeypatch):
    folder, results = smoke(slug, tmp_path / "first", monkeypatch)
    paper = ledger.paper(slug)
    recorded = {a["id"]: a for a in results["artifacts"]}
    for artifact in paper.artifacts.values():
        assert (artifact.status == "regenerated") == (artifact.address in recorded), artifact.address
        for kind in artifact.records if artifact.status == "regenerated" else ():
            assert (folder / recorded[artifact.address][kind]).stat().st_size > 0
    assert results["status"] == "ok"
    for cell in json.loads((folder / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]:
        shown = [o["output_type"] for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
        assert not {"display_data", "execute_result"} <= set(shown), f"shown twice: {''.join(cell['source'])[-80:]}"
    compared = {(i["id"].partition("/")[2], i["column"]) for i in results["items"] if i["verdict"] != "not comparable"}
    assert all(column in paper.artifact(name).always for name, column in compared), "on procedural pairs only what needs no pairs is compared"
    assert {a["status"] for a in results["artifacts"]} == {"regenerated"}
    assert all(i["why"] for i in results["items"])
    index = write_report()
    assert paper.title in index.read_text(encoding="utf-8")

    if slug == TWICE:
        _, again = smoke(slug, tmp_path / "second", monkeypatch)
        assert again == results, "the same seed on the same machine gives the same numbers"
