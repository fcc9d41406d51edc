"""One way to measure a fusion method on a data set, clean or disturbed, for every paper and every table."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionrepro.data.pairs import Pair
from fusionrepro.degradations.degradations import degrade
from fusionrepro.errors import CheckpointError
from fusionrepro.imaging.color import luminance
from fusionrepro.imaging.post import quantise, to_picture
from fusionrepro.metrics import evaluate
from fusionrepro.nn.fusion import FusionModel
from fusionrepro.registry import METHODS
from fusionrepro.training.loop import mix
from fusionrepro.training.store import default_weights, load

# A disturbance takes the model, a clean batch and the pair's id and gives what the model will see instead.
Disturb = Callable[[FusionModel, Tensor, Tensor, str], tuple[Tensor, Tensor]]


def degraded(kind: str, strength: float, seed: int) -> Disturb:
    """A degradation of a whole set, `strength` in 0..1: every pair gets a pattern of its own, the same for every method and in every run."""

    def disturb(model: FusionModel, ir: Tensor, vi: Tensor, name: str) -> tuple[Tensor, Tensor]:
        # `degrade` draws by shape alone: with one seed the same raindrops would fall on every picture of a size.
        return degrade(ir, vi, kind, strength, mix(seed, name))

    return disturb


@dataclass
class Measured:
    """What a method made of a data set."""

    frame: pd.DataFrame  # one row a pair: id, then one column a metric
    pictures: dict[str, Tensor] = field(default_factory=dict)  # id -> (1,H,W) fused grey picture in 0..1
    seen: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # id -> the sources the model saw

    def mean(self) -> pd.Series:
        """The mean of every metric over the pairs."""
        return self.frame.drop(columns="id").mean()

    def of(self, ids: Collection[str]) -> "Measured":
        """What it made of these pairs alone."""
        only = lambda kept: {name: x for name, x in kept.items() if name in ids}
        return Measured(self.frame[self.frame["id"].isin(ids)].reset_index(drop=True), only(self.pictures), only(self.seen))


SAME_PAIRS = " (same pairs)"


def fair(measured: Mapping[str, Measured]) -> dict[str, Measured]:
    """The methods on one data set; after each that saw more pairs than others stands "Method (same pairs)", over those that all saw.

    Means over different pairs cannot be compared. In short runs the paper's method sees the whole test set and its rivals a part of it.
    """
    common = set.intersection(*(set(r.frame["id"]) for r in measured.values()))
    rows = {}
    for name, r in measured.items():
        rows[name] = r
        if len(r.frame) > len(common):
            rows[name + SAME_PAIRS] = r.of(common)
    return rows


def lines(found: Mapping[tuple[str, str], Measured], means: Callable[[Measured], Mapping] = Measured.mean) -> list[dict]:
    """A line a method and data set, the methods `fair`: method, data, n, and the means. `found` has (method, data) for keys."""
    sets = dict.fromkeys(data for _, data in found)
    rows = ((data, fair({method: r for (method, where), r in found.items() if where == data})) for data in sets)
    return [{"method": method, "data": data, "n": len(r.frame), **means(r)} for data, methods in rows for method, r in methods.items()]


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """A table with a row a method, where the cells of "Method (same pairs)" have taken the place of the method's own."""
    rows = {row: table.loc[row] for row in table.index if not row.endswith(SAME_PAIRS)}
    for row in rows:
        if row + SAME_PAIRS in table.index:
            rows[row] = table.loc[row + SAME_PAIRS].combine_first(rows[row])
    return pd.DataFrame(rows).T.rename_axis(table.index.name).reindex(columns=table.columns)


def rivals(own: str, trained: bool = True, slow: bool | None = None) -> dict[str, FusionModel]:
    """Every other method of the registry that can run here, by its title.

    Beside the methods that need no weights these are, if `trained`, those whose weights lie on this machine. Nothing is fetched; a smoke
    run leaves them out, so that it gives the same rows everywhere. `slow` takes methods along that need seconds to minutes a pair;
    None: as `trained`.
    """
    slow = trained if slow is None else slow
    found = {}
    for row in METHODS.values():
        if row.name == own or (row.trained and not trained) or (row.slow and not slow):
            continue
        try:
            if row.trained:
                default_weights(row.name)
            found[row.title] = load(row.name)
        except CheckpointError:
            continue
    return found


def shrink(pair: Pair, long_side: int) -> Pair:
    """The pair with its longer side at most `long_side` pixels (0: as it is), antialiased."""
    h, w = pair.ir.shape[-2:]
    if not long_side or max(h, w) <= long_side:
        return pair
    size = [max(1, round(s * long_side / max(h, w))) for s in (h, w)]
    resize = lambda x: None if x is None else F.interpolate(x[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    return Pair(pair.id, resize(pair.ir), resize(pair.vi), resize(pair.cbcr), resize(pair.ir_cbcr), meta=dict(pair.meta))


def as_saved(fused: Tensor, cbcr: Tensor | None, post: str, rounding: str) -> Tensor:
    """The grey 8-bit picture (N,1,H,W) in 0..1 that a toolbox reads back from the saved file.

    With chrominance (`cbcr`, (N,2,H,W)) the saved file is in colour, and `post` may act on its three channels.
    """
    return quantise(luminance(quantise(to_picture(fused, post, cbcr), 8, rounding)))


CLEAN = ("EN", "SD", "SF", "MI", "PSNR", "CC", "SCD", "SSIM", "VIF", "Qabf")


def card_rows(model: FusionModel, tests: Mapping[str, Sequence[Pair]], post: str | None = None, device: str | torch.device = "cpu") -> list[dict]:
    """A line a data set, its pairs clean and at their own size, in the correct formulas: what a model card holds."""
    found = {name: measure(model, pairs, metrics=CLEAN, preset="default", post=post, device=device) for name, pairs in tests.items()}
    return [{"data": name, "pairs": len(r.frame), "preset": "default", "post": post or model.post, **r.mean()} for name, r in found.items()]


def measure(
    model: FusionModel,
    pairs: Sequence[Pair],
    *,
    metrics: Sequence[str],
    preset: str,
    post: str | None = None,
    rounding: str | None = None,
    disturb: Disturb | None = None,
    long_side: int = 0,
    keep: Sequence[str] = (),
    device: str | torch.device = "cpu",
    progress: Callable[[Sequence], Sequence] = lambda x: x,
) -> Measured:
    """Fuse every pair, disturbed or not, and compare the saved picture with the clean sources.

    The metrics always see the clean sources: what counts is how much of the scene survives, not of the disturbance.
    `keep` names the pairs whose pictures are kept.
    """
    rows, out = [], Measured(pd.DataFrame())
    for index in progress(range(len(pairs))):
        pair = shrink(pairs[index], long_side)
        ir, vi = pair.ir[None].to(device), pair.vi[None].to(device)
        seen = disturb(model, ir, vi, pair.id) if disturb else (ir, vi)
        with torch.no_grad():
            fused = model(*seen).float().cpu()
        cbcr = None if pair.cbcr is None else pair.cbcr[None]
        picture = as_saved(fused, cbcr, post or model.post, rounding or model.rounding)
        scores = evaluate(picture, pair.ir[None], pair.vi[None], metrics=list(metrics), preset=preset)
        rows.append({"id": pair.id, **scores.iloc[0].to_dict()})
        if pair.id in keep:
            out.pictures[pair.id] = picture[0]
            out.seen[pair.id] = tuple(x[0].cpu() for x in seen)
    out.frame = pd.DataFrame(rows, columns=["id", *metrics])
    return out
