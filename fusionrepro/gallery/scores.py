"""Scores of kept pictures: computed once, a CSV a preset, a row a picture."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from fusionrepro.files import atomic
from fusionrepro.gallery.entry import Entry, grey
from fusionrepro.gallery.identity import code_hash, digest, slug
from fusionrepro.metrics import evaluate
from fusionrepro.metrics.evaluate import Preset, metric
from fusionrepro.metrics.evaluate import preset as preset_named

__all__ = ["scores"]

_AT_ONCE = 16  # pictures between two writings: what a kill can lose
_PIXELS = 4_000_000  # of a batch on a GPU


def scores(
    entry: Entry,
    metrics: Sequence[str],
    preset: str | Preset = "default",
    device: str | torch.device = "cpu",
    told: Callable[[int], None] = lambda n: None,  # called with the number of pictures that are scored
) -> pd.DataFrame:
    """One row a picture that was made, in the order of the set: id, then one column a metric; saved picture against clean sources."""
    names = list(dict.fromkeys(metric(m).name for m in metrics))
    convention = preset_named(preset)
    path = _path(entry, convention)
    kept = _read(path)
    todo = [i for i in entry.made() if not _has(kept, i, entry.view.hash(i), names)]
    if todo:
        with entry.locked():
            for part in _parts(todo):
                kept = _merged(_read(path), _measured(entry, part, names, convention, device))
                _write(path, kept)
                told(len(part))
    order = pd.DataFrame({"id": entry.made(), "hash": [entry.view.hash(i) for i in entry.made()]}, dtype=object)
    if not len(order):
        return pd.DataFrame(columns=["id", *names])
    return order.merge(kept, on=["id", "hash"], how="left")[["id", *names]]


def _path(entry: Entry, preset: Preset) -> Path:
    """The file of a preset; other formulas have another."""
    uses = {name: asdict(use) for name, use in preset.uses.items()}
    mark = digest([preset.colour, uses, code_hash(("fusionrepro.metrics.evaluate",))])[:8]
    return entry.folder / "scores" / f"{slug(preset.name)}-{mark}.csv"


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype={"id": str, "hash": str, "measured": str}, float_precision="round_trip")
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame({"id": pd.Series(dtype=str), "hash": pd.Series(dtype=str)})


def _has(kept: pd.DataFrame, name: str, mark: str, metrics: Sequence[str]) -> bool:
    """Whether every metric of the picture is there. A value that is no number was measured too: it is kept as `nan` beside `done`."""
    if not set(metrics) <= set(kept.columns):
        return False
    row = kept[(kept["id"] == name) & (kept["hash"] == mark)]
    if not len(row):
        return False
    done = set(str(row.iloc[0].get("measured", "")).split())
    return set(metrics) <= done


def _parts(names: Sequence[str]) -> Iterator[list[str]]:
    for at in range(0, len(names), _AT_ONCE):
        yield list(names[at : at + _AT_ONCE])


def _measured(entry: Entry, names: Sequence[str], metrics: Sequence[str], preset: Preset, device: str | torch.device) -> pd.DataFrame:
    """A row a picture, measured in batches of one size on the device."""
    frames = []
    for batch in _batches(entry, names, torch.device(device)):
        fused, ir, vi = (torch.stack(x).to(device) for x in zip(*(t for _, t in batch), strict=True))
        found = evaluate(fused, ir, vi, metrics=list(metrics), preset=preset, ids=[i for i, _ in batch]).reset_index()
        frames.append(found)
    table = pd.concat(frames, ignore_index=True)
    marks = [entry.view.hash(i) for i in table["id"]]
    return table.assign(hash=marks, measured=" ".join(metrics))


def _batches(entry: Entry, names: Sequence[str], device: torch.device) -> Iterator[list]:
    """Lists of (id, (fused, ir, vi)); on a CPU one picture each, as its caches like small work."""
    batch = []
    for name in names:
        pair = entry.view[name]
        item = (name, (grey(entry.picture(name)), pair.ir, pair.vi))
        full = batch and (device.type == "cpu" or batch[0][1][0].shape != pair.ir.shape or (len(batch) + 1) * pair.ir.numel() > _PIXELS)
        if full:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _merged(kept: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Both tables; of a picture that stands in both, the new metrics beside the old ones."""
    keys = ["id", "hash"]
    if "measured" not in kept:
        kept = kept.assign(measured="")
    old, fresh = kept.set_index(keys), new.set_index(keys)
    both = fresh["measured"].str.split() + old["measured"].reindex(fresh.index).fillna("").str.split()
    fresh["measured"] = [" ".join(dict.fromkeys(words)) for words in both]
    out = fresh.combine_first(old)
    columns = [c for c in dict.fromkeys([*old.columns, *fresh.columns]) if c != "measured"]
    return out[[*columns, "measured"]].reset_index()


def _write(path: Path, table: pd.DataFrame) -> None:
    with atomic(path) as t:
        table.to_csv(t, index=False)
