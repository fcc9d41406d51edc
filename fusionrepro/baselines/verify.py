"""`fusionrepro verify`: our pictures beside those that the authors, or the keepers of a benchmark, published.

The published sources are fused with the published weights and compared, in grey levels of 8 bit, with the published result. The level
that is demanded is in data_manifests/baselines.yaml; a run that is worse fails. What a run reached is kept in results/verified.csv,
which `fusionrepro verify --record` writes and the catalogue of methods reads.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fusionrepro.baselines import records
from fusionrepro.baselines.classic import ClassicModel, as_vifb
from fusionrepro.data.published import Scene, obtain, published, published_methods
from fusionrepro.errors import InputError
from fusionrepro.imaging.color import luminance, rgb_to_ycbcr
from fusionrepro.imaging.io import read_image
from fusionrepro.imaging.post import quantise, to_picture
from fusionrepro.nn.fusion import FusionModel
from fusionrepro.registry import METHODS, method
from fusionrepro.training.store import load

__all__ = ["Difference", "Verification", "verifiable", "verify", "record", "recorded"]

_COLUMNS = {"weights": str, "pictures": int, "largest": int, "mean": float, "psnr": float, "weights_id": str, "device": str, "torch": str}


@dataclass(frozen=True)
class Difference:
    """Our picture beside a published one."""

    scene: str
    largest: int  # grey levels
    mean: float  # grey levels
    psnr: float  # dB; infinite where nothing differs


@dataclass(frozen=True)
class Verification:
    """All scenes of a method."""

    method: str
    weights: str  # of the network, "none" for a classic
    scenes: tuple[Difference, ...]
    level: dict[str, float]  # the largest and mean difference that are demanded; empty: nothing
    device: str = "cpu"

    @property
    def overall(self) -> Difference:
        """The worst pixel and the mean of all scenes."""
        errors = [0.0 if math.isinf(s.psnr) else 10 ** (-s.psnr / 10) for s in self.scenes]
        return Difference("all", max(s.largest for s in self.scenes), float(np.mean([s.mean for s in self.scenes])), _decibel(float(np.mean(errors))))

    @property
    def ok(self) -> bool:
        """As close as demanded, or closer."""
        worst = self.overall
        return bool(self.level) and worst.largest <= self.level["largest"] and worst.mean <= self.level["mean"]

    def rows(self) -> list[dict]:
        """A dictionary a scene, and one for all of them."""
        return [{"method": self.method, "scene": d.scene, "largest": d.largest, "mean": d.mean, "psnr": d.psnr} for d in (*self.scenes, self.overall)]

    def __str__(self) -> str:
        worst, level = self.overall, self.level
        found = f"{self.method}: {len(self.scenes)} pictures, largest difference {worst.largest}, mean {worst.mean:.2g} grey levels, {worst.psnr:.1f} dB"
        if not level:
            return f"{found}; no level is demanded."
        verdict = "as demanded" if self.ok else "WORSE than demanded"
        return f"{found}; {verdict} (at most {level['largest']:g} and {level['mean']:g})."


def verifiable() -> tuple[str, ...]:
    """The methods that are here and have pictures and a level to reach, in the order of the registry."""
    known = set(published_methods())
    return tuple(name for name in METHODS if name in known and published(name).level and published(name).scenes)


def verify(
    name: str,  # a method of the registry
    device: str = "cpu",  # other devices round a little differently
    progress: bool = True,  # say what is fetched from where
    wait: float = 0.5,  # seconds before the second attempt at a download
) -> Verification:
    """Fuse the published sources with the published weights and compare with the published pictures.

    Raises
    ------
    InputError
        for a method without published pictures.
    DataError, CheckpointError
        when files are neither here nor to be had.
    """
    method(name)
    found = published(name) if name in published_methods() else None
    if found is None or not found.scenes:
        raise InputError(f"there is no published picture to compare {name} with: choose one of {', '.join(verifiable())}.")
    files = list(dict.fromkeys(f for s in found.scenes for f in (s.fused, s.ir, s.vi)))
    paths = dict(zip(files, obtain(files, f"the published pictures of {name}", progress=progress, wait=wait), strict=True))
    # A trained network's options come with its weights; a classic's, if the published pictures were made with other than the defaults, from here.
    options = {} if METHODS[name].trained else next((w.options for w in found.weights.values()), {})
    model = load(name, "published" if METHODS[name].trained else "default", device, **options)
    return Verification(name, model.weights_id, tuple(_compare(model, s, paths, device) for s in found.scenes), found.level, device)


# ---- the record --------------------------------------------------------------------------------------------------------


def recorded() -> dict[str, dict[str, str | int | float]]:
    """What was reached by every method that was ever verified and recorded: pictures, largest, mean, psnr, weights, device, torch."""
    return records.read("verified.csv", _COLUMNS, "fusionrepro verify --all --record")


def record(found: Iterable[Verification]) -> Path:
    """Keep what these runs reached, in the order of the registry; other methods' rows stay as they are."""
    rows = recorded()
    for v in found:
        worst = v.overall
        names = published(v.method).weights
        rows[v.method] = {"weights": next(iter(names), "none"), "pictures": len(v.scenes), "largest": worst.largest, "mean": float(f"{worst.mean:.4g}"),
                          "psnr": float(f"{worst.psnr:.4g}"), "weights_id": v.weights, "device": v.device, "torch": torch.__version__.partition("+")[0]}  # fmt: skip
    return records.keep("verified.csv", _COLUMNS, rows)


# ---- comparing ---------------------------------------------------------------------------------------------------------


def _compare(model: FusionModel, scene: Scene, paths: dict, device: str) -> Difference:
    theirs = _levels(paths[scene.fused])
    if isinstance(model, ClassicModel):
        ours = as_vifb(model, *(_colour(_levels(paths[f])) for f in (scene.ir, scene.vi)))
        theirs = _colour(theirs)
    else:
        ours = _fused(model, paths[scene.ir], paths[scene.vi], device)
        theirs = theirs.astype(np.int64) if ours.ndim == 3 else _grey(theirs)
    if ours.shape != theirs.shape:
        raise InputError(f"{paths[scene.fused]} is {theirs.shape[1]}x{theirs.shape[0]}, its sources are {ours.shape[1]}x{ours.shape[0]}.")
    gap = np.abs(ours.astype(np.int64) - theirs)
    return Difference(scene.name, int(gap.max()), float(gap.mean()), _decibel(float((gap**2).mean()) / 255**2))


def _fused(model: FusionModel, ir: Path, vi: Path, device: str) -> np.ndarray:
    """Our picture in levels of 8 bit: (H,W), or (H,W,3) with the colour of the source that has any, the visible one first."""
    sources = [torch.from_numpy(x if x.ndim == 3 else x[..., None]).movedim(-1, 0)[None] for x in (read_image(p).pixels for p in (ir, vi))]
    # A grey picture stored as colour keeps its very levels.
    sources = [x[:, :1] if bool((x == x[:, :1]).all()) else x for x in sources]
    colour = next((x for x in reversed(sources) if x.shape[1] == 3), None)
    with torch.inference_mode():
        raw = model(*(luminance(x).to(device) for x in sources)).float().cpu()
        picture = quantise(to_picture(raw, model.post, None if colour is None else torch.cat(rgb_to_ycbcr(colour)[1:], 1)), 8, model.rounding)
    levels = (255 * picture[0]).round().numpy().astype(np.int64)
    return levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1)


def _levels(path: Path) -> np.ndarray:
    return np.rint(255 * read_image(path).pixels.astype(np.float64)).astype(np.uint8)


def _colour(levels: np.ndarray) -> np.ndarray:
    return levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)


def _grey(levels: np.ndarray) -> np.ndarray:
    """(H,W): BT.601 luminance in whole levels, as the toolboxes read a colour file."""
    return levels.astype(np.int64) if levels.ndim == 2 else np.rint(levels @ np.array([0.299, 0.587, 0.114])).astype(np.int64)


def _decibel(error: float) -> float:
    return math.inf if error == 0 else -10 * math.log10(error)
