"""The one command, `fusionrepro`. Thin: every verb is one call of the library, imported when it is used."""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from fusionrepro import __version__
from fusionrepro.errors import FusionReproError, InputError, Notice
from fusionrepro.gallery.cli import app as gallery_app
from fusionrepro.settings import settle_paths
from fusionrepro.terminal import show

app = typer.Typer(help="Fuse pairs of images (infrared and visible, medical), and reproduce five papers about it.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)
data_app = typer.Typer(help="List, download and verify data sets.", no_args_is_help=True)
bench_app = typer.Typer(help="Measure the speed and memory of methods, metrics and scenes.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.add_typer(gallery_app, name="gallery")

Changes = Annotated[list[str] | None, typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="Change one setting, such as epochs=3; may be given several times.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Root = Annotated[str, typer.Option("--data-root", help="Folder with real data sets; else FUSIONREPRO_DATA or settings.ini.")]


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"fusionrepro {__version__}")
        raise typer.Exit


@app.command()
def fuse(
    ir: Annotated[Path, typer.Argument(help="Infrared image, or a folder of them.")],
    vi: Annotated[Path, typer.Argument(help="Visible image, or a folder; partners have the same name, or see --pairs.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Image or folder to write.")],
    model: Annotated[str, typer.Option(help="A method of `fusionrepro models`.")] = "a2rnet",
    weights: Annotated[str, typer.Option(help="A weight file; `default`: those that come with the method; `none`: an untrained network.")] = "default",
    post: Annotated[str | None, typer.Option(help="What becomes of values outside 0..1: clip, or minmax or minmax_rgb to stretch every picture; default: as the method says.")] = None,
    device: Device = "auto",
    tile: Annotated[int | None, typer.Option(help="Fuse in tiles of so many pixels a side, for pictures larger than memory; 128 or more.")] = None,
    pairs: Annotated[str | None, typer.Option(metavar="PATTERN|CSV", help="Which belong together: two names such as '{id}_ir.* {id}_vi.*' or 'IR{id} VIS{id}', or a CSV with the columns ir and vi.")] = None,
    align: Annotated[str | None, typer.Option(help="Sources that differ in size: resize-ir (to the visible's), resize-vi (to the infrared's) or crop (to what both have).")] = None,
    homography: Annotated[Path | None, typer.Option(metavar="FILE", help="Nine numbers that map infrared to visible pixels: text, CSV, JSON or .npy.")] = None,
    ir_range: Annotated[str | None, typer.Option(metavar="RANGE", help="Infrared levels that become black and white: auto, LOW:HIGH in the file's units, or P%:P%; of a folder over all its pictures.")] = None,
    invert_ir: Annotated[bool, typer.Option("--invert-ir", help="The infrared shows hot as black.")] = False,
    colour: Annotated[str, typer.Option("--colour", "--color", help="Whose colour the result takes: vi, ir, merge (both, weighted) or none; auto: the visible's, or both where both are photographs.")] = "auto",
    rgb: Annotated[bool, typer.Option("--rgb", help="Fuse red, green and blue each, instead of the luminance.")] = False,
) -> None:
    """Fuse two images, or two folders pair by pair."""
    from fusionrepro.fusing import fuse_files

    given = None if weights.lower() == "none" else weights
    for path in fuse_files(ir, vi, out, model, post=post, weights=given, device=device, tile=tile, pairs=pairs, align=align, homography=homography,
                           ir_range=ir_range, invert_ir=invert_ir, colour=colour, rgb=rgb):  # fmt: skip
        typer.echo(path)


@app.command()
def score(
    fused: Annotated[list[Path], typer.Argument(metavar="FUSED", help="Fused image, or a folder of them for each method, or a folder whose subfolders are methods; without --ir and --vi the last two are the sources.")],
    ir: Annotated[Path | None, typer.Option("--ir", help="First source, or a folder; partners have the same name.")] = None,
    vi: Annotated[Path | None, typer.Option("--vi", help="Second source, or a folder.")] = None,
    preset: Annotated[str, typer.Option(help="Conventions: default, or a toolbox or paper such as cddfuse, tang2022, a2rnet.")] = "default",
    metrics: Annotated[str, typer.Option(help="Names, comma-separated, such as EN,SD,Qabf; default: those that the preset's toolbox prints.")] = "",
    controls: Annotated[bool, typer.Option("--controls", help="Also score a copy of each source, which a fusion must beat.")] = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="CSV with one row an image (of each method).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Box plot to write (PNG or PDF).")] = None,
    device: Device = "auto",
) -> None:
    """Measure fused images against their sources.

    `score FUSED IR VI`, or for several methods `score A B C --ir IR --vi VI`. One method: mean, standard deviation,
    95 % interval and convention of every metric. Several: a row of means for each, over the pictures that all have.
    """
    from fusionrepro import settings
    from fusionrepro.metrics import score as room

    fused, ir, vi = _sources(fused, ir, vi)
    names = [m for m in metrics.split(",") if m.strip()] or None
    place = str(settings.device(device))
    methods = room.method_folders(fused) if controls or len(fused) > 1 or fused[0].is_dir() else {}
    if len(methods) < 2 and not controls:
        scores = room.score(next(iter(methods.values()), fused[0]), ir, vi, preset, names, device=place)
        if plot:
            scores.box_plot(plot)
        rows = scores.summary().reset_index().to_dict("records")
    else:
        scores = room.score_methods(methods, ir, vi, preset, names, controls, place)
        if plot:
            room.box_plot(scores.methods, plot)
        rows = scores.table().reset_index().to_dict("records")
        for sentence in scores.left_out:
            typer.echo(f"note: {sentence}", err=True)
    if out:
        scores.to_csv(out)
    show(rows)
    if isinstance(scores, room.MethodScores):
        for name, line in scores.conventions.items():
            typer.echo(f"{name}: {line}")


def _sources(fused: list[Path], ir: Path | None, vi: Path | None) -> tuple[list[Path], Path, Path]:
    """Fused images and the two sources, given by option or as the last two of three names."""
    if ir and vi:
        return fused, ir, vi
    if ir or vi:
        raise InputError("give both --ir and --vi, or neither.")
    if len(fused) != 3:
        raise InputError(f"{len(fused)} names are given; say FUSED IR VI, or for several methods --ir IR --vi VI.")
    return fused[:1], fused[1], fused[2]


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="The whole catalogue as JSON, for programs.")] = False,
    timed: Annotated[bool, typer.Option("--time", help="Measure a 640x480 scene with every method on this machine (minutes).")] = False,
    record: Annotated[bool, typer.Option("--record", help="With --time: keep what was measured in results/times.csv.")] = False,
) -> None:
    """List the fusion methods.

    Size, operations, seconds, where the weights come from, and how close each is to what its authors published.
    """
    from dataclasses import asdict

    from fusionrepro.baselines.catalogue import catalogue, record_times
    from fusionrepro.reproduction.tables import models_table

    if record and not timed:
        raise InputError("--record keeps what --time measures: give both.")
    seconds, where = None, ""
    if timed:
        from rich.console import Console

        from fusionrepro.bench.models import machine, method_seconds

        with Console(stderr=True).status("building the models") as line:
            seconds, where = method_seconds(line.update), machine()
        if record:
            record_times(seconds, where)
    entries = catalogue(seconds=seconds, machine=where)
    if as_json:
        typer.echo(json.dumps([asdict(e) for e in entries], indent=1, ensure_ascii=False))
    else:
        show(models_table(entries))
        if machines := {e.machine for e in entries if e.machine}:
            typer.echo(f"seconds: a 640x480 pair on {' or '.join(sorted(machines))}; `fusionrepro models --time` measures here.")


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="METHOD", help="Methods of `fusionrepro models` whose authors published pictures.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every method with published pictures.")] = False,
    record: Annotated[bool, typer.Option("--record", help="Keep what was reached in results/verified.csv.")] = False,
    device: Device = "cpu",
) -> None:
    """Compare our pictures with published ones, pixel by pixel.

    Weights and pictures of the authors are taken from FUSIONREPRO_ORACLES, the data root or the downloads, and fetched where they are absent.
    """
    from fusionrepro import settings
    from fusionrepro.baselines import verify as ours

    if not names and not everything:
        raise InputError(f"say which methods, or --all: {', '.join(ours.verifiable())}.")
    found, failed = [], []
    for name in names or ours.verifiable():
        try:
            found.append(ours.verify(name, str(settings.device(device))))
        except FusionReproError as e:
            failed.append(name)
            if len(names or ours.verifiable()) == 1:
                raise
            _say(f"{name}: {e}", 1)
    show([{**row, "psnr": f"{row['psnr']:.1f}"} for v in found for row in v.rows()])
    for v in found:
        typer.echo(str(v))
    if record:
        typer.echo(ours.record(found))
    if failed or not all(v.ok for v in found if v.level):
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A paper (a2rnet), paper:profile (a2rnet:laptop), or a recipe's JSON file.")],
    changes: Changes = None,
    device: Device = "auto",
    data_root: Root = "",
    publish: Annotated[bool, typer.Option("--publish", help="Make the result the default weights of this method.")] = False,
    minutes: Annotated[float, typer.Option(min=0, help="Measure some steps and set the epochs so that training takes so long here; the same call goes on with the same training. 0: as the recipe says.")] = 0,
) -> None:
    """Train a paper's network.

    An interrupted training goes on where it was; a finished one is not done again.
    """
    from fusionrepro.reproduction.training import train as run_training

    _use_data_root(data_root)
    typer.echo(run_training(recipe, device=device, publish=publish, minutes=minutes, **_pairs(changes)))


@app.command()
def run(
    papers: Annotated[list[str] | None, typer.Argument(metavar="PAPER", help="Default: every paper with a notebook.")] = None,
    profile: Annotated[str, typer.Option(help="How much is computed: smoke (minutes), laptop, gpu, or paper (the published protocol).")] = "smoke",
    changes: Changes = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all random numbers.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="How many notebooks run at once.")] = 1,
    cluster: Annotated[str, typer.Option(metavar="ADDRESS", help="A Dask scheduler, such as tcp://host:8786.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Run again what is done already.")] = False,
    data_root: Root = "",
) -> None:
    """Run the notebooks that reproduce a paper.

    What is done already is not done again.
    """
    from fusionrepro.reproduction import runner

    plan = runner.plan(papers or (), profile, seed, data_root, _pairs(changes), runner.threads_for(jobs, cluster))
    if any(o.status == "failed" for o in runner.batch(plan, jobs, cluster, force)):
        raise typer.Exit(1)


@app.command()
def report(open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False) -> None:
    """Write the report of all runs as web pages, readable offline."""
    from fusionrepro.reproduction.report import write_report

    index = write_report()
    typer.echo(index)
    if open_it:
        typer.launch(index.as_uri())


@app.command()
def ledger(as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False) -> None:
    """List every table and figure of the papers.

    Says which are regenerated and which are open, and when a run is comparable with the paper.
    """
    from fusionrepro.reproduction.ledger import as_rows

    rows = as_rows()
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        show([{"id": r["id"], "status": r["status"], "notebook": r["notebook"], "comparable when": r["comparable"]} for r in rows])


@data_app.command("list")
def data_list(data_root: Root = "") -> None:
    """List all data sets and where they are."""
    from fusionrepro.data.manifests import datasets, status

    found = [status(name, data_root or None) for name in datasets()]
    show([{"name": s.name, "state": s.state, "pairs": s.pairs or "", "where": s.where, "licence": s.licence} for s in found])


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="A name of `fusionrepro data list`.")],
    folder: Annotated[Path | None, typer.Option(help="Where to put it; default: the user's cache.")] = None,
    archive: Annotated[Path | None, typer.Option(help="An archive fetched by hand, to be unpacked.")] = None,
) -> None:
    """Download a data set, or unpack one fetched by hand.

    A download that broke off goes on where it was.
    """
    from fusionrepro.data.download import get

    got = get(name, folder=folder, archive=archive)
    typer.echo(f"{name}: {len(got.new)} files fetched, {got.kept} were there, in {got.folder}.")
    if got.found:
        typer.echo(f"{name}: {got.found}")
    if got.by_hand:
        typer.echo(f"More of it by hand:\n{got.by_hand.rstrip()}")


@data_app.command("verify")
def data_verify(name: Annotated[str, typer.Argument(help="A name of `fusionrepro data list`.")], data_root: Root = "") -> None:
    """Check the files of a data set against their known hashes."""
    from fusionrepro.data.download import verify

    found = verify(name, data_root or None)
    typer.echo(found)
    if not found.ok:
        raise typer.Exit(1)


@bench_app.command("models")
def bench_models(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Default: every method.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="128x128, 256x256 or 640x480; may be given several times. Default: all.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each; the median counts.")] = 3,
    precision: Annotated[str, typer.Option(help="Of the fusing times: 32 or bf16.")] = "32",
    out: Annotated[Path | None, typer.Option(help="Also write the rows as CSV.")] = None,
) -> None:
    """Measure the fusion methods.

    Parameters, operations, seconds and memory; a network stands beside its yardstick, the program as published where there is one.
    """
    from dataclasses import asdict

    from rich.console import Console

    from fusionrepro.bench import models as bench

    with Console(stderr=True).status("building the models") as line:
        rows = [asdict(r) for r in bench.bench_models(names or (), size or tuple(bench.SIZES), repeats, precision, line.update)]
    show([{k: "" if v is None else v for k, v in row.items()} for row in rows])
    if out:
        import pandas as pd

        from fusionrepro.files import write_text

        write_text(out, pd.DataFrame(rows).to_csv(index=False))


@bench_app.command("training")
def bench_training(
    papers: Annotated[list[str] | None, typer.Argument(metavar="PAPER", help="Default: all five.")] = None,
    crop: Annotated[int, typer.Option(min=32, help="Side of the crops in pixels.")] = 64,
    batch: Annotated[int, typer.Option(min=1, help="Pairs a step.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Steps measured of each stage; the mean counts.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Also write the rows as CSV.")] = None,
) -> None:
    """Measure training steps of the papers on the CPU.

    Published width; 32-bit and bfloat16 arithmetic, with maps laid out channels first and last.
    """
    from rich.console import Console

    from fusionrepro.reproduction.budget import bench_steps, machine

    with Console(stderr=True).status("building the networks") as line:
        rows = bench_steps(papers or (), crop, batch, repeats, line.update)
    show(rows)
    if out:
        import pandas as pd

        from fusionrepro.files import write_text

        write_text(out, pd.DataFrame(rows).to_csv(index=False))
        typer.echo(f"{machine()}: {out}")


@bench_app.command("metrics")
def bench_metrics(
    count: Annotated[int, typer.Option(min=1, help="Pairs in the batch.")] = 4,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each; the median counts.")] = 3,
    device: Device = "cpu",
) -> None:
    """Measure the metrics.

    Nine of them on 640x480 pairs, beside a plain NumPy and SciPy version of the same definitions.
    """
    from fusionrepro import settings
    from fusionrepro.bench.metrics import bench_metrics as measure

    show(measure(count, device=str(settings.device(device)), repeats=repeats).reset_index().to_dict("records"))


@bench_app.command("scenes")
def bench_scenes(
    count: Annotated[int, typer.Option(min=1, help="Pairs of a round.")] = 24,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
) -> None:
    """Measure the procedural scenes.

    Pairs of 256x320 a second on one core, beside scikit-image's SSIM of such a pair.
    """
    from fusionrepro.bench.scenes import bench_scenes as measure

    show(measure(count, repeats=repeats).reset_index().to_dict("records"))


# ---- helpers -----------------------------------------------------------------------------------------------------------


def _pairs(changes: list[str] | None) -> dict[str, str]:
    """name=value texts as a dict."""
    found = {}
    for text in changes or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"'{text}' is no parameter: write -p NAME=VALUE.")
        if name in found:
            raise InputError(f"parameter '{name}' is given twice.")
        found[name] = value
    return found


def _use_data_root(given: str) -> None:
    """Let everything in this process look for data where the user says."""
    if given:
        from fusionrepro.settings import data_root

        os.environ["FUSIONREPRO_DATA"] = str(data_root(given))


def main() -> None:
    """Entry point: errors in one sentence, 1 for what failed, 2 for a wrong command line, 130 for Ctrl-C."""
    _say_notices()
    sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text
    try:
        settle_paths()
        code = app(standalone_mode=False)
        if code == 130:  # typer has caught Ctrl-C itself
            code = _say("interrupted.", code)
    except FusionReproError as e:
        code = _say(str(e), 1)
    except (KeyboardInterrupt, typer.Abort):
        code = _say("interrupted.", 130)
    except BrokenPipeError:  # the reader of our output has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as e:
        code = _say(f"{e.filename or 'a file'}: {e.strerror or e}; check that it can be read or written.", 1)
    except Exception as e:
        if not hasattr(e, "format_message"):  # not one of click's: a defect, whose traceback we want
            raise
        if type(e).__name__ == "NoArgsIsHelpError":
            typer.echo(e.format_message(), err=True)
            sys.exit(e.exit_code)
        code = _say(f"{e.format_message().rstrip('.?')}; see `{_path(e)} --help`.", e.exit_code)
    sys.exit(code or 0)


def _say_notices() -> None:
    """Print every `Notice` as one line, and any other warning as usual."""
    usual = warnings.showwarning

    def show(message, category, *where, **more):
        if issubclass(category, Notice):
            typer.echo(f"note: {' '.join(str(message).split())}", err=True)
        else:
            usual(message, category, *where, **more)

    warnings.simplefilter("always", Notice)
    warnings.showwarning = show


def _path(e: Any) -> str:
    return e.ctx.command_path if getattr(e, "ctx", None) else "fusionrepro"


def _say(text: str, code: int) -> int:
    typer.echo(f"error: {' '.join(text.split())}", err=True)
    return code


if __name__ == "__main__":
    main()
