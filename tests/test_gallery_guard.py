"""Which sets of fused pictures are dead, and which only look so."""

import re
import tracemalloc

import numpy as np
import pytest
import torch

from fusionrepro.data.manifests import locate, load_dataset
from fusionrepro.errors import InputError
from fusionrepro.gallery.guard import Watch, why_dead

SIZE = (128, 160)
N = 4


def levels(x: np.ndarray) -> np.ndarray:
    return np.clip(np.round(x), 0, 255).astype(np.uint8)


def smooth(seed: int, size=SIZE) -> np.ndarray:
    """Blobs of unit standard deviation."""
    coarse = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 1, 7, 9)))
    x = torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0, 0].numpy()
    return (x - x.mean()) / x.std()


def noise(seed: int, std: float, size=SIZE) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, std, size)


def tile(period: int, std: float, size=SIZE) -> np.ndarray:
    cell = np.random.default_rng(99).normal(size=(period, period))
    return np.tile((cell - cell.mean()) / cell.std() * std, (size[0] // period + 1, size[1] // period + 1))[: size[0], : size[1]]


@pytest.fixture(scope="module")
def pairs() -> tuple[dict, dict]:
    """Infrared and visible pictures by id, with blobs and fine texture of their own."""
    ir = {str(i): levels(100 + 45 * smooth(i) + noise(i, 4)) for i in range(N)}
    return ir, {str(i): levels(120 + 30 * smooth(50 + i) + noise(50 + i, 12)) for i in range(N)}


def of(pairs, make) -> dict:
    return {i: make(int(i), pairs[0][i].astype(float), pairs[1][i].astype(float)) for i in pairs[0]}


DEAD = {
    "black": (lambda i, a, b: levels(0 * a), "4 of 4 pictures are flat"),
    "grey": (lambda i, a, b: levels(0 * a + 90 + 20 * i), "are flat"),  # another grey for every pair
    "faint noise": (lambda i, a, b: levels(128 + noise(i, 3)), "nearly flat"),
    "2.5 levels": (lambda i, a, b: levels(120 + 2.5 * smooth(200 + i)), "are nearly flat: their standard deviation is 2.5 levels where their sources have 4"),
    "a ghost of the scene": (lambda i, a, b: levels(128 + 0.05 * (a - a.mean())), "nearly flat"),
    "flat within a dark frame": (lambda i, a, b: levels(np.pad(0 * a[2:-2, 2:-2] + 128, 2)), "are flat"),  # padding shows at the border
    "grid of 8": (lambda i, a, b: levels(128 + tile(8, 20)), "repeats every 8 pixels is 100%"),
    "grid over a ghost": (lambda i, a, b: levels(128 + tile(8, 30) + 0.25 * ((a + b) / 2 - 128)), "repeats every 8 pixels"),
    "grid of 16": (lambda i, a, b: levels(128 + tile(16, 20)), "repeats every 16 pixels"),
    "chequers": (lambda i, a, b: levels(128 + tile(2, 20)), "repeats every 2 pixels"),
    "always the same": (lambda i, a, b: levels(128 + 40 * smooth(7)), "pictures of 4 pairs are 1 different"),
    "the same but for noise and brightness": (lambda i, a, b: levels(100 + 10 * i + 40 * smooth(7) + noise(i, 1)), "4 different ones, and differ by 1"),
    "copies of one pair in twos": (lambda i, a, b: levels(128 + 40 * smooth(i // 2)), "are 2 different ones"),
    "NaN in one pixel": (lambda i, a, b: np.where((np.arange(a.size) == 17).reshape(a.shape) & (i == 2), np.nan, a / 255), r"1 of 4 pictures hold NaN or infinite values \(2 is"),
}  # fmt: skip
ALIVE = {
    "average": lambda i, a, b: levels((a + b) / 2),
    "maximum": lambda i, a, b: levels(np.maximum(a, b)),
    "copy of the infrared": lambda i, a, b: levels(a),
    "copy of the visible": lambda i, a, b: levels(b),
    "negative": lambda i, a, b: levels(255 - a),
    "pale": lambda i, a, b: levels(128 + 0.25 * (a - 128)),
    "edges on grey": lambda i, a, b: levels(128 + np.diff(b, axis=1, prepend=b[:, :1])),
    "a grid over the whole scene": lambda i, a, b: levels((a + b) / 2 + tile(8, 15)),  # bad, and to be scored
    "one of four failed": lambda i, a, b: levels((a + b) / 2 * (i > 0)),
}


@pytest.mark.parametrize("name", DEAD)
def test_dead_pictures_are_told_with_their_numbers(pairs, name):
    make, words = DEAD[name]
    told = why_dead(of(pairs, make), *pairs)
    assert re.search(words, told), told
    assert told.endswith(".") and "\n" not in told


@pytest.mark.parametrize("name", ALIVE)
def test_living_pictures_are_left_alone(pairs, name):
    assert why_dead(of(pairs, ALIVE[name]), *pairs) == ""


@pytest.mark.parametrize("name", sorted(set(DEAD) - {"copies of one pair in twos", "the same but for noise and brightness"}))
def test_most_death_shows_without_sources(pairs, name):
    assert why_dead(of(pairs, DEAD[name][0]))


@pytest.mark.parametrize("name", sorted(set(ALIVE)))
def test_no_life_is_taken_without_sources(pairs, name):
    assert why_dead(of(pairs, ALIVE[name])) == ""


def test_a_dark_night_is_no_collapse():
    """Nearly black visible pictures: a copy has a few levels of contrast, and all that its source has."""
    ir = {str(i): levels(90 + 40 * smooth(i)) for i in range(N)}
    vi = {str(i): levels(8 + 3.5 * smooth(60 + i)) for i in range(N)}
    assert why_dead(vi, ir, vi) == ""
    assert why_dead({i: levels(0.6 * vi[i].astype(float)) for i in vi}, ir, vi) == ""
    assert "nearly flat" in why_dead({str(i): levels(8 + 2.5 * smooth(80 + i)) for i in range(N)}, ir, vi)
    both = {str(i): levels(8 + 3.5 * smooth(70 + i)) for i in range(N)}  # nothing to see in either
    assert why_dead(both, both, vi) == "" and why_dead({i: levels(0.7 * x.astype(float)) for i, x in both.items()}, both, vi) == ""


def test_what_the_sources_share_is_no_fault_of_the_method(pairs):
    ir, vi = pairs
    fences = {i: levels(128 + tile(8, 30) + noise(int(i), 3)) for i in vi}  # the camera looks through a grid
    assert why_dead(fences, ir, fences) == "" and why_dead(fences, ir, vi)
    film = {str(i): levels(100 + 40 * smooth(3) + noise(i, 1.5)) for i in range(N)}  # one scene, a camera that stands still
    other = {str(i): levels(120 + 30 * smooth(4) + noise(9 + i, 1.5)) for i in range(N)}
    assert why_dead({i: levels((film[i].astype(float) + other[i]) / 2) for i in film}, film, other) == ""
    # One PET picture stands beside two MRI pictures: its copy comes twice.
    twice = {i: ir[str(int(i) // 2)] for i in ir}
    assert why_dead(twice, twice, vi) == ""
    empty = {i: np.full(SIZE, 128, np.uint8) for i in ir}
    assert why_dead(empty, empty, empty) == "", "nothing was lost"


def test_colour_floats_and_sizes(pairs):
    ir, vi = pairs
    colour = {i: np.stack([x, x // 2, x // 3], axis=-1) for i, x in vi.items()}
    assert why_dead(colour, ir, colour) == ""
    assert why_dead({i: x.astype(np.float32) / 255 for i, x in vi.items()}, ir, vi) == ""
    assert "nearly flat" in why_dead({i: (0.5 + noise(int(i), 0.01)).astype(np.float32) for i in vi}, ir, vi)
    sizes = {str(i): (64 + 8 * i, 80 + 4 * i) for i in range(N)}
    source = {i: levels(100 + 40 * smooth(int(i), s)) for i, s in sizes.items()}
    assert why_dead(source, source, source) == ""
    assert "4 pairs are 4 different ones" in why_dead({i: levels(100 + 40 * smooth(5, s)) for i, s in sizes.items()}, source, source)
    assert why_dead({"tiny": levels(100 + 40 * smooth(1, (3, 5)))}) == "" and why_dead({}) == ""


def test_one_picture_is_judged_too(pairs):
    ir, vi = pairs
    one = lambda make: why_dead({"0": make(0, ir["0"].astype(float), vi["0"].astype(float))}, ir, vi)
    assert all(not one(make) for name, make in ALIVE.items() if name != "one of four failed")
    assert all(one(DEAD[name][0]) for name in ("black", "faint noise", "2.5 levels", "grid of 8"))


def test_mistakes_are_one_sentence(pairs):
    ir, vi = pairs
    watch = Watch()
    watch.add("0", ir["0"], ir["0"], vi["0"])
    with pytest.raises(InputError, match="'0' was looked at twice"):
        watch.add("0", ir["0"])
    with pytest.raises(InputError, match="give both ir and vi"):
        watch.add("1", ir["1"], ir["1"])
    with pytest.raises(InputError, match=r"not \(2, 128, 160\)"):
        watch.add("2", np.zeros((2, *SIZE), np.uint8))
    with pytest.raises(InputError, match="not int64"):
        watch.add("3", np.zeros(SIZE, int))


def test_pictures_are_not_kept():
    watch, big = Watch(), levels(100 + 30 * noise(0, 1, (512, 640)))
    watch.add("first", big, big, big)
    tracemalloc.start()
    for i in range(20):
        watch.add(str(i), np.roll(big, i), big, big)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < big.size / 8, "twenty pictures and their sources leave less than an eighth of one"


@pytest.mark.parametrize("name", ["tno", "roadscene", "msrs", "mri_ct", "mri_pet", "mri_spect", "gfp", "llvip", "m3fd", "vifb"])
def test_real_pairs_are_alive(name, data_root):
    if not locate(name, data_root):
        pytest.skip(f"{name} is not there")
    rules = {"average": lambda a, b: levels((a + b) / 2), "maximum": np.maximum, "copy_ir": lambda a, b: a, "copy_vi": lambda a, b: b}
    watches = {rule: Watch() for rule in rules} | {"grey": Watch(), "noise": Watch()}
    for pair in load_dataset(name, data_root=data_root, limit=5):
        ir, vi = (levels(255 * x[0].numpy()) for x in (pair.ir, pair.vi))
        for rule, make in rules.items():
            watches[rule].add(pair.id, make(ir.astype(np.float32), vi.astype(np.float32)).astype(np.uint8), ir, vi)
        watches["grey"].add(pair.id, np.full(ir.shape, 128, np.uint8), ir, vi)
        watches["noise"].add(pair.id, levels(128 + noise(0, 2, ir.shape)), ir, vi)
    assert {rule: watch.verdict() for rule, watch in watches.items() if rule in rules} == dict.fromkeys(rules, "")
    assert "are flat" in watches["grey"].verdict() and "nearly flat" in watches["noise"].verdict()
