"""Reading and writing images: every depth as it is, and one clear sentence where that cannot be."""

import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import kornia_rs
import numpy as np
import tifffile
import torch
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from fusionrepro.errors import FusionReproError, InputError, notice, typed
from fusionrepro.files import atomic, check_regular, os_error
from fusionrepro.imaging.post import quantise

__all__ = ["Image", "read_image", "read_samples", "write_image", "as_image", "list_images", "images_by_stem", "match_images", "READ_SUFFIXES", "DEPTHS"]

DEPTHS = {".png": (8, 16), ".tif": (8, 16, 32), ".tiff": (8, 16, 32), ".jpg": (8,), ".jpeg": (8,), ".bmp": (8,)}
READ_SUFFIXES = (*DEPTHS, ".webp")
_FORMATS = ("PNG", "TIFF", "JPEG", "BMP", "WEBP")
_WITH_ALPHA = (".png", ".tif", ".tiff")
_BESIDE = (".json", ".txt", ".csv", ".md", ".xml", ".yaml", ".yml", ".db", ".ini", ".log")  # what lies beside pictures and is none
# EXIF orientation -> what turns the stored rows and columns into the upright picture
_UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@dataclass(frozen=True)
class Image:
    """An image in memory, with what is needed to write it back as it was."""

    pixels: np.ndarray  # (H,W) or (H,W,3), float32, 0..1
    bits: int = 8  # 8, 16, or 32 for floating point
    alpha: np.ndarray | None = None  # (H,W), float32, 0..1
    path: Path | None = None  # the file it was read from
    extra: np.ndarray | None = None  # (H,W), float32, 0..1: a further band that is no alpha, such as near infrared
    icc: bytes | None = None  # the colour profile
    dpi: tuple[float, float] | None = None  # pixels an inch, across and down
    notes: tuple[str, ...] = ()  # what a user should know of the file

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[:2]

    def __str__(self) -> str:
        return f"{self.path or 'array'} ({self.size[1]}x{self.size[0]})"


@dataclass(frozen=True)
class _Stored:
    """A file's content before anything is made of it."""

    samples: np.ndarray  # (H,W) or (H,W,C), as stored; the colours first, then alpha where there is one
    orientation: int = 1  # EXIF's, still to be applied
    alpha: str = "straight"  # of a second or fourth channel: straight or premultiplied
    extra: np.ndarray | None = None  # (H,W), as stored: a band that is no alpha
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


Limits = tuple[float, float]


@typed
def read_image(
    path: str | Path,
    limits: Limits | None = None,  # the samples that become 0 and 1, in the file's own units; None: the range of its type
) -> Image:
    """Read a PNG, TIFF, JPEG, BMP or WebP file; what it is is told by its content, not by its name.

    Raises
    ------
    InputError
        when the file is missing, empty, broken, no image, or of a kind that cannot be read without loss.
    """
    return _reading(Path(path), lambda stored: _image(stored, Path(path), limits))


@typed
def read_samples(path: str | Path) -> np.ndarray:
    """(H,W), float32: the samples of a file in its own units, the luminance of colours; InputError as `read_image`."""

    def samples(stored: _Stored) -> np.ndarray:
        x = stored.samples.astype(np.float32)
        x = x[..., None] if x.ndim == 2 else x
        return x[..., :3] @ np.float32([0.299, 0.587, 0.114]) if x.shape[2] > 2 else x[..., 0]

    return _reading(Path(path), samples)


def _reading(path: Path, make):
    """What `make` makes of the file's content, with every failure as one sentence."""
    _check_readable(path)
    try:
        return make(_decode(path))
    except FusionReproError:
        raise
    except MemoryError:
        raise InputError(f"{path} asks for more memory than there is; it is damaged, or must be cut up first.") from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is not an image that can be read; give a PNG, TIFF, JPEG or BMP file.") from None
    except Pillow.DecompressionBombError:
        raise InputError(f"{path} has more pixels than Pillow allows; cut it up or raise PIL.Image.MAX_IMAGE_PIXELS.") from None
    except Exception as e:  # decoders raise nearly anything on a damaged file
        raise InputError(f"{path} is damaged or cut off ({_sentence(e)}); get the file again.") from e


def _image(stored: _Stored, path: Path, limits: Limits | None) -> Image:
    """The upright picture with all that belongs to it."""
    upright = _UPRIGHT.get(stored.orientation, lambda a: a)
    image = as_image(upright(stored.samples), str(path), path, limits)
    pixels, alpha, notes = image.pixels, image.alpha, list(stored.notes)
    if alpha is not None and not alpha.any():
        alpha = None
        notes.append(f"{path} is transparent everywhere; its alpha is left away.")
    if alpha is not None and stored.alpha == "premultiplied":
        share = alpha if pixels.ndim == 2 else alpha[..., None]
        pixels = quantise(torch.from_numpy(np.divide(pixels, share, out=np.zeros_like(pixels), where=share > 0)), image.bits).numpy()
    extra = None if stored.extra is None else as_image(upright(stored.extra), str(path)).pixels
    turned = stored.dpi[::-1] if stored.dpi and stored.orientation >= 5 else stored.dpi
    return Image(pixels, image.bits, alpha, path, extra, stored.icc, turned, tuple(notes))


def _sentence(e: Exception) -> str:
    return str(e).strip().splitlines()[0].rstrip(".") if str(e).strip() else type(e).__name__


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path} does not exist; check the name.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give an image file.")
    check_regular(path)
    try:
        with open(path, "rb") as f:
            if not f.read(1):
                raise InputError(f"{path} is empty (0 bytes); get the file again.")
    except PermissionError:
        raise InputError(f"{path} may not be read; change its permissions.") from None


def _decode(path: Path) -> _Stored:
    """The samples as stored, uint8, uint16 or float, with channels last."""
    with open(path, "rb") as f:
        head = f.read(26)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _decode_tiff(path)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 26 and head[24] == 16:
        return _decode_png16(path, colour_type=head[25])
    return _decode_pillow(path)


def _decode_pillow(path: Path) -> _Stored:
    with Pillow.open(path, formats=_FORMATS) as image:
        # A phone's MPO is a JPEG with further views behind the first.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise InputError(f"{path} holds {image.n_frames} pictures; save the one you mean as its own file.")
        image.load()
        notes = _radiometric(image, path)
        orientation, icc, dpi = _orientation(image), image.info.get("icc_profile"), _dpi(image)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    elif image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(f"{path} has the colour mode {image.mode}; convert it to grey or RGB.")
    return _Stored(np.asarray(image), orientation, icc=icc, dpi=dpi, notes=notes)


def _orientation(image: Pillow.Image) -> int:
    """EXIF's number, 1 for what is none."""
    found = image.getexif().get(0x0112, 1)
    return found if found in _UPRIGHT else 1


def _dpi(image: Pillow.Image) -> tuple[float, float] | None:
    """Pixels an inch; None where the file does not say, or says nonsense."""
    try:
        across, down = (float(v) for v in image.info.get("dpi", ()))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 <= across < 1e6 and 1 <= down < 1e6 else None


def _radiometric(image: Pillow.Image, path: Path) -> tuple[str, ...]:
    """A word about raw thermal data in a JPEG of a thermal camera, which has only a picture for the eye as its image."""
    parts = getattr(image, "applist", ())
    flir = any(name == "APP1" and data.startswith(b"FLIR\0") for name, data in parts)
    dji = any(name == "APP3" for name, _ in parts) and any(b"drone-dji" in data for _, data in parts)
    if not flir and not dji:
        return ()
    return (f"{path} is a radiometric JPEG: read was its preview for the eye, not the raw thermal data of its {'FLIR' if flir else 'DJI'} segment; "
            "export these as a 16-bit TIFF.",)  # fmt: skip


def _decode_png16(path: Path, colour_type: int) -> _Stored:
    # Pillow cuts 16-bit colour down to 8 bits, so only what stands beside the samples is asked from it.
    with Pillow.open(path, formats=["PNG"]) as image:
        image.load()
        orientation, icc, dpi = _orientation(image), image.info.get("icc_profile"), _dpi(image)
    modes = {0: "mono", 2: "rgb", 6: "rgba"}
    if colour_type not in modes:
        raise InputError(f"{path} is 16-bit grey with transparency, which cannot be read; save it without transparency or as RGBA.")
    with _plainly_named(path) as name:
        samples = kornia_rs.io.read_image_png_u16(name, modes[colour_type])
    return _Stored(samples, orientation, icc=icc, dpi=dpi)


def _decode_tiff(path: Path) -> _Stored:
    with tifffile.TiffFile(path) as tiff:
        pages = len(tiff.pages)
        if pages > 1:
            raise InputError(f"{path} holds {pages} pictures; save the one you mean as its own file.")
        page = tiff.pages[0]
        colours = 3 if page.photometric.name == "RGB" else 1
        more = page.samplesperpixel - colours
        plain = page.photometric.name in ("MINISBLACK", "MINISWHITE", "RGB")
        # Pillow knows more codecs, but drops or bends a band beside the colours.
        if page.dtype in (np.uint8, np.bool_) and not (plain and more > 0 and page.compression in (1, 8, 32946)):
            return _decode_pillow(path)
        if page.dtype is None or page.dtype.kind not in "uif" or not plain:
            raise InputError(f"{path} holds {page.photometric.name} samples of type {page.dtype}; convert it to 8 or 16 bit or to float, grey or RGB.")
        if more > 1:
            raise InputError(f"{path} holds {page.samplesperpixel} bands, of which {colours} make a picture; save the bands you mean as their own files.")
        stored = _tiff_samples(path, page)
        if page.planarconfig == 2 and stored.ndim == 3:
            stored = np.moveaxis(stored, 0, -1)
        if page.photometric.name == "MINISWHITE":
            stored = np.iinfo(stored.dtype).max - stored if stored.dtype.kind == "u" else 1 - stored
        kinds = {1: "premultiplied", 2: "straight"}
        alpha = kinds.get(int(page.extrasamples[0])) if more == 1 and page.extrasamples else None
        extra, notes = None, ()
        if more == 1 and alpha is None:
            stored, extra = stored[..., :colours], stored[..., colours]
            notes = (f"{path} has a band beside its {'colours' if colours == 3 else 'grey levels'} that is not marked as alpha; it is left away.",)
        tag = page.tags.get("Orientation")
        orientation = int(tag.value) if tag and tag.value in _UPRIGHT else 1
        icc = page.tags.get(34675)
        return _Stored(stored, orientation, alpha or "straight", extra, icc and bytes(icc.value), _tiff_dpi(page), notes)


def _tiff_dpi(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Pixels an inch; None where the file does not say, or says nonsense."""
    try:
        scale = {2: 1.0, 3: 2.54}[int(page.tags["ResolutionUnit"].value)]
        across, down = (scale * a / b for a, b in (page.tags[t].value for t in ("XResolution", "YResolution")))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 <= across < 1e6 and 1 <= down < 1e6 else None


def _tiff_samples(path: Path, page: tifffile.TiffPage) -> np.ndarray:
    try:
        return page.asarray()
    except (KeyError, ValueError) as e:
        # tifffile leaves LZW and some other codecs to a package of its own; kornia's reader knows LZW.
        if "imagecodecs" not in str(e):
            raise
        if page.dtype != np.uint16 or page.samplesperpixel not in (1, 3):
            raise InputError(f"{path} is compressed with {page.compression.name}; save it uncompressed or with deflate.") from None
        with _plainly_named(path) as name:
            return kornia_rs.io.read_image_tiff_u16(name, "mono" if page.samplesperpixel == 1 else "rgb")


@contextmanager
def _plainly_named(path: Path) -> Iterator[str]:
    """The name of a file for a reader that knows UTF-8 only: a copy's where the name has other bytes."""
    try:
        str(path).encode()
        yield str(path)
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            yield shutil.copyfile(path, f"{folder}/copy{path.suffix}")


@typed
def as_image(
    array: np.ndarray,  # (H,W), (H,W,1), (H,W,2) with alpha, (H,W,3) or (H,W,4) with alpha: uint8, uint16, bool, or float in 0..1
    name: str = "the image",  # in messages
    path: Path | None = None,
    limits: Limits | None = None,  # the samples that become 0 and 1, for whole numbers and floats of any range
) -> Image:
    """Samples of any usual type and layout as an `Image`."""
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise InputError(f"{name} has the shape {array.shape}; give (H,W) or (H,W,3).")
    samples, bits = _to_unit(array, name) if limits is None else (_scaled(array, name, limits), 32)
    colours, alpha = samples, None
    if samples.shape[2] in (2, 4):
        colours, alpha = samples[..., :-1], np.ascontiguousarray(samples[..., -1])
    pixels = colours[..., 0] if colours.shape[2] == 1 else colours
    return Image(np.ascontiguousarray(pixels), bits, alpha, path)


def _scaled(array: np.ndarray, name: str, limits: Limits) -> np.ndarray:
    """The samples between two limits as 0..1, what lies beyond clipped; an alpha channel by the range of its type."""
    low, high = (float(v) for v in limits)
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f"the range {low:g}:{high:g} of {name} must be LOW:HIGH with LOW below HIGH.")
    if array.dtype.kind not in "uif":
        raise InputError(f"{name} holds {array.dtype} values, which have no range; give whole numbers or floats.")
    if not np.isfinite(array).all():
        raise InputError(f"{name} contains NaN or infinite values; replace them first.")
    scaled = ((array.astype(np.float64) - low) / (high - low)).clip(0, 1).astype(np.float32)
    if array.shape[2] in (2, 4):
        scaled[..., -1] = array[..., -1].astype(np.float32) / (np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1)
    return scaled


def _to_unit(array: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    if array.dtype in (np.uint8, np.uint16):
        return array.astype(np.float32) / np.iinfo(array.dtype).max, array.dtype.itemsize * 8
    if array.dtype == np.bool_:
        return array.astype(np.float32), 8
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name} holds {array.dtype} values; give uint8, uint16 or float in 0..1, or say its range (limits=(LOW, HIGH); of a first source --ir-range LOW:HIGH).")
    if not np.isfinite(array).all():
        raise InputError(f"{name} contains NaN or infinite values; replace them first.")
    if array.min() < 0 or array.max() > 1:
        raise InputError(f"{name} has values from {array.min():.4g} to {array.max():.4g}; scale them to 0..1 first, or say their range (limits=(LOW, HIGH); of a first source --ir-range LOW:HIGH).")
    return array.astype(np.float32), 32


@typed
def write_image(
    path: str | Path,  # .png, .tif, .tiff, .jpg, .jpeg or .bmp
    pixels: np.ndarray,  # (H,W) or (H,W,3), float in 0..1; beyond is clipped
    bits: int = 8,  # 8, 16 (PNG, TIFF) or 32 (floating-point TIFF)
    rounding: str = "round",  # `round` or `floor`
    alpha: np.ndarray | None = None,  # (H,W), 0..1: written where the format can hold it
    quality: int = 95,  # of a JPEG file
    icc: bytes | None = None,  # a colour profile: written where it is one for these channels and the format can hold it
    dpi: tuple[float, float] | None = None,  # pixels an inch, across and down
) -> Path:  # the path written
    """Write an image atomically; InputError, before anything is written, where the format cannot hold it."""
    path = Path(path)
    suffix = path.suffix.lower()
    _check_writable(path, suffix, bits)
    pixels = np.asarray(pixels)
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if (pixels.ndim, *pixels.shape[2:]) not in ((2,), (3, 3)) or 0 in pixels.shape:
        raise InputError(f"cannot write {path}: the pixels have the shape {pixels.shape}; give (H,W) or (H,W,3).")
    if not np.isfinite(pixels).all():
        raise InputError(f"cannot write {path}: the image contains NaN or infinite values.")
    samples = _from_unit(pixels, bits, rounding)
    if alpha is not None and suffix in _WITH_ALPHA:
        if samples.ndim == 2 and bits == 16 and suffix == ".png":  # no writer here knows 16-bit grey with alpha
            samples = np.repeat(samples[..., None], 3, axis=2)
        samples = np.dstack([samples, _from_unit(np.asarray(alpha), bits, "round")])
    with atomic(path) as temporary:
        _encode(temporary, suffix, samples, quality, icc if _profile_fits(icc, samples) else None, dpi)
    return path


def _profile_fits(icc: bytes | None, samples: np.ndarray) -> bool:
    """Whether a profile speaks of the colours that these channels are."""
    colours = b"RGB " if samples.ndim == 3 and samples.shape[2] >= 3 else b"GRAY"
    return icc is not None and len(icc) >= 128 and icc[16:20] == colours


def _check_writable(path: Path, suffix: str, bits: int) -> None:
    if suffix not in DEPTHS:
        raise InputError(f"cannot write {path}: unknown suffix '{path.suffix}'; use {', '.join(DEPTHS)}.")
    if bits not in (8, 16, 32):
        raise InputError(f"bits must be 8, 16 or 32, not {bits}.")
    if bits not in DEPTHS[suffix]:
        deep = [s for s in (".png", ".tif") if bits in DEPTHS[s]]
        raise InputError(f"cannot write {path}: {suffix} holds {DEPTHS[suffix][-1]} bits a sample, not {bits}; use {' or '.join(deep)}.")


def _from_unit(x: np.ndarray, bits: int, rounding: str) -> np.ndarray:
    x = np.ascontiguousarray(x, dtype=np.float32)
    levels = quantise(torch.from_numpy(x), bits, rounding).numpy()
    return levels if bits == 32 else np.rint(levels * (2**bits - 1)).astype(f"uint{bits}")


def _encode(path: Path, suffix: str, samples: np.ndarray, quality: int, icc: bytes | None = None, dpi: tuple[float, float] | None = None) -> None:
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    if suffix in (".tif", ".tiff"):
        extra = {"extrasamples": ["unassalpha"]} if channels in (2, 4) else {}
        extra |= {"resolution": dpi, "resolutionunit": "inch"} if dpi else {}
        photometric = "rgb" if channels >= 3 else "minisblack"
        tifffile.imwrite(path, samples, photometric=photometric, compression="zlib", metadata=None, planarconfig="contig" if channels > 1 else None,
                         iccprofile=icc, **extra)  # fmt: skip
    elif samples.dtype == np.uint16:
        mode = {1: "mono", 3: "rgb", 4: "rgba"}[channels]
        try:
            kornia_rs.io.write_image_png_u16(str(path), np.ascontiguousarray(samples).reshape(*samples.shape[:2], channels), mode)
        except Exception as e:
            raise os_error(e) from e
        _add_chunks(path, icc, dpi)
    else:
        options = {"quality": quality, "subsampling": 0} if suffix in (".jpg", ".jpeg") else {}
        options |= {"icc_profile": icc} if icc and suffix != ".bmp" else {}
        options |= {"dpi": tuple(round(v) for v in dpi) if suffix in (".jpg", ".jpeg") else dpi} if dpi else {}
        Pillow.fromarray(samples).save(path, **options)


def _add_chunks(path: Path, icc: bytes | None, dpi: tuple[float, float] | None) -> None:
    """Profile and resolution into a PNG that has none, behind its header."""
    chunks = []
    if icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(v / 0.0254) for v in dpi), 1)))  # pixels a metre
    if chunks:
        content, header = path.read_bytes(), 33  # signature and IHDR
        made = b"".join(struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
        path.write_bytes(content[:header] + made + content[header:])


@typed
def list_images(folder: str | Path) -> list[Path]:
    """The images directly in a folder, sorted by name; InputError for no folder or none in it."""
    found = sorted(p for p in _entries(folder) if p.suffix.lower() in READ_SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"{folder} holds no image ({', '.join(READ_SUFFIXES)}); give the folder where they lie.")
    return found


def _entries(folder: str | Path) -> list[Path]:
    """What lies in a folder, without what is hidden."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; check the name.")
    try:
        return [p for p in folder.iterdir() if not p.name.startswith(".")]
    except PermissionError:
        raise InputError(f"{folder} may not be read; change its permissions.") from None


def left_out(folder: str | Path) -> str:
    """What of a folder `list_images` does not give, in one sentence; empty where that is nothing."""
    others, folders, strange, closed = [], [], [], []
    for p in sorted(_entries(folder)):
        known = p.suffix.lower() in READ_SUFFIXES
        if p.is_dir():
            folders.append(p)
        elif not p.is_file():
            strange.append(p)
        elif not known and p.suffix.lower() not in _BESIDE:
            others.append(p)
        elif known and not os.access(p, os.R_OK):
            closed.append(p)
    parts = [_some(others, "file", "of another kind"), _some(folders, "subfolder"), _some(strange, "entry", "that is no file"), _some(closed, "file", "that may not be read")]
    parts = [p for p in parts if p]
    return f"{folder}: left out {' and '.join([', '.join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)}." if parts else ""


def _some(paths: list[Path], noun: str, what: str = "") -> str:
    """`2 files of another kind (a.jp2, b.pgm)`."""
    if not paths:
        return ""
    names = ", ".join(p.name for p in paths[:3]) + (", …" if len(paths) > 3 else "")
    plural = noun if len(paths) == 1 else f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return " ".join(w for w in (str(len(paths)), plural, what, f"({names})") if w)


@typed
def images_by_stem(folder: str | Path) -> dict[str, Path]:
    """The images of a folder by their name before the suffix; what is left out is said; InputError for two of one stem."""
    found: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in found:
            raise InputError(f"{folder} holds both {found[path.stem].name} and {path.name}; keep one of them.")
        found[path.stem] = path
    if said := left_out(folder):
        notice(said)
    return found


@typed
def match_images(first: str | Path, second: str | Path) -> dict[str, tuple[Path, Path]]:
    """Partners of two folders by stem, sorted; InputError for an image without a partner."""
    mine, theirs = images_by_stem(first), images_by_stem(second)
    for here, there, folder in ((mine, theirs, second), (theirs, mine, first)):
        if alone := sorted(here[stem].name for stem in here.keys() - there.keys()):
            more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
            stems = {Path(name).stem for name in alone}
            unread = [p.name for p in sorted(_entries(folder)) if p.stem in stems and p.suffix.lower() not in _BESIDE]
            mend = f"{unread[0]} there is of a kind that cannot be read: convert it to PNG or TIFF" if unread else "partners have the same file name: rename, add or remove them"
            raise InputError(f"{folder} has no partner for {', '.join(alone[:3])}{more}; {mend}.")
    return {stem: (mine[stem], theirs[stem]) for stem in sorted(mine)}
