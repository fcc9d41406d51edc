"""A fusion method as an exhibitor: its name, its network, the identity of its weights, and where its row comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusionrepro.errors import CheckpointError, InputError, unknown
from fusionrepro.gallery.identity import slug
from fusionrepro.gallery.provenance import Provenance, provenance_of
from fusionrepro.nn.fusion import FusionModel
from fusionrepro.registry import METHODS, Method
from fusionrepro.training.store import default_weights, load, weights_sha256

__all__ = ["Subject", "choose", "subject", "trained"]


@dataclass(frozen=True)
class Subject:
    """A method with certain weights and options."""

    title: str  # as tables call it
    name: str  # of the registry, or of its own
    module: FusionModel  # in eval mode
    weights: str  # SHA-256 of its tensors; "none" where it has none
    provenance: Provenance
    options: Mapping[str, Any] = field(default_factory=dict)  # that the network was built with


def subject(name: str, weights: str | None = "default", title: str = "", **options: Any) -> Subject:
    """A method of the registry.

    Raises
    ------
    InputError
        for an unknown name or option.
    CheckpointError
        when its weights are not on this machine.
    """
    row = _row(name)
    if row.trained and weights == "default":
        default_weights(row.name)  # nothing is fetched unasked
    module = load(row.name, weights=weights, **options)
    return Subject(title or row.title, row.name, module, _weights(module), provenance_of(row, module, weights), dict(options))


def trained(title: str, module: FusionModel, provenance: Provenance, **options: Any) -> Subject:
    """A network that was trained here. `options` says what its tensors do not: the recipe's hash, or the switches of its network."""
    return Subject(title, slug(title), module.eval(), _weights(module), provenance, options)


def _row(name: str) -> Method:
    if name not in METHODS:
        raise unknown("model", name, METHODS)
    return METHODS[name]


def _weights(module: FusionModel) -> str:
    return weights_sha256(module) if module.state_dict() else "none"


def choose(text: str, skip_slow: bool = True) -> list[str]:
    """Names of methods from `all`, a kind (`classic`, `learned`, `paper`, `control`) or comma-separated names, in the registry's order.

    Groups leave out methods whose weights are not on this machine and, with `skip_slow`, those that need minutes a picture; a name is always meant.
    """
    kinds = {m.kind for m in METHODS.values()}
    chosen = set()
    for word in (w.strip() for w in text.split(",") if w.strip()):
        if word == "all" or word in kinds:
            chosen |= {m.name for m in METHODS.values() if word in ("all", m.kind) and not (skip_slow and m.slow) and _here(m)}
        elif word in METHODS:
            chosen.add(word)
        else:
            raise unknown("model or group", word, [*METHODS, "all", *kinds])
    if not chosen:
        raise InputError("no method is meant: give names of `fusionrepro models`, or all.")
    return [name for name in METHODS if name in chosen]


def _here(row: Method) -> bool:
    """Whether its weights are on this machine."""
    if not row.trained:
        return True
    try:
        default_weights(row.name)
    except CheckpointError:
        return False
    return True
