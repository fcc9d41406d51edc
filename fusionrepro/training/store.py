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
from fusionrepro.data.published import WeightSet, locate, obtain, published
from fusionrepro.errors import CheckpointError, DataError, FusionReproError, InputError, typed, unknown
from fusionrepro.files import sha256 as file_sha256
from fusionrepro.files import write_text
from fusionrepro.registry import Method, method
from fusionrepro.training import tf1
from fusionrepro.training.checkpoint import load_module, load_tensors, save_tensors


@typed
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
        ``"default"``: the trained model of the user's store, else the one shipped with the package, else the one that
        the authors published; ``"published"`` or ``"published:SET"``: that one, fetched where it is not here;
        ``None``: untrained; a path: our safetensors, the authors' public checkpoint, or a folder with their files.
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
    if (meant := _published_set(row, weights)) is not None:
        return _ready(*_from_published(row, *meant, options, chosen))
    path = default_weights(name) if weights == "default" else Path(weights).expanduser()
    if path.is_dir():
        return _ready(*_from_folder(row, path, options, chosen))
    return _ready(_from_file(row, path, options), chosen, file_sha256(path))


def _ready(module: nn.Module, device: torch.device, weights_id: str) -> nn.Module:
    module.weights_id = weights_id
    return module.to(device).eval()


def store_folder() -> Path:
    """Where `publish` puts models and `load` looks first."""
    return settings.path("runs_path") / "models"


@typed
def default_weights(name: str) -> Path:
    """The default weight file of a method, looked for on this machine only.

    Raises
    ------
    CheckpointError
        when there is none or it is not what its card says.
    """
    if path := _own_weights(name):
        _check_card(path)
        return path
    if not (row := method(name)).published:
        mend = f"train with `fusionrepro train {name}`" if row.kind == "paper" else "give its authors' file (weights=PATH, `--weights PATH`)"
        raise CheckpointError(f"{name} has no trained weights yet: {mend}, or take it untrained (weights=None, `--weights none`).")
    files = published(name).weights[row.published[0]].files
    if all(found := [_located(f) for f in files]):
        return found[0]
    raise CheckpointError(f"the published weights of {name} are not here: `fusionrepro verify {name}` or weights='published' fetches them from "
                          f"github.com/{files[0].repository}, or name a folder that has them in FUSIONREPRO_ORACLES.")  # fmt: skip


def _own_weights(name: str) -> Path | None:
    """The weights of the user's store, else those that are shipped."""
    packaged = Path(str(package_files("fusionrepro"))) / "weights"
    return next((p for folder in (store_folder(), packaged) if (p := folder / f"{name}.safetensors").is_file()), None)


def _located(file) -> Path | None:
    try:
        return locate(file)
    except DataError as e:
        raise CheckpointError(str(e)) from e


@typed
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


@typed
def weights_sha256(what: nn.Module | str | Path) -> str:
    """The SHA-256 of a weight file, or of a module's tensors (names, types, shapes and bytes)."""
    return tensors_sha256(what.state_dict()) if isinstance(what, nn.Module) else file_sha256(what)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of named tensors: names, types, shapes and bytes."""
    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _from_file(row: Method, path: Path, options: dict[str, Any]) -> nn.Module:
    """A method with the weights of a file: one of ours if it says so, else the authors' or a plain state dict."""
    if path.suffix == tf1.SUFFIX:
        return _from_authors(row, path, tf1.read_checkpoint(path), options)
    if path.suffix != ".safetensors":
        return _from_authors(row, path, _read_torch(path), options)
    tensors, meta = load_tensors(path)
    if "model" in meta:
        return _from_ours(row, path, tensors, meta, options)
    if any(k.startswith("modules/") for k in tensors):
        raise CheckpointError(f"{path} is the checkpoint of a training; `fusionrepro train {path.parent / 'recipe.json'}` makes weights of it.")
    return _from_authors(row, path, tensors, options)


def _published_set(row: Method, weights: str | Path) -> tuple[WeightSet, Path | None] | None:
    """The published weights that are meant, and the folder that must have them; None: a file is meant."""
    word, _, which = str(weights).partition(":")
    folder = None
    if word == "default" and not (row.published and _own_weights(row.name) is None):
        return None
    if word not in ("default", "published"):
        folder = Path(weights).expanduser()
        if not (row.published and folder.is_dir()):
            return None
    if not row.published:
        raise CheckpointError(f"the authors' weights of {row.name} are not among the published ones that can be had: give a file of them.")
    if which and which not in row.published:
        raise unknown(f"published weights of {row.name}", which, row.published)
    return published(row.name).weights[which or row.published[0]], folder


def _from_published(row: Method, weights: WeightSet, folder: Path | None, options: dict[str, Any], device) -> tuple[nn.Module, torch.device, str]:
    """A method with the weights that its authors published, fetched if need be."""
    try:
        paths = obtain(weights.files, f"the published weights of {row.name}", folder)
    except DataError as e:
        raise CheckpointError(str(e)) from e
    if tables := [p for p in paths if p.suffix == tf1.SUFFIX]:  # a TensorFlow checkpoint is a table and its data
        state = tf1.read_checkpoint(tables[0], *(p for p in paths if p not in tables))
    else:
        state = {k: v for p in paths for k, v in state_dict(_read_torch(p), p).items()}
    return _from_authors(row, paths[0], state, weights.options | options), device, _identity(paths)


def _from_folder(row: Method, folder: Path, options: dict[str, Any], device) -> tuple[nn.Module, torch.device, str]:
    """A method with the weights of a folder that has its authors' files, each with a part of the tensors."""
    paths = sorted(p for p in folder.iterdir() if p.suffix in (".pth", ".pt", ".pkl", ".model") and p.is_file())
    if not paths:
        raise CheckpointError(f"there is no PyTorch weight file in the folder {folder}; check the name.")
    state = {k: v for p in paths for k, v in state_dict(_read_torch(p), p).items()}
    return _from_authors(row, folder, state, options), device, _identity(paths)


def _identity(paths: list[Path]) -> str:
    """The SHA-256 of a file, or of the hashes of several."""
    hashes = [file_sha256(p) for p in paths]
    return hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode()).hexdigest()


def _from_ours(row: Method, path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], options: dict[str, Any]) -> nn.Module:
    """A method with weights that `publish` wrote."""
    own = meta["model"] == row.name
    mend = "the options differ from those of the weights." if own else f"it belongs to '{meta['model']}': load that, or give another file."
    module = row.build(**(_options(meta, path) if own else {}) | options)
    load_module(module, _full(tensors), f"{path} for '{row.name}'", mend)
    if not own:
        raise CheckpointError(f"{path} holds no '{row.name}': {mend}")
    return module


_LARGEST = 10_000  # of a number among the options of a network: no width or count of ours comes near


def _options(meta: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The options that a weight file names; CheckpointError for what cannot be any."""
    options = meta.get("options", {})
    plain = isinstance(options, dict) and all(isinstance(v, str | int | float | bool | None) or (isinstance(v, list) and len(v) <= 64) for v in options.values())
    if not plain or any(isinstance(v, int | float) and not abs(v) <= _LARGEST for v in options.values()):
        raise CheckpointError(f"{path} names options that no network has; get the file again.")
    return options


def _from_authors(row: Method, path: Path, content: Any, options: dict[str, Any]) -> nn.Module:
    """A method with the authors' public weights, and the options that these need, or with a plain state dict of ours."""
    module, state = row.build(**options), state_dict(content, path)
    if row.reader and state.keys() != module.state_dict().keys():
        try:
            state, own = row.read_authors(state), row.authors_options(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, FusionReproError) as e:
            raise CheckpointError(f"{path} is no public checkpoint of '{row.name}' ({str(e).rstrip('.')}): give a file of this model.") from e
        module = row.build(**own | options) if own else module
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
    """The named tensors in a checkpoint: bare, under a usual key, or in parts, whose names then come first.

    The prefix of data parallelism is taken off.
    """
    if isinstance(content, Mapping) and not any(isinstance(v, Tensor) for v in content.values()):
        inside = {k: v for k, v in content.items() if isinstance(v, Mapping)}
        usual = [k for k in ("state_dict", "model_state_dict", "model", "net", "params", "weight") if k in inside]
        parts = {k: v for k, v in inside.items() if _is_state(v)}
        if not usual and len(parts) > 1:
            return {f"{part}.{name}": v for part, tensors in parts.items() for name, v in _single(tensors).items()}
        content = inside[(usual or list(inside))[0]] if inside else content
    if not _is_state(content):
        raise CheckpointError(f"{path} holds no state dict of tensors: give a file with the weights of one network.")
    return _single(content)


def _is_state(content: Any) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())


def _single(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix of data parallelism."""
    prefix = "module." if all(k.startswith("module.") for k in tensors) else ""
    return {k.removeprefix(prefix): v for k, v in tensors.items()}
