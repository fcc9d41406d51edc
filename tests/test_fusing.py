"""`fusionrepro.fuse` on arrays, files and folders, with the methods that need no weights."""

import json

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import nn

import fusionrepro
from fusionrepro.errors import FusionReproError, InputError
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
