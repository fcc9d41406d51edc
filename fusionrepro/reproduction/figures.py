"""The kinds of figure that fusion papers print: panels, grey-level signals, metric bars, radar plots, error maps."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

Grid = Mapping[str, Mapping[str, Tensor]]  # row label -> column title -> (1,H,W) or (3,H,W) in 0..1


def _show(axis, picture: Tensor, **options) -> None:
    picture = picture.detach().cpu().float()
    grey = picture.shape[0] == 1
    axis.imshow(picture[0] if grey else picture.permute(1, 2, 0).clamp(0, 1), **({"cmap": "gray", "vmin": 0, "vmax": 1} | options if grey else {}))
    axis.set(xticks=[], yticks=[])
    sns.despine(ax=axis, left=True, bottom=True)


def panels(grid: Grid, width: float = 2.4, **options) -> Figure:
    """A grid of pictures: rows labelled on the left, each column above its first picture."""
    rows, columns = list(grid), list(dict.fromkeys(c for row in grid.values() for c in row))
    first = next(iter(next(iter(grid.values())).values()))
    height = width * first.shape[-2] / first.shape[-1]
    figure, axes = plt.subplots(len(rows), len(columns), figsize=(width * len(columns), height * len(rows)), squeeze=False, layout="constrained")
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            axis = axes[r, c]
            if column not in grid[row]:
                axis.set_axis_off()
                continue
            _show(axis, grid[row][column], **options)
            if all(column not in grid[above] for above in rows[:r]):
                axis.set_title(column, fontsize=9)
            if c == 0:
                axis.set_ylabel(row, fontsize=9)
    return figure


def signals(clean: Mapping[str, Tensor], attacked: Mapping[str, Tensor], line: int) -> Figure:
    """Attacked pictures, one a method, and below each the grey levels along row `line`, clean against attacked."""
    names = list(clean)
    figure, axes = plt.subplots(2, len(names), figsize=(2.7 * len(names), 4.2), squeeze=False, layout="constrained", sharey="row")
    for (above, below), name in zip(axes.T, names, strict=True):
        _show(above, attacked[name])
        above.axhline(line, color="tab:red", lw=0.8)
        above.set_title(name, fontsize=9)
        for state, pictures, style in (("clean", clean, "-"), ("attacked", attacked, "--")):
            below.plot(pictures[name][0, line] * 255, style, lw=0.9, label=state)
        below.set_xlabel("column")
    axes[1, 0].set_ylabel("grey level")
    axes[1, 0].legend(fontsize=8, frameon=False)
    return figure


def signal_distance(clean: Tensor, attacked: Tensor, line: int) -> float:
    """Mean absolute difference in grey levels along one row."""
    return float((clean[0, line] - attacked[0, line]).abs().mean() * 255)


def bars(frame: pd.DataFrame, metrics: Sequence[str], x: str = "method", hue: str = "state", arrows: Mapping[str, str] | None = None) -> Figure:
    """One small bar chart a metric, each on its own scale, with the spread between data sets where there are several."""
    figure, axes = plt.subplots(1, len(metrics), figsize=(2.3 * len(metrics) + 1.2, 3.2), layout="constrained", squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        sns.barplot(frame, x=x, y=metric, hue=hue, ax=axis, errorbar=("pi", 100) if frame["data"].nunique() > 1 else None, err_kws={"lw": 1})
        axis.set(xlabel="", ylabel="", title=f"{metric} {(arrows or {}).get(metric, '')}")
        axis.tick_params(axis="x", rotation=60, labelsize=8)
        axis.get_legend().remove()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def radar(ax: Axes, table: pd.DataFrame, title: str, first: str = "") -> None:
    """Methods as polygons on polar axes, every metric a share of the best method's value; the row `first` is drawn last and thick.

    `table` has one row a method and one column a metric, all values >= 0 and more is better.
    """
    shares = table / table.max()
    angles = np.linspace(0, 2 * np.pi, len(table.columns), endpoint=False)
    close = lambda v: [*v, v[0]]
    for name in sorted(shares.index, key=lambda n: n == first):
        style = dict(lw=2.2, color="tab:red", zorder=5) if name == first else dict(lw=1)
        ax.plot(close(angles), close(shares.loc[name].to_list()), label=name, **style)
    ax.set_xticks(angles, table.columns, fontsize=8)
    ax.set_ylim(0, 1.02)
    ax.set_yticks([0.25, 0.5, 0.75, 1], ["", "0.5", "", "1"], fontsize=6)
    ax.grid(lw=0.4)
    ax.set_title(title, fontsize=9)


def liveliest(ir: Tensor, vi: Tensor, part: float = 0.25) -> tuple[int, int, int]:
    """Top, left and side of the square in which two (1,H,W) sources differ most; its side is `part` of their shorter one."""
    side = max(2, math.ceil(part * min(ir.shape[-2:])))
    means = F.avg_pool2d((ir - vi).abs()[None], side, 1)[0, 0]
    return *divmod(int(means.argmax()), means.shape[1]), side


def radar_figure(tables: Mapping[str, pd.DataFrame], pictures: Mapping[str, Tensor], square: Sequence[int], first: str = "") -> Figure:
    """Radar plots, one a data set, over pictures and an enlarged detail of each.

    `tables` holds for each data set what `radar` takes, `pictures` (1,H,W) or (3,H,W) in 0..1 by title, `square` the detail's top, left
    and side, `first` the method to stress.
    """
    n = len(pictures)
    figure = plt.figure(figsize=(max(8, 1.75 * n), 6.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    discs = above.subplots(1, len(tables), subplot_kw=dict(projection="polar"), squeeze=False)[0]
    for axis, (name, table) in zip(discs, tables.items(), strict=True):
        radar(axis, table, name, first)
    above.legend(*discs[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    top, left, side = square
    for (whole, detail), (title, picture) in zip(below.subplots(2, n, squeeze=False).T, pictures.items(), strict=True):
        _show(whole, picture)
        whole.set_title(title, fontsize=8)
        whole.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, ec="tab:red", lw=1))
        _show(detail, picture[:, top : top + side, left : left + side])
        detail.spines[:].set(visible=True, color="tab:red")
    return figure


def error_map(a: Tensor, b: Tensor, gain: float = 8.0) -> Tensor:
    """|a - b| times `gain`, clipped to 0..1, so that small changes show."""
    return ((a - b).abs() * gain).clamp(0, 1)


def mean_error(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Mean absolute difference of two sets of pictures, in grey levels."""
    return float(torch.stack([(a[i] - b[i]).abs().mean() for i in a]).mean() * 255)
