"""Where a paper's text and its program differ: the readings by name, as fields of the training's recipe."""

from importlib import import_module
from typing import Any

import pandas as pd

from fusionrepro.errors import unknown
from fusionrepro.reproduction import ledger

OURS = "ours"  # what the recipe says by itself


def readings(slug: str) -> dict[str, dict[str, Any]]:
    """Name -> the recipe fields it sets; `ours` alone for a paper without a second reading."""
    if ledger.paper(slug).own:
        return {OURS: {}}
    training = import_module(f"fusionrepro.{slug}.training")
    return {OURS: {}, **{name.lower(): dict(values) for name in ("RELEASED", "PRINTED") if (values := getattr(training, name, None))}}


def fields_of(slug: str, reading: str) -> dict[str, Any]:
    """The recipe fields of a reading; empty text means `ours`. InputError with the nearest name for an unknown one."""
    known = readings(slug)
    if (reading or OURS) not in known:
        raise unknown(f"reading of {slug}", reading, known)
    return known[reading or OURS]


def table(slug: str, recipe: Any) -> pd.DataFrame:
    """One row a field in which the readings differ, one column a reading; `recipe` says what a reading leaves alone."""
    known = readings(slug)
    names = dict.fromkeys(name for values in known.values() for name in values)
    base = {name: getattr(recipe, name) for name in names}
    return pd.DataFrame({title: [values.get(n, base[n]) for n in names] for title, values in known.items()}, index=pd.Index(list(names), name="field"), dtype=object)
