"""`fusionrepro gallery`: every method on every set, made once."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fusionrepro.errors import FusionReproError, InputError
from fusionrepro.terminal import show as show_rows

app = typer.Typer(help="Fused pictures of many methods, made once and kept.", no_args_is_help=True)

Sets = Annotated[str, typer.Option(help="Data sets (`fusionrepro data list`) or folders with two folders of pictures, comma-separated.")]
Models = Annotated[str, typer.Option(help="all, a kind (classic, learned, paper, control), or names of `fusionrepro models`, comma-separated.")]
Conditions = Annotated[str, typer.Option(help="clean, attack:eps=4/255,steps=20, haze:0.5, rain, low_light, noise, ... separated by spaces or semicolons.")]
Root = Annotated[str, typer.Option("--data-root", help="Folder with real data sets; else FUSIONREPRO_DATA or settings.ini.")]
Limit = Annotated[int, typer.Option(min=0, help="Pairs a set, from its start; 0: all.")]
Side = Annotated[int, typer.Option(min=0, help="Longer side in pixels; 0: their own size.")]


def _words(text: str) -> list[str]:
    return [w.strip() for w in text.split(",") if w.strip()]


def _states(text: str) -> list[str]:
    return [w for w in text.replace(";", " ").split() if w]


@app.command()
def make(
    sets: Sets,
    models: Models = "all",
    conditions: Conditions = "clean",
    preset: Annotated[str, typer.Option(help="Conventions of the scores: default, or a toolbox or paper; `none`: pictures only.")] = "default",
    metrics: Annotated[str, typer.Option(help="Names, comma-separated; default: the usual eleven.")] = "",
    limit: Limit = 0,
    side: Side = 0,
    post: Annotated[str, typer.Option(help="clip, minmax or minmax_rgb for all; default: as each method's own program.")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Entries at once.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Of the numerical libraries, each job.")] = 1,
    cluster: Annotated[str, typer.Option(metavar="ADDRESS", help="A Dask scheduler, such as tcp://host:8786.")] = "",
    minutes: Annotated[float, typer.Option(min=0, help="Begin no picture after so long; what is missing is made next time. 0: until all is done.")] = 0,
    slow: Annotated[bool, typer.Option("--slow", help="With groups of methods: also those that need minutes a picture.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Also write the table as CSV.")] = None,
    data_root: Root = "",
) -> None:
    """Fuse and score what is missing, and show one table.

    What is there is not made again; a killed run goes on where it was.
    """
    import pandas as pd

    from fusionrepro import settings
    from fusionrepro.gallery.make import make as fill
    from fusionrepro.gallery.make import table, tasks
    from fusionrepro.gallery.subjects import choose
    from fusionrepro.metrics.evaluate import DEFAULT_METRICS, metric

    names = tuple(metric(m).name for m in _words(metrics)) or DEFAULT_METRICS
    common = {"limit": limit, "side": side, "post": post, "preset": "" if preset == "none" else preset, "metrics": names, "threads": threads}
    wanted = tasks(_words(sets), choose(models, not slow), _states(conditions), device=str(settings.device(device)), data_root=data_root, **common)
    with _progress(len(wanted)) as told:
        done = fill(wanted, jobs, cluster, minutes, told)
    rows = table(done)
    columns = list(dict.fromkeys(k for r in rows for k in r if k != "note"))
    rows = [{k: r.get(k, "") for k in [*columns, "note"]} for r in rows]
    show_rows(rows)
    if out:
        pd.DataFrame(rows).to_csv(out, index=False)
    if any(d.error or d.failed for d in done):
        raise typer.Exit(1)


@contextmanager
def _progress(total: int) -> Iterator:
    """A line that says how far it is on a terminal; elsewhere a line a task."""
    from rich.console import Console

    console, last = Console(stderr=True), [""]
    with console.status(f"0 of {total} entries") as status:

        def told(p) -> None:
            left = "" if p.left == float("inf") else f", about {_time(p.left)} left"
            status.update(f"{p.tasks} of {total} entries, {p.pictures} pictures made{left}")
            if p.last and last[0] != p.last.task:
                last[0] = p.last.task
                console.print(f"{p.tasks}/{total} {p.last.task.name}: {p.last.state}{left}", markup=False, highlight=False, soft_wrap=True)

        yield told


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@app.command("list")
def list_entries(sets: Sets = "", models: Annotated[str, typer.Option(help="Names of methods; default: all.")] = "", conditions: Conditions = "") -> None:
    """List what is kept: pictures, failures, seconds, size, where each comes from."""
    from fusionrepro.gallery.entry import root
    from fusionrepro.gallery.hang import entries, listing

    rows = listing(entries(_words(sets), _words(models), _states(conditions)))
    show_rows(rows)
    typer.echo(f"{len(rows)} entries, {sum(r['pictures'] for r in rows)} pictures, {sum(r['MB'] for r in rows):.1f} MB in {root()}")


@app.command()
def show(
    sets: Annotated[str, typer.Argument(metavar="SET", help="A data set, or a folder with two folders of pictures.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="PNG or PDF to write.")],
    models: Models = "all",
    condition: Annotated[str, typer.Option(help="One condition, as for `make`.")] = "clean",
    pairs: Annotated[str, typer.Option(help="Ids, comma-separated; default: the first two.")] = "",
    limit: Limit = 0,
    side: Side = 0,
    post: Annotated[str, typer.Option(help="As for `make`.")] = "",
    columns: Annotated[int, typer.Option(min=2, help="Pictures in a row.")] = 6,
    data_root: Root = "",
) -> None:
    """Write a contact sheet of what was made: sources first, then every method."""
    from fusionrepro.gallery.hang import sheet
    from fusionrepro.gallery.make import tasks
    from fusionrepro.gallery.subjects import choose

    found = tasks([sets], choose(models, False), [condition], limit=limit, side=side, post=post, data_root=data_root)
    view = found[0].view()
    hung = [e for t in found if (e := t.entry(view)).made()]
    ids = _words(pairs) or list(view.ids[:2])
    for name in ids:
        view[name]
    if not hung:
        raise FusionReproError(f"nothing of {sets} under '{condition}' is in the gallery: `fusionrepro gallery make --sets {sets}` fills it.")
    sheet(hung, ids, columns=columns).savefig(out, dpi=110)
    typer.echo(out)


@app.command()
def clean(
    sets: Sets = "",
    models: Annotated[str, typer.Option(help="Names of methods; default: all.")] = "",
    conditions: Conditions = "",
    stale: Annotated[bool, typer.Option("--stale", help="Only what the present code or weights would make anew.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete entries, after asking."""
    from fusionrepro.gallery import hang

    found = list(hang.entries(_words(sets), _words(models), _states(conditions)))
    found = list(hang.stale(found)) if stale else found
    if not found:
        typer.echo("nothing to delete.")
        return
    size = sum(r["MB"] for r in hang.listing(found))
    if not yes:
        if not sys.stdin.isatty():
            raise InputError(f"{len(found)} entries of {size:.0f} MB would be deleted: say --yes.")
        typer.confirm(f"Delete {len(found)} entries of {size:.0f} MB?", abort=True)
    typer.echo(f"{hang.take_down(found)} entries deleted.")
