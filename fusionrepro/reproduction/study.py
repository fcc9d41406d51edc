"""Every method under every condition: the disturbances, ranks with their intervals, and who beats whom."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fusionrepro.gallery.conditions import CLEAN, Condition, attack, degradation
from fusionrepro.metrics import METRICS
from fusionrepro.metrics.score import bootstrap_interval, holm
from fusionrepro.registry import titles

# Every one of them compares the fused picture with the clean sources, and more is better.
MEASURES = ("MI", "VIF", "Qabf", "SSIM", "CC", "SCD")


def conditions(steps: int = 20, strength: float = 0.5, seed: int = 0) -> dict[str, Condition]:
    """What is done to a pair before a method sees it, by name; `strength` in 0..1."""
    kinds = {"hazy": "haze", "rainy": "rain", "dark": "low_light", "noisy": "noise"}
    weather = {name: degradation(kind, strength, seed) for name, kind in kinds.items()}
    return {"clean": CLEAN, "attacked": attack(steps=steps, seed=seed)} | weather


def scores(frame: pd.DataFrame, measures: Sequence[str] = MEASURES, seed: int = 0) -> pd.DataFrame:
    """One line a data set, method and condition: mean and 95 % bootstrap interval of every measure.

    `frame` has one line an image: data, method, condition, id, and the measures.
    """
    lines = []
    for (data, method, condition), part in frame.groupby(["data", "method", "condition"], sort=False):
        line = {"data": data, "method": method, "condition": condition, "n": len(part)}
        for m in measures:
            line |= {m: part[m].mean()} | dict(zip((f"{m} low", f"{m} high"), bootstrap_interval(part[m].to_numpy(), seed=seed), strict=True))
        lines.append(line)
    return pd.DataFrame(lines)


def image_ranks(frame: pd.DataFrame, measures: Sequence[str] = MEASURES) -> pd.DataFrame:
    """One line an image and condition, one column a method: its rank (1: best), averaged over the measures."""
    keys = ["condition", "data", "id"]
    signs = {m: -1 if METRICS[m].arrow == "↑" else 1 for m in measures}
    ranked = [(frame[m] * sign).groupby([frame[k] for k in keys], sort=False).rank() for m, sign in signs.items()]
    table = frame[[*keys, "method"]].assign(rank=np.mean(ranked, axis=0)).pivot(index=keys, columns="method", values="rank")
    return table.reindex(frame["condition"].unique(), level="condition")


def rank_table(ranks: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """One line a method and condition: mean rank over the images with its 95 % bootstrap interval."""
    lines = []
    for condition, part in ranks.groupby(level="condition", sort=False):
        for method, values in part.dropna(axis=1).items():
            low, high = bootstrap_interval(values.to_numpy(), seed=seed)
            lines.append({"method": method, "condition": condition, "n": len(values), "rank": values.mean(), "low": low, "high": high})
    return pd.DataFrame(lines)


def best_against_others(ranks: pd.DataFrame) -> pd.DataFrame:
    """One line a condition and method that is not the best there: Wilcoxon's signed-rank test on the images, Holm-corrected within the condition.

    A control is never the best; where its rank gap is negative, the measures reward a copy.
    """
    from scipy.stats import wilcoxon

    lines = []
    for condition, part in ranks.groupby(level="condition", sort=False):
        part = part.dropna(axis=1)
        best = part.mean().drop(list(titles("control")), errors="ignore").idxmin()
        others = [m for m in part.columns if m != best]
        p = [wilcoxon(part[best], part[m], zero_method="zsplit").pvalue for m in others]
        gaps = [(part[m] - part[best]).mean() for m in others]
        for method, gap, corrected in zip(others, gaps, holm(p), strict=True):
            lines.append({"best": best, "method": method, "condition": condition, "n": len(part), "rank gap": gap, "p (Holm)": corrected})
    return pd.DataFrame(lines)


def heat_map(table: pd.DataFrame, value: str = "rank") -> Figure:
    """Methods against conditions, the best on top."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    grid = table.pivot(index="method", columns="condition", values=value)[list(dict.fromkeys(table["condition"]))]
    grid = grid.loc[grid.mean(axis=1).sort_values().index]
    figure, axis = plt.subplots(figsize=(1.1 * grid.shape[1] + 2.4, 0.34 * grid.shape[0] + 1.2), layout="constrained")
    sns.heatmap(grid, annot=True, fmt=".1f", cmap="viridis_r", ax=axis, cbar_kws={"label": "mean rank (1: best)"}, linewidths=0.5)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(rotation=0)
    return figure


def intervals(table: pd.DataFrame) -> Figure:
    """Mean ranks with their intervals, one small panel a condition."""
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(table["condition"]))
    order = table.groupby("method")["rank"].mean().sort_values(ascending=False).index
    places = {m: i for i, m in enumerate(order)}
    figure, axes = plt.subplots(1, len(names), figsize=(1.7 * len(names) + 1.6, 0.3 * len(order) + 1.2), sharey=True, sharex=True, layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        part = table[table["condition"] == name]
        at = [places[m] for m in part["method"]]
        axis.hlines(at, part["low"], part["high"], color="tab:blue", lw=1.5)
        axis.plot(part["rank"], at, "o", ms=4)
        axis.set_title(name, fontsize=9)
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(order)), order)
    figure.supxlabel("mean rank and 95 % interval; left is better", fontsize=9)
    return figure
