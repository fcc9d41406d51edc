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
from fusionrepro.imaging.io import images_by_stem, read_image
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

    def to_csv(self, path: str | Path) -> Path:
        """Write `id`, one column a metric, then `preset` and `conventions` in every row, at full precision."""
        table = self.frame.copy()
        table["preset"] = self.preset
        table["conventions"] = "; ".join(
            f"{name}: {line}" for name, line in self.conventions.items()
        )
        with atomic(path) as t:
            table.to_csv(t)
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

    In folders a fused image belongs to the sources with the same name, whatever their suffix.

    Raises
    ------
    DataError
        when a fused image has no partner or two.
    InputError
        for files that cannot be read or do not fit together, unknown metrics and presets.
    """
    if metrics is not None:
        metrics = [metric(name).name for name in metrics]
    find_preset(preset)  # unknown names before any reading
    triples = _triples(Path(fused), Path(ir), Path(vi))
    rows = []
    with counting("scoring", len(triples), progress) as count:
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
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise DataError(
                f"{folder} has no partner for {', '.join(missing[:3])}{more}; name sources like their fused images."
            )
    return {name: (path, sources[0][name], sources[1][name]) for name, path in images.items()}


def _picture(path: Path, device: str) -> Tensor:
    x = torch.from_numpy(np.asarray(read_image(path).pixels)).to(device)
    return x[None, None] if x.ndim == 2 else x.permute(2, 0, 1)[None]


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
