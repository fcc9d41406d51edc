"""The papers' networks as their authors' programs run them: the yardsticks of `fusionrepro bench models`.

A program holds the weights of ours and computes the same function, one operation after the other: nothing is
composed, folded, shared or cut into strips. Tests compare ours with it; the benchmark times both in turns.
"""

from collections.abc import Callable
from importlib import import_module

from torch import nn

# Each module has `both() -> (ours, program)`, with the same weights, in evaluation mode, called as (ir, vi).
_MODULES = ("a2rnet", "smfnet", "daefuse", "nestfuse")


def program(name: str) -> Callable[[], tuple[nn.Module, nn.Module]] | None:
    """How to build our network and its yardstick by registry name; None where there is none."""
    return import_module(f"{__name__}.{name}").both if name in _MODULES else None
