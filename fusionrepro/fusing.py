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
from fusionrepro.data.pairing import match_pairs
from fusionrepro.errors import FusionReproError, InputError, notice, typed, unknown
from fusionrepro.files import write_text
from fusionrepro.imaging import checks
from fusionrepro.imaging.align import aligned_pair, aspect_note, check_align, read_homography
from fusionrepro.imaging.color import luminance, rgb_to_ycbcr
from fusionrepro.imaging.io import DEPTHS, Image, as_image, read_image, read_samples, write_image
from fusionrepro.imaging.post import quantise, to_picture
from fusionrepro.imaging.ranges import Range
from fusionrepro.imaging.tiling import tiled
from fusionrepro.progress import counting
from fusionrepro.training.store import load

__all__ = ["Fused", "fuse", "fuse_files", "fuse_folders", "COLOURS"]

Source = str | Path | np.ndarray | Tensor | Image
COLOURS = ("auto", "vi", "ir", "merge", "none")
_FILE_NOTES = ("radiometric", "band", "transparent")  # kinds of what reading a file may note


@dataclass(frozen=True)
class Fused:
    """A fused image with the record of how it was made. It is an array where an array is wanted."""

    pixels: np.ndarray  # (H,W) or (H,W,3): uint8, uint16 or float32, the visible image's depth
    record: dict[str, Any] = field(default_factory=dict)  # model, post, rounding, weights, device, versions, seconds
    alpha: np.ndarray | None = None  # (H,W), float32, 0..1: the visible image's
    icc: bytes | None = None  # the colour profile of the source whose colour it has
    dpi: tuple[float, float] | None = None  # pixels an inch, the visible image's

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
        write_image(path, unit, bits, "round" if self.bits != 32 else self.record.get("rounding", "round"), self.alpha, icc=self.icc, dpi=self.dpi)
        if record:
            write_text(_record_path(path.with_suffix(".json")), json.dumps(self.record, indent=2) + "\n")
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
            return self._checked(ir.to(self.device), vi.to(self.device)).cpu()
        except (torch.OutOfMemoryError, MemoryError) as e:
            raise self._too_big(ir) from e
        except RuntimeError as e:
            if "not enough memory" in str(e) or "can't allocate memory" in str(e):
                raise self._too_big(ir) from e
            raise

    def _checked(self, ir: Tensor, vi: Tensor) -> Tensor:
        """What the module gives; InputError where that is no picture of the sources' size."""
        fused = self.module(ir, vi)
        if not isinstance(fused, Tensor) or fused.shape != ir.shape:
            given = f"the shape {tuple(fused.shape)}" if isinstance(fused, Tensor) else type(fused).__name__
            raise InputError(f"'{self.name}' gives {given} for sources of the shape {tuple(ir.shape)}; a fusion model returns a tensor of their shape.")
        return fused

    @property
    def name(self) -> str:
        return getattr(self.module, "name", "") or type(self.module).__name__

    def _too_big(self, ir: Tensor) -> FusionReproError:
        height, width = ir.shape[-2:]
        smaller = self.tile // 2 if self.tile else 512
        return FusionReproError(f"not enough memory on {self.device} to fuse {width}x{height} pixels; fuse by tiles (tile={smaller}).")

    def record(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "options": self.options,
            "weights": getattr(self.module, "weights_id", "given module"),
            "post": self.post,
            "rounding": self.rounding,
            "tile": self.tile,
            "overlap": self.overlap if self.tile else None,
            "device": str(self.device),
            "versions": {"fusionrepro": __version__, "torch": torch.__version__, "python": platform.python_version()},
        }


@dataclass(frozen=True)
class _Sources:
    """What is done with the two sources before they are fused."""

    align: str | None
    homography: np.ndarray | None
    ir_range: Range | None
    invert_ir: bool
    colour: str
    rgb: bool

    @classmethod
    def of(cls, align, homography, ir_range, invert_ir, colour, rgb) -> "_Sources":
        """Checked; InputError naming the argument that cannot be used."""
        if colour not in COLOURS:
            raise unknown("colour", colour, COLOURS)
        if align is not None and homography is not None:
            raise InputError("align and homography are two ways onto one grid; give one of them.")
        matrix = None if homography is None else read_homography(homography)
        return cls(check_align(align), matrix, Range.parse(ir_range), invert_ir, colour, rgb)

    def record(self) -> dict[str, Any]:
        """What was asked for beyond the usual."""
        given = {"align": self.align, "invert_ir": self.invert_ir, "rgb": self.rgb, "colour_rule": self.colour}
        if self.homography is not None:
            given["homography"] = self.homography.tolist()
        return given | ({"ir_range": self.ir_range.given} if self.ir_range else {})

    def ready(self, ir: Source, vi: Source, limits: tuple[float, float] | None) -> tuple[Image, Image, dict[str, Any], dict[str, str]]:
        """Both sources on one grid, what was done, and what a user should know of them, by kind."""
        first, second = _image(ir, "ir", limits), _image(vi, "vi")
        notes = {next((w for w in _FILE_NOTES if w in n), n): n for x in (first, second) for n in x.notes}
        notes["range"] = checks.range_note(first, "ir", limits is not None)
        notes["range of vi"] = checks.range_note(second, "vi")
        if self.invert_ir:
            first = replace(first, pixels=1 - first.pixels)
        else:
            notes["polarity"] = "" if checks.is_coloured(first.pixels) else checks.polarity_note(first)
        if self.align in ("resize-ir", "resize-vi"):
            notes["shape"] = aspect_note(first, second)
        first, second, done = aligned_pair(first, second, self.align, self.homography)
        if limits is not None:
            done["ir_range"] = {"given": self.ir_range.given, "low": limits[0], "high": limits[1]}
        if first.pixels.shape == second.pixels.shape and np.array_equal(first.pixels, second.pixels):
            notes["same"] = f"{_called(first, 'ir')} and {_called(second, 'vi')} are the same picture, sample by sample."
        done["shift"] = checks.shift(first, second)
        notes["shift"] = checks.shift_note(done["shift"], _called(second, "the pair"))
        return first, second, done, {kind: text for kind, text in notes.items() if text}


def _called(image: Image, otherwise: str) -> str:
    return str(image.path or otherwise)


@typed
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
    align: str | None = None,  # of sources that differ in size: resize-ir, resize-vi or crop
    homography: str | Path | np.ndarray | None = None,  # (3,3), pixels of ir to pixels of vi, or a file of it
    ir_range: str | tuple[float, float] | list | None = None,  # what becomes 0 and 1: auto, LOW:HIGH in the file's units, or P%:P%
    invert_ir: bool = False,  # the infrared shows hot black
    colour: str = "auto",  # whose colour the result takes: vi, ir, merge or none
    rgb: bool = False,  # fuse red, green and blue each, instead of the luminance
    **options: Any,  # of the model
) -> Fused:
    """Fuse one aligned pair.

    A coloured visible image comes back in colour; a coloured first source (PET, GFP) keeps its colour when the second is grey, unless
    it looks like a thermal camera's palette; of two coloured ones each pixel takes both chrominances, weighted by how far they are from
    grey. Depth, alpha and resolution are those of the visible image; where the first source is transparent the second is seen.
    What a user should know of the sources is said as a `Notice` and kept in the record. Torch tensors are (H,W) or (C,H,W).
    """
    if out is not None:
        _check_out(Path(out), *(Path(x) for x in (ir, vi) if isinstance(x, str | Path)))
    _check_two(ir, vi)
    method = replace(_prepare(model, post, rounding, weights, device, tile, overlap, options), progress=progress)
    sources = _Sources.of(align, homography, ir_range, invert_ir, colour, rgb)
    with _inference(method.module):
        limits = sources.ir_range.limits([lambda: _samples_of(ir)]) if sources.ir_range else None
        fused = _fuse_pair(ir, vi, method, sources, limits)
    for text in fused.record["notes"]:
        notice(text)
    if out is not None:
        _say_replaced(Path(out))
        fused.save(out)
    return fused


def _check_two(ir: Source, vi: Source) -> None:
    """InputError for one file as both sources."""
    if isinstance(ir, str | Path) and isinstance(vi, str | Path) and Path(ir).exists() and Path(vi).exists() and Path(ir).samefile(vi):
        raise InputError(f"{ir} is given as both sources; give the infrared and the visible picture of one scene.")


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


def _image(source: Source, name: str, limits: tuple[float, float] | None = None) -> Image:
    if isinstance(source, Image):
        if limits is None:
            return source
        samples = source.pixels * (2**source.bits - 1 if source.bits < 32 else 1)
        return replace(source, pixels=as_image(samples, name, limits=limits).pixels, bits=32)
    if isinstance(source, str | Path):
        return read_image(source, limits)
    return as_image(_array(source), name, limits=limits)


def _array(source: np.ndarray | Tensor) -> np.ndarray:
    """Any array with channels last."""
    if not isinstance(source, Tensor):
        return np.asarray(source)
    array = source.detach().cpu()
    array = array.float() if array.dtype == torch.bfloat16 else array
    return (array.movedim(0, -1) if array.ndim == 3 and array.shape[0] in (1, 2, 3, 4) else array).numpy()


def _samples_of(source: Source) -> np.ndarray:
    """(H,W): a source's samples in its own units."""
    if isinstance(source, str | Path):
        return read_samples(source)
    if isinstance(source, Image):
        return checks.brightness(source) * (2**source.bits - 1 if source.bits < 32 else 1)
    x = _array(source)
    return x if x.ndim == 2 else x[..., 0] if x.shape[-1] < 3 else x[..., :3].astype(np.float32) @ np.float32([0.299, 0.587, 0.114])


def _fuse_pair(ir: Source, vi: Source, method: _Method, sources: _Sources, limits: tuple[float, float] | None) -> Fused:
    first, second, done, notes = sources.ready(ir, vi, limits)
    start = time.perf_counter()
    chosen, said = _colour_source(first, second, sources.colour)
    if said:
        notes["colour"] = said
    x, y = _planes(first), _planes(second)
    shown, there = (1.0 if a is None else torch.from_numpy(np.ascontiguousarray(a))[None, None] for a in (first.alpha, second.alpha))
    # Where one source has nothing the other stands in for it, so that no border of it is fused.
    grey = luminance(y) if first.alpha is not None else None
    x_y, y_y = luminance(x), luminance(y)
    if second.alpha is not None:
        y_y = torch.where(there > 0, y_y, x_y)
    if grey is not None:
        x_y = shown * x_y + (1 - shown) * y_y
    if sources.rgb and y.shape[1] == 3:
        chosen = "rgb"
        one = lambda k: x[:, k : k + 1] * shown + (1 - shown) * y[:, k : k + 1] if x.shape[1] == 3 and checks.is_coloured(first.pixels) else x_y
        raw = torch.cat([method.luminance(one(k), torch.where(torch.as_tensor(there) > 0, y[:, k : k + 1], x_y)) for k in range(3)], 1)
        picture = to_picture(raw, method.post)
    else:
        picture = to_picture(method.luminance(x_y, y_y), method.post, _chroma(x, y, chosen, shown))
    if grey is not None:
        own = y if picture.shape[1] == y.shape[1] else y_y if picture.shape[1] == 1 else y.expand(-1, 3, -1, -1)
        picture = shown * picture + (1 - shown) * own
    if second.pixels.ndim == 3 and picture.shape[1] == 1:
        picture = picture.expand(-1, 3, -1, -1)  # grey stored as RGB keeps its layout
    picture = quantise(picture, second.bits, method.rounding)
    unit = picture[0, 0] if picture.shape[1] == 1 else picture[0].movedim(0, -1)
    seconds = round(time.perf_counter() - start, 4)
    record = method.record() | sources.record() | {"colour": chosen, "bits": second.bits} | done | {"notes": list(notes.values()), "seconds": seconds}
    record |= {name: str(z.path) for name, z in (("ir", first), ("vi", second)) if z.path}
    profile = first.icc if chosen == "ir" else second.icc
    return _Noted(_samples(unit.numpy(), second.bits), record, second.alpha, profile, second.dpi, notes)


@dataclass(frozen=True)
class _Noted(Fused):
    """A fused image with what a user should know of its sources, by kind."""

    kinds: dict[str, str] = field(default_factory=dict)


def _planes(image: Image) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(image.pixels))
    return (x.movedim(-1, 0) if x.ndim == 3 else x[None])[None]


def _samples(unit: np.ndarray, bits: int) -> np.ndarray:
    unit = np.ascontiguousarray(unit)
    return unit if bits == 32 else np.rint(unit * (2**bits - 1)).astype(f"uint{bits}")


def _colour_source(ir: Image, vi: Image, rule: str) -> tuple[str | None, str]:
    """Whose colour the result takes (vi, ir, merge, or None for grey), and what is to be said about it."""
    coloured = {"ir": checks.is_coloured(ir.pixels), "vi": checks.is_coloured(vi.pixels)}
    if rule != "auto":
        both = rule == "merge" and all(coloured.values())
        one = next((name for name in ("vi", "ir") if coloured[name]), None)
        return ("merge" if both else one, "") if rule == "merge" else (rule if coloured.get(rule) else None, "")
    if not coloured["ir"]:
        return ("vi" if coloured["vi"] else None), ""
    name, palette = _called(ir, "ir"), checks.palette_like(ir) or any("radiometric" in n for n in ir.notes)
    if coloured["vi"]:
        rule_told = "the result takes the colour of the second; --colour merge weighs both" if palette else "the result weighs the colours of both; --colour vi takes the second's"
        return ("vi" if palette else "merge"), f"{name} and {_called(vi, 'vi')} are both coloured: {rule_told}."
    if palette:
        return None, f"{name} is coloured beside a grey picture, and the brightness of a thermal palette is no temperature: the result stays grey; --colour ir takes its colour."
    return "ir", f"{name} is coloured beside a grey picture: the result takes its colour, as for PET, SPECT and GFP; --colour none leaves it grey."


def _chroma(ir: Tensor, vi: Tensor, chosen: str | None, shown: Tensor | float) -> Tensor | None:
    """(1,2,H,W): the chrominance to put back, None for a grey result."""
    if chosen is None:
        return None
    found = {name: torch.cat(rgb_to_ycbcr(x)[1:], 1) for name, x in (("ir", ir), ("vi", vi)) if x.shape[1] == 3}
    if "ir" in found:  # no colour where it has nothing
        found["ir"] = (found["ir"] - 0.5) * shown + 0.5
    if chosen != "merge":
        return found[chosen]
    far = {name: (c - 0.5).abs() for name, c in found.items()}
    total = far["ir"] + far["vi"]
    return torch.where(total > 0, (far["ir"] * found["ir"] + far["vi"] * found["vi"]) / total.clamp_min(1e-12), 0.5)


@typed
def fuse_files(
    ir: str | Path,  # a file or a folder
    vi: str | Path,  # a file or a folder, as `ir`
    out: str | Path,  # a file or a folder to write to
    model: str | nn.Module = "a2rnet",  # as for `fuse`
    *,
    progress: bool = True,  # a bar on the terminal
    pairs: str | Path | None = None,  # of two folders: a pattern of names or a list, see `match_pairs`
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
        return fuse_folders(ir, vi, out, model, progress=progress, pairs=pairs, **arguments)
    if pairs is not None:
        raise InputError(f"pairs ({pairs}) goes with two folders, but {ir} is a file; leave it out.")
    if out.is_dir() or not out.suffix:
        out = out / _output_name(vi)
    _check_out(out, ir, vi)
    fused = fuse(ir, vi, model, progress=progress, **arguments)
    _say_replaced(out)
    return [fused.save(out, record=True)]


@typed
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
    pairs: str | Path | None = None,  # a pattern of names or a list, see `match_pairs`
    align: str | None = None,
    homography: str | Path | np.ndarray | None = None,  # one for all pairs
    ir_range: str | tuple[float, float] | list | None = None,  # auto and percentiles: of all infrared pictures together
    invert_ir: bool = False,
    colour: str = "auto",
    rgb: bool = False,
    **options: Any,  # of the model
) -> list[Path]:  # the images written
    """Fuse two folders. A pair that fails does not stop the others: all failures are named in one error at the end."""
    ir, vi, out = Path(ir), Path(vi), Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; two folders need a folder to write to.")
    if out.resolve() in (ir.resolve(), vi.resolve()):
        raise InputError(f"{out} holds the sources; give another folder, or they would be overwritten.")
    if pairs is None:
        _check_two(ir, vi)
    sources = _Sources.of(align, homography, ir_range, invert_ir, colour, rgb)
    matched = match_pairs(ir, vi, pairs)
    method = _prepare(model, post, rounding, weights, device, tile, overlap, options)
    limits = _common_limits(sources.ir_range, [first for first, _ in matched.values()], progress)
    images, failures, notes = [], {}, {}
    ours = _made_before(out)
    with _inference(method.module), counting("fusing", len(matched), progress) as count:
        for stem, (first, second) in matched.items():
            try:
                name = f"{stem}{Path(_output_name(second)).suffix}"
                images.append(_one(first, second, out / name, method, sources, limits, notes))
            except Exception as e:  # nothing about one pair may cost the others
                failures[stem] = str(e) if isinstance(e, FusionReproError) else f"{type(e).__name__}: {e}"
            count()
    if images:  # where nothing was fused, the record of an earlier run stays
        _record_folder(method, sources, limits, ir, vi, out, images, failures)
    _say_together(notes, len(matched))
    if strangers := [i["file"] for i in images if i["replaced"] and i["file"] not in ours]:
        notice(f"{out}: {len(strangers)} picture{'s' * (len(strangers) > 1)} that lay there before {'were' if len(strangers) > 1 else 'was'} replaced ({', '.join(strangers[:3])}).")
    if failures:
        told = "; ".join(f"{stem}: {why.rstrip('.')}" for stem, why in list(failures.items())[:5])
        more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
        rest = f", the others are in {out}" if images else ""
        raise FusionReproError(f"{len(failures)} of {len(matched)} pairs failed{rest}: {told}{more}.")
    return [out / i["file"] for i in images]


def _common_limits(ir_range: Range | None, paths: list[Path], progress: bool) -> tuple[float, float] | None:
    """The range of all infrared pictures together; one that cannot be read fails later, by name."""
    if ir_range is None:
        return None

    def samples(path: Path) -> np.ndarray:
        try:
            return read_samples(path)
        except FusionReproError:
            return np.zeros(0, np.float32)

    with counting("reading the range", len(paths) * ir_range.percent, progress) as count:
        return ir_range.limits([lambda p=p: (count(), samples(p))[1] for p in paths])


def _record_folder(method: _Method, sources: _Sources, limits, ir: Path, vi: Path, out: Path, images: list[dict], failures: dict[str, str]) -> None:
    """How the images of a folder were made, and which pairs failed, as fusion.json."""
    common = method.record() | sources.record() | {"ir": str(ir), "vi": str(vi)}
    if limits is not None:
        common["ir_range"] = {"given": sources.ir_range.given, "low": limits[0], "high": limits[1], "over": "the whole set"}
    write_text(_record_path(out / "fusion.json"), json.dumps(common | {"images": images, "failures": failures}, indent=2) + "\n")


def _one(ir: Path, vi: Path, out: Path, method: _Method, sources: _Sources, limits, notes: dict[str, list[str]]) -> dict[str, Any]:
    _check_two(ir, vi)
    _check_out(out, ir, vi)
    fused = _fuse_pair(ir, vi, method, sources, limits)
    for kind, text in fused.kinds.items():
        notes.setdefault(kind, []).append(text)
    replaced = out.exists()
    fused.save(out)
    own = {k: fused.record[k] for k in ("colour", "bits", "shift", "notes", "seconds")}
    return {"file": out.name, "ir": ir.name, "vi": vi.name, "replaced": replaced, **own}


def _say_together(notes: dict[str, list[str]], pairs: int) -> None:
    """What was noted of the pairs of a folder, one line a kind."""
    for kind, texts in notes.items():
        if kind == "polarity" and 2 * len(texts) < pairs:  # a few pictures are like that in any set
            continue
        notice(texts[0] if len(texts) == 1 else f"{texts[0].rstrip('.')} (and {len(texts) - 1} more of {pairs} pairs).")


def _is_ours(path: Path) -> bool:
    """Whether a JSON file is a record of this program."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"model", "weights", "versions"} <= found.keys()


def _record_path(path: Path) -> Path:
    """Where a record goes: to `path`, or beside it where a file lies that is not ours."""
    for place in (path, path.with_name(f"{path.stem}.fusion.json")):
        if not place.exists() or (place.is_file() and _is_ours(place)):
            if place != path:
                notice(f"{path} is no record of this program and stays; the record is {place.name}.")
            return place
    raise InputError(f"{path} and {place.name} beside it are no records of this program; move them, or give another name.")


def _made_before(out: Path) -> set[str]:
    """The pictures in a folder that an earlier run of ours has written."""
    found: set[str] = set()
    for path in (out / "fusion.json", out / "fusion.fusion.json"):
        if _is_ours(path):
            images = json.loads(path.read_text(encoding="utf-8")).get("images", [])
            found |= {i["file"] for i in images if isinstance(i, dict) and isinstance(i.get("file"), str)}
    return found


def _say_replaced(out: Path) -> None:
    """A word before a picture is replaced that no record beside it calls ours."""
    if out.is_file() and not _is_ours(out.with_suffix(".json")) and not _is_ours(out.with_name(f"{out.stem}.fusion.json")):
        notice(f"{out} was there before and is replaced.")


def _output_name(vi: Path) -> str:
    """The visible file's name; PNG where its own format cannot be written or would lose something."""
    lossless = vi.suffix.lower() in DEPTHS and vi.suffix.lower() not in (".jpg", ".jpeg")
    return vi.name if lossless else f"{vi.stem}.png"


def _check_out(out: Path, *sources: Path) -> None:
    if out.suffix.lower() not in DEPTHS:
        raise InputError(f"cannot write {out}: unknown suffix '{out.suffix}'; use {', '.join(DEPTHS)}.")
    if out.exists() and any(source.exists() and out.samefile(source) for source in sources):
        raise InputError(f"{out} is one of the sources; give another name, or it would be overwritten.")
