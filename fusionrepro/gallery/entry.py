"""One exhibit: what one method with certain weights made of one data set under one condition, on disk.

    runs/gallery/<set>/<condition>/<method>-<digest>/
        record.json        what the pictures depend on, how long they took
        pictures.jsonl     a line a picture, as it was made: id, hash of the pair, file, seconds, error
        pictures/*.png     8 bit, as the method saves them
        scores/*.csv       a preset each, a row a picture

The digest covers method, options, weights (by their tensors), code, picture rules and condition; a picture's name the pixels of its pair.
So other weights, data, options or code make other pictures, and nothing is taken for what it is not.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image as Pillow
from torch import Tensor

from fusionrepro import __version__, settings
from fusionrepro.data.pairs import Pair
from fusionrepro.errors import DataError, FusionReproError
from fusionrepro.files import atomic, write_text
from fusionrepro.gallery.conditions import CLEAN, Condition
from fusionrepro.gallery.guard import Watch
from fusionrepro.gallery.identity import code_hash, digest, plain, slug
from fusionrepro.gallery.subjects import Subject
from fusionrepro.gallery.view import View
from fusionrepro.imaging.color import luminance
from fusionrepro.imaging.post import quantise, to_picture

__all__ = ["Entry", "Filled", "root"]

_PICTURE_CODE = ("fusionrepro.imaging.post", "fusionrepro.imaging.color", "fusionrepro.nn.fusion")


def root() -> Path:
    """Where the gallery lies."""
    return settings.path("runs_path") / "gallery"


@dataclass(frozen=True)
class Filled:
    """What a filling did."""

    new: int  # pictures that were made
    kept: int  # that were there
    failed: int
    left: int  # not made, as the time was up
    seconds: float


class Entry:
    """The pictures of a subject on a view of a data set."""

    def __init__(
        self,
        subject: Subject,
        view: View,
        condition: Condition = CLEAN,
        post: str = "",  # clip, minmax, minmax_rgb; empty: the method's own
        rounding: str = "",  # round or floor; empty: the method's own
        folder: Path | None = None,  # of the gallery
    ):
        self.subject, self.view, self.condition = subject, view, condition
        self.post, self.rounding = post or subject.module.post, rounding or subject.module.rounding
        place = (slug(view.name), slug(condition.name), f"{slug(subject.name)}-{self.digest[:10]}")
        self.folder = (folder or root()).joinpath(*place)

    # ---- identity ------------------------------------------------------------------------------------------------------

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything but the pairs that decides the pictures."""
        return {
            "method": self.subject.name,
            "options": plain(self.subject.options),
            "weights": self.subject.weights,
            "code": code_hash((type(self.subject.module).__module__, *_PICTURE_CODE)),
            "post": self.post,
            "rounding": self.rounding,
            "side": self.view.side,
            "grey": self.view.grey,
            "condition": {"name": self.condition.name, **self.condition.identity},
        }

    @cached_property
    def digest(self) -> str:
        """Of the identity."""
        return digest(self.identity)

    @property
    def own_post(self) -> bool:
        """Whether pictures are saved as the method's own program saves them."""
        return (self.post, self.rounding) == (self.subject.module.post, self.subject.module.rounding)

    # ---- what is there -------------------------------------------------------------------------------------------------

    def lines(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(id, hash of the pair) -> its line; a line that a kill cut short does not count."""
        found = {}
        for line in _read_lines(self.folder / "pictures.jsonl"):
            found[line["id"], line["hash"]] = line
        return found

    def missing(self) -> list[str]:
        """The ids that have no picture yet and have not failed."""
        there = self.lines()
        return [i for i in self.view.ids if (i, self.view.hash(i)) not in there]

    def made(self) -> list[str]:
        """The ids of the view that have a picture."""
        there = self.lines()
        return [i for i in self.view.ids if there.get((i, self.view.hash(i)), {}).get("file")]

    def failures(self) -> dict[str, str]:
        """Id -> why there is no picture of it."""
        there = self.lines()
        return {i: line["error"] for i in self.view.ids if (line := there.get((i, self.view.hash(i)))) and line.get("error")}

    def picture(self, name: str) -> np.ndarray:
        """(H,W) or (H,W,3), uint8, as saved; FusionReproError where there is none."""
        line = self.lines().get((name, self.view.hash(name)))
        if not line or not line.get("file"):
            why = line["error"] if line else "it was not made yet"
            raise FusionReproError(f"there is no picture of '{name}' by {self.subject.title}: {why}")
        return read_picture(self.folder / "pictures" / line["file"])

    # ---- making --------------------------------------------------------------------------------------------------------

    def fill(
        self,
        device: str | torch.device = "cpu",
        deadline: float = float("inf"),  # of time.monotonic(); no picture is begun after it
        told: Callable[[int], None] = lambda n: None,  # called with 1 after each picture
        again: bool = False,  # also what failed before
    ) -> Filled:
        """Make the pictures that are missing, one by one; a kill loses at most the one at work.

        A picture that cannot be made is recorded with its reason and stops nothing. A second process waits for the first, and finds its pictures.
        """
        begin, new, failed = time.monotonic(), 0, 0
        if not (self.missing() or (again and self.failures())):
            return self._filled(new, begin)
        with self.locked():
            self._open(device)
            todo = self.missing() + (list(self.failures()) if again else [])
            module = self.subject.module.to(device)
            for name in todo:
                if time.monotonic() > deadline:
                    break
                failed += bool(self._make(module, self.view[name], device))
                new += 1
                told(1)
            module.to("cpu")
            self._close(time.monotonic() - begin)
        return self._filled(new - failed, begin)

    def _filled(self, new: int, begin: float) -> Filled:
        left = len(self.missing())
        failed = len(self.failures())
        return Filled(new, len(self.view) - left - failed - new, failed, left, time.monotonic() - begin)

    def _make(self, module, pair: Pair, device) -> str:
        """One picture and its line; gives the reason where there is none."""
        name, mark, begin = pair.id, self.view.hash(pair.id), time.perf_counter()
        line: dict[str, Any] = {"id": name, "hash": mark}
        try:
            levels = self._levels(module, pair, device)
            line["file"] = f"{slug(name)[:60]}-{mark}.png"
            with atomic(self.folder / "pictures" / line["file"]) as path:
                Pillow.fromarray(levels).save(path, compress_level=3)
        except (FusionReproError, RuntimeError, MemoryError, ArithmeticError) as e:
            line |= {"file": "", "error": str(e).splitlines()[0][:300] if str(e) else type(e).__name__}
        line["seconds"] = round(time.perf_counter() - begin, 4)
        with open(self.folder / "pictures.jsonl", "a", encoding="utf-8") as f:
            f.write(json.dumps(line, ensure_ascii=False) + "\n")
        return line.get("error", "")

    def _levels(self, module, pair: Pair, device) -> np.ndarray:
        """(H,W) or (H,W,3), uint8: what the method's file would hold."""
        with torch.no_grad():
            fused = module(*self.seen(pair, device)).float().cpu()
        cbcr = None if pair.cbcr is None else pair.cbcr[None]
        picture = quantise(to_picture(fused, self.post, cbcr), 8, self.rounding)[0]
        levels = (picture * 255).round().byte()
        return levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).numpy()

    def seen(self, pair: Pair, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
        """The two sources (1,1,H,W) that the method sees: the clean ones, or what the condition makes of them."""
        ir, vi = pair.ir[None].to(device), pair.vi[None].to(device)
        disturb = self.condition.disturb
        return disturb(self.subject.module, ir, vi, pair.id) if disturb else (ir, vi)

    # ---- files ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the folder; whoever waits says so."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=2)
        except Timeout:
            print(f"waiting for another process that fills {self.folder.relative_to(self.folder.parents[2])}", flush=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _open(self, device: str | torch.device) -> None:
        """Sweep what a kill left, and write the record."""
        for left in (self.folder / "pictures").glob(".*.png"):
            left.unlink(missing_ok=True)
        _mend(self.folder / "pictures.jsonl")
        written = self.record()
        if written and written["identity"] != plain(self.identity):
            raise DataError(f"{self.folder} holds other pictures than its name says: remove it with `fusionrepro gallery clean`.")
        name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else settings.processor()
        facts = {"title": self.subject.title, "set": self.view.name, "identity": plain(self.identity), "provenance": self.subject.provenance.as_record()}
        machine = {"device": str(device), "device_name": name, "threads": torch.get_num_threads(), "torch": torch.__version__, "fusionrepro": __version__}
        self._write({"seconds": 0.0} | written | facts | {"machine": machine})

    def _close(self, seconds: float) -> None:
        made, failed = self.made(), self.failures()
        self._write(self.record() | {"pictures": len(made), "failures": failed, "pairs": self.view.fingerprint,
                                     "of": self.view.whole, "seconds": round(self.record()["seconds"] + seconds, 2)})  # fmt: skip

    def record(self) -> dict[str, Any]:
        """record.json; empty where there is none."""
        return read_record(self.folder)

    def _write(self, record: dict[str, Any]) -> None:
        write_text(self.folder / "record.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    # ---- is it a fusion at all? ----------------------------------------------------------------------------------------

    def dead(self, names: Sequence[str] = ()) -> str:
        """Why these pictures (all that were made) are no result of a working method; empty where they are one.

        A control, which fuses nothing, is not judged.
        """
        chosen = list(names) or self.made()
        if self.subject.provenance.kind == "control" or not chosen:
            return ""
        key = digest([[self.view.hash(i) for i in chosen], code_hash(("fusionrepro.gallery.guard",))])
        kept = _read_json(self.folder / "guard.json")
        if key not in kept:
            watch = Watch()
            for name in chosen:
                pair = self.view[name]
                watch.add(name, self.picture(name), *(_levels_of(x) for x in (pair.ir, pair.vi)))
            kept = _read_json(self.folder / "guard.json") | {key: watch.verdict()}
            write_text(self.folder / "guard.json", json.dumps(kept, indent=1) + "\n")
        return kept[key]


def _levels_of(x: Tensor) -> np.ndarray:
    return (x[0] * 255).round().byte().numpy()


def read_picture(path: Path) -> np.ndarray:
    """A kept picture, (H,W) or (H,W,3), uint8; DataError for one that is damaged."""
    try:
        with Pillow.open(path) as image:
            return np.asarray(image)
    except OSError as e:
        raise DataError(f"the kept picture {path} cannot be read ({e}): remove its folder, and it is made again.") from e


def grey(levels: np.ndarray) -> Tensor:
    """(1,H,W), 0..1: the grey 8-bit picture that a toolbox reads from a saved one."""
    x = torch.from_numpy(levels.copy()).float() / 255
    return x[None] if x.ndim == 2 else quantise(luminance(x.permute(2, 0, 1)[None]))[0]


def read_record(folder: Path) -> dict[str, Any]:
    """The record.json of an entry's folder; empty where there is none or it is damaged."""
    return _read_json(folder / "record.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and {"id", "hash", "file"} <= set(value):
            found.append(value)
    return found


def _mend(path: Path) -> None:
    """End a last line that a kill cut short, so that the next one does not join it."""
    if path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        with open(path, "a", encoding="utf-8") as f:
            f.write("\n")

