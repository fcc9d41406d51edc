"""Maintainer's tool: keep what runs gave. `python -m fusionrepro.reproduction.ship RUN_FOLDER ... [--network [--pairs N]]`

Of a paper's run it keeps the numbers, `results/recorded/<paper>/` (of several runs of one paper: the best), which the report and the README show.
With `--network` it also publishes the trained network, `fusionrepro/weights/<paper>.safetensors`, and its model card. Every number of the card is
measured: the attacked ones by the run, the clean ones here, on the very file that ships and on N pairs a set (default: the run's).
Of the folder of a finished `fusionrepro train`, which has no run around it, it publishes the network with a card measured on all `TESTS` that are on this machine.
Of a run of `comparison` it keeps the mean ranks and how they were made, `results/comparison.csv` and `.json`. `make readme` shows all of it.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from fusionrepro import settings
from fusionrepro.data.manifests import load_dataset, status
from fusionrepro.errors import FusionReproError, InputError
from fusionrepro.data.pairs import Pair
from fusionrepro.files import write_text
from fusionrepro.gallery.subjects import subject
from fusionrepro.gallery.view import View
from fusionrepro.registry import METHODS
from fusionrepro.reproduction import ledger, recorded
from fusionrepro.reproduction.protocol import card_rows
from fusionrepro.reproduction.run import environment
from fusionrepro.reproduction.training import read_recipe
from fusionrepro.training import store
from fusionrepro.training.crops import training_pairs
from fusionrepro.training.loop import Fit
from fusionrepro.training.recipe import Recipe


def ship(run_folder: Path, pairs: int = 0) -> Path:
    """Publish the main network of a run with its card; gives the weight file."""
    run = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    slug, recipe = run["paper"], read_recipe(str(run_folder / "run.json"))
    trained = import_module(f"fusionrepro.{slug}.training").train(recipe, recipe.folder(run_folder.parents[1] / "training"), device="cpu")
    if trained.fit.status != "loaded":
        raise InputError(f"{run_folder} has no finished training beside it; run `fusionrepro run {slug}` to its end.")
    if store.weights_sha256(trained.module) != run["weights"][METHODS[slug].title]:
        raise InputError(f"the trained weights beside {run_folder} are not those of the run; run it again.")
    options = recipe.pick(METHODS[slug].options)
    folder = settings.root() / "fusionrepro" / "weights"
    path = store.publish(slug, trained.module, {"options": options}, folder)
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    facts = _provenance(run, trained.fit.steps) | {"metrics": _clean(slug, path, run, pairs), "under_attack": _attacked(run_folder, METHODS[slug].title)}
    write_text(path.with_suffix(".json"), json.dumps(card | facts, indent=1, ensure_ascii=False) + "\n")
    return path


TESTS = ("tno", "roadscene", "msrs", "mri_pet", "mri_spect", "gfp")


def ship_training(folder: Path, pairs: int = 0, into: Path | None = None) -> Path:
    """Publish the network of a finished `fusionrepro train` with its card; gives the weight file.

    `pairs`: at most so many of a test set; `into`: another folder than that of the shipped weights.
    """
    recipe = read_recipe(str(folder / "recipe.json"))
    training = import_module(f"fusionrepro.{recipe.paper}.training")
    if not (folder / "weights.safetensors").is_file():
        raise InputError(f"{folder} holds no finished training; run `fusionrepro train {folder / 'recipe.json'}` to its end.")
    trained = training.train(recipe, folder, device="cpu")
    options = recipe.pick(METHODS[recipe.paper].options)
    path = store.publish(recipe.paper, trained.module, {"options": options}, into or settings.root() / "fusionrepro" / "weights")
    tests = {name: load_dataset(name, "test", limit=pairs) for name in TESTS if status(name).state in ("ready", "built in")}
    facts = _training_facts(recipe, trained.fit, getattr(training, "OBJECTIVES", {}).get(getattr(recipe, "objective", ""), ""))
    facts |= {"test_data": {f"{k}/test": {"split": "test", "pairs": len(t), "fingerprint": t.fingerprint} for k, t in tests.items()}}
    facts |= {"metrics": _measured(recipe.paper, path, tests), "under_attack": []}
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    write_text(path.with_suffix(".json"), json.dumps(card | facts, indent=1, ensure_ascii=False) + "\n")
    return path


def _training_facts(recipe: Recipe, fit: Fit, loss: str) -> dict[str, Any]:
    """Where the weights of a training come from, for people and for programs; `loss` names one that is not the paper's or is empty."""
    here = environment(settings.device("cpu"))
    names = ", ".join(name if ":" in name else f"{name}:{recipe.split}" for name in recipe.data.split("+"))
    count = len(training_pairs(recipe))
    return {
        "title": METHODS[recipe.paper].title,
        "reference": ledger.paper(recipe.paper).reference,
        "data": f"trained on {count} pairs of {names}, crops of {recipe.crop} pixels",
        "training": f"{fit.steps} steps, batch {recipe.batch}, seed {recipe.seed}, {fit.seconds / 3600:.1f} hours on a shared {here['device_name']} (cpu)",
        "loss": loss,
        "comparability": ("Another loss, other" if loss else "Other") + " data and less training than published, so not comparable with the paper's numbers.",
        "profile": recipe.profile,
        "recipe": json.loads(recipe.to_json()),
        "recipe_hash": recipe.hash,
        "hours": fit.seconds / 3600,
        "commit": here["commit"],
        "versions": here["versions"],
    }


def keep_study(run_folder: Path) -> Path:
    """Keep the mean ranks of a finished comparison and the facts of its run; gives the table."""
    run, results = (json.loads((run_folder / name).read_text(encoding="utf-8")) for name in ("run.json", "results.json"))
    if results["status"] != "ok":
        raise InputError(f"{run_folder} is not finished; run `fusionrepro run comparison` to its end.")
    known = ("profile", "seed", "tests", "data", "weights", "versions", "commit", "dirty", "device", "device_name", "threads", "seconds")
    path = settings.path("results_path") / "comparison.csv"
    write_text(path, (run_folder / "tables" / "table2.csv").read_text(encoding="utf-8"))
    write_text(path.with_suffix(".json"), json.dumps({k: run[k] for k in known} | {"notes": results["notes"]}, indent=1, ensure_ascii=False) + "\n")
    return path


def _provenance(run: dict[str, Any], steps: int) -> dict[str, Any]:
    """Where the weights come from, for people and for programs."""
    recipe = run["recipe"]
    pairs = run["data"][f"{recipe['data']}/{recipe['split']}"]["pairs"]
    return {
        "title": METHODS[run["paper"]].title,
        "reference": ledger.paper(run["paper"]).reference,
        "data": f"trained on {pairs} pairs of {recipe['data']} ({recipe['split']} split), crops of {recipe['crop']} pixels",
        "training": f"{run['profile']} profile, {steps} steps, batch {recipe['batch']}, seed {run['seed']}, on {run['device_name']} ({run['device']})",
        "comparability": f"A {run['profile']} run: far less training than published, so not comparable with the paper's numbers.",
        "profile": run["profile"],
        "recipe": recipe,
        "recipe_hash": run["recipe_hash"],
        "test_data": run["data"],
        "commit": run["commit"],
        "versions": run["versions"],
    }


def _clean(slug: str, weights: Path, run: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    """The shipped file on the run's clean test sets at their own size, correct formulas."""
    tests = {name: load_dataset(name, limit=limit or run["tests"]["pairs"]) for name in run["tests"]["sets"]}
    return _measured(slug, weights, tests)


def _measured(slug: str, weights: Path, tests: Mapping[str, Sequence[Pair]]) -> list[dict[str, Any]]:
    """The rows of a card for a weight file."""
    return card_rows(subject(slug, str(weights)), [View(pairs, name) for name, pairs in tests.items()])


def _attacked(run_folder: Path, title: str) -> list[dict[str, Any]]:
    """The run's own rows, clean and attacked, in the paper's convention; none for a paper that attacks nothing."""
    path = run_folder / "tables" / "fig4.csv"
    if not path.is_file() or "state" not in (table := pd.read_csv(path)):
        return []
    results = json.loads((run_folder / "results.json").read_text(encoding="utf-8"))
    facts = next(a["facts"] for a in results["artifacts"] if a["id"].endswith("/fig4"))
    own = table[table["method"] == title].drop(columns="method")
    return [row | facts | {"note": " ".join(results["notes"])} for row in own.to_dict("records")]


def best(folders: Sequence[Path]) -> list[Path]:
    """One run folder a paper: finished before broken off, then the larger profile, then the later."""
    chosen: dict[str, recorded.Recorded] = {}
    for folder in folders:
        run = recorded.Recorded(folder, *(recorded.read_json(folder / f"{name}.json") for name in ("results", "run", "job")))
        if "paper" not in run.results:
            raise InputError(f"{folder} is no run folder: it has no readable results.json.")
        if run.slug not in chosen or run.rank > chosen[run.slug].rank:
            chosen[run.slug] = run
    return [run.folder for run in chosen.values()]


def main(arguments: Sequence[str] | None = None) -> None:
    usage = argparse.ArgumentParser(prog="python -m fusionrepro.reproduction.ship", description="Keep what runs gave.")
    usage.add_argument("runs", nargs="+", type=Path, metavar="RUN_OR_TRAINING_FOLDER")
    usage.add_argument("--network", action="store_true", help="publish the trained network and its model card, too")
    usage.add_argument("--pairs", type=int, default=0, help="pairs a set that the model card measures (default: the run's)")
    given = usage.parse_args(arguments)
    folders = [f.resolve() for f in given.runs]
    trainings = [f for f in folders if (f / "recipe.json").is_file() and not (f / "results.json").is_file()]
    for folder in trainings:
        print(ship_training(folder, given.pairs))
    for folder in best([f for f in folders if f not in trainings]):
        if recorded.read_json(folder / "results.json")["paper"] == "comparison":
            print(keep_study(folder))
            continue
        print(recorded.keep(folder))
        if given.network:
            print(ship(folder, given.pairs))


if __name__ == "__main__":
    try:
        main()
    except FusionReproError as e:
        raise SystemExit(f"error: {e}") from None
