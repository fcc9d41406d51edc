"""The study of all methods: ranks, intervals and conditions."""

import pandas as pd
import pytest
import torch

from fusionrepro.baselines.simple import Average, Maximum
from fusionrepro.data.pairs import Pair
from fusionrepro.reproduction import study


@pytest.fixture
def frame() -> pd.DataFrame:
    """Two methods on three images; A wins MI everywhere, B wins VIF on the last image only."""
    lines = [("A", i, 2.0 + i, v) for i, v in enumerate((0.9, 0.8, 0.1))] + [("B", i, 1.0 + i, 0.5) for i in range(3)]
    table = pd.DataFrame(lines, columns=["method", "id", "MI", "VIF"])
    return pd.concat([table.assign(data="d", condition=c) for c in ("dark", "clean")], ignore_index=True)


def test_ranks_by_hand(frame):
    ranks = study.image_ranks(frame, ["MI", "VIF"])
    assert ranks.loc["dark"].to_numpy().tolist() == [[1.0, 2.0], [1.0, 2.0], [1.5, 1.5]]
    assert list(dict.fromkeys(ranks.index.get_level_values("condition"))) == ["dark", "clean"], "conditions keep their order"
    table = study.rank_table(ranks).set_index(["condition", "method"])
    assert table.loc[("clean", "A"), "rank"] == pytest.approx(3.5 / 3)
    assert table.loc[("clean", "A"), "low"] <= 3.5 / 3 <= table.loc[("clean", "A"), "high"]
    rivals = study.best_against_others(ranks)
    assert set(rivals["best"]) == {"A"} and (rivals["rank gap"] > 0).all() and rivals["p (Holm)"].between(0, 1).all()


def test_a_control_is_never_the_best(frame):
    copied = frame[frame["method"] == "A"].assign(method="Copy of the visible", MI=9.0, VIF=9.0)
    rivals = study.best_against_others(study.image_ranks(pd.concat([frame, copied]), ["MI", "VIF"]))
    assert set(rivals["best"]) == {"A"}
    assert (rivals.loc[rivals["method"] == "Copy of the visible", "rank gap"] < 0).all() and set(rivals["method"]) == {"B", "Copy of the visible"}


def test_a_method_that_is_missing_under_one_condition_is_ranked_elsewhere(frame):
    frame = frame[(frame["method"] == "A") | (frame["condition"] == "clean")]
    table = study.rank_table(study.image_ranks(frame, ["MI", "VIF"]))
    assert set(table.loc[table["condition"] == "dark", "method"]) == {"A"}
    assert set(table.loc[table["condition"] == "clean", "method"]) == {"A", "B"}


def test_scores_hold_the_mean_and_its_interval(frame):
    line = study.scores(frame, ["MI"]).iloc[0]
    assert (line["MI"], line["n"]) == (3.0, 3) and line["MI low"] < 3 < line["MI high"]


def test_conditions_change_what_is_seen_and_the_attack_stays_in_its_ball():
    ir, vi = torch.rand(2, 1, 1, 32, 40, generator=torch.Generator().manual_seed(0))
    seen = lambda condition, model: condition.disturb(model, ir, vi, "a") if condition.disturb else (ir, vi)
    found = {name: seen(condition, Maximum()) for name, condition in study.conditions(steps=3).items()}
    assert list(found) == ["clean", "attacked", "hazy", "rainy", "dark", "noisy"]
    for name, (_, other) in found.items():
        assert (other - vi).abs().max() == 0 if name == "clean" else (other - vi).abs().max() > 1e-3
    assert max((a - b).abs().max() for a, b in zip(found["attacked"], (ir, vi), strict=True)) <= 4 / 255 + 1e-6
    again = seen(study.conditions(steps=3)["attacked"], Maximum())
    assert torch.equal(again[0], found["attacked"][0]), "seeded"
    other = seen(study.conditions(steps=3)["attacked"], Average())
    assert not torch.equal(other[0], again[0]), "every model is attacked through its own gradient"


@pytest.mark.parametrize("condition", ["hazy", "rainy", "dark", "noisy"])
def test_every_pair_of_a_set_gets_its_own_pattern_and_every_run_and_method_the_same(condition):
    ir, vi = torch.rand(2, 1, 32, 40, generator=torch.Generator().manual_seed(0))
    pairs = [Pair(name, ir, vi) for name in ("001", "002")]  # the same picture twice, so that only the pattern differs

    def seen(method=Maximum, seed=0):
        disturb = study.conditions(seed=seed)[condition].disturb
        return [disturb(method(), p.ir[None], p.vi[None], p.id)[1][0] for p in pairs]

    first, second = seen()
    assert (first - second).abs().max() > 1e-3
    for again in (seen(), seen(Average)):
        assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    assert not torch.equal(first, seen(seed=1)[0])
