"""Trainings that fill the minutes they are given; seconds on a CPU."""

import json

import pytest
import torch

from fusionrepro.errors import InputError
from fusionrepro.reproduction import budget
from fusionrepro.reproduction.run import paper_recipe
from fusionrepro.reproduction.training import train
from fusionrepro.training.loop import Pace, pacing, stopwatch
from fusionrepro.training.store import load


def small(paper="derun", **changes):
    return paper_recipe(paper, "smoke", limit=2, crop=24, **changes)


@pytest.fixture
def paces(monkeypatch):
    """A machine whose steps take a second; counts how often it was measured."""
    asked = []

    def measure(recipe, device):
        asked.append(recipe)
        return [Pace(recipe.paper, "fusion", 1, recipe.epochs, 1.0, 1.0)]

    monkeypatch.setattr(budget, "measure", measure)
    return asked


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONREPRO_RUNS_PATH", str(tmp_path))
    return tmp_path


def test_epochs_fill_the_seconds_beside_the_other_fits():
    recipe = small("msfam", epochs=4)
    found = [Pace("msfam-first", "first", 10, 2, 1.0, 1.0), Pace("msfam", "fusion", 5, 4, 2.0, 4.0)]
    assert [p.total for p in found] == [20.0, 4 * (4 * 2.0 + 4.0)]
    assert budget.epochs_for(recipe, found, 20 + 12 * 7 + 5) == 7
    with pytest.raises(InputError, match="every epoch 12.0 s here; give more minutes"):
        budget.epochs_for(recipe, found, 31)


def test_the_recipe_is_written_before_training_and_taken_up_again(runs, paces, monkeypatch):
    recipe = small(stages=2, width=4, repeat=2)
    first, path = budget.fit_to_minutes(recipe, 0.1, runs, "cpu")
    written = json.loads(path.read_text())
    assert first.epochs == 5 and written["recipe"]["epochs"] == 5 and written["minutes"] == 0.1
    assert written["steps"] == 5 and written["measured"][0]["seconds"] == 1.0
    again, _ = budget.fit_to_minutes(recipe, 0.1, runs, "cpu")
    assert again == first and len(paces) == 1
    other, elsewhere = budget.fit_to_minutes(recipe, 0.2, runs, "cpu")
    assert elsewhere != path and other.epochs == 11 and len(paces) == 2
    with pytest.raises(InputError, match="minutes must be more than 0"):
        budget.fit_to_minutes(recipe, -1, runs)


def test_a_call_that_broke_off_goes_on_with_the_same_training(runs, paces, monkeypatch):
    from fusionrepro.derun import training

    how = dict(device="cpu", progress=False, limit=2, crop=24, stages=2, width=4, repeat=2, initial="random")
    whole = training.train

    def killed(recipe, folder, **options):
        whole(recipe, folder, stop_after=2, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        train("derun", minutes=0.1, **how)
    monkeypatch.setattr(training, "train", whole)
    path = train("derun", minutes=0.1, **how)
    assert len(paces) == 1
    (fixed,) = (runs / "training" / "derun").glob("*min.json")
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["minutes"] == 0.1 and card["steps"] == card["recipe"]["epochs"] == 5
    # The file is an ordinary recipe; trained without a break elsewhere it gives the same weights.
    monkeypatch.setenv("FUSIONREPRO_RUNS_PATH", str(runs / "elsewhere"))
    alone = train(str(fixed), device="cpu", progress=False)
    one, two = (load("derun", p).state_dict() for p in (path, alone))
    assert alone != path and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("paper, fits", [("derun", {"derun"}), ("daefuse", {"daefuse"}), ("smfnet", {"smfnet"}), ("msfam", {"msfam-first", "msfam-judge", "msfam"}),
                                         ("a2rnet", {"a2rnet-label", "a2rnet"})])  # fmt: skip
def test_every_fit_of_every_paper_is_measured(paper, fits, tmp_path, monkeypatch):
    from importlib import import_module

    recipe = paper_recipe(paper, "smoke")
    with pacing(1) as found:
        import_module(f"fusionrepro.{paper}.training").train(recipe, recipe.folder(tmp_path), device="cpu", progress=False)
    assert {p.run for p in found} == fits and all(p.seconds > 0 and p.last > 0 and p.steps > 0 for p in found)
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob("losses.csv"))


def test_measuring_leaves_training_as_it_was(tmp_path):
    from fusionrepro.derun import training

    recipe = small(stages=2, width=4, initial="random")
    before = training.train(recipe, tmp_path / "a", "cpu", progress=False)
    assert budget.measure(recipe, "cpu")[0].epochs == recipe.epochs
    after = training.train(recipe, tmp_path / "b", "cpu", progress=False)
    assert after.fit.status == "trained"
    assert all(torch.equal(a, b) for a, b in zip(before.module.parameters(), after.module.parameters(), strict=True))


def test_time_that_others_took_does_not_count():
    import time

    own, wall = stopwatch(True), stopwatch(False)
    time.sleep(0.3)  # as if another program had the processor
    assert own() < 0.1 < 0.3 <= wall()


def test_training_steps_in_every_way():
    rows = budget.bench_steps(["derun"], crop=32, batch=1, repeats=1)
    assert [r["arithmetic"] for r in rows] == list(budget.STEP_WAYS) and {r["fit"] for r in rows} == {"derun"}
    assert rows[0]["ratio"] == 1 and all(r["ratio"] == pytest.approx(r["seconds"] / rows[0]["seconds"]) for r in rows)
    with pytest.raises(InputError, match="did you mean 'derun'"):
        budget.bench_steps(["derum"])
