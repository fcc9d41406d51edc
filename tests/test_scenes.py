"""Procedural scenes: the same bits for the same seed, labels that fit, and pictures that need each other."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion

from fusionrepro.data.canvas import default_camera
from fusionrepro.data.light import CONDITIONS
from fusionrepro.data.phantoms import PHANTOMS, phantom, phantom_dataset
from fusionrepro.data.scenes import BOX_CLASSES, MASK_CLASSES, draw_world, make_world, scene, scene_dataset, sequence
from fusionrepro.data.sensors import infrared, visible
from fusionrepro.data.show import contact_sheet
from fusionrepro.errors import InputError

BOX_TO_MASK = {0: 2, 1: 1, 2: 1, 4: 3, 5: 1}  # lamps have no mask class


@pytest.fixture(scope="module")
def pairs():
    return scene_dataset(36, seed=1)[:]


def contrast(picture: torch.Tensor, where: np.ndarray, forbidden: np.ndarray) -> float:
    """Mean inside minus mean in a ring around it."""
    ring = binary_dilation(where, iterations=5) & ~binary_dilation(where, iterations=1) & ~forbidden
    values = picture[0].numpy()
    return float(values[where].mean() - values[ring].mean())


def people(pairs, condition: str, least: int = 60):
    """(pair, pixels of people) of a condition's pairs that show enough of them."""
    found = [(p, (p.mask == 2).numpy()) for p in pairs if p.meta["condition"] == condition]
    return [(p, m) for p, m in found if m.sum() >= least]


def test_same_seed_same_bits():
    for condition in CONDITIONS:
        a, b = scene(5, (96, 128), condition), scene(5, (96, 128), condition)
        for name in ("ir", "vi", "cbcr", "boxes", "mask"):
            assert torch.equal(getattr(a, name), getattr(b, name)), (condition, name)
        assert a.meta == b.meta
    assert not torch.equal(scene(5, (96, 128)).vi, scene(6, (96, 128)).vi)


def test_a_pair_does_not_depend_on_what_was_read_before():
    data = scene_dataset(6, (64, 80))
    last = data[5]
    assert torch.equal(scene_dataset(6, (64, 80))[5].vi, last.vi)
    assert [p.id for p in data[::-1]] == data.ids[::-1]


def test_types_and_ranges(pairs):
    for pair in pairs:
        assert pair.ir.dtype == pair.vi.dtype == pair.cbcr.dtype == torch.float32
        assert pair.ir.shape == pair.vi.shape == (1, 256, 320) and pair.cbcr.shape == (2, 256, 320)
        assert pair.mask.dtype == torch.int64 and pair.mask.shape == (256, 320)
        for x in (pair.ir, pair.vi, pair.cbcr):
            assert torch.isfinite(x).all() and x.min() >= 0 and x.max() <= 1
        assert pair.vi.std() > 0.02 and pair.ir.std() > 0.02


@pytest.mark.parametrize("size", [(32, 32), (33, 50), (61, 47), (480, 640)])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_any_size(size, condition):
    pair = scene(2, size, condition)
    assert pair.size == size and pair.mask.shape == size and torch.isfinite(pair.vi).all()


def test_boxes_fit_the_picture_and_the_mask(pairs):
    seen = set()
    for pair in pairs:
        assert len(pair.boxes) == len(pair.meta["tracks"]) == len(set(pair.meta["tracks"]))
        for kind, x1, y1, x2, y2 in pair.boxes.int().tolist():
            assert 0 <= x1 < x2 <= 320 and 0 <= y1 < y2 <= 256
            seen.add(kind)
            if kind in BOX_TO_MASK:
                inside = pair.mask[y1:y2, x1:x2] == BOX_TO_MASK[kind]
                # tight: the class is met on all four sides of the box
                assert inside.any(0)[0] and inside.any(0)[-1] and inside.any(1)[0] and inside.any(1)[-1]
    assert seen == set(range(len(BOX_CLASSES)))


def test_all_mask_classes_appear(pairs):
    more = [p.mask.unique() for p in pairs + scene_dataset(40, (96, 120), seed=9)[:]]
    assert set(torch.cat(more).tolist()) == set(range(len(MASK_CLASSES)))


def test_people_are_warm_in_every_condition(pairs):
    for condition in CONDITIONS:
        found = people(pairs, condition)
        assert found
        differences = [contrast(p.ir, m, m) for p, m in found]
        assert np.mean(differences) > 0.15 and min(differences) > 0, (condition, differences)


def test_people_are_hard_to_see_at_night(pairs):
    found = people(pairs, "night")
    infra = np.mean([abs(contrast(p.ir, m, m)) for p, m in found])
    seen = np.mean([abs(contrast(p.vi, m, m)) for p, m in found])
    assert seen < 0.1 and infra > 3 * seen


@pytest.mark.parametrize("condition", ["fog", "smoke", "glare"])
def test_weather_hides_things_from_the_eye_only(condition):
    """The same street, with and without: the visible loses detail, the infrared keeps it."""
    lost, kept = [], []
    detail = lambda x: x[0, 50:90].diff(dim=1).abs().mean().item()  # of the far part of the street
    for seed in range(4):
        clear, hidden = scene(seed, (128, 160), "day"), scene(seed, (128, 160), condition)
        lost.append(detail(hidden.vi) / detail(clear.vi))
        kept.append(detail(hidden.ir) / detail(clear.ir))
    assert np.mean(lost) < 0.8 and np.mean(kept) > np.mean(lost) + 0.15


def test_signs_are_written_for_the_eye_only():
    infra, seen = [], []
    for seed in range(20):
        world = make_world(seed, "day")
        canvas, _, lamps = draw_world(world, default_camera((256, 320)))
        vi = visible(canvas, world.light, lamps, np.random.default_rng(0)).mean(0)
        ir = infrared(canvas, world.light, np.random.default_rng(0), np.random.default_rng(1))
        for number, thing in enumerate(world.things, 1):
            plate = binary_erosion(canvas.who == number, iterations=3)
            if thing.kind == "sign" and plate.sum() > 80:
                infra.append(ir[plate].std()), seen.append(vi[plate].std())
    assert len(seen) >= 5
    assert np.median(seen) > 0.08 and np.median(infra) < 0.04


def test_tracks_follow_things():
    frames = sequence(12, seed=3, size=(192, 240), dt=0.1)
    assert len({f.id for f in frames}) == 12
    boxes = [dict(zip(f.meta["tracks"], f.boxes.tolist(), strict=True)) for f in frames]
    followed = 0
    for before, after in zip(boxes[:-1], boxes[1:], strict=True):
        for track in set(before) & set(after):
            (kind, *a), (kind_after, *b) = before[track], after[track]
            assert kind == kind_after
            # within a tenth of a second nothing leaves the neighbourhood of its own box
            reach = 0.5 * max(a[2] - a[0], a[3] - a[1]) + 10
            centre = lambda c: np.array([(c[0] + c[2]) / 2, (c[1] + c[3]) / 2])
            assert np.abs(centre(a) - centre(b)).max() < reach
            followed += 1
    assert followed > 20
    again = sequence(12, seed=3, size=(192, 240), dt=0.1)
    assert all(torch.equal(a.ir, b.ir) for a, b in zip(frames, again, strict=True))


def test_fixed_pattern_stays_and_read_noise_changes():
    """Averaging frames of a standing camera keeps the pattern and loses the rest."""
    world = make_world(2, "night")
    canvas, _, _ = draw_world(world, default_camera((96, 128)))
    shot = lambda k, pattern: infrared(canvas, world.light, np.random.default_rng(k), np.random.default_rng(pattern))
    same = [shot(k, 1) for k in range(16)]
    assert not np.array_equal(same[0], same[1])
    drift = np.mean(same[:8], 0) - np.mean(same[8:], 0)
    other = np.mean([shot(k, 2) for k in range(8)], 0) - np.mean(same[8:], 0)
    assert other.std() > 1.3 * drift.std()


def test_meta_says_what_degrades_the_pair(pairs):
    fog = [p.meta["fog_density"] for p in pairs if p.meta["condition"] == "fog"]
    clear = [p.meta["fog_density"] for p in pairs if p.meta["condition"] == "day"]
    assert min(fog) > 5 * max(clear)
    assert all(p.meta["smoke"] > 0 for p in pairs if p.meta["condition"] == "smoke")
    night = np.mean([p.meta["noise_sigma"] for p in pairs if p.meta["condition"] == "night"])
    assert night > 2 * np.mean([p.meta["noise_sigma"] for p in pairs if p.meta["condition"] == "day"])


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: scene(condition="nigt"), "night"),
        (lambda: scene(size=(8, 320)), "at least 32"),
        (lambda: scene_dataset(0), "at least one pair"),
        (lambda: sequence(0), "positive"),
        (lambda: phantom("mri_cta"), "mri_ct"),
        (lambda: phantom_dataset("gfp", 0), "at least one pair"),
        (lambda: contact_sheet([]), "at least one"),
    ],
)
def test_bad_input_is_said_clearly(call, said):
    with pytest.raises(InputError, match=said):
        call()


@pytest.mark.parametrize("kind", PHANTOMS)
def test_phantoms(kind):
    data = phantom_dataset(kind, 3, size=96, seed=2)
    for pair, again in zip(data, phantom_dataset(kind, 3, size=96, seed=2), strict=True):
        assert torch.equal(pair.ir, again.ir) and torch.equal(pair.vi, again.vi)
        assert pair.ir.dtype == torch.float32 and 0 <= pair.ir.min() and pair.ir.max() <= 1 and pair.vi.std() > 0.05
    assert not torch.equal(data[0].vi, data[1].vi)
    assert (data[0].ir_cbcr is None) == (kind == "mri_ct")
    if kind == "gfp":
        assert (data[0].ir_cbcr < 0.5 + 1e-6).all(0).float().mean() > 0.2  # green: both chrominance planes below grey
