"""The comparison methods: published weights and pictures, their readers, `fusionrepro verify` and the catalogue."""

import dataclasses
import hashlib
import json
import re
import shutil
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fusionrepro import cli, fuse, settings
from fusionrepro.baselines import catalogue, verify
from fusionrepro.baselines.reading import grey_by_ycbcr
from fusionrepro.bench import models as bench
from fusionrepro.data import published as pub
from fusionrepro.errors import CheckpointError, DataError, DownloadError, InputError
from fusionrepro.registry import METHODS
from fusionrepro.training import store, tf1

LEARNED = [m.name for m in METHODS.values() if m.kind == "learned"]
PUBLISHED = [m.name for m in METHODS.values() if m.published]
EXACT = ("u2fusion", "densefuse", "seafusion", "didfuse", "lrrnet", "ifcnn", "sdnet", "pmgi")  # within one grey level of their authors' pictures
SETS = [(m.name, s) for m in METHODS.values() for s in m.published]


def pair(size=(24, 28), seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(batch, 1, *size, generator=generator) for _ in range(2))


# ---- the manifest ------------------------------------------------------------------------------------------------------


def test_registry_and_manifest_name_the_same_weights():
    for name in pub.published_methods():
        if name in METHODS and METHODS[name].trained:
            assert METHODS[name].published == tuple(pub.published(name).weights), name
    for name, chosen in SETS:
        weights = pub.published(name).weights[chosen]
        assert weights.files and set(weights.options) <= set(METHODS[name].options)
        assert all(f.role == "weights" and f.method == name for f in weights.files)


def test_every_published_file_says_whence_and_under_which_licence():
    files = [f for name in pub.published_methods() for s in pub.published(name).scenes for f in (s.fused, s.ir, s.vi)]
    files += [f for name in pub.published_methods() for s in pub.published(name).weights.values() for f in s.files]
    assert len(set(files)) > 80
    for f in files:
        assert re.fullmatch(r"[0-9a-f]{40}", f.commit) and f"/{f.repository}/{f.commit}/" in f.url and f.licence and f.bytes > 0
    with pytest.raises(InputError, match="did you mean 'u2fusion'"):
        pub.published("u2fuson")


# ---- finding and fetching ----------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch):
    """No published file is on this machine."""
    monkeypatch.delenv("FUSIONREPRO_ORACLES", raising=False)
    monkeypatch.delenv("FUSIONREPRO_DATA", raising=False)


@pytest.fixture
def server(tmp_path, monkeypatch, elsewhere):
    """A mirror that serves a folder; FUSIONREPRO_MIRROR names it."""
    root = tmp_path / "mirror"
    root.mkdir()
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(root)))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    monkeypatch.setenv("FUSIONREPRO_MIRROR", f"http://127.0.0.1:{http.server_port}")
    yield root
    http.shutdown()
    http.server_close()


def foreign(content: bytes, where: str = "net.pth", member: str = "") -> pub.PublishedFile:
    url = f"{pub.HOST}/someone/net/{'a' * 40}/{where}"
    return pub.PublishedFile(f"weights/net/{(member or where)}", "weights", "net", "", "someone/net", "a" * 40, "GPL-3.0 (weights)",
                             url, member, len(content), hashlib.sha256(content).hexdigest())  # fmt: skip


def test_files_are_fetched_once_and_the_licence_is_said(server, capsys):
    content = b"some weights"
    place = server / "someone" / "net" / ("a" * 40)
    place.mkdir(parents=True)
    (place / "net.pth").write_bytes(content)
    with zipfile.ZipFile(place / "all.zip", "w") as archive:
        archive.writestr("inside/net.bin", content)
    files = [foreign(content), foreign(content, "all.zip", "inside/net.bin")]
    paths = pub.obtain(files, "the published weights of net", wait=0)
    assert [p.read_bytes() for p in paths] == [content, content]
    said = capsys.readouterr().err
    assert "someone/net at aaaaaaaa" in said and "licence: GPL-3.0 (weights)" in said
    (place / "net.pth").unlink()
    assert pub.obtain(files, "the published weights of net", fetch=False) == paths and not capsys.readouterr().err


def test_other_bytes_are_refused(server, tmp_path, monkeypatch):
    file = foreign(b"what was published")
    place = server / "someone" / "net" / ("a" * 40)
    place.mkdir(parents=True)
    (place / "net.pth").write_bytes(b"what is there today")
    with pytest.raises(DownloadError, match=r"someone/net \(0.0 MiB; weights/net/net.pth"):
        pub.obtain([file], "the published weights of net", progress=False, wait=0)
    assert not list((tmp_path / "cache").rglob("net.pth"))
    own = tmp_path / "own" / "weights" / "net"
    own.mkdir(parents=True)
    (own / "net.pth").write_bytes(b"mine")
    monkeypatch.setenv("FUSIONREPRO_ORACLES", str(tmp_path / "own"))
    with pytest.raises(DataError, match="other SHA-256"):
        pub.locate(file)
    (own / "net.pth").write_bytes(b"what was published")
    assert pub.locate(file) == own / "net.pth"


@pytest.mark.parametrize("name", LEARNED)
def test_without_weights_one_sentence(server, name):
    with pytest.raises(CheckpointError) as e:
        store.default_weights(name)
    assert str(e.value).endswith(".") and ". " not in str(e.value).replace("github.com", "")
    needed = pub.published(name).weights[METHODS[name].published[0]].files[0].repository if METHODS[name].published else "weights=PATH"
    assert needed in str(e.value)


def test_load_says_what_is_missing_when_nothing_can_be_fetched(server):
    with pytest.raises(CheckpointError, match="the published weights of dualbranch need 1 file of github.com/thfylsty") as e:
        store.load("dualbranch")
    assert "\n" not in str(e.value)
    with pytest.raises(InputError, match="did you mean 'pytorch'"):
        store.load("densefuse", "published:pytroch")


# ---- TensorFlow checkpoints --------------------------------------------------------------------------------------------


def varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """LevelDB's block: keys without what they share with the key before."""
    out, last = b"", b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return out + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")


def trailer(content: bytes) -> bytes:
    """What follows a block: that it is not compressed, and its checksum."""
    return b"\0" + tf1._masked_crc(content + b"\0").to_bytes(4, "little")


def checkpoint(folder, tensors: dict[str, torch.Tensor]):
    """A TensorFlow-1 checkpoint, written by the book."""
    data, entries = b"", [(b"", b"\x08\x01")]
    for name, x in sorted(tensors.items()):
        raw = x.numpy().tobytes()
        shape = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(n) for n in x.shape))
        record = b"\x08\x01" + b"\x12" + varint(len(shape)) + shape + (b"\x20" + varint(len(data)) if data else b"") + b"\x28" + varint(len(raw))
        record += b"\x35" + tf1._masked_crc(raw).to_bytes(4, "little")
        entries.append((name.encode(), record))
        data += raw
    table, handles = b"", []
    for part in (entries[:3], entries[3:]):  # two data blocks
        content = block(part)
        handles.append((part[-1][0], varint(len(table)) + varint(len(content))))
        table += content + trailer(content)
    index = block(handles)
    footer = varint(0) + varint(0) + varint(len(table)) + varint(len(index))
    table += index + trailer(index) + footer.ljust(40, b"\0") + tf1._MAGIC.to_bytes(8, "little")
    (folder / "m.ckpt.index").write_bytes(table)
    (folder / "m.ckpt.data-00000-of-00001").write_bytes(data)
    return folder / "m.ckpt.index"


def test_tensorflow_checkpoints_are_read_without_tensorflow(tmp_path):
    tensors = {f"net/layer{i}/{part}": torch.randn(*shape) for i in range(2) for part, shape in (("kernel", (3, 3, 2, 4)), ("bias", (4,)))}
    tensors["net/step"] = torch.randn(())
    path = checkpoint(tmp_path, tensors)
    found = tf1.read_checkpoint(path)
    assert found.keys() == tensors.keys() and all(torch.equal(found[k], v) for k, v in tensors.items())
    assert tf1.oihw(found["net/layer0/kernel"]).shape == (4, 2, 3, 3)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("harm", ["cut", "footer", "data", "text", "partner", "flipped"])
def test_damaged_tensorflow_checkpoints_are_one_sentence(tmp_path, harm):
    path = checkpoint(tmp_path, {f"a{i}/kernel": torch.randn(3, 3, 2, 4) for i in range(5)})
    data = tmp_path / "m.ckpt.data-00000-of-00001"
    whole = path.read_bytes()
    if harm == "cut":
        path.write_bytes(whole[:60])
    if harm == "footer":
        path.write_bytes(whole[:-1])
    if harm == "data":
        data.write_bytes(data.read_bytes()[:-4])
    if harm == "text":
        path.write_text("no table")
    if harm == "partner":
        data.unlink()
    if harm == "flipped":
        path.write_bytes(bytes([255]) * (len(whole) - 48) + whole[-48:])
    with pytest.raises(CheckpointError) as e:
        tf1.read_checkpoint(path)
    assert "\n" not in str(e.value) and "m.ckpt" in str(e.value)


def test_checksums_of_a_tensorflow_checkpoint(tmp_path):
    """Every flipped bit is noticed, of the index and of the tensors; the check value is the one of RFC 3720."""
    assert int(tf1._crc(np.frombuffer(bytes(32), np.uint8), tf1._crc_table())) == 0x8A9136AA
    path = checkpoint(tmp_path, {f"a{i}/kernel": torch.randn(3, 3, 2, 4) for i in range(4)})
    data = tmp_path / "m.ckpt.data-00000-of-00001"
    for file, end in ((path, 48), (data, 0)):  # the footer has no checksum
        whole = file.read_bytes()
        for at in range(0, len(whole) - end, 7):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            with pytest.raises(CheckpointError, match="cannot be read as a TensorFlow checkpoint"):
                tf1.read_checkpoint(path)
        file.write_bytes(whole)


# ---- the authors' files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, chosen", SETS)
def test_published_weights_load(oracles, name, chosen):
    model = store.load(name, f"published:{chosen}")
    ir, vi = pair()
    with torch.inference_mode():
        fused = model(ir, vi)
    assert fused.shape == ir.shape and fused.isfinite().all() and fused.std() > 0.01
    assert re.fullmatch(r"[0-9a-f]{64}", model.weights_id) and not model.training
    assert fuse(ir[0, 0].numpy(), vi[0, 0].numpy(), model).record["post"] == model.post


@pytest.mark.parametrize("name, chosen", SETS)
def test_the_same_picture_by_name_and_by_path(oracles, tmp_path, name, chosen):
    """A file brings its options along: who names it gets what who names its set gets."""
    paths = [pub.locate(f) for f in pub.published(name).weights[chosen].files]
    if len(paths) > 1 and paths[0].suffix != tf1.SUFFIX:  # a network in several files is a folder
        for path in paths:
            shutil.copy(path, tmp_path / path.name)
        paths = [tmp_path]
    by_name, by_path = store.load(name, f"published:{chosen}"), store.load(name, paths[0])
    with torch.inference_mode():
        assert torch.equal(by_name(*pair()), by_path(*pair()))
    assert (by_name.post, by_name.rounding) == (by_path.post, by_path.rounding)


def test_options_that_are_given_win_over_those_of_the_file(oracles):
    path = pub.locate(pub.published("densefuse").weights["pytorch"].files[0])
    assert store.load("densefuse", path).rule == "mean" and store.load("densefuse", path, rule="l1").rule == "l1"


def test_smfnets_public_names_bring_the_released_gates(tmp_path):
    """Weights under the authors' names are run as their program runs them, ours as they were trained."""
    from fusionrepro.bench.published.smfnet import Published
    from fusionrepro.smfnet.model import authors_names

    torch.manual_seed(0)
    model = METHODS["smfnet"].build()
    for update in model.graph.updates:
        update.gamma.data.fill_(0.5)
    back = {ours: theirs for theirs, ours in authors_names().items()}
    rows = model.graph.exchange.votes.weight.detach().split(1)
    ours = {k: v for k, v in model.state_dict().items() if k != "graph.exchange.votes.weight"}
    ours |= {f"graph.exchange.{i}.weight": row for i, row in enumerate(rows)}
    theirs = {back.get(k) or f"{back[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in ours.items()}
    torch.save(theirs, tmp_path / "public.pth")
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    public, plain = (store.load("smfnet", tmp_path / f"{n}.pth") for n in ("public", "ours"))
    assert public.graph.updates[0].interleaved and not plain.graph.updates[0].interleaved
    with torch.inference_mode():
        wanted = Published(public)(*pair())
        assert torch.allclose(public(*pair()), wanted, atol=1e-6) and not torch.allclose(plain(*pair()), wanted, atol=1e-6)


def test_a_file_of_another_method_is_refused(oracles):
    file = pub.locate(pub.published("reconet").weights["published"].files[0])
    for name in ("dualbranch", "lrrnet", "cddfuse"):
        with pytest.raises(CheckpointError, match=f"no public checkpoint of '{name}'"):
            store.load(name, file)


def test_cddfuse_is_read_from_its_four_parts(tmp_path):
    from fusionrepro.baselines.cddfuse import _names

    model = METHODS["cddfuse"].build(width=8, heads=2)
    back = {ours: theirs for theirs, ours in _names().items()}
    parts = {}
    for key, tensor in model.state_dict().items():
        theirs = back.get(key) or f"{back[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}"
        part, _, rest = theirs.partition(".")
        parts.setdefault(part, {})[f"module.{rest}"] = tensor
    torch.save(parts, tmp_path / "CDDFuse.pth")
    read = store.load("cddfuse", tmp_path / "CDDFuse.pth", width=8, heads=2)
    assert all(torch.equal(v, read.state_dict()[k]) for k, v in model.state_dict().items())
    torch.save({k: v for k, v in parts.items() if k != "BaseFuseLayer"}, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match="no public checkpoint of 'cddfuse'"):
        store.load("cddfuse", tmp_path / "cut.pth", width=8, heads=2)


def test_rfnnest_is_read_from_a_folder_with_both_files(tmp_path):
    from fusionrepro.baselines.rfnnest import _NAMES

    model = METHODS["rfnnest"].build(width=8)
    back = {ours: theirs for theirs, ours in _NAMES.items()}
    nest = {"encoder.first": "conv0.conv2d", "decoder.head": "conv_out.conv2d"}
    files = {"nest.model": {}, "rfn.model": {}}
    for key, tensor in model.state_dict().items():
        layer, _, part = key.rpartition(".")
        if layer in back:
            files["rfn.model"][f"{back[layer]}.{part}"] = tensor
            continue
        if layer not in nest:
            place, at, step = layer.rsplit(".", 2)
            at = f"DB{int(at) + 1}_0" if place == "encoder.blocks" else f"DB{at[1]}_{at[2]}"
            nest[layer] = f"{at}.denseblock.{('look', 'mix').index(step)}.conv2d"
        files["nest.model"][f"{nest[layer]}.{part}"] = tensor
    for name, state in files.items():
        torch.save(state, tmp_path / name)
    read = store.load("rfnnest", tmp_path, width=8)
    assert all(torch.allclose(v * (255 if k.startswith("encoder.first.w") else 1 / 255 if "head" in k else 1), read.state_dict()[k])
               for k, v in model.state_dict().items())  # fmt: skip
    (tmp_path / "rfn.model").unlink()
    with pytest.raises(CheckpointError, match="no public checkpoint of 'rfnnest'"):
        store.load("rfnnest", tmp_path, width=8)


# ---- the methods -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNED)
def test_pictures_of_a_batch_do_not_see_each_other(name):
    """Statistics of a picture are its own, also where the authors' program takes them from a batch of one."""
    torch.manual_seed(0)
    model = METHODS[name].build(**({"width": 8} if name in ("nestfuse", "rfnnest") else {})).eval()
    if head := getattr(getattr(model, "decoder", None), "head", None):
        torch.nn.init.constant_(head.bias, 1.0)  # above the last ReLU
    ir, vi = pair((19, 22), batch=2)
    with torch.inference_mode():
        both = model(ir, vi)
        assert both[0].std() > 0 and not torch.equal(both[0], both[1])
        for i in range(2):
            alone = model(ir[i : i + 1], vi[i : i + 1])
            assert torch.allclose(both[i : i + 1], alone, rtol=1e-4, atol=1e-5 * float(both.abs().max()))
        # Who comes first matters but to those that add, average or compare two codes of one encoder.
        alike = torch.allclose(both, model(vi, ir), rtol=1e-4, atol=1e-5 * float(both.abs().max()))
        assert alike == (name in ("densefuse", "dualbranch", "nestfuse", "ifcnn", "didfuse"))


# ---- verify ------------------------------------------------------------------------------------------------------------


def smallest(name: str) -> pub.Published:
    found = pub.published(name)
    here = [s for s in found.scenes if all(pub.locate(f) for f in (s.fused, s.ir, s.vi))]
    return dataclasses.replace(found, scenes=(min(here, key=lambda s: s.ir.bytes),))


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n in verify.verifiable()])
def test_published_pictures_are_reproduced(oracles, monkeypatch, name):
    monkeypatch.setattr(verify, "published", smallest)
    found = verify.verify(name, progress=False)
    assert found.ok, str(found)
    assert name not in EXACT or found.overall.largest <= 1


def test_a_classic_is_verified_with_the_options_of_the_published_pictures(oracles, monkeypatch):
    asked = {}

    def loaded(name, weights, device, **options):
        asked[name] = (weights, options)
        return SimpleNamespace(weights_id="none")

    monkeypatch.setattr(verify, "load", loaded)
    monkeypatch.setattr(verify, "_compare", lambda model, scene, paths, device, reading: verify.Difference(scene.name, 0, 0.0, 99.0))
    monkeypatch.setattr(verify, "published", smallest)
    for name in ("nsct_sr", "tif"):
        verify.verify(name, progress=False)
    assert asked == {"nsct_sr": ("default", {"dictionary": "published", "step": 2, "epsilon": 0.1}), "tif": ("default", {})}


def test_the_publishers_options_and_reading_are_used(oracles, monkeypatch):
    """GFF's ties fall as in the published picture, and SDNet's colour files are read as its program reads them."""
    monkeypatch.setattr(verify, "published", lambda name: dataclasses.replace(pub.published(name), scenes=tuple(s for s in pub.published(name).scenes if s.name in ("carLight", "11"))))
    for name in ("gff", "sdnet"):
        assert verify.verify(name, progress=False).ok
        plain = lambda name: dataclasses.replace(pub.published(name), made={}, scenes_made={}, scenes=tuple(s for s in pub.published(name).scenes if s.name in ("carLight", "11")))
        with monkeypatch.context() as m:
            m.setattr(verify, "published", plain)
            assert verify.verify(name, progress=False).overall.largest > 1


def test_colour_files_by_way_of_ycbcr():
    grey = torch.arange(256, dtype=torch.uint8).numpy()[None]
    changed = grey_by_ycbcr(grey[..., None].repeat(3, -1)) - grey
    assert set(changed.ravel().tolist()) == {0.0, -1.0} and (changed < 0).sum() == 22 and (grey_by_ycbcr(grey) == grey).all()


def test_what_was_reached_is_recorded_for_all_and_not_worse_than_demanded():
    rows = verify.recorded()
    assert set(PUBLISHED) & set(verify.verifiable()) <= set(rows), "run `fusionrepro verify --all --record`"
    for name, row in rows.items():
        level = pub.published(name).level
        assert row["largest"] <= level["largest"] and row["mean"] <= row["worst_mean"] <= level["mean"]
        assert row["pictures"] == level["pictures"] <= len(pub.published(name).scenes) and row["worst"] in {s.name for s in pub.published(name).scenes}
        if METHODS[name].published:
            files = pub.published(name).weights[row["weights"]].files
            hashes = [f.sha256 for f in files]
            assert row["weights_id"] == (hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest())
    assert all(rows[name]["largest"] <= 1 for name in EXACT)


def made(name="u2fusion", largest=1, mean=0.0005, level=None):
    scenes = tuple(verify.Difference(s, largest, mean, 80.0) for s in "ab")
    return verify.Verification(name, "f" * 64, scenes, {"largest": 1, "mean": 0.001, "pictures": 2} if level is None else level)


def test_worse_than_demanded_is_not_ok():
    assert made().ok and not made(largest=2).ok and not made(mean=0.002).ok and not made(level={}).ok
    one_bad = dataclasses.replace(made(mean=0.0001), scenes=(made().scenes[0], verify.Difference("bad", 1, 0.0012, 70.0)))
    assert one_bad.overall.mean < 0.001 and not one_bad.ok and "the worst, bad: mean 0.0012" in str(one_bad), "a mean over pictures hides none of them"
    assert "WORSE" in str(made(largest=2)) and "no level" in str(made(level={}))
    exact = dataclasses.replace(made(), scenes=(verify.Difference("a", 0, 0.0, float("inf")),))
    assert exact.overall.psnr == float("inf") and exact.ok


@pytest.fixture
def results(tmp_path, monkeypatch):
    shutil.copytree(settings.path("results_path") / "paper", tmp_path / "results" / "paper")
    monkeypatch.setenv("FUSIONREPRO_RESULTS_PATH", str(tmp_path / "results"))
    return tmp_path / "results" / "verified.csv"


def test_records_stay_until_they_are_written_again(results):
    assert verify.recorded() == {}
    verify.record([made("lrrnet"), made("u2fusion")])
    verify.record([made("u2fusion", largest=0)])
    rows = verify.recorded()
    assert list(rows) == ["u2fusion", "lrrnet"] and rows["u2fusion"]["largest"] == 0 and rows["lrrnet"]["largest"] == 1
    results.write_text("method,largest\nu2fusion,one\n")
    with pytest.raises(DataError, match="verify --all --record"):
        verify.recorded()


@pytest.fixture
def call(capsys, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fusionrepro", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return run


def test_verify_on_the_command_line(call, results, monkeypatch):
    answers = {"u2fusion": made(), "lrrnet": made("lrrnet", largest=3)}

    def fake(name, device):
        if name not in answers:
            raise DataError(f"no files of {name}.")
        return answers[name]

    monkeypatch.setattr(verify, "verify", fake)
    code, out, _ = call("verify", "u2fusion", "--record")
    assert code == 0 and "as demanded" in out and results.is_file() and re.search(r"u2fusion +all +1 ", out)
    code, out, _ = call("verify", "u2fusion", "lrrnet")
    assert code == 1 and "WORSE" in out
    code, out, err = call("verify", "u2fusion", "sdnet")
    assert code == 1 and "u2fusion: 2 pictures" in out and err == "error: sdnet: no files of sdnet.\n"
    code, out, err = call("verify", "--all")
    assert code == 1 and err.count("error: ") == len(verify.verifiable()) - 2


@pytest.mark.parametrize("line, words", [("verify", "--all"), ("verify u2fuson", "did you mean 'u2fusion'"), ("verify average", "no published picture"), ("verify cddfuse", "no published picture")])
def test_verify_mistakes_are_one_sentence(call, line, words):
    code, out, err = call(*line.split())
    assert code == 1 and not out and err.count("\n") == 1 and words in err


# ---- the catalogue -----------------------------------------------------------------------------------------------------


def test_catalogue_as_json(call, results):
    code, out, _ = call("models", "--json")
    rows = {r["name"]: r for r in json.loads(out)}
    assert code == 0 and list(rows) == list(METHODS)
    assert rows["u2fusion"]["parameters"] == 659_217 and rows["u2fusion"]["post"] == "minmax, round" and not rows["u2fusion"]["verified"]
    assert rows["u2fusion"]["gflop"] > 300 and "hanna-xu/U2Fusion" in rows["u2fusion"]["weights"] and rows["u2fusion"]["licence"].startswith("none stated")
    assert "smfnet/table1" in rows["u2fusion"]["tables"] and rows["average"]["gflop"] is None
    verify.record([made()])
    assert "within 1 grey levels" in catalogue.entry("u2fusion").verified


def test_times_are_recorded(call, results, monkeypatch):
    assert catalogue.entry("average").seconds is None and not catalogue.recorded_times()
    catalogue.record_times({"tif": 0.12345}, "a machine")
    catalogue.record_times({"average": 0.001}, "another")
    assert list(catalogue.recorded_times()) == ["average", "tif"]
    assert catalogue.recorded_times()["tif"]["seconds"] == 0.123 and catalogue.recorded_times()["tif"]["machine"] == "a machine"
    assert catalogue.catalogue(["tif"])[0].seconds == 0.123 and catalogue.catalogue(["tif"])[0].machine == "a machine"
    code, out, err = call("models", "--record")
    assert code == 1 and "--time" in err and not out
    monkeypatch.setitem(bench.SIZES, "640x480", (32, 40))
    monkeypatch.setattr(bench, "METHODS", {n: METHODS[n] for n in ("average", "tif")})
    assert call("models", "--time", "--record")[0] == 0
    assert 0 < catalogue.recorded_times()["tif"]["seconds"] < 5 and catalogue.recorded_times()["tif"]["machine"] != "a machine"
    (results.parent / "times.csv").write_text("method,seconds\ntif,fast\n")
    code, _, err = call("models")
    assert code == 1 and "times.csv is damaged" in err
