"""A recipe for the time there is: measured on this machine, fixed once, written, and an ordinary recipe from then on."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from fusionrepro import settings
from fusionrepro.bench.models import machine
from fusionrepro.errors import InputError
from fusionrepro.files import write_text
from fusionrepro.reproduction.training import read_recipe
from fusionrepro.training.loop import Pace, pacing, stopwatch
from fusionrepro.training.recipe import Recipe


def budget_file(recipe: Recipe, minutes: float, root: Path) -> Path:
    """Where the recipe that fills `minutes` is kept: beside the folders of the runs."""
    folder = recipe.folder(root)
    return folder.with_name(f"{folder.name}-{minutes:g}min.json")


def fit_to_minutes(recipe: Recipe, minutes: float, root: Path, device: str = "auto") -> tuple[Recipe, Path]:
    """The recipe with the epochs that fill `minutes`, and the file that holds it and what was measured.

    The minutes are those of a machine that does nothing else. A file from before is taken as it is, whatever the machine measures today: so a second call goes on with the same training. Every
    schedule of the papers but A2RNet's is a function of the share of the epochs that are done, so it stretches with them.

    Raises
    ------
    InputError
        when not even one epoch fits, or the minutes are none.
    """
    if not minutes > 0:
        raise InputError(f"minutes must be more than 0, not {minutes:g}.")
    path = budget_file(recipe, minutes, root)
    if path.is_file():
        return read_recipe(str(path)), path
    since = stopwatch(settings.device(device).type == "cpu")
    paces = measure(recipe, device)
    left = 60 * minutes - since()
    chosen = recipe.override(epochs=epochs_for(recipe, paces, left))
    facts = {
        "minutes": minutes,
        "epochs": chosen.epochs,
        "steps": sum(p.steps * p.epochs for p in paces if p.run == recipe.paper) * chosen.epochs // recipe.epochs,
        "machine": machine(),
        "measured": [asdict(p) for p in paces],
        "recipe": json.loads(chosen.to_json()),
    }
    return chosen, write_text(path, json.dumps(facts, indent=1) + "\n")


def measure(recipe: Recipe, device: str = "auto", steps: int = 9) -> list[Pace]:
    """What every stage of a recipe's fits costs here, from so many steps of each; leaves nothing behind."""
    train = import_module(f"fusionrepro.{recipe.paper}.training").train
    with tempfile.TemporaryDirectory() as root, pacing(steps) as paces:
        train(recipe, recipe.folder(root), device=device, progress=False)
    return paces


def epochs_for(recipe: Recipe, paces: Sequence[Pace], seconds: float) -> int:
    """How many epochs of the paper's main fit fit into `seconds`; its other fits (labels, a judge, a first stage) keep theirs."""
    own = sum(p.total for p in paces if p.run == recipe.paper) / recipe.epochs
    others = sum(p.total for p in paces if p.run != recipe.paper)
    epochs = int((seconds - others) / own)
    if epochs < 1:
        raise InputError(
            f"the minutes given are too few for {recipe.paper}: after measuring {max(seconds, 0):.0f} s are left, its other fits take {others:.0f} s and "
            f"every epoch {own:.1f} s here; give more minutes, or fewer pairs (-p limit=N)."
        )
    return epochs
