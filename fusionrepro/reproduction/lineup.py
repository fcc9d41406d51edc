"""Who stands in a table: the paper's rivals in the paper's order, the controls, and the other methods of this package under a rule of their own."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fusionrepro.baselines.catalogue import recorded_times
from fusionrepro.errors import CheckpointError
from fusionrepro.gallery.subjects import Subject, subject
from fusionrepro.registry import METHODS, Method
from fusionrepro.reproduction.ledger import Paper, paper_values
from fusionrepro.training.store import default_weights

_QUICK = ("average", "maximum", "laplacian")  # what a smoke run has beside the controls


@dataclass(frozen=True)
class LineUp:
    """The rows of a table beside the paper's own method."""

    rivals: tuple[Subject, ...]  # of the paper, in its order, under their printed names
    controls: tuple[Subject, ...]  # copies of the sources
    others: tuple[Subject, ...]  # of this package, quickest first
    absent: dict[str, str] = field(default_factory=dict)  # printed rivals that are not here, and why

    def __iter__(self) -> Iterator[Subject]:
        return iter((*self.rivals, *self.controls, *self.others))

    def said(self) -> str:
        """Who is absent, as a sentence; empty where all are here."""
        told = "; ".join(f"{name} ({why})" for name, why in self.absent.items())
        return f"Printed, not rebuilt here: {told}." if told else ""


def line_up(paper: Paper, artifact: str, profile: str, *, medical: bool = False, data: Iterable[str] = (), others: bool = True) -> LineUp:
    """Who is compared in an artifact of a paper.

    `data` are the paper's names of the sets whose printed rows count (empty: all of the artifact). A smoke run takes no published weights, so that
    it is the same everywhere. Methods for medical pairs stay on medical pairs. `others=False`: the paper's rivals and the controls alone.
    """
    names, data = [], set(data)
    for value in paper_values(paper.slug).get(artifact, ()):
        if (not data or value.data in data) and value.row not in names and not _own(paper, value.row):
            names.append(value.row)
    rivals, absent = [], {}
    for name in names:
        found = _method(name)
        reason = _why_absent(found, name, profile)
        if reason:
            absent[name] = reason
        else:
            rivals.append(_subject(found, medical, name))
    taken = {s.name for s in rivals} | {paper.slug}
    rest = [_subject(m, medical) for m in _others(profile, medical) if m.name not in taken] if others else []
    return LineUp(tuple(rivals), tuple(subject(m.name) for m in METHODS.values() if m.kind == "control"), tuple(rest), absent)


def _own(paper: Paper, row: str) -> bool:
    """Whether a printed row is the paper's own method, or a source."""
    plain = _plain(row)
    return "ours" in row.casefold() or plain == _plain(paper.title) or plain in ("infrared", "visible")


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _method(name: str) -> Method | None:
    wanted = _plain(name)
    return next((m for m in METHODS.values() if wanted in (_plain(m.title), _plain(m.name))), None)


def _why_absent(found: Method | None, name: str, profile: str) -> str:
    if found is None:
        return "not built in this package"
    if not found.trained:
        return "minutes a picture: not in a smoke run" if found.slow and profile == "smoke" else ""
    if profile == "smoke":
        return "a smoke run takes no published weights"
    try:
        default_weights(found.name)
    except CheckpointError:
        return f"its published weights are not on this machine: `fusionrepro verify {found.name}` fetches them" if found.published else "its authors' weights cannot be fetched by this package"
    return ""


def _subject(found: Method, medical: bool, title: str = "") -> Subject:
    """With the weights for medical pairs where its authors published such."""
    weights = "published:medical" if medical and "medical" in found.published else "default"
    return subject(found.name, weights, title)


def _others(profile: str, medical: bool) -> list[Method]:
    """Methods beside the paper's rivals that can run here, this package's five first, then by their recorded time."""
    if profile == "smoke":
        return [METHODS[name] for name in _QUICK]
    found = [m for m in METHODS.values() if m.kind != "control" and not m.slow and (medical or not m.medical) and not _why_absent(m, m.title, profile)]
    times = {name: float(row["seconds"]) for name, row in recorded_times().items()}
    return sorted(found, key=lambda m: (m.kind != "paper", times.get(m.name, 9.0)))
