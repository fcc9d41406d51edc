"""How long the metrics take, against a plain NumPy, SciPy and scikit-image version of the same definitions."""

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy.signal import convolve2d
from skimage.metrics import structural_similarity

from fusionrepro.metrics.evaluate import evaluate

NAMES = ("EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Qabf", "SSIM")

# ---------------------------------------------------------------- the plain version, one pair at a time


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def _mutual_information(x: np.ndarray, f: np.ndarray) -> float:
    joint = np.histogram2d(x.ravel(), f.ravel(), bins=256, range=[[0, 256], [0, 256]])[0]
    return _entropy(joint.sum(1)) + _entropy(joint.sum(0)) - _entropy(joint)


def _gaussian(size: int, sigma: float) -> np.ndarray:
    i = np.arange(size) - (size - 1) / 2
    g = np.exp(-(i[:, None] ** 2 + i**2) / (2 * sigma**2))
    return g / g.sum()


def _vif(x: np.ndarray, f: np.ndarray) -> float:
    kept = there = 0.0
    for size in (17, 9, 5, 3):
        window = _gaussian(size, size / 5)
        if size < 17:
            x, f = (convolve2d(z, window, "valid")[::2, ::2] for z in (x, f))
        mx, mf, xx, ff, xf = (convolve2d(z, window, "valid") for z in (x, f, x * x, f * f, x * f))
        xx, ff, xf = np.maximum(xx - mx**2, 0), np.maximum(ff - mf**2, 0), xf - mx * mf
        xx[xx < 1e-10] = 0
        gain = np.maximum(xf / (xx + 1e-10), 0)
        gain[(xx == 0) | (ff < 1e-10)] = 0
        noise = np.maximum(ff - gain * xf, 1e-10)
        kept += np.log10(1 + gain**2 * xx / (noise + 2)).sum()
        there += np.log10(1 + xx / 2).sum()
    return kept / there


def _edges(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kernel = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    gx, gy = convolve2d(x, kernel, "same"), convolve2d(x, np.rot90(kernel), "same")
    angle = np.arctan(np.divide(gy, gx, out=np.zeros_like(gx), where=gx != 0))
    return np.hypot(gx, gy), np.where(gx == 0, np.pi / 2, angle)


def _qabf(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    gf, af = _edges(f)
    kept = weight = 0.0
    for x in (a, b):
        g, angle = _edges(x)
        high = np.maximum(g, gf)
        ratio = np.divide(np.minimum(g, gf), high, out=np.ones_like(g), where=high > 0)
        turn = 1 - np.abs(angle - af) / (np.pi / 2)
        q = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + np.exp(-22 * (turn - 0.8)))
        kept, weight = kept + (q * g).sum(), weight + g.sum()
    return kept / weight


def plain(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """The nine metrics of one pair of grey levels 0..255 (H,W), the default formulas, written plainly."""

    def r(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.corrcoef(x.ravel(), y.ravel())[0, 1])

    def ssim(x: np.ndarray) -> float:
        options = dict(
            data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        return structural_similarity(x, f, **options)

    gy, gx = np.gradient(f)
    intervals = (f.shape[0] - 1) * (f.shape[1] - 1)
    return dict(
        EN=_entropy(np.bincount(f.astype(int).ravel(), minlength=256)),
        SD=float(f.std()),
        SF=float(np.sqrt((np.diff(f, axis=0) ** 2).mean() + (np.diff(f, axis=1) ** 2).mean())),
        AG=float(np.sqrt((gx**2 + gy**2) / 2).sum() / intervals),
        MI=_mutual_information(a, f) + _mutual_information(b, f),
        SCD=r(f - b, a) + r(f - a, b),
        VIF=_vif(a, f) + _vif(b, f),
        Qabf=_qabf(f, a, b),
        SSIM=(ssim(a) + ssim(b)) / 2,
    )


# ---------------------------------------------------------------- timing


def pairs(
    count: int, size: tuple[int, int] = (480, 640), seed: int = 0
) -> tuple[torch.Tensor, ...]:
    """Fused images and sources (N,1,H,W) in 8-bit steps: smooth shapes with fine grain."""
    g = torch.Generator().manual_seed(seed)

    def image() -> torch.Tensor:
        coarse = torch.rand(count, 1, size[0] // 16, size[1] // 16, generator=g)
        shapes = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
        return (
            (shapes + 0.1 * torch.rand(count, 1, *size, generator=g)).clamp(0, 1) * 255
        ).round() / 255

    a, b = image(), image()
    return (torch.maximum(a, b) * 0.6 + a * 0.4).clamp(0, 1), a, b


def seconds(run: Callable, repeats: int, device: torch.device) -> tuple[float, float]:
    """Median CPU seconds and wall seconds of a call."""
    cpu, wall = [], []
    for _ in range(repeats):
        c, w = time.process_time(), time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        cpu.append(time.process_time() - c)
        wall.append(time.perf_counter() - w)
    return float(np.median(cpu)), float(np.median(wall))


def bench_metrics(
    count: int = 4, size: tuple[int, int] = (480, 640), device: str = "cpu", repeats: int = 3
) -> pd.DataFrame:
    """Seconds a pair for the nine metrics, ours and plain, with the largest relative difference of their values."""
    place = torch.device(device)
    batch = pairs(count, size)
    here = tuple(x.to(place) for x in batch)
    levels = [(x[0, 0].double() * 255).round().numpy() for x in batch]

    ours = evaluate(*here, metrics=NAMES)  # also warms up
    theirs = plain(*levels)
    difference = max(abs(ours[n].iloc[0] - theirs[n]) / abs(theirs[n]) for n in NAMES)
    cpu, wall = seconds(lambda: evaluate(*here, metrics=NAMES), repeats, place)
    plain_cpu, plain_wall = seconds(lambda: plain(*levels), repeats, torch.device("cpu"))
    rows = [
        dict(version="fusionrepro", device=str(place), cpu_s=cpu / count, wall_s=wall / count),
        dict(version="plain", device="cpu", cpu_s=plain_cpu, wall_s=plain_wall),
    ]
    table = pd.DataFrame(rows).set_index("version")
    table["times faster"] = plain_wall / table.wall_s
    table.attrs.update(
        pairs=count,
        size=size,
        metrics=NAMES,
        threads=torch.get_num_threads(),
        difference=difference,
    )
    return table
