"""The papers' networks as a program without our short cuts runs them: the yardsticks of `fusionrepro bench models`.

A program holds the weights of ours and computes the same function, one operation after the other: nothing is
composed, folded, shared or cut into strips. Three are what the authors published. DAE-Fuse's authors published no
program; its yardstick is our own layers on whole maps, and is called so. Tests compare ours with it; the benchmark
times both in turns.
"""

from collections.abc import Callable
from importlib import import_module

from torch import nn

# Registry name -> what its yardstick is. Each module has `both() -> (ours, program)`, with the same weights, in
# evaluation mode, called as (ir, vi).
YARDSTICKS = {"a2rnet": "as published", "smfnet": "as published", "daefuse": "layer by layer", "nestfuse": "as published"}


def program(name: str) -> Callable[[], tuple[nn.Module, nn.Module]] | None:
    """How to build our network and its yardstick by registry name; None where there is none."""
    return import_module(f"{__name__}.{name}").both if name in YARDSTICKS else None
