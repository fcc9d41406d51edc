"""Filling the gallery: many methods, sets and conditions, over processes of this machine or a Dask cluster."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from fusionrepro.baselines.catalogue import recorded_times
from fusionrepro.cluster import connect
from fusionrepro.data.manifests import load_dataset
from fusionrepro.errors import FusionReproError, InputError
from fusionrepro.gallery.conditions import parse
from fusionrepro.gallery.entry import Entry, root
from fusionrepro.gallery.scores import scores
from fusionrepro.gallery.subjects import subject
from fusionrepro.gallery.view import View
from fusionrepro.metrics.evaluate import PRESETS
from fusionrepro.registry import METHODS

__all__ = ["Done", "Progress", "Task", "make", "table", "tasks"]

_UNKNOWN = 1.0  # seconds of a 640x480 picture, where none was recorded


@dataclass(frozen=True)
class Task:
    """One entry to fill and score, in plain values that another process understands."""

    method: str
    set: str  # a name of a data set, or a folder with two folders of pictures
    condition: str = "clean"
    split: str = ""
    limit: int = 0  # pairs; 0: all
    side: int = 0
    post: str = ""
    preset: str = ""  # empty: pictures only
    metrics: tuple[str, ...] = ()
    device: str = "cpu"
    data_root: str = ""
    threads: int = 1
    weights: str = "default"

    @property
    def name(self) -> str:
        """As a reader says it."""
        return " · ".join((METHODS[self.method].title, self.set, self.condition))

    def view(self) -> View:
        """The pairs."""
        return View(load_dataset(self.set, self.split, self.data_root or None, self.limit), side=self.side)

    def entry(self, view: View | None = None) -> Entry:
        """The exhibit."""
        return Entry(subject(self.method, self.weights), view or self.view(), parse(self.condition), self.post)


@dataclass
class Done:
    """How a task ended."""

    task: Task
    new: int = 0
    kept: int = 0
    failed: int = 0
    left: int = 0
    error: str = ""  # nothing of it could be made
    means: dict[str, float] = field(default_factory=dict)
    dead: str = ""
    provenance: str = ""
    folder: str = ""

    @property
    def n(self) -> int:
        """Pictures that are there."""
        return self.new + self.kept

    @property
    def state(self) -> str:
        """In words."""
        if self.error:
            return f"failed: {self.error}"
        parts = [f"{self.new} made"] if self.new else []
        parts += [f"{self.kept} there"] if self.kept else []
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.left} left"] if self.left else []
        return ", ".join(parts) or "nothing to do"


def tasks(
    sets: Iterable[str],
    methods: Iterable[str],
    conditions: Iterable[str] = ("clean",),
    **common: Any,  # the other fields of `Task`
) -> list[Task]:
    """Every combination that makes sense, all names checked: a method without gradients is not attacked, the quickest methods come first."""
    conditions = list(conditions)
    for text in conditions:
        parse(text)
    if (preset := common.get("preset")) and preset not in PRESETS:
        raise InputError(f"unknown preset '{preset}': one of {', '.join(PRESETS)}.")
    ordered = sorted(methods, key=_seconds)
    sets = list(sets)
    for name in sets:
        load_dataset(name, common.get("split", ""), common.get("data_root") or None, 1)
    found = [Task(m, s, c, **common) for s in sets for c in conditions for m in ordered]
    if not found:
        raise InputError("nothing to make: name at least one set, one method and one condition.")
    return found


def _seconds(name: str) -> float:
    """A picture of 640x480, as recorded."""
    found = recorded_times().get(name)
    return float(found["seconds"]) if found else _UNKNOWN


def work(task: Task, deadline: float = float("inf"), beats: str = "") -> Done:
    """Fill and score one entry; what goes wrong is told, not raised. `beats` is a file that grows by a byte a picture."""
    import torch

    torch.set_num_threads(task.threads)
    try:
        entry = task.entry()
        if task.condition.startswith("attack") and not entry.subject.module.differentiable:
            return Done(task, error="it passes no gradients, so it cannot be attacked")
        # A deadline is of the wall clock: a monotonic one means nothing to another process.
        left = float("inf") if deadline == float("inf") else time.monotonic() + deadline - time.time()
        filled = entry.fill(task.device, left, lambda n: _beat(beats, n))
        done = Done(task, filled.new, filled.kept, filled.failed, filled.left, provenance=entry.subject.provenance.text, folder=str(entry.folder))
        done.dead = entry.dead()
        if task.preset and done.n and not done.dead:
            done.means = means_of(scores(entry, task.metrics, task.preset, task.device))
        return done
    except FusionReproError as e:
        return Done(task, error=str(e))
    except Exception as e:  # one method must not cost the others
        return Done(task, error=f"{type(e).__name__}: {e}")


def _beat(beats: str, n: int) -> None:
    if beats:
        with open(beats, "ab") as f:
            f.write(b"." * n)


def means_of(frame: pd.DataFrame) -> dict[str, float]:
    """The mean of every column but `id`."""
    return {k: float(v) for k, v in frame.drop(columns="id").mean().items()}


@dataclass
class Progress:
    """How far a filling is."""

    tasks: int = 0  # that ended
    pictures: int = 0  # that were made
    left: float = float("inf")  # seconds, as the recorded times of the methods have it
    last: Done | None = None  # the task that ended just now


def make(
    wanted: Sequence[Task],
    parallel: int = 1,
    cluster: str = "",  # address of a Dask scheduler; empty: processes of this machine
    minutes: float = 0,  # no picture is begun after so long; 0: until all is done
    told: Callable[[Progress], None] = lambda progress: None,  # every second, and when a task ends
) -> list[Done]:
    """Fill and score all entries, several at once; in the order of `wanted`."""
    if parallel < 1:
        raise InputError(f"jobs must be 1 or more, not {parallel}.")
    if minutes < 0:
        raise InputError(f"minutes must be 0 (no limit) or more, not {minutes:g}.")
    deadline = time.time() + 60 * minutes if minutes else float("inf")
    root().mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".beats-", dir=root()) as beats:
        clock, ended = _Clock(wanted, Path(beats)), {}
        for done in _run(wanted, parallel, cluster, deadline, clock.files):
            if done:
                ended[done.task] = done
            told(clock.progress(ended, done))
    return [ended[t] for t in wanted]


class _Clock:
    """What is left, from the times that are recorded of the methods and the pace so far."""

    def __init__(self, wanted: Sequence[Task], beats: Path):
        sizes = {key: len(load_dataset(*key)) for key in {_pairs_of(t) for t in wanted}}
        self.files = {t: str(beats / str(i)) for i, t in enumerate(wanted)}
        self.pairs = {t: sizes[_pairs_of(t)] for t in wanted}
        self.cost = {t: (_seconds(t.method) + 0.2) * (60 if t.condition.startswith("attack") else 1) for t in wanted}
        self.begin = time.time()

    def progress(self, ended: dict[Task, Done], last: Done | None) -> Progress:
        made = {t: Path(f).stat().st_size if Path(f).exists() else 0 for t, f in self.files.items()}
        kept = sum(self.cost[t] * (self.pairs[t] - made[t]) for t in ended)  # cost nothing, or were left out
        spent = sum(self.cost[t] * n for t, n in made.items())
        rest = sum(self.cost[t] * n for t, n in self.pairs.items()) - kept - spent
        pace = (time.time() - self.begin) / spent if spent else float("inf")
        return Progress(len(ended), sum(made.values()), rest * pace if rest > 0 else 0.0, last)


def _pairs_of(task: Task) -> tuple:
    return task.set, task.split, task.data_root or None, task.limit


def _run(wanted: Sequence[Task], parallel: int, cluster: str, deadline: float, beats: Mapping[Task, str]) -> Iterator[Done | None]:
    """Every task's end, and None now and then."""
    if cluster:
        yield from _on_cluster(wanted, cluster, deadline, beats)
    elif parallel == 1:
        yield from (work(t, deadline, beats[t]) for t in wanted)
    else:
        yield from _in_processes(wanted, parallel, deadline, beats)


def _in_processes(wanted: Sequence[Task], parallel: int, deadline: float, beats: Mapping[Task, str]) -> Iterator[Done | None]:
    # Numerical libraries read these when they are loaded, which in a spawned process is later.
    kept = {k: os.environ.get(k) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ |= dict.fromkeys(kept, str(wanted[0].threads))
    pool = ProcessPoolExecutor(parallel, get_context("spawn"), _follow, (os.getpid(),))
    waiting = {pool.submit(work, t, deadline, beats[t]): t for t in wanted}
    try:
        while waiting:
            for future in wait(waiting, 1, FIRST_COMPLETED).done:
                yield _ended(future, waiting.pop(future))
            yield None
    finally:  # interrupted: nothing goes on behind the user's back
        for process in list((pool._processes or {}).values()) if waiting else []:
            process.terminate()
        pool.shutdown(wait=not waiting, cancel_futures=True)
        for key, value in kept.items():
            os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)


def _follow(parent: int) -> None:
    """End with the process that started this one: killed outright, it cannot say so itself."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_cluster(wanted: Sequence[Task], address: str, deadline: float, beats: Mapping[Task, str]) -> Iterator[Done | None]:
    from distributed import wait as wait_for

    with connect(address) as client:
        waiting = {client.submit(work, t, deadline, beats[t], pure=False, retries=0): t for t in wanted}
        while waiting:
            with suppress(TimeoutError):
                wait_for(list(waiting), 1, "FIRST_COMPLETED")
            for future in [f for f in waiting if f.done()]:
                yield _ended(future, waiting.pop(future))
            yield None


def _ended(future: Any, task: Task) -> Done:
    error = future.exception()
    return Done(task, error=f"its process ended ({type(error).__name__})") if error else future.result()


def table(done: Iterable[Done]) -> list[dict[str, Any]]:
    """One row a method, set and condition: what it is, how many pictures, the means."""
    rows = []
    for d in done:
        row = {"set": d.task.set, "condition": d.task.condition, "method": METHODS[d.task.method].title, "pictures": d.n, "provenance": d.provenance}
        note = d.error or d.dead or (f"{d.left} of its pictures are not made yet" if d.left else f"{d.failed} failed" if d.failed else "")
        rows.append(row | d.means | {"note": note})
    return rows

