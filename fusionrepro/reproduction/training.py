"""Training by name: what `fusionrepro train` does."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from fusionrepro import settings
from fusionrepro.errors import InputError
from fusionrepro.registry import METHODS
from fusionrepro.reproduction import ledger
from fusionrepro.reproduction.run import paper_recipe
from fusionrepro.training.recipe import Recipe


def read_recipe(text: str, **overrides: Any) -> Recipe:
    """`a2rnet`, `a2rnet:laptop` or the path of a recipe's JSON, with the user's changes.

    The JSON may be a recipe, or the run.json of an earlier run.
    """
    path = Path(text)
    if path.suffix == ".json" or path.is_file():
        if not path.is_file():
            raise InputError(f"{path} does not exist; give a paper (a2rnet), paper:profile (a2rnet:laptop) or a recipe's JSON file.")
        return _from_file(path).override(**overrides)
    slug, _, profile = text.partition(":")
    return paper_recipe(slug, profile or "smoke", **overrides)


def _from_file(path: Path) -> Recipe:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as e:
        raise InputError(f"{path} is no JSON file ({e}).") from None
    content = content.get("recipe", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or "paper" not in content:
        raise InputError(f"{path} is no recipe: it does not name its paper.")
    slug = content["paper"]
    return type(paper_recipe(slug, "smoke")).from_json(json.dumps(content))


def train(text: str, *, device: str = "auto", publish: bool = False, progress: bool = True, minutes: float = 0, **overrides: Any) -> Path:
    """Train, resume, or find the finished training of a recipe; gives the weights, ready for `load`.

    `publish` also makes them the default model of that name. `minutes` sets the epochs so that they fill that time here, see
    `budget.fit_to_minutes`; 0: those of the recipe.
    """
    from fusionrepro.reproduction import expect
    from fusionrepro.reproduction.budget import fit_to_minutes
    from fusionrepro.training import store
    from fusionrepro.training.crops import training_pairs

    recipe = read_recipe(text, **overrides)
    if ledger.paper(recipe.paper).own:
        raise InputError(f"'{recipe.paper}' is a study of this package and trains nothing; give a paper such as a2rnet.")
    chosen = settings.device(device)
    expect.check_training_set(recipe, limited="limit" in overrides)
    module = import_module(f"fusionrepro.{recipe.paper}.training")
    if progress and recipe.profile in ledger.paper(recipe.paper).profiles:
        pairs_of = getattr(module, "fusion_pairs", training_pairs)  # MSFAM can draw its training pairs
        print(expect.told(recipe, len(pairs_of(recipe))), flush=True)
    root = settings.path("runs_path") / "training"
    if minutes:
        recipe, path = fit_to_minutes(recipe, minutes, root, str(chosen))
        if progress:
            print(f"{minutes:g} minutes: {recipe.epochs} epochs, see {path}", flush=True)
    folder = recipe.folder(root)
    trained = module.train(recipe, folder, device=str(chosen), progress=progress)
    method = METHODS[recipe.paper]
    options = recipe.pick(method.options)
    card = {"data": f"{recipe.data} ({recipe.split})", "recipe": json.loads(recipe.to_json()), "options": options,
            "steps": trained.fit.steps, "hours": round(trained.fit.seconds / 3600, 3), "minutes": minutes}  # fmt: skip
    weights = store.publish(recipe.paper, trained.module, card, folder)
    if publish:
        store.publish(recipe.paper, trained.module, card)
    return weights
