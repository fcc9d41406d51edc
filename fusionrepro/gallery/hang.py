"""What lies in the gallery: a list, a contact sheet, and what is taken down."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fusionrepro.data.pairs import Pair
from fusionrepro.errors import InputError
from fusionrepro.gallery.conditions import parse
from fusionrepro.gallery.entry import Entry, read_record, root
from fusionrepro.gallery.identity import slug
from fusionrepro.gallery.subjects import subject
from fusionrepro.gallery.view import View
from fusionrepro.imaging.color import ycbcr_to_rgb

__all__ = ["coloured", "entries", "listing", "sheet", "take_down"]


def coloured(levels: np.ndarray, pair: Pair) -> np.ndarray:
    """(H,W,3), uint8: a kept picture as a person is shown it. Where only the first source has colour (PET, SPECT, GFP) it is put back here:
    the papers measure the grey picture."""
    if levels.ndim == 3:
        return levels
    if pair.ir_cbcr is None or pair.cbcr is not None:
        return np.repeat(levels[..., None], 3, axis=2)
    import torch

    y = torch.from_numpy(levels.copy()).float()[None] / 255
    rgb = ycbcr_to_rgb(y, pair.ir_cbcr[:1], pair.ir_cbcr[1:]).clamp(0, 1)
    return (rgb * 255).round().byte().permute(1, 2, 0).numpy()


def entries(sets: Iterable[str] = (), methods: Iterable[str] = (), conditions: Iterable[str] = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders and records of what is kept, of these sets, methods and conditions; empty: of all."""
    sets, methods = {slug(s) for s in sets}, set(methods)
    states = {slug(parse(c).name) for c in conditions}
    for path in sorted(root().glob("*/*/*/record.json")):
        folder, record = path.parent, read_record(path.parent)
        wanted = (not sets or folder.parents[1].name in sets) and (not states or folder.parent.name in states)
        if wanted and (not methods or record.get("identity", {}).get("method") in methods):
            yield folder, record


def listing(found: Iterable[tuple[Path, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row an entry."""
    return [
        {
            "set": r.get("set", "?"),
            "condition": r.get("identity", {}).get("condition", {}).get("name", "?"),
            "method": r.get("title", "?"),
            "pictures": r.get("pictures", 0),
            "failed": len(r.get("failures", {})),
            "seconds": r.get("seconds", 0.0),
            "MB": round(sum(p.stat().st_size for p in f.rglob("*") if p.is_file()) / 1e6, 1),
            "provenance": r.get("provenance", {}).get("text", "?"),
            "folder": f.name,
        }
        for f, r in found
    ]


def stale(found: Iterable[tuple[Path, dict[str, Any]]]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Entries of methods of the registry whose present code or weights would make others."""
    from fusionrepro.errors import FusionReproError
    from fusionrepro.registry import METHODS

    for folder, record in found:
        identity = record.get("identity", {})
        name = identity.get("method")
        if name not in METHODS or record.get("provenance", {}).get("facts", {}).get("ours"):
            continue
        try:
            now = subject(name, **identity.get("options", {}))
            entry = Entry(now, View([], "x", identity["side"], identity["grey"]), parse("clean"), identity["post"], identity["rounding"])
        except (FusionReproError, KeyError):
            continue
        if any(entry.identity[k] != identity[k] for k in ("weights", "code")):
            yield folder, record


def take_down(found: Iterable[tuple[Path, dict[str, Any]]]) -> int:
    """Delete these entries; gives how many."""
    number = 0
    for folder, _ in found:
        shutil.rmtree(folder)
        number += 1
    return number


def sheet(found: Sequence[Entry], ids: Sequence[str], width: float = 2.0, columns: int = 6) -> Figure:
    """A contact sheet: a block of rows a pair, the sources first, then every method."""
    import matplotlib.pyplot as plt

    if not found or not ids:
        raise InputError("there is nothing to show: no entry of this set, or no such pair.")
    blocks = [_block(found, name) for name in ids]
    per = -(-max(len(b) for b in blocks) // columns)
    across = min(columns, max(len(b) for b in blocks))
    h, w = next(iter(blocks[0].values())).shape[:2]
    size = (width * across, (width * h / w + 0.22) * per * len(blocks))
    figure, axes = plt.subplots(per * len(blocks), across, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for k, (name, block) in enumerate(zip(ids, blocks, strict=True)):
        for i, (title, picture) in enumerate(block.items()):
            axis = axes[k * per + i // across, i % across]
            axis.imshow(picture)
            axis.set_title(f"{name}: {title}" if i == 0 and len(ids) > 1 else title, fontsize=7)
    return figure


def _block(found: Sequence[Entry], name: str) -> dict[str, np.ndarray]:
    """What is shown of a pair, by title."""
    pair = found[0].view[name]
    levels = lambda x: (x[0] * 255).round().byte().numpy()
    second = levels(pair.vi) if pair.cbcr is None else _rgb(pair.vi, pair.cbcr)
    block = {"first source": coloured(levels(pair.ir), pair), "second source": second}
    for entry in found:
        if name in entry.made():
            block[entry.subject.title] = coloured(entry.picture(name), pair)
    return {k: v if v.ndim == 3 else np.repeat(v[..., None], 3, axis=2) for k, v in block.items()}


def _rgb(y, cbcr) -> np.ndarray:
    rgb = ycbcr_to_rgb(y, cbcr[:1], cbcr[1:]).clamp(0, 1)
    return (rgb * 255).round().byte().permute(1, 2, 0).numpy()
