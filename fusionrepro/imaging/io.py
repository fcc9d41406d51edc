"""Reading and writing images: every depth as it is, and one clear sentence where that cannot be."""

from dataclasses import dataclass
from pathlib import Path

import kornia_rs
import numpy as np
import tifffile
import torch
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from fusionrepro.errors import FusionReproError, InputError
from fusionrepro.files import atomic, os_error
from fusionrepro.imaging.post import quantise

__all__ = ["Image", "read_image", "write_image", "as_image", "list_images", "images_by_stem", "match_images", "READ_SUFFIXES", "DEPTHS"]

DEPTHS = {".png": (8, 16), ".tif": (8, 16, 32), ".tiff": (8, 16, 32), ".jpg": (8,), ".jpeg": (8,), ".bmp": (8,)}
READ_SUFFIXES = (*DEPTHS, ".webp")
_FORMATS = ("PNG", "TIFF", "JPEG", "BMP", "WEBP")
_WITH_ALPHA = (".png", ".tif", ".tiff")
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

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[:2]

    def __str__(self) -> str:
        return f"{self.path or 'array'} ({self.size[1]}x{self.size[0]})"


def read_image(path: str | Path) -> Image:
    """Read a PNG, TIFF, JPEG, BMP or WebP file; what it is is told by its content, not by its name.

    Raises
    ------
    InputError
        when the file is missing, empty, broken, no image, or of a kind that cannot be read without loss.
    """
    path = Path(path)
    _check_readable(path)
    try:
        decoded, orientation = _decode(path)
        return as_image(_UPRIGHT.get(orientation, lambda a: a)(decoded), str(path), path)
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


def _sentence(e: Exception) -> str:
    return str(e).strip().splitlines()[0].rstrip(".") if str(e).strip() else type(e).__name__


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path} does not exist; check the name.")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give an image file.")
    try:
        with open(path, "rb") as f:
            if not f.read(1):
                raise InputError(f"{path} is empty (0 bytes); get the file again.")
    except PermissionError:
        raise InputError(f"{path} may not be read; change its permissions.") from None


def _decode(path: Path) -> tuple[np.ndarray, int]:
    """The samples as stored (uint8, uint16 or float) with channels last, and the orientation still to be applied."""
    with open(path, "rb") as f:
        head = f.read(26)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _decode_tiff(path)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 26 and head[24] == 16:
        return _decode_png16(path, colour_type=head[25])
    return _decode_pillow(path), 1


def _decode_pillow(path: Path) -> np.ndarray:
    with Pillow.open(path, formats=_FORMATS) as image:
        # A phone's MPO is a JPEG with further views behind the first.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise InputError(f"{path} holds {image.n_frames} pictures; save the one you mean as its own file.")
        image.load()
        image = ImageOps.exif_transpose(image)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    elif image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(f"{path} has the colour mode {image.mode}; convert it to grey or RGB.")
    return np.asarray(image)


def _decode_png16(path: Path, colour_type: int) -> tuple[np.ndarray, int]:
    # Pillow cuts 16-bit colour down to 8 bits, so only the orientation is asked from it.
    with Pillow.open(path, formats=["PNG"]) as image:
        image.load()
        orientation = image.getexif().get(0x0112, 1)
    modes = {0: "mono", 2: "rgb", 6: "rgba"}
    if colour_type not in modes:
        raise InputError(f"{path} is 16-bit grey with transparency, which cannot be read; save it without transparency or as RGBA.")
    return kornia_rs.io.read_image_png_u16(str(path), modes[colour_type]), orientation


def _decode_tiff(path: Path) -> tuple[np.ndarray, int]:
    with tifffile.TiffFile(path) as tiff:
        pages = len(tiff.pages)
        if pages > 1:
            raise InputError(f"{path} holds {pages} pictures; save the one you mean as its own file.")
        page = tiff.pages[0]
        if page.dtype in (np.uint8, np.bool_) or page.photometric.name == "PALETTE":
            return _decode_pillow(path), 1
        if page.dtype not in (np.uint16, np.float16, np.float32, np.float64) or page.photometric.name not in ("MINISBLACK", "MINISWHITE", "RGB"):
            raise InputError(f"{path} holds {page.photometric.name} samples of type {page.dtype}; convert it to 8 or 16 bit or to float, grey or RGB.")
        stored = _tiff_samples(path, page)
        if page.planarconfig == 2 and stored.ndim == 3:
            stored = np.moveaxis(stored, 0, -1)
        if page.photometric.name == "MINISWHITE":
            stored = np.iinfo(stored.dtype).max - stored if stored.dtype == np.uint16 else 1 - stored
        tag = page.tags.get("Orientation")
        return stored, int(tag.value) if tag else 1


def _tiff_samples(path: Path, page: tifffile.TiffPage) -> np.ndarray:
    try:
        return page.asarray()
    except (KeyError, ValueError) as e:
        # tifffile leaves LZW and some other codecs to a package of its own; kornia's reader knows LZW.
        if "imagecodecs" not in str(e):
            raise
        if page.dtype != np.uint16 or page.samplesperpixel not in (1, 3):
            raise InputError(f"{path} is compressed with {page.compression.name}; save it uncompressed or with deflate.") from None
        return kornia_rs.io.read_image_tiff_u16(str(path), "mono" if page.samplesperpixel == 1 else "rgb")


def as_image(array: np.ndarray, name: str = "the image", path: Path | None = None) -> Image:
    """Samples of any usual type and layout as an `Image`.

    `array` is (H,W), (H,W,1), (H,W,2) with alpha, (H,W,3) or (H,W,4) with alpha: uint8, uint16, bool, or float in 0..1.
    """
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise InputError(f"{name} has the shape {array.shape}; give (H,W) or (H,W,3).")
    samples, bits = _to_unit(array, name)
    colours, alpha = samples, None
    if samples.shape[2] in (2, 4):
        colours, alpha = samples[..., :-1], np.ascontiguousarray(samples[..., -1])
    pixels = colours[..., 0] if colours.shape[2] == 1 else colours
    return Image(np.ascontiguousarray(pixels), bits, alpha, path)


def _to_unit(array: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    if array.dtype in (np.uint8, np.uint16):
        return array.astype(np.float32) / np.iinfo(array.dtype).max, array.dtype.itemsize * 8
    if array.dtype == np.bool_:
        return array.astype(np.float32), 8
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name} holds {array.dtype} values; give uint8, uint16 or float in 0..1.")
    if not np.isfinite(array).all():
        raise InputError(f"{name} contains NaN or infinite values; replace them first.")
    if array.min() < 0 or array.max() > 1:
        raise InputError(f"{name} has values from {array.min():.4g} to {array.max():.4g}; scale them to 0..1 first.")
    return array.astype(np.float32), 32


def write_image(
    path: str | Path,  # .png, .tif, .tiff, .jpg, .jpeg or .bmp
    pixels: np.ndarray,  # (H,W) or (H,W,3), float in 0..1; beyond is clipped
    bits: int = 8,  # 8, 16 (PNG, TIFF) or 32 (floating-point TIFF)
    rounding: str = "round",  # `round` or `floor`
    alpha: np.ndarray | None = None,  # (H,W), 0..1: written where the format can hold it
    quality: int = 95,  # of a JPEG file
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
        _encode(temporary, suffix, samples, quality)
    return path


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


def _encode(path: Path, suffix: str, samples: np.ndarray, quality: int) -> None:
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    if suffix in (".tif", ".tiff"):
        extra = {"extrasamples": ["unassalpha"]} if channels in (2, 4) else {}
        photometric = "rgb" if channels >= 3 else "minisblack"
        tifffile.imwrite(path, samples, photometric=photometric, compression="zlib", metadata=None, planarconfig="contig" if channels > 1 else None, **extra)
    elif samples.dtype == np.uint16:
        mode = {1: "mono", 3: "rgb", 4: "rgba"}[channels]
        try:
            kornia_rs.io.write_image_png_u16(str(path), np.ascontiguousarray(samples).reshape(*samples.shape[:2], channels), mode)
        except Exception as e:
            raise os_error(e) from e
    else:
        options = {"quality": quality, "subsampling": 0} if suffix in (".jpg", ".jpeg") else {}
        Pillow.fromarray(samples).save(path, **options)


def list_images(folder: str | Path) -> list[Path]:
    """The images directly in a folder, sorted by name; InputError for no folder or none in it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; check the name.")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in READ_SUFFIXES and not p.name.startswith(".") and p.is_file())
    if not found:
        raise InputError(f"{folder} holds no image ({', '.join(READ_SUFFIXES)}); give the folder where they lie.")
    return found


def images_by_stem(folder: str | Path) -> dict[str, Path]:
    """The images of a folder by their name before the suffix; InputError for two of one stem."""
    found: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in found:
            raise InputError(f"{folder} holds both {found[path.stem].name} and {path.name}; keep one of them.")
        found[path.stem] = path
    return found


def match_images(first: str | Path, second: str | Path) -> dict[str, tuple[Path, Path]]:
    """Partners of two folders by stem, sorted; InputError for an image without a partner."""
    mine, theirs = images_by_stem(first), images_by_stem(second)
    for here, there, folder in ((mine, theirs, second), (theirs, mine, first)):
        if alone := sorted(here[stem].name for stem in here.keys() - there.keys()):
            more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
            raise InputError(f"{folder} has no partner for {', '.join(alone[:3])}{more}; partners have the same file name: rename, add or remove them.")
    return {stem: (mine[stem], theirs[stem]) for stem in sorted(mine)}
