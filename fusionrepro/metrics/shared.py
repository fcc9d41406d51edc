"""What all metrics stand on: checked grey levels, work done once, fast separable windows."""

import ctypes
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionrepro.errors import InputError

_memo: ContextVar[dict | None] = ContextVar("metrics_memo", default=None)


@contextmanager
def sharing():
    """Within this block every `shared` function computes each result once."""
    token = _memo.set({})
    try:
        yield
    finally:
        _memo.reset(token)


def shared(function):
    """Remember results inside `sharing()`, by the identity of tensors and the value of options."""

    @wraps(function)
    def remembered(*args, **options):
        memo = _memo.get()
        if memo is None:
            return function(*args, **options)
        names = (id(a) if isinstance(a, Tensor) else a for a in args)
        key = (function, *names, *sorted(options.items()))
        if key not in memo:
            # The arguments are kept too: a tensor that lives cannot lend its id to another.
            memo[key] = (args, function(*args, **options))
        return memo[key][1]

    return remembered


def check_image(x: Tensor, name: str) -> None:
    """Raise InputError unless `x` is a (N,1,H,W) floating-point tensor without NaN, in 0..1."""
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != 1:
        shape = tuple(x.shape) if hasattr(x, "shape") else type(x).__name__
        raise InputError(f"{name} must be a tensor of shape (N,1,H,W), not {shape}.")
    if not x.is_floating_point():
        raise InputError(
            f"{name} must hold floating-point values in 0..1, not {x.dtype}; divide 8-bit levels by 255."
        )
    if x.numel() == 0:
        raise InputError(f"{name} is empty: shape {tuple(x.shape)}.")
    low, high = (v.item() for v in x.detach().aminmax())
    if low != low or high != high:
        raise InputError(f"{name} holds NaN; look at what made it before measuring.")
    if low < -1e-5 or high > 1 + 1e-5:
        mend = (
            "divide it by 255"
            if high > 2 and low >= 0
            else "turn it into a picture first (imaging.post.to_picture)"
        )
        raise InputError(f"{name} holds values {low:.4g} to {high:.4g}, metrics want 0..1; {mend}.")


@shared
def checked(x: Tensor, name: str) -> bool:
    """`check_image`, once an image."""
    check_image(x, name)
    return True


def prime(function, *args, result) -> None:
    """Inside `sharing()`, tell a shared function a result that is known already."""
    memo = _memo.get()
    if memo is not None:
        names = (id(a) if isinstance(a, Tensor) else a for a in args)
        memo[(function.__wrapped__, *names)] = (args, result)


@shared
def levels(x: Tensor) -> Tensor:
    """Grey levels 0..255 in float64; an 8-bit picture divided by 255 comes back as exact integers."""
    y = x.to(torch.float64) * 255
    near = y.detach().round()
    # Adding the difference keeps the gradient of y and lands exactly on the integer.
    return y + torch.where((y.detach() - near).abs() < 1e-4, near - y.detach(), 0.0)


def planes(fused: Tensor, *sources: Tensor) -> tuple[Tensor, ...]:
    """The `levels` of a fused image and its sources; InputError when they do not fit together."""
    names = ("fused", "ir", "vi")
    for x, name in zip((fused, *sources), names, strict=False):
        checked(x, name)
    for x, name in zip(sources, names[1:], strict=False):
        if x.shape != fused.shape:
            raise InputError(
                f"{name} {tuple(x.shape)} and fused {tuple(fused.shape)} differ in shape; all three images must have one size."
            )
        if x.device != fused.device:
            raise InputError(
                f"{name} is on {x.device} and fused on {fused.device}; move them to one device."
            )
    return tuple(levels(x) for x in (fused, *sources))


def combine(of_ir: Tensor, of_vi: Tensor, aggregate: str) -> Tensor:
    """The two sources' values as one: `mean` or `sum`."""
    if aggregate not in ("mean", "sum"):
        raise InputError(f"aggregate '{aggregate}' is unknown: use mean or sum.")
    total = of_ir + of_vi
    return total if aggregate == "sum" else total / 2


def saturate(x: Tensor) -> Tensor:
    """What MATLAB stores in a uint8: rounded half up, cut to 0..255."""
    return (x + 0.5).floor().clamp(0, 255)


def safe_ratio(numerator: Tensor, denominator: Tensor, otherwise: float) -> Tensor:
    """numerator / denominator, and `otherwise` where the denominator is zero (gradient-safe)."""
    empty = denominator == 0
    if not (numerator.requires_grad or denominator.requires_grad):
        return torch.where(empty, otherwise, numerator / denominator)
    return torch.where(empty, otherwise, numerator / torch.where(empty, 1.0, denominator))


@cache
def keep_freed_memory() -> None:
    """Let glibc keep up to 256 MB of freed memory, once a process.

    By default it hands every freed image back to the kernel and pays for zeroed pages with the next one,
    a third of an evaluation's CPU time. Elsewhere than on glibc nothing happens.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(-1, 256 * 2**20)  # M_TRIM_THRESHOLD


# ---------------------------------------------------------------- windows


@cache
def gaussian_taps(size: int, sigma: float) -> tuple[float, ...]:
    """A one-dimensional Gaussian of `size` taps with sum 1; its outer product is MATLAB's fspecial."""
    x = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    taps = torch.exp(-(x**2) / (2 * sigma**2))
    return tuple((taps / taps.sum()).tolist())


@cache
def uniform_taps(size: int) -> tuple[float, ...]:
    """A one-dimensional box of `size` taps with sum 1."""
    return (1 / size,) * size


@cache
def _band(taps: tuple[float, ...], stride: int, block: int, dtype, device) -> Tensor:
    """(block, span) matrix that filters `span` samples to `block` outputs."""
    band = torch.zeros(block, (block - 1) * stride + len(taps), dtype=dtype)
    for i in range(block):
        band[i, i * stride : i * stride + len(taps)] = torch.tensor(taps, dtype=dtype)
    return band.to(device)


def _block(out: int) -> int:
    """How many outputs one product makes: a divisor of `out` where there is one, so that nothing is padded."""
    if out <= 24:
        return out
    return next((b for d in range(9) for b in (16 - d, 16 + d) if out % b == 0), 16)


def filter_rows(x: Tensor, taps: tuple[float, ...], stride: int) -> Tensor:
    """Correlate along the second-last dimension, valid area, every `stride`-th output.

    Overlapping blocks of rows are multiplied with one small banded matrix: a batched matrix product
    without copying the input, several times faster than a convolution in float64 and as exact.
    """
    rows, width = x.shape[-2:]
    out = (rows - len(taps)) // stride + 1
    block = _block(out)
    blocks = -(-out // block)
    band = _band(taps, stride, block, x.dtype, x.device)
    span = band.shape[1]
    missing = (blocks - 1) * block * stride + span - rows
    if missing > 0:
        x = F.pad(x, (0, 0, 0, missing))
    windows = x.unfold(-2, span, block * stride).transpose(-1, -2)
    return (band @ windows).reshape(*x.shape[:-2], blocks * block, width)[..., :out, :]


def window_mean(x: Tensor, taps: tuple[float, ...], stride: int = 1) -> Tensor:
    """Weighted mean in a separable window, valid area only; `stride` keeps every such pixel."""
    if min(x.shape[-2:]) < len(taps):
        raise InputError(
            f"the image is {x.shape[-1]}x{x.shape[-2]}, smaller than the metric's {len(taps)}x{len(taps)} window; use a larger image or leave the metric out."
        )
    y = filter_rows(x, taps, stride)
    return filter_rows(y.transpose(-1, -2), taps, stride).transpose(-1, -2)


@shared
def local_mean(x: Tensor, taps: tuple[float, ...]) -> Tensor:
    """`window_mean`, once per image and window."""
    return window_mean(x, taps)


@shared
def local_variance(x: Tensor, taps: tuple[float, ...]) -> Tensor:
    """Variance in a window (population), once per image and window."""
    return window_mean(x * x, taps) - local_mean(x, taps) ** 2


@shared
def local_covariance(x: Tensor, y: Tensor, taps: tuple[float, ...]) -> Tensor:
    """Covariance in a window (population)."""
    return window_mean(x * y, taps) - local_mean(x, taps) * local_mean(y, taps)


def log1p_sum(x: Tensor) -> Tensor:
    """(N,1,H,W) -> (N,), the sum of log(1 + x) for 0 <= x < 1e15: one logarithm for 16 factors."""
    y = (1 + x).flatten(1)
    y = F.pad(y, (0, -y.shape[1] % 16), value=1.0) if y.shape[1] % 16 else y
    return y.view(len(y), 16, -1).prod(1).log().sum(1)


def mean(x: Tensor) -> Tensor:
    """(N,1,H,W) -> (N,), the mean of each image."""
    return x.flatten(1).mean(1)


def total(x: Tensor) -> Tensor:
    """(N,1,H,W) -> (N,), the sum of each image."""
    return x.flatten(1).sum(1)
