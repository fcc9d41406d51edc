"""SMFNet: the same function as the published program, its options, its two stages; seconds on a CPU."""

import csv

import pytest
import torch

from fusionrepro import load
from fusionrepro.bench.published.smfnet import Published
from fusionrepro.bench.published.smfnet import both as published_and_ours
from fusionrepro.data.scenes import scene_dataset
from fusionrepro.errors import CheckpointError, InputError
from fusionrepro.metrics import evaluate
from fusionrepro.gallery.view import shrink
from fusionrepro.smfnet import losses, strips, training
from fusionrepro.smfnet.branches import BaseFusion, DetailFusion
from fusionrepro.smfnet.model import AUTHORS_UNUSED, SMFNet, authors_names, read_authors


def scene(size=(24, 32), seed=0, n=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(n, 1, *size, generator=generator, dtype=dtype) for _ in range(2))


def awake(model):
    """The network with everything that is zero or one at first drawn at random, so that nothing hides behind it."""
    torch.manual_seed(7)
    for update in model.graph.updates if model.graph is not None else ():
        if update.gamma is not None:
            update.gamma.data.fill_(0.5)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model.eval()


def narrow(**options):
    torch.manual_seed(3)
    return awake(SMFNet(**(dict(width=8, heads=2, groups=1) | options)))


@pytest.fixture(scope="module")
def both():
    """Our network at its full size and the published program, one set of weights, in double precision."""
    ours, _ = published_and_ours()
    ours = ours.double()
    for name, p in ours.named_parameters():
        if "temperature" in name:
            p.data.uniform_(0.5, 2.0)
    return ours, Published(ours)


# ---- the network -------------------------------------------------------------------------------------------------------


def test_full_size_has_the_parameters_that_the_program_uses(both):
    assert sum(p.numel() for p in both[0].parameters()) == 2_650_098


def test_same_output_and_gradients_as_published(both):
    ours, published = both
    ir, vi = (x.requires_grad_() for x in scene((17, 21), n=2, dtype=torch.float64))
    weights = torch.randn(
        2, 1, 17, 21, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    kept = [
        p
        for n, p in ours.named_parameters()
        if n.endswith(("gamma", "temperature", "votes.weight", "slopes.across", "mix.weight"))
    ]
    mine, theirs = ours(ir, vi), published(ir, vi)
    assert torch.allclose(mine, theirs, atol=1e-11)
    found, wanted = (
        torch.autograd.grad((x * weights).sum(), [ir, vi, *kept]) for x in (mine, theirs)
    )
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9 * max(1.0, b.abs().max().item()))
    assert found[0].abs().max() > 1e-9, "a gradient that is zero would agree with anything"


def test_strips_change_nothing(both, monkeypatch):
    ours, published = both
    ir, vi = scene((150, 9), dtype=torch.float64)
    with torch.no_grad():
        wanted = published(ir, vi)
        monkeypatch.setattr(strips, "CACHED", 64 * 40 * 9)
        cuts = list(strips.parts(1, torch.zeros(1, 64, 150, 9)))
        assert len(cuts) > 3
        assert torch.allclose(ours(ir, vi), wanted, atol=1e-11)


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(cross="modalities", cross_norm=True),
        dict(gates="interleaved", gamma=False),
        dict(graph=False, swap=True),
    ],
)
def test_any_size_with_and_without_gradients(options):
    model = narrow(**options)
    for size in ((1, 1), (2, 3), (13, 37)):
        ir, vi = (x.requires_grad_() for x in scene(size, n=2))
        fused = model(ir, vi)
        assert fused.shape == ir.shape and 0 < fused.min() and fused.max() < 1
        with torch.no_grad():
            assert torch.allclose(model(ir, vi), fused, atol=1e-5)
        assert all(g.isfinite().all() for g in torch.autograd.grad(fused.sum(), (ir, vi)))


def test_half_precision_stays_finite_and_near():
    model = narrow(width=16)
    ir, vi = scene((40, 56))
    with torch.no_grad():
        full = model(ir, vi)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(ir, vi)
    assert half.isfinite().all() and (half.float() - full).abs().max() < 0.05
    for value in (0.0, 1.0):
        flat = torch.full((1, 1, 24, 24), value)
        assert model(flat, flat).isfinite().all()


def test_ablations_of_the_network_are_what_they_say():
    names = lambda **o: {n for n, _ in narrow(**o).named_parameters()}
    whole = names()
    assert {n for n in whole - names(cross="none")} == {
        n for n in whole if n.startswith("encoder.detail.attention")
    }
    assert {n for n in whole - names(residual=False)} == {n for n in whole if ".tail." in n}
    assert {n for n in whole - names(graph=False)} == {n for n in whole if n.startswith("graph.")}
    assert all(
        names(**o) < whole for o in (dict(cross="none"), dict(residual=False), dict(graph=False))
    )
    swapped = narrow(swap=True)
    assert isinstance(swapped.base_fusion, DetailFusion) and isinstance(
        swapped.detail_fusion, BaseFusion
    )


def test_bad_options_are_refused_in_one_sentence():
    with pytest.raises(InputError, match="did you mean 'halves'"):
        SMFNet(cross="halfs")
    with pytest.raises(InputError, match="multiple of 4"):
        SMFNet(width=10)
    with pytest.raises(InputError, match="did you mean 'levels16'"):
        losses.semantic_loss(*scene(), kind="levels")


# ---- the public checkpoint ---------------------------------------------------------------------------------------------


def public_state() -> dict[str, torch.Tensor]:
    """What the program saves, with its names: shapes from ours, and some of the tensors that never run."""
    theirs, state = {ours: name for name, ours in authors_names().items()}, {}
    for key, tensor in SMFNet().state_dict().items():
        layer, _, part = key.rpartition(".")
        if layer == "graph.exchange.votes":
            state |= {
                f"{theirs[f'graph.exchange.{i}']}.{part}": row
                for i, row in enumerate(tensor.split(1))
            }
        else:
            state[theirs[key] if key in theirs else f"{theirs[layer]}.{part}"] = tensor
    return state | {f"{prefix}weight": torch.zeros(1) for prefix in AUTHORS_UNUSED}


def test_every_public_tensor_that_runs_reaches_ours():
    state = public_state()
    base = read_authors(state)
    assert base.keys() == SMFNet().state_dict().keys()
    for name in state:
        changed = read_authors(state | {name: state[name] + 1})
        moved = [k for k in base if not torch.equal(base[k], changed[k])]
        assert len(moved) == (0 if name.startswith(AUTHORS_UNUSED) else 1), name


def test_public_file_of_five_parts_loads(tmp_path):
    flat, parts = public_state(), {}
    for name, tensor in flat.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[f"module.{rest}"] = tensor  # as DataParallel saves it
    assert set(parts) == {
        "DIDF_Encoder",
        "DIDF_Decoder",
        "BaseFuseLayer",
        "DetailFuseLayer",
        "GraphModel",
    }
    torch.save(parts, tmp_path / "model_VIF.pth")
    ours = load("smfnet", tmp_path / "model_VIF.pth")
    assert torch.equal(ours.encoder.enter.weight, flat["DIDF_Encoder.patch_embed.proj.weight"])


def test_checkpoint_of_another_program_is_refused():
    with pytest.raises(CheckpointError, match="no tensor of the public SMFNet"):
        read_authors({"conv1.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="lacks"):
        read_authors({k: v for k, v in public_state().items() if not k.startswith("DIDF_Decoder")})


# ---- losses ------------------------------------------------------------------------------------------------------------


def test_released_terms_are_constants_and_ours_are_not():
    x, y = (t.requires_grad_() for t in scene((16, 16)))
    assert not losses.semantic_loss(x, y, "official").requires_grad
    assert torch.autograd.grad(losses.semantic_loss(x, y), x)[0].abs().max() > 0
    maps = tuple(torch.randn(2, 2, 4, 8, 8, requires_grad=True).unbind())
    assert not losses.decomposition_loss(maps, maps, maps, "official").requires_grad
    assert losses.decomposition_loss(maps, maps, maps).requires_grad


def test_stage_two_wants_the_brighter_source_and_the_stronger_edge():
    ir, vi = scene((16, 16))
    best = torch.maximum(ir, vi)
    none = torch.tensor(0.0)
    assert losses.fusion_terms(best, ir, vi, none)["intensity"] == 0
    assert losses.fusion_terms(ir, ir, ir, none)["edges"] == 0
    half, paper = (
        losses.reconstruction_terms(ir, vi, vi, ir, none, none, form=f)["structure"]
        for f in ("half", "paper")
    )
    assert half <= paper / 2 + 1e-6


# ---- training ----------------------------------------------------------------------------------------------------------


def run(folder, **options):
    recipe = training.recipe("smoke", **(training.SCRATCH | dict(epochs=2, limit=2) | options))
    return training.train(recipe, folder, "cpu", progress=False)


def vector(trained):
    return torch.cat([v.double().flatten() for v in trained.module.state_dict().values()])


def rows(trained):
    with open(trained.fit.losses, newline="") as f:
        return list(csv.DictReader(f))


def test_training_repeats_itself_and_depends_on_the_seed(tmp_path):
    one, two, other = (run(tmp_path / n, seed=s) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert torch.equal(vector(one), vector(two)) and not torch.equal(vector(one), vector(other))


def test_every_parameter_learns(tmp_path):
    trained = run(tmp_path / "run", epochs=6)
    start = training.build(training.recipe("smoke", **training.SCRATCH, limit=2, epochs=6))
    still = {
        n
        for (n, p), q in zip(trained.module.named_parameters(), start.parameters(), strict=True)
        if torch.equal(p, q)
    }
    assert not still


def test_both_stages_are_logged_and_one_stage_has_no_reconstruction(tmp_path):
    two, one = (
        rows(run(tmp_path / "two", epochs=3)),
        rows(run(tmp_path / "one", epochs=3, stages="one")),
    )
    stage = lambda r: [bool(x.get("reconstruction loss")) for x in r]
    assert stage(two) == [True, False, False] and stage(one) == [False] * 3
    off = rows(
        run(tmp_path / "off", epochs=3, **training.ABLATIONS["w/o intensity and semantic loss"])
    )[0]
    assert float(off["reconstruction intensity"]) == float(off["reconstruction semantic"]) == 0


def test_each_part_is_clipped_alone_and_fusion_layers_wait(tmp_path, monkeypatch):
    calls = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters, limit):
        calls.append((len(parameters), limit))
        return clip(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    trained = run(tmp_path / "run")
    sizes = {k: len(list(m.parameters())) for k, m in training.parts_of(trained.module).items()}
    first = [(sizes[k], 0.01) for k in ("encoder", "decoder", "graph")]
    assert calls == first + [(n, 0.01) for n in sizes.values()]


def test_rates_halve_and_fusion_layers_start_afresh(tmp_path):
    recipe = training.recipe("paper")
    rates = [training.learning_rate(recipe, e) for e in range(120)]
    assert rates[0] == 1e-4 and rates[19] == 1e-4 and rates[20] == 5e-5 and rates[40] == 2.5e-5
    assert training.learning_rate(recipe, 500) == recipe.floor == 1e-6
    logged = rows(run(tmp_path / "run", epochs=6))
    assert [float(r["lr_encoder"]) for r in logged] == [2e-3 / 2**e for e in range(6)]
    assert [float(r["lr_base_fusion"]) for r in logged] == [2e-3, 2e-3] + [
        2e-3 / 2**e for e in range(4)
    ]


def test_dull_patches_are_drawn_again():
    """A picture of which one half is flat: with the filter, crops have contrast in both modalities."""
    pair = scene_dataset(1, size=(64, 128), seed=2)[0]
    pair.ir[..., 64:], pair.vi[..., 64:] = 0.5, 0.5
    contrast = training.recipe("paper").contrast
    assert contrast == 0.1
    spread = lambda c: min(
        1 - torch.quantile(v, 0.1) / torch.quantile(v, 0.9).clamp_min(1e-6) for v in c.values()
    )
    draw = lambda least: [
        spread(training.PairCrops([pair], 32, 0, contrast=least)(e, 0)) for e in range(24)
    ]
    assert min(draw(0.0)) < 0.1 <= sorted(draw(contrast))[1], (
        "eight draws may all be dull, but hardly twice"
    )


@pytest.mark.parametrize(
    "options",
    [
        dict(precision="bf16-mixed"),
        dict(intensity="features", **training.RELEASED),
        training.PRINTED,
    ],
)
def test_other_settings_train_without_nan(tmp_path, options):
    trained = run(tmp_path / "run", epochs=3, **options)
    assert vector(trained).isfinite().all()
    assert all(
        float(v) == float(v)
        for r in rows(trained)
        for k, v in r.items()
        if k.endswith("loss") and v
    )


def test_short_training_learns(tmp_path):
    """On two pairs that are no larger than a crop, so that every step sees the same."""
    pairs = [shrink(p, 32) for p in scene_dataset(2, size=(64, 64), seed=5)]
    recipe = training.recipe("smoke", **(training.SCRATCH | dict(epochs=24, lr=5e-3)))
    trained = training.train(recipe, tmp_path / "run", "cpu", progress=False, pairs=pairs)
    for stage in ("reconstruction", "fusion"):
        values = [float(v) for r in rows(trained) if (v := r[f"{stage} loss"])]
        assert sum(values[-3:]) < 0.9 * sum(values[:3]), stage


def test_medical_data_are_three_sets_in_a_row():
    pairs = training.training_pairs(training.medical(training.recipe("smoke", limit=1)))
    assert [p.id for p in pairs] == [f"{part.name} {part[0].id}" for part in pairs.parts] and len(pairs) == 3
    assert any(p.ir_cbcr is not None for p in pairs), "PET and SPECT come in colour"
    with pytest.raises(InputError, match="did you mean 'w/o GNN'"):
        training.ablation("w/o GN")


# ---- published pictures ------------------------------------------------------------------------------------------------


def test_metrics_of_the_official_pictures(oracles):
    """Means over the three fused pictures that the authors publish, by their own program."""
    from fusionrepro.imaging.color import luminance
    from fusionrepro.imaging.io import read_image
    from fusionrepro.imaging.post import quantise

    def grey(path):
        pixels = torch.from_numpy(read_image(path).pixels)
        return (
            pixels[None, None]
            if pixels.ndim == 2
            else quantise(luminance(pixels.permute(2, 0, 1)[None]))
        )[0]

    pictures = [
        [grey(oracles / folder / f"{i:02d}.png") for i in (1, 2, 3)]
        for folder in ("fused/smfnet", "sources/smfnet_tno/ir", "sources/smfnet_tno/vi")
    ]
    found = evaluate(
        *pictures, metrics=["EN", "SD", "SF", "MI", "VIF", "Qabf", "AG", "SSIM"], preset="smfnet"
    ).mean()
    wanted = dict(
        EN=7.2852,
        SD=46.8829,
        SF=15.2270,
        MI=1.9836,
        VIF=0.7528,
        Qabf=0.6150,
        AG=7.8775,
        SSIM=0.9918,
    )
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=2e-3), name
