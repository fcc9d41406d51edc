"""What is done to a pair before a method sees it: nothing, an attack through the method's own gradient, a degradation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusionrepro.attacks.gradient import away_from_clean, pgd
from fusionrepro.degradations.degradations import KINDS, degrade
from fusionrepro.errors import InputError, unknown
from fusionrepro.gallery.identity import code_hash, plain
from fusionrepro.nn.fusion import FusionModel
from fusionrepro.training.loop import mix

__all__ = ["CLEAN", "Condition", "Disturb", "attack", "degradation", "parse"]

# A disturbance takes the model, a clean batch and the pair's id and gives what the model will see instead.
Disturb = Callable[[FusionModel, Tensor, Tensor, str], tuple[Tensor, Tensor]]

_ATTACK = {"eps": "4/255", "alpha": "1/255", "steps": "20", "seed": "0"}
_WEATHER = {"strength": "0.5", "seed": "0"}


@dataclass(frozen=True)
class Condition:
    """A disturbance with everything that its outcome depends on."""

    name: str  # as a reader says it: clean, haze 0.5, attack 4/255
    settings: Mapping[str, Any] = field(default_factory=dict)  # every one of them decides which pictures these are
    disturb: Disturb | None = None
    modules: tuple[str, ...] = ()  # whose code it is

    @property
    def identity(self) -> dict[str, Any]:
        """Settings and code as plain values."""
        return plain(self.settings) | ({"code": code_hash(self.modules)} if self.modules else {})


CLEAN = Condition("clean")


def degradation(kind: str, strength: float = 0.5, seed: int = 0) -> Condition:
    """A degradation of a whole set, `strength` in 0..1: every pair gets a pattern of its own, the same for every method and in every run.

    InputError for an unknown kind.
    """
    if kind not in KINDS:
        raise unknown("degradation", kind, KINDS)

    def disturb(model: FusionModel, ir: Tensor, vi: Tensor, name: str) -> tuple[Tensor, Tensor]:
        # `degrade` draws by shape alone: with one seed the same raindrops would fall on every picture of a size.
        return degrade(ir, vi, kind, strength, mix(seed, name))

    settings = {"degradation": kind, "strength": strength, "seed": seed}
    return Condition(f"{kind} {strength:g}", settings, disturb, ("fusionrepro.degradations.degradations",))


def attack(eps: str | float = "4/255", alpha: str | float = "1/255", steps: int = 20, seed: int = 0) -> Condition:
    """PGD on both sources, away from what the model makes of the clean pair: no label, so the same task for every model."""
    sizes = {"eps": float(Fraction(str(eps))), "alpha": float(Fraction(str(alpha)))}
    settings = {"attack": "PGD, away from clean", **sizes, "steps": steps, "seed": seed}
    disturb = partial(_away, steps=steps, seed=seed, **sizes)
    return Condition(f"attack {eps}", settings, disturb, ("fusionrepro.attacks.gradient",))


def _away(model: FusionModel, ir: Tensor, vi: Tensor, name: str, steps: int, seed: int, eps: float, alpha: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(ir.device).manual_seed(mix(seed, name))
    return pgd(model, ir, vi, away_from_clean(model, ir, vi), eps=eps, alpha=alpha, steps=steps, start="uniform", generator=generator)


def parse(text: str) -> Condition:
    """A condition as the command line has it: `clean`, `attack`, `attack:eps=8/255,steps=10`, `haze`, `rain:0.8`, `noise:strength=0.3,seed=1`."""
    name, _, rest = text.strip().partition(":")
    if name == "clean":
        if rest:
            raise InputError(f"the condition 'clean' has no settings, but '{text}' gives some.")
        return CLEAN
    if name not in ("attack", *KINDS):
        raise unknown("condition", name, ("clean", "attack", *KINDS))
    known = _ATTACK if name == "attack" else _WEATHER
    given = known | _settings(text, rest, known)
    try:
        whole = {k: int(given[k]) for k in ("steps", "seed") if k in given}
        if name == "attack":
            return attack(given["eps"], given["alpha"], **whole)
        return degradation(name, float(given["strength"]), **whole)
    except (ValueError, ZeroDivisionError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"the condition '{text}' has a setting that is no number ({e}).") from None


def _settings(text: str, rest: str, known: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for part in filter(None, (p.strip() for p in rest.split(","))):
        key, equals, value = part.partition("=")
        if not equals:  # the first setting needs no name
            key, value = next(iter(known)), part
        if key not in known:
            raise unknown(f"setting of '{text}'", key, known)
        found[key] = value
    return found
