"""Overviews for the terminal."""

from collections.abc import Sequence

from fusionrepro.baselines.catalogue import Entry
from fusionrepro.errors import FusionReproError
from fusionrepro.registry import METHODS
from fusionrepro.training.store import default_weights


def models_table(entries: Sequence[Entry]) -> list[dict]:
    """One row a method: what it is, how large and how fast, its weights, how close to published pictures."""
    rows = []
    for e in entries:
        row = {"name": e.name, "kind": e.kind, "year": e.year, "parameters": e.parameters, "GFLOP": "" if e.gflop is None else e.gflop}
        rows.append(row | {"seconds": "" if e.seconds is None else e.seconds, "weights": _weights(e), "verified": e.verified, "what": e.summary})
    return rows


def _weights(entry: Entry) -> str:
    if not METHODS[entry.name].trained:
        return "needs none"
    try:
        return str(default_weights(entry.name))
    except FusionReproError:
        return entry.weights
