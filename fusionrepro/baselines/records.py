"""What was measured of the methods and is kept: a table of `results_path` with a row a method, in the order of the registry."""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path

from fusionrepro import settings
from fusionrepro.errors import DataError
from fusionrepro.files import write_text
from fusionrepro.registry import METHODS

__all__ = ["keep", "read"]


def read(
    name: str,  # of the file, such as "times.csv"
    columns: Mapping[str, Callable],  # beside "method": what makes a value of the text
    command: str,  # that writes the table
) -> dict[str, dict]:
    """The rows by method; none where nothing was recorded yet.

    Raises
    ------
    DataError
        for a table that cannot be read.
    """
    path = settings.path("results_path") / name
    try:
        with open(path, encoding="utf-8", newline="") as f:
            return {row["method"]: {k: make(row[k]) for k, make in columns.items()} for row in csv.DictReader(f)}
    except FileNotFoundError:
        return {}
    except (KeyError, ValueError, TypeError) as e:
        raise DataError(f"{path} is damaged ({e}); write it again with `{command}`.") from None


def keep(name: str, columns: Mapping[str, Callable], rows: Mapping[str, Mapping]) -> Path:
    """Write the table; its path."""
    text = io.StringIO()
    table = csv.DictWriter(text, ("method", *columns), lineterminator="\n")
    table.writeheader()
    table.writerows({"method": method, **rows[method]} for method in METHODS if method in rows)
    path = settings.path("results_path") / name
    write_text(path, text.getvalue())
    return path
