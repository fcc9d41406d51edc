"""MSFAM: the same functions as its equations written down, its sizes, its switches, its three fits; seconds on a CPU."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from fusionrepro.baselines.nestfuse import NestFuse, read_authors
from fusionrepro.data.scenes import scene_dataset
from fusionrepro.errors import CheckpointError, InputError
from fusionrepro.gallery.provenance import Provenance, trained_here
from fusionrepro.imaging.io import write_image
from fusionrepro.metrics import structure
from fusionrepro.msfam import training
from fusionrepro.msfam.constraint import SIMPLE, ConstraintNet, labelled
from fusionrepro.msfam.losses import constraint_loss, edge_shares, intensity_loss, ms_ssim, pull_push_loss, pull_push_weights
from fusionrepro.msfam.model import KERNELS, MSFAM, AttentionFusion, gmac
from fusionrepro.msfam.samples import Kinds, Part, Singles, held_out, ninety_ten
from fusionrepro.registry import method
from fusionrepro.reproduction import compare, ledger
from fusionrepro.reproduction.run import _guesses, published_recipe
from fusionrepro.training import store
from fusionrepro.training.crops import PairCrops

DOUBLE = torch.float64


def noise(size=(32, 40), seed=0, n=1, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(n, 1, *size, generator=generator, dtype=dtype) for _ in range(2))


# ---- the network, written down once more with nothing but functions -----------------------------------------------------


def conv(s, name, x):
    """A convolution from a state dict; 3x3 and 5x5 reflect the border, all others fit as they are."""
    w, k = s[f"{name}.weight"], s[f"{name}.weight"].shape[-1] // 2
    return F.conv2d(F.pad(x, (k,) * 4, mode="reflect") if k else x, w, s.get(f"{name}.bias"))


def hin(s, name, x):
    """A half-normalised block with its shortcut."""
    a, b = conv(s, f"{name}.first", x).chunk(2, 1)
    a = (a - a.mean((2, 3), keepdim=True)) / (a.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    a = a * s[f"{name}.norm.weight"].view(1, -1, 1, 1) + s[f"{name}.norm.bias"].view(1, -1, 1, 1)
    h = F.leaky_relu(conv(s, f"{name}.second", F.leaky_relu(torch.cat([a, b], 1), 0.2)), 0.2)
    return h + conv(s, f"{name}.shortcut", x)


def attention(s, name, vi, ir, kernel):
    """Eq. 3 to 7."""
    both = torch.cat([vi, ir], 1)
    gate = lambda c, pooled: torch.sigmoid(conv(s, f"{name}.{c}", pooled))
    x = gate("top", both.amax((2, 3), keepdim=True)) * conv(s, f"{name}.top", both)
    x = x + gate("average", both.mean((2, 3), keepdim=True)) * conv(s, f"{name}.average", both)
    pools = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
    return x * torch.sigmoid(F.conv2d(F.pad(pools, (kernel // 2,) * 4, mode="reflect"), s[f"{name}.place.weight"]))


def literal(s, ir, vi):
    """The default network on sides that are multiples of 8."""

    def encode(x):
        maps, x = [], F.relu(conv(s, "encoder.first", x))
        for i in range(4):
            maps.append(x := hin(s, f"encoder.blocks.{i}", F.max_pool2d(x, 2) if i else x))
        return maps

    def node(name, *maps):
        *beside, below = maps
        x = torch.cat([*beside, below.repeat_interleave(2, 2).repeat_interleave(2, 3)], 1)
        return F.relu(conv(s, f"decoder.nodes.{name}.mix", F.relu(conv(s, f"decoder.nodes.{name}.look", x))))

    f1, f2, f3, f4 = (attention(s, f"fusions.{i}", v, r, KERNELS[i]) for i, (v, r) in enumerate(zip(encode(vi), encode(ir), strict=True)))
    x11, x21, x31 = node("x11", f1, f2), node("x21", f2, f3), node("x31", f3, f4)
    x12, x22 = node("x12", f1, x11, x21), node("x22", f2, x21, x31)
    return conv(s, "decoder.head", node("x13", f1, x11, x12, x22))


@pytest.mark.parametrize("size", [(16, 16), (40, 72)])
def test_network_is_its_equations_with_and_without_gradients(size):
    torch.manual_seed(1)
    model = MSFAM(16).double().eval()
    for p in model.parameters():
        p.data.add_(0.02 * torch.randn_like(p))  # normalisation weights away from 1 and 0
    ir, vi = noise(size, n=2)
    expected = literal(model.state_dict(), ir, vi)
    assert expected.std() > 1e-3
    assert torch.allclose(model(ir, vi), expected, atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(model(ir, vi), expected, atol=1e-12), "the path without gradients"
    assert not torch.allclose(model(vi, ir), expected, atol=1e-3), "the order of the sources matters"


@pytest.mark.parametrize("size", [(1, 1), (17, 23), (33, 50)])
def test_any_size_and_finite_gradients(size):
    model = MSFAM(8).double().eval()
    ir, vi = (x.requires_grad_() for x in noise(size))
    fused = model(ir, vi)
    assert fused.shape == ir.shape
    assert all(g.isfinite().all() for g in torch.autograd.grad(fused.sum(), (ir, vi)))
    with torch.no_grad():
        assert torch.allclose(model(ir, vi), fused, atol=1e-12)
        constant = torch.full_like(ir, 0.5)
        assert model(constant, constant).isfinite().all()


def test_sizes_of_table_6():
    count = lambda model: sum(p.numel() for p in model.parameters())
    assert count(MSFAM()) == 3_832_609 and round(gmac(MSFAM()), 1) == 107.1
    fitted = MSFAM(block="fitted")
    assert round(count(fitted) / 1e6, 1) == 3.8 and round(gmac(fitted)) == 106, "as printed"
    assert count(NestFuse()) == 2_732_761 and round(gmac(NestFuse())) == 95, "as printed"
    assert count(ConstraintNet()) == 388_354 and count(ConstraintNet(norm="batch")) == 389_250
    assert gmac(MSFAM(), literal=False) < gmac(MSFAM()), "folding saves work"
    assert next(fitted.parameters()).device.type == "cpu", "counting leaves the model alone"


@pytest.mark.parametrize("option", [dict(block="fitted"), dict(block="textbook"), dict(block="light"), dict(decoder="hin"), dict(fusion="conv"), dict(fusion="rule")])
def test_switches_change_their_part_alone(option):
    count = lambda module: sum(p.numel() for p in module.parameters())
    base, other = MSFAM(8), MSFAM(8, **option)
    part = {"block": "encoder", "decoder": "decoder", "fusion": "fusions"}[next(iter(option))]
    for name in ("encoder", "fusions", "decoder"):
        assert (count(getattr(base, name)) == count(getattr(other, name))) == (name != part)
    assert (count(other.fusions) == 0) == (option.get("fusion") == "rule")


def test_relu_head_and_unknown_options():
    model = MSFAM(8, head="relu").eval()
    model.decoder.head.bias.data.fill_(-10)
    assert model(*noise(dtype=torch.float32)).max() == 0
    with pytest.raises(InputError, match="did you mean 'shortcut'"):
        MSFAM(8, block="shortcat")
    with pytest.raises(InputError, match="multiple of 8"):
        MSFAM(12)


def test_low_precision_stays_finite():
    model, (ir, vi) = MSFAM(8), noise((48, 48), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused = model(ir, vi)
        loss = intensity_loss(fused, ir, vi) + pull_push_loss(fused, ir, vi, attached=True) + constraint_loss(ConstraintNet(8)(fused))
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters())


def test_attention_shows_where():
    block = AttentionFusion(4, 3).double()
    vi, ir = torch.randn(2, 1, 4, 9, 7, dtype=DOUBLE)
    mixed = block.channel(vi, ir)
    assert torch.allclose(block(vi, ir), mixed * block.where(mixed)) and 0 < block.where(mixed).min() < block.where(mixed).max() < 1


# ---- NestFuse -----------------------------------------------------------------------------------------------------------


def public_names() -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the public checkpoint."""
    widths = (64, 112, 160, 208)
    layers = {"conv0": (16, 1, 1), "conv_out": (1, 64, 1)}
    cin = {f"DB{i + 1}_0": [16, *widths][i] for i in range(4)}
    cin |= {f"DB{i}_{j}": j * widths[i - 1] + widths[i] for i, j in ((1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 3))}
    for name, c in cin.items():
        layers |= {f"{name}.denseblock.0": (c // 2, c, 3), f"{name}.denseblock.1": (widths[int(name[2]) - 1], c // 2, 1)}
    return [(f"{n}.conv2d.{part}", (a, b, k, k) if part == "weight" else (a,)) for n, (a, b, k) in layers.items() for part in ("weight", "bias")]


def test_every_public_tensor_of_nestfuse_reaches_one_of_ours():
    state = {name: torch.rand(shape) for name, shape in public_names()}
    base, ours = read_authors(state), NestFuse().state_dict()
    assert len(state) == 44 and {k: v.shape for k, v in base.items()} == {k: v.shape for k, v in ours.items()}
    for name in state:
        changed = read_authors(state | {name: state[name] + 1})
        assert sum(not torch.equal(base[k], changed[k]) for k in base) == 1
    assert read_authors({f"module.{k}": v for k, v in state.items()}).keys() == base.keys()
    with pytest.raises(CheckpointError, match="no tensor of the public NestFuse"):
        read_authors(state | {"conv2_out.conv2d.weight": torch.zeros(1)})


def test_nestfuse_forgets_who_is_who():
    """Its rule is symmetric: what the learned blocks of MSFAM add is to tell the sources apart."""
    model, (ir, vi) = NestFuse(8).double().eval(), noise()
    assert torch.allclose(model(ir, vi), model(vi, ir)) and model(ir, vi).min() >= 0
    learned = MSFAM(8).double().eval()
    assert not torch.allclose(learned(ir, vi), learned(vi, ir), atol=1e-3)


# ---- losses -------------------------------------------------------------------------------------------------------------


def shares_by_hand(fused, ir, vi):
    """Algorithm 1 and the first half of Algorithm 2, pixel by pixel."""

    def edge(x):
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")[0, 0]
        h, w = x.shape[0] - 2, x.shape[1] - 2
        at = lambda i, j: x[i : i + h, j : j + w]
        sx = (at(0, 2) + 2 * at(1, 2) + at(2, 2)) - (at(0, 0) + 2 * at(1, 0) + at(2, 0))
        sy = (at(2, 0) + 2 * at(2, 1) + at(2, 2)) - (at(0, 0) + 2 * at(0, 1) + at(0, 2))
        return (sx**2 + sy**2).sqrt(), torch.atan(sy / sx)

    (gf, af), edges = edge(fused), [edge(vi), edge(ir)]
    total = sum(g for g, _ in edges).sum()
    found = []
    for g, a in edges:
        strength = torch.where(g < gf, g / gf, gf / g)
        aligned = ((a - af).abs() - math.pi / 2).abs() / (math.pi / 2)
        q = 0.9994 / (1 + torch.exp(-15 * (strength - 0.5))) * 0.9879 / (1 + torch.exp(-22 * (aligned - 0.8)))
        found.append((q * g).sum() / total)
    return found


def test_pull_push_is_its_algorithm():
    scene = scene_dataset(1, size=(64, 80), seed=3)[0]
    generator = torch.Generator().manual_seed(0)
    ir, vi = (x[None].double() + 0.01 * torch.rand(x[None].shape, generator=generator, dtype=DOUBLE) for x in (scene.ir, scene.vi))
    fused = (0.7 * vi + 0.3 * ir).requires_grad_()
    by_hand = shares_by_hand(fused.detach(), ir, vi)
    for ours, theirs in zip(edge_shares(fused, ir, vi), by_hand, strict=True):
        assert abs(ours.item() - theirs.item()) < 1e-5
    q = by_hand[0] / sum(by_hand)
    alpha = (q.exp() / (q.exp() + (1 - q).exp())).item()
    assert abs(pull_push_weights(fused, ir, vi).item() - alpha) < 1e-5
    assert abs(pull_push_weights(fused, ir, vi, "swapped").item() - (1 - alpha)) < 1e-5
    loss = alpha * (1 - ms_ssim(fused, vi)) + (1 - alpha) * (1 - ms_ssim(fused, ir))
    assert abs(pull_push_loss(fused, ir, vi).item() - loss.item()) < 1e-6
    slope = lambda **o: torch.autograd.grad(pull_push_loss(fused, ir, vi, **o), fused)[0]
    assert torch.allclose(slope(), torch.autograd.grad(loss.sum(), fused)[0], atol=1e-8), "the weights are constants"
    assert not torch.allclose(slope(attached=True), slope(), atol=1e-8)


def test_five_scales_are_the_metric():
    scene = scene_dataset(1, size=(176, 180), seed=5)[0]
    ir, vi = scene.ir[None].double(), scene.vi[None].double()
    mixed = 0.5 * ir + 0.5 * vi
    assert abs(ms_ssim(mixed, vi).item() - structure.ms_ssim_of(255 * mixed, 255 * vi, 255.0).item()) < 1e-8


def test_losses_survive_flat_and_equal_pictures():
    flat = torch.full((1, 1, 32, 32), 0.4, requires_grad=True)
    ir, vi = noise((32, 32), dtype=torch.float32)
    for sources in ((flat.detach(), flat.detach()), (ir, vi), (torch.zeros_like(ir), torch.ones_like(ir))):
        for option in (dict(), dict(attached=True), dict(angle="printed"), dict(direction="equal")):
            loss = pull_push_loss(flat, *sources, **option) + intensity_loss(flat, *sources)
            assert loss.isfinite() and torch.autograd.grad(loss, flat)[0].isfinite().all()
    assert pull_push_loss(flat, flat.detach(), flat.detach()).abs() < 1e-5


def test_judge_is_pleased_by_confidence_in_both():
    sure, unsure = torch.tensor([[4.0, 4.0]]), torch.tensor([[4.0, -1.0]])
    assert constraint_loss(sure) < constraint_loss(unsure)
    assert abs(constraint_loss(unsure).item() + 0.5 * sum(math.log(1 / (1 + math.exp(-v))) for v in (4.0, -1.0))) < 1e-6


# ---- samples ------------------------------------------------------------------------------------------------------------


def test_samples_are_balanced_and_held_out_pairs_stay_out():
    pairs = scene_dataset(4, size=(48, 56), seed=1)
    learn, held = held_out(20, 0.1, seed=3)
    assert sorted(learn + held) == list(range(20)) and len(held) == 2 and held_out(20, 0.1, 3)[1] == held != held_out(20, 0.1, 4)[1]
    kinds = Kinds(PairCrops(pairs, 32, 0, repeat=3), 4, 0)
    drawn = [int(kinds(e, i)["kind"]) for e in range(8) for i in range(len(kinds))]
    assert [sum(k == kind for k in drawn) for kind in (0, 1)] == [32, 32] and set(drawn) == set(range(6))
    crops = PairCrops(pairs, 32, 0, repeat=2)
    singles = Singles(crops)
    assert torch.equal(singles(0, 1)["image"], crops(0, 1)["vi"]) and torch.equal(singles(0, 5)["image"], crops(0, 5)["ir"])
    assert Part(pairs, [2], (24, 40))[0].size == (24, 40) and Part(pairs, [2])[0].id == pairs[2].id
    ir, vi = noise((24, 24), n=3)
    pictures, labels = labelled(ir, vi, torch.tensor([0, 1, 2]), list(SIMPLE.values()))
    assert labels.tolist() == [[1, 0], [0, 1], [1, 1]] and torch.allclose(pictures[2], (ir[2] + vi[2]) / 2)


# ---- training -----------------------------------------------------------------------------------------------------------

TINY = training.SCRATCH | dict(crop=32, one_epochs=1, judge_epochs=1, epochs=2, limit=4, one_limit=2)


def fitted(root, stop_after=None, **options):
    recipe = training.recipe("smoke", **(TINY | options))
    return training.train(recipe, recipe.folder(root), "cpu", progress=False, **({"stop_after": stop_after} if stop_after else {}))


def test_three_fits_are_deterministic_and_resume(tmp_path):
    first = fitted(tmp_path / "a")
    fitted(tmp_path / "b", stop_after=1)
    second = fitted(tmp_path / "b")
    assert (first.fit.steps, second.fit.steps) == (2, 2) and first.held == second.held and len(first.held) == 1
    assert store.weights_sha256(first.module) == store.weights_sha256(second.module)
    assert not first.module.training and not any(p.requires_grad for p in first.judge.parameters())
    folders = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert folders == ["msfam", "msfam-first", "msfam-judge"]
    assert store.weights_sha256(fitted(tmp_path / "c", seed=1).module) != store.weights_sha256(first.module)


def test_fusion_stage_moves_what_it_should(tmp_path):
    recipe = training.recipe("smoke", **TINY)
    model = training.build(recipe, "attention")
    training.groups(recipe, model)
    step = training.Fusing(recipe, model, ConstraintNet(8).eval().requires_grad_(False), None, None)
    ir, vi = noise((48, 48), n=2, dtype=torch.float32)
    losses = step.losses(ir, vi)
    assert set(losses) == {"intensity", "structure", "judged"}
    sum(losses.values()).backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    still = [n for part in ("fusions", "decoder") for n, p in getattr(model, part).named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not still, "parameters without a gradient"


def test_experiments_do_what_their_names_say(tmp_path):
    run = lambda name: fitted(tmp_path, **training.ABLATIONS[name])
    rec, scratch, conv5, whole, nest = (run(n) for n in ("Rec", "Fusion", "w/o attention", "P and C", "NestFuse"))
    same = lambda a, b: all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert same(whole.module.encoder, rec.module.encoder) and not same(scratch.module.encoder, rec.module.encoder)
    assert not same(whole.module.decoder, rec.module.decoder)
    assert rec.judge is None and scratch.judge is None and whole.judge is not None
    assert sum(p.numel() for p in rec.module.fusions.parameters()) == 0 and type(conv5.module.fusions[0]).__name__ == "PlainFusion"
    baseline = NestFuse(8)
    for part in ("encoder", "decoder"):
        getattr(baseline, part).load_state_dict(getattr(nest.module, part).state_dict())
    ir, vi = noise(dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(baseline(ir, vi), nest.module(ir, vi).clamp(min=0), atol=1e-6)
    assert len(list((tmp_path / "msfam-first").iterdir())) == 2, "one first stage for MSFAM, one for NestFuse"
    assert len(list((tmp_path / "msfam-judge").iterdir())) == 1
    with pytest.raises(InputError, match="did you mean 'swapped'"):
        training.ablation("swaped")


def test_first_stage_learns_to_give_a_picture_back(tmp_path):
    trained = fitted(tmp_path, stages="reconstruction", one_epochs=30)
    lines = trained.fit.losses.read_text().splitlines()
    values = [float(line.split(",")[lines[0].split(",").index("rebuilt")]) for line in lines[1:]]
    assert sum(values[-6:]) < 0.75 * sum(values[:6])


def test_published_network_is_built_from_its_card(tmp_path):
    recipe = training.recipe("smoke", fusion="conv", width=16)
    row = method("msfam")
    options = {name: getattr(recipe, name) for name in row.options if hasattr(recipe, name)}
    assert options == dict(width=16, block="shortcut", decoder="light", fusion="conv", head="linear", start="sources")
    model = row.build(**options).eval()
    path = store.publish("msfam", model, dict(options=options), tmp_path)
    ir, vi = noise(dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(store.load("msfam", path)(ir, vi), model(ir, vi), atol=1e-2)


def test_what_the_printed_weights_ask_for_on_real_pairs(data_root):
    from fusionrepro.data.manifests import load_dataset

    costs = dict.fromkeys([(d, name) for d in ("literal", "swapped") for name in ("ir", "vi", "mean")], 0.0)
    for pair in load_dataset("tno", limit=6):
        ir, vi = (x[None, :, :240, :240] for x in (pair.ir, pair.vi))
        for direction, name in costs:
            fused = {"ir": ir, "vi": vi, "mean": (ir + vi) / 2}[name]
            costs[direction, name] += pull_push_loss(fused, ir, vi, direction).item()
    assert min(costs["literal", "ir"], costs["literal", "vi"]) < costs["literal", "mean"]
    assert costs["swapped", "mean"] < min(costs["swapped", "ir"], costs["swapped", "vi"])


def test_first_stage_takes_pictures_without_partners(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("visible", 3), ("infrared", 5)):
        (tmp_path / "flir" / name).mkdir(parents=True)
        for i in range(count):
            write_image(tmp_path / "flir" / name / f"{i}.png", rng.random((40, 48)))
    done = fitted(tmp_path / "runs", stages="reconstruction", one_data=str(tmp_path / "flir"), one_limit=0)
    assert done.fit.steps == 4, "eight pictures, two a step"


def test_the_draw_keeps_tests_out_of_the_training(tmp_path):
    drawn = training.recipe("smoke", **(TINY | {"split": "90/10", "limit": 12}))
    pairs = training.training_pairs(training.undrawn(drawn))
    learn, tests = ninety_ten(pairs, drawn.seed)
    assert training.fusion_pairs(drawn).ids == learn.ids and len(tests) == 2 and not set(learn.ids) & set(tests.ids)
    assert ninety_ten(pairs, 1)[1].ids != tests.ids
    whole = training.undrawn(training.recipe("paper", **training.PUBLISHED))
    assert (whole.data, whole.split) == ("tno+roadscene", "all")
    assert drawn.hash != drawn.override(split="train").hash


# ---- beside the paper ---------------------------------------------------------------------------------------------------


def provenance(pairs=246, **changes):
    """Of a network that was trained as the paper says, but for `changes`."""
    published = published_recipe("msfam")
    return trained_here(published.override(**changes), published, pairs, 246)


def beside(table="table6", row="MSFAM (Ours)", column="EN", value=7.0924, data="tno + roadscene", n=27, of=None, profile="paper", **facts):
    """The verdict on one cell of a table that was made under the paper's conditions, but for what is given."""
    paper = ledger.paper("msfam")
    artifact = paper.artifact(table)
    line = {"row": row, column: value, "n": n, "data": data, "provenance": of or provenance(), "facts": facts}
    made_with = {"preset": "msfam", "post": "minmax", "split": "90/10"}
    conditions = compare.Conditions(profile, made_with, guesses=_guesses("msfam", [column], artifact.formulas))
    return compare.items(paper, artifact, compare.long_form(pd.DataFrame([line]), "row", "", None), conditions)[0]


def test_under_the_papers_conditions_cells_are_compared():
    found = beside()
    assert found["verdict"] == "match" and found["why"].endswith("27 pairs of our draw, as the paper's list is not published")
    assert beside(value=7.5)["verdict"] == "close" and beside(value=9.0)["verdict"] == "differs"
    assert beside("table1", "Rec", "SCD", 1.83, of=provenance(stages="both"))["verdict"] == "match"
    rival = beside(row="DenseFuse", value=7.0172, of=Provenance("published", "published weights"), post="clip", **{"own post": "yes"})
    assert rival["verdict"] == "match", "rivals are saved as their own programs save them, in every profile"
    guessed = beside(column="MSSIM", value=0.5446, profile="laptop")
    assert guessed["verdict"] == "close" and "inferred" in guessed["why"], "a formula chosen by magnitudes proves nothing by fitting"


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"of": provenance(12)}, "pairs 12 instead of 246"),
        ({"of": provenance(epochs=1)}, "epochs 1 instead of 20"),
        ({"of": provenance(one_data="msrs")}, "one data msrs instead of flir"),
        ({"of": provenance(direction="swapped")}, "direction swapped instead of literal"),
        ({"post": "clip"}, "post clip instead of minmax"),
        ({"data": "msrs"}, "msrs instead of TNO and RoadScene"),
        ({"n": 75, "split": "test"}, "the list of the 27 test pairs is not published"),
        ({"n": 26}, "26 pairs instead of 27"),
        ({"column": "MI"}, "carry no information about the method"),
    ],
)
def test_under_other_conditions_they_are_not(changes, why):
    found = beside(**changes)
    assert found["verdict"] == "not comparable" and why in found["why"]


def test_costs_need_no_test_pairs():
    narrow = dict(of=provenance(12, width=16), data="scenes", n=2, profile="smoke")
    assert beside(column="Params", value=3.83, **narrow)["why"] == "width 16 instead of 64"
    at_full_width = beside(column="Params", value=3.83, **narrow, **{"counted at": "published width"})
    assert at_full_width["verdict"] == "match" and at_full_width["paper"] == 3.8 and "draw" not in at_full_width["why"]
    assert beside(column="EN", **narrow)["paper"] is None, "scores on other pairs stand beside no printed number"
