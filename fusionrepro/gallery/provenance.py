"""Where a row comes from, in words that a reader can weigh."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import nn

from fusionrepro.baselines.verify import recorded
from fusionrepro.registry import Method
from fusionrepro.training.store import card

__all__ = ["KINDS", "Provenance", "provenance_of", "trained_here"]

KINDS = ("classic", "published", "trained", "control", "untrained", "printed")
# Fields of a recipe that change how long a training takes or which of equal trainings it is, not what is trained.
_BESIDE = ("paper", "profile", "seed", "precision", "channels_last", "compile", "devices", "num_nodes", "strategy", "split")


@dataclass(frozen=True)
class Provenance:
    """What a row of a table is."""

    kind: str  # one of KINDS
    text: str  # for a reader
    shortfalls: tuple[str, ...] = ()  # what keeps a training from being the published one; empty: it is
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"shortfalls": list(self.shortfalls), "facts": dict(self.facts)}


def provenance_of(row: Method, module: nn.Module, weights: Any = "default") -> Provenance:
    """The provenance of a method of the registry as `load` gave it."""
    if row.kind == "control":
        return Provenance("control", "control: no fusion")
    if not row.trained:
        return Provenance("classic", f"classic{_checked(row.name)}")
    if weights is None:
        return Provenance("untrained", "untrained", ("untrained",))
    if row.kind == "paper" and weights == "default":
        return _shipped(row)
    if row.published:
        return Provenance("published", f"published weights{_checked(row.name) or ', unverified'}")
    return Provenance("published", "weights of a file, unverified", facts={"weights": str(getattr(module, "weights_id", ""))})


def _checked(name: str) -> str:
    """`, verified within 1 level on 6 pictures`; nothing where nobody published a picture."""
    found = recorded().get(name)
    if not found:
        return ""
    levels = "to the bit" if not found["largest"] else f"within {found['largest']} level{'s' if found['largest'] != 1 else ''}"
    return f", verified {levels} on {found['pictures']} published picture{'s' if found['pictures'] != 1 else ''}"


def _shipped(row: Method) -> Provenance:
    """The weights that come with the package: short trainings of ours."""
    facts = card(row.name)
    recipe = facts.get("recipe", {})
    text = f"trained by this package: {facts.get('profile') or recipe.get('profile', 'unknown')} profile, {facts.get('pairs', 'unknown number of')} pairs"
    return Provenance("trained", text, ("the shipped weights of this package, not the authors' training",), {"recipe": recipe})


def trained_here(recipe: Any, published: Any, pairs: int, published_pairs: int = 0, others: Iterable[str] = ()) -> Provenance:
    """A network trained by this run.

    `recipe` and `published` are recipes of one paper: the run's, and the one that the paper describes. `pairs` is how many the run trained on,
    `published_pairs` how many the paper had (0: as `published` says, all). `others` are standing shortfalls of the reproduction.
    """
    ours, theirs = (_training(r, n) for r, n in ((recipe, pairs), (published, published_pairs)))
    lacks = [f"{name.replace('_', ' ')} {ours[name]} instead of {theirs[name]}" for name in theirs if ours[name] != theirs[name]]
    shown = ", ".join(f"{name} {ours[name]}" for name in ("pairs", "epochs", "crop", "batch", "width") if name in ours)
    return Provenance("trained", f"trained here, {recipe.profile} profile: {shown}", (*lacks, *others), {"ours": ours, "paper": theirs})


def _training(recipe: Any, pairs: int) -> dict[str, Any]:
    """What decides the weights: pairs, passes over them, and all other fields."""
    beside = {*_BESIDE, "limit", "data", "epochs", "repeat"} | {f.name for f in fields(recipe) if f.metadata.get("comfort")}
    values = {k: v for k, v in asdict(recipe).items() if k not in beside}
    passes = getattr(recipe, "epochs", 0) * max(1, getattr(recipe, "repeat", 1))
    return {"pairs": pairs, "data": recipe.data, "epochs": passes} | values
