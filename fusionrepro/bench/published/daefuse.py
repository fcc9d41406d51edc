"""DAE-Fuse layer by layer, whole maps at a time. Its authors published no program; the layers are those of Restormer, ResNet and ViT."""

from torch import Tensor, nn


class Published(nn.Module):
    """The layers of our `DAEFuse`, called one after the other."""

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
    return ours, Published(ours)
