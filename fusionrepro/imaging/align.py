"""Two pictures of one scene onto one grid: resized, cropped, or warped by a homography that the user knows."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from fusionrepro.errors import InputError, typed, unknown
from fusionrepro.files import check_regular
from fusionrepro.imaging.io import Image

__all__ = ["ALIGN", "resized", "cropped", "warped", "aligned_pair", "read_homography"]

ALIGN = ("resize-ir", "resize-vi", "crop")


def _over_planes(image: Image, change) -> Image:
    """The image with `change`, a function of (1,C,H,W), applied to pixels and alpha."""

    def one(x: np.ndarray | None) -> np.ndarray | None:
        if x is None:
            return None
        planes = torch.from_numpy(np.ascontiguousarray(x))
        changed = change((planes[None] if planes.ndim == 2 else planes.movedim(-1, 0))[None])[0].clamp(0, 1)
        return np.ascontiguousarray((changed[0] if x.ndim == 2 else changed.movedim(0, -1)).numpy())

    return replace(image, pixels=one(image.pixels), alpha=one(image.alpha), extra=None)


@typed
def resized(image: Image, size: tuple[int, int]) -> Image:
    """The image at another height and width: bilinear, smoothed first where it shrinks."""
    return _over_planes(image, lambda x: F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True))


@typed
def cropped(image: Image, size: tuple[int, int]) -> Image:
    """The middle of an image, of that height and width."""
    top, left = ((have - want) // 2 for have, want in zip(image.size, size, strict=True))
    return _over_planes(image, lambda x: x[..., top : top + size[0], left : left + size[1]])


@typed
def warped(image: Image, homography: np.ndarray, size: tuple[int, int]) -> Image:
    """The image on another picture's grid of that height and width; transparent where it has nothing.

    `homography` (3,3) maps its pixels (x, y, 1) to those of the other picture, as OpenCV's findHomography gives it.
    """
    height, width = size
    y, x = np.mgrid[:height, :width]
    back = np.linalg.inv(homography) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    with np.errstate(divide="ignore", invalid="ignore"):
        where = np.where(back[2] > 0, back[:2] / back[2], -10.0 * max(image.size))
    # grid_sample counts from -1 to 1 over the centres of the first and the last pixel.
    scale = 2 / np.maximum([image.size[1] - 1, image.size[0] - 1], 1)
    grid = torch.from_numpy((where * scale[:, None] - 1).T.reshape(1, height, width, 2).astype(np.float32))
    inside = ((where >= -0.5) & (where <= np.array([[image.size[1] - 0.5], [image.size[0] - 0.5]]))).all(0).reshape(size)
    sample = lambda planes: F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=True)
    moved = _over_planes(image, sample)
    alpha = inside.astype(np.float32) * (1 if moved.alpha is None else moved.alpha)
    return replace(moved, alpha=None if inside.all() and moved.alpha is None else alpha)


@typed
def aligned_pair(ir: Image, vi: Image, how: str | None, homography: np.ndarray | None) -> tuple[Image, Image, dict]:
    """Both sources on one grid, and what was done, for the record.

    Raises
    ------
    InputError
        when they differ in size and nothing was said about it.
    """
    sizes = {"ir": [*ir.size[::-1]], "vi": [*vi.size[::-1]]}  # as users say them: width first
    if homography is not None:
        moved = warped(ir, homography, vi.size)
        if moved.alpha is not None and not moved.alpha.any():
            raise InputError(f"the homography puts nothing of {ir} into {vi}: check its direction (first source to second) and its units (pixels).")
        return moved, vi, {"align": "homography", "homography": homography.tolist(), "sizes": sizes}
    if ir.size == vi.size:
        return ir, vi, {}
    if how is None:
        raise InputError(f"{ir} and {vi} differ in size; if they show the same view add --align resize-ir or resize-vi, --align crop if one has a margin, "
                         "or --homography FILE.")  # fmt: skip
    if how == "crop":
        size = tuple(min(pair) for pair in zip(ir.size, vi.size, strict=True))
        return cropped(ir, size), cropped(vi, size), {"align": how, "sizes": sizes}
    first, second = (resized(ir, vi.size), vi) if how == "resize-ir" else (ir, resized(vi, ir.size))
    return first, second, {"align": how, "sizes": sizes}


def aspect_note(ir: Image, vi: Image) -> str:
    """A word on resizing a picture of another shape."""
    a, b = ir.size[1] / ir.size[0], vi.size[1] / vi.size[0]
    return f"{ir} and {vi} differ in shape, so resizing distorts one of them; perhaps --align crop or --homography FILE is meant." if abs(a / b - 1) > 0.02 else ""


def check_align(how: str | None) -> str | None:
    """The name of a way to align, or None; InputError otherwise."""
    if how is not None and how not in ALIGN:
        raise unknown("way to align", how, ALIGN)
    return how


@typed
def read_homography(
    given: str | Path | np.ndarray,  # (3,3) or (2,3); or a file of these numbers: text, CSV, JSON or .npy
) -> np.ndarray:  # (3,3), float64, its last element 1
    """What maps pixels of the first source to pixels of the second; InputError for what cannot be a homography."""
    name = str(given) if isinstance(given, str | Path) else "the homography"
    try:
        numbers = _numbers(Path(given)) if isinstance(given, str | Path) else np.asarray(given, np.float64)
    except (ValueError, TypeError, UnicodeDecodeError, EOFError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"{name} holds no homography; give the nine numbers of a 3x3 matrix.") from None
    if numbers.size == 6:  # affine: the last row is known
        numbers = np.append(numbers.ravel(), [0, 0, 1])
    if numbers.size != 9:
        raise InputError(f"{name} holds {numbers.size} numbers; a homography has nine (3x3), an affine map six (2x3).")
    matrix = numbers.reshape(3, 3)
    if not np.isfinite(matrix).all() or matrix[2, 2] == 0 or abs(np.linalg.det(matrix / matrix[2, 2])) < 1e-9:
        raise InputError(f"{name} is no homography: its numbers are not finite, or it cannot be inverted.")
    return matrix / matrix[2, 2]


def _numbers(path: Path) -> np.ndarray:
    """All numbers of a file; of OpenCV's YAML those of its data."""
    if not path.is_file():
        check_regular(path)
        raise InputError(f"there is no homography {path}; check the name.")
    if path.suffix.lower() == ".npy":
        return np.asarray(np.load(path, allow_pickle=False), np.float64)
    text = path.read_text(encoding="utf-8-sig")
    if data := re.search(r"data:\s*\[(.*?)\]", text, re.DOTALL):
        text = data[1]
    return np.array([float(t) for t in re.split(r"[\s,;\[\]]+", text) if t], np.float64)
