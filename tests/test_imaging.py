"""Images in and out: every depth bit for bit, and one sentence for what cannot be used."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from fusionrepro.errors import FusionReproError, InputError, Notice
from fusionrepro.imaging import checks
from fusionrepro.imaging.align import aligned_pair, read_homography, warped
from fusionrepro.imaging.io import as_image, images_by_stem, list_images, match_images, read_image, read_samples, write_image
from fusionrepro.imaging.ranges import Range

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


# ---- what people really have -------------------------------------------------------------------------------------------


def some_profile(space: bytes) -> bytes:
    """The header of a colour profile; nothing here reads more of it."""
    return bytes(16) + space + bytes(128)


@pytest.mark.parametrize("suffix, bits", [(".png", 8), (".png", 16), (".tif", 8), (".tif", 16), (".jpg", 8)])
@pytest.mark.parametrize("channels, space", [(1, b"GRAY"), (3, b"RGB ")])
def test_profile_and_resolution_survive(tmp_path, suffix, bits, channels, space):
    icc = some_profile(space)
    first = write_image(tmp_path / f"a{suffix}", as_image(samples(bits, channels)).pixels, bits, icc=icc, dpi=(300, 150))
    image = read_image(first)
    assert image.icc == icc and np.allclose(image.dpi, (300, 150), atol=0.02)
    other = some_profile(b"RGB " if space == b"GRAY" else b"GRAY")
    assert read_image(write_image(tmp_path / f"b{suffix}", image.pixels, bits, icc=other)).icc is None, "a profile of other channels would be wrong"


def test_resolution_turns_with_the_picture(tmp_path):
    Pillow.fromarray(samples(8, 3)).save(tmp_path / "a.png", exif=exif(6), dpi=(300, 150))
    image = read_image(tmp_path / "a.png")
    assert image.size == (7, 5) and np.allclose(image.dpi, (150, 300), atol=0.02)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_premultiplied_alpha_reads_the_same_at_every_depth(tmp_path, dtype):
    top = np.iinfo(dtype).max if dtype != np.float32 else 1
    colour, alpha = np.float64([0.8, 0.4, 0.2]), np.linspace(0, 1, 12).reshape(3, 4)
    stored = np.dstack([colour * alpha[..., None], alpha]) * top
    tifffile.imwrite(tmp_path / "a.tif", (np.rint(stored) if top > 1 else stored).astype(dtype), photometric="rgb", extrasamples=["assocalpha"])
    image = read_image(tmp_path / "a.tif")
    seen = alpha > 0.2
    assert np.abs(image.pixels[seen] - colour).max() < (0.02 if top == 255 else 0.001) and np.abs(image.alpha - alpha).max() < 0.003


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_band_that_is_no_alpha(tmp_path, dtype, colours):
    a = samples(8 * np.dtype(dtype).itemsize, colours + 1)
    tifffile.imwrite(tmp_path / "a.tif", a, photometric="rgb" if colours == 3 else "minisblack", extrasamples=["unspecified"], planarconfig="contig")
    image = read_image(tmp_path / "a.tif")
    top = np.iinfo(dtype).max
    assert image.alpha is None and np.array_equal(np.rint(image.extra * top), a[..., -1]) and "not marked as alpha" in image.notes[0]
    assert np.array_equal(np.rint(image.pixels * top), a[..., 0] if colours == 1 else a[..., :3])
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((4, 5, 5), dtype), photometric="minisblack", planarconfig="contig")
    refuses(tmp_path / "b.tif", "5 bands")


def test_a_picture_that_is_transparent_everywhere(tmp_path):
    Pillow.fromarray(np.dstack([samples(8, 3), np.zeros((5, 7), np.uint8)])).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.alpha is None and "transparent everywhere" in image.notes[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_never_ends_is_not_read(tmp_path):
    from fusionrepro.data.pairs import read_boxes, read_mask
    from fusionrepro.files import sha256

    os.mkfifo(tmp_path / "pipe.png")
    for read in (read_image, read_mask, read_boxes, sha256):
        for path, words in ((tmp_path / "pipe.png", "is a named pipe"), (Path("/dev/zero"), "is a device")):
            with pytest.raises(InputError, match=words):
                read(path)


def test_names_of_any_bytes(tmp_path):
    for name in ("ä, b+c.png", "写真.png", os.fsdecode(b"\xff\xfe.png")):
        try:
            path = write_image(tmp_path / name, as_image(samples(16, 3)).pixels, 16)
        except OSError:  # a file system that knows text only
            continue
        assert read_image(path).bits == 16


@pytest.mark.parametrize("dtype, low, high", [(np.uint16, 7600, 8000), (np.int16, -400, 3000), (np.int32, -70_000, 90_000), (np.float32, 273.15, 310.0)])
def test_samples_of_any_range(tmp_path, dtype, low, high):
    a = np.linspace(low, high, 30).reshape(5, 6).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", a)
    assert np.array_equal(read_samples(tmp_path / "a.tif"), a.astype(np.float32))
    x = read_image(tmp_path / "a.tif", (low, high)).pixels
    assert np.allclose(x, (a.astype(float) - low) / (high - low), atol=1e-6) and (x[0, 0], x[-1, -1]) == (0, 1)
    half = read_image(tmp_path / "a.tif", (low, (low + high) / 2)).pixels
    assert (half[-2:] == 1).all(), "beyond is cut"
    if dtype != np.uint16:
        refuses(tmp_path / "a.tif", "--ir-range LOW:HIGH")
    with pytest.raises(InputError, match="LOW below HIGH"):
        read_image(tmp_path / "a.tif", (2.0, 1.0))


def test_what_is_left_out_of_a_folder_is_said(tmp_path):
    for name in ("1.png", "2.jp2", "3.pgm", "1.txt", "notes.json", ".hidden.jp2"):
        (tmp_path / name).touch()
    (tmp_path / "night").mkdir()
    with pytest.warns(Notice, match=r"left out 2 files of another kind \(2.jp2, 3.pgm\) and 1 subfolder \(night\)\."):
        assert list(images_by_stem(tmp_path)) == ["1"]
    (tmp_path / "other").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "other" / name).touch()
    with pytest.warns(Notice), pytest.raises(InputError, match="no partner for 2.png; 2.jp2 there is of a kind that cannot be read"):
        match_images(tmp_path, tmp_path / "other")


def test_wrong_types_get_a_sentence(tmp_path):
    for call, words in [
        (lambda: read_image(None), "path of read_image must be text or a path, not NoneType"),
        (lambda: read_image(3), r"not 3 \(int\)"),
        (lambda: write_image(tmp_path / "a.png", "pixels"), "pixels of write_image must be ndarray, not 'pixels'"),
        (lambda: write_image(tmp_path / "a.png", np.zeros((2, 2)), "8"), "bits of write_image must be a whole number"),
        (lambda: list_images(b"x"), "folder of list_images"),
        (lambda: as_image(None), "array of as_image"),
        (lambda: read_image(), "missing a required argument"),
    ]:
        with pytest.raises(InputError, match=words):
            call()


# ---- what is odd about a source ----------------------------------------------------------------------------------------


def scene(size=(120, 160), seed=0) -> np.ndarray:
    """Blobs and a ramp, 0..1."""
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[: size[0], : size[1]]
    picture = 0.2 * y / size[0]
    for _ in range(25):
        cy, cx, r = rng.random() * size[0], rng.random() * size[1], 3 + 12 * rng.random()
        picture = np.where((y - cy) ** 2 + (x - cx) ** 2 < r * r, rng.random(), picture)
    return picture.astype(np.float32)


def test_narrow_and_dark_pictures_get_a_word():
    counts = (7600 + 400 * scene()).astype(np.uint16)
    counts[0, 0] = 65535  # a hot pixel makes no range
    assert re.search(r"7\d{3}\.\.\d{4} of 0\.\.65535 only \(0\.\d %\).*--ir-range auto", checks.range_note(as_image(counts), "ir"))
    assert "nearly black" in checks.range_note(as_image((scene() > 0.5).astype(np.uint8)), "ir")
    assert "stretch" in checks.range_note(as_image((60 + 8 * scene()).astype(np.uint8)), "vi")
    for fine in (scene(), (255 * scene()).astype(np.uint8), (65535 * scene()).astype(np.uint16)):
        assert checks.range_note(as_image(fine), "ir") == ""


def test_palettes_photographs_and_tracers():
    import matplotlib

    x = scene()
    for name in ("jet", "plasma", "rainbow"):
        assert checks.palette_like(as_image((matplotlib.colormaps[name](0.2 + 0.8 * x)[..., :3] * 255).astype(np.uint8))), name
    tracer = np.where(x > 0.9, x, 0)[..., None] * np.float32([1, 0.5, 0.1])
    photo = np.stack([scene(seed=k) for k in range(3)], -1) * (0.7 + 0.3 * RNG.random((120, 160, 3), dtype=np.float32))
    assert not checks.palette_like(as_image(tracer)) and not checks.palette_like(as_image(photo)) and not checks.palette_like(as_image(x))


@pytest.mark.parametrize("right, down", [(0, 0), (9, -6), (-15, 4), (2, 1)])
def test_shift_is_found_across_modalities(right, down):
    wide = scene((200, 240))
    vi = wide[30:170, 30:210]
    ir = 1 - wide[30 - down : 170 - down, 30 - right : 210 - right] ** 0.5  # reversed, and bent
    found = checks.shift(as_image(np.ascontiguousarray(ir)), as_image(np.ascontiguousarray(vi)))
    assert abs(found["right"] - right) <= 1 and abs(found["down"] - down) <= 1
    assert bool(checks.shift_note(found, "a.png")) == (max(abs(right), abs(down)) >= 3)


def test_no_shift_is_made_up():
    a, b = (as_image(np.random.default_rng(k).random((120, 160), dtype=np.float32)) for k in range(2))
    assert checks.shift_note(checks.shift(a, b), "noise") == ""
    assert checks.shift(as_image(np.full((120, 160), 0.5)), a) is None and checks.shift(as_image(np.zeros((9, 9))), as_image(np.zeros((9, 9)))) is None


def test_black_hot_gets_a_word():
    hot = np.full((100, 100), 0.3, np.float32) + 0.05 * scene((100, 100))
    hot[40:50, 40:46] = 1
    assert checks.polarity_note(as_image(hot)) == "" and "--invert-ir" in checks.polarity_note(as_image(1 - hot))


# ---- onto one grid -----------------------------------------------------------------------------------------------------


def test_aligning_by_size():
    ir, vi = as_image(scene((60, 80))), as_image(np.dstack([scene((120, 160))] * 3 + [np.ones((120, 160), np.float32)]))
    first, second, done = aligned_pair(ir, vi, "resize-ir", None)
    assert first.size == second.size == (120, 160) and done == {"align": "resize-ir", "sizes": {"ir": [80, 60], "vi": [160, 120]}}
    first, second, _ = aligned_pair(ir, vi, "resize-vi", None)
    assert first.size == second.size == (60, 80) and second.pixels.shape == (60, 80, 3) and second.alpha.shape == (60, 80)
    first, second, _ = aligned_pair(ir, vi, "crop", None)
    assert np.array_equal(first.pixels, ir.pixels) and np.array_equal(second.pixels, vi.pixels[30:90, 40:120])
    with pytest.raises(InputError, match="differ in size.*--align resize-ir"):
        aligned_pair(ir, vi, None, None)


def test_homography_moves_the_first_source():
    wide = scene((90, 110))
    matrix = np.array([[1, 0, 7], [0, 1, -4], [0, 0, 1]], float)  # 7 right, 4 up
    first, second, done = aligned_pair(as_image(wide), as_image(wide), None, matrix)
    assert np.allclose(first.pixels[:86, 7:], wide[4:, :103], atol=1e-5)
    assert first.alpha[:86, 7:].all() and not first.alpha[:, :6].any() and not first.alpha[87:].any() and done["align"] == "homography"
    rotation = np.array([[0.9, -0.2, 12], [0.2, 0.9, -5], [1e-4, 0, 1]])
    there = warped(as_image(wide), rotation, (90, 110))
    x, y = 40, 50
    u = rotation @ [x, y, 1]
    assert abs(there.pixels[round(u[1] / u[2]), round(u[0] / u[2])] - wide[y, x]) < 0.35
    with pytest.raises(InputError, match="puts nothing of"):
        aligned_pair(as_image(wide), as_image(wide), None, np.array([[1, 0, 5000], [0, 1, 0], [0, 0, 1.0]]))


def test_homographies_are_read_from_what_people_have(tmp_path):
    matrix = np.array([[1.5, 0.25, -3], [0, 2, 4e1], [0, 0, 1]])
    np.save(tmp_path / "h.npy", matrix * 2)
    (tmp_path / "h.txt").write_text("1.5 0.25 -3\n0 2 4e1\r\n0 0 1\n")
    (tmp_path / "h.csv").write_text("\ufeff1.5;0.25;-3\n0;2;40\n0;0;1\n", encoding="utf-8")
    (tmp_path / "h.json").write_text("[[1.5, 0.25, -3], [0, 2, 40], [0, 0, 1]]")
    (tmp_path / "affine.txt").write_text("1.5 0.25 -3 0 2 40")
    (tmp_path / "h.yml").write_text("%YAML:1.0\nH: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n   data: [ 1.5, 0.25, -3., 0., 2.,\n 40., 0., 0., 1. ]\n")
    for path in tmp_path.iterdir():
        assert np.allclose(read_homography(path), matrix), path.name
    for text, words in [("1 2 3", "3 numbers"), ("a b c d e f g h i", "no homography"), ("0 0 0 0 0 0 0 0 0", "no homography"), ("1 0 0 0 1 0 0 0 nan", "not finite")]:
        (tmp_path / "bad.txt").write_text(text)
        with pytest.raises(InputError, match=f"bad.txt.*{words}"):
            read_homography(tmp_path / "bad.txt")
    with pytest.raises(InputError, match="there is no homography"):
        read_homography(tmp_path / "none.txt")


@pytest.mark.parametrize("given, low, high", [("auto", 0.1, 99.9), ("2%:98%", 2, 98), ("7600:8000", 7600, 8000), ("-20.5:4e1", -20.5, 40), ((1, 2), 1, 2), ([0, 0.5], 0, 0.5)])
def test_ranges(given, low, high):
    found = Range.parse(given)
    assert (found.low, found.high) == (low, high) and found.percent == (given in ("auto", "2%:98%"))


@pytest.mark.parametrize("given", ["", "8000:7600", "5%:200%", "1:2:3", "1%:2", "low:high", "nan:1", (1,), (2, 1), "1:inf"])
def test_ranges_that_are_none(given):
    with pytest.raises(InputError, match="must be auto, LOW:HIGH"):
        Range.parse(given)


def test_one_range_for_a_set():
    pictures = [np.full((10, 10), 100.0), np.full((10, 10), 300.0)]
    assert Range.parse("0%:100%").limits([lambda p=p: p for p in pictures]) == (100, 300)
    with pytest.raises(InputError, match="flat"):
        Range.parse("auto").limits([lambda: pictures[0]])
