"""One way to measure a fusion method on a data set, clean or disturbed, for every paper and every table: through the gallery."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fusionrepro.data.pairs import Pair
from fusionrepro.gallery.conditions import CLEAN, Condition
from fusionrepro.gallery.entry import Entry, grey
from fusionrepro.gallery.hang import coloured
from fusionrepro.gallery.scores import scores
from fusionrepro.gallery.subjects import Subject
from fusionrepro.gallery.view import View
from fusionrepro.metrics.evaluate import Preset
from fusionrepro.metrics.evaluate import preset as preset_named

CLEAN_METRICS = ("EN", "SD", "SF", "MI", "PSNR", "CC", "SCD", "SSIM", "VIF", "Qabf")


@dataclass
class Measured:
    """What a method made of a data set: its pictures, which lie in the gallery, and their scores."""

    entry: Entry
    frame: pd.DataFrame  # one row a picture: id, then one column a metric
    preset: str
    facts: dict[str, str] = field(default_factory=dict)
    lifeless: str = ""  # why the method made nothing, where its saved pictures do not show it: a stretch makes a picture of anything

    @property
    def title(self) -> str:
        """Of the method, as tables call it."""
        return self.entry.subject.title

    @property
    def data(self) -> str:
        """The name of the set."""
        return self.entry.view.name

    @property
    def ids(self) -> list[str]:
        """Of the pictures, in the order of the set."""
        return list(self.frame["id"])

    @property
    def dead(self) -> str:
        """Why nothing about these pictures may be scored, shown or claimed; empty where they are alive."""
        return self.lifeless or (self.entry.dead(self.ids) if len(self.frame) else "no picture was made")

    def mean(self) -> pd.Series:
        """The mean of every metric over the pictures; not a number where they are dead."""
        means = self.frame.drop(columns="id").mean()
        return means * float("nan") if self.dead else means

    def picture(self, name: str) -> Tensor:
        """(1,H,W), 0..1: the grey 8-bit picture that was measured."""
        return grey(self.entry.picture(name))

    def shown(self, name: str) -> np.ndarray:
        """(H,W,3), uint8: the picture as a person is shown it, in colour where the pair has colour."""
        return coloured(self.entry.picture(name), self.entry.view[name])

    def seen(self, name: str) -> tuple[Tensor, Tensor]:
        """The two sources (1,H,W) that the method saw, on the CPU."""
        return tuple(x[0].detach().cpu() for x in self.entry.seen(self.entry.view[name]))

    def row(self, **labels: Any) -> dict[str, Any]:
        """A line of a table: labels, data, n, means, and what the row is."""
        about = {"provenance": self.entry.subject.provenance, "facts": self.facts}
        return {"method": self.title, "data": self.data, "n": len(self.frame), **labels, **self.mean(), **about}


def measure(
    subject: Subject,
    view: View,
    metrics: Sequence[str],
    preset: str | Preset,
    *,
    post: str = "",  # empty: as the method's own program saves
    rounding: str = "",
    condition: Condition = CLEAN,
    device: str | torch.device = "cpu",
    deadline: float = float("inf"),  # of time.monotonic(): no picture is begun after it
) -> Measured:
    """Make what is missing of a method's pictures, and compare the saved pictures with the clean sources.

    The metrics always see the clean sources: what counts is how much of the scene survives, not of the disturbance.
    """
    entry = Entry(subject, view, condition, post, rounding)
    entry.fill(device, deadline)
    frame = scores(entry, metrics, preset, device)
    facts = {"post": entry.post, "rounding": entry.rounding, "own post": "yes" if entry.own_post else "no", "size": view.size_text}
    return Measured(entry, frame, preset_named(preset).name, facts | {"condition": condition.name})


def measure_all(subjects: Iterable[Subject], views: Iterable[View], *args: Any, told: Callable[[str], None] = lambda note: None, **options: Any) -> list[Measured]:
    """Every method on every set; a method of which no picture could be made is left out, and `told` why."""
    found, late = [], {}
    views = list(views)
    for number, one in enumerate(subjects := list(subjects), 1):
        for view in views:
            print(f"{one.title} on {view.name}: {number} of {len(subjects)}", flush=True)
            measured = measure(one, view, *args, **options)
            failures = measured.entry.failures()
            if failures:
                told(f"{one.title} failed on {len(failures)} of {len(view)} pairs of {view.name}: {next(iter(failures.values()))}")
            if len(measured.frame) == 0:
                if not failures:
                    late.setdefault(view.name, []).append(one.title)
                else:
                    told(f"{one.title} on {view.name} was left out: no picture was made.")
                continue
            if len(measured.frame) < len(view) - len(failures):
                told(f"{one.title} on {view.name} has {len(measured.frame)} of {len(view)} pictures so far; the next run goes on.")
            if measured.dead:
                told(f"{one.title} on {view.name} is not scored: {measured.dead}")
            found.append(measured)
    for name, titles in late.items():
        told(f"In the time given no picture of {name} was made by {', '.join(titles)}; the next run goes on.")
    return found


def table(found: Iterable[Measured], rename: Callable[[str], str] = lambda title: title) -> pd.DataFrame:
    """A line a method and data set, in the order given."""
    return pd.DataFrame([m.row(method=rename(m.title)) for m in found])


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """A table as a reader sees it in a notebook: provenance as text, facts left out."""
    shown = frame.drop(columns="facts", errors="ignore")
    if "provenance" in shown:
        shown = shown.assign(provenance=[getattr(p, "text", p) for p in shown["provenance"]])
    return shown


def of(found: Iterable[Measured], title: str = "", data: str = "") -> list[Measured]:
    """Those of a method, of a set, or both."""
    return [m for m in found if (not title or m.title == title) and (not data or m.data == data)]


def alive(found: Iterable[Measured]) -> list[Measured]:
    """Those whose pictures are fused pictures."""
    return [m for m in found if not m.dead]


def pictures_of(found: Iterable[Measured], name: str) -> dict[str, np.ndarray]:
    """Title -> (H,W,3), uint8, of one pair, by all that are alive and made it."""
    return {m.title: m.shown(name) for m in alive(found) if name in m.ids}


def sources_of(view: View, name: str, titles: tuple[str, str] = ("infrared", "visible")) -> dict[str, np.ndarray]:
    """Title -> (H,W,3), uint8: both sources in their colours."""
    from fusionrepro.data.show import in_colour

    pair: Pair = view[name]
    both = (in_colour(pair.ir, pair.ir_cbcr), in_colour(pair.vi, pair.cbcr))
    return {title: (255 * x).round().astype(np.uint8) for title, x in zip(titles, both, strict=True)}


def common(found: Collection[Measured]) -> list[str]:
    """The ids that all of them have, in the order of the set: means over different pairs cannot be compared."""
    shared = set.intersection(*(set(m.ids) for m in found)) if found else set()
    return [i for i in next(iter(found)).ids if i in shared] if found else []


def over(measured: Measured, ids: Collection[str]) -> Measured:
    """The same over these pairs alone."""
    return replace(measured, frame=measured.frame[measured.frame["id"].isin(ids)].reset_index(drop=True))


def card_rows(subject: Subject, views: Iterable[View], post: str = "", device: str | torch.device = "cpu") -> list[dict]:
    """A line a data set, its pairs clean and at their own size, in the correct formulas: what a model card holds."""
    found = [measure(subject, view, CLEAN_METRICS, "default", post=post, device=device) for view in views]
    return [{"data": m.data, "pairs": len(m.frame), "preset": "default", "post": m.entry.post, **m.mean()} for m in found]
