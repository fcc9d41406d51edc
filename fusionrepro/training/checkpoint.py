"""Checkpoints: any nested state in one safetensors file, written atomically, read without unpickling."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fusionrepro.errors import CheckpointError, typed
from fusionrepro.files import atomic, os_error

FORMAT = "fusionrepro-1"


@typed
def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> Path:
    """Write named tensors and metadata (any JSON values) to one safetensors file, whole or not at all."""
    plain, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = (tensor.untyped_storage().data_ptr(), tensor.numel() > 0)
        # safetensors refuses tensors that share memory, such as tied weights.
        plain[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    header = {"format": FORMAT} | {k: json.dumps(v) for k, v in (meta or {}).items()}
    with atomic(path) as temporary:
        try:
            save_file(plain, temporary, metadata=header)
        except SafetensorError as e:
            raise os_error(e) from e
    return Path(path)


@typed
def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the metadata of a safetensors file.

    Raises
    ------
    CheckpointError
        when the file is absent, cut short or no safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no weight file {path}; check the name.")
    try:
        with safe_open(path, framework="pt") as f:
            header = f.metadata() or {}
            tensors = {name: f.get_tensor(name) for name in f.keys()}
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({e}); delete it, then make or fetch it again.") from e
    return tensors, {k: _value(v) for k, v in header.items()}


def _value(text: str) -> Any:
    """A metadata value: JSON where we wrote it, plain text in other people's files."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@typed
def save_state(path: str | Path, state: Any, meta: Mapping[str, Any] | None = None) -> Path:
    """Write nested dicts, lists and tuples of tensors and plain values to one file."""
    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, "", tensors)
    return save_tensors(path, tensors, dict(meta or {}) | {"tree": tree})


@typed
def load_state(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """What `save_state` wrote, and its metadata; CheckpointError for any other file."""
    tensors, meta = load_tensors(path)
    if "tree" not in meta:
        raise CheckpointError(f"{path} holds weights but no training state; it cannot be resumed from.")
    try:
        return _unflatten(meta.pop("tree"), tensors), meta
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path} is damaged: its index does not fit its tensors; delete it to start again.") from e


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A JSON image of `value`; its tensors go to `tensors` under their path."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        # Pairs, not an object: optimisers use integer keys, which JSON has not.
        return {"dict": [[k, _flatten(v, f"{name}/{k}" if name else str(k), tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_flatten(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]}
    return {"value": value}


def _unflatten(tree: dict, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_flatten`."""
    (kind, content), = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {k: _unflatten(v, tensors) for k, v in content}
    if kind in ("list", "tuple"):
        items = [_unflatten(v, tensors) for v in content]
        return tuple(items) if kind == "tuple" else items
    return content


@typed
def load_module(module: torch.nn.Module, tensors: Mapping[str, Tensor], what: str, mend: str) -> None:
    """Fill `module` with `tensors`; CheckpointError naming the keys and shapes that do not fit.

    `what` begins the sentence (a file or a module's name), `mend` ends it.
    """
    own = module.state_dict()
    missing = [k for k in own if k not in tensors]
    extra = [k for k in tensors if k not in own]
    shapes = [f"{k} is {tuple(tensors[k].shape)} instead of {tuple(own[k].shape)}"
              for k in own if k in tensors and tensors[k].shape != own[k].shape]  # fmt: skip
    # Whole numbers or truth values would be cast without a word, and mean nothing as weights.
    kinds = [f"{k} is {str(tensors[k].dtype).removeprefix('torch.')} instead of {str(own[k].dtype).removeprefix('torch.')}"
             for k in own if k in tensors and tensors[k].is_floating_point() != own[k].is_floating_point()]  # fmt: skip
    if kinds and not (missing or extra or shapes):
        raise CheckpointError(f"{what} does not fit: {_some(kinds, 'of another type')}; {mend}")
    if missing or extra or shapes:
        parts = [_some(missing, "missing"), _some(extra, "unexpected"), _some(shapes, "of another shape")]
        raise CheckpointError(f"{what} does not fit: {'; '.join(p for p in parts if p)}; {mend}")
    module.load_state_dict(dict(tensors))


def _some(names: list[str], problem: str) -> str:
    """`3 tensors missing (a, b, c)`, with at most three of them named."""
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} tensor{'s' * (len(names) > 1)} {problem} ({shown})"
