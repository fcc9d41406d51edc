"""Scores of files and folders: tables, intervals, tests between methods, box plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fusionrepro.errors import DataError, InputError
from fusionrepro.files import atomic
from fusionrepro.imaging.io import READ_SUFFIXES, images_by_stem, read_image
from fusionrepro.metrics.evaluate import METRICS, Preset, convention, evaluate, metric
from fusionrepro.metrics.evaluate import preset as find_preset
from fusionrepro.progress import counting

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Scores:
    """A table of metrics, one row an image, with what its numbers depend on."""

    frame: pd.DataFrame  # index `id`, one column a metric; conventions in `.attrs`

    @property
    def preset(self) -> str:
        """The conventions' name."""
        return self.frame.attrs["preset"]

    @property
    def conventions(self) -> dict[str, str]:
        """Metric -> its options, colour rule and slip, in one line."""
        return {name: describe(rule) for name, rule in self.frame.attrs["conventions"].items()}

    def summary(self, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """One row a metric: arrow, mean, sd, bootstrap interval of the mean, number of images, convention."""
        rows = {}
        for name, values in self.frame.items():
            low, high = bootstrap_interval(values.to_numpy(), level, seed)
            rows[name] = dict(
                better=METRICS[name].arrow,
                mean=values.mean(),
                sd=values.std(ddof=1) if len(values) > 1 else 0.0,
                low=low,
                high=high,
                n=len(values),
                convention=self.conventions[name],
            )
        table = pd.DataFrame.from_dict(rows, orient="index")
        table.index.name = "metric"
        table.attrs.update(preset=self.preset, level=level)
        return table

    def rows(self) -> pd.DataFrame:
        """The table with `preset` and `conventions` in every row."""
        lines = "; ".join(f"{name}: {line}" for name, line in self.conventions.items())
        return self.frame.assign(preset=self.preset, conventions=lines)

    def to_csv(self, path: str | Path) -> Path:
        """Write `id`, one column a metric, then `preset` and `conventions` in every row, at full precision."""
        with atomic(path) as t:
            self.rows().to_csv(t)
        return Path(path)

    def box_plot(self, path: str | Path | None = None):
        """A box plot for each metric; returns the figure, and writes it when a path is given."""
        return box_plot({"": self}, path)


def describe(rule: dict) -> str:
    """One line for a convention as `evaluate` records it."""
    options = ", ".join(f"{k}={_short(v)}" for k, v in rule["options"].items() if k != "block")
    parts = [rule["metric"] + (f" ({options})" if options else ""), f"colour: {rule['colour']}"]
    if not rule["known"]:
        parts.append("not in the toolbox, default formula")
    elif rule["evidence"] == "inferred":
        parts.append("inferred: the toolbox's own formula is not known")
    if rule["slip"]:
        parts.append(f"slip: {rule['slip']}")
    return " | ".join(parts)


def _short(value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value) or "none"


def score(
    fused: str | Path,
    ir: str | Path,
    vi: str | Path,
    preset: str | Preset = "default",
    metrics: Sequence[str] | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> Scores:
    """Measure a fused file, or a folder of them, against its sources.

    In folders a fused image belongs to the sources with the same name, whatever their suffix. Without
    `metrics` those of the preset's toolbox are measured, under `default` the usual eleven.

    Raises
    ------
    DataError
        when a fused image has no partner or two.
    InputError
        for files that cannot be read or do not fit together, unknown metrics and presets.
    """
    metrics = _chosen(metrics, preset)
    return _measured(_triples(Path(fused), Path(ir), Path(vi)), metrics, preset, device, progress)


def _chosen(metrics: Sequence[str] | None, preset: str | Preset) -> list[str]:
    """Names of metrics; unknown ones and unknown presets are told before any reading."""
    own = find_preset(preset).metrics
    return [metric(name).name for name in (own if metrics is None else metrics)]


def _measured(triples, metrics, preset, device, progress, label="scoring") -> Scores:
    rows = []
    with counting(label, len(triples), progress) as count:
        for name, paths in triples.items():
            rows.append(_row(name, paths, metrics, preset, device))
            count()
    frame = pd.concat(rows)
    frame.attrs = rows[0].attrs
    return Scores(frame)


def _row(name, paths, metrics, preset, device) -> pd.DataFrame:
    images = [_picture(p, device) for p in paths]
    try:
        return evaluate(*images, metrics=metrics, preset=preset, ids=[name])
    except InputError as e:  # says fused, ir or vi; a folder holds many of each
        raise InputError(f"{paths[0]}: {e}") from e


def _triples(fused: Path, ir: Path, vi: Path) -> dict[str, tuple[Path, Path, Path]]:
    folders = [p.is_dir() for p in (fused, ir, vi)]
    for p in (fused, ir, vi):
        if not p.exists():
            raise InputError(f"{p} does not exist; check the name.")
    if not any(folders):
        return {fused.stem: (fused, ir, vi)}
    if not all(folders):
        raise InputError("give three files or three folders, not a mixture.")
    sources = [images_by_stem(folder) for folder in (ir, vi)]
    images = images_by_stem(fused)
    for folder, files in zip((ir, vi), sources, strict=True):
        missing = sorted(set(images) - set(files))
        if missing:
            raise DataError(
                f"{folder} has no partner for {_some(missing)}; name sources like their fused images."
            )
    return {name: (path, sources[0][name], sources[1][name]) for name, path in images.items()}


def _picture(path: Path, device: str) -> Tensor:
    x = torch.from_numpy(np.asarray(read_image(path).pixels)).to(device)
    return x[None, None] if x.ndim == 2 else x.permute(2, 0, 1)[None]


# ---------------------------------------------------------------- several methods


@dataclass(frozen=True)
class MethodScores:
    """The scores of several methods on the pictures that they have in common."""

    methods: dict[str, Scores]  # name -> its scores, all of the same pictures
    left_out: tuple[str, ...]   # one sentence for each method that misses pictures

    @property
    def conventions(self) -> dict[str, str]:
        """Metric -> its options, colour rule and slip, in one line."""
        return next(iter(self.methods.values())).conventions

    def table(self) -> pd.DataFrame:
        """One row a method, one column a metric with its arrow: means over the pictures."""
        means = {name: s.frame.mean() for name, s in self.methods.items()}
        table = pd.DataFrame.from_dict(means, orient="index")
        table.columns = [f"{name} {METRICS[name].arrow}" for name in table.columns]
        table.index.name = "method"
        return table

    def to_csv(self, path: str | Path) -> Path:
        """Write a row a method and picture: `method`, `id`, the metrics, then `preset` and `conventions`."""
        table = pd.concat({name: s.rows() for name, s in self.methods.items()}, names=["method"])
        with atomic(path) as t:
            table.to_csv(t)
        return Path(path)


CONTROLS = ("copy of the infrared", "copy of the visible")


def method_folders(paths: Sequence[str | Path]) -> dict[str, Path]:
    """Method -> its folder of fused pictures: each folder given, or its subfolders when images lie only in those.

    Raises
    ------
    InputError
        for what is no folder, and for two methods of one name.
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise InputError(f"{path} is no folder; give one folder of fused images for each method.")
        below = [p for p in sorted(path.iterdir()) if p.is_dir() and _holds_images(p)]
        for folder in below if below and not _holds_images(path) else [path]:
            name = folder.resolve().name
            if name in found:
                raise InputError(f"{found[name]} and {folder} would both be the method '{name}'; rename one of them.")
            found[name] = folder
    return found


def _holds_images(folder: Path) -> bool:
    return any(p.suffix.lower() in READ_SUFFIXES for p in folder.iterdir() if not p.name.startswith("."))


def score_methods(
    methods: dict[str, Path],
    ir: str | Path,
    vi: str | Path,
    preset: str | Preset = "default",
    metrics: Sequence[str] | None = None,
    controls: bool = False,
    device: str = "cpu",
    progress: bool = True,
) -> MethodScores:
    """Measure several methods' folders on the pictures that all of them have.

    `controls` adds a copy of each source as a method: what any fusion must beat.

    Raises
    ------
    DataError
        when the methods have no picture in common, or a picture has no source.
    InputError
        as `score`, and for a method that is named like a control.
    """
    if not methods:
        raise InputError("there is no method to score; give folders of fused images.")
    metrics = _chosen(metrics, preset)
    triples = {name: _triples(Path(folder), Path(ir), Path(vi)) for name, folder in methods.items()}
    every = sorted(set().union(*triples.values()))
    common = [picture for picture in every if all(picture in t for t in triples.values())]
    left_out = tuple(
        f"{name} has no {_some(missing)}; {len(common)} of {len(every)} pictures, which all methods have, are scored."
        for name, t in triples.items()
        if (missing := [picture for picture in every if picture not in t])
    )
    if not common:
        raise DataError(f"{', '.join(methods)} have no picture in common; name fused images like their sources.")
    jobs = {name: {picture: t[picture] for picture in common} for name, t in triples.items()}
    if controls:
        first = next(iter(jobs.values()))
        for i, name in enumerate(CONTROLS, 1):
            if name in jobs:
                raise InputError(f"a method is named '{name}' like a control; rename its folder.")
            jobs[name] = {picture: (paths[i], *paths[1:]) for picture, paths in first.items()}
    scores = {name: _measured(job, metrics, preset, device, progress, name) for name, job in jobs.items()}
    return MethodScores(scores, left_out)


def _some(names: list[str]) -> str:
    """The first three names, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# ---------------------------------------------------------------- statistics


def bootstrap_interval(
    values: np.ndarray, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean; both ends are the mean for a single value."""
    values = np.asarray(values, dtype=float)
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, not {level}.")
    if len(values) < 2 or not np.isfinite(values).all():
        return float(values.mean()), float(values.mean())
    picks = np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's correction: p values that may be compared with one level although they were many."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    corrected = np.empty_like(stepped)
    corrected[order] = stepped
    return corrected


def compare_methods(scores: dict[str, Scores]) -> pd.DataFrame:
    """Paired Wilcoxon signed-rank tests between methods on the images that they share.

    One row a metric and pair of methods: median difference (first minus second), which is better, p and
    p_holm, corrected over the pairs of methods of one metric.

    Raises
    ------
    InputError
        when the methods were scored with other conventions or share fewer than two images.
    """
    from scipy.stats import wilcoxon

    if len(scores) < 2:
        raise InputError("give the scores of two methods or more.")
    if len({s.preset for s in scores.values()}) > 1:
        raise InputError(
            f"the methods were scored with different presets: { ({k: s.preset for k, s in scores.items()}) }."
        )
    tables = {name: s.frame for name, s in scores.items()}
    names = [
        m
        for m in next(iter(tables.values())).columns
        if all(m in t.columns for t in tables.values())
    ]
    rows = []
    for name in names:
        tests = []
        for first, second in combinations(tables, 2):
            shared = tables[first].index.intersection(tables[second].index, sort=False)
            if len(shared) < 2:
                raise InputError(
                    f"{first} and {second} share {len(shared)} images; a paired test needs two or more."
                )
            difference = (
                tables[first].loc[shared, name] - tables[second].loc[shared, name]
            ).to_numpy()
            difference = np.nan_to_num(
                difference, nan=0.0, posinf=np.inf, neginf=-np.inf
            )  # inf - inf: equal
            p = wilcoxon(difference).pvalue if difference.any() else 1.0
            median = float(np.median(difference))
            sign = median if METRICS[name].higher else -median
            better = first if sign > 0 else second if sign < 0 else ""
            tests.append(
                dict(
                    metric=name,
                    first=first,
                    second=second,
                    n=len(shared),
                    difference=median,
                    better=better,
                    p=p,
                )
            )
        for row, corrected in zip(tests, holm([t["p"] for t in tests]), strict=True):
            rows.append(row | dict(p_holm=float(corrected)))
    table = pd.DataFrame(rows)
    table.attrs["preset"] = next(iter(scores.values())).preset
    return table


# ---------------------------------------------------------------- picture


def box_plot(scores: dict[str, Scores], path: str | Path | None = None):
    """Box plots of several methods side by side, one panel a metric with its arrow; returns the figure."""
    import seaborn as sns
    from matplotlib.figure import Figure

    table = pd.concat({name: s.frame for name, s in scores.items()}, names=["method"]).reset_index()
    columns = [c for c in table.columns if c in METRICS]
    across = min(len(columns), 4)
    down = -(-len(columns) // across)
    height = 2.4 if len(scores) < 6 else 2.4 + 0.18 * (len(scores) - 5)
    figure = Figure(figsize=(2.8 * across, height * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for name, axis in zip(columns, axes, strict=False):
        sns.boxplot(
            table,
            y="method",
            x=name,
            hue="method",
            ax=axis,
            fliersize=2,
            linewidth=0.8,
            legend=False,
        )
        unit = convention(name, next(iter(scores.values())).preset)["unit"]
        axis.set(title=f"{name} {METRICS[name].arrow}", xlabel=unit, ylabel="")
        if not any(scores):
            axis.set_yticks([])
    for axis in axes[len(columns) :]:
        axis.remove()
    figure.suptitle(f"conventions: {next(iter(scores.values())).preset}", fontsize=9)
    if path is not None:
        if Path(path).suffix.lower().lstrip(".") not in figure.canvas.get_supported_filetypes():
            raise InputError(f"cannot draw {path}: unknown suffix '{Path(path).suffix}'; use .png, .pdf or .svg.")
        with atomic(path) as t:
            figure.savefig(t, dpi=120)
    return figure
