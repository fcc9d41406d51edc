"""DAE-Fuse: the network against a literal transcription, its memory, the game, its training; seconds on a CPU."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from fusionrepro.daefuse import training
from fusionrepro.daefuse.game import Discriminator, adversarial_loss, discriminator_loss, judge, judging
from fusionrepro.daefuse.losses import CDDFUSE, Weights, fusion_terms, reconstruction_terms
from fusionrepro.daefuse.model import DAEFuse
from fusionrepro.data.scenes import scene_dataset
from fusionrepro.errors import InputError
from fusionrepro.nn import transformer_strips
from fusionrepro.training.loop import seeded

TINY = dict(width=8, blocks=1, heads=2, patch=8, vit_width=16, vit_layers=1, vit_heads=2)
VARIANTS = [dict(detail="strided"), dict(shared=False), dict(attention="tokens"), dict(directions=1), dict(cross_residual=False),
            dict(merge="mean"), dict(image_residual=True)]  # fmt: skip


def scene(size=(24, 32), seed=0, n=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(n, 1, *size, generator=generator, dtype=dtype) for _ in range(2))


def shuffled(seed=0, **options) -> DAEFuse:
    """A network in which no parameter and no running average has its initial value, in double precision."""
    torch.manual_seed(seed)
    net = DAEFuse(**TINY | options).double().eval()
    for name, t in net.state_dict().items():
        if t.is_floating_point() and t.ndim < 2:
            t.uniform_(0.5, 1.5) if "var" in name or "weight" in name else t.normal_(0, 0.3)
    return net


# ---- the network as the notes describe it, without any of our modules --------------------------------------------------


class Literal:
    """The default network, one formula after the other."""

    def __init__(self, net: DAEFuse):
        self.s, self.heads, self.patch = dict(net.state_dict()), TINY["heads"], TINY["patch"]

    def conv(self, x, name, **options):
        return F.conv2d(x, self.s[f"{name}.weight"], self.s.get(f"{name}.bias"), **options)

    def linear(self, x, name):
        return x @ self.s[f"{name}.weight"].T + self.s[f"{name}.bias"]

    def layer_norm(self, x, name, axis):
        x = (x - x.mean(axis, keepdim=True)) / (x.var(axis, unbiased=False, keepdim=True) + 1e-5).sqrt()
        weight, bias = (self.s[f"{name}.{k}"] for k in ("weight", "bias"))
        return x * weight + bias if axis == -1 else x * weight[:, None, None] + bias[:, None, None]

    def local(self, x, name):
        x = self.conv(x, f"{name}.0")
        return self.conv(x, f"{name}.1", padding=1, groups=x.shape[1])

    def attend(self, q, k, v, name):
        found = []
        for parts in zip(*(x.chunk(self.heads, 1) for x in (q, k, v)), self.s[f"{name}.temperature"], strict=True):
            q1, k1, v1 = (x.flatten(2) for x in parts[:3])
            table = F.normalize(q1, dim=-1) @ F.normalize(k1, dim=-1).transpose(1, 2) * parts[3]
            found.append(table.softmax(-1) @ v1)
        return self.conv(torch.cat(found, 1).view_as(q), f"{name}.project")

    def feed(self, x, norm, name):
        gate, value = self.local(self.layer_norm(x, norm, 1), f"{name}.inward").chunk(2, 1)
        return x + self.conv(F.gelu(gate) * value, f"{name}.outward")

    def block(self, x, name):
        qkv = self.local(self.layer_norm(x, f"{name}.norm1", 1), f"{name}.attention.qkv").chunk(3, 1)
        return self.feed(x + self.attend(*qkv, f"{name}.attention"), f"{name}.norm2", f"{name}.feed_forward")

    def residual(self, x, name):
        bn = lambda h, n: F.batch_norm(h, *(self.s[f"{name}.norm{n}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")))
        h = bn(self.conv(x, f"{name}.conv1", padding=1), 1).relu()
        return (bn(self.conv(h, f"{name}.conv2", padding=1), 2) + x).relu()

    def vit(self, x, name):
        h, w = x.shape[-2:]
        padded = F.pad(x, (0, -w % self.patch, 0, -h % self.patch), mode="reflect")
        grid = self.conv(padded, f"{name}.embed", stride=self.patch)
        grid = grid + F.interpolate(self.s[f"{name}.position"], grid.shape[-2:], mode="bilinear", align_corners=False)
        t, p = grid.flatten(2).transpose(1, 2), f"{name}.layers.0"
        found = []
        for q, k, v in zip(*(y.chunk(TINY["vit_heads"], -1) for y in self.linear(self.layer_norm(t, f"{p}.norm1", -1), f"{p}.qkv").chunk(3, -1)), strict=True):
            found.append((q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v)
        t = t + self.linear(torch.cat(found, -1), f"{p}.project")
        t = t + self.linear(F.gelu(self.linear(self.layer_norm(t, f"{p}.norm2", -1), f"{p}.feed_forward.0")), f"{p}.feed_forward.2")
        weight, bias = (self.s[f"{name}.back.{k}"] for k in ("weight", "bias"))
        return F.conv_transpose2d(t.transpose(1, 2).view_as(grid), weight, bias, stride=self.patch)[..., :h, :w]

    def phi(self, x):
        x = self.block(self.conv(x, "encoder.shallow.embed", padding=1), "encoder.shallow.blocks.0")
        high = x
        for i in range(8):
            high = self.residual(high, f"encoder.high.blocks.{i}")
        return torch.cat([high, self.vit(x, "encoder.low")], 1)

    def cross(self, query, other, name):
        q = self.local(self.layer_norm(query, f"{name}.norm_query", 1), f"{name}.attention.q")
        k, v = self.local(self.layer_norm(other, f"{name}.norm_other", 1), f"{name}.attention.kv").chunk(2, 1)
        return self.feed(query + self.attend(q, k, v, f"{name}.attention"), f"{name}.norm", f"{name}.feed_forward")

    def decode(self, phi):
        x = self.block(self.conv(phi, "decoder.squeeze"), "decoder.blocks.0")
        return torch.sigmoid(self.conv(F.leaky_relu(self.conv(x, "decoder.head.0", padding=1), 0.01), "decoder.head.2", padding=1))

    def fuse(self, ir, vi):
        a, b = self.phi(vi), self.phi(ir)
        both = torch.cat([self.cross(a, b, "fusion.cross.0"), self.cross(b, a, "fusion.cross.1")], 1)
        return self.decode(self.conv(both, "fusion.merge"))


@pytest.mark.parametrize("size", [(16, 24), (13, 21)])
def test_same_as_a_literal_transcription(size):
    net, (ir, vi) = shuffled(), scene(size, n=2, dtype=torch.float64)
    literal = Literal(net)
    with torch.no_grad():
        expected = literal.fuse(ir, vi)
        assert torch.allclose(net.combine(net.encode(vi, ir), vi), expected, atol=1e-10)
        assert torch.allclose(net(ir, vi), expected, atol=1e-10), "in strips"
        back = net.reconstruct(net.encode(vi, ir), vi, ir)
        assert all(torch.allclose(x, literal.decode(literal.phi(y)), atol=1e-10) for x, y in zip(back, (vi, ir), strict=True))
    assert (net(ir, vi) - net(vi, ir)).abs().max() > 1e-6, "the modalities are not interchangeable in phase two"


@pytest.mark.parametrize("options", [{}, *VARIANTS], ids=str)
def test_strips_agree_however_many_there_are(options, monkeypatch):
    net, (ir, vi) = shuffled(**options), scene((29, 37), dtype=torch.float64)
    expected = net(ir.requires_grad_(), vi).detach()  # records gradients: layers
    monkeypatch.setattr(transformer_strips, "NUMBERS", 1)
    assert len(transformer_strips.strips(29, 37, 8)) == 8
    with torch.no_grad():
        assert torch.allclose(net(ir, vi), expected, atol=1e-10)


def test_sizes_of_the_published_proposal():
    count = lambda net: sum(p.numel() for p in net.parameters())
    assert [count(DAEFuse(**o)) for o in ({}, dict(patch=8), dict(blocks=1, detail="strided"))] == [12_923_888, 6_632_432, 23_260_288]


def test_constant_pairs_stay_finite():
    net = DAEFuse(**TINY)
    for value in (0.0, 1.0):
        ir, vi = (torch.full((2, 1, 16, 16), value) for _ in range(2))
        e = net.encode(vi, ir)
        one, _ = reconstruction_terms(Weights(), (vi, ir), net.reconstruct(e, vi, ir), e)
        two, _ = fusion_terms(Weights(**CDDFUSE), net.combine(e, vi), (vi, ir), e)
        net.zero_grad()
        (one + two).backward()
        assert all(p.grad.isfinite().all() for p in net.parameters())


MEMORY = """
import torch
from pathlib import Path
from fusionrepro.daefuse.model import DAEFuse
# getrusage would tell the peak of the process that started this one
peak = lambda: 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
torch.set_num_threads(1)
net = DAEFuse(blocks=1, vit_layers=1).eval()   # blocks and layers come one after the other: their number needs no memory
for rows in (32, 96):
    with torch.no_grad(): net(*torch.rand(2, 1, 1, rows, 640))
    print(peak())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_whole_picture_fits_into_two_gigabytes():
    """Measured on a part of a 640x480 picture; what a row more needs is multiplied."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=300)
    small, large = map(int, done.stdout.split())
    row = (large - small) / 64
    assert row > 640 * 2 * 128 * 4, "less than both embeddings: the measurement is wrong"
    assert large + row * (480 - 96) < 2 * 2**30, f"{large / 2**20:.0f} MiB for 96 rows, {row / 2**20:.2f} MiB a row more"


# ---- the game ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form, sign", [("nonsaturating", 1), ("saturating", 1), ("printed", -1)])
def test_a_step_of_the_autoencoder_moves_the_fused_picture(form, sign):
    """Towards what a discriminator calls real; with Eq. 14 as printed, away from it."""
    torch.manual_seed(0)
    net, critic, (ir, vi) = DAEFuse(**TINY), Discriminator(8).train(), scene((32, 32), n=4)
    logit = lambda: judge(critic, vi, net.combine(net.encode(vi, ir), vi))[1].mean()
    with judging([critic]):
        before = logit()
        gradients = torch.autograd.grad(adversarial_loss(judge(critic, vi, net.combine(net.encode(vi, ir), vi))[1], form), list(net.parameters()))
        with torch.no_grad():
            for p, g in zip(net.parameters(), gradients, strict=True):
                p -= 1e-2 * g
        assert sign * (logit() - before) > 1e-5


def test_losses_of_the_game_are_stable():
    logits = torch.tensor([-1e4, 0.0, 1e4], requires_grad=True)
    for loss in (discriminator_loss(logits, logits), *(adversarial_loss(logits, f) for f in ("nonsaturating", "saturating", "printed"))):
        assert loss.isfinite() and torch.autograd.grad(loss, logits)[0].isfinite().all()


# ---- training ----------------------------------------------------------------------------------------------------------


def state(trained) -> dict[str, torch.Tensor]:
    nets = {"net": trained.module} | {f"critic{i}": c for i, c in enumerate(trained.critics)}
    return {f"{n}.{k}": v for n, m in nets.items() for k, v in m.state_dict().items()}


def test_training_is_deterministic_resumable_and_moves_everything(tmp_path):
    recipe = training.recipe("smoke", **(training.SCRATCH | dict(limit=2, batch=2, repeat=1, epochs=3, clip=0.0)))
    run = lambda name, **options: training.train(recipe, tmp_path / name, "cpu", progress=False, **options)
    with seeded(recipe.seed, "daefuse"):
        players = training.Players(recipe, training.build(recipe))
    whole, start = state(run("whole")), state(training.Trained(players.model, players.critics, None))
    run("parts", stop_after=1)  # between the phases
    run("parts", stop_after=1)  # inside phase two
    parts = state(run("parts"))
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert not [k for k in whole if torch.equal(whole[k], start[k])], "these never moved"


def test_mixed_precision_has_no_nan_in_a_whole_smoke_run(tmp_path):
    recipe = training.recipe("smoke", **training.SCRATCH, precision="bf16-mixed", channels_last=True)
    trained = training.train(recipe, tmp_path, "cpu", progress=False)
    losses = pd.read_csv(trained.fit.losses)
    for phase, rows in losses.groupby("stage"):
        assert rows.dropna(axis="columns", how="all").notna().all(axis=None), phase
    assert len(losses) == recipe.limit * recipe.repeat // recipe.batch * recipe.epochs and all(v.isfinite().all() for v in state(trained).values())


def test_training_learns_to_reconstruct_and_to_fuse(tmp_path):
    """Measured on the same whole pictures before and after each phase."""
    recipe = training.recipe("smoke", **(training.SCRATCH | dict(limit=2, repeat=4, epochs=12, game=False)))
    pairs = scene_dataset(2, size=(64, 80), seed=1)
    ir, vi = (torch.stack([getattr(p, k) for p in pairs]) for k in ("ir", "vi"))

    def after(steps):  # more steps
        net = training.train(recipe, tmp_path, "cpu", progress=False, pairs=pairs, stop_after=steps).module
        with torch.no_grad():
            e = net.encode(vi, ir)
            content = reconstruction_terms(Weights(), (vi, ir), net.reconstruct(e, vi, ir), e)[1]["content"]
            return content.item(), fusion_terms(Weights(), net.combine(e, vi), (vi, ir), e)[0].item()

    start, middle, end = after(1), after(4 * recipe.first - 1), after(4 * recipe.second)
    assert middle[0] < 0.9 * start[0] and end[1] < 0.8 * middle[1], (start, middle, end)


def test_trained_network_is_published_and_loaded():
    from fusionrepro.reproduction.training import train
    from fusionrepro.training.store import load

    weights = train("daefuse:smoke", device="cpu", progress=False, limit=2, batch=2, repeat=1, epochs=2)
    model = load("daefuse", weights)
    assert not model.training and model.encoder.shallow.embed.out_channels == training.HALF["width"]
    ir, vi = scene((17, 30))
    with torch.no_grad():
        assert model(ir, vi).shape == ir.shape


def test_bad_options_say_what_to_do(tmp_path):
    for options, words in [(dict(merge="cnv"), "did you mean 'conv'"), (dict(directions=3), "1 or 2"), (dict(width=12), "choose heads"), (dict(patch=0), "at least 1")]:
        with pytest.raises(InputError, match=words):
            DAEFuse(**options)
    with pytest.raises(InputError, match="did you mean 'sigma'"):
        training.recipe("smoke", sigm=0.3)
    with pytest.raises(InputError, match="from 0 to 1"):
        training.train(training.recipe("smoke", sigma=2.0), tmp_path, "cpu", progress=False)
    with pytest.raises(InputError, match="did you mean 'laptop'"):
        training.sweep("latop")
