"""Overviews for the terminal."""

from fusionrepro.errors import FusionReproError
from fusionrepro.registry import METHODS


def models_table() -> list[dict]:
    """One row a method: name, kind, year, parameters, weights, what it is."""
    from fusionrepro.training.store import default_weights

    rows = []
    for m in METHODS.values():
        size = sum(p.numel() for p in m.build().parameters())
        rows.append({"name": m.name, "kind": m.kind, "year": m.year, "parameters": size, "weights": _weights(m, default_weights), "what": m.summary})
    return rows


def _weights(method, default_weights) -> str:
    if not method.trained:
        return "needs none"
    try:
        return str(default_weights(method.name))
    except FusionReproError:
        return "not trained yet"
