"""A2RNet: the same function as the published program, its options, its training; seconds on a CPU."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionrepro.a2rnet import training
from fusionrepro.a2rnet.attack import attack, settings_for
from fusionrepro.a2rnet.model import ARB, A2RNet, read_authors
from fusionrepro.a2rnet.pseudo_label import max_label
from fusionrepro.bench import models as bench
from fusionrepro.bench.published.a2rnet import Published, random_state, shapes
from fusionrepro.errors import CheckpointError, InputError


def scene(size=(48, 64), seed=0, n=1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(n, 1, *size, generator=generator) for _ in range(2))


@pytest.fixture(scope="module", params=[0, 1])
def both(request):
    """The published network and ours with the same weights."""
    state = random_state(request.param)
    ours = A2RNet()
    ours.load_state_dict(read_authors(state))
    return Published(state).eval(), ours.eval()


def test_checkpoint_of_the_public_program_has_its_size():
    assert len(shapes()) == 158
    assert sum(t.numel() for t in random_state().values()) == 10_612_849


@pytest.mark.parametrize("size, n", [((16, 16), 2), ((48, 64), 2), ((80, 304), 1)])
def test_same_output_and_gradients_as_published(both, size, n):
    published, ours = both
    ir, vi = scene(size, n=n)
    weights = torch.randn(n, 1, *size, generator=torch.Generator().manual_seed(5))

    def run(model, dtype):
        sources = [x.to(dtype).requires_grad_() for x in (ir, vi)]
        fused = model.to(dtype)(*sources)
        return fused, torch.stack(torch.autograd.grad((fused * weights.to(dtype)).sum(), sources))

    # Double first: rounding the weights back to single precision then gives the original ones.
    for dtype in (torch.float64, torch.float32):
        (theirs, expected), (mine, found) = run(published, dtype), run(ours, dtype)
        assert torch.allclose(theirs, mine, atol=1e-5)
        assert found.abs().max() > 1e-3, "a gradient that is zero would agree with anything"
        if dtype == torch.float64:
            assert torch.allclose(expected, found, atol=1e-9)
        else:
            # Where an activation is zero up to rounding, a LeakyReLU may take either slope.
            assert ((expected - found).abs() <= 1e-5).float().mean() > 0.995
    with torch.no_grad():
        assert torch.allclose(theirs, ours(ir, vi), atol=1e-5)


def test_every_public_tensor_that_runs_reaches_ours():
    state = random_state()
    base = read_authors(state)
    assert len(base) == 158 - 2 * 28
    for name in state:
        changed = read_authors(state | {name: state[name] + 1})
        moved = [k for k in base if not torch.equal(base[k], changed[k])]
        assert len(moved) == (0 if name.startswith(("C2_ESSA", "C4_ESSA")) else 1)


def test_checkpoint_of_another_program_is_refused():
    with pytest.raises(CheckpointError, match="no tensor of the public A2RNet"):
        read_authors({"conv1.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="lacks"):
        read_authors({k: v for k, v in random_state().items() if not k.startswith("C9")})


def test_training_mode_agrees_with_published_without_dropout(both):
    published, _ = both
    ours = A2RNet(dropout=0.0, arb_dropout=0.0).train()
    ours.load_state_dict(read_authors(dict(zip(published.names, published.tensors, strict=True))))
    ir, vi = scene()
    assert torch.allclose(ours(ir, vi), published(ir, vi), atol=1e-5)
    ours(ir, vi).square().mean().backward()
    published.zero_grad()
    published(ir, vi).square().mean().backward()
    theirs = read_authors({n: p.grad for n, p in zip(published.names, published.tensors, strict=True) if p.grad is not None})
    for name, p in ours.named_parameters():
        assert torch.allclose(p.grad, theirs[name], atol=1e-5 * max(1, theirs[name].abs().max().item())), name


def test_dropout_drops_the_stated_share():
    arb = ARB(64, dropout=0.2).train()
    torch.manual_seed(0)
    dropped = torch.cat([(arb.activate(torch.ones(50, 3, 64)) == 0).float().mean((0, 1)) for _ in range(20)])
    assert abs(dropped.mean().item() - 0.2) < 0.02
    kept = arb.activate(torch.ones(500, 1, 64))
    assert abs(kept.mean().item() - 1) < 0.03


@pytest.mark.parametrize("options", [dict(reading="paper"), dict(unet=False), dict(drm=False), dict(kernel_order=3, softmax=True)])
def test_other_readings_fuse_any_size_and_pass_gradients(options):
    model = A2RNet(width=4, **options).eval()
    for size in ((1, 1), (17, 33), (32, 32)):
        ir, vi = (x.requires_grad_() for x in scene(size))
        fused = model(ir, vi)
        assert fused.shape == ir.shape
        for g in torch.autograd.grad(fused.sum(), (ir, vi)):
            assert g.isfinite().all() and g.abs().max() > 0
        with torch.no_grad():
            assert torch.allclose(model(ir, vi), fused, atol=1e-5)


def test_unknown_option_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'shuffle'"):
        A2RNet(sampling="shuffel")


def test_constant_pairs_stay_finite(both):
    _, ours = both
    for value in (0.0, 0.5, 1.0):
        ir = torch.full((1, 1, 32, 32), value, requires_grad=True)
        fused = ours(ir, ir.detach())
        assert fused.isfinite().all()
        assert torch.autograd.grad(fused.sum(), ir)[0].isfinite().all()


def test_training_keeps_less_than_half_of_what_the_program_keeps():
    theirs = bench.training_bytes(bench.build("a2rnet as published"), (64, 64))
    mine = bench.training_bytes(bench.build("a2rnet"), (64, 64))
    assert mine < theirs / 2


def test_bench_rows_and_ratios():
    rows = bench._with_ratios(bench._rows({n: bench.build(n) for n in ("a2rnet as published", "a2rnet")}, "128x128", 1, lambda t: None))
    published, ours = rows
    assert published.parameters == ours.parameters == 3_572_497
    assert abs(published.gflop - 2 * 36.45 / 4) < 0.1  # 36.45 GMAC at 256x256
    assert ours.cpu_seconds > 0 and ours.peak_mib > 0 and ours.training_ratio < 0.5
    with pytest.raises(InputError, match="unknown size"):
        bench.bench_models(["a2rnet"], ["1x1"])


def test_attack_climbs_for_other_models_and_stays_in_the_ball():
    from fusionrepro.baselines.simple import Average

    ir, vi = scene((32, 32))
    model = Average()
    ir_adv, vi_adv = attack(model, ir, vi, generator=torch.Generator().manual_seed(0), **settings_for("paper"))
    error = lambda *pair: (model(*pair) - max_label(ir, vi)).square().mean()
    assert error(ir_adv, vi_adv) > error(ir, vi)
    assert max((ir_adv - ir).abs().max(), (vi_adv - vi).abs().max()) <= 4 / 255 + 1e-6


def test_short_training_learns(tmp_path):
    """A bare U-Net on one crop of a scene, without attack: the fused picture approaches the label."""
    options = dict(label="max", drm=False, adversarial=False, limit=2, crop=32, epochs=20, repeat=4, schedule="constant")
    recipe = training.recipe("smoke", **(training.SCRATCH | options))
    trained = training.train(recipe, recipe.folder(tmp_path), "cpu", progress=False)
    lines = trained.fit.losses.read_text().splitlines()
    values = [float(line.split(",")[lines[0].split(",").index("clean")]) for line in lines[1:]]
    assert np.mean(values[-8:]) < 0.7 * np.mean(values[:8])


ORACLES = os.environ.get("FUSIONREPRO_ORACLES", "")


@pytest.mark.skipif(not ORACLES, reason="FUSIONREPRO_ORACLES is not set")
def test_maximum_is_close_to_the_shipped_labels():
    from fusionrepro.imaging.color import luminance
    from fusionrepro.imaging.io import read_image

    root, checked = Path(ORACLES), []
    def grey(path):
        pixels = torch.from_numpy(read_image(path).pixels)
        return pixels[None, None] if pixels.ndim == 2 else luminance(pixels.permute(2, 0, 1)[None])

    for path in sorted((root / "fused/a2rnet_pseudo_label").iterdir()):
        label = grey(path)
        if tuple(label.shape[-2:]) != (480, 640):
            continue
        ir, vi = (grey(next((root / "sources/a2rnet" / s).glob(f"{path.stem}.*"))) for s in ("ir", "vi"))
        difference = ((max_label(ir, vi) - label).abs().mean() * 255).item()
        checked.append(difference)
        assert 1.0 < difference < 2.3, f"{path.stem}: {difference:.2f} grey levels"
    assert len(checked) >= 3
