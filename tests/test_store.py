"""The trained-model store: published, shipped, foreign and hostile files."""

import io
import json
import pickle
import sys
import tarfile
import types
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fusionrepro import registry
from fusionrepro.errors import CheckpointError, InputError
from fusionrepro.nn.fusion import FusionModel
from fusionrepro.training import store
from fusionrepro.training.checkpoint import load_module, load_tensors, save_tensors


class Tiny(FusionModel):
    name = "tiny"

    def __init__(self, width: int = 4, gain: float = 1.0):
        super().__init__()
        self.gain = gain
        self.net = nn.Sequential(nn.Conv2d(2, width, 3, padding=1), nn.BatchNorm2d(width), nn.Conv2d(width, 1, 1))

    def fuse(self, ir, vi):
        return self.gain * self.net(torch.cat([ir, vi], 1))


class Other(FusionModel):
    name = "other"

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(2, 1, 1)

    def fuse(self, ir, vi):
        return self.head(torch.cat([ir, vi], 1))


class Plain(FusionModel):
    name = "plain"

    def fuse(self, ir, vi):
        return (ir + vi) / 2


def read_tiny(state):
    """The 'authors' call it `body`, and ship a layer that is never used."""
    return {k.replace("body.", "net."): v for k, v in state.items() if not k.startswith("unused.")} | {"net.0.bias": state["body.0.bias"]}


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    module = types.ModuleType("tiny_methods")
    module.Tiny, module.Other, module.Plain, module.read_tiny = Tiny, Other, Plain, read_tiny
    monkeypatch.setitem(sys.modules, "tiny_methods", module)
    for name, builder, trained, reader in (("tiny", "Tiny", True, "tiny_methods:read_tiny"), ("other", "Other", True, ""), ("plain", "Plain", False, "")):
        row = registry.Method(name, name, "paper", 2020, f"tiny_methods:{builder}", "-", "-", trained=trained, reader=reader)
        monkeypatch.setitem(registry.METHODS, name, row)


def same(a, b, atol=0.0):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.allclose(a[k].float(), b[k].float(), rtol=0, atol=atol) for k in a)


def test_untrained_and_weightless_methods():
    model = store.load("tiny", weights=None, width=6)
    assert not model.training and model.weights_id == "untrained" and model.net[0].out_channels == 6
    assert store.load("plain").weights_id == "none"
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        store.load("tinny")
    with pytest.raises(InputError, match="did you mean 'width'"):
        store.load("tiny", weights=None, widht=6)
    with pytest.raises(InputError, match="plain has no weights"):
        store.load("plain", weights="w.safetensors")


def test_missing_default_weights_say_what_to_do():
    with pytest.raises(CheckpointError, match="train with `fusionrepro train tiny`, or take it untrained"):
        store.load("tiny")


def test_published_models_come_back_with_their_options():
    model = Tiny(width=6, gain=0.5)
    path = store.publish("tiny", model, dict(data="scenes", metrics={"EN": 6.5}, options=dict(width=6, gain=0.5)))
    back = store.load("tiny")
    assert back.gain == 0.5 and same(model, back, atol=1e-3) and not same(model, back)
    assert all(p.dtype == torch.float32 for p in back.parameters()) and back.net[1].num_batches_tracked.dtype == torch.int64
    tensors, meta = load_tensors(path)
    assert (meta["model"], meta["options"]["width"]) == ("tiny", 6) and "format" in meta and tensors["net.0.weight"].dtype == torch.float16
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["data"] == "scenes" and card["sha256"] == store.weights_sha256(path) == back.weights_id and card == store.card("tiny")
    assert card["parameters"] == sum(p.numel() for p in model.parameters())


def test_full_precision_is_exact_and_a_path_needs_no_store(tmp_path):
    model = Tiny()
    path = store.publish("tiny", model, {}, folder=tmp_path / "elsewhere", dtype=torch.float32)
    assert same(model, store.load("tiny", weights=path)) and same(model, store.load("tiny", weights=str(path)))
    assert store.weights_sha256(model) == store.weights_sha256(store.load("tiny", weights=path))
    assert store.weights_sha256(model) != store.weights_sha256(Tiny())


def test_publish_refuses_what_load_could_not_use():
    with pytest.raises(CheckpointError, match="name the options"):
        store.publish("tiny", Tiny(width=6), {})
    broken = Tiny()
    broken.net[0].weight.data[0] = float("nan")
    with pytest.raises(InputError, match="'net.0.weight' is not finite"):
        store.publish("tiny", broken, {})
    large = Tiny()
    large.net[1].running_var.fill_(1e6)
    with pytest.raises(InputError, match="dtype=torch.float32"):
        store.publish("tiny", large, {})
    assert not store.store_folder().exists()


def test_weights_of_another_model_are_named(tmp_path):
    path = store.publish("other", Other(), {}, folder=tmp_path)
    with pytest.raises(CheckpointError, match="tensors missing .*unexpected .*belongs to 'other'"):
        store.load("tiny", weights=path)
    path = store.publish("tiny", Tiny(), {}, folder=tmp_path)
    with pytest.raises(CheckpointError, match=r"net.0.weight is \(4, 2, 3, 3\) instead of \(8, 2, 3, 3\).*options differ"):
        store.load("tiny", weights=path, width=8)


def test_a_card_of_other_weights_is_noticed():
    path = store.publish("tiny", Tiny(), {})
    card = path.with_suffix(".json").read_text()
    store.publish("tiny", Tiny(), {})
    path.with_suffix(".json").write_text(card)
    with pytest.raises(CheckpointError, match="is not the file that its card"):
        store.load("tiny")
    path.with_suffix(".json").write_text("{")
    with pytest.raises(CheckpointError, match="model card"):
        store.load("tiny")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "optimizer": {"state": {}}}, lambda s: {"weight": s, "epoch": 3}, lambda s: {f"module.{k}": v for k, v in s.items()}])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl", ".model"])
def test_the_authors_files_are_mapped(tmp_path, wrap, suffix):
    model = Tiny()
    public = {k.replace("net.", "body."): v for k, v in model.state_dict().items()} | {"unused.weight": torch.zeros(3)}
    path = tmp_path / f"best{suffix}"
    torch.save(wrap(public), path)
    back = store.load("tiny", weights=path)
    assert same(model, back) and back.weights_id == store.weights_sha256(path)


def test_plain_state_dicts_of_ours_are_read_too(tmp_path):
    model = Tiny()
    torch.save(model.state_dict(), tmp_path / "ours.pt")
    save_file(model.state_dict(), tmp_path / "ours.safetensors")
    assert same(model, store.load("tiny", weights=tmp_path / "ours.pt")) and same(model, store.load("tiny", weights=tmp_path / "ours.safetensors"))


def test_a_checkpoint_of_a_training_says_what_makes_weights_of_it(tmp_path):
    save_file({f"modules/net/{k}": v for k, v in Tiny().state_dict().items()}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="checkpoint of a training; `fusionrepro train .*recipe.json`"):
        store.load("tiny", weights=tmp_path / "weights.safetensors")


class Code:
    """Runs when unpickled."""

    def __reduce__(self):
        return (open, ("unpickled.txt", "w"))


def hostile_files(folder):
    torch.save(Code(), folder / "code.pth")
    (folder / "code.pkl").write_bytes(pickle.dumps(Code()))
    torch.save({"weights": nn.Linear(1, 1)}, folder / "whole_module.pt")
    with tarfile.open(folder / "legacy.model", "w") as archive:
        for name in ("storages", "tensors", "pickle", "sys_info"):
            content = pickle.dumps(Code())
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with zipfile.ZipFile(folder / "script.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Code()))
        archive.writestr("archive/constants.pkl", pickle.dumps(Code()))
    (folder / "empty.pth").write_bytes(b"")
    (folder / "text.pth").write_text("hello, these are no weights")
    torch.save(Tiny().state_dict(), folder / "cut.pth")
    (folder / "cut.pth").write_bytes((folder / "cut.pth").read_bytes()[:300])
    (folder / "text.safetensors").write_text("no weights")
    (folder / "folder.pth").mkdir()
    torch.save(torch.zeros(3), folder / "tensor.pt")
    torch.save({0: torch.zeros(3)}, folder / "numbered.pt")
    torch.save({"epoch": 3}, folder / "no_tensors.pt")
    torch.save({"a": torch.zeros(3)}, folder / "foreign.pt")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", ["tiny", "other"])
def test_files_that_cannot_be_used_are_one_sentence_and_run_no_code(tmp_path, monkeypatch, name):
    folder = tmp_path / "files"
    folder.mkdir()
    files = hostile_files(folder)
    monkeypatch.chdir(tmp_path)
    for path in [*files, folder / "absent.pth", folder / "absent.safetensors"]:
        with pytest.raises(CheckpointError) as e:
            store.load(name, weights=path)
        assert path.name in str(e.value) and "\n" not in str(e.value), path
    assert not (tmp_path / "unpickled.txt").exists()


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_are_no_weights(dtype):
    module = torch.nn.Linear(2, 3)
    with pytest.raises(CheckpointError, match="2 tensors of another type.*weight is .* instead of float32"):
        load_module(module, {k: torch.ones_like(v, dtype=dtype) for k, v in module.state_dict().items()}, "a.safetensors", "give another file.")


@pytest.mark.parametrize("options", ["levels", ["levels"], {"levels": 1_000_000}, {"levels": {"deep": 1}}, {"levels": float("inf")}])
def test_options_that_no_network_has(tmp_path, options):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"w": torch.zeros(1)}, {"model": "msfam", "options": options})
    with pytest.raises(CheckpointError, match="options that no network has"):
        store.load("msfam", weights=path)
