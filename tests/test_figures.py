"""Figures of the reproductions: what is drawn, not how it looks."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from fusionrepro.data.pairs import Pair
from fusionrepro.reproduction.figures import liveliest, radar_figure


@pytest.fixture(scope="module")
def pair():
    ir, vi = torch.rand(2, 1, 96, 128, generator=torch.Generator().manual_seed(3))
    ir[:, 40:60, 70:95] = 1  # something hot that the visible picture does not show
    return Pair("a", ir, vi / 2)


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_the_liveliest_square_differs_more_than_the_picture(pair):
    top, left, side = liveliest(pair.ir, pair.vi)
    apart = (pair.ir - pair.vi).abs()
    assert side == 24 and apart[0, top : top + side, left : left + side].mean() > apart.mean()


def test_the_liveliest_square_by_hand():
    ir = torch.zeros(1, 16, 20)
    ir[:, 5:9, 11:15] = 1
    assert liveliest(ir, torch.zeros_like(ir)) == (5, 11, 4)


def test_radar_figure_draws_shares_of_the_best_and_the_stressed_method_last(pair):
    table = pd.DataFrame({"EN": [7, 6, 5], "SD": [40, 50, 30], "SF": [9, 12, 6], "MI": [2, 1, 1]}, index=["mean", "max", "other"])
    mixed = {"infrared": pair.ir, "visible": pair.vi, "mean": (pair.ir + pair.vi) / 2, "in colour": pair.ir.maximum(pair.vi).repeat(3, 1, 1)}
    figure = radar_figure({"A": table, "B": table}, mixed, liveliest(pair.ir, pair.vi), "max")
    lines = figure.axes[0].lines
    assert len(figure.axes) == 2 + 2 * 4 and lines[-1].get_label() == "max"
    assert np.allclose(lines[-1].get_ydata(), [6 / 7, 1, 1, 0.5, 6 / 7])
    whole, detail = figure.axes[2].images[0].get_array(), figure.axes[6].images[0].get_array()
    assert whole.shape[:2] == (96, 128) and detail.shape[:2] == (24, 24)
