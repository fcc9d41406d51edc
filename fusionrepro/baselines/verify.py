"""`fusionrepro verify`: our pictures beside those that the authors, or the keepers of a benchmark, published.

The published sources are fused with the published weights and compared, in grey levels of 8 bit, with the published result: every picture
that is on this machine, or all of the manifest where none is. The level that is demanded of each of them is in data_manifests/baselines.yaml,
with the number of pictures that it rests on and with what the publisher's program did beside the method's defaults; a run that is worse fails.
What a run reached is kept in results/verified.csv, which `fusionrepro verify --record` writes and the catalogue of methods reads.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fusionrepro.baselines import records
from fusionrepro.baselines.reading import grey_by_ycbcr
from fusionrepro.baselines.classic import ClassicModel, as_vifb
from fusionrepro.data.published import PublishedFile, Scene, locate, obtain, published, published_methods
from fusionrepro.errors import InputError
from fusionrepro.imaging.color import luminance, rgb_to_ycbcr
from fusionrepro.imaging.io import read_image
from fusionrepro.imaging.post import quantise, to_picture
from fusionrepro.nn.fusion import FusionModel
from fusionrepro.registry import METHODS, method
from fusionrepro.training.store import load

__all__ = ["Difference", "Verification", "verifiable", "verify", "record", "recorded"]

_COLUMNS = {"weights": str, "pictures": int, "largest": int, "mean": float, "psnr": float, "worst": str, "worst_mean": float, "worst_psnr": float,
            "weights_id": str, "device": str, "torch": str}  # fmt: skip


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
    level: dict[str, float]  # the largest and mean difference that are demanded of every picture; empty: nothing
    device: str = "cpu"
    how: str = ""  # what the publisher's program did

    @property
    def overall(self) -> Difference:
        """The worst pixel and the means of all scenes."""
        errors = [0.0 if math.isinf(s.psnr) else 10 ** (-s.psnr / 10) for s in self.scenes]
        return Difference("all", max(s.largest for s in self.scenes), float(np.mean([s.mean for s in self.scenes])), _decibel(float(np.mean(errors))))

    @property
    def worst(self) -> Difference:
        """The picture with the largest mean difference."""
        return max(self.scenes, key=lambda s: (s.mean, s.largest))

    @property
    def ok(self) -> bool:
        """Every picture as close as demanded, or closer."""
        return bool(self.level) and all(s.largest <= self.level["largest"] and s.mean <= self.level["mean"] for s in self.scenes)

    def rows(self) -> list[dict]:
        """A dictionary a scene, and one for all of them."""
        return [{"method": self.method, "scene": d.scene, "largest": d.largest, "mean": d.mean, "psnr": d.psnr} for d in (*self.scenes, self.overall)]

    def __str__(self) -> str:
        all_, worst, level = self.overall, self.worst, self.level
        found = (f"{self.method}: {len(self.scenes)} pictures, largest difference {all_.largest}, mean {all_.mean:.2g} grey levels, {all_.psnr:.1f} dB; "
                 f"the worst, {worst.scene}: mean {worst.mean:.2g}, {worst.psnr:.1f} dB")  # fmt: skip
        if not level:
            return f"{found}; no level is demanded."
        verdict = "as demanded" if self.ok else "WORSE than demanded"
        return f"{found}; {verdict} (of each at most {level['largest']:g} and {level['mean']:g}, reached on {level['pictures']:g}). Published: {self.how}."


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
    scenes = tuple(s for s in found.scenes if all(locate(f) for f in _files(s))) or found.scenes
    files = list(dict.fromkeys(f for s in scenes for f in _files(s)))
    paths = dict(zip(files, obtain(files, f"the published pictures of {name}", progress=progress, wait=wait), strict=True))
    # A trained network's options come with its weights; a classic's, if the published pictures were made with other than the defaults, from here.
    options = {} if METHODS[name].trained else next((w.options for w in found.weights.values()), {})
    models, differences = {}, []
    for scene in scenes:
        made = options | found.made | found.scenes_made.get(scene.name, {})
        reading = made.pop("reading", "")
        if (key := tuple(sorted(made.items()))) not in models:
            models[key] = load(name, "published" if METHODS[name].trained else "default", device, **made)
        differences.append(_compare(models[key], scene, paths, device, reading))
    return Verification(name, next(iter(models.values())).weights_id, tuple(differences), found.level, device, found.how)


def _files(scene: Scene) -> tuple[PublishedFile, ...]:
    return scene.fused, scene.ir, scene.vi


# ---- the record --------------------------------------------------------------------------------------------------------


def recorded() -> dict[str, dict[str, str | int | float]]:
    """What was reached by every method that was ever verified and recorded: pictures, largest, mean, psnr, weights, device, torch."""
    return records.read("verified.csv", _COLUMNS, "fusionrepro verify --all --record")


def record(found: Iterable[Verification]) -> Path:
    """Keep what these runs reached, in the order of the registry; other methods' rows stay as they are."""
    rows = recorded()
    for v in found:
        names, short = published(v.method).weights, lambda x: float(f"{x:.4g}")
        rows[v.method] = {"weights": next(iter(names), "none"), "pictures": len(v.scenes), "largest": v.overall.largest, "mean": short(v.overall.mean),
                          "psnr": short(v.overall.psnr), "worst": v.worst.scene, "worst_mean": short(v.worst.mean), "worst_psnr": short(v.worst.psnr),
                          "weights_id": v.weights, "device": v.device, "torch": torch.__version__.partition("+")[0]}  # fmt: skip
    return records.keep("verified.csv", _COLUMNS, rows)


# ---- comparing ---------------------------------------------------------------------------------------------------------


def _compare(model: FusionModel, scene: Scene, paths: dict, device: str, reading: str = "") -> Difference:
    theirs = _levels(paths[scene.fused])
    if isinstance(model, ClassicModel) and paths[scene.fused].suffix == ".jpg":  # the benchmark VIFB saves so
        ours = as_vifb(model, *(_levels(paths[f]) for f in (scene.ir, scene.vi)))
        theirs = _colour(theirs)
    else:
        ours = _fused(model, *(_levels(paths[f]) for f in (scene.ir, scene.vi)), device, reading)
        theirs = theirs.astype(np.int64) if ours.ndim == 3 else _grey(theirs)
    if ours.shape != theirs.shape:
        raise InputError(f"{paths[scene.fused]} is {theirs.shape[1]}x{theirs.shape[0]}, its sources are {ours.shape[1]}x{ours.shape[0]}.")
    gap = np.abs(ours.astype(np.int64) - theirs)
    return Difference(scene.name, int(gap.max()), float(gap.mean()), _decibel(float((gap**2).mean()) / 255**2))


def _fused(model: FusionModel, ir: np.ndarray, vi: np.ndarray, device: str, reading: str) -> np.ndarray:  # reading: "", "ycbcr" or "ycbcr ir"
    """Our picture in levels of 8 bit: (H,W), or (H,W,3) with the colour of the source that has any, the visible one first."""
    sources = [grey_by_ycbcr(x) if reading in ("ycbcr", f"ycbcr {side}") else x for side, x in (("ir", ir), ("vi", vi))]
    sources = [torch.from_numpy(np.float32(x if x.ndim == 3 else x[..., None]) / 255).movedim(-1, 0)[None] for x in sources]
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
