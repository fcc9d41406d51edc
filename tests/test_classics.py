"""The methods without training: their contract, truth about gradients, and pictures that others published."""

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from fusionrepro.baselines.classic import ClassicModel, as_vifb
from fusionrepro.errors import InputError
from fusionrepro.imaging.post import quantise, to_picture
from fusionrepro.registry import METHODS, method

CLASSICS = [m.name for m in METHODS.values() if m.kind == "classic"]
# Small enough for a test; the iterations are the methods' own otherwise.
QUICK = {"papcnn": {"rounds": 6}, "csmca": {"iterations": 4, "rounds": 6}}
# How far the fusion of a source with itself may be from the source.
LOSSY = {"fpde": 1.01 / 255, "csmca": 0.1}
PLAIN = {"maximum", "average", "laplacian"}  # models of 00_simple


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(2, 1, 6, 7, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(x, (33, 41), mode="bicubic").clamp(0, 1)
    return x, 0.8 * x.flip(-1)


@pytest.fixture(scope="module")
def built() -> dict:
    return {}


def model_of(name: str, built: dict):
    if name not in built:
        built[name] = method(name).build(**QUICK.get(name, {})).eval()
    return built[name]


def test_all_are_registered():
    wanted = "tif adf fpde gff hybrid_msd laplacian wavelet nsct laplacian_sr wavelet_sr nsct_sr papcnn csmca".split()
    assert set(wanted) <= set(CLASSICS)
    assert not any(METHODS[n].trained for n in CLASSICS)


@pytest.mark.parametrize("name", CLASSICS)
def test_contract(name, pair, built):
    model, (ir, vi) = model_of(name, built), pair
    assert model.name == name and not list(model.parameters()) and not model.state_dict()
    with torch.no_grad():
        fused = model(ir, vi)
        assert fused.shape == ir.shape and fused.dtype == ir.dtype and fused.isfinite().all()
        assert -0.5 < fused.min() and fused.max() < 1.5
        assert torch.equal(fused, model(ir, vi)), "the same pair, another picture"
        assert (model(ir, ir) - ir).abs().max() <= LOSSY.get(name, 1e-4)
        alone = model(ir[1:], vi[1:])
        assert (fused[1:] - alone).abs().mean() < (0.01 if name == "csmca" else 1e-5), "pictures of a batch see each other"
        assert model(ir[..., :3, :5], vi[..., :3, :5]).isfinite().all()


@pytest.mark.parametrize("name", CLASSICS)
def test_says_the_truth_about_gradients(name, pair, built):
    model = model_of(name, built)
    ir, vi = (x[:1, :, :24, :24].clone().requires_grad_() for x in pair)
    fused = model(ir, vi)
    assert fused.requires_grad == model.differentiable
    if not model.differentiable:
        return
    target = fused.detach() + 0.1
    (fused - target).square().sum().backward()
    for x in (ir, vi):
        assert x.grad.isfinite().all() and x.grad.abs().max() > 0
    # A step against the gradient brings the picture nearer to the target.
    with torch.no_grad():
        step = 0.02 * torch.cat([ir.grad, vi.grad]).abs().max().reciprocal()
        moved = model(ir - step * ir.grad, vi - step * vi.grad)
    assert (moved - target).square().sum() < (fused - target).square().sum()


@pytest.mark.parametrize("name", [n for n in CLASSICS if n not in PLAIN])
def test_colour_channels(name, pair, built):
    model = model_of(name, built)
    assert isinstance(model, ClassicModel)
    ir, vi = ((x[:1, :, :20, :22] * 255).round() / 255 for x in pair)
    with torch.no_grad():
        both = model.fuse_channels(ir.expand(-1, 3, -1, -1), vi.expand(-1, 3, -1, -1))
        assert both.shape == (1, 3, 20, 22)
        assert (both[:, :1] - model(ir, vi)).abs().mean() < 2e-3


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("adf", {"dt": 0.5}, "stable only"),
        ("gff", {"window": 4}, "odd"),
        ("hybrid_msd", {"levels": 1}, "at least 2"),
        ("wavelet", {"wavelet": "daubechies"}, "discrete wavelets"),
        ("nsct", {"directions": ()}, "from 0 to 6"),
        ("nsct_sr", {"dictionary": "ksvd"}, "none of scenes"),
        ("nsct_sr", {"dictionary": torch.zeros(3, 4)}, r"\(64,A\)"),
        ("wavelet_sr", {"step": 9}, "leave gaps"),
        ("papcnn", {"sizes": (7,)}, "one number"),
        ("csmca", {"dictionary": "mine"}, "none of phantoms"),
    ],
)
def test_bad_options_get_one_sentence(name, options, said):
    with pytest.raises(InputError, match=said):
        method(name).build(**options)


def read(path) -> np.ndarray:
    return np.array(Pillow.open(path).convert("RGB"))


def beside(name: str, scene: str, oracles, **options) -> np.ndarray:
    """Our grey levels less the published ones."""
    ir, vi = (read(oracles / "sources" / "vifb" / side / f"{scene}.jpg") for side in ("ir", "vi"))
    ours = as_vifb(method(name).build(**options), ir, vi)
    return ours.astype(int) - read(oracles / "fused" / name / f"{scene}.jpg")


@pytest.mark.parametrize("scene", ["walking", "snow"])
@pytest.mark.parametrize("name", ["tif", "adf", "fpde", "gff"])
def test_published_pictures_bit_by_bit(name, scene, oracles):
    assert not beside(name, scene, oracles).any()


def test_published_pictures_nearly(oracles):
    gap = beside("hybrid_msd", "walking", oracles)
    assert 10 * np.log10(255**2 / np.square(gap).mean()) > 41


def test_nsct_sr_decides_as_published(oracles, monkeypatch):
    """A window of a published picture: nearly all patches come from the same source."""
    monkeypatch.setenv("FUSIONREPRO_ORACLES", str(oracles))
    part = (slice(96, 208), slice(96, 208), 1)
    planes = [read(oracles / where)[part] for where in ("sources/vifb/ir/walking.jpg", "sources/vifb/vi/walking.jpg", "fused/nsct_sr/walking.jpg")]
    ir, vi, theirs = (torch.from_numpy(p.copy()).float()[None, None] / 255 for p in planes)
    with torch.no_grad():
        ours = method("nsct_sr").build(dictionary="published", step=2, epsilon=0.1)(ir, vi)
        mean = method("nsct").build(directions=(2,))(ir, vi)
    inside = (0, 0, slice(20, -20), slice(20, -20))
    gap, other = (255 * (x - theirs)[inside].abs() for x in (ours, mean))
    assert (gap > 6).float().mean() < 0.03 and gap.mean() < 2 < other.mean()


@pytest.mark.parametrize("name, source", [("copy_ir", 0), ("copy_vi", 1)])
def test_controls_save_a_source_to_the_level(name, source):
    assert METHODS[name].kind == "control" and not METHODS[name].trained
    levels = torch.arange(256.0).view(1, 1, 16, 16) / 255
    pair = [levels.clone().requires_grad_(), levels.flip(-1).clone().requires_grad_()]
    model = METHODS[name].build()
    fused = model(*pair)
    assert torch.equal((quantise(to_picture(fused, model.post), 8, model.rounding) * 255).round(), (pair[source] * 255).round())
    fused.sum().backward()  # an attack asks for both gradients
    assert pair[source].grad.eq(1).all() and pair[1 - source].grad.eq(0).all()
