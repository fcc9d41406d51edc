"""What is odd about a source: said in one sentence each, with the mend, before a picture is made that only looks right."""

import numpy as np
import torch

from fusionrepro.errors import typed
from fusionrepro.imaging.color import luminance
from fusionrepro.imaging.io import Image

__all__ = ["brightness", "is_coloured", "range_note", "palette_like", "polarity_note", "shift", "shift_note"]

# Channels of a grey image stored as RGB may differ by a level or two after JPEG.
GREY_TOLERANCE = 2.5 / 255
NARROW = 0.05  # share of its range below which a source reaches a model as good as flat
_SIDE = 512  # pixels to which a picture is shrunk before its shift is estimated
_SMALLEST = 48  # pixels of the shorter side below which no shift is estimated
_FAR = 3  # pixels: aligned data sets are off by so much in places
_DISTINCT = 1.8  # how much higher the peak of a correlation must be than the next one to be believed


@typed
def brightness(image: Image) -> np.ndarray:
    """(H,W), float32: the luminance."""
    pixels = torch.from_numpy(image.pixels)
    return (pixels if pixels.ndim == 2 else luminance(pixels.movedim(-1, 0))[0]).numpy()


@typed
def is_coloured(pixels: np.ndarray) -> bool:
    """Whether a picture (H,W) or (H,W,3) has any colour, beyond what JPEG does to grey."""
    return pixels.ndim == 3 and bool(_colourfulness(pixels).max() > GREY_TOLERANCE)


def _colourfulness(pixels: np.ndarray) -> np.ndarray:
    """The largest minus the smallest of three channels: by planes, many times faster than along an axis of three."""
    r, g, b = (pixels[..., k] for k in range(3))
    return np.maximum(np.maximum(r, g), b) - np.minimum(np.minimum(r, g), b)


@typed
def range_note(image: Image, name: str, stretched: bool = False) -> str:
    """A word on a source that uses a small part of its range; `name` is ir or vi, `stretched`: its range was set already."""
    x = brightness(image)
    if image.alpha is not None and (image.alpha > 0).any():
        x = x[image.alpha > 0]
    # Single hot or dead pixels do not make a range.
    low, high = np.percentile(x, [0.1, 99.9])
    if high - low >= NARROW or low == high == 1:
        return ""
    top = 2**image.bits - 1 if image.bits < 32 else 1
    levels = f"{low * top:.0f}..{high * top:.0f} of 0..{top}" if top > 1 else f"{low:.4g}..{high:.4g} of 0..1"
    what = f"{image.path or name} uses the grey levels {levels} only"
    if stretched:
        return f"{what} after its range was set; give another --ir-range."
    if image.bits == 8 and x.max() <= 1.5 / 255:
        return f"{what}: it is nearly black, perhaps a mask, or saved without times 255."
    if low == high:
        return f"{what}: it is flat."
    if name == "ir":
        return f"{what} ({100 * (high - low):.1f} %), so a model sees it as good as flat: stretch it with --ir-range auto, or --ir-range LOW:HIGH for what is compared."
    return f"{what} ({100 * (high - low):.1f} %), so a model sees it as good as flat: stretch it first."


@typed
def palette_like(image: Image) -> bool:
    """Whether the colours of a picture are those of a thermal camera's palette rather than of a tracer on black (PET, SPECT, GFP).

    A palette shows several hues all over the picture, and its colours lie on one line through the colour space; what shines on a dark
    ground leaves most of the picture black, and a photograph has many colours of one brightness.
    """
    if not is_coloured(image.pixels):
        return False
    pixels = image.pixels.reshape(-1, 3)
    span = _colourfulness(pixels)
    vivid = span > 0.2
    if (pixels.max(-1) < 0.1).mean() > 0.25 or vivid.mean() < 0.25 or np.unique(pixels[vivid].argmax(-1)).size < 2:
        return False
    order = np.argsort(pixels @ np.float32([0.299, 0.587, 0.114]))
    near = np.diff(pixels[order], axis=0).var(0).sum() / 2  # between neighbours in brightness; as large as the whole where it says nothing of the colour
    cells = np.unique((pixels * 15.99).astype(np.int64) @ [256, 16, 1]).size
    return bool(near < 0.3 * pixels.var(0).sum() or (len(pixels) >= 4096 and cells < 150))


@typed
def polarity_note(image: Image) -> str:
    """A word on an infrared picture that looks black-hot: bright, with few dark spots where white-hot has bright ones."""
    x = brightness(image)
    spread = x.std()
    if spread < NARROW / 4:
        return ""
    z = (x - x.mean()) / spread
    skew = (z * z * z).mean()
    if skew > -1:  # 2 of 40 white-hot pictures of TNO fall below, none of MSRS, RoadScene or LLVIP
        return ""
    return f"{image.path or 'ir'} is bright with a few dark spots, as infrared is where hot is shown black: if so, add --invert-ir."


@typed
def shift(ir: Image, vi: Image) -> dict | None:
    """How far the first source lies from the second, by phase correlation of their gradients.

    Returns right and down in pixels, and how distinct the estimate is (height of the peak over the next one); None for small or flat pictures.
    """
    if ir.size != vi.size or min(ir.size) < _SMALLEST:
        return None
    step = max(1, round(max(ir.size) / _SIDE))
    first, second = (_edges(_shrunk(brightness(x), step)) for x in (ir, vi))
    if first is None or second is None:
        return None
    spectrum = np.fft.rfft2(first) * np.conj(np.fft.rfft2(second))
    size = np.abs(spectrum)
    surface = np.fft.irfft2(spectrum / np.maximum(size, 1e-9 * size.max()), first.shape)
    surface = _blurred(surface, wrap=True)
    peak = np.unravel_index(surface.argmax(), surface.shape)
    off = [int(k if k <= n // 2 else k - n) for k, n in zip(peak, surface.shape, strict=True)]
    near = [np.minimum(abs(np.arange(n) - k), n - abs(np.arange(n) - k)) <= 5 for k, n in zip(peak, surface.shape, strict=True)]
    rest = np.where(near[0][:, None] & near[1], 0, surface).max()
    return {"right": off[1] * step, "down": off[0] * step, "distinct": round(float(surface[peak] / max(rest, 1e-9)), 2)}


@typed
def shift_note(found: dict | None, name: str) -> str:
    """A word on a pair that is not aligned; empty where no shift is sure."""
    if not found or found["distinct"] < _DISTINCT or max(abs(found["right"]), abs(found["down"])) < _FAR:
        return ""
    return (f"{name}: the first source seems to lie {found['right']:+d} pixels right and {found['down']:+d} down of the second; "
            "align them first, for example with --homography FILE.")  # fmt: skip


def _shrunk(x: np.ndarray, step: int) -> np.ndarray:
    """Means of step x step pixels."""
    height, width = (n // step * step for n in x.shape)
    return x[:height, :width].reshape(height // step, step, width // step, step).mean((1, 3))


def _blurred(x: np.ndarray, wrap: bool = False) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(x, 1.0, mode="wrap" if wrap else "reflect")


def _edges(x: np.ndarray) -> np.ndarray | None:
    """Gradient magnitudes, the strongest cut so that no single edge decides, fading to the border; None for a flat picture."""
    down, right = np.gradient(_blurred(x))
    edges = np.hypot(down, right)
    edges = np.minimum(edges, np.percentile(edges, 98))
    if edges.max() <= 1e-6:
        return None
    return (edges - edges.mean()) * np.hanning(x.shape[0])[:, None] * np.hanning(x.shape[1])
