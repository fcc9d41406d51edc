"""A recipe for the time there is: measured on this machine, fixed once, written, and an ordinary recipe from then on."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from fusionrepro import settings
from fusionrepro.bench.models import machine
from fusionrepro.errors import InputError
from fusionrepro.files import write_text
from fusionrepro.registry import METHODS
from fusionrepro.reproduction.run import paper_recipe
from fusionrepro.training.loop import Pace, pacing, stopwatch
from fusionrepro.training.recipe import Recipe


def budget_file(recipe: Recipe, minutes: float, root: Path) -> Path:
    """Where the recipe that fills `minutes` is kept: beside the folders of the runs."""
    folder = recipe.folder(root)
    return folder.with_name(f"{folder.name}-{minutes:g}min.json")


def fit_to_minutes(recipe: Recipe, minutes: float, root: Path, device: str = "auto") -> tuple[Recipe, Path]:
    """The recipe with the epochs that fill `minutes`, and the file that holds it and what was measured.

    The minutes are those of a machine that does nothing else. A file from before is taken as it is, whatever the machine measures today,
    so a second call goes on with the same training. Schedules that count shares of the run stretch with it; A2RNet's released one falls by
    a quarter every epoch, however many there are.

    Raises
    ------
    InputError
        when not even one epoch fits, or the minutes are none.
    """
    if not minutes > 0:
        raise InputError(f"minutes must be more than 0, not {minutes:g}.")
    path = budget_file(recipe, minutes, root)
    if path.is_file():
        return type(recipe).from_json(json.dumps(json.loads(path.read_text(encoding="utf-8"))["recipe"])), path
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


# What a recipe can ask of a training step: the arithmetic of the networks and the layout of their maps in memory.
STEP_WAYS = {
    "32": {},
    "32, channels last": dict(channels_last=True),
    "bf16": dict(precision="bf16-mixed"),
    "bf16, channels last": dict(precision="bf16-mixed", channels_last=True),
}
_SMALL = dict(data="scenes", split="train", one_data="scenes", fit_to="crop", limit=8, one_limit=8, repeat=1)  # what is trained on does not matter


def bench_steps(papers: Sequence[str] = (), crop: int = 64, batch: int = 2, repeats: int = 3, progress: Callable[[str], None] = lambda text: None) -> list[dict]:
    """Seconds of a real training step of each paper's fits at published width, in every way of `STEP_WAYS`.

    Losses, attacks, discriminators and optimisers count. `ratio` is the share of the seconds of 32-bit steps.

    Raises
    ------
    InputError
        for an unknown paper.
    """
    rows = []
    for paper in papers or [m.name for m in METHODS.values() if m.kind == "paper"]:
        plain = paper_recipe(paper, "paper")
        recipe = plain.override(crop=crop, batch=batch, **{k: v for k, v in _SMALL.items() if hasattr(plain, k)})
        base = {}
        for way, options in STEP_WAYS.items():
            progress(f"training step of {paper}: {way}")
            for p in measure(recipe.override(**options), "cpu", repeats):
                seconds = base.setdefault((p.run, p.stage), p.seconds)
                rows.append({"fit": p.run, "stage": p.stage, "arithmetic": way, "crop": crop, "batch": batch, "seconds": p.seconds, "ratio": p.seconds / seconds})
    return rows
