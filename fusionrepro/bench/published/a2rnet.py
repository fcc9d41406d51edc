"""A2RNet as its authors' program runs it, step by step and unfused.

Nothing here is meant to be fast. Every operation of the released network stands in its own line, on a
dictionary of tensors that carry the public checkpoint's names, so that a reader can hold the two side by
side. `tests/test_a2rnet.py` compares `fusionrepro.a2rnet` with it; `fusionrepro bench` times it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ENCODER = {"C1": (2, 16), "C2": (16, 32), "C3": (32, 64), "C4": (64, 128), "C5": (128, 256)}
_DECODER = {"C6": (256, 128), "C7": (128, 64), "C8": (64, 32), "C9": (32, 16)}
_UP = {"U1": 256, "U2": 128, "U3": 64, "U4": 32}
_DRM = {"C1_ESSA": (16, 32), "C2_ESSA": (32, 64), "C3_ESSA": (64, 128), "C4_ESSA": (128, 256)}
_NEVER_CALLED = ("C2_ESSA", "C4_ESSA")  # built by the public code, part of a checkpoint, never run


def _arb_shapes(prefix: str, d: int, feed: str) -> dict[str, tuple[int, ...]]:
    weights = {
        f"{feed}.0": (2 * d, 2 * d, 1, 1), f"{feed}.3": (2 * d, 2 * d, 3, 3), f"{feed}.6": (d, 2 * d, 1, 1),
        "attn.lnqkv": (3 * d, d), "attn.ln": (d, d), "norm": (d,),
    }  # fmt: skip
    both = ((f"{prefix}.{k}", shape) for k, shape in weights.items())
    return {f"{k}.{part}": s for k, shape in both for part, s in (("weight", shape), ("bias", shape[:1]))}


def shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of all 158 tensors of a public checkpoint."""
    convs = {}
    for name, (a, b) in {**_ENCODER, **_DECODER}.items():
        convs |= {f"{name}.layer.0": (b, a, 3, 3), f"{name}.layer.3": (b, b, 3, 3)}
    convs |= {f"{name}.Up": (c // 2, c, 1, 1) for name, c in _UP.items()} | {"pred": (1, 16, 3, 3)}
    arbs = {}
    for name, (c, d) in _DRM.items():
        convs |= {f"{name}.conv_first": (d, c, 3, 3), f"{name}.conv_last": (c, d, 3, 3)}
        arbs |= _arb_shapes(f"{name}.blockup.convup", d, "convu")
        arbs |= _arb_shapes(f"{name}.blockup.convdown", d, "convd")
    return {f"{k}.{p}": s for k, v in convs.items() for p, s in (("weight", v), ("bias", v[:1]))} | arbs


def random_state(seed: int = 0) -> dict[str, Tensor]:
    """A state dict with the public names and weights drawn as PyTorch's layers draw theirs."""
    generator = torch.Generator().manual_seed(seed)
    table, state = shapes(), {}
    for name, shape in table.items():
        kernel = table[name.rpartition(".")[0] + ".weight"]
        bound = 1 / math.sqrt(math.prod(kernel[1:]))
        draw = (torch.rand(shape, generator=generator) * 2 - 1) * bound
        # A fresh LayerNorm is 1 and 0; a trained one is not, and a mapping that ignores it must be noticed.
        state[name] = draw if ".norm." not in name else draw * 0.1 + (1.0 if name.endswith("weight") else 0.0)
    return state


class Published(nn.Module):
    """The released network on a public state dict; called as (infrared, visible), as ours is."""

    two_graphs = True  # in training: the clean one (training mode) stays while the attack builds its own (evaluation mode)

    def __init__(self, state: dict[str, Tensor] | None = None):
        super().__init__()
        state = random_state() if state is None else state
        self.names = list(state)
        self.tensors = nn.ParameterList([nn.Parameter(t.detach().clone()) for t in state.values()])

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """(N,1,H,W) infrared and (N,C,H,W) visible, only the first channel is used, to (N,1,H,W) fused."""
        p = dict(zip(self.names, self.tensors, strict=True))
        r1 = self._drm(p, "C1_ESSA", self._block(p, "C1", torch.cat([vi[:, :1], ir], 1)))
        r2 = self._block(p, "C2", F.max_pool2d(r1, 2))
        r3 = self._drm(p, "C3_ESSA", self._block(p, "C3", F.max_pool2d(r2, 2)))
        r4 = self._block(p, "C4", F.max_pool2d(r3, 2))
        x = self._block(p, "C5", F.max_pool2d(r4, 2))
        for up, block, skip in (("U1", "C6", r4), ("U2", "C7", r3), ("U3", "C8", r2), ("U4", "C9", r1)):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.conv2d(x, p[f"{up}.Up.weight"], p[f"{up}.Up.bias"])
            x = self._block(p, block, torch.cat([x, skip], 1))
        return torch.sigmoid(F.conv2d(x, p["pred.weight"], p["pred.bias"], padding=1))

    @property
    def unused(self) -> int:
        """Parameters of the modules that are never called."""
        return sum(t.numel() for name, t in zip(self.names, self.tensors, strict=True) if name.startswith(_NEVER_CALLED))

    def _block(self, p: dict, name: str, x: Tensor) -> Tensor:
        for i in (0, 3):
            x = F.conv2d(x, p[f"{name}.layer.{i}.weight"], p[f"{name}.layer.{i}.bias"], padding=1)
            x = F.leaky_relu(F.dropout(x, 0.1, self.training), 0.01)
        return x

    def _drm(self, p: dict, name: str, x: Tensor) -> Tensor:
        def a(t): return self._arb(p, f"{name}.blockup.convup", "convu", t)
        def b(t): return self._arb(p, f"{name}.blockup.convdown", "convd", t)

        x0 = F.conv2d(x, p[f"{name}.conv_first.weight"], p[f"{name}.conv_first.bias"], padding=1)
        x1 = a(x0)
        x2 = b(x1 + x0)
        x3 = a(x2 + x1)
        x4 = b(x3 + x2)
        x5 = a(x4 + x3)
        return F.conv2d(x5, p[f"{name}.conv_last.weight"], p[f"{name}.conv_last.bias"], padding=1)

    def _arb(self, p: dict, name: str, feed: str, x: Tensor) -> Tensor:
        n, d, h, w = x.shape
        tokens = F.layer_norm(x.flatten(2).transpose(1, 2), (d,), p[f"{name}.norm.weight"], p[f"{name}.norm.bias"])
        a = self._attention(p, f"{name}.attn", tokens).transpose(1, 2).view(n, d, h, w)
        y = torch.cat([F.dropout2d(a, 0.2, self.training), x], 1)
        for i, padding in ((0, 0), (3, 1)):
            y = F.conv2d(y, p[f"{name}.{feed}.{i}.weight"], p[f"{name}.{feed}.{i}.bias"], padding=padding)
            y = F.dropout2d(F.leaky_relu(y, 0.2, inplace=True), 0.2, self.training)
        return F.conv2d(y, p[f"{name}.{feed}.6.weight"], p[f"{name}.{feed}.6.bias"]) + x

    def _attention(self, p: dict, name: str, z: Tensor) -> Tensor:
        q, k, v = F.linear(z, p[f"{name}.lnqkv.weight"], p[f"{name}.lnqkv.bias"]).chunk(3, dim=2)
        q, k = (t - t.mean(2, keepdim=True) for t in (q, k))
        q, k = (t.pow(2) for t in (q, k))
        q, k = (t / (t.sum(2, keepdim=True) + 1e-7) for t in (q, k))
        q, k = F.normalize(q, dim=2), F.normalize(k, dim=1)
        kernel = q @ (k.transpose(1, 2) @ v) / math.sqrt(z.shape[1])
        return F.linear(v + kernel, p[f"{name}.ln.weight"], p[f"{name}.ln.bias"])


def both() -> tuple[nn.Module, nn.Module]:
    """Our network and the program, with the same random weights."""
    from fusionrepro.a2rnet.model import A2RNet, read_authors

    ours, state = A2RNet(), random_state()
    ours.load_state_dict(read_authors(state))
    return ours.eval(), Published(state).eval()
