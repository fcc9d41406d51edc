"""`fusionrepro.fuse` on arrays, files and folders, with the methods that need no weights."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import nn

import fusionrepro
from fusionrepro.data.pairing import match_pairs
from fusionrepro.errors import FusionReproError, InputError, Notice
from fusionrepro.fusing import fuse, fuse_files, fuse_folders
from fusionrepro.imaging.io import read_image, write_image

RNG = np.random.default_rng(0)


def grey(bits=8, size=(9, 7)):
    return RNG.integers(0, 2**bits, size).astype(f"uint{bits}")


def colour(bits=8, size=(9, 7)):
    return RNG.integers(0, 2**bits, (*size, 3)).astype(f"uint{bits}")


class Broken(nn.Module):
    name = "broken"

    def forward(self, ir, vi):
        return ir * float("nan")


class Greedy(nn.Module):
    def forward(self, ir, vi):
        raise MemoryError


def test_too_little_memory_names_the_mend():
    with pytest.raises(FusionReproError, match=r"7x9 pixels; fuse by tiles \(tile=512\)"):
        fuse(grey(), grey(), Greedy())
    with pytest.raises(FusionReproError, match=r"tile=8\b"):
        fuse(grey(), grey(), Greedy(), tile=16, overlap=4)


def test_saving_at_another_depth(tmp_path):
    deep = fuse(grey(16), grey(16), "average")
    with pytest.raises(InputError, match="8 bits a sample, not 16; use .png or .tif"):
        deep.save(tmp_path / "a.jpg")
    floating = fuse(torch.rand(4, 5), torch.rand(4, 5), "average")
    assert read_image(floating.save(tmp_path / "a.png")).bits == 16
    assert np.array_equal(read_image(floating.save(tmp_path / "a.tif")).pixels, floating.pixels)
    assert floating._repr_png_()[:4] == b"\x89PNG"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.tif"]


def test_the_public_call_is_this_one():
    assert fusionrepro.fuse is fuse


@pytest.mark.parametrize("bits", [8, 16])
def test_average_of_grey_arrays(bits):
    ir, vi = grey(bits), grey(bits)
    fused = fuse(ir, vi, "average")
    expected = np.rint((ir.astype(float) + vi) / 2)
    assert fused.pixels.dtype == vi.dtype and fused.bits == bits
    assert np.abs(fused.pixels - expected).max() <= 1  # exact halves may round either way in float32
    assert np.array_equal(np.asarray(fused), fused.pixels)
    assert fused.record["model"] == "average" and fused.record["post"] == "clip" and fused.record["weights"] == "none"


@pytest.mark.parametrize("name", ["average", "maximum", "laplacian"])
@pytest.mark.parametrize("size", [(1, 1), (1, 8), (17, 33)])
def test_any_size_and_identical_sources(name, size):
    ir = grey(size=size)
    assert np.array_equal(fuse(ir, ir, name).pixels, ir)


@pytest.mark.parametrize("post", ["clip", "minmax", "minmax_rgb"])
def test_constant_images(post):
    ir, vi = np.full((6, 6), 51, np.uint8), np.full((6, 6), 153, np.uint8)
    assert (fuse(ir, vi, "average", post=post).pixels == 102).all()


def test_colour_of_the_visible_comes_back():
    vi = colour(size=(6, 6)) // 2 + 64
    y = fuse(np.zeros((6, 6), np.uint8), vi, "maximum")
    assert y.pixels.shape == vi.shape and y.record["colour"] == "vi"
    assert np.abs(y.pixels.astype(int) - vi).max() <= 1  # nothing but its own luminance was taken


def test_colour_of_the_first_source_with_a_grey_second():
    ir = colour(size=(6, 6)) // 2 + 64
    fused = fuse(ir, np.zeros((6, 6), np.uint8), "maximum")
    assert fused.record["colour"] == "ir" and np.abs(fused.pixels.astype(int) - ir).max() <= 1
    both = fuse(ir, colour(size=(6, 6)), "maximum")
    assert both.record["colour"] == "merge"


def test_grey_stored_as_rgb_keeps_its_layout():
    vi = np.repeat(grey()[..., None], 3, axis=2)
    fused = fuse(vi[..., 0], vi, "average")
    assert fused.record["colour"] is None and np.array_equal(fused.pixels, vi)


def test_floats_and_tensors():
    ir, vi = torch.rand(5, 6), torch.rand(3, 5, 6)
    fused = fuse(ir, vi, "average")
    assert fused.pixels.dtype == np.float32 and fused.shape == (5, 6, 3) and fused.bits == 32
    same = fuse(ir.numpy(), vi.movedim(0, -1).numpy(), "average")
    assert np.array_equal(fused.pixels, same.pixels)
    with pytest.raises(InputError, match="NaN"):
        fuse(ir * float("nan"), vi, "average")
    with pytest.raises(InputError, match="scale them"):
        fuse(ir * 255, vi, "average")
    with pytest.raises(InputError, match="int64"):
        fuse(ir.long(), vi, "average")


def test_post_and_rounding_are_applied_and_recorded():
    ir, vi = np.full((2, 2), 0.25, np.float32), np.array([[0.25, 0.5], [0.5, 0.75]], np.float32)
    fused = fuse(ir, vi, "average", post="minmax")
    assert np.allclose(fused.pixels, [[0, 0.5], [0.5, 1]]) and fused.record["post"] == "minmax"
    low, high = np.uint8([[1]]), np.uint8([[2]])
    assert fuse(low, high, "average", rounding="floor").pixels.item() == 1
    with pytest.raises(InputError, match="did you mean 'minmax'"):
        fuse(ir, vi, "average", post="minmx")
    with pytest.raises(InputError, match="did you mean 'floor'"):
        fuse(ir, vi, "average", rounding="flor")


def test_tiles_give_the_same():
    ir, vi = grey(size=(70, 90)), grey(size=(70, 90))
    fused = fuse(ir, vi, "maximum", tile=32, overlap=8)
    assert np.array_equal(fused.pixels, fuse(ir, vi, "maximum").pixels) and fused.record["tile"] == 32
    with pytest.raises(InputError, match="tile=8 is too small.*16 or more"):
        fuse(ir, vi, "maximum", tile=8, overlap=8)
    with pytest.raises(InputError, match="0 or more"):
        fuse(ir, vi, "maximum", tile=32, overlap=-1)


def test_unknown_names_and_options():
    with pytest.raises(InputError, match="did you mean 'laplacian'"):
        fuse(grey(), grey(), "laplacain")
    with pytest.raises(InputError, match="did you mean 'levels'"):
        fuse(grey(), grey(), "laplacian", level=3)
    assert fuse(grey(), grey(), "laplacian", levels=2).record["options"] == {"levels": 2}
    with pytest.raises(InputError, match="differ in size"):
        fuse(grey(), grey(size=(9, 8)), "average")


def test_a_given_module_keeps_its_mode():
    module = fusionrepro.load("average").train()
    fuse(grey(), grey(), module)
    assert module.training
    with pytest.raises(InputError, match="NaN"):
        fuse(grey(), grey(), Broken())
    with pytest.raises(InputError, match="options"):
        fuse(grey(), grey(), module, levels=3)


@pytest.mark.parametrize("suffix, bits", [(".png", 8), (".png", 16), (".tif", 8), (".tif", 16), (".bmp", 8)])
@pytest.mark.parametrize("make", [grey, colour])
def test_files_keep_depth(tmp_path, suffix, bits, make):
    scale = 2**bits - 1
    ir = write_image(tmp_path / "ir.png", grey() / 255)
    vi = write_image(tmp_path / f"vi{suffix}", make(bits) / scale, bits)
    [out] = fuse_files(ir, vi, tmp_path / f"deep/out{suffix}", "maximum")
    back, first, second = (read_image(p) for p in (out, ir, vi))
    assert back.bits == bits and back.pixels.shape == second.pixels.shape
    if make is grey:
        assert np.array_equal(np.rint(back.pixels * scale), np.rint(np.maximum(first.pixels, second.pixels) * scale))
    record = json.loads((tmp_path / "deep/out.json").read_text())
    assert record["model"] == "maximum" and record["bits"] == bits and record["vi"] == str(vi)


def test_alpha_of_the_visible_is_kept(tmp_path):
    rgba = np.dstack([colour(), grey()])
    Pillow.fromarray(rgba).save(tmp_path / "vi.png")
    ir = write_image(tmp_path / "ir.png", grey() / 255)
    [out] = fuse_files(ir, tmp_path / "vi.png", tmp_path / "out.png", "average")
    assert np.array_equal(np.asarray(Pillow.open(out))[..., 3], rgba[..., 3])


def test_outputs_never_replace_sources(tmp_path):
    ir, vi = (write_image(tmp_path / f"{n}.png", grey() / 255) for n in ("ir", "vi"))
    before = vi.read_bytes()
    for call in (lambda: fuse_files(ir, vi, vi, "average"), lambda: fuse_files(ir, vi, tmp_path, "average"), lambda: fuse(ir, vi, "average", out=vi)):
        with pytest.raises(InputError, match="one of the sources"):
            call()
    assert vi.read_bytes() == before
    with pytest.raises(InputError, match="unknown suffix"):
        fuse_files(ir, vi, tmp_path / "out.gif", "average")
    with pytest.raises(InputError, match="a folder and a file"):
        fuse_files(tmp_path, vi, tmp_path / "out.png", "average")


@pytest.fixture
def folders(tmp_path):
    for name in ("a", "b.1", "c"):
        write_image(tmp_path / "ir" / f"{name}.bmp", grey() / 255)
        write_image(tmp_path / "vi" / f"{name}.png", colour() / 255)
    return tmp_path / "ir", tmp_path / "vi", tmp_path / "out"


def test_folders(folders):
    ir, vi, out = folders
    written = fuse_files(ir, vi, out, "laplacian", progress=False)
    assert [p.name for p in written] == ["a.png", "b.1.png", "c.png"]
    record = json.loads((out / "fusion.json").read_text())
    assert len(record["images"]) == 3 and not record["failures"] and record["model"] == "laplacian"
    alone = fuse(ir / "a.bmp", vi / "a.png", "laplacian")
    assert np.array_equal(np.asarray(Pillow.open(out / "a.png")), alone.pixels)
    fuse_folders(ir, vi, out, "average", progress=False)
    assert all(i["replaced"] for i in json.loads((out / "fusion.json").read_text())["images"])


def test_a_failing_pair_does_not_stop_the_others(folders):
    ir, vi, out = folders
    (vi / "a.png").write_bytes((vi / "a.png").read_bytes()[:80])
    write_image(ir / "c.bmp", grey(size=(3, 3)) / 255)
    with pytest.raises(FusionReproError, match="2 of 3 pairs failed") as caught:
        fuse_folders(ir, vi, out, "average", progress=False)
    assert "a.png" in str(caught.value) and "differ in size" in str(caught.value)
    assert sorted(p.name for p in out.iterdir()) == ["b.1.png", "fusion.json"]
    assert set(json.loads((out / "fusion.json").read_text())["failures"]) == {"a", "c"}


def test_a_record_of_good_results_outlives_a_run_without_any(folders):
    ir, vi, out = folders
    fuse_folders(ir, vi, out, "average", progress=False)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for path in vi.iterdir():
        path.write_bytes(b"")
    with pytest.raises(FusionReproError, match=r"3 of 3 pairs failed: a: .*a\.png is empty"):
        fuse_folders(ir, vi, out, "average", progress=False)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize("device", ["mps", "meta", "gpu"])
def test_devices_that_are_not_served(device):
    with pytest.raises(InputError, match="use auto, cpu, cuda"):
        fuse(grey(), grey(), "average", device=device)


@pytest.mark.parametrize("name, words", [("folder.png", "is a folder; give a file's name"), ("file.png/out.png", "file.png is a file, not a folder")])
def test_places_that_cannot_be_written(tmp_path, name, words):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file.png").write_bytes(b"mine")
    with pytest.raises(FusionReproError, match=words):
        fuse(grey(), grey(), "average", out=tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.png", "folder.png"]
    assert (tmp_path / "file.png").read_bytes() == b"mine" and not list((tmp_path / "folder.png").iterdir())


def test_full_disk_names_the_file_that_was_asked_for(tmp_path, monkeypatch):
    def full(*arguments):
        raise RuntimeError("Failed to encode the png image. No space left on device (os error 28)")

    monkeypatch.setattr("kornia_rs.io.write_image_png_u16", full)
    deep = grey().astype(np.uint16)
    with pytest.raises(FusionReproError, match=r"deep\.png: the disk is full"):
        fuse(deep, deep, "average", out=tmp_path / "deep.png")
    assert not list(tmp_path.iterdir())


def test_folders_that_do_not_fit(folders):
    ir, vi, out = folders
    (ir / "c.bmp").rename(ir / "d.bmp")
    with pytest.raises(InputError, match=r"no partner for d\.bmp.*rename, add or remove"):
        fuse_folders(ir, vi, out, "average")
    (ir / "d.bmp").rename(ir / "a.tif")
    with pytest.raises(InputError, match=r"holds both a\.bmp and a\.tif"):
        fuse_folders(ir, vi, out, "average")
    with pytest.raises(InputError, match="would be overwritten"):
        fuse_folders(ir, vi, vi, "average")
    (out.parent / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        fuse_folders(out.parent / "empty", vi, out, "average")
    assert not out.exists()


def test_real_pairs(data_root, tmp_path):
    """Grey, coloured visible, coloured first source: one of each from the real pack."""
    for name, first, second, expected in [("tno", "ir", "vi", None), ("msrs", "ir", "vi", "vi"), ("gfp", "gfp", "pc", "ir")]:
        ir = sorted((data_root / name / first).iterdir())[0]
        vi = next(p for p in (data_root / name / second).iterdir() if p.stem == ir.stem)
        fused = fuse(ir, vi, "laplacian", out=tmp_path / f"{name}.png")
        assert fused.record["colour"] == expected
        assert np.array_equal(np.asarray(Pillow.open(tmp_path / f"{name}.png")), fused.pixels)


# ---- what people bring -------------------------------------------------------------------------------------------------


def thermal(folder, name="ir.tif", low=7600, high=8000, seed=0):
    """A 16-bit picture of few levels, with one hot spot."""
    a = np.random.default_rng(seed).integers(low, (low + high) // 2, (48, 64)).astype(np.uint16)
    a[10:16, 20:26] = high
    return write_image(folder / name, a / 65535, 16)


def notices(caught) -> str:
    return "\n".join(str(w.message) for w in caught if issubclass(w.category, Notice))


def test_thermal_counts_are_named_and_stretched(tmp_path):
    ir, vi = thermal(tmp_path), write_image(tmp_path / "vi.png", np.full((48, 64), 0.5))
    with pytest.warns(Notice, match="76.*of 0..65535 only.*--ir-range auto"):
        flat = fuse(ir, vi, "average")
    assert "--ir-range" in flat.record["notes"][0]
    for given, low, high in (("auto", 7600, 8000), ("7600:8000", 7600, 8000), ("0%:100%", 7600, 8000)):
        with pytest.warns(Notice) as caught:
            fused = fuse(ir, vi, "average", ir_range=given)
        assert "ir.tif" not in notices(caught), "the mend is a mend"
        assert abs(int(fused.pixels[12, 22]) - 191) <= 1 and int(flat.pixels[12, 22]) < 85
        found = fused.record["ir_range"]
        assert found["given"] == given and abs(found["low"] - low) < 5 and abs(found["high"] - high) < 5
    counts = np.rint(read_image(ir).pixels * 65535)
    for array in (counts.astype(np.uint16), counts.astype(np.int32), torch.from_numpy(counts), counts - 7800):
        moved = (-200, 200) if float(array.min()) < 0 else (7600, 8000)
        assert np.array_equal(fuse(array, vi, "average", ir_range=moved).pixels, fuse(ir, vi, "average", ir_range="7600:8000").pixels)
    with pytest.raises(InputError, match="must be auto, LOW:HIGH"):
        fuse(ir, vi, "average", ir_range="8000:7600")


def test_one_range_for_a_folder(tmp_path):
    for k in range(3):
        thermal(tmp_path / "ir", f"{k}.tif", 7600 + 100 * k, 8000 + 100 * k, k)
        write_image(tmp_path / "vi" / f"{k}.png", np.full((48, 64), 0.5))
    with pytest.warns(Notice) as caught:
        fuse_folders(tmp_path / "ir", tmp_path / "vi", tmp_path / "out", "average", progress=False)
    assert notices(caught).count("--ir-range auto") == 1 and "and 2 more of 3 pairs" in notices(caught), "one line a kind"
    with pytest.warns(Notice) as caught:
        fuse_folders(tmp_path / "ir", tmp_path / "vi", tmp_path / "out2", "average", progress=False, ir_range="0%:100%")
    record = json.loads((tmp_path / "out2/fusion.json").read_text())
    assert record["ir_range"] == {"given": "0%:100%", "low": 7600, "high": 8200, "over": "the whole set"}
    spots = [int(np.asarray(Pillow.open(tmp_path / "out2" / f"{k}.png"))[12, 22]) for k in range(3)]
    assert spots[0] < spots[1] < spots[2], "hotter is brighter, from picture to picture"


@pytest.mark.filterwarnings("ignore::fusionrepro.errors.Notice")
def test_where_the_infrared_has_nothing_the_visible_is_seen(tmp_path):
    vi = np.full((20, 20), 200, np.uint8)
    ir = np.dstack([np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)])
    ir[5:15, 5:15] = 100, 255
    ir[15, 5:15] = 100, 128
    for model in ("average", "maximum", "laplacian"):
        fused = fuse(ir, vi, model)
        assert (fused.pixels[:5] == 200).all() and (fused.pixels[16:] == 200).all()
    fused = fuse(ir, vi, "average")
    assert (fused.pixels[5:15, 5:15] == 150).all() and 150 < fused.pixels[15, 9] < 200
    rgb = np.stack([vi, vi // 2, vi // 4], -1)
    assert np.abs(fuse(ir, rgb, "average").pixels[:5].astype(int) - rgb[:5]).max() <= 1, "with its colour"
    assert np.abs(fuse(ir, rgb, "average", rgb=True).pixels[:5].astype(int) - rgb[:5]).max() <= 1


def test_profile_and_resolution_are_those_of_the_colour(tmp_path):
    icc = bytes(16) + b"RGB " + bytes(128)
    vi = write_image(tmp_path / "vi.png", colour() / 255, icc=icc, dpi=(300, 300))
    with pytest.warns(Notice):
        fuse(vi, grey(), "average", out=tmp_path / "a.png")
    fuse(grey(), vi, "average", out=tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").icc == icc and round(read_image(tmp_path / "b.png").dpi[0]) == 300
    fuse(np.uint16(257) * grey(), vi, "average", out=tmp_path / "c.tif")
    assert read_image(tmp_path / "c.tif").icc == icc


def test_sources_of_different_size(tmp_path):
    ir, vi = grey(size=(10, 14)), grey(size=(20, 30))
    with pytest.raises(InputError, match="differ in size.*--align resize-ir"):
        fuse(ir, vi, "average")
    assert fuse(ir, vi, "average", align="crop").shape == (10, 14)
    with pytest.warns(Notice, match="differ in shape"):
        fused = fuse(ir, vi, "average", align="resize-ir")
    assert fused.shape == (20, 30) and fused.record["align"] == "resize-ir" and fused.record["sizes"] == {"ir": [14, 10], "vi": [30, 20]}
    with pytest.raises(InputError, match="did you mean 'resize-ir'"):
        fuse(ir, vi, "average", align="resize_ir")
    np.save(tmp_path / "h.npy", np.array([[2, 0, 0], [0, 2, 0], [0, 0, 1]]))
    fused = fuse(ir, vi, "maximum", homography=tmp_path / "h.npy")
    assert fused.shape == (20, 30) and fused.record["homography"][0] == [2, 0, 0]
    with pytest.raises(InputError, match="two ways"):
        fuse(ir, vi, "average", homography=tmp_path / "h.npy", align="crop")


def test_a_shift_is_said_and_recorded():
    wide = np.random.default_rng(4).random((30, 40)).repeat(6, 0).repeat(6, 1).astype(np.float32)
    ir, vi = np.ascontiguousarray(wide[20:160, 20:200]), np.ascontiguousarray(wide[26:166, 9:189])
    with pytest.warns(Notice, match=r"-11 pixels right and \+6 down"):
        fused = fuse(ir, vi, "average")
    assert (fused.record["shift"]["right"], fused.record["shift"]["down"]) == (-11, 6) and "align them first" in fused.record["notes"][0]
    matrix = np.array([[1, 0, 11], [0, 1, -6], [0, 0, 1]])
    fused = fuse(ir, vi, "average", homography=matrix)
    assert not fused.record["notes"] and np.abs(fused.pixels[:130, 15:] - vi[:130, 15:]).max() < 1e-4


def test_black_hot_infrared():
    ir = np.full((50, 50), 0.8, np.float32)
    ir[20:24, 20:24] = 0
    with pytest.warns(Notice, match="--invert-ir"):
        fuse(ir, grey(size=(50, 50)), "average")
    fused = fuse(ir, np.zeros((50, 50), np.float32), "maximum", invert_ir=True)
    assert np.allclose(fused.pixels, 1 - ir) and fused.record["invert_ir"] is True


@pytest.mark.filterwarnings("ignore::fusionrepro.errors.Notice")
def test_whose_colour():
    ir, vi = np.zeros((6, 6, 3), np.float32), np.zeros((6, 6, 3), np.float32)
    ir[:] = 0.6, 0.4, 0.4  # red
    vi[:] = 0.4, 0.4, 0.8  # blue, further from grey
    hue = lambda rule: (lambda p: "grey" if np.ptp(p) < 0.01 else "rgb"[int(p.argmax())])(fuse(ir, vi, "average", colour=rule).pixels[0, 0])
    assert [hue(r) for r in ("vi", "ir", "none", "merge")] == ["b", "r", "grey", "b"]
    cb, cr = (0.5 + k * (vi[0, 0, c] - vi[0, 0] @ [0.299, 0.587, 0.114]) for k, c in ((0.564, 2), (0.713, 0)))
    merged, alone = (fuse(ir, vi, "average", colour=r) for r in ("merge", "vi"))
    assert merged.record["colour"] == "merge" and merged.record["colour_rule"] == "merge"
    assert 0.5 < cb and cr < 0.5 and merged.pixels[0, 0, 0] > alone.pixels[0, 0, 0], "the red of the first shows"
    with pytest.raises(InputError, match="did you mean 'merge'"):
        fuse(ir, vi, "average", colour="merg")


def test_a_thermal_palette_never_paints_a_grey_picture_unasked():
    import matplotlib

    y, x = np.mgrid[:60, :80]
    painted = (matplotlib.colormaps["plasma"]((x + y) / 140)[..., :3] * 255).astype(np.uint8)
    vi = grey(size=(60, 80))
    with pytest.warns(Notice, match="no temperature.*--colour ir"):
        fused = fuse(painted, vi, "average")
    assert fused.record["colour"] is None and fused.shape == (60, 80)
    assert fuse(painted, vi, "average", colour="ir").record["colour"] == "ir"
    with pytest.warns(Notice, match="both coloured"):
        assert fuse(painted, colour(size=(60, 80)), "average").record["colour"] == "vi"


def test_a_radiometric_jpeg_gets_a_word(tmp_path):
    Pillow.fromarray(grey(size=(40, 50))).save(tmp_path / "plain.jpg")
    content = (tmp_path / "plain.jpg").read_bytes()
    segment = b"FLIR\0\x01\0\0" + bytes(20)
    (tmp_path / "camera.jpg").write_bytes(content[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + content[2:])
    with pytest.warns(Notice, match="camera.jpg is a radiometric JPEG.*FLIR"):
        fuse(tmp_path / "camera.jpg", grey(size=(40, 50)), "average")


def test_red_green_and_blue_each():
    ir, vi = grey(size=(8, 8)), colour(size=(8, 8))
    fused = fuse(ir, vi, "maximum", rgb=True)
    assert fused.record["colour"] == "rgb" and np.array_equal(fused.pixels, np.maximum(ir[..., None], vi))
    assert fuse(ir, vi[..., 0], "maximum", rgb=True).shape == (8, 8)


@pytest.mark.filterwarnings("ignore::fusionrepro.errors.Notice")
def test_one_file_as_both_sources(tmp_path):
    for name in ("1_ir", "1_vi"):
        write_image(tmp_path / "s" / f"{name}.png", grey() / 255)
    one, link = tmp_path / "s/1_ir.png", tmp_path / "link.png"
    link.symlink_to(one)
    for call in (lambda: fuse_files(one, one, tmp_path / "o.png", "average"), lambda: fuse(one, link, "average"),
                 lambda: fuse_files(tmp_path / "s", tmp_path / "s", tmp_path / "o", "average")):  # fmt: skip
        with pytest.raises(InputError, match="given as both sources"):
            call()
    copy = np.array(read_image(one).pixels)
    assert "same picture, sample by sample" in fuse(one, copy, "average").record["notes"][0]
    [out] = fuse_files(tmp_path / "s", tmp_path / "s", tmp_path / "o", "average", pairs="{id}_ir.* {id}_vi.*", progress=False)
    assert out.name == "1.png"


class Wrong(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.give = give

    def forward(self, ir, vi):
        return self.give(ir)


@pytest.mark.parametrize("give", [lambda x: x[..., :5, :5], lambda x: x.repeat(1, 3, 1, 1), lambda x: x[0], lambda x: [x], lambda x: None])
@pytest.mark.parametrize("tile", [None, 16])
def test_a_module_that_gives_no_picture_of_the_size(give, tile):
    with pytest.raises(InputError, match="returns a tensor of their shape|returns the size of its sources"):
        fuse(grey(size=(40, 48)), grey(size=(40, 48)), Wrong(give), tile=tile, overlap=4)


@pytest.mark.filterwarnings("ignore::fusionrepro.errors.Notice")
def test_what_is_not_ours_stays(tmp_path):
    ir, vi = (write_image(tmp_path / f"{n}.png", grey() / 255) for n in ("ir", "vi"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/scene.json").write_text('{"shapes": []}')
    (tmp_path / "out/scene.png").write_bytes(b"a picture of mine")
    with pytest.warns(Notice) as caught:
        fuse_files(ir, vi, tmp_path / "out/scene.png", "average", progress=False)
    assert "scene.json is no record of this program and stays" in notices(caught) and "scene.png was there before and is replaced" in notices(caught)
    assert (tmp_path / "out/scene.json").read_text() == '{"shapes": []}' and json.loads((tmp_path / "out/scene.fusion.json").read_text())["model"] == "average"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "the first source|.*is no record")
        fuse_files(ir, vi, tmp_path / "out/scene.png", "average", progress=False)  # what is ours is replaced without a word
    (tmp_path / "out/scene.fusion.json").write_text("[1, 2")
    with pytest.raises(InputError, match="no records of this program"):
        fuse_files(ir, vi, tmp_path / "out/scene.png", "average", progress=False)


def test_wrong_types_get_a_sentence(tmp_path):
    for arguments, words in [
        ({"model": 3}, "model of fuse must be text or Module, not 3"),
        ({"tile": "64"}, "tile of fuse must be a whole number or None, not '64'"),
        ({"overlap": None}, "overlap of fuse must be a whole number"),
        ({"post": 1}, "post of fuse must be text or None"),
        ({"weights": 7}, "weights of fuse must be"),
        ({"device": 0}, "device of fuse must be text"),
        ({"invert_ir": "yes"}, "invert_ir of fuse must be True or False"),
        ({"out": 5}, "out of fuse must be"),
        ({"ir": None}, "ir of fuse must be"),
        ({"align": 1}, "align of fuse must be"),
        ({"tile": True}, "tile of fuse must be a whole number"),
    ]:
        with pytest.raises(InputError, match=words):
            fuse(**({"ir": grey(), "vi": grey(), "model": "average"} | arguments))
    with pytest.raises(InputError, match="missing a required argument: 'vi'"):
        fuse(grey())


# ---- which belong together ---------------------------------------------------------------------------------------------


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize("pattern, names", [
    ("{id}_ir.* {id}_vi.*", [("a_ir.png", "a_vi.jpg"), ("b_ir.png", "b_vi.png")]),
    ("IR{id} VIS{id}", [("IR1.png", "VIS1.bmp"), ("IR22.png", "VIS22.bmp")]),
    ("IR{id}/VIS{id}", [("IR1.png", "VIS1.bmp"), ("IR22.png", "VIS22.bmp")]),
    ("FLIR_{id}.jpg *_{id}_RGB.jpg", [("FLIR_01.jpg", "day_01_RGB.jpg"), ("FLIR_02.jpg", "night_02_RGB.jpg")]),
])  # fmt: skip
@pytest.mark.parametrize("one_folder", [True, False])
def test_pairs_by_a_pattern(tmp_path, pattern, names, one_folder):
    first, second = tmp_path / "a", tmp_path / ("a" if one_folder else "b")
    touch(first, *(n for n, _ in names)), touch(second, *(n for _, n in names))
    found = match_pairs(first, second, pattern)
    assert [(a.name, b.name) for a, b in found.values()] == names


def test_patterns_that_do_not_fit(tmp_path):
    touch(tmp_path / "a", "IR1.png", "IR2.png", "VIS1.png", "IR1.bmp")
    for pattern, words in [
        ("IR{id}.png VIS{id}.png", "no partner for IR2.png"), ("IR{id} VIS{id}", "fits both"), ("IR{id}.png", "two names with"),
        ("{id} {id} {id}", "two names with"), ("IR VIS{id}", "two names"), ("XX{id} VIS{id}", "no picture in .* is named like 'XX"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=words):
            match_pairs(tmp_path / "a", tmp_path / "a", pattern)


def test_names_that_fit_a_pattern_are_told(tmp_path):
    touch(tmp_path / "ir", "IR1.png", "IR2.png"), touch(tmp_path / "vi", "VIS1.png", "VIS2.png")
    with pytest.raises(InputError, match='no partner for .*fit --pairs "IR{id} VIS{id}"'):
        match_pairs(tmp_path / "ir", tmp_path / "vi")


@pytest.mark.parametrize("text", ["id,ir,vi\nx,1.png,one.png\ny,2.png,two.png\n", "\ufeffIR;VI;ID\r\n1.png;one.png;x\r\n2.png;two.png;y\r\n",
                                  "id\tthermal\tvisible\nx\t1.png\tone.png\n\ny\tir\\2.png\tvi\\two.png\n"])  # fmt: skip
def test_pairs_by_a_list(tmp_path, text):
    touch(tmp_path / "ir", "1.png", "2.png", "3.png"), touch(tmp_path / "vi", "one.png", "two.png")
    (tmp_path / "list.csv").write_bytes(text.encode())
    found = match_pairs(tmp_path / "ir", tmp_path / "vi", tmp_path / "list.csv")
    assert {k: (a.name, b.name) for k, (a, b) in found.items()} == {"x": ("1.png", "one.png"), "y": ("2.png", "two.png")}


def test_lists_that_cannot_be_used(tmp_path):
    touch(tmp_path / "ir", "1.png"), touch(tmp_path / "vi", "1.png")
    for text, words in [("a,b\n1.png,1.png\n", "line 2: the columns ir and vi"), ("ir,vi\n1.png,9.png\n", "line 2: there is no 9.png"), ("ir,vi\n", "lists no pair"),
                        ("ir,vi\n1.png,1.png\n1.png,1.png\n", "line 3: the pair '1' is listed twice")]:  # fmt: skip
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(InputError, match=words):
            match_pairs(tmp_path / "ir", tmp_path / "vi", tmp_path / "list.csv")
    with pytest.raises(InputError, match="goes with two folders"):
        fuse_files(tmp_path / "ir/1.png", tmp_path / "vi/1.png", tmp_path / "o.png", "average", pairs="x")
