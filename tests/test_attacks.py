"""FGSM and PGD: bounds, traces, memory, reproducibility, refusals."""

import weakref

import pytest
import torch
from torch import nn

from fusionrepro.attacks.gradient import OBJECTIVES, away_from_clean, fgsm, mse_to, objective_for, pgd
from fusionrepro.errors import InputError
from fusionrepro.nn.fusion import FusionModel


class Toy(FusionModel):
    name = "toy"

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.Tanh(), nn.Dropout(0.5), nn.Conv2d(8, 1, 3, padding=1))
        self.last, self.alive_before, self.calls = None, [], 0

    def fuse(self, ir, vi):
        self.calls += 1
        self.alive_before.append(self.last is not None and self.last() is not None)
        hidden = self.net(torch.cat([ir, vi], 1))
        self.last = weakref.ref(hidden)
        w = torch.sigmoid(4 * hidden)
        return w * ir + (1 - w) * vi


@pytest.fixture
def toy():
    torch.manual_seed(0)
    return Toy()


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(1)
    return torch.rand(3, 1, 19, 26, generator=g), torch.rand(3, 1, 19, 26, generator=g)


def length(x):
    return x.flatten(1).norm(dim=1)


@pytest.mark.parametrize("start", ["zero", "uniform", 3e-4])
@pytest.mark.parametrize("norm, eps, alpha", [("linf", 4 / 255, 1 / 255), ("linf", 0.3, 0.1), ("l2", 0.4, 0.1)])
def test_perturbations_stay_in_the_ball_and_images_in_range(toy, pair, start, norm, eps, alpha):
    for adv, clean in zip(pgd(toy, *pair, mse_to(pair[0]), eps=eps, alpha=alpha, steps=8, norm=norm, start=start), pair, strict=True):
        size = (adv - clean).abs().amax() if norm == "linf" else length(adv - clean).max()
        assert 0.3 * eps < size <= eps * (1 + 1e-5) + 1e-7
        assert adv.min() >= 0 and adv.max() <= 1 and not adv.requires_grad


def test_the_objective_rises_with_every_step(toy, pair):
    toy.eval()
    objective = mse_to(torch.maximum(*pair))
    values = []
    for steps in range(6):
        adv = pgd(toy, *pair, objective, eps=0.2, alpha=0.002, steps=steps)
        values.append(objective(toy(*adv), *adv).item())
    assert all(b > a for a, b in zip(values, values[1:], strict=False))


def test_the_objective_is_driven_up_exactly_for_a_linear_model(pair):
    class Mean(FusionModel):
        def fuse(self, ir, vi):
            return 0.25 * ir + 0.75 * vi

    ir, vi = (0.2 + 0.6 * x for x in pair)
    ir_adv, vi_adv = pgd(Mean(), ir, vi, lambda fused, a, b: fused.sum(), eps=0.05, alpha=0.02, steps=3)
    assert torch.allclose(ir_adv, ir + 0.05, atol=1e-6) and torch.allclose(vi_adv, vi + 0.05, atol=1e-6)
    ir_adv, _ = pgd(Mean(), ir, vi, lambda fused, a, b: fused.sum(), eps=0.5, alpha=1.0, steps=2, norm="l2")
    assert torch.allclose(ir_adv - ir, torch.full_like(ir, 0.5 / ir[0].numel() ** 0.5), atol=1e-6)


@pytest.mark.parametrize("norm, eps", [("linf", 0.03), ("l2", 0.7)])
def test_fgsm_is_one_step_of_pgd(toy, pair, norm, eps):
    objective = mse_to(pair[1])
    a = fgsm(toy, *pair, objective, eps=eps, norm=norm)
    b = pgd(toy, *pair, objective, eps=eps, alpha=eps, steps=1, start="zero", norm=norm)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("start, norm", [("uniform", "linf"), ("uniform", "l2"), (0.01, "linf")])
def test_a_generator_makes_it_reproducible_bit_for_bit(toy, pair, start, norm):
    def attack(seed):
        return pgd(toy, *pair, mse_to(pair[0]), steps=3, start=start, norm=norm, generator=torch.Generator().manual_seed(seed))

    first, again, other = attack(0), attack(0), attack(1)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("which, moved", [("ir", (True, False)), ("vi", (False, True)), ("both", (True, True))])
def test_only_the_chosen_source_moves(toy, pair, which, moved):
    adv = pgd(toy, *pair, mse_to(pair[0]), steps=2, start="uniform", which=which)
    assert tuple(not torch.equal(a, c) for a, c in zip(adv, pair, strict=True)) == moved


def test_the_model_comes_out_as_it_went_in(toy, pair):
    toy.train()
    toy.net[2].eval()
    toy.net[0].weight.requires_grad_(False)
    toy.net[3].bias.grad = torch.ones(1)
    weights = {k: v.clone() for k, v in toy.state_dict().items()}
    inputs = [x.clone() for x in pair]
    pgd(toy, *pair, mse_to(pair[0]), steps=2)
    assert toy.training and toy.net.training and not toy.net[2].training and toy.net[1].training
    assert [p.requires_grad for p in toy.parameters()] == [False, True, True, True]
    assert [p.grad is None for p in toy.parameters()] == [True, True, True, False] and toy.net[3].bias.grad.item() == 1
    assert all(torch.equal(v, weights[k]) for k, v in toy.state_dict().items())
    assert all(torch.equal(x, y) for x, y in zip(pair, inputs, strict=True)) and not pair[0].requires_grad


def test_the_model_is_restored_when_the_attack_fails(toy, pair):
    toy.train()
    with pytest.raises(ZeroDivisionError):
        pgd(toy, *pair, lambda fused, ir, vi: 1 / 0)
    assert toy.training and all(p.requires_grad for p in toy.parameters())


def test_no_step_keeps_the_graph_of_another(toy, pair):
    pgd(toy, *pair, mse_to(pair[0]), steps=5)
    assert toy.calls == 5 and not any(toy.alive_before)


def test_dropout_is_off_during_the_attack(toy, pair):
    toy.train()
    a = pgd(toy, *pair, mse_to(pair[0]), steps=3)
    toy.eval()
    b = pgd(toy, *pair, mse_to(pair[0]), steps=3)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_switched_off(toy, pair, context):
    expected = fgsm(toy, *pair, mse_to(pair[0]))
    with context():
        found = fgsm(toy, *(x.clone() for x in pair), mse_to(pair[0]))
    assert all(torch.equal(x, y) for x, y in zip(expected, found, strict=True))


def test_images_of_a_batch_are_attacked_independently(toy, pair):
    # The objective is a mean over the batch; sign and length-one directions do not see its scale.
    whole = pgd(toy, *pair, mse_to(pair[0]), steps=3, norm="l2", eps=0.3, alpha=0.1)
    alone = pgd(toy, *(x[1:2] for x in pair), mse_to(pair[0][1:2]), steps=3, norm="l2", eps=0.3, alpha=0.1)
    assert all(torch.allclose(w[1:2], a, atol=1e-5) for w, a in zip(whole, alone, strict=True))


def test_objectives_by_name(toy, pair):
    toy.eval()
    clean = toy(*pair).detach()
    for name in OBJECTIVES:
        value = objective_for(name, toy, *pair, reference=pair[0])(clean + 0.5, *pair)
        expected = 0.25 if name == "away_from_clean" else (clean + 0.5 - pair[0]).square().mean().item()
        assert value.item() == pytest.approx(expected, rel=1e-4)
    with pytest.raises(InputError, match="did you mean 'mse_to'"):
        objective_for("mse", toy, *pair)
    with pytest.raises(InputError, match="needs a reference"):
        objective_for("mse_to", toy, *pair)


def test_without_a_label_a_random_start_is_needed(toy, pair):
    objective = away_from_clean(toy, *pair)
    with pytest.raises(InputError, match="start='uniform'"):
        fgsm(toy, *pair, objective)
    adv = pgd(toy, *pair, objective, start="uniform", generator=torch.Generator().manual_seed(0))
    toy.eval()
    noise = pgd(toy, *pair, objective, start="uniform", steps=0, generator=torch.Generator().manual_seed(0))
    assert objective(toy(*adv), *adv) > 2 * objective(toy(*noise), *noise)


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(eps=-1), "eps of an attack must be 0 or more"),
        (dict(alpha=float("nan")), "alpha of an attack"),
        (dict(norm="l1"), "unknown norm 'l1'"),
        (dict(start="random"), "unknown start 'random'"),
        (dict(which="visible"), "unknown source to attack"),
    ],
)
def test_parameters_that_cannot_be_used(toy, pair, given, message):
    with pytest.raises(InputError, match=message):
        pgd(toy, *pair, mse_to(pair[0]), **given)


def test_inputs_that_cannot_be_attacked(toy, pair):
    ir, vi = pair
    broken = vi.clone()
    broken[0, 0, 0, 0] = float("nan")
    for images, message in (((ir, broken), "vi must lie in 0..1"), ((2 * ir, vi), "ir must lie in 0..1"), ((ir[:1], vi), "differ in shape")):
        with pytest.raises(InputError, match=message):
            pgd(toy, *images, mse_to(ir))


def test_models_that_pass_no_gradient_are_refused(toy, pair):
    class Cut(Toy):
        def fuse(self, ir, vi):
            return ((ir + vi) * 127).floor() .detach() / 255

    with pytest.raises(InputError, match="no gradient reaches"):
        pgd(Cut(), *pair, mse_to(pair[0]))
    toy.differentiable = False
    with pytest.raises(InputError, match="'toy' passes no gradients"):
        pgd(toy, *pair, mse_to(pair[0]))
    with pytest.raises(InputError, match="one number"):
        toy.differentiable = True
        pgd(toy, *pair, lambda fused, ir, vi: fused)


def test_wrong_types_get_a_sentence():
    from fusionrepro.attacks.gradient import fgsm, mse_to, pgd

    x = torch.rand(1, 1, 8, 8)
    model = torch.nn.Identity()
    for call, words in [
        (lambda: pgd(model, x, x, mse_to(x), steps=2.5), "steps of pgd must be a whole number, not 2.5"),
        (lambda: pgd(model, x, x, mse_to(x), eps="4/255"), "eps of pgd must be a number"),
        (lambda: pgd(model, x, x, mse_to(x), start=None), "start of pgd must be text or a number, not NoneType"),
        (lambda: pgd(model, x, x, "mse"), "objective of pgd must be a function"),
        (lambda: pgd(model, x.numpy(), x, mse_to(x)), "ir of pgd must be Tensor, not ndarray"),
        (lambda: fgsm(model, x), "missing a required argument: 'vi'"),
        (lambda: pgd(model, x, x, mse_to(x), eps=float("nan")), "eps of an attack must be 0 or more"),
    ]:
        with pytest.raises(InputError, match=words):
            call()
