"""The authors' state dicts with our names, and pictures as their programs read them: what all learned methods share."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from fusionrepro.errors import CheckpointError
from fusionrepro.training.tf1 import oihw

__all__ = ["renamed", "from_tensorflow", "grey_by_ycbcr"]

_PARTS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def renamed(
    state: Mapping[str, Tensor],
    layers: Mapping[str, str],  # their name of a layer, or of a whole tensor: ours
    what: str,  # the method, for messages
    unused: Iterable[str] = (),  # beginnings of names that the method never uses
) -> dict[str, Tensor]:
    """A state dict with our names; CheckpointError for a tensor that the method has not, or a layer that is absent."""
    found, seen, unused = {}, set(), tuple(unused)
    for key, tensor in state.items():
        layer, _, part = key.rpartition(".")
        if key in layers:
            found[layers[key]] = tensor
            seen.add(key)
        elif layer in layers:
            found[f"{layers[layer]}.{part}"] = tensor
            seen.add(layer)
        elif not key.startswith(unused or ("\0",)):
            raise CheckpointError(f"'{key}' is no tensor of the public {what}; choose the file that belongs to it.")
    if absent := [k for k in layers if k not in seen]:
        raise CheckpointError(f"the {what} checkpoint lacks {len(absent)} of {len(layers)} layers ({absent[0]}, …); give all its files.")
    return found


def from_tensorflow(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a TensorFlow-1 network as PyTorch names and shapes them, without those of its optimiser.

    `scope/layer/kernel` (or `w1`, `w1_vi`) becomes `scope/layer.weight`, batch norm becomes `scope/layer/norm.weight` and so on. A state
    dict that does not come from TensorFlow is returned as it is.
    """
    if not any("/" in key for key in state):
        return dict(state)
    found = {}
    for key, tensor in state.items():
        layer, _, part = key.rpartition("/")
        if not layer or part.startswith(("Adam", "RMSProp", "Momentum")):
            continue
        kind = "weight" if re.fullmatch(r"kernel|w\d.*", part) else "bias" if re.fullmatch(r"bias|b\d.*", part) else _PARTS[part]
        layer = layer.replace("/BatchNorm", "/norm")
        found[f"{layer}.{kind}"] = oihw(tensor) if tensor.ndim == 4 else tensor
        if kind == "running_mean":
            found[f"{layer}.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    return found


def grey_by_ycbcr(
    levels: np.ndarray,  # (H,W) or (H,W,3), uint8
) -> np.ndarray:  # (H,W), float32, grey levels
    """The grey values of scipy's former `imread(flatten=True, mode="YCbCr")`, with which SDNet and PMGI read files.

    Pillow turns the file into YCbCr, and that by way of rounded RGB into grey: 22 of the 256 greys of a grey picture stored as colour come out
    one lower. A picture of one channel stays as it is.
    """
    return np.asarray(Pillow.fromarray(levels).convert("YCbCr").convert("F"))
