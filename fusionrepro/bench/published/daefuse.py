"""A yardstick for DAE-Fuse, whose authors published no program: our own layers, called one after the other on whole maps.

It is what a straightforward program of the paper would cost, without our strips; the layers are those of Restormer, ResNet and ViT.
"""

from torch import Tensor, nn


class LayerByLayer(nn.Module):
    """Our `DAEFuse` layer by layer: the same weights and result, every map made whole before the next begins."""

    def __init__(self, ours: nn.Module):
        super().__init__()
        self.ours = ours

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """(N,1,H,W) twice to (N,1,H,W)."""
        return self.ours.combine(self.ours.encode(vi, ir), vi)


def both() -> tuple[nn.Module, nn.Module]:
    """Our network and its layers, with the same random weights."""
    import torch

    from fusionrepro.daefuse.model import DAEFuse

    torch.manual_seed(0)
    ours = DAEFuse().eval()
    return ours, LayerByLayer(ours)
