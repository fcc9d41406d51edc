"""The yardsticks of `fusionrepro bench models` compute what ours compute."""

import pytest
import torch

from fusionrepro.bench import models as bench
from fusionrepro.errors import InputError


@pytest.mark.parametrize("name", ["a2rnet", "smfnet", "daefuse", "nestfuse"])
def test_ours_and_the_yardstick_agree(name):
    ours, plain = bench.build(name), bench.build(bench.yardstick(name))
    ir, vi = bench.pair((48, 80))
    with torch.no_grad():
        mine, theirs, swapped = ours(ir, vi), plain(ir, vi), plain(vi, ir)
    assert theirs.std() > 1e-3, "a flat picture would agree with anything"
    assert (mine - theirs).abs().max() < 1e-5 * max(1.0, theirs.abs().max().item())
    if name != "nestfuse":  # its rule treats both sources alike
        assert (theirs - swapped).abs().max() > 1e-6, "the order of the sources matters"


def test_rows_carry_ratios_and_a_training_step():
    published, ours = bench.bench_models(["a2rnet"], ["128x128"], repeats=1)
    assert published.model == "a2rnet as published" and published.cpu_ratio is None
    assert ours.cpu_ratio == pytest.approx(ours.cpu_seconds / published.cpu_seconds)
    assert ours.step_seconds > ours.seconds and ours.training_ratio < 0.5


def test_only_what_was_published_is_called_so():
    assert bench.yardstick("smfnet") == "smfnet as published" and bench.yardstick("average") is None
    assert bench.yardstick("daefuse") == "daefuse layer by layer", "its authors published no program"


def test_unknown_precision_names_the_known_ones():
    with pytest.raises(InputError, match="use 32, bf16"):
        bench.bench_models(["average"], ["128x128"], precision="8")


def test_scenes_beside_a_yardstick():
    from fusionrepro.bench.scenes import bench_scenes

    table = bench_scenes(count=2, size=(48, 64), repeats=1)
    assert (table.cpu_s > 0).all() and table["times SSIM"].iloc[1] == 1
    assert table["a second"].iloc[0] == pytest.approx(1 / table.cpu_s.iloc[0])


def test_a_long_model_is_measured_once(monkeypatch):
    monkeypatch.setattr(bench, "LONG", 0.0)
    calls = []
    spent = bench.times({"m": lambda ir, vi: calls.append(1) or ir}, (8, 8), repeats=3)
    assert len(calls) == 1 and spent["m"][1] > 0
