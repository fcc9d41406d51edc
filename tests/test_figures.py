"""Figures of the reproductions: what is drawn, not how it looks."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
import torch

from fusionrepro import settings
from fusionrepro.data.manifests import load_dataset
from fusionrepro.data.pairs import Pair
from fusionrepro.data.scenes import scene
from fusionrepro.errors import DataError, FusionReproError, InputError
from fusionrepro.reproduction import figures
from fusionrepro.reproduction.figures import (
    bars, bars_with_pictures, check_drawn, error_panels, lively_squares, mean_error, panels, radar_figure, score_notes, signal_distance,
    signal_line, signal_panels,
)  # fmt: skip

METRICS = ["EN", "PSNR"]


@pytest.fixture(scope="module")
def pair():
    ir, vi = torch.rand(2, 1, 96, 128, generator=torch.Generator().manual_seed(3))
    ir[:, 40:60, 70:95] = 1  # something hot that the visible picture does not show
    return Pair("a", ir, vi / 2)


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def grid_of(pair, *methods):
    """Sources and mixtures, one in colour and of 8 bit as methods save it."""
    mixed = {m: (k + 1) / (len(methods) + 1) * pair.ir + (1 - (k + 1) / (len(methods) + 1)) * pair.vi for k, m in enumerate(methods)}
    colour = (pair.vi[0, ..., None].expand(-1, -1, 3).numpy() * (255, 128, 128)).astype(np.uint8)
    return {"infrared": pair.ir, "visible": colour} | mixed


def titles(figure):
    return [a.get_title() for a in figure.axes if a.get_title()]


# ---- panels ------------------------------------------------------------------------------------------------------------


def test_panels_wrap_in_the_order_given_and_others_come_last(pair):
    grid = {"TNO, 01": grid_of(pair, "A", "mean", "B", "C", "D")}
    figure = panels(grid, columns=4, others=["mean"])
    assert titles(figure) == ["infrared", "visible", "A", "B", "C", "D", "mean"]
    left, top = np.array([a.get_position().p0 for a in figure.axes]).T
    assert (np.round(top, 3)[:3] == np.round(top, 3)[0]).all() and top[2] > top[3] > top[6]  # lines of three, then the other
    assert np.allclose(left[[0, 3, 6]], left[0])
    assert {t.get_text() for t in figure.texts} == {"not among the paper's panels", "TNO, 01"}
    check_drawn(figure)


def test_rows_that_fit_share_their_titles(pair):
    two = grid_of(pair, "A")
    figure = panels({"day": two, "night": {k: two[k] for k in ("infrared", "A")}})
    assert titles(figure) == ["infrared", "visible", "A"] and len(figure.axes) == 5
    assert figure.axes[4].get_position().x0 == figure.axes[2].get_position().x0  # "A" stands below "A"


def test_a_square_is_enlarged_in_a_corner_and_several_below(pair):
    grid, one = {"x": grid_of(pair, "A")}, lively_squares(pair.ir, pair.vi)
    figure = panels(grid, squares={"x": one})
    assert len(figure.axes) == 3 and all(len(a.images) == 2 and len(a.patches) == 2 for a in figure.axes)
    top, left, side = one[0]
    assert np.array_equal(figure.axes[0].images[1].get_array(), pair.ir[0, top : top + side, left : left + side])
    many = panels(grid, squares={"x": lively_squares(pair.ir, pair.vi, 2)})
    assert sum(a.get_label() == figures.DETAIL for a in many.axes) == 6 and many.get_figheight() > figure.get_figheight()
    check_drawn(figure)
    check_drawn(many)


@pytest.mark.parametrize("square", [(0, 0, 20), (76, 108, 20), (76, 0, 20), (38, 50, 20)])
def test_an_enlargement_does_not_hide_its_square(square):
    y, x = figures._corner((96, 128), square, 43)
    assert y + 43 <= square[0] or square[0] + 20 <= y or x + 43 <= square[1] or square[1] + 20 <= x


def test_panels_without_pictures_are_refused():
    for grid in ({}, {"x": {}}):
        with pytest.raises(InputError):
            panels(grid)


def test_scores_are_written_beside_the_papers():
    ours, paper = pd.DataFrame({"EN": [6.5], "PSNR": [np.nan]}, ["with"]), pd.DataFrame({"EN": [6.543]}, ["with"])
    assert score_notes(ours, METRICS, paper) == {"with": "EN 6.5 (6.543)"}
    assert score_notes(ours.assign(PSNR=61), METRICS, per_line=1) == {"with": "EN 6.5\nPSNR 61"}


# ---- squares -----------------------------------------------------------------------------------------------------------


def lively_scene():
    """A man on a wall, below burnt-out sky, left of a margin that registration left black."""
    rng = np.random.default_rng(0)
    ir, vi = 0.3 + 0.02 * rng.random((2, 120, 160), np.float32)
    ir[:50], vi[:50] = 0.02, 1.0
    ir[70:100, 60:70], vi[70:100, 60:70], vi[75:80, 60:70] = 0.95, 0.15, 0.6
    ir[:, 140:] = 0
    return ir, vi


def test_squares_show_what_is_hot_and_neither_sky_nor_margin():
    square = lively_squares(*lively_scene())[0]
    top, left, side = square
    assert side == 24 and 60 < top + side / 2 < 110 and 50 < left + side / 2 < 80
    assert lively_squares(*lively_scene()) == [square]


def test_several_squares_stand_apart(pair):
    ir = pair.ir.clone()
    ir[:, 10:30, 10:40] = ir[:, 65:85, 20:50] = 1
    found = lively_squares(ir, pair.vi, 3)
    assert len(found) == 3
    for i, (top, left, side) in enumerate(found):
        assert all(max(abs(top - t), abs(left - x)) > side for t, x, _ in found[:i])


def test_squares_of_sources_without_common_edges_are_where_they_differ():
    ir = torch.zeros(1, 40, 40)
    ir[:, 20:30, 10:20] = 0.5
    top, left, side = lively_squares(ir, torch.full_like(ir, 0.1))[0]
    assert ir[0, top : top + side, left : left + side].min() == 0.5


def test_a_second_square_must_be_worth_it_and_equal_sources_have_one():
    assert len(lively_squares(*lively_scene(), 2)) == 1
    assert lively_squares(torch.ones(1, 40, 60), torch.ones(1, 40, 60)) == [(16, 26, 8)]


def test_squares_need_an_aligned_pair():
    with pytest.raises(InputError, match="size"):
        lively_squares(torch.rand(1, 8, 8), torch.rand(1, 8, 9))


def means_of_squares(pair, squares):
    crop = lambda x, s: x[0, s[0] : s[0] + s[2], s[1] : s[1] + s[2]]
    return [(crop(pair.ir, s), crop(pair.vi, s)) for s in squares]


@pytest.mark.parametrize("condition", ["day", "night", "fog", "smoke"])
def test_squares_of_scenes_are_never_empty(condition):
    pair = scene(seed=4, condition=condition, size=(128, 160))
    for ir, vi in means_of_squares(pair, lively_squares(pair.ir, pair.vi)):
        assert ir.std() > 0.01 and vi.std() > 0.01
        assert (ir - vi).abs().mean() > 0.02


@pytest.mark.parametrize("name", ["tno", "roadscene", "msrs"])
def test_squares_of_real_pairs_are_never_empty(name):
    try:
        data = load_dataset(name, limit=4)
    except DataError as e:
        pytest.skip(str(e))
    for pair in data:
        for ir, vi in means_of_squares(pair, lively_squares(pair.ir, pair.vi)):
            assert ir.std() > 0.01 and vi.std() > 0.01, pair.id


# ---- clean and attacked ------------------------------------------------------------------------------------------------


def test_signals_show_both_states_along_one_line_of_each_scene(pair):
    grid = grid_of(pair, "A", "B")
    scenes = {s: {t: (p, torch.as_tensor(p) * 0 if t == "A" else p) for t, p in grid.items()} for s in ("one", "two")}
    squares = {"one": lively_squares(pair.ir, pair.vi), "two": [(0, 0, 10)]}
    figure = signal_panels(scenes, squares)
    curves = [a for a in figure.axes if len(a.lines) == 2]
    assert len(curves) == 8
    mixed = grid["A"][0, signal_line(squares["one"])] * 255
    assert np.allclose(curves[2].lines[0].get_ydata(), mixed) and (curves[2].lines[1].get_ydata() == 0).all()
    assert signal_distance(*scenes["one"]["A"], signal_line(squares["one"])) == pytest.approx(float(mixed.mean()), rel=1e-5)


def test_error_maps_have_one_scale(pair):
    grid = {"x": {"whole": pair.vi, "half": pair.vi + 0.1 * pair.ir, "none": pair.vi + 0.5 * pair.ir}}
    figure = error_panels(grid, "whole")
    maps = [a.images[0] for a in figure.axes if a.images and a.images[0].get_cmap().name == "inferno"]
    assert len(maps) == 2 and len({m.get_clim() for m in maps}) == 1
    assert np.allclose(maps[1].get_array(), 0.5 * 255 * pair.ir[0], atol=1e-3)
    assert maps[0].colorbar or maps[1].colorbar
    check_drawn(figure)
    with pytest.raises(InputError, match="whole"):
        error_panels({"x": {"half": pair.vi}}, "whole")


def test_mean_error_of_tensors_and_arrays():
    levels = lambda value: np.full((4, 4), value, np.uint8)
    assert mean_error([(torch.zeros(1, 4, 4), levels(51))]) == pytest.approx(51)
    assert mean_error((levels(10), levels(value)) for value in (10, 30)) == pytest.approx(10)
    assert np.isnan(mean_error([])), "no picture, no error"


# ---- bars --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scores():
    rows = [("A", 6.2, 61.0), ("mean", 6.6, 63.0), ("Ours", 6.4, 62.0)]
    return pd.DataFrame([dict(method=m, state=s, data=d, EN=v - (s == "attack") * 0.1 + (d == "b") * 0.02, PSNR=p)
                         for m, v, p in rows for s in ("clean", "attack") for d in ("a", "b")])  # fmt: skip


def test_bars_begin_where_differences_show(scores):
    figure = bars(scores.assign(CC=np.where(scores["method"] == "A", 0.1, 0.6)), [*METRICS, "CC"], others=["mean"], ours="Ours")
    psnr, cc = figure.axes[1:3]
    assert 55 < psnr.get_ylim()[0] < 61 and f"{psnr.get_ylim()[0]:g}" in psnr.get_ylabel()
    assert cc.get_ylim()[0] == 0 and not cc.get_ylabel()
    assert [t.get_text() for t in psnr.get_xticklabels()] == ["A", "Ours", "mean"]
    assert [bool(p.get_hatch()) for p in psnr.patches] == [False] * 3 + [True] * 3
    check_drawn(figure)


@pytest.mark.parametrize(("values", "start"), [([61.4, 63.4], 60), ([0.1, 0.6], 0), ([-1, 3], 0), ([5, 5], 0), ([np.nan], 0), ([0.983, 0.986], 0.981)])
def test_where_an_axis_begins(values, start):
    assert figures._start(np.array(values, float)) == pytest.approx(start)


def test_bars_without_a_value_are_named_and_negative_ones_whole(scores):
    scores.loc[scores["method"] == "A", "EN"] = np.nan
    scores.loc[scores["method"] == "Ours", "EN"] *= -1
    axis = bars(scores, ["EN"]).axes[0]
    assert [t.get_text() for t in axis.texts] == ["no value"] * 2 and axis.get_ylim()[0] < -6.3


def test_bars_stand_below_their_pictures(scores, pair):
    figure = bars_with_pictures(scores, METRICS, {"x": grid_of(pair, "A", "Ours")}, x="method", ours="Ours")
    pictures, charts = [a for a in figure.axes if a.images], [a for a in figure.axes if a.patches]
    figure.canvas.draw()
    assert len(pictures) == 4 and len(charts) == 2
    bottom = lambda a: a.get_window_extent().y0
    assert min(map(bottom, pictures)) > max(a.get_window_extent().y1 for a in charts)
    check_drawn(figure)


# ---- radar -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_radar_figure_draws_shares_of_the_best_and_the_stressed_method_last(pair, count):
    table = pd.DataFrame({"EN": [7, 6, 5], "SD": [40, 50, 30], "SF": [9, 12, 6], "MI": [2, 1, 1]}, index=["mean", "max", "other"])
    figure = radar_figure({"A": table, "B": table}, grid_of(pair, "mean", "max"), lively_squares(pair.ir, pair.vi, count), "max")
    lines = figure.axes[0].lines
    assert lines[-1].get_label() == "max" and np.allclose(lines[-1].get_ydata(), [6 / 7, 1, 1, 0.5, 6 / 7])
    assert figure.axes[0].get_ylim()[0] == pytest.approx(0.4)  # a tenth below the smallest share, 0.5
    assert sum(bool(a.images) for a in figure.axes) == 4 + (8 if count == 2 else 0)
    check_drawn(figure)


def test_a_radar_plot_without_scores_is_refused(pair):
    table = pd.DataFrame({"EN": [np.nan] * 2, "SD": [np.nan] * 2}, index=["A", "B"])
    with pytest.raises(FusionReproError, match="'set'.* is empty"):
        check_drawn(radar_figure({"set": table}, grid_of(pair, "A", "B"), lively_squares(pair.ir, pair.vi)))


# ---- is anything there? ------------------------------------------------------------------------------------------------


def drawing(make, **subplots):
    figure, axes = plt.subplots(1, 2, **subplots)
    axes[0].plot([1, 2])
    axes[1].set_title("the other")
    make(axes[1])
    return figure


def colour_bar(axis):
    axis.figure.colorbar(axis.imshow([[0, 1]]))


GOOD = {
    "line": lambda a: a.plot([0, np.nan, 2]),
    "picture": lambda a: a.imshow([[0, 1]]),
    "bars of zero": lambda a: a.bar([0, 1], [0, 0]),
    "a bar among missing ones": lambda a: a.bar([0, 1], [np.nan, 1]),
    "points": lambda a: a.scatter([1], [2]),
    "area": lambda a: a.fill_between([0, 1], [1, 2]),
    "whiskers": lambda a: a.errorbar([0], [1], yerr=[0.1], fmt="none"),
    "heat map": lambda a: sns.heatmap(pd.DataFrame([[1, 2]]), annot=True, ax=a),
    "colour bar": colour_bar,
    "hidden": lambda a: a.set_axis_off(),
    "invisible": lambda a: a.set_visible(False),
    "a box with words": lambda a: (a.set_axis_off(), a.add_patch(plt.Rectangle((0, 0), 1, 1)), a.text(0, 0, "x")),
    "legend of the other": lambda a: (a.set_axis_off(), a.legend(handles=a.figure.axes[0].lines)),
}
BAD = {
    "nothing": lambda a: None,
    "words only": lambda a: a.text(0, 0, "no data"),
    "a dividing line": lambda a: a.axhline(0),
    "missing values": lambda a: a.plot([np.nan, np.nan]),
    "missing bars": lambda a: a.bar([0, 1], [np.nan, np.nan]),
    "missing points": lambda a: a.scatter([np.nan], [np.nan]),
    "missing heat": lambda a: a.pcolormesh([[np.nan, np.nan]]),
    "no bars": lambda a: a.bar([], []),
    "a flat picture": lambda a: a.imshow(np.full((4, 4), 0.5)),
    "one colour": lambda a: a.imshow(np.tile([0.1, 0.5, 0.9], (4, 4, 1))),
    "a missing picture": lambda a: a.imshow(np.full((4, 4), np.nan)),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_figure_with_something_drawn_passes(kind):
    check_drawn(drawing(GOOD[kind]))


@pytest.mark.parametrize("kind", BAD)
def test_an_empty_or_flat_panel_is_named(kind):
    with pytest.raises(FusionReproError, match="panel 2 of 2 .'the other'.*"):
        check_drawn(drawing(BAD[kind]))


def test_a_figure_without_panels_is_refused():
    hidden, axis = plt.subplots()
    axis.set_axis_off()
    for figure in (plt.figure(), hidden):
        with pytest.raises(FusionReproError, match="empty"):
            check_drawn(figure)


def test_the_drawings_of_the_papers_pass():
    from fusionrepro.a2rnet import diagram as a2rnet
    from fusionrepro.daefuse import diagram as daefuse
    from fusionrepro.derun import diagram as derun
    from fusionrepro.msfam import diagram as msfam
    from fusionrepro.smfnet import diagram as smfnet

    drawings = [getattr(m, name) for m in (a2rnet, daefuse, derun, msfam, smfnet) for name in m.__all__ if name.endswith("_diagram")]
    assert len(drawings) >= 11
    for draw in drawings:
        check_drawn(draw())


def test_figures_of_the_comparison_pass():
    from fusionrepro.reproduction.study import heat_map, intervals

    kept = pd.read_csv(settings.path("results_path") / "comparison.csv")
    check_drawn(heat_map(kept))
    check_drawn(intervals(kept))
