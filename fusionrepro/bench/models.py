"""`fusionrepro bench models`: parameters, arithmetic, time and memory of fusion models.

Every number is measured where the command runs. Time of two models is compared by running them in turns in
one process, so that a busy machine slows both; memory is the peak of a fresh process of its own.
"""

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import psutil
import torch
from torch import Tensor, nn

from fusionrepro import settings
from fusionrepro.bench.published import YARDSTICKS, program
from fusionrepro.data.scenes import scene
from fusionrepro.errors import FusionReproError, InputError
from fusionrepro.nn.fusion import gflop
from fusionrepro.registry import METHODS, method

TRAINING_PIXELS = 256 * 256  # above, the published programs' graphs do not fit a small machine (A2RNet: 21.6 kB a pixel)
SIZES = {"128x128": (128, 128), "256x256": (256, 256), "640x480": (480, 640)}
PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16}
Fuse = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """One model at one size; a ratio is ours divided by the yardstick's, None where there is none."""

    model: str
    size: str  # width x height
    parameters: int  # that take part
    gflop: float | None  # of fusing one pair, a multiplication and an addition counted apart; None: no network
    cpu_seconds: float  # of all threads together, median
    seconds: float  # on the wall, median
    peak_mib: float  # memory that fusing one pair adds to a process
    step_seconds: float | None = None  # on the wall, forward and backward pass of one pair; None: nothing to train, or too large
    training_mib: float | None = None  # kept for the backward pass of one training step; None as above
    cpu_ratio: float | None = None
    peak_ratio: float | None = None
    training_ratio: float | None = None


def yardstick(name: str) -> str | None:
    """What the yardstick of a model is called, such as "a2rnet as published"; None where there is none."""
    return f"{name} {YARDSTICKS[name]}" if name in YARDSTICKS else None


def build(name: str) -> nn.Module:
    """A model in evaluation mode by its registry name, or the yardstick of that name; both have the same weights."""
    own = next((model for model in YARDSTICKS if yardstick(model) == name), name)
    pair = program(own)
    if pair is None:
        return method(own).build().eval()
    ours, plain = pair()
    return ours if own == name else plain


def parameters(model: nn.Module) -> int:
    """Parameters that take part in fusing; a published network may build modules that do not."""
    return sum(p.numel() for p in model.parameters()) - getattr(model, "unused", 0)


def pair(size: tuple[int, int], batch: int = 1) -> tuple[Tensor, Tensor]:
    """A seeded pair of noise, (N,1,H,W) each."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(batch, 1, *size, generator=generator) for _ in range(2))


LONG = 20.0  # seconds beyond which warming up matters little and repeating costs much


def times(
    models: dict[str, Fuse], size: tuple[int, int], repeats: int = 3, precision: str = "32", sources: tuple[Tensor, Tensor] | None = None
) -> dict[str, tuple[float, float]]:
    """Median CPU seconds and wall seconds of each model, all of them in turns; of one that takes `LONG` seconds the first turn must do.

    `sources`, (1,1,H,W) each, stand in for the noise of `pair(size)`.
    """
    ir, vi = sources or pair(size)
    spent = {name: [] for name in models}
    with torch.no_grad(), torch.autocast("cpu", PRECISIONS[precision], enabled=precision != "32"):
        for turn in range(repeats + 1):
            for name, model in models.items():
                if spent[name] and spent[name][0][1] >= LONG:
                    continue
                cpu, wall = time.process_time(), time.perf_counter()
                model(ir, vi)
                took = time.process_time() - cpu, time.perf_counter() - wall
                if turn or took[1] >= LONG:  # the first turn warms up
                    spent[name].append(took)
    return {k: tuple(statistics.median(x) for x in zip(*v, strict=True)) for k, v in spent.items()}


def method_seconds(progress: Callable[[str], None] = lambda text: None, size: str = "640x480") -> dict[str, float]:
    """Median wall seconds of one procedural scene with every method of the registry; untrained networks, which are as fast."""
    # Noise has no sparse code: methods that look for one would seem slower than they are.
    shown = scene(seed=7, size=SIZES[size])
    found = {}
    for name in METHODS:
        progress(f"time of {name} at {size}")
        found[name] = times({name: build(name)}, SIZES[size], sources=(shown.ir[None], shown.vi[None]))[name][1]
    return found


def step_seconds(models: dict[str, nn.Module], size: tuple[int, int], repeats: int = 3) -> dict[str, float]:
    """Median wall seconds of the forward and backward pass of one pair, all models in turns."""
    ir, vi = pair(size)
    spent = {name: [] for name in models}
    for turn in range(repeats + 1):
        for name, model in models.items():
            start = time.perf_counter()
            torch.autograd.grad(model(ir, vi).mean(), [p for p in model.parameters() if p.requires_grad], allow_unused=True)
            if turn:
                spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(v) for name, v in spent.items()}


def saved_bytes(run: Callable[[], Tensor], skip: Sequence[Tensor] = ()) -> int:
    """Bytes that the graph of `run()` keeps for its backward pass, each storage once, without those of `skip`."""
    # A storage is known by its handle, as tensors without values (device meta) have no address. Holding it keeps the handle from being reused.
    ignored = {t.untyped_storage()._cdata for t in skip}
    kept = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage()._cdata] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = run()
    total = sum(s.nbytes() for handle, s in kept.items() if handle not in ignored)
    del result
    return total


def training_bytes(model: nn.Module, size: tuple[int, int], batch: int = 1) -> int:
    """Largest number of bytes kept at once in one training step: a graph in training mode, then an attack's in evaluation mode.

    Published A2RNet holds both graphs at the same time, ours one after the other.
    """
    ir, vi = pair(size, batch)
    attacked = tuple(x.clone().requires_grad_() for x in (ir, vi))
    skip = list(model.parameters())
    clean = saved_bytes(lambda: model.train()(ir, vi), skip)
    attack = saved_bytes(lambda: model.eval()(*attacked), skip)
    return clean + attack if getattr(model, "two_graphs", False) else max(clean, attack)


def peak_bytes(name: str, size: tuple[int, int], threads: int = 0) -> int:
    """What fusing one pair adds to the peak memory of a fresh process."""
    job = json.dumps([name, size, threads or torch.get_num_threads()])
    done = subprocess.run([sys.executable, "-m", "fusionrepro.bench.models", job], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
        raise FusionReproError(f"the memory of '{name}' could not be measured: {reason}")
    return int(done.stdout.split()[-1])


def _measure_peak(name: str, size: tuple[int, int], threads: int) -> int:
    torch.set_num_threads(threads)
    model, sources, process = build(name), pair(size), psutil.Process()
    seen, stop = [], threading.Event()

    def watch() -> None:
        while not stop.wait(0.001):
            seen.append(process.memory_info().rss)

    with torch.no_grad():
        model(*pair((32, 32)))  # the libraries' own buffers
        before = process.memory_info().rss
        watcher = threading.Thread(target=watch)
        watcher.start()
        result = model(*sources)
        seen.append(process.memory_info().rss)
        stop.set()
        watcher.join()
    del result
    return max(max(seen) - before, 0)


def machine() -> str:
    """The processor and the threads that a measurement here uses."""
    return f"{settings.processor()}, {torch.get_num_threads()} threads"


def bench_models(
    names: Sequence[str] = (),
    sizes: Sequence[str] = tuple(SIZES),
    repeats: int = 3,
    precision: str = "32",
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Measure models by name (empty: all of the registry), beside the yardstick of those that have one.

    `precision` is that of the fusing times: 32 or bf16. `progress` is told what is being measured.

    Raises
    ------
    InputError
        for an unknown model, size or precision.
    """
    chosen = list(dict.fromkeys(names or METHODS))
    for name in chosen:
        method(name)
    if bad := [s for s in sizes if s not in SIZES]:
        raise InputError(f"unknown size '{bad[0]}': use {', '.join(SIZES)}.")
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision '{precision}': use {', '.join(PRECISIONS)}.")
    models = {}
    for name in chosen:
        if plain := yardstick(name):
            models[plain] = build(plain)
        models[name] = build(name)
    return [row for size in sizes for row in _with_ratios(_rows(models, size, repeats, progress, precision))]


def _rows(models: dict[str, nn.Module], size: str, repeats: int, progress: Callable[[str], None], precision: str = "32") -> list[Row]:
    shape, rows = SIZES[size], []
    progress(f"time at {size}")
    spent = times(models, shape, repeats, precision)
    trained = {n: m for n, m in models.items() if shape[0] * shape[1] <= TRAINING_PIXELS and any(p.requires_grad for p in m.parameters())}
    steps = step_seconds(trained, shape, repeats)
    for name, model in models.items():
        progress(f"memory of {name} at {size}")
        row = partial(Row, name, size, parameters(model), gflop(model, shape) if parameters(model) else None, *spent[name])
        training = training_bytes(model, shape) / 2**20 if name in trained else None
        rows.append(row(peak_bytes(name, shape) / 2**20, steps.get(name), training))
    return rows


def _with_ratios(rows: list[Row]) -> list[Row]:
    by_name = {r.model: r for r in rows}

    def compared(r: Row) -> Row:
        base = by_name.get(yardstick(r.model))
        if base is None:
            return r
        share = lambda field: getattr(r, field) / getattr(base, field) if getattr(base, field) and getattr(r, field) else None
        ratios = dict(cpu_ratio=share("cpu_seconds"), peak_ratio=share("peak_mib"), training_ratio=share("training_mib"))
        return Row(**asdict(r) | ratios)

    return [compared(r) for r in rows]


if __name__ == "__main__":
    print(_measure_peak(*json.loads(sys.argv[1])))
