"""DeRUN: the network against its formulas typed out, its options, its loss, its training; seconds on a CPU."""

import math

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from fusionrepro.derun import training
from fusionrepro.derun.energy import Energy
from fusionrepro.derun.losses import directions, fusion_terms, lgde, own_terms, slopes, steeper
from fusionrepro.derun.model import DeRUN
from fusionrepro.derun.solver import ADMM
from fusionrepro.errors import InputError
from fusionrepro.registry import METHODS


def scene(size=(24, 28), seed=0, n=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(n, 1, *size, generator=generator, dtype=dtype) for _ in range(2))


def shaken(seed=0, **options):
    """A network none of whose parameters still has its first value."""
    torch.manual_seed(seed)
    net = DeRUN(**options)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * p.abs().mean() * torch.randn_like(p)
    return net


def typed_out(net, u, v):
    """Eq. 6 to 12 as the notes print them, without anything that saves time."""
    m = u - v
    y, zero = m, torch.zeros(u.shape[0], net.width, *u.shape[-2:], dtype=u.dtype)
    e, f, h, g = zero, zero, zero, zero
    plus = lambda p: torch.log1p(torch.exp(p))

    for n, stage in enumerate(net.stages):
        ops = stage.operators

        def t(x, role, ops=ops):
            w, a, b = ops.weights(role)
            return F.conv2d(x, w, padding=1) + F.conv2d(
                F.relu(F.conv2d(x, a, padding=1)), b, padding=1
            )

        def tt(z, role, ops=ops):
            w, a, b = ops.weights(role)
            flip = lambda k: k.flip(-1, -2).transpose(0, 1)
            return F.conv2d(z, flip(w), padding=1) + F.conv2d(
                F.relu(F.conv2d(z, flip(b), padding=1)), flip(a), padding=1
            )

        rho, tau, rate = plus(stage.dfm.rho), plus(stage.dfm.tau), plus(stage.dfm.rate)
        y = y - rate * (
            (y - m) + tt(rho * (t(y, "l") - e + f), "lt") + tt(tau * (t(y - m, "k") - h + g), "kt")
        )
        if n == len(net.stages) - 1:
            break
        spm, vfm = stage.spm, stage.vfm
        a, b = t(y, "l"), t(y - m, "k")
        e = vfm.curve(a + f)
        f = f + plus(vfm.phi) * (a - e)
        mu, sigma, omega, kappa, nu = (
            plus(p) for p in (spm.mu, spm.sigma, spm.omega, spm.kappa, spm.nu)
        )
        potential = 2 * mu * 10 * h / (1 + 10 * h**2)
        h0 = h - sigma * (-tau * b + potential - tau * g + tau * h)
        aim = spm.eta[0] * h0 + spm.eta[1] * b + spm.eta[2] * t(tt(e, "lt") / net.width - m, "k")
        h = h - kappa * (potential + nu * (h - aim) - tau * (b - h + g))
        g = g + omega * (b - h)
    return y + v


@pytest.mark.parametrize(
    "options",
    [
        dict(stages=4),
        dict(stages=3, width=4, sharing="siamese"),
        dict(stages=3, sharing="symmetric"),
    ],
)
def test_network_is_its_formulas(options):
    net = shaken(**options).double()
    u, v = scene(dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(net(u, v), typed_out(net, u, v), atol=1e-12)
        plain = net.float()
        assert torch.allclose(
            plain(u.float(), v.float()), typed_out(plain.double(), u, v).float(), atol=1e-4
        )


def test_parameters_are_those_of_the_notes():
    count = lambda **o: sum(p.numel() for p in DeRUN(**o).parameters())
    idle = 859  # S, phi, sigma, kappa, nu, mu, omega and eta of the last stage reach no output
    assert count() == 16_308 - idle == 15_449
    assert count(width=16) == 42_948 - 1_715
    assert (
        count(sharing="symmetric")
        == count()
        > count(sharing="siamese")
        > count(texture=False, curve="linear")
    )
    assert count(one_stage=True) < count() / 8


def test_untrained_without_branch_and_constraints_it_is_the_solver():
    u, v = scene((20, 22), dtype=torch.float64)
    net = DeRUN(5, curve="soft", physical=False, denoising=False).double()
    with torch.no_grad():
        for stage in net.stages:
            stage.operators.second.zero_()
        solver = ADMM(Energy(lam=0.01, mu=0.02), iterations=5, inverse="step").double()
        solver.filters = net.stages[0].operators.own[0]
        assert torch.allclose(net(u, v), solver(u, v), atol=1e-6)
        assert (net(u, v) - u).abs().max() > 0.01


@pytest.mark.parametrize("name", training.ABLATIONS)
def test_every_weight_of_every_experiment_learns(name):
    recipe = training.ablation(name, **training.SCRATCH)
    net = training.build(recipe)
    u, v = scene(seed=3)
    fusion_terms(net(u, v), u, v, recipe.loss)["total"].backward()
    silent = [k for k, p in net.named_parameters() if p.grad is None or not p.grad.abs().max()]
    assert silent == (["stages.0.spm.mu"] if recipe.texture else []), (
        "the first stage's potential is flat at zero, nothing else is idle"
    )
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "options, present",
    [
        (dict(physical=False, denoising=False), dict(eta=0, kappa=0)),
        (dict(physical=False), dict(eta=2, kappa=8)),
        (dict(denoising=False), dict(eta=2, kappa=8)),
        ({}, dict(eta=3, kappa=8)),
    ],
)
def test_constraints_are_built_only_where_asked_for(options, present):
    spm = DeRUN(2, **options).stages[0].spm
    found = {k: getattr(spm, k).numel() if hasattr(spm, k) else 0 for k in present}
    assert found == present


def test_switches_change_the_picture():
    u, v = scene()
    torch.manual_seed(0)
    state = DeRUN(4, width=4).state_dict()

    def picture(**options):
        net = DeRUN(4, width=4, **options)
        net.load_state_dict(
            {
                k: state[k] if k in state and state[k].shape == p.shape else p
                for k, p in net.state_dict().items()
            },
            strict=False,
        )
        with torch.no_grad():
            return net(u, v)

    base = picture()
    switches = (
        dict(physical=False),
        dict(denoising=False),
        dict(texture=False),
        dict(curve="soft"),
        dict(inverse="scalar"),
        dict(inner=2),
        dict(theta=1.0),
        dict(go_on=True),
    )
    for options in switches:
        assert (picture(**options) - base).abs().max() > 1e-6, options


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (17, 33)])
def test_any_size_and_constant_pairs(size):
    net = shaken(stages=3).eval()
    u, v = (x.requires_grad_() for x in scene(size))
    fused = net(u, v)
    assert fused.shape == u.shape
    for g in torch.autograd.grad(fused.sum(), (u, v)):
        assert g.isfinite().all() and g.abs().max() > 0
    untrained = DeRUN(stages=3)
    for value in (0.0, 0.5, 1.0):
        flat = torch.full((1, 1, *size), value)
        with torch.no_grad():
            assert torch.allclose(
                untrained(flat, flat), flat, atol=1e-6
            )  # no residual, so nothing is added
            assert net(flat, flat).isfinite().all()


def test_pairs_of_a_batch_do_not_see_each_other():
    net = shaken(stages=3)
    u, v = scene(n=2)
    with torch.no_grad():
        assert torch.allclose(net(u, v)[1:], net(u[1:], v[1:]), atol=1e-6)


def test_half_precision_stays_finite_and_close():
    net = shaken(stages=9)
    u, v = scene()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = net(u, v)
    with torch.no_grad():
        assert half.isfinite().all() and (half.float() - net(u, v)).abs().max() < 0.1


@pytest.mark.parametrize("options, word", [(dict(sharing="none"), "sharing"), (dict(curve="hard"), "curve"), (dict(stages=0), "stages"), (dict(inner=0), "inner"),
                                           (dict(theta=-1.0), "theta"), (dict(width=6, sharing="symmetric"), "divisible by 4")])  # fmt: skip
def test_bad_options_are_named(options, word):
    with pytest.raises(InputError, match=word):
        DeRUN(**options)


def test_registry_builds_it_with_its_options():
    assert METHODS["derun"].build(stages=2, width=4).count == 2
    with pytest.raises(InputError, match="did you mean 'stages'"):
        METHODS["derun"].build(stage=2)


# ---- loss ---------------------------------------------------------------------------------------------------------------


def test_lgde_gradient_is_right():
    x, v = scene((7, 8), dtype=torch.float64)
    x[..., :3] = 0.4  # flat pixels among the others
    assert torch.autograd.gradcheck(
        lambda t: lgde(t, bins=4, sharpness=6.0),
        scene((5, 6), 1, dtype=torch.float64)[0].requires_grad_(),
    )
    x.requires_grad_()
    (grad,) = torch.autograd.grad(fusion_terms(x, v, v)["texture"], x)
    assert grad.isfinite().all()
    step = torch.zeros_like(x)
    step[0, 0, 3, 5] = 1e-6
    with torch.no_grad():
        loss = lambda t: fusion_terms(t, v, v)["texture"]
        slope = ((loss(x + step) - loss(x - step)) / 2e-6).item()
    assert slope == pytest.approx(grad[0, 0, 3, 5].item(), rel=1e-4, abs=1e-9)


def test_directions_turn_with_the_picture():
    x = scene((21, 21), dtype=torch.float64)[0]
    clockwise = lambda t: torch.rot90(t, -1, (-2, -1))
    turned, inside = (
        clockwise(x),
        (..., slice(3, -3), slice(3, -3)),
    )  # corners are flat, and flat is the first bin whichever way up
    assert torch.equal(
        clockwise(directions(x)).add(2)[inside] % 8, directions(turned)[inside]
    )  # right becomes down, two bins on
    assert torch.allclose(lgde(turned)[inside], clockwise(lgde(x))[inside], atol=1e-9)


def test_lgde_tells_a_faint_edge_from_noise():
    generator = torch.Generator().manual_seed(0)
    at = torch.arange(9.0) - 4
    edge = (
        0.5
        + 0.05 * torch.sigmoid(2 * at).expand(40, 1, 9, 9)
        + 0.01 * torch.randn(40, 1, 9, 9, generator=generator)
    )
    noise = 0.5 + 0.05 * torch.randn(40, 1, 9, 9, generator=generator)
    for sharpness in (10.0, None):
        a, b = (lgde(x, sharpness=sharpness)[..., 4, 4] for x in (edge, noise))
        assert (a < b.min()).float().mean() > 0.8
    assert lgde(noise).max() < math.log(8) + 1e-6


# ---- training -----------------------------------------------------------------------------------------------------------


def tiny(tmp_path, name, **changes):
    recipe = training.recipe("smoke", **(training.SCRATCH | dict(limit=2, epochs=2, crop=24, stages=2) | changes))
    return training.train(recipe, tmp_path / name, "cpu", progress=False)


def test_training_repeats_itself_and_depends_on_the_seed(tmp_path):
    a, b, c = tiny(tmp_path, "a"), tiny(tmp_path, "b"), tiny(tmp_path, "c", seed=1)
    weights = lambda t: torch.cat([p.detach().flatten() for p in t.module.parameters()])
    assert torch.equal(weights(a), weights(b)) and not torch.equal(weights(a), weights(c))
    assert not a.module.training and a.fit.steps == 2
    again = tiny(tmp_path, "a")
    assert again.fit.status == "loaded" and torch.equal(weights(again), weights(a))


def test_training_in_half_precision(tmp_path):
    assert all(
        p.isfinite().all()
        for p in tiny(tmp_path, "half", precision="bf16-mixed").module.parameters()
    )


def test_training_with_channels_last_gives_the_same_weights(tmp_path):
    plain, last = (
        tiny(tmp_path, name, channels_last=on) for name, on in (("plain", False), ("last", True))
    )
    pairs = zip(plain.module.parameters(), last.module.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


def test_tasks_join_their_data_sets(tmp_path):
    recipe = training.recipe("smoke", limit=1, **training.STAND_INS["medical"])
    pairs = training.training_pairs(recipe)
    assert len(pairs) == 2 and pairs[0].id != "" and pairs.fingerprint
    assert set(training.TASKS) == {"medical", "microscopy"} >= set(training.STAND_INS)


def test_full_recipes_are_the_paper():
    paper = training.recipe("paper")
    assert (paper.stages, paper.gamma, paper.epochs, paper.batch, paper.bins, paper.width) == (
        9,
        10.0,
        150,
        4,
        8,
        8,
    )
    assert sum(p.numel() for p in training.build(paper).parameters()) == 15_449


def test_what_the_printed_gamma_asks_for_on_real_pairs(data_root):
    from kornia.filters import gaussian_blur2d

    from fusionrepro.data.manifests import load_dataset
    from fusionrepro.derun.losses import fusion_terms

    def total(x, u, v, gamma):
        return fusion_terms(x, u, v, gamma=gamma)["total"].item()

    costs = {1: {"V": 0.0, "mixture": 0.0}, 10: {"V": 0.0, "mixture": 0.0}}
    for pair in load_dataset("tno", limit=4):
        u, v = (x[None, :, :200, :200] for x in (pair.ir, pair.vi))
        broad_u, broad_v = (gaussian_blur2d(x, (61, 61), (10.0, 10.0)) for x in (u, v))
        for gamma, found in costs.items():
            found["V"] += total(v, u, v, gamma)
            found["mixture"] += total(broad_u + v - broad_v, u, v, gamma)
    assert costs[10]["V"] < costs[10]["mixture"] and costs[1]["mixture"] < costs[1]["V"]


# ---- the loss of ours ---------------------------------------------------------------------------------------------------


def test_own_loss_is_its_definition_typed_out():
    x, u, v = (scene((9, 11), seed, dtype=torch.float64)[0] for seed in (1, 2, 3))
    gx, gu, gv = (torch.cat(slopes(t), 1) for t in (x, u, v))
    wanted = torch.zeros_like(gx)
    for i in range(9):
        for j in range(11):
            a, b = gu[0, :, i, j], gv[0, :, i, j]
            wanted[0, :, i, j] = a if a.norm() >= b.norm() else b
    terms = own_terms(x, u, v, edges=3.0)
    assert torch.equal(steeper(u, v), wanted)
    assert terms["total"].item() == pytest.approx(
        (x - torch.maximum(u, v)).abs().mean().item() + 3 * (gx - wanted).abs().mean().item()
    )


def test_own_loss_sees_contrast_and_sign_where_the_paper_s_texture_term_is_blind_to_contrast():
    v = scene((16, 16), 4, dtype=torch.float64)[0]
    dark, faint = torch.zeros_like(v), 0.5 * v
    assert fusion_terms(faint, dark, v)["texture"] < 1e-6 < own_terms(faint, dark, v)["texture"]
    negative = own_terms(1 - v, dark, v)["texture"]
    assert negative.item() == pytest.approx(2 * torch.cat(slopes(v), 1).abs().mean().item())


def test_recipe_says_whose_loss_it_is(tmp_path):
    objectives = {name: training.recipe(name).objective for name in training.PROFILES}
    assert objectives == {"smoke": "ours", "laptop": "ours", "gpu": "paper", "paper": "paper"}, "what is compared has Eq. 14"
    u, v = scene()
    x = 0.5 * (u + v)
    paper, ours = training.recipe("paper"), training.recipe("paper", objective="ours", edges=2.0)
    assert training.terms_of(paper, x, u, v)["total"] == fusion_terms(x, u, v)["total"]
    assert training.terms_of(ours, x, u, v)["total"] == own_terms(x, u, v, 2.0)["total"]
    assert paper.hash != ours.hash
    with pytest.raises(InputError, match="one of 'paper', 'ours'"):
        training.recipe("smoke", objective="mine")
    trained = [tiny(tmp_path, name, objective=name) for name in ("paper", "ours")]
    weights = [torch.cat([p.flatten() for p in t.module.parameters()]) for t in trained]
    assert not torch.equal(*weights)


def test_table_3d_without_texture_is_not_what_the_paper_prints(data_root):
    from fusionrepro.data.manifests import load_dataset
    from fusionrepro.metrics import evaluate
    from fusionrepro.reproduction.ledger import paper_values

    printed = {
        c.column: c.number for c in paper_values("derun")["table3"] if c.row == "(d) w/o L_lgde"
    }
    found = []
    for pair in load_dataset("m3fd", limit=4):
        u, v = pair.ir[None], pair.vi[None]
        assert fusion_terms(u, u, v, kind="none")["total"] == 0  # X = U
        assert evaluate(u, u, v, metrics=["PSNR"], preset="derun")["PSNR"].item() == math.inf
        found.append(evaluate((u + v) / 2, u, v, metrics=["PSNR"], preset="derun")["PSNR"].item())
    assert abs(sum(found) / len(found) - printed["PSNR"]) < 2.5  # dB, of other pairs of the set


# ---- what may be compared with the paper's tables ----------------------------------------------------------------------


def _compared(table="table1", data="llvip", n=3463, row="DeRUN", column="SSIM", value=0.75, pairs=90, preset="derun", facts=None, **changes):
    """The verdict on one cell of a row that was trained as published, but for `changes` of the recipe."""
    from fusionrepro.gallery.provenance import trained_here
    from fusionrepro.metrics.evaluate import METRICS
    from fusionrepro.reproduction import compare, ledger
    from fusionrepro.reproduction.run import _guesses, paper_recipe

    paper, published = ledger.paper("derun"), paper_recipe("derun", "paper")
    provenance = trained_here(published.override(**changes), published, pairs, paper.training["pairs"])
    about = {"post": "clip", "rounding": "round", "own post": "yes", "size": "own size"} | (facts or {})
    frame = pd.DataFrame([{"method": row, column: value, "provenance": provenance, "facts": about}])
    cells = compare.long_form(frame, "method", data, n)
    assert column in METRICS
    conditions = compare.Conditions("paper", {"preset": preset}, "ours", {}, _guesses(preset, [column]))
    return compare.items(paper, paper.artifact(table), cells, conditions)[0]


@pytest.mark.parametrize(
    "cell",
    [
        dict(),
        dict(data="m3fd", n=4200, value=0.81),
        dict(table="table2", data="mri_pet", n=200, value=0.81),
        dict(table="table3", data="m3fd", n=4200, row="(a) PM+DL", value=0.81),
    ],
)
def test_a_network_trained_and_tested_as_published_is_compared(cell):
    found = _compared(**cell)
    assert found["reasons"] == [] and found["paper"] is not None
    # The formula of SSIM was chosen because it fits: being equal proves nothing.
    assert found["verdict"] == "close" and "inferred from magnitudes" in found["why"]
    assert _compared(**cell | {"value": 0.2})["verdict"] == "differs"


def test_a_formula_that_is_known_can_match():
    assert _compared(column="AG", value=6.98)["verdict"] == "match"


@pytest.mark.parametrize(
    "changes, why",
    [
        (dict(pairs=12), "pairs 12 instead of 90"),
        (dict(epochs=1), "epochs 4 instead of 600"),
        (dict(gamma=1.0), "gamma 1.0 instead of 10.0"),
        (dict(objective="ours"), "objective ours instead of paper"),
        (dict(n=12), "12 pairs instead of 3463"),
        (dict(facts={"post": "minmax"}), "post minmax instead of clip"),
        (dict(preset="default"), "preset default instead of derun"),
        (dict(data="msrs", n=361), "msrs instead of TNO or M3FD or LLVIP"),
        (dict(data="tno", n=100, value=0.79), "no list is published"),
        (dict(facts={"size": "longer side 96"}), "longer side 96"),
        (dict(column="VIF", value=1.58), "no variant of the metric"),
    ],
)
def test_what_is_other_than_published_is_not_compared_and_says_why(changes, why):
    found = _compared(**changes)
    assert found["verdict"] == "not comparable" and why in found["why"]
    assert len(found["reasons"]) == 1, "one shortfall, one reason"


def test_a_row_has_the_training_that_the_paper_gives_it(tmp_path):
    from fusionrepro.reproduction.run import start_run

    run = start_run("derun", "smoke", out_dir=str(tmp_path))
    recipe = run.recipe.override(data="phantoms_mri_pet:train+phantoms_mri_spect", split="test", limit=2)
    assert len(run.training(recipe)) == 4 and {"phantom_mri_pet/train", "phantom_mri_spect/test"} <= set(run._record["data"])
    network = DeRUN(stages=1, width=2)
    own = lambda **about: run.own("x", network, recipe, **about).provenance.shortfalls
    assert any(s.startswith("data phantoms_mri_pet:train+phantoms_mri_spect instead of tno") for s in own())
    assert "pairs 4 instead of 90" in own()
    medical = own(experiment={"data": None}, published={"pairs": 144})
    assert "pairs 4 instead of 144" in medical and not any(s.startswith("data ") for s in medical)
