"""The batch: reproduction notebooks over local processes or a Dask cluster.

A failing notebook never stops the others. What is done is not done again, so a killed batch is continued by starting it anew.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from fusionrepro import settings
from fusionrepro.cluster import connect
from fusionrepro.errors import FusionReproError, InputError, unknown
from fusionrepro.files import write_text
from fusionrepro.reproduction import ledger
from fusionrepro.reproduction.job import executed

# Modules that no result depends on.
_BESIDE = ("cli.py", "__main__.py", "_modidx.py", "job.py", "runner.py", "report.py", "readme.py", "download.py")
_TYPES = {"str": str, "int": int, "float": float, "bool": bool}


@cache
def code() -> str:
    """A hash of the library's sources, so that a result of other code can be told."""
    package = Path(__file__).resolve().parents[1]
    sources = sorted(p for p in package.rglob("*.py") if p.parent.name != "bench" and p.name not in _BESIDE)
    return sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()[:16]


@dataclass(frozen=True)
class Job:
    """A notebook to execute, where its results go, and with what."""

    name: str
    notebook: Path
    folder: Path
    parameters: dict[str, Any] = field(default_factory=dict)
    timeout: int = 600  # seconds a cell
    threads: int = 1  # of the kernel's numerical libraries

    @property
    def fingerprint(self) -> str:
        """Changes with the notebook and its parameters."""
        text = self.notebook.read_bytes() + json.dumps(self.parameters, sort_keys=True).encode()
        return sha256(text).hexdigest()[:16]

    def spec(self) -> dict:
        """What `job.execute` needs, as plain values."""
        return {
            "name": self.name,
            "notebook": str(self.notebook),
            "folder": str(self.folder),
            "parameters": self.parameters,
            "fingerprint": self.fingerprint,
            "code": code(),
            "timeout": self.timeout,
            "cwd": str(settings.root()),
        }

    def record(self) -> dict:
        """The job.json that an earlier or present execution left; empty without one."""
        with suppress(OSError, ValueError):
            return json.loads((self.folder / "job.json").read_text(encoding="utf-8"))
        return {}

    def is_done(self) -> bool:
        """Whether the same notebook already ran to its end here with the same parameters."""
        record = self.record()
        return record.get("status") == "ok" and record.get("fingerprint") == self.fingerprint and (self.folder / "notebook.ipynb").is_file()


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Job
    status: str  # ok, skipped (done before) or failed
    error: str = ""
    seconds: float = 0.0


# ---- planning ----------------------------------------------------------------------------------------------------------


def notebooks() -> dict[str, Path]:
    """The reproduction notebooks there are, by slug."""
    return {slug: p.notebook for slug, p in ledger.ledger().items() if p.notebook.is_file()}


def plan(
    papers: Sequence[str] = (),  # slugs; empty: all that have a notebook
    profile: str = "smoke",
    seed: int = 0,
    data_root: str = "",
    parameters: dict[str, Any] | None = None,  # others, text or typed
    threads: int = 1,
) -> list[Job]:
    """A job for every paper; every name and type is checked before anything runs."""
    limits = settings.profile(profile)
    settings.device(limits.device)  # a profile for a GPU is refused here, not after half a minute in a kernel
    root = str(settings.data_root(data_root) or "") if data_root else ""
    chosen = [_notebook(slug) for slug in papers] or list(notebooks().items())
    if not chosen:
        raise FusionReproError(f"no reproduction notebook in {settings.path('nbs_path') / 'reproduction'}; run this in a clone of the project.")
    from fusionrepro.reproduction.expect import check_training_set

    jobs = []
    for slug, notebook in dict(chosen).items():
        given = check_parameters(notebook, {"profile": profile, "seed": seed, "data_root": root} | (parameters or {}))
        recipe, _, folder = _run_plan(slug, given)
        if not ledger.paper(slug).own:
            check_training_set(recipe, root or None, bool(given.get("limit")))
        jobs.append(Job(slug, notebook, folder, given | {"out_dir": str(folder)}, limits.cell_timeout, threads))
    return jobs


def _notebook(slug: str) -> tuple[str, Path]:
    path = ledger.paper(slug).notebook
    if not path.is_file():
        raise InputError(f"{path} does not exist; run this in a clone of the project.")
    return slug, path


def _run_plan(slug: str, parameters: dict[str, Any]) -> tuple:
    """Recipe, test parameters and folder of a run."""
    from fusionrepro.reproduction.run import plan as plan_run

    given = {k: v for k, v in parameters.items() if k not in ("profile", "seed", "data_root", "out_dir")}
    return plan_run(slug, parameters["profile"], parameters["seed"], **given)


def check_parameters(notebook: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters in the types that the notebook's parameters cell declares.

    papermill itself would only log an unknown name and pass text where a number is due.
    """
    import papermill

    known = papermill.inspect_notebook(str(notebook))
    if not known:
        raise InputError(f"{notebook} has no cell tagged 'parameters'.")
    typed = {}
    for name, value in given.items():
        if name not in known:
            raise unknown(f"parameter of {notebook.stem}", name, known)
        typed[name] = _typed(notebook, name, known[name], value)
    return typed


def _typed(notebook: Path, name: str, declared: dict, value: Any) -> Any:
    kind = _TYPES.get(str(declared["inferred_type_name"]))
    if kind is None:
        raise InputError(f"{notebook}: parameter {name} needs one of the types {', '.join(_TYPES)} in its parameters cell.")
    from fusionrepro.training.recipe import coerce

    return coerce(name, kind, value)


# ---- running -----------------------------------------------------------------------------------------------------------


class Handle(Protocol):
    """A job on its way."""

    def done(self) -> bool: ...
    def cancel(self) -> None: ...


class _Local:
    """A job in a process group of its own, so that its kernel ends with it."""

    def __init__(self, job: Job):
        self._log = open(job.folder / "log.txt", "w", encoding="utf-8")
        self._process = subprocess.Popen(_command(job), stdout=self._log, stderr=subprocess.STDOUT, env=_environment(job), start_new_session=True)

    def done(self) -> bool:
        if self._process.poll() is None:
            return False
        self._log.close()
        return True

    def cancel(self) -> None:
        _stop(self._process)
        self._log.close()


def _command(job: Job) -> list[str]:
    return [sys.executable, "-m", "fusionrepro.reproduction.job", str(job.folder / "spec.json")]


def _environment(job: Job) -> dict[str, str]:
    threads = {k: str(job.threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    # Threads that sleep between the many small operations of a training wake up too late to be of use.
    waiting = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "ACTIVE")}
    return os.environ | threads | waiting | {"PYTHONUNBUFFERED": "1"}


def _stop(process: subprocess.Popen, patience: float = 15) -> None:
    """End a process, politely first: an interrupted papermill shuts its kernel down."""
    for sign in (signal.SIGINT, signal.SIGKILL) if hasattr(os, "killpg") else (None,):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign) if sign else process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def _on_worker(job: Job) -> None:
    """What a Dask worker does: the same process as here. The run folder has to be on a file system that both see."""
    handle = _Local(job)
    while not handle.done():
        if (job.folder / "cancel").exists():
            return handle.cancel()
        time.sleep(1)


class _Remote:
    """A job on a Dask cluster."""

    def __init__(self, client, job: Job):
        self._job = job
        self._future = client.submit(_on_worker, job, key=f"fusionrepro-{job.name}-{time.time_ns()}", retries=0)

    def done(self) -> bool:
        return self._future.done()

    def cancel(self) -> None:
        (self._job.folder / "cancel").touch()  # Dask itself cannot end a task that runs
        self._future.cancel()


def run_jobs(
    jobs: Sequence[Job],
    parallel: int = 1,  # jobs at once
    cluster: str = "",  # address of a Dask scheduler; empty: processes of this machine
    force: bool = False,  # also what is done already
    report: Callable[[dict[str, str]], None] = lambda states: None,  # told every job's state, in words, as it changes
    poll: float = 0.5,
) -> list[Outcome]:
    """Execute the jobs, in order, several at once; every job ends in an outcome."""
    if parallel < 1:
        raise InputError(f"jobs must be 1 or more, not {parallel}.")
    if cluster:
        client = connect(cluster)
        try:
            return _drive(jobs, parallel, lambda job: _Remote(client, job), force, report, poll)
        finally:
            client.close()
    return _drive(jobs, parallel, _Local, force, report, poll)


def _drive(jobs, parallel, start: Callable[[Job], Handle], force, report, poll) -> list[Outcome]:
    outcomes = {j.folder: Outcome(j, "skipped", "", j.record().get("seconds", 0.0)) for j in jobs if not force and j.is_done()}
    waiting = [j for j in jobs if j.folder not in outcomes]
    active: dict[Path, tuple[Job, Handle]] = {}
    try:
        while waiting or active:
            while waiting and len(active) < parallel:
                job = waiting.pop(0)
                active[job.folder] = (job, start(_prepared(job)))
            for folder, (job, handle) in list(active.items()):
                if handle.done():
                    outcomes[folder] = _outcome(job)
                    del active[folder]
            report(_states(jobs, outcomes, active))
            if active:
                time.sleep(poll)
    finally:  # interrupted: nothing goes on behind the user's back
        for _, handle in active.values():
            handle.cancel()
    report(_states(jobs, outcomes, active))
    return [outcomes[j.folder] for j in jobs]


def _prepared(job: Job) -> Job:
    """The job with its specification written and old traces of it gone."""
    job.folder.mkdir(parents=True, exist_ok=True)
    for name in ("job.json", "notebook.ipynb", "cancel"):
        (job.folder / name).unlink(missing_ok=True)
    write_text(job.folder / "spec.json", json.dumps(job.spec(), indent=1) + "\n")
    return job


def _outcome(job: Job) -> Outcome:
    record = job.record()
    if record.get("status") == "ok":
        return Outcome(job, "ok", "", record["seconds"])
    error = record.get("error") or f"the process ended before it could say why; see {job.folder / 'log.txt'}"
    return Outcome(job, "failed", error, record.get("seconds", 0.0))


def _states(jobs: Iterable[Job], outcomes: dict[Path, Outcome], active: dict) -> dict[str, str]:
    words = {}
    for job in jobs:
        if found := outcomes.get(job.folder):
            words[job.name] = found.status if found.status != "skipped" else _skipped(job)
        else:
            words[job.name] = current_cell(job) if job.folder in active else "waiting"
    return words


def _skipped(job: Job) -> str:
    return "done before" if job.record().get("code") == code() else "done before, by other code: --force does it again"


def current_cell(job: Job) -> str:
    """Where a running notebook is: `cell 7 of 23: Training, fusion 3/12: step 120 of 480`."""
    notebook = job.folder / "notebook.ipynb"
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return "starting"
    at = min(executed(notebook), len(cells) - 1)
    headings = [line.lstrip("# ") for c in cells[: at + 1] if c["cell_type"] == "markdown" for line in _lines(c) if line.startswith("#")]
    return f"cell {at + 1} of {len(cells)}" + (f": {headings[-1]}" if headings else "") + _count(job.folder / "log.txt")


def _count(log: Path) -> str:
    """The count that a cell printed last, such as `, fusion 3/12: step 120 of 480`; nothing where its last line has none."""
    try:
        with open(log, "rb") as f:
            f.seek(max(0, log.stat().st_size - 2000))
            lines = f.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    last = next((line for line in reversed(lines) if line.strip()), "")
    found = re.match(r".{0,60}?\b\d+ of \d+\b", last)
    return f", {found[0]}" if found else ""


def _lines(cell: dict) -> list[str]:
    return "".join(cell["source"]).splitlines()


# ---- on the terminal ---------------------------------------------------------------------------------------------------


def batch(jobs: Sequence[Job], parallel: int = 1, cluster: str = "", force: bool = False) -> list[Outcome]:
    """`run_jobs` with one line a notebook on the terminal, and a summary at the end."""
    from rich.console import Console

    console = Console(stderr=True)
    start = time.time()
    with _lines_of_progress(console) as show:
        outcomes = run_jobs(jobs, parallel, cluster, force, show)
    failed = [o for o in outcomes if o.status == "failed"]
    for o in failed:
        console.print(f"{o.job.name} failed: {o.error}", style="red", markup=False, highlight=False, soft_wrap=True)
        console.print(f"  what it left: {o.job.folder}", markup=False, highlight=False, soft_wrap=True)
    words = f"{len(outcomes) - len(failed)} of {len(outcomes)} notebooks done, {len(failed)} failed, {time.time() - start:.0f} s."
    console.print(words, markup=False, highlight=False)
    return outcomes


@contextmanager
def _lines_of_progress(console) -> Iterator[Callable[[dict[str, str]], None]]:
    """A live table on a terminal; elsewhere a line when a notebook starts, ends, or has got further after half a minute."""
    begun: dict[str, float] = {}

    def clock(name: str, state: str) -> str:
        if state == "waiting":
            return ""
        begun.setdefault(name, time.time())
        return f"{time.time() - begun[name]:.0f} s"

    if not console.is_terminal:
        yield _plain_lines(console)
        return
    from rich.live import Live
    from rich.table import Table

    with Live(console=console, refresh_per_second=4) as live:
        final: dict[str, str] = {}

        def show(states: dict[str, str]) -> None:
            table = Table(box=None, show_header=False, pad_edge=False)
            for name, state in states.items():
                ended = state in ("ok", "failed") or state.startswith("done")
                took = final.setdefault(name, clock(name, state)) if ended else clock(name, state)
                colour = {"ok": "green", "failed": "red", "waiting": "dim"}.get(state, "dim" if ended else "")
                table.add_row(name, f"[{colour}]{state}[/]" if colour else state, took)
            live.update(table)

        yield show


def _plain_lines(console) -> Callable[[dict[str, str]], None]:
    last: dict[str, tuple[str, float]] = {}

    def show(states: dict[str, str]) -> None:
        for name, state in states.items():
            before, when = last.get(name, ("", 0.0))
            fresh = state != before and (not before.startswith("cell") or not state.startswith("cell") or time.time() - when > 30)
            if fresh and state != "waiting":
                console.print(f"{name}: {state}", markup=False, highlight=False, soft_wrap=True)
                last[name] = (state, time.time())

    return show


def threads_for(jobs: int, cluster: str = "") -> int:
    """Threads a notebook's kernel gets, so that jobs at once do not fight for the cores."""
    return 1 if cluster else max(1, (os.cpu_count() or 1) // jobs)
