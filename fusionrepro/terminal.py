"""Tables on a terminal."""

import sys
from typing import Any


def show(rows: list[dict[str, Any]]) -> None:
    """A table that fits the terminal; in a pipe every cell whole, on one line."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=100_000)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in rows[0] if rows else ():
        numeric = all(isinstance(r[name], int | float) or r[name] == "" for r in rows)
        table.add_column(str(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    if sys.stdout.isatty():
        console.print(table, highlight=False)
        return
    with console.capture() as text:
        console.print(table, highlight=False)
    print("\n".join(line.rstrip() for line in text.get().splitlines()))
