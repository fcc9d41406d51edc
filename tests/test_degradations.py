"""What the degradations notebook does not show: gradients, types, batches, order of calls, speed."""

import time

import pytest
import torch

from fusionrepro.degradations.degradations import KINDS, degrade
from fusionrepro.errors import InputError


@pytest.fixture
def pair():
    return torch.rand(2, 3, 1, 24, 31, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_strength_zero_is_the_identity(kind, pair):
    a, b = degrade(*pair, kind, 0.0, which="both")
    assert torch.equal(a, pair[0]) and torch.equal(b, pair[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_shape_and_range(kind, dtype, pair):
    for x, y in zip(pair.to(dtype), degrade(*pair.to(dtype), kind, 1.0, which="both"), strict=True):
        assert y.dtype == dtype and y.shape == x.shape and 0 <= y.min() and y.max() <= 1
        assert not torch.equal(x, y)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass(kind, pair):
    vi = pair[1].clone().requires_grad_()
    degrade(pair[0], vi, kind, 0.5)[1].sum().backward()
    assert vi.grad.isfinite().all() and vi.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "blur"])
def test_the_generator_decides(kind, pair):
    g = torch.Generator().manual_seed(1)
    first, second = degrade(*pair, kind, 0.7, g)[1], degrade(*pair, kind, 0.7, g)[1]
    assert not torch.equal(first, second)  # it goes on from call to call
    again = torch.Generator().manual_seed(1)
    assert torch.equal(first, degrade(*pair, kind, 0.7, again)[1])
    assert torch.equal(first, degrade(*pair, kind, 0.7, 1)[1])  # a seed is a fresh generator
    before = torch.get_rng_state()
    degrade(*pair, kind, 0.7, 1)
    assert torch.equal(before, torch.get_rng_state())  # the global one is left alone
    images = first - pair[1]
    assert not torch.allclose(images[0], images[1])  # each image of a batch has its own pattern


def test_speed():
    """Every kind on a full-size pair stays far below what any network costs."""
    ir, vi = torch.rand(2, 1, 1, 480, 640)
    for kind in KINDS:
        start = time.process_time()
        degrade(ir, vi, kind, 0.5)
        assert time.process_time() - start < 2, kind


GOOD = torch.rand(2, 1, 8, 9)


@pytest.mark.parametrize("ir, vi, strength, words", [
    (GOOD * 255, GOOD, 0.5, r"ir must lie in 0\.\.1"),
    (GOOD, GOOD * float("nan"), 0.5, "vi must lie in 0..1 without NaN"),
    (GOOD, GOOD[..., 1:], 0.5, "differ in number or size"),
    (GOOD, GOOD[:1], 0.5, "differ in number or size"),
    (GOOD[0], GOOD, 0.5, r"ir must be a tensor of shape \(N,1,H,W\)"),
    (GOOD, (GOOD * 255).byte(), 0.5, "vi must hold floating-point values"),
    (GOOD, GOOD, float("nan"), "between 0 and 1"),
    (GOOD, GOOD, torch.zeros(3), "one number or 2"),
    (GOOD, GOOD, "much", "strength of degrade must be a number or Tensor, not 'much'"),
    (GOOD.numpy(), GOOD, 0.5, "ir of degrade must be Tensor, not ndarray"),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["haze", "blur"])
def test_sources_are_checked_at_the_door(ir, vi, strength, words, kind):
    with pytest.raises(InputError, match=words):
        degrade(ir, vi, kind, strength)
