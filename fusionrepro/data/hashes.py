"""What a picture holds, whatever container it is stored in."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fusionrepro.errors import InputError, typed
from fusionrepro.files import sha256
from fusionrepro.imaging.io import read_image

__all__ = ["LOSSLESS", "pixels_sha256", "content_hash", "matches"]

LOSSLESS = {".png", ".bmp", ".tif", ".tiff"}


def _samples(path: str | Path) -> np.ndarray:
    """The stored integers as (H,W) or (H,W,C); equal colour channels and an opaque alpha are dropped."""
    image = read_image(path)
    pixels = image.pixels
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if image.alpha is not None and (image.alpha < 1).any():
        pixels = np.dstack([pixels, image.alpha])
    if image.bits == 32:
        return pixels.astype("<f4")
    return np.rint(pixels * (2**image.bits - 1)).astype(f"<u{image.bits // 8}")


@typed
def pixels_sha256(path: str | Path) -> str:
    """SHA-256 of shape, type and samples: the same for a BMP and for the PNG made of it."""
    samples = np.ascontiguousarray(_samples(path))
    head = f"{'x'.join(map(str, samples.shape))} {samples.dtype.kind}{samples.dtype.itemsize} "
    return hashlib.sha256(head.encode() + samples.tobytes()).hexdigest()


@typed
def content_hash(path: str | Path, known: Mapping[str, str] | None = None) -> str:
    """The pixel hash of a lossless picture, the byte hash of any other file.

    Decoders of JPEG differ by a level here and there, so only its bytes identify one.
    `known` maps byte hashes to pixel hashes and spares decoding.
    """
    of_bytes = sha256(path)
    if Path(path).suffix.lower() not in LOSSLESS:
        return of_bytes
    return (known or {}).get(of_bytes) or pixels_sha256(path)


@typed
def matches(path: str | Path, of_bytes: str = "", of_pixels: str = "") -> bool:
    """Whether a file is what its hashes say: by its bytes, or else by its pixels.

    True without any hash to compare with; a file that cannot be decoded does not match.
    """
    if not of_bytes and not of_pixels:
        return True
    if of_bytes and sha256(path) == of_bytes:
        return True
    try:
        return bool(of_pixels) and pixels_sha256(path) == of_pixels
    except InputError:
        return False
