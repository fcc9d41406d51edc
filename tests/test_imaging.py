"""Images in and out: every depth bit for bit, and one sentence for what cannot be used."""

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from fusionrepro.errors import FusionReproError, InputError
from fusionrepro.imaging.io import as_image, list_images, read_image, write_image

RNG = np.random.default_rng(0)


def samples(bits: int, channels: int, size=(5, 7)) -> np.ndarray:
    shape = size if channels == 1 else (*size, channels)
    a = RNG.integers(0, 2**bits, shape).astype(f"uint{bits}")
    a.flat[0], a.flat[1] = 0, 2**bits - 1
    return a


@pytest.mark.parametrize("size", [(1, 1), (5, 7)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix, bits", [(".png", 8), (".png", 16), (".tif", 8), (".tiff", 16), (".bmp", 8)])
@pytest.mark.parametrize("rounding", ["round", "floor"])
def test_depth_is_kept_bit_for_bit(tmp_path, suffix, bits, channels, size, rounding):
    a = RNG.integers(0, 2**bits, size if channels == 1 else (*size, channels)).astype(f"uint{bits}")
    path = tmp_path / f"a{suffix}"
    write_image(path, as_image(a).pixels, bits, rounding)
    back = read_image(path)
    assert back.bits == bits and back.pixels.dtype == np.float32
    assert np.array_equal(np.rint(back.pixels * (2**bits - 1)).astype(a.dtype), a)
    if suffix.startswith(".tif"):
        assert np.array_equal(tifffile.imread(path), a)  # another reader sees the same
    elif bits == 8:
        assert np.array_equal(np.asarray(Pillow.open(path)), a)
    elif channels == 1:
        assert np.array_equal(np.asarray(Pillow.open(path), dtype=np.uint16), a)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("suffix, bits", [(".png", 8), (".png", 16), (".tif", 8), (".tif", 16)])
def test_alpha_is_kept_aside_and_written_back(tmp_path, suffix, bits, channels):
    image = as_image(samples(bits, channels))
    path = write_image(tmp_path / f"a{suffix}", image.pixels, bits, alpha=image.alpha)
    back = read_image(path)
    assert back.bits == bits
    assert np.array_equal(back.alpha, image.alpha)
    grey = back.pixels if back.pixels.ndim == image.pixels.ndim else back.pixels[..., 0]
    assert np.array_equal(grey, image.pixels)


def test_formats_without_alpha_drop_it(tmp_path):
    image = as_image(samples(8, 4))
    for suffix in (".bmp", ".jpg"):
        assert read_image(write_image(tmp_path / f"a{suffix}", image.pixels, alpha=image.alpha)).alpha is None


def test_float_tiff(tmp_path):
    a = RNG.random((5, 7), dtype=np.float32)
    back = read_image(write_image(tmp_path / "a.tif", a, bits=32))
    assert back.bits == 32 and np.array_equal(back.pixels, a)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "L", "RGB"])
def test_all_common_modes(tmp_path, mode):
    source = Pillow.fromarray(samples(8, 3 if mode == "P" else 4, (8, 8))).convert(mode)
    source.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    colour = mode in ("P", "RGB", "RGBA")
    expected = np.asarray(source.convert("RGB" if colour else "L"))
    assert image.bits == 8 and np.array_equal(np.rint(image.pixels * 255), expected)
    assert (image.alpha is not None) == (mode in ("LA", "RGBA"))


def test_palette_with_a_transparent_entry(tmp_path):
    source = Pillow.fromarray(samples(8, 3, (8, 8))).quantize(8)
    source.save(tmp_path / "a.png", transparency=0)
    assert set(np.unique(read_image(tmp_path / "a.png").alpha)) == {0.0, 1.0}


def test_lzw_tiff_of_16_bits(tmp_path):
    a = samples(16, 1, (40, 30))
    Pillow.fromarray(a).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert np.array_equal(np.rint(read_image(tmp_path / "a.tif").pixels * 65535), a)


def test_tiff_with_separate_planes_and_with_white_as_zero(tmp_path):
    a = samples(16, 3)
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(a, -1, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(np.rint(read_image(tmp_path / "a.tif").pixels * 65535), a)
    tifffile.imwrite(tmp_path / "b.tif", a[..., 0], photometric="miniswhite")
    assert np.array_equal(np.rint(read_image(tmp_path / "b.tif").pixels * 65535), 65535 - a[..., 0].astype(int))


def exif(orientation: int) -> bytes:
    e = Pillow.Exif()
    e[0x0112] = orientation
    return e.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_honoured(tmp_path, orientation):
    from PIL import ImageOps

    a = samples(8, 3)
    Pillow.fromarray(a).save(tmp_path / "a.png", exif=exif(orientation))
    upright = np.asarray(ImageOps.exif_transpose(Pillow.open(tmp_path / "a.png")))
    assert np.array_equal(np.rint(read_image(tmp_path / "a.png").pixels * 255), upright)
    Pillow.fromarray(a).save(tmp_path / "a8.tif", tiffinfo={274: orientation})
    assert np.array_equal(np.rint(read_image(tmp_path / "a8.tif").pixels * 255), upright)
    Pillow.fromarray(a[..., 0].astype(np.uint16) * 257).save(tmp_path / "a16.png", exif=exif(orientation))
    assert np.array_equal(np.rint(read_image(tmp_path / "a16.png").pixels * 255), upright[..., 0])
    tifffile.imwrite(tmp_path / "a.tif", a.astype(np.uint16) * 257, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    assert np.array_equal(np.rint(read_image(tmp_path / "a.tif").pixels * 255), upright)


def refuses(path, words):
    with pytest.raises(InputError, match=words) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and message.count(". ") == 0


def test_files_that_are_no_images(tmp_path):
    refuses(tmp_path / "missing.png", "does not exist")
    refuses(tmp_path, "is a folder")
    (tmp_path / "empty.png").touch()
    refuses(tmp_path / "empty.png", "0 bytes")
    (tmp_path / "text.png").write_text("not an image at all, whatever its name says")
    refuses(tmp_path / "text.png", "not an image")


@pytest.mark.parametrize("suffix, bits", [(".png", 8), (".png", 16), (".jpg", 8), (".bmp", 8), (".tif", 8), (".tif", 16), (".tif", 32)])
def test_truncated_files(tmp_path, suffix, bits):
    path = write_image(tmp_path / f"a{suffix}", RNG.random((60, 70, 3), dtype=np.float32), bits)
    whole = path.read_bytes()
    for share in (0.01, 0.3, 0.9):
        path.write_bytes(whole[: max(int(len(whole) * share), 1)])
        refuses(path, "damaged|not an image")


def test_truncated_plain_tiff(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, samples(16, 3, (60, 70)))
    path.write_bytes(path.read_bytes()[:-500])
    refuses(path, "damaged")


def test_kinds_that_would_lose_something(tmp_path):
    Pillow.new("CMYK", (4, 4)).save(tmp_path / "cmyk.jpg")
    refuses(tmp_path / "cmyk.jpg", "CMYK")
    tifffile.imwrite(tmp_path / "int.tif", np.zeros((4, 4), np.int32))
    refuses(tmp_path / "int.tif", "int32")
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((3, 4, 5), np.uint16), photometric="minisblack")
    refuses(tmp_path / "stack.tif", "3 pictures")
    bad = np.full((4, 4), np.nan, np.float32)
    tifffile.imwrite(tmp_path / "nan.tif", bad)
    refuses(tmp_path / "nan.tif", "NaN")
    tifffile.imwrite(tmp_path / "range.tif", np.full((4, 4), 300, np.float32))
    refuses(tmp_path / "range.tif", "scale them to 0..1")


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    a = np.zeros((4, 4), np.float32)
    for name, bits, words in [("a.gif", 8, "unknown suffix"), ("a", 8, "unknown suffix"), ("a.jpg", 16, "8 bits"), ("a.png", 32, "tif"), ("a.png", 12, "8, 16 or 32")]:
        with pytest.raises(InputError, match=words):
            write_image(tmp_path / name, a, bits)
    with pytest.raises(InputError, match="NaN"):
        write_image(tmp_path / "a.png", np.full((4, 4), np.inf))
    with pytest.raises(InputError, match="shape"):
        write_image(tmp_path / "a.png", np.zeros((2, 4, 4)))
    (tmp_path / "file").touch()
    with pytest.raises(FusionReproError, match="cannot write"):
        write_image(tmp_path / "file" / "a.png", a)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    import fusionrepro.imaging.io as io

    old = write_image(tmp_path / "a.png", np.zeros((4, 4), np.float32)).read_bytes()

    def broken(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(io, "_encode", broken)
    with pytest.raises(FusionReproError, match="disk is full"):
        write_image(tmp_path / "a.png", np.ones((4, 4), np.float32))
    assert (tmp_path / "a.png").read_bytes() == old and len(list(tmp_path.iterdir())) == 1


def test_list_images(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        list_images(tmp_path / "none")
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.JPG", "b.png"]


def test_a_phones_picture_with_several_views_gives_the_first(tmp_path):
    first, second = (Pillow.fromarray(samples(8, 3, (16, 16))) for _ in range(2))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    expected = np.asarray(Pillow.open(tmp_path / "a.jpg").convert("RGB"))
    assert np.array_equal(np.rint(read_image(tmp_path / "a.jpg").pixels * 255), expected)


def test_a_header_that_promises_too_much(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, samples(16, 1), extratags=[])
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags["ImageLength"].valueoffset
    content = bytearray(path.read_bytes())
    content[at : at + 2] = b"\xff\xff"
    path.write_bytes(content)
    refuses(path, "damaged")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_damage_is_one_sentence(tmp_path):
    """Whatever byte is broken, reading gives an image or an InputError, never anything else."""
    for suffix, bits in [(".png", 16), (".tif", 8), (".tif", 16), (".jpg", 8), (".bmp", 8)]:
        path = write_image(tmp_path / f"a{suffix}", RNG.random((6, 8, 3)), bits)
        whole = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(whole)
            damaged[RNG.integers(min(len(whole), 120))] = RNG.integers(256)
            path.write_bytes(damaged)
            try:
                assert np.isfinite(read_image(path).pixels).all()
            except InputError as e:
                assert "\n" not in str(e) and str(path) in str(e)
