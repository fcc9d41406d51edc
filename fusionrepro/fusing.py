"""Fusing two images, two files or two folders with any method: what `fusionrepro.fuse` and the command line call."""

import contextlib
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fusionrepro import __version__, settings
from fusionrepro.errors import FusionReproError, InputError
from fusionrepro.files import write_text
from fusionrepro.imaging.color import luminance, rgb_to_ycbcr
from fusionrepro.imaging.io import DEPTHS, Image, as_image, match_images, read_image, write_image
from fusionrepro.imaging.post import quantise, to_picture
from fusionrepro.imaging.tiling import tiled
from fusionrepro.progress import counting
from fusionrepro.training.store import load

__all__ = ["Fused", "fuse", "fuse_files", "fuse_folders"]

Source = str | Path | np.ndarray | Tensor | Image
# Channels of a grey image stored as RGB may differ by a level or two after JPEG.
_GREY_TOLERANCE = 2.5 / 255


@dataclass(frozen=True)
class Fused:
    """A fused image with the record of how it was made. It is an array where an array is wanted."""

    pixels: np.ndarray  # (H,W) or (H,W,3): uint8, uint16 or float32, the visible image's depth
    record: dict[str, Any] = field(default_factory=dict)  # model, post, rounding, weights, device, versions, seconds
    alpha: np.ndarray | None = None  # (H,W), float32, 0..1: the visible image's

    @property
    def bits(self) -> int:
        """8, 16, or 32 for floating point."""
        return self.pixels.dtype.itemsize * 8

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.pixels, dtype=dtype, copy=copy)

    def save(self, path: str | Path, record: bool = False) -> Path:
        """Write the image, atomically, at its own depth (a float image as 16-bit PNG where the suffix cannot hold floats).

        With `record`, the record goes beside it as JSON.
        """
        path = Path(path)
        allowed = DEPTHS.get(path.suffix.lower(), ())
        # A float image is no file's depth; a 16-bit one is, and is not cut down without being told to.
        bits = self.bits if self.bits in allowed or self.bits != 32 else max(allowed, default=8)
        unit = as_image(self.pixels).pixels
        write_image(path, unit, bits, "round" if self.bits != 32 else self.record.get("rounding", "round"), self.alpha)
        if record:
            write_text(path.with_suffix(".json"), json.dumps(self.record, indent=2) + "\n")
        return path

    def _repr_png_(self) -> bytes:
        from io import BytesIO

        from PIL import Image as Pillow

        shown = np.rint(as_image(self.pixels).pixels * 255).astype(np.uint8)
        Pillow.fromarray(shown).save(buffer := BytesIO(), format="PNG")
        return buffer.getvalue()


@dataclass(frozen=True)
class _Method:
    """A model made ready once and used for every pair."""

    module: nn.Module
    device: torch.device
    post: str
    rounding: str
    tile: int | None
    overlap: int
    options: dict[str, Any]
    progress: bool = False  # a bar over the tiles

    def luminance(self, ir: Tensor, vi: Tensor) -> Tensor:
        """The raw fused luminance of one pair, on the CPU."""
        try:
            if self.tile:
                with counting("fusing tiles", shown=self.progress) as count:
                    return tiled(self.module, ir, vi, self.tile, self.overlap, lambda done, total: count(1, total))
            return self.module(ir.to(self.device), vi.to(self.device)).cpu()
        except (torch.OutOfMemoryError, MemoryError) as e:
            raise self._too_big(ir) from e
        except RuntimeError as e:
            if "not enough memory" in str(e) or "can't allocate memory" in str(e):
                raise self._too_big(ir) from e
            raise

    def _too_big(self, ir: Tensor) -> FusionReproError:
        height, width = ir.shape[-2:]
        smaller = self.tile // 2 if self.tile else 512
        return FusionReproError(f"not enough memory on {self.device} to fuse {width}x{height} pixels; fuse by tiles (tile={smaller}).")

    def record(self) -> dict[str, Any]:
        return {
            "model": getattr(self.module, "name", "") or type(self.module).__name__,
            "options": self.options,
            "weights": getattr(self.module, "weights_id", "given module"),
            "post": self.post,
            "rounding": self.rounding,
            "tile": self.tile,
            "overlap": self.overlap if self.tile else None,
            "device": str(self.device),
            "versions": {"fusionrepro": __version__, "torch": torch.__version__, "python": platform.python_version()},
        }


def fuse(
    ir: Source,  # (H,W) or (H,W,3) array or file: infrared, CT, PET, SPECT, GFP
    vi: Source,  # (H,W) or (H,W,3) array or file: visible, MRI, phase contrast
    model: str | nn.Module = "a2rnet",  # a registered name or a FusionModel
    *,
    post: str | None = None,  # clip, minmax or minmax_rgb; None: the model's own
    rounding: str | None = None,  # round or floor; None: the model's own
    weights: str | Path | None = "default",  # "default", None for untrained, or a weight file
    device: str = "auto",  # auto, cpu, cuda or cuda:N; auto leaves a given module where it is
    tile: int | None = None,  # side of a tile in pixels; None: the whole image at once
    overlap: int = 64,  # pixels that neighbouring tiles share
    out: str | Path | None = None,  # a file to write as well
    progress: bool = False,  # a bar over the tiles on the terminal
    **options: Any,  # of the model
) -> Fused:
    """Fuse one aligned pair.

    A coloured visible image comes back in colour; a coloured first source (PET, GFP) keeps its colour when the second is grey.
    Depth and alpha are those of the visible image. Torch tensors are (H,W) or (C,H,W).
    """
    if out is not None:
        _check_out(Path(out), *(Path(x) for x in (ir, vi) if isinstance(x, str | Path)))
    method = replace(_prepare(model, post, rounding, weights, device, tile, overlap, options), progress=progress)
    with _inference(method.module):
        fused = _fuse_pair(_image(ir, "ir"), _image(vi, "vi"), method)
    if out is not None:
        fused.save(out)
    return fused


def _prepare(model, post, rounding, weights, device, tile, overlap, options) -> _Method:
    if isinstance(model, nn.Module):
        if options:
            raise InputError(f"options ({', '.join(options)}) go with a model's name; set them when building the module.")
        module = model if device == "auto" else model.to(settings.device(device))
        first = next(module.parameters(), None)
        place = settings.device(device) if first is None else first.device
    else:
        place = settings.device(device)
        module = load(model, weights=weights, device=str(place), **options)
    method = _Method(
        module, place, post or getattr(module, "post", "clip"), rounding or getattr(module, "rounding", "round"), tile, overlap, options
    )
    # Wrong names are refused before any image is read.
    to_picture(torch.zeros(1, 1, 1, 1), method.post)
    quantise(torch.zeros(1), 8, method.rounding)
    if overlap < 0:
        raise InputError(f"overlap={overlap}: give 0 or more pixels.")
    if tile is not None and tile < max(1, 2 * overlap):
        raise InputError(f"tile={tile} is too small: with an overlap of {overlap} give {max(1, 2 * overlap)} or more pixels.")
    return method


@contextlib.contextmanager
def _inference(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; a module given by the user goes back to its own mode."""
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        module.train(was_training)


def _image(source: Source, name: str) -> Image:
    if isinstance(source, Image):
        return source
    if isinstance(source, str | Path):
        return read_image(source)
    if isinstance(source, Tensor):
        array = source.detach().cpu()
        array = array.float() if array.dtype == torch.bfloat16 else array
        if array.ndim == 3 and array.shape[0] in (1, 2, 3, 4):
            array = array.movedim(0, -1)
        return as_image(array.numpy(), name)
    return as_image(np.asarray(source), name)


def _fuse_pair(ir: Image, vi: Image, method: _Method) -> Fused:
    if ir.size != vi.size:
        raise InputError(f"ir {ir} and vi {vi} differ in size; register and resize the pair first.")
    start = time.perf_counter()
    planes = {"ir": _planes(ir), "vi": _planes(vi)}
    raw = method.luminance(luminance(planes["ir"]), luminance(planes["vi"])).float()
    colour = _colour_source(ir, vi)
    cbcr = torch.cat(rgb_to_ycbcr(planes[colour])[1:], dim=-3) if colour else None
    if cbcr is None and vi.pixels.ndim == 3:  # grey stored as RGB: the layout stays
        cbcr = torch.full((1, 2, *vi.size), 0.5)
    picture = quantise(to_picture(raw, method.post, cbcr), vi.bits, method.rounding)
    unit = picture[0, 0] if picture.shape[1] == 1 else picture[0].movedim(0, -1)
    seconds = round(time.perf_counter() - start, 4)
    record = method.record() | {"colour": colour, "bits": vi.bits, "seconds": seconds}
    record |= {name: str(x.path) for name, x in (("ir", ir), ("vi", vi)) if x.path}
    return Fused(_samples(unit.numpy(), vi.bits), record, vi.alpha)


def _planes(image: Image) -> Tensor:
    x = torch.from_numpy(image.pixels)
    return (x.movedim(-1, 0) if x.ndim == 3 else x[None])[None]


def _samples(unit: np.ndarray, bits: int) -> np.ndarray:
    unit = np.ascontiguousarray(unit)
    return unit if bits == 32 else np.rint(unit * (2**bits - 1)).astype(f"uint{bits}")


def _colour_source(ir: Image, vi: Image) -> str | None:
    """Whose colour the result takes: the visible image's, or the first source's where only that has any."""
    return next((name for name, x in (("vi", vi), ("ir", ir)) if _is_coloured(x.pixels)), None)


def _is_coloured(pixels: np.ndarray) -> bool:
    return pixels.ndim == 3 and bool((pixels.max(-1) - pixels.min(-1)).max() > _GREY_TOLERANCE)


def fuse_files(
    ir: str | Path,  # a file or a folder
    vi: str | Path,  # a file or a folder, as `ir`
    out: str | Path,  # a file or a folder to write to
    model: str | nn.Module = "a2rnet",  # as for `fuse`
    *,
    progress: bool = True,  # a bar on the terminal
    **arguments: Any,  # the other arguments of `fuse`
) -> list[Path]:  # the images written
    """Fuse two files, or two folders pair by pair; the record goes beside the result as JSON."""
    ir, vi, out = Path(ir), Path(vi), Path(out)
    for path in (ir, vi):
        if not path.exists():
            raise InputError(f"{path} does not exist; check the name.")
    if ir.is_dir() != vi.is_dir():
        raise InputError(f"{ir} and {vi} are a folder and a file; give two files or two folders.")
    if ir.is_dir():
        return fuse_folders(ir, vi, out, model, progress=progress, **arguments)
    if out.is_dir() or not out.suffix:
        out = out / _output_name(vi)
    _check_out(out, ir, vi)
    return [fuse(ir, vi, model, progress=progress, **arguments).save(out, record=True)]


def fuse_folders(
    ir: str | Path,  # folder of first sources
    vi: str | Path,  # folder of second sources; partners share the name before the suffix
    out: str | Path,  # folder to write to, with fusion.json
    model: str | nn.Module = "a2rnet",  # as for `fuse`
    *,
    post: str | None = None,
    rounding: str | None = None,
    weights: str | Path | None = "default",
    device: str = "auto",
    tile: int | None = None,
    overlap: int = 64,
    progress: bool = True,  # a bar on the terminal
    **options: Any,  # of the model
) -> list[Path]:  # the images written
    """Fuse two folders. A pair that fails does not stop the others: all failures are named in one error at the end."""
    ir, vi, out = Path(ir), Path(vi), Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; two folders need a folder to write to.")
    if out.resolve() in (ir.resolve(), vi.resolve()):
        raise InputError(f"{out} holds the sources; give another folder, or they would be overwritten.")
    pairs = match_images(ir, vi)
    method = _prepare(model, post, rounding, weights, device, tile, overlap, options)
    images, failures = [], {}
    with _inference(method.module), counting("fusing", len(pairs), progress) as count:
        for stem, (first, second) in pairs.items():
            try:
                images.append(_one(first, second, out / _output_name(second), method))
            except Exception as e:  # nothing about one pair may cost the others
                failures[stem] = str(e) if isinstance(e, FusionReproError) else f"{type(e).__name__}: {e}"
            count()
    if images:  # where nothing was fused, the record of an earlier run stays
        _record_folder(method, ir, vi, out, images, failures)
    if failures:
        told = "; ".join(f"{stem}: {why.rstrip('.')}" for stem, why in list(failures.items())[:5])
        more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
        rest = f", the others are in {out}" if images else ""
        raise FusionReproError(f"{len(failures)} of {len(pairs)} pairs failed{rest}: {told}{more}.")
    return [out / i["file"] for i in images]


def _record_folder(method: _Method, ir: Path, vi: Path, out: Path, images: list[dict], failures: dict[str, str]) -> None:
    """How the images of a folder were made, and which pairs failed, as fusion.json."""
    common = method.record() | {"ir": str(ir), "vi": str(vi), "images": images, "failures": failures}
    write_text(out / "fusion.json", json.dumps(common, indent=2) + "\n")


def _one(ir: Path, vi: Path, out: Path, method: _Method) -> dict[str, Any]:
    fused = _fuse_pair(read_image(ir), read_image(vi), method)
    replaced = out.exists()
    fused.save(out)
    own = {k: fused.record[k] for k in ("colour", "bits", "seconds")}
    return {"file": out.name, "ir": ir.name, "vi": vi.name, "replaced": replaced, **own}


def _output_name(vi: Path) -> str:
    """The visible file's name; PNG where its own format cannot be written or would lose something."""
    lossless = vi.suffix.lower() in DEPTHS and vi.suffix.lower() not in (".jpg", ".jpeg")
    return vi.name if lossless else f"{vi.stem}.png"


def _check_out(out: Path, *sources: Path) -> None:
    if out.suffix.lower() not in DEPTHS:
        raise InputError(f"cannot write {out}: unknown suffix '{out.suffix}'; use {', '.join(DEPTHS)}.")
    if out.exists() and any(source.exists() and out.samefile(source) for source in sources):
        raise InputError(f"{out} is one of the sources; give another name, or it would be overwritten.")
