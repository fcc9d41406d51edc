"""The fitting loop: killed, resumed, shared, refused."""

import json
import os
import runpy
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from fusionrepro.errors import CheckpointError, FusionReproError, InputError
from fusionrepro.training import initial
from fusionrepro.training.checkpoint import load_state, load_tensors, save_state, save_tensors
from fusionrepro.training.loop import Stage, fit, locked, mix, seeded
from fusionrepro.training.recipe import Recipe
from fusionrepro.training.store import weights_sha256

# Run in a process of its own: two stages, dropout, Adam and momentum, chance in samples, network and generator.
SCRIPT = '''
import sys, time, torch
from torch import nn
from fusionrepro.training.loop import Stage, fit, mix, seeded
from fusionrepro.training.recipe import Recipe

class Samples:
    def __len__(self): return 24
    def __call__(self, epoch, index):
        g = torch.Generator().manual_seed(mix(epoch, index))
        return dict(ir=torch.rand(1, 12, 12, generator=g), vi=torch.rand(1, 12, 12, generator=g))

def stages(pause=0.0):
    torch.manual_seed(time.time_ns() % 1000)   # chance left over from elsewhere must not matter
    with seeded(0, "nets"):
        first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.2), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
        second = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Dropout(0.2), nn.Tanh(), nn.Conv2d(4, 1, 1))
    sgd = torch.optim.SGD(first.parameters(), lr=0.05, momentum=0.9)
    adam = torch.optim.Adam(second.parameters(), lr=0.01)
    def encode(ctx):
        time.sleep(pause)
        loss = (first(ctx.batch["vi"]) - ctx.batch["vi"]).square().mean()
        ctx.backward(loss); ctx.optimise("sgd", clip=1.0)
        return dict(rebuild=loss)
    def fuse(ctx):
        time.sleep(pause)
        noise = torch.rand(ctx.batch["ir"].shape, generator=ctx.generator)
        with torch.no_grad(): target = first(ctx.batch["vi"])
        pair = torch.cat([ctx.batch["ir"] + 0.1 * noise, ctx.batch["vi"]], 1)
        clean = (second(pair) - target).square().mean()
        ctx.backward(clean)
        noisy = (second(pair + 0.1) - target).abs().mean()
        ctx.backward(noisy); ctx.optimise("adam")
        return dict(clean=clean, noisy=noisy)
    def schedule(epoch): sgd.param_groups[0]["lr"] = 0.05 * 0.8**epoch
    return [Stage("encode", Samples(), 4, 4, dict(first=first), dict(sgd=sgd), encode, schedule),
            Stage("fuse", Samples(), 4, 4, dict(second=second), dict(adam=adam), fuse)]

if __name__ == "__main__":
    fit(stages(pause=0.05), Recipe(paper="toy"), sys.argv[1], device="cpu", checkpoint_minutes=0.0)
'''
STEPS = 2 * 4 * 6


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "train_toy.py"
    path.write_text(SCRIPT)
    return path


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


def train(script, folder, **how):
    """The same run in this process; as many threads as the other, because threads share a sum."""
    stages = runpy.run_path(str(script))["stages"]()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return fit(stages, Recipe(paper="toy", **how.pop("fields", {})), folder, device="cpu", **how)
    finally:
        torch.set_num_threads(threads)


def weights(folder):
    return load_tensors(Path(folder) / "weights.safetensors")[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def rows(folder):
    return pd.read_csv(Path(folder) / "losses.csv")


def check_same_run(a, b):
    assert same(weights(a), weights(b))
    logs = [rows(f).drop(columns="seconds") for f in (a, b)]
    pd.testing.assert_frame_equal(*logs)
    assert len(logs[0]) == STEPS and not logs[0].duplicated(["stage", "step"]).any()
    for folder in (a, b):
        assert sorted(p.name for p in folder.iterdir()) == ["losses.csv", "recipe.json", "run.lock", "weights.safetensors"]


def kill_when(script, folder, after):
    """Train in another process and shoot it once its log has more than `after` lines, wherever it is."""
    process = subprocess.Popen([sys.executable, str(script), str(folder)], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, deadline = folder / "losses.csv", time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if log.is_file() and log.read_bytes().count(b"\n") > after:
            break
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before it could be killed"
    process.kill()
    process.wait()
    assert not (folder / "weights.safetensors").exists()


def test_killed_runs_end_with_the_same_weights(script, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(script, whole, progress=False)
    for after in (3, 30):  # once in each stage
        kill_when(script, killed, after)
    assert train(script, killed, progress=False).status == "resumed"
    check_same_run(whole, killed)


def test_a_torn_write_is_cleared_away(script, tmp_path):
    train(script, tmp_path, progress=False, stop_after=3)
    (tmp_path / ".checkpoint-abc.safetensors").write_bytes(b"half")
    train(script, tmp_path, progress=False)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("fields", [dict(channels_last=True), dict(channels_last=True, precision="bf16-mixed")], ids=["nhwc", "bf16"])
def test_stopping_anywhere_changes_nothing(script, tmp_path, fields):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(script, whole, progress=False, fields=fields)
    for steps in (1, 5, 18, 7):  # inside an epoch, at its end, at the stage's end
        assert train(script, parts, progress=False, fields=fields, stop_after=steps).status == "stopped"
    train(script, parts, progress=False, fields=fields)
    check_same_run(whole, parts)


def test_a_finished_run_is_loaded(script, tmp_path):
    assert train(script, tmp_path, progress=False).status == "trained"
    before = (tmp_path / "weights.safetensors").stat().st_mtime_ns
    again = train(script, tmp_path, progress=False)
    assert (again.status, again.steps) == ("loaded", STEPS) and again.seconds > 0
    assert (tmp_path / "weights.safetensors").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "recipe.json").read_text())["paper"] == "toy"


def test_progress_is_about_ten_lines_when_there_is_no_terminal(script, tmp_path, capsys):
    train(script, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and f"step {STEPS} of {STEPS}" in lines[-1]


class Constant:
    def __init__(self, n=8):
        self.n = n

    def __len__(self):
        return self.n

    def __call__(self, epoch, index):
        return dict(x=torch.full((1,), index / self.n))


def linear(name="stage", n=8, batch=4, epochs=2, seed=0, step=None):
    with seeded(seed, "net"):
        net = nn.Linear(1, 1)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)

    def default(ctx):
        loss = (net(ctx.batch["x"]) - 1).square().mean()
        ctx.backward(loss)
        ctx.optimise("sgd")
        return dict(loss=loss)

    return Stage(name, Constant(n), batch, epochs, dict(net=net), dict(sgd=sgd), step or default)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_processes_give_the_weights_of_one(tmp_path):
    # Without dropout or batch statistics they differ by rounding alone.
    path = tmp_path / "plain.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_training import linear, fit, Recipe\n"
        "fit([linear(epochs=5)], Recipe(devices=2), sys.argv[1], device='cpu', progress=False)\n"
    )
    subprocess.run([sys.executable, str(path), str(tmp_path / "two")], env=environment(), check=True, timeout=120)
    fit([linear(epochs=5)], Recipe(), tmp_path / "one", device="cpu", progress=False)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys() and all(torch.allclose(one[k], two[k], atol=1e-6) for k in one)
    assert len(rows(tmp_path / "two")) == len(rows(tmp_path / "one")) == 10


def test_a_generator_against_a_discriminator(tmp_path):
    with seeded(0):
        g, d = nn.Linear(1, 1), nn.Linear(1, 1)
    optimizers = dict(g=torch.optim.Adam(g.parameters()), d=torch.optim.Adam(d.parameters()))
    seen = []

    def step(ctx):
        fake = g(ctx.batch["x"])
        d_loss = d(fake.detach()).mean() - d(ctx.batch["x"]).mean()
        ctx.backward(d_loss)
        ctx.optimise("d")
        g_loss = -d(fake).mean()
        ctx.backward(g_loss, into="g")
        seen.append(all(p.grad is None for p in d.parameters()))
        ctx.optimise("g")
        return dict(d=d_loss, g=g_loss)

    fit([Stage("gan", Constant(), 4, 2, dict(g=g, d=d), optimizers, step)], Recipe(), tmp_path, device="cpu", progress=False)
    assert seen == [True] * 4
    assert {"lr_g", "lr_d", "d", "g"} <= set(rows(tmp_path))


def test_the_users_generator_is_left_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    fit([linear()], Recipe(), tmp_path, device="cpu", progress=False)
    assert torch.equal(torch.rand(4), expected)


def test_networks_compute_in_bfloat16_and_losses_do_not(tmp_path):
    dtypes = []
    with seeded(0):
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 1, 3))
    net[0].register_forward_hook(lambda m, i, o: dtypes.append(o.dtype))
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)

    class Images(Constant):
        def __call__(self, epoch, index):
            return dict(x=torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(index)))

    def step(ctx):
        out = net(ctx.batch["x"])
        assert ctx.batch["x"].is_contiguous(memory_format=torch.channels_last)
        loss = out.square().mean()
        dtypes.append(loss.dtype)
        ctx.backward(loss)
        ctx.optimise("sgd")
        return dict(loss=loss)

    stage = Stage("s", Images(), 4, 1, dict(net=net), dict(sgd=sgd), step)
    fit([stage], Recipe(precision="bf16-mixed", channels_last=True), tmp_path, device="cpu", progress=False)
    assert dtypes == [torch.bfloat16, torch.float32] * 2
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_a_second_process_is_refused(tmp_path):
    tmp_path.joinpath("run").mkdir()
    with locked(tmp_path / "run"), pytest.raises(FusionReproError, match="another process is training"):
        fit([linear()], Recipe(), tmp_path / "run", device="cpu", progress=False)
    assert fit([linear()], Recipe(), tmp_path / "run", device="cpu", progress=False).status == "trained"


def test_a_damaged_checkpoint_is_one_sentence(tmp_path):
    fit([linear()], Recipe(), tmp_path, device="cpu", progress=False, stop_after=1)
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    for broken in (b"", b"text", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match="damaged") as e:
            fit([linear()], Recipe(), tmp_path, device="cpu", progress=False)
        assert "\n" not in str(e.value) and path.read_bytes() == broken
    path.write_bytes(whole)
    assert fit([linear()], Recipe(), tmp_path, device="cpu", progress=False).status == "resumed"


def test_a_checkpoint_of_changed_code_is_refused(tmp_path):
    fit([linear()], Recipe(), tmp_path, device="cpu", progress=False)
    other = linear()
    other.modules["net"] = nn.Linear(1, 2)
    with pytest.raises(CheckpointError, match=r"weight is \(1, 1\) instead of \(2, 1\)"):
        fit([other], Recipe(), tmp_path, device="cpu", progress=False)
    other.modules = dict(head=other.modules["net"])
    with pytest.raises(CheckpointError, match="head"):
        fit([other], Recipe(), tmp_path, device="cpu", progress=False)


@pytest.mark.parametrize(
    "stages, recipe, message",
    [
        (lambda: [], Recipe(), "at least one stage"),
        (lambda: [linear(n=3)], Recipe(), "3 samples, fewer than its batch of 4"),
        (lambda: [linear("a"), linear("a")], Recipe(), "one name"),
        (lambda: [linear("a"), linear("b")], Recipe(), "two networks are called 'net'"),
        (lambda: [linear()], Recipe(devices=3), "cannot be shared by 3 devices"),
    ],
)
def test_stages_that_cannot_run(tmp_path, stages, recipe, message):
    with pytest.raises(InputError, match=message):
        fit(stages(), recipe, tmp_path / "run", device="cpu", progress=False)
    assert not (tmp_path / "run").exists()


def test_samples_of_different_size_are_named(tmp_path):
    stage = linear()

    class Ragged(Constant):
        def __call__(self, epoch, index):
            return dict(x=torch.zeros(index + 1))

    stage.samples = Ragged()
    with pytest.raises(InputError, match="differ in the shape of 'x'"):
        fit([stage], Recipe(), tmp_path, device="cpu", progress=False)


def test_the_last_incomplete_batch_is_dropped(tmp_path):
    assert fit([linear(n=11, epochs=3)], Recipe(), tmp_path, device="cpu", progress=False).steps == 6


def test_state_survives_the_file(tmp_path):
    tied = torch.rand(2, 3)
    state = {"a": [tied, tied[:1]], 3: (1.5, None, "x"), "empty": {}, "half": torch.rand(2).half(), "nhwc": torch.rand(1, 2, 3, 4).to(memory_format=torch.channels_last)}
    save_state(tmp_path / "s.safetensors", state, dict(note=[1, 2]))
    back, meta = load_state(tmp_path / "s.safetensors")
    assert torch.equal(back["a"][0], tied) and torch.equal(back["a"][1], tied[:1])
    assert back[3] == (1.5, None, "x") and back["empty"] == {} and back["half"].dtype == torch.float16
    assert torch.equal(back["nhwc"], state["nhwc"]) and meta["note"] == [1, 2]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = save_tensors(tmp_path / "c.safetensors", dict(x=torch.ones(3)))
    old = path.read_bytes()

    def full(tensors, name, metadata):
        Path(name).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")  # its words on a full disk

    monkeypatch.setattr("fusionrepro.training.checkpoint.save_file", full)
    with pytest.raises(FusionReproError, match="disk is full"):
        save_tensors(path, dict(x=torch.zeros(3)))
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_seeds_do_not_collide():
    seeds = {mix(seed, stage, step, rank) for seed in range(5) for stage in ("a", "b") for step in range(200) for rank in range(2)}
    assert len(seeds) == 4000 and all(0 <= s < 2**63 for s in seeds)


# ---- where a training starts ---------------------------------------------------------------------------------------------

PAPERS = ("a2rnet", "smfnet", "daefuse", "msfam", "derun")


def room(slug):
    return import_module(f"fusionrepro.{slug}.training")


def built(recipe):
    return room(recipe.paper).build(recipe, *([recipe.fusion] if recipe.paper == "msfam" else []))


@pytest.mark.parametrize("slug", PAPERS)
def test_a_smoke_run_starts_from_the_shipped_network(slug):
    net = built(room(slug).recipe("smoke"))
    assert net.initial == {"weights": "shipped", "sha256": weights_sha256(net), "tensors": len(net.state_dict()), "of": len(net.state_dict()), "random": []}
    assert initial.sentence(net) == "started from the weights that come with the package (all its tensors)"
    for profile in ("laptop", "gpu", "paper"):
        assert room(slug).recipe(profile).initial == "random", "what is compared with a paper is trained from random weights"
    scratch = built(room(slug).recipe("smoke", **room(slug).SCRATCH))
    assert scratch.initial["weights"] == "random" and initial.sentence(scratch) == ""


@pytest.mark.parametrize("slug", PAPERS)
def test_experiments_take_over_what_fits(slug):
    training, (own, digest) = room(slug), initial.shipped(slug)
    main, partial = training.recipe("smoke"), 0
    for name in training.ABLATIONS:
        net = built(training.variant(name, main))
        state, found = net.state_dict(), net.initial
        if found["weights"] == "random":  # too little of it would fit: A2RNet without its U-Net
            assert (slug, name) == ("a2rnet", "M1")
            partial += 1
            continue
        assert found["sha256"] == digest and found["tensors"] + len(found["random"]) == found["of"] == len(state)
        assert all((k in found["random"]) == (k not in own or own[k].shape != v.shape) for k, v in state.items())
        assert all(torch.equal(v, own[k]) for k, v in state.items() if k not in found["random"])
        partial += bool(found["random"])
    assert partial, "an experiment of every such paper has a part of its own"


def test_other_shipped_weights_are_another_training(tmp_path, monkeypatch):
    recipe = room("derun").recipe("smoke")
    tensors, meta = load_tensors(initial.shipped_file("derun"))
    path = tmp_path / "derun.safetensors"
    monkeypatch.setattr(initial, "shipped_file", lambda paper: path)
    save_tensors(path, tensors, meta)
    before = recipe.hash
    key = next(k for k, v in tensors.items() if v.is_floating_point())
    save_tensors(path, tensors | {key: tensors[key] + 0.5}, meta)
    os.utime(path, (1, 1))
    assert recipe.hash != before and recipe.override(initial="random").hash == recipe.override(initial="random").hash
    assert len({recipe.hash, before, recipe.override(initial="random").hash}) == 3


def test_a_shipped_start_is_recorded_and_resumed_without_a_trace(tmp_path):
    training = room("derun")
    recipe = training.recipe("smoke", limit=2, batch=2, epochs=3, crop=24)
    run = lambda name, **options: training.train(recipe, tmp_path / name, "cpu", progress=False, **options)
    whole, stopped = run("whole"), run("parts", stop_after=1)
    parts = run("parts")
    assert (stopped.fit.status, parts.fit.status) == ("stopped", "resumed")
    assert weights_sha256(parts.module) == weights_sha256(whole.module) != whole.module.initial["sha256"]
    assert json.loads((whole.fit.folder / "initial.json").read_text()) == whole.module.initial
    assert json.loads((whole.fit.folder / "recipe.json").read_text())["initial"] == "shipped"


def test_a_start_that_cannot_be_is_one_sentence():
    with pytest.raises(InputError, match="initial=random"):
        built(room("smfnet").recipe("smoke", width=8))
    with pytest.raises(InputError, match="no weights come with the package for 'unheard'"):
        initial.take_over(nn.Conv2d(1, 1, 1), Recipe(paper="unheard", initial="shipped"))
    with pytest.raises(InputError, match="'initial' must be one of 'random', 'shipped'"):
        Recipe(initial="mine")


@pytest.mark.parametrize("slug", PAPERS)
def test_experiments_of_the_laptop_profile_have_two_hundred_steps(slug):
    training = room(slug)
    main = training.recipe("laptop")
    whole = {"roadscene": 161, "tno": 27}  # pairs for training; of MSRS the recipe says how many
    for name in training.ABLATIONS:
        r = training.variant(name, main)
        pairs = r.limit or whole[r.data]
        if slug == "msfam":
            pairs -= round(pairs * r.validation)
        steps = pairs * r.repeat // r.batch * r.epochs
        if getattr(r, "stages", "") == "reconstruction":
            steps = 2 * r.one_limit // r.one_batch * r.one_epochs
        assert steps >= 200, (name, steps)
