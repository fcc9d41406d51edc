"""The trained models: loading by name, publishing, and reading the authors' public checkpoints without unpickling code."""

import json
import warnings
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusionrepro import settings
from fusionrepro.errors import CheckpointError, FusionReproError, InputError
from fusionrepro.files import sha256 as file_sha256
from fusionrepro.files import write_text
from fusionrepro.registry import Method, method
from fusionrepro.training.checkpoint import load_module, load_tensors, save_tensors


def load(
    name: str,
    weights: str | Path | None = "default",
    device: str | torch.device = "cpu",
    **options,
):
    """A fusion model by name, ready to use.

    Parameters
    ----------
    name
        a method of the registry, for example ``"a2rnet"``.
    weights
        ``"default"``: the trained model of the user's store, else the one shipped with the package;
        ``None``: untrained; a path: our safetensors, or the authors' public checkpoint.
    device
        cpu, cuda, cuda:N or auto.
    options
        the method's own options; those that the weights were trained with are the default.

    Returns
    -------
    FusionModel
        in eval mode, with ``weights_id``: the SHA-256 of its weight file, ``"untrained"`` or ``"none"``.
    """
    row, chosen = method(name), settings.device(str(device))
    if not row.trained:
        if weights not in (None, "default"):
            raise InputError(f"{name} has no weights to load: leave weights out.")
        return _ready(row.build(**options), chosen, "none")
    if weights is None:
        return _ready(row.build(**options), chosen, "untrained")
    path = default_weights(name) if weights == "default" else Path(weights).expanduser()
    return _ready(_from_file(row, path, options), chosen, file_sha256(path))


def _ready(module: nn.Module, device: torch.device, weights_id: str) -> nn.Module:
    module.weights_id = weights_id
    return module.to(device).eval()


def store_folder() -> Path:
    """Where `publish` puts models and `load` looks first."""
    return settings.path("runs_path") / "models"


def default_weights(name: str) -> Path:
    """The default weight file of a method; CheckpointError when there is none or it is not what its card says."""
    packaged = Path(str(package_files("fusionrepro"))) / "weights"
    for folder in (store_folder(), packaged):
        path = folder / f"{name}.safetensors"
        if path.is_file():
            _check_card(path)
            return path
    raise CheckpointError(f"{name} has no trained weights yet: train with `fusionrepro train {name}`, or take it untrained (weights=None, `--weights none`).")


def card(name: str) -> dict[str, Any]:
    """The model card of a method's default weights: data, recipe, metrics, sha256, options."""
    return _read_card(default_weights(name).with_suffix(".json"))


def _read_card(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as e:
        raise CheckpointError(f"the model card {path} cannot be read ({e}); publish the model again.") from e
    if not isinstance(content, dict):
        raise CheckpointError(f"the model card {path} is no JSON object; publish the model again.")
    return content


def _check_card(path: Path) -> None:
    expected = _read_card(path.with_suffix(".json")).get("sha256")
    if expected and file_sha256(path) != expected:
        raise CheckpointError(f"{path} is not the file that its card {path.stem}.json describes (other SHA-256): publish or fetch it again.")


def publish(
    name: str,
    module: nn.Module,
    card: Mapping[str, Any],
    folder: str | Path | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Make `module` the default model of `name`: `<name>.safetensors` and its card `<name>.json`.

    Parameters
    ----------
    card
        what a user should know: data, recipe, metrics; ``options`` builds the module again.
    folder
        the user's store unless given.
    dtype
        of the stored floating-point tensors; half precision halves the file.

    Returns
    -------
    Path
        of the weights.
    """
    options = dict(card.get("options", {}))
    stored = {k: _shrink(k, v, dtype) for k, v in module.state_dict().items()}
    # The card's options must build a module that these weights fit: better refused now than by every later `load`.
    load_module(method(name).build(**options), stored, f"the module given for '{name}'", "name the options that it was built with in the card.")
    path = Path(folder or store_folder()) / f"{name}.safetensors"
    path.with_suffix(".json").unlink(missing_ok=True)  # an old card must not describe new weights
    save_tensors(path, stored, {"model": name, "options": options})
    facts = {"model": name, "options": options, "parameters": sum(p.numel() for p in module.parameters()),
             "dtype": str(dtype).removeprefix("torch."), "bytes": path.stat().st_size, "sha256": file_sha256(path)}  # fmt: skip
    write_text(path.with_suffix(".json"), json.dumps(dict(card) | facts, indent=2, sort_keys=True) + "\n")
    return path


def _shrink(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in the stored precision; InputError where that overflows or where it was not finite before."""
    if not tensor.is_floating_point():
        return tensor
    small = tensor.to(dtype)
    if not torch.isfinite(small).all():
        broken = not torch.isfinite(tensor).all()
        mend = "train it again" if broken else "publish with dtype=torch.float32"
        raise InputError(f"weight '{name}' {'is not finite' if broken else f'does not fit into {dtype}'}: {mend}.")
    return small


def weights_sha256(what: nn.Module | str | Path) -> str:
    """The SHA-256 of a weight file, or of a module's tensors (names, types, shapes and bytes)."""
    if not isinstance(what, nn.Module):
        return file_sha256(what)
    digest = sha256()
    for name, tensor in sorted(what.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _from_file(row: Method, path: Path, options: dict[str, Any]) -> nn.Module:
    """A method with the weights of a file: one of ours if it says so, else the authors' or a plain state dict."""
    if path.suffix != ".safetensors":
        return _from_authors(row, path, _read_torch(path), options)
    tensors, meta = load_tensors(path)
    if "model" in meta:
        return _from_ours(row, path, tensors, meta, options)
    return _from_authors(row, path, tensors, options)


def _from_ours(row: Method, path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], options: dict[str, Any]) -> nn.Module:
    """A method with weights that `publish` wrote."""
    own = meta["model"] == row.name
    mend = "the options differ from those of the weights." if own else f"it belongs to '{meta['model']}': load that, or give another file."
    module = row.build(**(meta.get("options", {}) if own else {}) | options)
    load_module(module, _full(tensors), f"{path} for '{row.name}'", mend)
    if not own:
        raise CheckpointError(f"{path} holds no '{row.name}': {mend}")
    return module


def _from_authors(row: Method, path: Path, content: Any, options: dict[str, Any]) -> nn.Module:
    """A method with the authors' public weights, or with a plain state dict of ours."""
    module, state = row.build(**options), state_dict(content, path)
    if row.reader and state.keys() != module.state_dict().keys():
        try:
            state = row.read_authors(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, FusionReproError) as e:
            raise CheckpointError(f"{path} is no public checkpoint of '{row.name}' ({str(e).rstrip('.')}): give a file of this model.") from e
    load_module(module, _full(state), f"{path} for '{row.name}'", "it belongs to another model or to other options.")
    return module


def _full(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Half-precision tensors as float32."""
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def _read_torch(path: Path) -> Any:
    """The content of a PyTorch file that holds data only; anything that would run code is refused."""
    if not path.is_file():
        raise CheckpointError(f"there is no weight file {path}; check the name.")
    if not path.stat().st_size:
        raise CheckpointError(f"{path} is empty (0 bytes); get the file again.")
    try:
        with warnings.catch_warnings(action="ignore"):  # about the pickle protocol, of no use to a user
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a broken file raises nearly every class there is; torch's words suggest to run its code
        raise CheckpointError(
            f"{path} cannot be read as plain tensors: it is damaged, no weight file, or a pickle that would have to run code, which is "
            "never done; get it again, or export its state dict to safetensors."
        ) from e


def state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The named tensors in a checkpoint: bare, under a usual key, with or without the prefix of data parallelism."""
    if isinstance(content, Mapping) and not any(isinstance(v, Tensor) for v in content.values()):
        inside = {k: v for k, v in content.items() if isinstance(v, Mapping)}
        usual = [k for k in ("state_dict", "model_state_dict", "model", "net", "params", "weight") if k in inside] or list(inside)
        content = inside[usual[0]] if usual else content
    if not isinstance(content, Mapping) or not content or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        raise CheckpointError(f"{path} holds no state dict of tensors: give a file with the weights of one network.")
    prefix = "module."
    if all(k.startswith(prefix) for k in content):
        return {k.removeprefix(prefix): v for k, v in content.items()}
    return dict(content)
