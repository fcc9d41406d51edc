"""Data sets by name and by folder, their manifests, and what is wrong with those that are not right."""

import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from fusionrepro import settings
from fusionrepro.data import manifests
from fusionrepro.data.build_manifests import COLUMNS, main
from fusionrepro.data.download import verify
from fusionrepro.data.hashes import content_hash, matches, pixels_sha256
from fusionrepro.data.manifests import datasets, folder_dataset, load_dataset, load_manifest, status
from fusionrepro.data.pairs import PairDataset, PairFiles, collate, pair_folders, read_boxes, read_mask, read_pair
from fusionrepro.errors import DataError, InputError
from fusionrepro.imaging.io import write_image

NAMED = [n for n in datasets() if not n.startswith(("scenes", "phantoms"))]
IN_PACK = {"tno": 52, "roadscene": 211, "msrs": 62, "msrs128": 1083, "mri_ct": 81, "mri_pet": 102, "mri_spect": 133, "m3fd": 10, "llvip": 23, "vifb": 21, "gfp": 5}


@pytest.fixture
def noise():
    """Make a picture file of noise."""
    rng = np.random.default_rng(0)

    def make(path, shape=(8, 10), **options):
        return write_image(path, rng.random(shape), **options)

    return make


@pytest.fixture
def folders(tmp_path, noise):
    for name in ("a", "b", "c"):
        noise(tmp_path / "set/ir" / f"{name}.png")
        noise(tmp_path / "set/vi" / f"{name}.png", (8, 10, 3))
    return tmp_path / "set"


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A project of one's own: an empty folder of manifests, no data root; gives a function that writes a manifest."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    monkeypatch.setenv("FUSIONREPRO_MANIFESTS_PATH", str(folder))
    monkeypatch.delenv("FUSIONREPRO_DATA", raising=False)
    fields = {"title": "T", "what": "w", "licence": "l", "citation": "c", "homepage": "https://example.org", "folder": "mine", "splits": {"test": "t"}}

    def write(name="mine", rows=None, **changes):
        import yaml

        kept = {k: v for k, v in (fields | changes).items() if v is not None}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(kept))
        if rows is not None:
            with open(folder / f"{name}.csv", "w", newline="") as f:
                writer = csv.DictWriter(f, COLUMNS)
                writer.writeheader()
                writer.writerows({k: "" for k in COLUMNS} | {"bytes": 1} | r for r in rows)
        forget()
        return folder / f"{name}.yaml"

    forget()
    yield write
    forget()


def forget():
    load_manifest.cache_clear()
    datasets.cache_clear()


# ---- hashes ------------------------------------------------------------------------------------------------------------


def test_pixels_are_hashed_not_containers(tmp_path, noise):
    from PIL import Image

    png = noise(tmp_path / "a.png", (9, 7, 3))
    image = Image.open(png)
    image.save(tmp_path / "a.bmp")
    image.save(tmp_path / "a.tif")
    image.convert("RGBA").save(tmp_path / "opaque.png")
    assert len({pixels_sha256(tmp_path / n) for n in ("a.png", "a.bmp", "a.tif", "opaque.png")}) == 1
    grey = Image.fromarray(np.asarray(image)[..., 0])
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "grey.bmp")
    assert pixels_sha256(tmp_path / "grey.png") == pixels_sha256(tmp_path / "grey.bmp") != pixels_sha256(png)
    turned = Image.fromarray(np.asarray(image).reshape(7, 9, 3))  # the same bytes in another shape
    turned.save(tmp_path / "turned.png")
    assert pixels_sha256(tmp_path / "turned.png") != pixels_sha256(png)


def test_sixteen_bits_are_not_eight(tmp_path):
    write_image(tmp_path / "8.png", np.full((3, 3), 1.0))
    write_image(tmp_path / "16.png", np.full((3, 3), 1.0), bits=16)
    assert pixels_sha256(tmp_path / "8.png") != pixels_sha256(tmp_path / "16.png")


def test_jpeg_is_identified_by_its_bytes(tmp_path, noise):
    path = noise(tmp_path / "a.jpg", (16, 16))
    assert content_hash(path) != pixels_sha256(path)
    assert matches(path, of_bytes=content_hash(path)) and not matches(path, of_bytes="0" * 64)


def test_damaged_file_does_not_match(tmp_path, noise):
    path = noise(tmp_path / "a.png")
    good = pixels_sha256(path)
    assert matches(path, "0" * 64, good)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert not matches(path, "0" * 64, good)


# ---- folders -----------------------------------------------------------------------------------------------------------


def test_folder_by_name_of_its_sides(folders):
    data = load_dataset(folders)
    assert data.ids == ("a", "b", "c") and data.name == "set" and data[0].cbcr.shape == (2, 8, 10)
    (folders / "ir").rename(folders / "Infrared")
    (folders / "vi").rename(folders / "VISIBLE")
    assert load_dataset(str(folders), limit=2).ids == ("a", "b")


def test_folder_with_splits(folders):
    (folders / "test").mkdir()
    for side in ("ir", "vi"):
        (folders / side).rename(folders / "test" / side)
    assert len(folder_dataset(folders)) == len(folder_dataset(folders, "test")) == 3
    with pytest.raises(DataError, match="no two subfolders.*train"):
        folder_dataset(folders, "train")


def test_medical_sides(tmp_path, noise):
    noise(tmp_path / "ct/1.png")
    noise(tmp_path / "mri/1.png")
    assert folder_dataset(tmp_path).files[0].ir.parent.name == "ct"


@pytest.mark.parametrize("break_it, message", [
    (lambda f: (f / "vi/b.png").unlink(), r"no partner for b\.png"),
    (lambda f: (f / "ir/c.png").unlink(), r"ir has no partner for c\.png"),
    (lambda f: write_image(f / "ir/a.bmp", np.zeros((8, 10))), "holds both"),
    (lambda f: write_image(f / "ir/a.png", np.zeros((8, 11))), r"ir/a\.png \(11x8\).*differ in size"),
    (lambda f: [p.unlink() for p in (f / "vi").iterdir()], "holds no image"),
    (lambda f: shutil.rmtree(f / "vi"), "no two subfolders"),
])  # fmt: skip
def test_folders_that_do_not_match(folders, break_it, message):
    break_it(folders)
    with pytest.raises((DataError, InputError), match=message):
        load_dataset(folders)


@pytest.mark.parametrize("content", [b"", b"this is text", b"\x89PNG\r\n\x1a\n cut off"])
def test_unreadable_picture_is_named(folders, content):
    (folders / "ir/b.png").write_bytes(content)
    data = load_dataset(folders)
    with pytest.raises(InputError, match=r"ir/b\.png"):
        data["b"]


def test_missing_partners_are_named_up_to_three(folders, noise):
    for i in range(5):
        noise(folders / "ir" / f"z{i}.png")
    with pytest.raises(DataError, match=r"z0\.png, z1\.png, z2\.png and 2 more"):
        load_dataset(folders)


def test_table_of_a_folder(folders):
    (folders / "boxes").mkdir()
    (folders / "boxes/a.txt").write_text("0 0.5 0.5 0.2 0.5\n")
    (folders / "manifest.csv").write_text(
        "id,ir,vi,split,boxes,note\n1,ir/a.png,vi/a.png,test,boxes/a.txt,night\n2,ir/b.png,vi/b.png,train,,\n")  # fmt: skip
    data = load_dataset(folders, "test")
    assert data.ids == ("1",) and data[0].boxes.tolist() == [[0, 4, 2, 6, 6]] and data[0].meta["note"] == "night"
    assert load_dataset(folders).ids == ("1", "2")
    with pytest.raises(InputError, match="unknown split"):
        load_dataset(folders, "tset")
    (folders / "boxes/a.txt").unlink()
    with pytest.raises(DataError, match="line 2.*a.txt is missing"):
        load_dataset(folders, "test")


@pytest.mark.parametrize("name, message", [
    ("tn0", "did you mean 'tno'"), ("./nowhere/at/all", "is no folder"), ("scene", "did you mean 'scenes'"),
])  # fmt: skip
def test_unknown_names(name, message):
    with pytest.raises((InputError, DataError), match=message):
        load_dataset(name)


def test_limit_must_not_be_negative(folders):
    with pytest.raises(InputError, match="limit"):
        load_dataset(folders, limit=-1)


def test_four_channels_hold_a_pair(library, tmp_path):
    """MFNet's layout: thermal as the fourth channel, labels beside, lists of stems per split."""
    from PIL import Image

    root = tmp_path / "root/mfnet"
    rng = np.random.default_rng(1)
    stored = rng.integers(0, 256, (6, 8, 4), dtype=np.uint8)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for stem in ("00001N", "00002D"):
        Image.fromarray(stored).save(root / f"images/{stem}.png")
        Image.fromarray(rng.integers(0, 9, (6, 8), dtype=np.uint8)).save(root / f"labels/{stem}.png")
    (root / "test.txt").write_text("00002D\n")
    library("mfnet", folder="mfnet", layouts={"test": {"ir": "images", "vi": "images", "mask": "labels", "listed": "test.txt"}})
    data = load_dataset("mfnet", data_root=tmp_path / "root")
    assert data.ids == ("00002D",)
    pair = data[0]
    assert torch.equal((pair.ir[0] * 255).round().byte(), torch.from_numpy(stored[..., 3]))
    assert pair.mask.shape == (6, 8) and 0 < pair.mask.max() < 9 and pair.cbcr is not None


def test_sequences_by_wildcards(library, tmp_path, noise):
    for where in ("s0/V1", "s0/V2", "s1/V1", "s7/V1"):
        for side in ("lwir", "visible"):
            noise(tmp_path / "root/mine" / where / side / "I1.png")
    library(layouts={"test": [{"ir": "s[01]/V*/lwir", "vi": "s[01]/V*/visible"}]})
    data = load_dataset("mine", data_root=tmp_path / "root")
    assert data.ids == ("s0_V1_I1", "s0_V2_I1", "s1_V1_I1")
    assert data.files[1].vi.relative_to(tmp_path / "root/mine").as_posix() == "s0/V2/visible/I1.png"
    assert status("mine", tmp_path / "root").state == "ready" and status("mine", tmp_path / "root").pairs == 3
    found = verify("mine", tmp_path / "root", progress=False)
    assert found.ok and not found.hashed and found.pairs == 3
    shutil.rmtree(tmp_path / "root/mine/s0/V2/visible")
    with pytest.raises(DataError, match="partner .*s0/V2/visible"):
        load_dataset("mine", data_root=tmp_path / "root")


def test_reading_through_finds_a_damaged_picture(library, folders, tmp_path):
    library(folder="set")
    (folders / "vi/b.png").write_bytes(b"no picture")
    found = verify("mine", tmp_path, progress=False)
    assert not found.ok and found.damaged == ("b",) and "1 damaged (b)" in str(found)


# ---- manifests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMED)
def test_manifest_is_whole(name):
    m = load_manifest(name)
    assert {f.split for f in m.files if f.id} <= set(m.splits)
    assert len({f.path for f in m.files}) == len(m.files)
    for f in m.files:
        assert len(f.sha256) == 64
        assert f.pixels or not f.path.endswith(".png")
        assert f.url.startswith("https://raw.githubusercontent.com/") or f.role not in ("ir", "vi")
    by_pair = {}
    for f in m.files:
        by_pair.setdefault(f.id, set()).add(f.role)
    assert all({"ir", "vi"} <= roles for pair, roles in by_pair.items() if pair)
    assert m.files or m.by_hand, "a set without addresses must say how to get it"
    assert m.pairs() == IN_PACK.get(name, 0)


def test_splits_share_no_picture():
    for name in NAMED:
        seen = {}
        for f in load_manifest(name).files:
            if f.role in ("ir", "vi") and name != "mri_pet":  # its test PET slices recur on purpose, within the test split
                assert seen.setdefault(f.pixels or f.sha256, f.split) == f.split, f"{name}: {f.path}"


def test_manifests_stay_small():
    assert sum(p.stat().st_size for p in settings.path("manifests_path").iterdir()) < 1_500_000


@pytest.mark.parametrize("changes, message", [
    ({"licence": None}, "field 'licence' is missing"),
    ({"licens": "x"}, "unknown field 'licens'"),
    ({"splits": ["test"]}, "'splits' must map"),
    ({"layouts": {"test": {"ir": "a"}}}, "layout is wrong"),
    ({"rows": [{"id": "1", "role": "ear", "path": "a.png"}]}, "line 2.*role 'ear'"),
    ({"rows": [{"id": "1", "role": "ir", "path": "../a.png"}]}, "leaves the folder"),
    ({"rows": [{"id": "1", "role": "ir", "path": "a.png", "source": "x:y.png"}]}, "line 2.*'x'"),
    ({"rows": [{"id": "1", "role": "ir", "path": "a.png", "sha256": "12"}]}, "sha256 '12'"),
])  # fmt: skip
def test_broken_manifest_is_explained(library, changes, message):
    library(**changes)
    with pytest.raises(DataError, match=message):
        load_manifest("mine")


def test_manifest_that_is_no_yaml(library):
    library().write_text("title: [")
    forget()
    with pytest.raises(DataError, match="mine.yaml is no valid YAML"):
        load_manifest("mine")


def test_absent_data_set_says_what_to_do(monkeypatch):
    monkeypatch.delenv("FUSIONREPRO_DATA", raising=False)
    with pytest.raises(DataError, match="fusionrepro data get tno.*FUSIONREPRO_DATA"):
        load_dataset("tno")
    with pytest.raises(DataError, match="by hand from https://.*data get kaist"):
        load_dataset("kaist")
    assert status("tno").state == "download" and status("kaist").state == "by hand" and status("scenes").state == "built in"


def test_unknown_split_is_explained(monkeypatch):
    with pytest.raises(InputError, match="unknown split of tno 'tets': did you mean 'test'"):
        load_dataset("tno", "tets")


@pytest.mark.parametrize("name", ["scenes", "phantoms", "phantoms_mri_ct", "phantoms_mri_pet", "phantoms_mri_spect", "phantoms_gfp"])
def test_procedural_sets_have_names_and_splits(name):
    test, train = load_dataset(name, limit=2), load_dataset(name, "train", limit=2)
    assert len(test) == len(train) == 2 and name in datasets()
    assert test[0].ir.shape == test[0].vi.shape and not torch.equal(test[0].vi, train[0].vi)
    assert test.fingerprint != train.fingerprint and test.fingerprint == load_dataset(name, "test", limit=2).fingerprint
    with pytest.raises(InputError, match="unknown split"):
        load_dataset(name, "tests")


def test_procedural_sets_have_nothing_to_verify():
    with pytest.raises(InputError, match="nothing to fetch"):
        verify("scenes")


@pytest.fixture
def listed(library, folders, tmp_path):
    """A listed set of three pairs that lies complete under a data root."""
    library(folder="set", sources={"here": {"repo": "o/r", "commit": "c0", "licence": "none"}}, rows=[
        {"id": n, "split": "test", "role": side, "path": f"{side}/{n}.png", "source": f"here:x y/{side}/{n}.bmp",
         "sha256": "0" * 64, "pixels": pixels_sha256(folders / side / f"{n}.png")}
        for n in "abc" for side in ("ir", "vi")])  # fmt: skip
    return folders


def test_listed_files_lie_under_the_data_root(listed, tmp_path):
    assert load_manifest("mine").files[0].url == "https://raw.githubusercontent.com/o/r/c0/x%20y/ir/a.bmp"
    data = load_dataset("mine", data_root=tmp_path, limit=2)
    assert data.ids == ("a", "b") and data[0].meta["dataset"] == "mine"
    assert verify("mine", tmp_path, progress=False).ok and status("mine", tmp_path).state == "ready"


def test_missing_and_damaged_files_are_named(listed, tmp_path):
    (listed / "ir/b.png").unlink()
    write_image(listed / "vi/c.png", np.zeros((8, 10)))
    found = verify("mine", tmp_path, progress=False)
    assert not found.ok and found.missing == ("ir/b.png",) and found.damaged == ("vi/c.png",) and found.pairs == 1
    assert "1 missing (ir/b.png), 1 damaged (vi/c.png)" in str(found)
    assert status("mine", tmp_path).state == "incomplete"
    with pytest.raises(DataError, match=r"lacks ir/b\.png; run `fusionrepro data get mine`"):
        load_dataset("mine", data_root=tmp_path)
    assert load_dataset("mine", data_root=tmp_path, limit=1).ids == ("a",)


def test_upstream_format_counts_as_the_same_file(listed, tmp_path):
    from PIL import Image

    before = load_dataset("mine", data_root=tmp_path).fingerprint
    Image.open(listed / "ir/a.png").save(listed / "ir/a.bmp")
    (listed / "ir/a.png").unlink()
    assert verify("mine", tmp_path, progress=False).ok
    assert load_dataset("mine", data_root=tmp_path).fingerprint == before


def test_other_files_in_a_known_folder_are_a_plain_pair(listed, tmp_path):
    for side in ("ir", "vi"):
        for n in "abc":
            (listed / side / f"{n}.png").rename(listed / side / f"own_{n}.png")
    assert load_dataset("mine", data_root=tmp_path).ids == ("own_a", "own_b", "own_c")


def test_maintainers_tool_writes_what_is_read(library, folders, tmp_path):
    (folders / "manifest.csv").write_text(
        "id,ir,vi,split,source_ir,source_vi,seg,seg_source,boxes,note\n"
        "1,ir/a.png,vi/a.png,test,o/r@c0:p/1.bmp,o/r@c0:q/1.bmp,,,,dusk\n")  # fmt: skip
    path = library(folder="set", sources={"here": {"repo": "o/r", "commit": "c0", "licence": "none"}})
    assert main([str(tmp_path), "mine"]) == 0
    forget()
    assert path.with_suffix(".csv").is_file()
    first = load_manifest("mine").files[0]
    assert first.url.endswith("/o/r/c0/p/1.bmp") and first.saved_as == "ir/a.bmp" and first.note == "dusk"
    assert verify("mine", tmp_path, progress=False).ok


# ---- the real pack -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IN_PACK)
def test_real_pack_verifies(data_root, name):
    found = verify(name, data_root, progress=False)
    assert found.ok and found.hashed and found.pairs == IN_PACK[name], str(found)


@pytest.mark.parametrize("name", IN_PACK)
def test_real_pairs_are_pairs(data_root, name):
    data = load_dataset(name, data_root=data_root, limit=2)
    assert isinstance(data, PairDataset) and len(data) == 2 and list(data.ids) == sorted(data.ids)
    for pair in data:
        assert pair.ir.shape == pair.vi.shape and pair.ir.shape[0] == 1 and pair.ir.dtype == torch.float32
        assert 0 <= pair.ir.min() < pair.ir.max() <= 1 and 0 <= pair.vi.min() < pair.vi.max() <= 1
        assert (pair.ir_cbcr is not None) == (name in ("mri_pet", "mri_spect", "gfp"))
        assert (pair.cbcr is not None) == (name in ("roadscene", "msrs", "msrs128", "m3fd", "llvip", "vifb"))


def test_real_counts_labels_and_batches(data_root):
    count = lambda *a: len(load_dataset(*a, data_root=data_root))
    assert (count("tno"), count("roadscene"), count("msrs"), count("mri_ct"), count("msrs128"), count("tno", "all")) == (25, 50, 50, 21, 1083, 52)
    msrs = load_dataset("msrs", data_root=data_root, limit=4)
    assert all(p.boxes.shape[1] == 5 and (p.boxes[:, 3] > p.boxes[:, 1]).all() for p in msrs)
    infrared = load_dataset("msrs", data_root=data_root, limit=4, boxes="infrared")
    assert any(a.boxes.shape != b.boxes.shape or not torch.equal(a.boxes, b.boxes) for a, b in zip(msrs, infrared, strict=True))
    with pytest.raises(InputError, match="annotation"):
        load_dataset("msrs", data_root=data_root, boxes="infarred")
    small = load_dataset("msrs128", data_root=data_root, limit=5)
    assert any(len(p.boxes) for p in small) and collate(small[:3]).cbcr.shape == (3, 2, 128, 128)
    masks = [p.mask for p in load_dataset("tno", data_root=data_root) if p.mask is not None]
    assert len(masks) == 12 and all(set(m.unique().tolist()) == {0, 1} for m in masks)


def test_real_folder_without_its_name(data_root):
    assert len(load_dataset(data_root / "medical/mri_ct")) == 81
    assert len(load_dataset(data_root / "tno", "test")) == 25
    assert len(pair_folders(data_root / "vifb/ir", data_root / "vifb/vi")) == 21


def test_cache_comes_after_the_data_root(listed, tmp_path):
    shutil.copytree(listed, settings.cache_dir() / "data/set")
    (listed / "ir/b.png").unlink()
    data = load_dataset("mine", data_root=tmp_path)
    assert data.files[0].ir.is_relative_to(settings.cache_dir()), "the incomplete root is passed over"
    assert manifests.locate("mine", tmp_path) == listed


# ---- what people really have -------------------------------------------------------------------------------------------


def turned(path, orientation, size=(48, 64)):
    e = Pillow.Exif()
    e[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.arange(size[0] * size[1], dtype=np.uint32).reshape(size).astype(np.uint8)).save(path, exif=e.tobytes())
    return path


def test_orientation_counts_in_every_reader(tmp_path):
    turned(tmp_path / "set/ir/1.png", 1, (48, 64)), turned(tmp_path / "set/vi/1.png", 6, (64, 48)), turned(tmp_path / "set/mask.png", 6, (64, 48))
    [pair] = load_dataset(tmp_path / "set")
    assert pair.size == (48, 64) and read_mask(tmp_path / "set/mask.png").shape == (48, 64)
    turned(tmp_path / "set/ir/1.png", 6)
    with pytest.raises(DataError, match=r"1.png \(48x64\) and .*1.png \(64x48\) differ in size"):
        load_dataset(tmp_path / "set")[0]


def test_masks_of_colours_name_no_class(tmp_path):
    colours = np.zeros((4, 5, 3), np.uint8)
    colours[1] = 128, 64, 0
    Pillow.fromarray(colours).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="m.png is a colour picture: one sample a pixel"):
        read_mask(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", binary=True).sum() == 5, "target or not needs no colour"
    Pillow.fromarray(colours).quantize(4).save(tmp_path / "palette.png")
    assert set(read_mask(tmp_path / "palette.png").unique().tolist()) == {0, 1}
    grey = np.repeat(np.uint8([[0, 3], [7, 3]])[..., None], 3, 2)
    Pillow.fromarray(grey).save(tmp_path / "grey.png")
    assert read_mask(tmp_path / "grey.png").tolist() == [[0, 3], [7, 3]]


@pytest.mark.parametrize("line, words", [
    ("0 320 240 50 60", "line 2: centre and size must be fractions.*look like pixels"),
    ("0 0.5 0.5 1.2 0.1", "line 2: centre and size"), ("0 0.5 0.5 -0.1 0.1", "line 2: centre and size"), ("0 -0.2 0.5 0.1 0.1", "line 2"),
    ("-1 0.5 0.5 0.1 0.1", "line 2: the class -1 is no whole number"), ("1.5 0.5 0.5 0.1 0.1", "line 2: the class 1.5"),
    ("3 0.5 0.5 0.1 0.1", r"line 2: the class 3 is beyond the 3 of the data set \(0 to 2\)"),
    ("0 0.5 nan 0.1 0.1", "line 2: five numbers"),
])  # fmt: skip
def test_boxes_that_are_none(tmp_path, folders, line, words):
    (tmp_path / "b.txt").write_text(f"0 0.5 0.5 1 1\n{line}\n")
    with pytest.raises(DataError, match=f"b.txt, {words}"):
        read_boxes(tmp_path / "b.txt", 3)
    files = PairFiles("a", folders / "ir/a.png", folders / "vi/a.png", tmp_path / "b.txt")
    with pytest.raises(DataError, match=words):
        PairDataset([files], classes=("person", "bicycle", "car"))[0]


def test_boxes_with_a_mark_and_with_hairs_of_rounding(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf0 0.5 0.5 1.0001 1\r\n\r\n2 1 1 0 0\r\n")
    assert read_boxes(tmp_path / "b.txt").shape == (2, 5)


@pytest.mark.parametrize("make", [
    lambda t: t.encode(), lambda t: b"\xef\xbb\xbf" + t.replace(",", ";").replace("\n", "\r\n").encode(), lambda t: t.replace(",", "\t").encode("utf-16"),
    lambda t: t.replace("ir/", "ir\\").replace("vi/", "vi\\").encode(), lambda t: t.replace("id,ir,vi", "ID, IR ,VI").replace("\n", "\n\n").encode(),
])  # fmt: skip
def test_tables_from_spreadsheets(folders, make):
    (folders / "manifest.csv").write_bytes(make("id,ir,vi,split\nx,ir/a.png,vi/a.png,test\ny,ir/b.png,vi/b.png,train\n"))
    assert folder_dataset(folders).ids == ("x", "y") and folder_dataset(folders, "train").ids == ("y",)


def test_tables_that_are_none(folders):
    for content, words in [(b"\xff\xfe\x00", "UTF-8|not a"), (b"id,ir\nx,ir/a.png\n", "line 2: the columns id, ir and vi are needed; found id, ir"),
                           ("id,ir,vi\nx,ir/a.png,vi/ä.png\n".encode("latin-1"), "save the table as CSV in UTF-8")]:  # fmt: skip
        (folders / "manifest.csv").write_bytes(content)
        with pytest.raises(DataError, match=words):
            folder_dataset(folders)


def test_boxes_of_a_table_with_commas(library):
    plain = dict.fromkeys(COLUMNS, "") | {"bytes": 1}
    rows = [plain | {"id": "1", "split": "test", "role": side, "path": f"{side}/1.png"} for side in ("ir", "vi")] + [plain | {"role": "table", "path": "boxes.csv"}]
    library(rows=rows, classes=["a", "b"], boxes_table="fused")
    folder = settings.cache_dir() / "data/mine"
    for side in ("ir", "vi"):
        write_image(folder / side / "1.png", np.zeros((8, 10)))
    (folder / "boxes.csv").write_bytes(b"\xef\xbb\xbfid;annotated_on;class;cx;cy;w;h\r\n1;fused;1;0,5;0,5;0,2;0,5\r\n")
    assert load_dataset("mine")[0].boxes.tolist() == [[1, 4, 2, 6, 6]]
    (folder / "boxes.csv").write_text("id,annotated_on,class,cx,cy,w,h\n1,fused,2,0.5,0.5,0.2,0.5\n")
    with pytest.raises(DataError, match="boxes.csv, line 2: the class 2 is beyond"):
        load_dataset("mine")


def test_names_of_sets_in_any_case(library, noise):
    library(splits={"test": "t"})
    for side in ("ir", "vi"):
        noise(settings.cache_dir() / "data/mine" / side / "a.png")
    assert len(load_dataset("MINE")) == 1 and load_manifest("Mine").name == "mine"


def test_a_folder_by_a_pattern(tmp_path, noise):
    for name in ("1_ir", "1_vi", "2_ir", "2_vi"):
        noise(tmp_path / "flat" / f"{name}.png")
    data = load_dataset(tmp_path / "flat", pairs="{id}_ir {id}_vi")
    assert data.ids == ("1", "2") and data.fingerprint and load_dataset(tmp_path / "flat", pairs="{id}_ir {id}_vi", limit=1).ids == ("1",)
    with pytest.raises(DataError, match="is no folder"):
        load_dataset("nowhere", pairs="{id}_ir {id}_vi")


def test_transparent_borders_and_fourth_bands(tmp_path):
    import tifffile

    ir = np.zeros((6, 8, 2), np.uint8)
    ir[2:] = 100, 255
    (tmp_path / "set/ir").mkdir(parents=True)
    Pillow.fromarray(ir).save(tmp_path / "set/ir/1.png")
    write_image(tmp_path / "set/vi/1.png", np.full((6, 8), 200 / 255))
    pair = load_dataset(tmp_path / "set")[0]
    assert (pair.ir[0, :2] * 255).round().eq(200).all() and (pair.ir[0, 2:] * 255).round().eq(100).all()
    bands = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "four.tif", bands, photometric="rgb", extrasamples=["unspecified"])
    four = read_pair(PairFiles("f", tmp_path / "four.tif", tmp_path / "four.tif"))
    assert np.array_equal(np.rint(four.ir[0].numpy() * 255), bands[..., 3])


def test_wrong_types_get_a_sentence():
    for call, words in [
        (lambda: load_dataset(None), "name_or_folder of load_dataset must be text or a path"), (lambda: load_dataset("scenes", limit="3"), "limit of load_dataset"),
        (lambda: load_dataset("scenes", split=1), "split of load_dataset"), (lambda: load_manifest(3), "must be text"), (lambda: collate([1]), "made of pairs, not of int"),
        (lambda: read_boxes(3), "path of read_boxes"), (lambda: verify(None), "name of verify"), (lambda: settings.device(0), "choice of device"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=words):
            call()
