"""A bar on the terminal for work that takes more than two seconds; in a pipe or a log nothing but the result."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PATIENCE = 2.0  # seconds before a bar appears


@contextmanager
def counting(
    text: str,  # what is being done
    total: int = 0,  # how much of it; 0: not known yet
    shown: bool = True,  # False: never
    bytes_: bool = False,  # the unit is bytes
) -> Iterator[Callable[..., None]]:  # called as count(n, total=None), from any thread, when n more are done
    """Give a function that counts, and draw its bar on stderr, which goes when the work ends."""
    from rich import progress as rich
    from rich.console import Console

    console = Console(stderr=True)
    columns = (rich.DownloadColumn(), rich.TransferSpeedColumn()) if bytes_ else (rich.MofNCompleteColumn(),)
    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), *columns, rich.TimeRemainingColumn())
    bar = rich.Progress(*columns, console=console, transient=True)
    task, begin, lock, running = bar.add_task(text, total=total or None), time.monotonic(), threading.Lock(), False

    def count(n: int = 1, total: int | None = None) -> None:
        nonlocal running
        with lock:
            if shown and console.is_terminal and not running and time.monotonic() - begin > _PATIENCE:
                bar.start()
                running = True
        bar.update(task, advance=n, total=total)

    try:
        yield count
    finally:
        if running:
            bar.stop()
