"""One run of a reproduction notebook: its recipe, its folder, and everything that it records.

    run = start_run("a2rnet", profile, seed, data_root=data_root, out_dir=out_dir, epochs=epochs)
    data = run.dataset("scenes")
    run.table("table2", frame, row="model", data=data, post="minmax", eps="4/255")
    run.figure("fig6", figure, data=data)
    run.finish()
"""

import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from hashlib import sha256
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from fusionrepro import __version__, settings
from fusionrepro.errors import FusionReproError, InputError, unknown
from fusionrepro.files import atomic, write_text
from fusionrepro.gallery.provenance import trained_here
from fusionrepro.gallery.subjects import Subject
from fusionrepro.gallery.subjects import trained as exhibitor
from fusionrepro.gallery.view import View
from fusionrepro.metrics.evaluate import METRICS, convention
from fusionrepro.reproduction import claims, compare, ledger, readings
from fusionrepro.reproduction.figures import check_drawn
from fusionrepro.reproduction.lineup import LineUp, line_up
from fusionrepro.reproduction.protocol import plain
from fusionrepro.training.recipe import Recipe, coerce, recipe_for

# Parameters of a run that are no fields of its recipe: they decide what is tested, not what is trained.
# `reading` names fields of the recipe (see `readings`); `minutes` bounds the filling of the gallery with other methods' pictures.
TEST_FIELDS = {"pairs": int, "side": int, "sets": str, "reading": str, "minutes": float}
_VERSIONS = ("torch", "numpy", "scipy", "pandas", "scikit-image", "kornia", "lightning-fabric", "papermill")


def paper_recipe(slug: str, profile: str, **overrides: Any) -> Recipe:
    """The recipe of a paper in a profile, with the user's changes."""
    if ledger.paper(slug).own:
        return recipe_for(Recipe, {name: {"paper": slug} for name in settings.profiles()}, profile, **overrides)
    training = import_module(f"fusionrepro.{slug}.training")
    return recipe_for(training.RECIPE, training.PROFILES, profile, **overrides)


def published_recipe(slug: str) -> Recipe:
    """The training that the paper describes: the profile `paper`, and its `PUBLISHED` fields where that must do with less, such as other data."""
    return paper_recipe(slug, "paper").override(**getattr(import_module(f"fusionrepro.{slug}.training"), "PUBLISHED", {}))


def plan(slug: str, profile: str, seed: int = 0, **overrides: Any) -> tuple[Recipe, dict, Path]:
    """The recipe, the test parameters and the folder of a run, before anything runs.

    An override that is 0 or empty means: what the profile says.
    """
    given = {k: v for k, v in overrides.items() if isinstance(v, bool) or v not in (None, "", 0, "0")}
    tests = {k: coerce(k, TEST_FIELDS[k], given.pop(k)) for k in TEST_FIELDS if k in given}
    for name in ("pairs", "side", "minutes"):
        if tests.get(name, 1) <= 0:
            raise InputError(f"{name} must be 1 or more, or 0 for what the profile says, not {tests[name]}.")
    base = paper_recipe(slug, profile, seed=seed).override(**readings.fields_of(slug, tests.get("reading", "")))
    known = [f.name for f in fields(base)] + list(TEST_FIELDS)
    for name in given:
        if name not in known:
            raise unknown("parameter", name, known)
    recipe = base.override(**given)
    named = {k: v for k, v in tests.items() if k != "minutes"}  # how long a filling may take is no other run
    digest = recipe.hash if not named else sha256(f"{recipe.hash} {sorted(named.items())}".encode()).hexdigest()[:8]
    return recipe, tests, settings.path("runs_path") / slug / f"{profile}-s{seed}-{digest}"


def start_run(
    paper: str,  # slug
    profile: str = "smoke",  # smoke, laptop, gpu or paper
    seed: int = 0,
    data_root: str = "",  # empty: FUSIONREPRO_DATA or settings.ini
    out_dir: str = "",  # empty: the run's own folder under runs_path
    **overrides: Any,  # recipe fields and TEST_FIELDS; 0 or empty: the profile's
) -> "Run":
    """Check the parameters, build the recipe, fix seeds and threads, and open the run's folder with run.json."""
    seed = coerce("seed", int, seed)
    limits = settings.profile(coerce("profile", str, profile))
    recipe, tests, folder = plan(paper, profile, seed, **overrides)
    folder = Path(out_dir).expanduser().resolve() if out_dir else folder
    device = settings.device(limits.device)
    root = settings.data_root(data_root)
    if data_root:  # training loads its pairs by name and must look in the same place
        os.environ["FUSIONREPRO_DATA"] = str(root)
    _fix(seed, limits.threads)
    run = Run(paper, limits, recipe, tests, folder, device, root, {k for k, v in overrides.items() if v})
    run._clear()
    run._write()
    return run


def _fix(seed: int, threads: int) -> None:
    """Seeds of every generator, and no more threads than the batch runner grants."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    granted = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
    if wanted := min(filter(None, (threads, granted)), default=0):
        torch.set_num_threads(wanted)


class Run:
    """What `start_run` gives to a notebook."""

    def __init__(self, paper, limits, recipe, tests, folder, device, data_root, given=()):
        self.paper = ledger.paper(paper)
        self.profile: str = limits.name
        self.recipe: Recipe = recipe
        self.seed: int = recipe.seed
        self.folder: Path = folder
        self.device: torch.device = device
        self.data_root: Path | None = data_root
        self.pairs: int = tests.get("pairs", limits.limit)
        self.side: int = tests.get("side", limits.side)
        names = [s.strip() for s in tests.get("sets", "").split(",") if s.strip()]
        self.sets: tuple[str, ...] = tuple(names) or self.paper.evaluate[self.profile]
        self.reading: str = tests.get("reading", "") or readings.OURS
        self._minutes: float = tests.get("minutes", limits.minutes)
        self._given = set(given)
        self._limits, self._tests, self._start = limits, tests, time.time()
        self._tables: dict[str, pd.DataFrame] = {}
        self._items: list[dict] = []
        self._artifacts: dict[str, dict] = {}
        self._absent: dict[str, dict[str, str]] = {}
        self._record: dict[str, Any] = {"data": {}, "weights": {}, "notes": []}
        self._environment = environment(device)

    def __repr__(self) -> str:
        where = f"on {', '.join(self.sets)}, {self.pairs or 'all'} pairs each"
        return f"Run({self.paper.slug}, {self.profile}, seed {self.seed}, {where}, {self.device}, {self.folder})"

    # ---- what a notebook needs -----------------------------------------------------------------------------------------

    def dataset(self, name: str, split: str = "", limit: int | None = None) -> Sequence:
        """A data set by name, at most `pairs` pairs of it, with its fingerprint in the record. The split is the one that the paper's set has."""
        from fusionrepro.data.manifests import load_dataset

        split = split or next((s.split for s in self.paper.sets.values() if s.set == name), "")
        data = load_dataset(name, split, self.data_root, self.pairs if limit is None else limit)
        entry = {"split": split or "test", "pairs": len(data), "fingerprint": data.fingerprint}
        self._record["data"][f"{data.name}/{entry['split']}"] = entry
        self._write()
        return data

    def view(self, name: str, *, split: str = "", grey: bool = False, side: int = 0, limit: int | None = None) -> View:
        """The test pairs of a set as methods see them: at their own size unless `side` says otherwise, of which the record then has a note."""
        data = self.dataset(name, split, limit=limit)
        view = View(data, name, side, grey, whole=len(self._whole(name, split)))
        if side:
            self.note(f"Test pairs are shrunk to a longer side of {side} pixels.")
        return view

    def _whole(self, name: str, split: str = "") -> Sequence:
        from fusionrepro.data.manifests import load_dataset

        split = split or next((s.split for s in self.paper.sets.values() if s.set == name), "")
        return load_dataset(name, split, self.data_root)

    def training(self, recipe: Recipe | None = None, limit: str = "limit") -> Sequence:
        """The pairs that a recipe (default: the run's) trains on, with fingerprints, each set in the record. `limit` is the parameter that shortens them.

        Raises
        ------
        DataError
            in the profiles that train as published, when less of a set is on this machine than its manifest says there is, unless `limit` was given.
        """
        from fusionrepro.reproduction import expect
        from fusionrepro.training.crops import training_pairs

        recipe = recipe or self.recipe
        expect.check_training_set(recipe, self.data_root, limit in self._given, limit)
        for name in recipe.data.split("+"):
            set_, _, split = name.partition(":")
            self.dataset(set_, split or recipe.split, recipe.limit)
        pairs = training_pairs(recipe)
        if recipe == self.recipe and self.profile in self.paper.profiles:
            self.note(expect.told(recipe, len(pairs)))
        return pairs

    @property
    def deadline(self) -> float:
        """Of time.monotonic(): when the filling of the gallery with other methods' pictures ends, so many minutes after it is first asked for."""
        if not self._minutes:
            return float("inf")
        self._until = getattr(self, "_until", None) or time.monotonic() + 60 * self._minutes
        return self._until

    def own(
        self,
        title: str,
        trained: Any,
        recipe: Recipe | None = None,
        experiment: Mapping[str, Any] | None = None,
        pairs: int = 0,
        lacks: Sequence[str] = (),
        published: Mapping[str, Any] | None = None,
    ) -> Subject:
        """A network of this run as an exhibitor of the gallery, its training beside the published one; its weights go into the record.

        `trained` is what the paper's `train` gives, or a module; `recipe` what it was trained by (default: the run's), `pairs` on how many.
        `experiment` are the fields that the paper itself varies in this row: they are no shortfall. `lacks` are shortfalls that no field says.
        `published` is what the paper has in this row other than in its main one: fields of the recipe, and `pairs`.
        """
        module, recipe = getattr(trained, "module", trained), recipe or self.recipe
        of_row = {k: getattr(recipe, k) for k in experiment or {}} | dict(published or {})
        its_pairs = of_row.pop("pairs", self.paper.training.get("pairs", 0))
        theirs = published_recipe(self.paper.slug).override(**readings.fields_of(self.paper.slug, self.reading)).override(**of_row)
        found = trained_here(recipe, theirs, pairs or len(self.training(recipe)), its_pairs, lacks)
        self.weights(title, module)
        return exhibitor(title, module, found, recipe=recipe.hash)

    def line_up(self, artifact: str, **options: Any) -> LineUp:
        """Who stands beside the paper's method in an artifact; printed rivals that are not here go into its record with the reason."""
        found = line_up(self.paper, artifact, self.profile, **options)
        self._absent[artifact] = self._absent.get(artifact, {}) | found.absent
        return found

    def readings(self) -> pd.DataFrame:
        """All readings of the paper, one column each; the one of this run has a star."""
        base = paper_recipe(self.paper.slug, "paper")
        return readings.table(self.paper.slug, base).rename(columns={self.reading: f"{self.reading} *"})

    def training_folder(self, recipe: Recipe | None = None) -> Path:
        """Where the training of a recipe lives: shared by all runs, so that it is done once."""
        return (recipe or self.recipe).folder(settings.path("runs_path") / "training")

    def weights(self, label: str, module: torch.nn.Module) -> str:
        """Record the hash of a model's weights under `label`; gives the hash."""
        from fusionrepro.training.store import weights_sha256

        self._record["weights"][label] = digest = weights_sha256(module)
        self._write()
        return digest

    def note(self, text: str) -> None:
        """A sentence for the report: what a reader has to know about this run."""
        if text not in self._record["notes"]:
            self._record["notes"].append(text)
        self._write()

    # ---- recording -----------------------------------------------------------------------------------------------------

    def table(
        self,
        name: str,  # artifact of the ledger: table2, or the numbers behind fig4
        frame: pd.DataFrame,  # one line a row of the table, one column a metric
        row: str | list[str] = "method",  # columns that label a row; several are joined by " / "
        *,
        data: Any = None,  # data set or its name; a column `data` of the frame wins
        n: int | None = None,  # pairs; a column `n` of the frame wins
        **facts: Any,  # post="minmax", eps="4/255", ...: compared with the conditions of the ledger
    ) -> pd.DataFrame:  # the comparison with the paper, one line a cell
        """Record a table, compare it with the paper, and give the comparison back."""
        artifact = self.paper.artifact(name)
        n = len(data) if n is None and data is not None and not isinstance(data, str) else n
        where = "" if data is None else data if isinstance(data, str) else data.name
        facts = {k: str(v) for k, v in facts.items()}
        cells = compare.long_form(frame, row, where, n)
        absent = self._absent.get(name, {})
        conditions = compare.Conditions(self.profile, facts, self.reading, absent, _guesses(facts.get("preset", ""), cells["column"].unique(), artifact.formulas))
        found = compare.items(self.paper, artifact, cells, conditions)
        self._tables[name] = cells
        self._items = [i for i in self._items if i["id"] != artifact.address] + found
        keys = [row] if isinstance(row, str) else list(row)
        self._entry(artifact, table=f"tables/{name}.csv", keys=keys, facts=facts, data=sorted(set(cells["data"]) - {""}))
        with atomic(self.folder / "tables" / f"{name}.csv") as path:
            plain(frame).to_csv(path, index=any(frame.index.names))
        if not cells["value"].notna().any():
            self.failed(name, "no cell of the table has a value")
        self._write()
        return self.compare(name)

    def figure(self, name: str, figure, *, data: Any = None, caption: str = "", **facts: Any) -> None:
        """Record a matplotlib figure as PNG (120 dpi) and PDF, and close it: what a cell then ends with is shown once."""
        artifact = self.paper.artifact(name)
        try:
            check_drawn(figure)
        except FusionReproError as e:
            self.failed(name, str(e))
        base = self.folder / "figures" / name
        for suffix, options in ((".png", {"dpi": 120}), (".pdf", {"metadata": {"CreationDate": None}})):
            with atomic(base.with_suffix(suffix)) as path:
                figure.savefig(path, bbox_inches="tight", **options)
        plt.close(figure)
        names = [data] if data is not None and (isinstance(data, str) or hasattr(data, "name")) else data or []
        names = [d if isinstance(d, str) else d.name for d in names]
        self._entry(artifact, figure=f"figures/{name}.png", caption=caption, facts={k: str(v) for k, v in facts.items()}, data=names)
        self._write()

    def failed(self, name: str, why: str) -> None:
        """An artifact that has nothing to show is no regenerated one."""
        artifact = self.paper.artifact(name)
        self._entry(artifact, facts={}, data=[], status="failed", why=why)
        self.note(f"{artifact.label} failed: {why}")

    def compare(self, name: str | None = None) -> pd.DataFrame:
        """Ours beside the paper's, of one artifact or of all."""
        address = self.paper.artifact(name).address if name else None
        found = [i for i in self._items if address in (None, i["id"])]
        columns = ["id", "data", "row", "column", "value", "n", "paper", "difference", "tolerance", "verdict", "why", "provenance"]
        return pd.DataFrame(found, columns=columns)

    def finish(self) -> pd.DataFrame:
        """Close the run: claims, results.json, a table; fails when an artifact of the ledger is missing."""
        lost = self.missing()
        self._write("incomplete" if lost else "ok")
        if lost:
            raise FusionReproError(f"{self.paper.slug} did not record {', '.join(lost)}, which the ledger calls regenerated; partial results are in {self.folder}.")
        print(self.folder)
        return self.summary()

    def missing(self) -> list[str]:
        """What the ledger calls regenerated and this run has not recorded."""
        wanted = [(a.id, r) for a in self.paper.artifacts.values() if a.status == "regenerated" for r in a.records]
        return [f"{name} ({kind})" for name, kind in wanted if kind not in self._artifacts.get(name, {})]

    def summary(self) -> pd.DataFrame:
        """One line an artifact: cells, verdicts, and why not comparable."""
        lines = []
        for name, entry in self._artifacts.items():
            own = [i for i in self._items if i["id"] == entry["id"]]
            why = next((i["why"] for i in own if i["paper"] is not None and i["verdict"] == "not comparable"), "")
            lines.append({"artifact": name, "cells": len(own), **compare.counts(own), "why": why})
        return pd.DataFrame(lines, columns=["artifact", "cells", *compare.VERDICTS, "why"])

    # ---- files ---------------------------------------------------------------------------------------------------------

    def _entry(self, artifact: ledger.Artifact, **values: Any) -> None:
        entry = self._artifacts.setdefault(artifact.id, {"id": artifact.address, "kind": artifact.kind, "status": "regenerated", "facts": {}, "data": []})
        facts = entry["facts"] | values.pop("facts")
        data = entry["data"] + [d for d in values.pop("data") if d not in entry["data"]]
        entry.update({k: v for k, v in values.items() if v}, facts=facts, data=data)

    def _clear(self) -> None:
        """Remove what an earlier run left here, so that no old table stands for a new one."""
        for kind in ("tables", "figures"):
            for path in (self.folder / kind).glob("*.*"):
                path.unlink()

    def _write(self, status: str = "running") -> None:
        """results.json: the same for the same seed. run.json: also what differs from run to run."""
        order = list(self.paper.artifacts)
        results = {
            "schema": 1,
            "paper": self.paper.slug,
            "run": self.folder.name,
            "profile": self.profile,
            "reading": self.reading,
            "data": ", ".join(self.sets),
            "status": status,
            "items": self._items,
            "artifacts": [self._artifacts[name] for name in order if name in self._artifacts],
            "claims": claims.evaluate(self.paper.slug, self._tables, self.profile),
            "notes": self._record["notes"],
        }
        write_text(self.folder / "results.json", _json(results))
        record = {
            "paper": self.paper.slug,
            "profile": self.profile,
            "seed": self.seed,
            "recipe": asdict(self.recipe),
            "recipe_hash": self.recipe.hash,
            "tests": {"sets": list(self.sets), "pairs": self.pairs, "side": self.side, **self._tests},
            "reading": self.reading,
            "data": self._record["data"],
            "data_root": bool(self.data_root),
            "weights": self._record["weights"],
            **self._environment,
            "started": datetime.fromtimestamp(self._start, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self._start, 1),
            "peak_memory_mib": _peak_memory(self.device),
        }
        write_text(self.folder / "run.json", _json(record))


def _guesses(preset: str, columns: Sequence[str], formulas: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """The columns whose formula in this preset is inferred from the printed magnitudes, and not known; `formulas` names metrics under other headings."""
    if not preset:
        return {}
    known = {c: m for c in columns if (m := formulas.get(c, c)) in METRICS}
    return {c: "the formula is inferred from magnitudes" for c, m in known.items() if convention(m, preset).get("evidence") == "inferred"}


def _json(value: Any) -> str:
    """JSON that every reader takes: no NaN."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, device and commit: what a number depends on besides its recipe."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else settings.processor()
    commit, dirty = _commit()
    return {
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {"fusionrepro": __version__, **{p: v for p in _VERSIONS if (v := _version(p))}},
        "commit": commit,
        "dirty": dirty,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> tuple[str, bool | None]:
    """The commit and whether files differ from it; empty and None outside a clone."""
    git = lambda *a: subprocess.run(["git", "-C", str(settings.root()), *a], capture_output=True, text=True, timeout=30)
    try:
        head = git("rev-parse", "HEAD")
        if head.returncode:
            return "", None
        return head.stdout.strip(), bool(git("status", "--porcelain", "--untracked-files=no").stdout.strip())
    except (OSError, subprocess.TimeoutExpired):
        return "", None


def _peak_memory(device: torch.device) -> int | None:
    """Largest memory so far in MiB: of the GPU where one is used, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> 20 if sys.platform == "darwin" else peak >> 10
