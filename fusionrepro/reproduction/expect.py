"""Before a training as published starts: whether its pairs are all here, and what it takes."""

from math import ceil
from typing import Any

import torch

from fusionrepro.bench.models import saved_bytes
from fusionrepro.data.manifests import datasets, load_dataset, load_manifest
from fusionrepro.errors import DataError
from fusionrepro.nn.fusion import gflop
from fusionrepro.registry import METHODS
from fusionrepro.reproduction import ledger, recorded
from fusionrepro.training.recipe import Recipe

SUSTAINED = 20e12  # operations a second of the card that hours are stated for
WHOLE = (480, 640)  # height and width that stand for pictures that are not cropped
RESIZED = (256, 320)  # of those that MSFAM resizes, Section 4.1


def check_training_set(recipe: Recipe, data_root: Any = None, limited: bool = False, limit: str = "limit") -> None:
    """DataError when less of a training set is on this machine than its manifest says there is, in a profile that trains as published.

    `limited`: the user has said how many pairs are meant, with the parameter `limit`. The recipe may be of a part of a training, such as `msfam-first`.
    """
    if limited or recipe.profile not in ledger.paper(recipe.paper.partition("-")[0]).profiles:
        return
    for name in recipe.data.split("+"):
        set_, _, split = name.partition(":")
        wanted = load_manifest(set_).whole.get(split or recipe.split, 0) if set_ in datasets() and not set_.startswith(("scenes", "phantoms")) else 0
        there = len(load_dataset(set_, split or recipe.split, data_root)) if wanted else 0
        if there < wanted:
            raise DataError(
                f"{set_} has {there} of its {wanted} {split or recipe.split} pairs on this machine, so the {recipe.profile} profile would not train as published: "
                f"complete the set (`fusionrepro data list` says how), or train on these with -p {limit}={there}."
            )


def expectation(recipe: Recipe, pairs: int) -> dict[str, float]:
    """What the main fit of a recipe takes on `pairs` pairs, counted without computing: steps, GiB of saved maps a step, PFLOP, hours on a card
    that sustains `SUSTAINED`. Forward, backward twice as much; critics, judges, labels and attacks apart."""
    model = METHODS[recipe.paper].build(**recipe.pick(METHODS[recipe.paper].options)).train()
    whole = RESIZED if getattr(recipe, "fit_to", "") == "resize" else WHOLE
    size = (recipe.crop, recipe.crop) if recipe.crop else whole
    epochs, repeat = getattr(recipe, "epochs", 1), getattr(recipe, "repeat", 1)
    steps = epochs * ceil(pairs * repeat / recipe.batch)
    flop = 3e9 * gflop(model, size) * recipe.batch * steps
    model = model.to("meta")
    batch = [torch.empty(recipe.batch, 1, *size, device="meta") for _ in range(2)]
    memory = saved_bytes(lambda: model(*batch), list(model.parameters()))
    return {"steps": steps, "GiB": memory / 2**30, "PFLOP": flop / 1e15, "hours": flop / SUSTAINED / 3600}


def told(recipe: Recipe, pairs: int) -> str:
    """The expectation in a sentence, and whether a run of this kind was ever recorded."""
    e = expectation(recipe, pairs)
    kept = recorded.kept_run(recipe.paper)
    known = kept is not None and kept.profile == recipe.profile
    past = f"A {recipe.profile} run of it is recorded." if known else f"No {recipe.profile} run of it is recorded yet: these are counts, not measurements."
    return (
        f"{METHODS[recipe.paper].title}, {recipe.profile} profile: {pairs} pairs, about {e['steps']:.0f} steps of the main fit, {e['GiB']:.1f} GiB of saved maps a step, "
        f"{e['PFLOP']:.3g} PFLOP for the network alone, {e['hours']:.2g} hours on a card that sustains {SUSTAINED / 1e12:.0f} TFLOP/s "
        f"(attacks, critics and the experiments apart). {past}"
    )
