"""The kinds of figure that fusion papers print: panels with enlargements, grey-level signals, metric bars, radar plots, error maps.

A picture is what `as_array` takes: a tensor (1,H,W) or (3,H,W) in 0..1, or an array (H,W) or (H,W,3), of 8 bit or in 0..1.
"""

import math
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch, Rectangle
from scipy import ndimage
from torch import Tensor

from fusionrepro.data.show import as_array, label_of
from fusionrepro.errors import FusionReproError, InputError

__all__ = [
    "Grid", "Picture", "Square", "bars", "bars_with_pictures", "check_drawn", "error_panels", "label_of", "lively_squares", "mean_error",
    "panels", "radar", "radar_figure", "score_notes", "signal_distance", "signal_line", "signal_panels",
]  # fmt: skip

Picture = Tensor | np.ndarray
Grid = Mapping[str, Mapping[str, Picture]]  # row label -> title -> picture
Square = tuple[int, int, int]  # top, left, side in pixels

LABEL, TITLE, GAP, RULE = 0.36, 0.165, 0.06, 0.3  # inches: room for row labels, a line of titles, between panels, around a rule
SIGNAL = 1.05  # inches below a panel for its grey levels, with their numbers
COLOURS = ("tab:red", "tab:orange", "tab:cyan")  # of squares
WORTH = 0.2  # of the first square's score that a further one must have
COLD = 0.2  # what a difference is worth where the infrared is the darker
OURS, OTHER = "tab:red", "tab:blue"
DETAIL = "enlargement"  # what axes that show a part of another panel are called


# ---- panels ------------------------------------------------------------------------------------------------------------


@dataclass
class _Row:
    """A row of a sheet before it is wrapped."""

    label: str
    titles: list[str]
    aspect: float  # height of a picture in its width
    under: float = 0.0  # inches kept free below each picture


@dataclass
class _Sheet:
    """Where the panels of a figure stand; inches from the top left corner."""

    width: float
    height: float = 0.0
    cells: list[tuple[int, str, float, float, float, float, str]] = field(default_factory=list)  # row, title, left, top, width, height, shown title
    labels: list[tuple[str, float, float]] = field(default_factory=list)  # text, top, bottom
    rules: list[tuple[float, str]] = field(default_factory=list)  # top, text

    def draw(self, parent: FigureBase, size: tuple[float, float] | None = None) -> Iterator[tuple[int, str, Axes, tuple[float, float, float]]]:
        """Put the axes on a figure of `size` inches; gives row, title, axis and the corner (left, top, width) of what is free below."""
        wide, high = size or (self.width, self.height)
        shift = (wide - self.width) / 2
        for text, top in ((t, y) for y, t in self.rules):
            parent.add_artist(plt.Line2D([shift / wide, 1 - shift / wide], [1 - top / high] * 2, color="0.6", lw=0.8, transform=parent.transSubfigure))
            parent.text(1 - shift / wide, 1 - (top - 0.02) / high, text, fontsize=7, color="0.35", ha="right", va="bottom")
        for text, top, bottom in self.labels:
            wrapped = textwrap.fill(text, max(10, int((bottom - top) * 15)))
            parent.text((shift + LABEL - 0.05) / wide, 1 - (top + bottom) / 2 / high, wrapped, fontsize=8, rotation=90, ha="right", va="center")
        for row, title, left, top, width, height, shown in self.cells:
            axis = parent.add_axes(((shift + left) / wide, 1 - (top + height) / high, width / wide, height / high))
            axis.set_title(shown, fontsize=8, pad=2)
            yield row, title, axis, (shift + left, top + height, width)


def _lines(titles: Sequence[str], columns: int) -> list[list[str]]:
    """Titles in lines of about equal length, none longer than `columns`."""
    per = math.ceil(len(titles) / math.ceil(len(titles) / columns)) if titles else 1
    return [list(titles[i : i + per]) for i in range(0, len(titles), per)]


def _sheet(rows: Sequence[_Row], width: float, columns: int, others: Collection[str]) -> _Sheet:
    """Rows that fit stand aligned under one line of titles; longer ones are wrapped, each line with its titles, `others` below a rule."""
    order = list(dict.fromkeys(t for row in rows for t in row.titles))
    aligned = len(order) <= columns and not any(t in others for t in order)
    long, found, top, seen = max(4, int(width * 15)), [], GAP, set()
    for row in rows:
        own, rest = [t for t in row.titles if t not in others], [t for t in row.titles if t in others]
        lines = [(order, False)] if aligned else [(t, part is rest and not i) for part in (own, rest) for i, t in enumerate(_lines(part, columns))]
        found.append((row, lines))
    sheet = _Sheet(LABEL + max(len(t) for _, lines in found for t, _ in lines) * (width + GAP))
    for k, (row, lines) in enumerate(found):
        begin = None
        for titles, rule in lines:
            if rule:
                top += RULE
                sheet.rules.append((top - 0.1, "not among the paper's panels"))
            shown = {t: textwrap.fill(t, long) if "\n" not in t else t for t in titles if t in row.titles and not (aligned and t in seen)}
            top += TITLE * max((t.count("\n") + 1 for t in shown.values()), default=0)
            begin = top if begin is None else begin
            for c, title in enumerate(titles):
                if title in row.titles:
                    sheet.cells.append((k, title, LABEL + c * (width + GAP), top, width, width * row.aspect, shown.get(title, "")))
            seen |= set(shown)
            top += width * row.aspect + row.under + GAP
        sheet.labels.append((row.label, begin, top - row.under - GAP))
        top += 0 if aligned else 2 * GAP
    sheet.height = top
    return sheet


def _show(axis: Axes, picture: Picture, **options) -> np.ndarray:
    """Draw a picture without ticks; `options` of imshow hold for grey ones."""
    picture = as_array(picture)
    axis.imshow(picture, **({"cmap": "gray", "vmin": 0, "vmax": 1} | options if picture.ndim == 2 else {}))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    return picture


def _corner(size: tuple[int, int], square: Square, side: float) -> tuple[float, float]:
    """Top and left of the corner that an enlargement of `side` pixels hides least of the square in."""
    (height, width), (top, left, own) = size, square
    places = [(y, x) for y in (height - side, 0) for x in (width - side, 0)]
    hidden = lambda y, x: max(0, min(y + side, top + own) - max(y, top)) * max(0, min(x + side, left + own) - max(x, left))
    return min(places, key=lambda p: hidden(*p))


def _frame(axis: Axes, top: float, left: float, side: float, colour: str) -> None:
    axis.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, ec=colour, lw=1.2, zorder=3))


def _enlarge(axis: Axes, picture: np.ndarray, squares: Sequence[Square], free: tuple[float, float, float], size: tuple[float, float], **options) -> None:
    """Mark the squares of a panel and show them larger: one in a corner of the panel, several side by side below it."""
    height, width = picture.shape[:2]
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1} | options if picture.ndim == 2 else {}
    for k, (square, colour) in enumerate(zip(squares, COLOURS, strict=False)):
        top, left, side = square
        _frame(axis, *square, colour)
        crop = picture[top : top + side, left : left + side]
        if len(squares) == 1:
            large = 0.45 * min(height, width)
            y, x = _corner((height, width), square, large)
            axis.imshow(crop, extent=(x - 0.5, x + large - 0.5, y + large - 0.5, y - 0.5), zorder=2, **grey)
            _frame(axis, y, x, large, colour)
        else:
            inches = _below(squares, free[2]) - 0.04
            corner = free[0] + k * (free[2] + 0.04) / len(squares)
            detail = axis.figure.add_axes((corner / size[0], 1 - (free[1] + 0.04 + inches) / size[1], inches / size[0], inches / size[1]))
            detail.imshow(crop, **grey)
            detail.set(xticks=[], yticks=[], label=DETAIL)
            detail.spines[:].set(color=colour, lw=1.2)
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _below(squares: Sequence[Square], width: float) -> float:
    """Inches that the enlargements need below a panel of this width."""
    return 0.0 if len(squares) < 2 else (width - 0.04 * (len(squares) - 1)) / len(squares) + 0.04


def _aspect(pictures: Mapping[str, Picture]) -> float:
    if not pictures:
        raise InputError("a row of panels has no picture; leave the row out.")
    height, width = as_array(next(iter(pictures.values()))).shape[:2]
    return height / width


def panels(
    grid: Grid,
    width: float = 2.0,
    columns: int = 7,
    others: Collection[str] = (),
    squares: Mapping[str, Sequence[Square]] | None = None,
    notes: Mapping[str, Mapping[str, str]] | None = None,
    **options,
) -> Figure:
    """A grid of pictures: labels of the rows on the left, titles above.

    `width` is a panel's in inches. Rows longer than `columns` are wrapped into lines of about equal length, in the order given; titles
    among `others` (methods that the paper does not show) come after, below a rule. `squares` (top, left, side) of a row are marked in
    each of its panels and enlarged there. `notes` (row -> title -> text) stand below a panel. `options` of imshow hold for grey pictures.
    """
    if not grid:
        raise InputError("panels were given no row; give at least one row of pictures.")
    squares, notes = squares or {}, notes or {}
    rows = []
    for label, pictures in grid.items():
        lines = max((t.count("\n") + 1 for t in notes.get(label, {}).values()), default=0)
        rows.append(_Row(label, list(pictures), _aspect(pictures), _below(squares.get(label, ()), width) + 0.15 * lines))
    sheet = _sheet(rows, width, columns, others)
    figure = plt.figure(figsize=(sheet.width, sheet.height))
    _fill(figure, sheet, grid, squares, notes, (sheet.width, sheet.height), **options)
    return figure


def _fill(parent: FigureBase, sheet: _Sheet, grid: Grid, squares, notes, size: tuple[float, float], **options) -> dict[tuple[str, str], tuple]:
    """Draw the pictures of a sheet; gives axis and free corner of each (row, title)."""
    labels, places = list(grid), {}
    for row, title, axis, free in sheet.draw(parent, size):
        label = labels[row]
        marked = squares.get(label, ())
        picture = _show(axis, grid[label][title], **options)
        if marked:
            _enlarge(axis, picture, marked, free, size, **options)
        left, top, width = free[0], free[1] + _below(marked, free[2]), free[2]
        if text := notes.get(label, {}).get(title):
            parent.text((left + width / 2) / size[0], 1 - (top + 0.04) / size[1], text, fontsize=7.5, ha="center", va="top", linespacing=1.2)
        places[label, title] = axis, (left, top, width)
    return places


def score_notes(scores: pd.DataFrame, metrics: Sequence[str], printed: pd.DataFrame | None = None, per_line: int = 3) -> dict[str, str]:
    """What to write below the panels of `scores` (a row a panel, a column a metric), with the paper's numbers in brackets where it prints them."""
    texts = {}
    for title, row in scores.iterrows():
        paper = printed.loc[title] if printed is not None and title in printed.index else {}
        parts = [f"{m} {row[m]:.4g}" + (f" ({paper[m]:.4g})" if m in paper else "") for m in metrics if np.isfinite(row[m])]
        texts[str(title)] = "\n".join(", ".join(parts[i : i + per_line]) for i in range(0, len(parts), per_line))
    return texts


# ---- squares -----------------------------------------------------------------------------------------------------------


def _grey(picture: Picture) -> np.ndarray:
    """(H,W), 0..1: the luminance of a picture."""
    picture = as_array(picture)
    return picture if picture.ndim == 2 else picture @ np.array([0.299, 0.587, 0.114], np.float32)


def _border(picture: np.ndarray) -> np.ndarray:
    """(H,W) of bool: black or white areas that reach the frame: margins of a registered picture, burnt-out sky, night without light."""
    outside = np.zeros(picture.shape, bool)
    for extreme in (picture <= 3 / 255, picture >= 252 / 255):
        areas, _ = ndimage.label(extreme)
        touching = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
        outside |= np.isin(areas, touching[touching > 0])
    return ndimage.binary_dilation(outside, iterations=2)


def _structure(picture: np.ndarray) -> np.ndarray:
    """(H,W), 0..1: strength of edges, the strongest fiftieth counted alike so that one lamp does not decide."""
    edges = np.hypot(*np.gradient(ndimage.uniform_filter(picture, 3)))
    return np.minimum(edges / max(np.percentile(edges, 98), 1e-6), 1)


def _stretched(picture: np.ndarray) -> np.ndarray:
    low, high = np.percentile(picture, (1, 99.9))  # people are few pixels: they must not saturate with warm walls
    return np.clip((picture - low) / max(high - low, 1e-6), 0, 1)


def _means(x: np.ndarray, side: int) -> np.ndarray:
    """Mean of every square of `side` pixels, by summed areas; entry (top, left)."""
    sums = np.pad(x.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2


def lively_squares(ir: Picture, vi: Picture, k: int = 1, part: float = 0.2) -> list[Square]:
    """Up to `k` squares worth enlarging: where both sources have edges and yet differ, such as people and cars, best first.

    The side is `part` of the shorter side of the picture. A square counts the mean of (first - second)² of the stretched sources, more
    where the first is brighter than its surroundings and a fifth where it is the darker (cold sky behind branches), times the geometric
    mean of their edge strengths: empty sky counts nothing. Black or white areas that reach the frame are left out, squares stand half a
    side apart at least, and the same pair always gives the same squares.
    """
    a, b = _grey(ir), _grey(vi)
    if a.shape != b.shape:
        raise InputError(f"the sources differ in size ({a.shape} and {b.shape}); squares need an aligned pair.")
    side = max(2, math.ceil(part * min(a.shape)))
    means = lambda x: _means(x, side)
    more = _stretched(a) - _stretched(b)
    heat = np.maximum(_stretched(a) - ndimage.uniform_filter(_stretched(a), 2 * side), 0)
    apart = means(np.where(more > 0, more**2, COLD * more**2) * (0.1 + heat))
    lively = apart * np.sqrt(means(_structure(a)) * means(_structure(b)))
    lively[means(_border(a) | _border(b)) > 0.1] = 0
    edge = max(1, side // 8)  # what is cut off by the frame is no good detail
    lively[:edge] = lively[-edge:] = lively[:, :edge] = lively[:, -edge:] = 0
    lively = lively if lively.max() > 1e-9 else apart  # sources without edges in common
    found, least = [], WORTH * lively.max()
    while len(found) < k and lively.max() > least:
        top, left = divmod(int(lively.argmax()), lively.shape[1])
        found.append((top, left, side))
        near = side * 3 // 2
        lively[max(0, top - near) : top + near + 1, max(0, left - near) : left + near + 1] = -1
    return found or [((a.shape[0] - side) // 2, (a.shape[1] - side) // 2, side)]  # equal sources: any square is as good


# ---- clean and attacked ------------------------------------------------------------------------------------------------


def signal_panels(
    scenes: Mapping[str, Mapping[str, tuple[Picture, Picture]]],
    squares: Mapping[str, Sequence[Square]],
    width: float = 1.9,
    columns: int = 5,
    others: Collection[str] = (),
) -> Figure:
    """A2RNet, Fig. 3: attacked pictures with enlargements, and below each the grey levels along one line, clean against attacked.

    `scenes` holds for each scene, by title (infrared, visible, methods), the clean and the attacked picture. The line is the
    row of pixels through the middle of the scene's first square (`signal_line`). Wrapping and `others` are as in `panels`.
    """
    lines = {s: signal_line(squares[s]) for s in scenes}
    grid = {label: {t: attacked for t, (_, attacked) in row.items()} for label, row in scenes.items()}
    rows = [_Row(s, list(row), _aspect(row), _below(squares.get(s, ()), width) + SIGNAL) for s, row in grid.items()]
    sheet = _sheet(rows, width, columns, others)
    size = sheet.width, sheet.height + 0.3
    figure = plt.figure(figsize=size)
    places = _fill(figure, sheet, grid, squares, {}, size)
    curves = {(s, t): [_grey(p)[lines[s]] * 255 for p in both] for s, row in scenes.items() for t, both in row.items()}
    for (scene, title), (above, (left, top, wide)) in places.items():
        above.axhline(lines[scene], color="tab:green", lw=0.7)
        axis = figure.add_axes(((left + 0.22) / size[0], 1 - (top + SIGNAL - 0.25) / size[1], (wide - 0.22) / size[0], (SIGNAL - 0.33) / size[1]))
        for state, curve, colour, order in zip(("clean", "attacked"), curves[scene, title], ("tab:blue", "tab:orange"), (3, 2), strict=True):
            axis.plot(curve, color=colour, lw=0.8, zorder=order, label=state)
        own = np.concatenate([c for (s, _), both in curves.items() if s == scene for c in both])  # one scale a scene
        axis.set(xlim=(0, len(curve) - 1), ylim=(max(0, own.min() - 5), min(255, own.max() + 5)))
        axis.locator_params(axis="y", nbins=4)
        axis.tick_params(labelsize=5.5, pad=1.5, length=2)
    figure.legend(*axis.get_legend_handles_labels(), loc="lower center", ncols=2, frameon=False, fontsize=8, title="grey levels along the green line")
    figure.legends[-1].get_title().set_fontsize(8)
    return figure


def signal_line(squares: Sequence[Square]) -> int:
    """The row of pixels through the middle of the first square."""
    top, _, side = squares[0]
    return top + side // 2


def signal_distance(clean: Picture, attacked: Picture, line: int) -> float:
    """Mean absolute difference in grey levels along one row."""
    return float(np.abs(_grey(clean)[line] - _grey(attacked)[line]).mean() * 255)


def mean_error(both: Iterable[tuple[Picture, Picture]]) -> float:
    """Mean absolute difference in grey levels of pictures in pairs, looked at one pair after the other; not a number without any."""
    errors = [float(np.abs(as_array(a) - as_array(b)).mean()) for a, b in both]
    return float(np.mean(errors) * 255) if errors else float("nan")


def error_panels(grid: Grid, whole: str, width: float = 2.4, squares: Mapping[str, Sequence[Square]] | None = None) -> Figure:
    """A2RNet, Fig. 8: pictures of the whole method and of its ablations, and below each ablation the heat map of |ablation - whole|.

    `grid` holds for each scene the picture titled `whole` and those of the ablations. All maps have one scale in grey levels, up to the
    largest error but for the last half per cent of pixels, and one colour bar.
    """
    squares, rows, kinds, errors = squares or {}, [], [], {}
    for label, pictures in grid.items():
        if whole not in pictures:
            raise InputError(f"the row '{label}' has no picture '{whole}' to compare with; it has {', '.join(pictures)}.")
        ablations = [t for t in pictures if t != whole]
        rows += [_Row(label, [whole, *ablations], _aspect(pictures), _below(squares.get(label, ()), width))]
        rows += [_Row(f"|ablation − {whole}|", ablations, _aspect(pictures))]
        kinds += [(label, False), (label, True)]
        errors |= {(label, t): np.abs(_grey(pictures[t]) - _grey(pictures[whole])) * 255 for t in ablations}
    top = max(1.0, math.ceil(np.percentile(np.concatenate([e.ravel() for e in errors.values()]), 99.5)))
    sheet = _sheet(rows, width, max(len(r.titles) for r in rows), ())
    size = sheet.width + 1.5, sheet.height  # the colour bar stands on the right
    figure = plt.figure(figsize=size)
    sheet.width, heat = size[0], None
    for row, title, axis, free in sheet.draw(figure, size):
        label, mapped = kinds[row]
        if mapped:
            heat = axis.imshow(errors[label, title], cmap="inferno", vmin=0, vmax=top)
            axis.set(xticks=[], yticks=[])
        else:
            picture = _show(axis, grid[label][title])
            _enlarge(axis, picture, squares.get(label, ()), free, size)
    beside = axis.get_position()
    colours = figure.add_axes((1 - 1.3 / size[0], beside.y0, 0.12 / size[0], beside.height))
    figure.colorbar(heat, cax=colours, extend="max").set_label("grey levels", fontsize=8)
    colours.tick_params(labelsize=7)
    return figure


# ---- bars --------------------------------------------------------------------------------------------------------------


def _start(values: np.ndarray) -> float:
    """Where an axis of bars begins: 0, or just below the smallest value when all lie in its neighbourhood."""
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    if low <= 0 or low == high or low < 0.7 * high:
        return 0.0
    step = 10.0 ** math.floor(math.log10(high - low))
    return max(0.0, math.floor((low - 0.4 * (high - low)) / step) * step)


def _break_mark(axis: Axes, start: float) -> None:
    """Two strokes across the foot of the value axis, and a word on where it begins."""
    stroke = dict(marker=[(-1, -0.5), (1, 0.5)], markersize=8, linestyle="none", color="black", mew=1)
    axis.plot((0, 0), (0.03, 0.06), transform=axis.transAxes, clip_on=False, zorder=10, **stroke)
    axis.set_ylabel(f"axis starts at {start:g}", fontsize=7)


def _draw_bars(axis: Axes, frame: pd.DataFrame, metric: str, x: str, hue: str, names: Sequence[str], ours: str, others: Collection[str]) -> None:
    """One metric: groups of bars in the order of `names`, one hatch a state, whiskers from the lowest to the highest data set."""
    states = list(dict.fromkeys(frame[hue])) if hue in frame else [""]
    frame = frame if hue in frame else frame.assign(**{hue: ""})
    found = frame.groupby([x, hue])[metric].agg(["mean", "min", "max"])
    start, width = _start(found[["min", "max"]].to_numpy()), 0.8 / len(states)
    for k, state in enumerate(states):
        for i, name in enumerate(names):
            mean, low, high = found.loc[(name, state)] if (name, state) in found.index else (np.nan,) * 3
            at, colour = i + (k - (len(states) - 1) / 2) * width, OURS if name == ours else OTHER
            if not np.isfinite(mean):
                axis.text(at, 0.02, "no value", rotation=90, fontsize=6, ha="center", va="bottom", color="0.4", transform=axis.get_xaxis_transform())
                continue
            axis.bar(at, mean, width, fc=colour if k == 0 else "white", ec=colour, hatch=("", "////", "....")[k % 3], lw=0.8)
            if high > low:
                axis.plot((at, at), (low, high), color="black", lw=0.9)
    values = found[["min", "max"]].to_numpy()
    if np.isfinite(values).any() and np.nanmax(values) > start:
        axis.set_ylim(min(start, np.nanmin(values)), np.nanmax(values) + 0.08 * (np.nanmax(values) - start))
    if start:
        _break_mark(axis, start)
    if own := sum(name not in others for name in names) % len(names):
        axis.axvline(own - 0.5, color="0.6", lw=0.8)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    axis.tick_params(axis="y", labelsize=7)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.spines[["top", "right"]].set_visible(False)


def _bar_room(names: Sequence[str], metrics: Sequence[str], states: int) -> tuple[int, int, float, float]:
    """Lines and columns of the charts, and the inches of all: no wider than a page."""
    wide = 0.75 + max(1.3, (0.1 + 0.11 * states) * len(names))
    columns = max(1, min(len(metrics), int(11 // wide)))
    lines = math.ceil(len(metrics) / columns)
    columns = math.ceil(len(metrics) / lines)
    return lines, columns, wide * columns, (2.0 + 0.05 * max(len(n) for n in names)) * lines + 0.35


def _bar_charts(parent: FigureBase, frame, metrics, x, hue, arrows, others, ours) -> None:
    names = _bar_names(frame, x, others)
    states = list(dict.fromkeys(frame[hue])) if hue in frame else []
    lines, columns, *_ = _bar_room(names, metrics, max(1, len(states)))
    axes = parent.subplots(lines, columns, squeeze=False).ravel()
    for axis, metric in zip(axes, metrics, strict=False):
        _draw_bars(axis, frame, metric, x, hue, names, ours, others)
        axis.set_title(f"{metric} {(arrows or {}).get(metric, '')}", fontsize=9)
    for axis in axes[len(metrics) :]:
        axis.set_axis_off()
    handles = [Patch(fc="0.5" if k == 0 else "white", ec="0.5", hatch=("", "////", "....")[k % 3], label=s) for k, s in enumerate(states)]
    if handles:
        parent.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=8)


def _bar_names(frame: pd.DataFrame, x: str, others: Collection[str]) -> list[str]:
    names = list(dict.fromkeys(frame[x]))
    return sorted(names, key=lambda n: n in others)  # stable: the order given, then the others


def bars(
    frame: pd.DataFrame,
    metrics: Sequence[str],
    x: str = "method",
    hue: str = "state",
    arrows: Mapping[str, str] | None = None,
    others: Collection[str] = (),
    ours: str = "",
) -> Figure:
    """A2RNet, Fig. 4: a bar chart a metric, bars grouped by method in the order of the frame, attacked ones hatched.

    A bar is the mean over data sets, a whisker reaches from the lowest to the highest. An axis begins at 0, or, when all values lie
    close together, below the lowest with a break mark. `others` stand behind a line; the bars of `ours` are red.
    """
    names = _bar_names(frame, x, others)
    *_, width, height = _bar_room(names, metrics, frame[hue].nunique() if hue in frame else 1)
    figure = plt.figure(figsize=(max(4, width), height), layout="constrained")
    _bar_charts(figure, frame, metrics, x, hue, arrows, others, ours)
    return figure


def bars_with_pictures(
    frame: pd.DataFrame,
    metrics: Sequence[str],
    grid: Grid,
    x: str = "training",
    hue: str = "state",
    arrows: Mapping[str, str] | None = None,
    ours: str = "",
    width: float = 2.2,
    columns: int = 6,
    squares: Mapping[str, Sequence[Square]] | None = None,
) -> Figure:
    """A2RNet, Fig. 7: fused pictures as in `panels` above the charts of `bars`."""
    squares = squares or {}
    sheet = _sheet([_Row(s, list(row), _aspect(row), _below(squares.get(s, ()), width)) for s, row in grid.items()], width, columns, ())
    *_, wide, high = _bar_room(_bar_names(frame, x, ()), metrics, frame[hue].nunique() if hue in frame else 1)
    wide = max(sheet.width, wide)
    figure = plt.figure(figsize=(wide, sheet.height + high), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(sheet.height, high))
    _fill(above, sheet, grid, squares, {}, (wide, sheet.height))
    _bar_charts(below, frame, metrics, x, hue, arrows, (), ours)
    return figure


# ---- radar -------------------------------------------------------------------------------------------------------------


def radar(ax: Axes, table: pd.DataFrame, title: str, first: str = "", inner: float = 0.0) -> None:
    """Methods as polygons on polar axes, every metric a share of the best method's value; the row `first` is drawn last and thick.

    `table` has one row a method and one column a metric, all values >= 0 and more is better. The centre is the share `inner`.
    """
    shares = table / table.max()
    angles = np.linspace(0, 2 * np.pi, len(table.columns), endpoint=False)
    close = lambda v: [*v, v[0]]
    palette = [plt.cm.tab20(i) for i in range(20) if i not in (6, 7)]  # red belongs to `first`
    colours = {name: palette[i % len(palette)] for i, name in enumerate(shares.index)}
    for name in sorted(shares.index, key=lambda n: n == first):
        style = dict(lw=2.2, color=OURS, zorder=5) if name == first else dict(lw=1, color=colours[name])
        ax.plot(close(angles), close(shares.loc[name].to_list()), label=name, **style)
    ax.set_xticks(angles, table.columns, fontsize=8)
    ax.set_ylim(inner, 1 + 0.02 * (1 - inner))
    ticks = np.linspace(inner, 1, 5)
    ax.set_yticks(ticks, [f"{t:.2g}" if i in (0, 2, 4) else "" for i, t in enumerate(ticks)], fontsize=6)
    ax.grid(lw=0.4)
    ax.set_title(title, fontsize=9)


def radar_figure(
    tables: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, Picture],
    squares: Sequence[Square],
    first: str = "",
    columns: int = 5,
) -> Figure:
    """SMFNet, Fig. 1: radar plots, one a data set, their legend, and pictures with one or two squares enlarged.

    `tables` holds for each data set what `radar` takes, `pictures` by title; `first` is the method to stress. The centre of the discs
    is the tenth below the smallest share, the same for all, so that differences show.
    """
    shares = np.concatenate([(t / t.max()).to_numpy().ravel() for t in tables.values()])
    inner = max(0.0, math.floor(np.nanmin(shares) * 10 - 0.5) / 10) if np.isfinite(shares).any() else 0.0
    grid, marked = {"": pictures}, {"": squares}
    sheet = _sheet([_Row("", list(pictures), _aspect(pictures), _below(squares, 2.0))], 2.0, max(columns, math.ceil(len(pictures) / 2)), ())
    names = list(dict.fromkeys(n for t in tables.values() for n in t.index))
    across = min(4, len(tables))
    wide, down = max(sheet.width, 2.6 * across), math.ceil(len(tables) / across)
    high = 2.7 * down + 0.25 * math.ceil(len(names) / 6) + 0.2
    figure = plt.figure(figsize=(wide, high + sheet.height), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(high, sheet.height))
    discs = above.subplots(down, across, subplot_kw=dict(projection="polar"), squeeze=False).ravel()
    for axis, (name, table) in zip(discs, tables.items(), strict=False):
        radar(axis, table, name, first, inner)
    for axis in discs[len(tables) :]:
        axis.set_axis_off()
    handles = {label: h for axis in discs for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    above.legend(handles.values(), handles, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    _fill(below, sheet, grid, marked, {}, (wide, sheet.height))
    return figure


# ---- is anything there? ------------------------------------------------------------------------------------------------


def check_drawn(figure: Figure) -> None:
    """Refuse a figure with nothing to show: FusionReproError names the first panel that is empty or whose picture is flat.

    Axes count when they are switched on or have something drawn. They show something when they hold a picture that is not one constant,
    or a finite line, bar, area or point in their own coordinates; words and lines that only divide do not count. Colour bars and
    enlargements of other panels are let through.
    """
    figure = figure.figure  # of a seaborn grid, too
    shown = [a for a in figure.axes if a.get_visible() and a.get_label() != DETAIL]
    bars_of_colour = {m.colorbar.ax for a in shown for m in (*a.images, *a.collections) if m.colorbar}
    shown = [a for a in shown if a not in bars_of_colour and (a.axison or _artists(a))]
    if not shown:
        raise FusionReproError("the figure is empty: it has no panel with anything drawn; what should be in it has failed or was left out.")
    for i, axis in enumerate(shown):
        name = _panel_name(axis, i + 1, len(shown))
        flat = [image for image in axis.images if not _varies(image.get_array())]
        if flat and len(flat) == len(axis.images):
            raise FusionReproError(f"{name} shows a flat picture, the same value everywhere; what made it has failed, so the figure is refused.")
        if not axis.images and not _has_data(axis):
            raise FusionReproError(f"{name} is empty: it has no picture, line, bar or point with a finite value, so the figure is refused.")


def _artists(axis: Axes) -> list:
    return [*axis.images, *axis.lines, *axis.patches, *axis.collections, *axis.texts, *axis.containers]


def _panel_name(axis: Axes, number: int, of: int) -> str:
    """What a panel is called: its title, its labels, or its place."""
    words = [axis.get_title(loc) for loc in ("center", "left", "right")] + [axis.get_ylabel(), axis.get_xlabel()]
    word = next((" ".join(w.split()) for w in words if w.strip()), "")
    return f"panel {number} of {of}" + (f" ('{word}')" if word else "")


def _varies(values) -> bool:
    """Whether a picture has two different finite pixels; a channel that is constant throughout is no difference."""
    values = np.ma.filled(np.ma.asarray(values).astype(float), np.nan)
    pixels = values.reshape(-1, values.shape[2]) if values.ndim == 3 else values.reshape(-1, 1)
    pixels = pixels[np.isfinite(pixels).all(1)]
    return len(pixels) > 1 and bool(np.ptp(pixels, axis=0).max() > 1e-6)


def _has_data(axis: Axes) -> bool:
    """Whether axes without a picture hold anything finite in their own coordinates."""
    own = lambda artist: all(artist.get_transform().contains_branch_seperately(axis.transData))
    lines = any(own(line) and np.isfinite(np.asarray(line.get_xydata(), float)).all(1).any() for line in axis.lines)
    return lines or any(_finite_patch(p) for p in axis.patches) or any(_finite_collection(c) for c in axis.collections)


def _finite_patch(patch: Patch) -> bool:
    if isinstance(patch, Rectangle):
        return bool(np.isfinite([*patch.get_xy(), patch.get_width(), patch.get_height()]).all())
    return True


def _finite_collection(collection) -> bool:
    """A heat map by its values, points by their places, areas and segments by their paths."""
    values = collection.get_array()
    if values is not None and not np.isfinite(np.ma.filled(np.ma.asarray(values).astype(float), np.nan)).any():
        return False
    offsets = np.ma.filled(np.ma.asarray(collection.get_offsets()).astype(float), np.nan)
    placed = bool(len(offsets)) and bool(np.isfinite(offsets).all(1).any())
    return placed and any(len(p.vertices) and np.isfinite(p.vertices).all(1).any() for p in collection.get_paths())
