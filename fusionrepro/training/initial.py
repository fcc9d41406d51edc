"""Where a training starts: from random weights, or from those that come with the package."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fusionrepro.errors import InputError
from fusionrepro.files import write_text
from fusionrepro.training.checkpoint import load_tensors
from fusionrepro.training.store import tensors_sha256

LEAST = 0.4  # share of a network's tensors that must fit; a network of another width has hardly any


def shipped_file(paper: str) -> Path:
    """The weights that come with the package for a paper; a part of its training, such as `msfam-first`, has the whole's.

    Raises
    ------
    InputError
        when there are none.
    """
    path = Path(str(package_files("fusionrepro"))) / "weights" / f"{paper.partition('-')[0]}.safetensors"
    if not path.is_file():
        raise InputError(f"no weights come with the package for '{paper}': take initial=random.")
    return path


def shipped(paper: str) -> tuple[dict[str, Tensor], str]:
    """The shipped tensors, floating-point ones as float32, and the SHA-256 of their names, types, shapes and values."""
    path = shipped_file(paper)
    return _read(path, path.stat().st_mtime_ns)


@cache
def _read(path: Path, changed: int) -> tuple[dict[str, Tensor], str]:
    """As `shipped`, read once as long as the file does not change."""
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in load_tensors(path)[0].items()}
    return tensors, tensors_sha256(tensors)


def take_over(module: nn.Module, recipe: Any) -> dict[str, Any]:
    """Start `module` as its recipe says; gives what is worth recording, which the module keeps as `initial`.

    With `recipe.initial == "shipped"` every shipped tensor whose name and shape fit takes the place of the module's own; the rest stays as it
    was drawn. So a network without one of its parts, or with another in its place, starts from what it has in common with the whole.

    Returns
    -------
    dict
        `weights` ("random" or "shipped"), `sha256` of the shipped tensors, `tensors` taken over, `of` so many of the network, `random`: the
        names of the others.

    Raises
    ------
    InputError
        when fewer than 40 % of the network's tensors fit: it is another network.
    """
    own = module.state_dict()
    if recipe.initial == "random":
        module.initial = {"weights": "random", "sha256": "", "tensors": 0, "of": len(own), "random": []}
        return module.initial
    tensors, digest = shipped(recipe.paper)
    fitting = _fitting(own, tensors)
    if len(fitting) < LEAST * len(own):
        raise InputError(f"only {len(fitting)} of the {len(own)} tensors of this '{recipe.paper}' are in the weights that come with the package: "
                         "leave the options of the network (width, ...) as those weights have them, or take initial=random.")  # fmt: skip
    module.load_state_dict(own | fitting)
    left = [k for k in own if k not in fitting]
    module.initial = {"weights": "shipped", "sha256": digest, "tensors": len(fitting), "of": len(own), "random": left}
    return module.initial


def _fitting(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `own` has under the same name and in the same shape."""
    return {k: tensors[k] for k, v in own.items() if k in tensors and tensors[k].shape == v.shape}


def declare(folder: str | Path, module: nn.Module) -> None:
    """Write where the training of `module` started to `initial.json` in the folder of its run."""
    write_text(Path(folder) / "initial.json", json.dumps(module.initial, indent=1) + "\n")


def sentence(module: nn.Module) -> str:
    """For a report: where the training of `module` started; empty for random weights."""
    found = getattr(module, "initial", {})
    if found.get("weights") != "shipped":
        return ""
    part = "all its tensors" if not found["random"] else f"{found['tensors']} of its {found['of']} tensors"
    return f"started from the weights that come with the package ({part})"
