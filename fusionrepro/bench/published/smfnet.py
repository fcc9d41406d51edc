"""SMFNet as the paper and the released program compute it, one operation after the other."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Published(nn.Module):
    """The network on the weights of our `SMFNet`."""

    def __init__(self, ours: nn.Module, heads: int = 8):
        super().__init__()
        self.ours, self.heads = ours, heads
        self.w: dict[str, Tensor] = {}

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """(N,1,H,W) twice to (N,1,H,W) in (0,1)."""
        self.w = self.ours.state_dict(keep_vars=True)
        base, detail, graph = self._features(ir, vi)
        x = self._dense(detail[0] + detail[1], "detail_fusion.dense")
        for i in range(2):
            x = self._affine(x, f"detail_fusion.steps.{i}")
        x = x + self._transformer(base[0] + base[1], "base_fusion")
        return self._decode(x + self._conv(torch.cat(graph, 1), "graph.merge"))

    def _conv(self, x, name, **options):
        return F.conv2d(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"), **options)

    def _norm(self, x, name):
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).square().mean(1, keepdim=True)
        scale, shift = (self.w[f"{name}.{k}"][:, None, None] for k in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def _batch_norm(self, x, name):
        mean, variance, scale, shift = (self.w[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def _attend(self, q, k, v, name):
        n, c, h, w = q.shape
        q, k, v = (t.reshape(n, self.heads, c // self.heads, h * w) for t in (q, k, v))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        out = (q @ k.transpose(-1, -2) * self.w[f"{name}.temperature"]).softmax(-1) @ v
        return self._conv(out.reshape(n, c, h, w), f"{name}.project")

    def _mdta(self, x, name):
        qkv = self._conv(x, f"{name}.qkv.0")
        return self._attend(*self._conv(qkv, f"{name}.qkv.1", padding=1, groups=qkv.shape[1]).chunk(3, 1), name)

    def _leff(self, x, name):
        y = F.gelu(self._conv(x, f"{name}.inward"))
        y = F.gelu(self._conv(y, f"{name}.local", padding=1, groups=y.shape[1]))
        return F.gelu(self._conv(y, f"{name}.outward")) + x

    def _transformer(self, x, name):
        x = x + self._mdta(self._norm(x, f"{name}.norm1"), f"{name}.attention")
        return x + self._leff(self._norm(x, f"{name}.norm2"), f"{name}.feed_forward")

    def _base_block(self, x, name):
        a = f"{name}.attention"
        qkv = self._conv(self._conv(self._norm(x, f"{name}.norm1"), f"{a}.mix"), f"{a}.spread", padding=1)
        x = x + self._attend(*qkv.chunk(3, 1), a)
        return x + self._conv(F.gelu(self._conv(self._norm(x, f"{name}.norm2"), f"{name}.inward")), f"{name}.outward")

    def _dense(self, x, name):
        x = F.leaky_relu(self._conv(x, f"{name}.enter", padding=1), 0.2)
        a = F.leaky_relu(self._conv(x, f"{name}.first", padding=1), 0.2)
        b = F.leaky_relu(self._conv(torch.cat([x, a], 1), f"{name}.second", padding=1), 0.2)
        gx, gy = (F.conv2d(x, self.w[f"{name}.slopes.{k}"], padding=1, groups=x.shape[1]) for k in ("across", "down"))
        dense = self._conv(torch.cat([x, a, b], 1), f"{name}.narrow")
        return F.leaky_relu(dense + self._conv(gx.abs() + gy.abs(), f"{name}.edge"), 0.1)

    def _bottleneck(self, x, name):
        y = F.relu6(self._conv(x, f"{name}.inward"))
        y = F.relu6(self._conv(F.pad(y, (1, 1, 1, 1), mode="reflect"), f"{name}.local", groups=y.shape[1]))
        return self._conv(y, f"{name}.outward")

    def _cross(self, values, guide, name):
        q, kv = self._conv(guide, f"{name}.q.0"), self._conv(values, f"{name}.kv.0")
        q, kv = self._conv(q, f"{name}.q.1", padding=1, groups=q.shape[1]), self._conv(kv, f"{name}.kv.1", padding=1, groups=kv.shape[1])
        return self._attend(q, *kv.chunk(2, 1), name)

    def _detail(self, s):
        z1, z2 = self._dense(s, "encoder.detail.dense").chunk(2, 1)
        f1, f2 = self._cross(z1, z2, "encoder.detail.attention"), self._cross(z2, z1, "encoder.detail.attention")
        name = "encoder.detail.coupling"
        f1, f2 = self._conv(torch.cat([f1, f2], 1), f"{name}.mix").chunk(2, 1)
        f2 = f2 + self._bottleneck(f1, f"{name}.phi")
        f1 = f1 * torch.exp(self._bottleneck(f2, f"{name}.rho")) + self._bottleneck(f2, f"{name}.eta")
        return torch.cat([f1, f2], 1)

    def _base(self, s):
        x = self._conv(s, "encoder.base.enter", padding=1)
        for g in (0, 1):
            y, name = x, f"encoder.base.groups.{g}"
            for j in (0, 2):
                y = self._base_block(self._transformer(y, f"{name}.blocks.{j}"), f"{name}.blocks.{j + 1}")
            y = F.leaky_relu(self._conv(y, f"{name}.tail.0", padding=1), 0.2)
            y = F.leaky_relu(self._conv(y, f"{name}.tail.1"), 0.2)
            x = x + self._conv(y, f"{name}.tail.2", padding=1)
        return x

    def _gru(self, v, m, name):
        r, u = torch.sigmoid(self._conv(torch.cat([m, v], 1), f"{name}.reset_update")).chunk(2, 1)
        c = torch.tanh(self._conv(torch.cat([m, r * v], 1), f"{name}.candidate"))
        return (1 - u) * v + u * c

    def _scales(self, nodes, name):
        new = []
        for i, v in enumerate(nodes):
            others = [w for j, w in enumerate(nodes) if j != i]
            gates = torch.sigmoid(F.conv2d(torch.cat([v - w for w in others], 1), self.w[f"{name}.votes.weight"], groups=2))
            turns = torch.stack([gates] * (v.shape[1] // 2), 1).flatten(1, 2)  # over the channels, whichever neighbour they weigh
            m = turns * others[0] + turns * others[1]
            new.append(v + self.w[f"{name}.gamma"] * self._gru(v, m, name))
        return new

    def _graph(self, s_ir, s_vi):
        both = []
        for k, s in enumerate((s_ir, s_vi)):
            names = [f"graph.nodes.{k}.scales.{i}" for i in range(3)]
            both.append([F.relu(self._batch_norm(self._conv(s, f"{n}.conv", padding=d, dilation=d), f"{n}.norm")) for n, d in zip(names, (4, 8, 16), strict=True)])
        d, c = both
        w1, w2 = self.w["graph.exchange.votes.weight"].split(1)
        for _ in range(2):
            new_c = [y * torch.sigmoid(F.conv2d(y - x, w2)) + x for x, y in zip(c, d, strict=True)]
            new_d = [x * torch.sigmoid(F.conv2d(x - y, w1)) + y for x, y in zip(c, d, strict=True)]
            c, d = new_c, new_d
        for _ in range(2):
            d, c = self._scales(d, "graph.updates.0"), self._scales(c, "graph.updates.1")
        return [F.relu(self._batch_norm(self._conv(torch.cat(n, 1), f"graph.reads.{k}.conv", padding=1), f"graph.reads.{k}.norm")) for k, n in enumerate((d, c))]

    def _decode(self, x):
        x = self._transformer(x, "decoder.block")
        for i in range(3):
            x = self._conv(F.leaky_relu(x, 0.01) if i else x, f"decoder.convs.{i}", padding=1)
        return torch.sigmoid(x)

    def _affine(self, x, name):
        e = lambda s: torch.exp(2 * 2 * (torch.sigmoid(s) - 0.5))
        x1, x2 = self._conv(x, f"{name}.mix").chunk(2, 1)
        y2 = (x2 - self._bottleneck(x1, f"{name}.eta")) / e(self._bottleneck(x1, f"{name}.rho"))
        y1 = (x1 - self._bottleneck(y2, f"{name}.phi")) / e(self._bottleneck(y2, f"{name}.psi"))
        return torch.cat([y1, y2], 1)

    def _features(self, ir, vi):
        s = [self._transformer(self._conv(x, "encoder.enter", padding=1), "encoder.block") for x in (ir, vi)]
        return [self._base(x) for x in s], [self._detail(x) for x in s], self._graph(*s)


def both() -> tuple[nn.Module, nn.Module]:
    """Our network and the program, with the same random weights."""
    from fusionrepro.smfnet.model import SMFNet

    torch.manual_seed(0)
    ours = SMFNet(gates="interleaved")
    for update in ours.graph.updates:
        update.gamma.data.fill_(0.5)  # as built it is zero, and the graph's update would not show
    for layer in ours.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    ours.eval()
    return ours, Published(ours)
