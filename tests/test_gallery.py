"""The gallery: identity, resuming, two writers, scores, the command."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fusionrepro.data.pairs import Pair
from fusionrepro.errors import FusionReproError, InputError
from fusionrepro.fusing import fuse
from fusionrepro.gallery import entry as rooms
from fusionrepro.gallery import hang, identity
from fusionrepro.gallery.cli import app
from fusionrepro.gallery.conditions import CLEAN, attack, degradation, parse
from fusionrepro.gallery.entry import Entry
from fusionrepro.gallery.make import Task, make, table, tasks
from fusionrepro.gallery.provenance import Provenance
from fusionrepro.gallery.scores import scores
from fusionrepro.gallery.subjects import choose, subject, trained
from fusionrepro.gallery.view import View
from fusionrepro.imaging.post import quantise
from fusionrepro.metrics import evaluate
from fusionrepro.nn.fusion import FusionModel


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONREPRO_RUNS_PATH", str(tmp_path / "runs"))
    return tmp_path / "runs"


def pairs(n: int = 3, size=(48, 64), seed: int = 0) -> list[Pair]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda c: torch.nn.functional.interpolate(torch.rand(1, c, 6, 8, generator=generator), size, mode="bicubic")[0].clamp(0, 1)
    draw8 = lambda c: quantise(draw(c), 8)
    return [Pair(f"p {i}", draw8(1), draw8(1), 0.5 + 0.2 * (draw8(2) - 0.5)) for i in range(n)]


class Weighted(FusionModel):
    """A network of one number."""

    name = "weighted"

    def __init__(self, weight: float = 0.5):
        super().__init__()
        self.weight, self.calls = torch.nn.Parameter(torch.tensor(weight)), 0

    def fuse(self, ir, vi):
        self.calls += 1
        return self.weight * ir + (1 - self.weight) * vi


def network(weight: float = 0.5, **options):
    return trained("Ours", Weighted(weight), Provenance("trained", "for a test"), **options)


# ---- identity ----------------------------------------------------------------------------------------------------------


def test_other_weights_options_post_size_or_condition_make_another_entry():
    view = View(pairs(), "set")
    base = Entry(network(), view)
    assert Entry(network(), View(pairs(), "set")).folder == base.folder, "the same again is the same entry"
    others = [
        Entry(network(0.25), view),
        Entry(network(recipe="x"), view),
        Entry(network(), view, post="minmax"),
        Entry(network(), view, rounding="floor"),
        Entry(network(), View(pairs(), "set", side=32)),
        Entry(network(), View(pairs(), "set", grey=True)),
        Entry(network(), view, attack()),
        Entry(network(), view, attack(steps=5)),
        Entry(network(), view, degradation("haze", 0.5)),
        Entry(network(), view, degradation("haze", 0.5, seed=1)),
        Entry(network(), view, degradation("haze", 0.8)),
    ]
    assert len({e.folder for e in (base, *others)}) == 1 + len(others)


def test_weights_are_known_by_their_tensors_not_by_their_file():
    assert network().weights == network().weights != network(0.25).weights
    assert subject("average").weights == "none"


def test_changed_pixels_of_a_pair_make_another_picture():
    one = network()
    first = Entry(one, View(pairs(), "set"))
    first.fill()
    changed = pairs()
    changed[1].ir = changed[1].ir.flip(-1)
    later = Entry(one, View(changed, "set"))
    assert later.folder == first.folder and later.missing() == ["p 1"], "nothing of the old picture is taken for the new pair"
    later.fill()
    assert one.module.calls == 4
    assert not np.array_equal(first.picture("p 1"), later.picture("p 1")) and np.array_equal(first.picture("p 0"), later.picture("p 0"))


def test_code_counts_and_comments_do_not(tmp_path, monkeypatch):
    package = tmp_path / "fusionrepro"
    (package / "room").mkdir(parents=True)
    (package / "room" / "__init__.py").write_text("")
    (package / "room" / "helper.py").write_text("def f(x): return x\n")
    method = package / "room" / "method.py"
    method.write_text('"""A method."""\nfrom .helper import f\nfrom ..errors import InputError\n')
    (package / "errors.py").write_text("a = 1\n")
    monkeypatch.setattr(identity, "_PACKAGE", package)

    def code() -> str:
        identity.code_hash.cache_clear()
        return identity.code_hash(("fusionrepro.room.method",))

    before = code()
    method.write_text('"""Another word."""\n# and a comment\nfrom .helper import f\nfrom ..errors import InputError\n')
    (package / "errors.py").write_text("a = 2\n")
    assert code() == before, "words and messages make no picture"
    (package / "room" / "helper.py").write_text("def f(x): return 2 * x\n")
    assert code() != before, "what a method imports is its code"
    identity.code_hash.cache_clear()


def test_real_methods_know_the_code_they_stand_on():
    assert identity.code_hash(("fusionrepro.smfnet.model",)) != identity.code_hash(("fusionrepro.a2rnet.model",))
    assert "fusionrepro.nn.fusion" in identity._imports(__import__("ast").parse("from ..nn.fusion import FusionModel"), "fusionrepro.smfnet.model", False)


# ---- making ------------------------------------------------------------------------------------------------------------


def test_pictures_are_what_the_package_fuses():
    view = View(pairs(2), "set", grey=True)
    e = Entry(subject("laplacian"), view)
    assert e.fill().new == 2
    levels = [(x[0] * 255).round().byte().numpy() for x in (view["p 0"].ir, view["p 0"].vi)]
    assert np.array_equal(e.picture("p 0"), fuse(*levels, "laplacian").pixels)
    coloured = Entry(subject("laplacian"), View(pairs(2), "set"))
    coloured.fill()
    assert coloured.picture("p 0").shape == (48, 64, 3)


def test_the_second_filling_fuses_nothing():
    one = network()
    e = Entry(one, View(pairs(), "set"))
    assert (e.fill().new, one.module.calls) == (3, 3)
    again = e.fill()
    assert (again.new, again.kept, one.module.calls) == (0, 3, 3)
    wider = Entry(one, View(pairs(5), "set"))
    assert wider.fill().kept >= 3 and one.module.calls == 5, "a larger part of the set makes only what is missing"


def test_a_picture_that_cannot_be_made_is_said_and_stops_nothing():
    class Shy(Weighted):
        def fuse(self, ir, vi):
            if self.calls == 1:
                self.calls += 1
                raise FusionReproError("it does not like this pair.")
            return super().fuse(ir, vi)

    e = Entry(trained("Shy", Shy(), Provenance("trained", "")), View(pairs(), "set"))
    filled = e.fill()
    assert (filled.new, filled.failed, filled.left) == (2, 1, 0)
    assert e.failures() == {"p 1": "it does not like this pair."} and e.made() == ["p 0", "p 2"]
    assert e.record()["failures"] == e.failures() and e.record()["pictures"] == 2
    with pytest.raises(FusionReproError, match="does not like"):
        e.picture("p 1")
    assert e.fill().failed == 1 and e.fill(again=True).failed == 0, "what failed is tried again when told"


def test_nan_is_a_failure_not_a_picture():
    e = Entry(network(float("nan")), View(pairs(1), "set"))
    assert e.fill().failed == 1 and "NaN" in e.failures()["p 0"]


def test_a_deadline_leaves_the_rest_for_later():
    e = Entry(network(), View(pairs(), "set"))
    filled = e.fill(deadline=time.monotonic() - 1)
    assert (filled.new, filled.left) == (0, 3) and len(e.missing()) == 3


def test_a_line_that_a_kill_cut_short_costs_one_picture():
    e = Entry(network(), View(pairs(), "set"))
    e.fill()
    log = e.folder / "pictures.jsonl"
    log.write_text(log.read_text()[:-20])
    (e.folder / "pictures" / ".half-x.png").write_bytes(b"half")
    assert e.missing() == ["p 2"]
    e.fill()
    assert e.made() == ["p 0", "p 1", "p 2"] and not list((e.folder / "pictures").glob(".*"))
    assert [json.loads(line)["id"] for line in log.read_text().splitlines() if line.endswith("}")][-1] == "p 2"


def test_a_damaged_picture_is_named():
    e = Entry(network(), View(pairs(1), "set"))
    e.fill()
    next((e.folder / "pictures").glob("*.png")).write_bytes(b"no picture")
    with pytest.raises(FusionReproError, match="cannot be read"):
        e.picture("p 0")


def _fill_slowly(folder: str) -> None:
    os.environ["FUSIONREPRO_RUNS_PATH"] = folder

    class Slow(Weighted):
        def fuse(self, ir, vi):
            time.sleep(0.05)
            return super().fuse(ir, vi)

    Entry(trained("Ours", Slow(), Provenance("trained", "")), View(pairs(8), "set")).fill()


def test_two_writers_make_every_picture_once(runs):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_fill_slowly, args=(str(runs),)) for _ in range(2)]
    for w in writers:
        w.start()
    for w in writers:
        w.join(60)
    assert [w.exitcode for w in writers] == [0, 0]
    logs = list(runs.glob("gallery/*/*/*/pictures.jsonl"))
    assert len(logs) == 1
    ids = [json.loads(line)["id"] for line in logs[0].read_text().splitlines()]
    assert sorted(ids) == sorted(f"p {i}" for i in range(8)), "each once, no byte mixed"


# ---- scores ------------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_saved_picture_and_computed_once(monkeypatch):
    view = View(pairs(), "set")
    e = Entry(network(), view)
    e.fill()
    found = scores(e, ["EN", "SD"], "cddfuse")
    direct = evaluate([rooms.grey(e.picture(i)) for i in view.ids], [p.ir for p in view], [p.vi for p in view], metrics=["EN", "SD"], preset="cddfuse")
    assert np.allclose(found[["EN", "SD"]], direct, rtol=1e-7) and list(found["id"]) == list(view.ids)

    calls = []
    import fusionrepro.gallery.scores as module

    real = module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda *a, **k: calls.append(k["metrics"]) or real(*a, **k))
    assert scores(e, ["SD"], "cddfuse")["SD"].equals(found["SD"]) and not calls
    more = scores(e, ["EN", "MI"], "cddfuse")
    assert len(calls) == 3 and more["EN"].equals(found["EN"]), "only pictures that lack a metric are measured"
    scores(e, ["EN"], "default")
    assert len(list((e.folder / "scores").glob("*.csv"))) == 2, "a preset a file"


def test_infinite_scores_are_kept_as_such():
    view = View(pairs(1), "set", grey=True)
    e = Entry(subject("copy_vi"), view)
    e.fill()
    first = scores(e, ["PSNR"], "derun")  # the mean of two distances in dB, one of which is none
    assert np.isinf(first["PSNR"]).all() and scores(e, ["PSNR"], "derun").equals(first)
    assert np.isfinite(scores(e, ["PSNR"], "default")["PSNR"]).all(), "averaged errors leave a copy a finite one"


def test_a_copy_is_the_source_to_the_level_and_never_dead():
    view = View(pairs(2), "set", grey=True)
    for name, side in (("copy_ir", "ir"), ("copy_vi", "vi")):
        e = Entry(subject(name), view)
        e.fill()
        assert np.array_equal(e.picture("p 0"), (getattr(view["p 0"], side)[0] * 255).round().byte().numpy()) and e.dead() == ""


@pytest.mark.parametrize("name", ["a2rnet", "smfnet", "daefuse", "msfam"])
def test_an_untrained_network_earns_no_verdict(name):
    one = subject(name, None)
    assert one.provenance.kind == "untrained" and one.provenance.shortfalls == ("untrained",)


def test_a_flat_network_is_dead():
    class Flat(Weighted):
        def fuse(self, ir, vi):
            return ir * 0 + 0.5

    e = Entry(trained("Flat", Flat(), Provenance("trained", "")), View(pairs(), "set"))
    e.fill()
    assert e.dead() and e.dead() == e.dead()


# ---- many at once ------------------------------------------------------------------------------------------------------


def test_tasks_are_checked_before_anything_runs():
    with pytest.raises(InputError, match="did you mean 'haze'"):
        tasks(["scenes"], ["average"], ["haz"])
    with pytest.raises(InputError, match="data set"):
        tasks(["scnes"], ["average"])
    with pytest.raises(InputError, match="preset"):
        tasks(["scenes"], ["average"], preset="nope")
    with pytest.raises(InputError, match="model or group"):
        choose("averge")
    assert choose("control,average") == [n for n in choose("all") if n in ("average", "copy_ir", "copy_vi")]


def test_conditions_as_words():
    assert parse("clean") is CLEAN
    assert parse("attack:8/255,steps=3").settings["eps"] == pytest.approx(8 / 255) and parse("attack:8/255,steps=3").settings["steps"] == 3
    assert parse("haze").identity == parse("haze:0.5").identity == degradation("haze").identity
    for text, why in (("clean:1", "no settings"), ("haze:x", "no number"), ("attack:eps=1/0", "no number"), ("haze:speed=1", "did you mean|unknown setting")):
        with pytest.raises(InputError, match=why):
            parse(text)


def test_make_fills_scores_and_tells(runs):
    wanted = tasks(["scenes"], ["average", "maximum"], ["clean", "haze"], limit=2, side=64, preset="default", metrics=("EN", "VIF"))
    told = []
    done = make(wanted, told=told.append)
    assert [d.new for d in done] == [2, 2, 2, 2] and told[-1].tasks == 4 and told[-1].pictures == 8 and told[-1].left == 0
    rows = table(done)
    assert {r["method"] for r in rows} == {"Average", "Maximum"} and all(np.isfinite(r["VIF"]) and r["note"] == "" for r in rows)
    again = make(wanted)
    assert [d.new for d in again] == [0] * 4 and [d.means for d in again] == [d.means for d in done]


def test_make_over_processes_gives_the_same(runs, monkeypatch):
    wanted = tasks(["scenes"], ["average", "maximum"], limit=2, side=48, preset="default", metrics=("EN",))
    apart = make(wanted, parallel=2)
    monkeypatch.setenv("FUSIONREPRO_RUNS_PATH", str(runs / "other"))
    assert [d.means for d in make(wanted)] == [d.means for d in apart]


def test_a_method_without_gradients_is_not_attacked():
    done = make(tasks(["scenes"], ["csmca"], ["attack:steps=1"], limit=1, side=48))
    assert "no gradients" in done[0].error and done[0].n == 0


def test_a_folder_of_ones_own_pairs(tmp_path, runs):
    for side in ("ir", "vi"):
        (tmp_path / "mine" / side).mkdir(parents=True)
    for i, pair in enumerate(pairs(2)):
        for side in ("ir", "vi"):
            Image.fromarray((getattr(pair, side)[0] * 255).round().byte().numpy()).save(tmp_path / "mine" / side / f"{i}.png")
    done = make([Task("average", str(tmp_path / "mine"), preset="default", metrics=("EN",))])
    assert done[0].new == 2 and done[0].means["EN"] > 0


def test_killed_in_the_middle_and_taken_up_again(runs, tmp_path):
    command = [sys.executable, "-m", "fusionrepro", "gallery", "make", "--sets", "scenes", "--models", "laplacian,average,maximum", "--limit", "12", "--metrics", "EN", "--jobs", "2"]
    process = subprocess.Popen(command, env=os.environ | {"FUSIONREPRO_RUNS_PATH": str(runs)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pictures = lambda: len(list(runs.glob("gallery/*/*/*/pictures/[!.]*.png")))
    end = time.time() + 120
    while pictures() < 3 and time.time() < end and process.poll() is None:
        time.sleep(0.02)
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not psutil.wait_procs(workers, 20)[1], "nothing goes on behind the user's back"
    before = {p: p.stat().st_mtime_ns for p in runs.glob("gallery/*/*/*/pictures/[!.]*.png")}
    assert 3 <= len(before)
    done = make(tasks(["scenes"], ["laplacian", "average", "maximum"], limit=12, preset="default", metrics=("EN",)))
    assert [d.n for d in done] == [12, 12, 12]
    kept = sum(p.stat().st_mtime_ns == t for p, t in before.items())
    assert kept >= len(before) - 1, "what was whole was not made again"


# ---- the command -------------------------------------------------------------------------------------------------------


def run(*words: str):
    return CliRunner().invoke(app, list(words))


def test_the_command_from_making_to_taking_down(runs, tmp_path):
    common = ("--models", "average,copy_vi", "--limit", "2", "--side", "64")
    made = run("make", "--sets", "scenes", *common, "--metrics", "EN,Qabf", "-o", str(tmp_path / "t.csv"))
    assert made.exit_code == 0, made.output
    frame = pd.read_csv(tmp_path / "t.csv")
    assert set(frame["method"]) == {"Average", "Copy of the visible"} and set(frame["provenance"]) == {"classic", "control: no fusion"}
    assert "2 entries, 4 pictures" in run("list").output
    sheet = run("show", "scenes", *common, "-o", str(tmp_path / "s.png"))
    assert sheet.exit_code == 0, sheet.output
    assert Image.open(tmp_path / "s.png").size[0] > 300
    assert "--yes" in str(run("clean").exception), "nothing is deleted unasked"
    assert "nothing to delete" in run("clean", "--stale", "--yes").output
    gone = run("clean", "--models", "average", "--yes")
    assert "1 entries deleted" in gone.output and len(list(runs.glob("gallery/*/*/*/record.json"))) == 1


def test_stale_entries_are_known(runs):
    e = Entry(subject("average"), View(pairs(1), "set"))
    e.fill()
    assert list(hang.stale(hang.entries())) == []
    record = e.record()
    record["identity"]["code"] = "old"
    (e.folder / "record.json").write_text(json.dumps(record))
    assert [f for f, _ in hang.stale(hang.entries())] == [e.folder]


def test_other_pictures_under_a_name_are_refused():
    e = Entry(network(), View(pairs(1), "set"))
    e.fill()
    e._write(e.record() | {"identity": {"method": "another"}})
    with pytest.raises(FusionReproError, match="holds other pictures"):
        replace_view = Entry(replace(network()), View(pairs(2), "set"))
        replace_view.fill()


def test_methods_for_which_the_time_was_up_are_said_in_one_sentence_a_set():
    from fusionrepro.reproduction.protocol import measure_all

    told, views = [], [View(pairs(), "one"), View(pairs(seed=1), "two")]
    late = dict(deadline=time.monotonic() - 1, told=told.append)
    assert measure_all([subject("average"), subject("maximum")], views, ["EN"], "default", **late) == []
    assert told == [f"In the time given no picture of {name} was made by Average, Maximum; the next run goes on." for name in ("one", "two")]
