"""NestFuse as its authors' program runs it: reflection padding before every convolution, whole maps, weights repeated over channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Published(nn.Module):
    """The released network on the weights of our `NestFuse`, average pooling."""

    def __init__(self, ours: nn.Module):
        super().__init__()
        self.ours = ours

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """(N,1,H,W) twice to (N,1,H,W); sides of 16 or more."""
        a, b = self._encode(ir), self._encode(vi)
        return self._decode([self._rule(x, y) for x, y in zip(a, b, strict=True)])

    def _conv(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        k = layer.weight.shape[-1] // 2
        return F.relu(F.conv2d(F.pad(x, (k,) * 4, mode="reflect"), layer.weight, layer.bias), inplace=True)

    def _block(self, block: nn.Module, x: Tensor) -> Tensor:
        return self._conv(block.mix, self._conv(block.look, x))

    def _encode(self, x: Tensor) -> list[Tensor]:
        encoder, maps = self.ours.encoder, []
        x = self._conv(encoder.first, x)
        for i, block in enumerate(encoder.blocks):
            x = self._block(block, F.max_pool2d(x, 2) if i else x)
            maps.append(x)
        return maps

    def _rule(self, a: Tensor, b: Tensor) -> Tensor:
        of_a, of_b = (x.mean(1, keepdim=True) for x in (a, b))
        total = torch.exp(of_a) + torch.exp(of_b)
        here, there = (torch.exp(x) / total for x in (of_a, of_b))
        spatial = here.repeat(1, a.shape[1], 1, 1) * a + there.repeat(1, b.shape[1], 1, 1) * b
        of_a, of_b = (x.mean((2, 3), keepdim=True).repeat(1, 1, *x.shape[-2:]) for x in (a, b))
        channel = of_a / (of_a + of_b + 1e-5) * a + of_b / (of_a + of_b + 1e-5) * b
        return (channel + spatial) / 2

    def _up(self, x: Tensor, like: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        down, right = (a - b for a, b in zip(like.shape[-2:], x.shape[-2:], strict=True))
        return F.pad(x, (0, right, 0, down), mode="reflect") if down or right else x

    def _decode(self, f: list[Tensor]) -> Tensor:
        nodes, up, cat = self.ours.decoder.nodes, self._up, lambda *maps: torch.cat(maps, 1)
        x11 = self._block(nodes["x11"], cat(f[0], up(f[1], f[0])))
        x21 = self._block(nodes["x21"], cat(f[1], up(f[2], f[1])))
        x12 = self._block(nodes["x12"], cat(f[0], x11, up(x21, f[0])))
        x31 = self._block(nodes["x31"], cat(f[2], up(f[3], f[2])))
        x22 = self._block(nodes["x22"], cat(f[1], x21, up(x31, f[1])))
        x13 = self._block(nodes["x13"], cat(f[0], x11, x12, up(x22, f[0])))
        return self._conv(self.ours.decoder.head, x13)


def both() -> tuple[nn.Module, nn.Module]:
    """Our network and the program, with the same random weights."""
    from fusionrepro.baselines.nestfuse import NestFuse

    torch.manual_seed(0)
    ours = NestFuse().eval()
    for layer in ours.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    ours.decoder.head.weight.data.abs_()  # else the last ReLU may give a black picture
    return ours, Published(ours)
