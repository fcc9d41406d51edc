"""The command line: help, errors, exit codes; every verb on small input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusionrepro import __version__, cli

ROOT = Path(__file__).resolve().parents[1]
VERBS = ["fuse", "score", "models", "train", "run", "report", "ledger", "data", "data list", "data get", "data verify", "bench", "bench models", "bench training", "bench metrics", "bench scenes", "verify"]


@pytest.fixture
def call(capsys, monkeypatch):
    """Run a command line in this process: exit code, stdout, stderr."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fusionrepro", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return run


def one_sentence(err: str) -> str:
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help(call, verb):
    code, out, _ = call(*verb.split(), "--help")
    assert code == 0 and "Usage:" in out


def test_help_does_not_import_torch():
    code = "import sys; sys.argv = ['fusionrepro', '--help']\nfrom fusionrepro.cli import main\ntry: main()\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, timeout=60)


def test_version(call):
    assert call("--version") == (0, f"fusionrepro {__version__}\n", "")
    done = subprocess.run([sys.executable, "-m", "fusionrepro", "--version"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout == f"fusionrepro {__version__}\n"


@pytest.mark.parametrize(
    "line, code, words",
    [
        ("fus", 2, "Did you mean 'fuse'"),
        ("run --jbs 2", 2, "--jobs"),
        ("run --jobs 0", 2, "--jobs"),
        ("run --seed many", 2, "--seed"),
        ("fuse a.png", 2, "Missing argument"),
        ("data lst", 2, "Did you mean 'list'"),
        ("run a2rnett", 1, "did you mean 'a2rnet'"),
        ("run a2rnet --profile smok", 1, "did you mean 'smoke'"),
        ("run a2rnet -p epoks=3", 1, "did you mean 'epochs'"),
        ("run a2rnet -p epochs=three", 1, "whole number"),
        ("run a2rnet -p epochs", 1, "NAME=VALUE"),
        ("run a2rnet -p epochs=1 -p epochs=2", 1, "given twice"),
        ("run a2rnet --data-root /nowhere/here", 1, "no folder"),
        ("train a2rnett", 1, "did you mean 'a2rnet'"),
        ("train a2rnet:laptp", 1, "did you mean 'laptop'"),
        ("train a2rnet -p lrr=1", 1, "did you mean 'lr'"),
        ("train comparison", 1, "trains nothing"),
        ("data get tnoo", 1, "did you mean 'tno'"),
        ("data verify tnoo", 1, "did you mean 'tno'"),
        ("data get llvip --archive nowhere.zip", 1, "nowhere.zip does not exist"),
        ("score a b c --metrics EN,Qabff", 1, "did you mean 'Qabf'"),
        ("score a b c --preset cddfus", 1, "did you mean 'cddfuse'"),
    ],
)
def test_mistakes_are_one_sentence(call, line, code, words):
    got, out, err = call(*line.split())
    assert got == code and words in one_sentence(err) and not out


def grey(path: Path, size=(24, 20), seed=0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("verb", ["", "data", "bench"])
def test_every_line_of_help_is_whole(call, verb):
    """A cut-off line tells a newcomer nothing."""
    commands = call(*verb.split(), "--help")[1].partition("Commands:")[2]
    assert "  " in commands and "..." not in commands


def test_one_bad_pair_is_one_line(call, tmp_path):
    for folder in ("ir", "vi"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            grey(tmp_path / folder / f"{i}.png", seed=10 * (folder == "vi") + i)
    (tmp_path / "vi/1.png").write_bytes(b"")
    code, _, err = call("fuse", tmp_path / "ir", tmp_path / "vi", "-o", tmp_path / "out", "--model", "average")
    assert code == 1 and "1 of 3 pairs failed" in one_sentence(err)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.png", "2.png", "fusion.json"]
    code, _, err = call("score", tmp_path / "ir", tmp_path / "ir", tmp_path / "vi", "--metrics", "EN", "-o", tmp_path / "t.csv")
    assert code == 1 and "1.png is empty" in one_sentence(err) and not (tmp_path / "t.csv").exists()


def test_fuse_files(call, tmp_path):
    ir, vi, out = grey(tmp_path / "ir.png"), grey(tmp_path / "vi.png", seed=1), tmp_path / "out" / "f.png"
    code, printed, _ = call("fuse", ir, vi, "-o", out, "--model", "average")
    assert code == 0 and printed.strip() == str(out)
    mean = (np.asarray(Image.open(ir), float) + np.asarray(Image.open(vi), float)) / 2
    assert np.abs(np.asarray(Image.open(out), float) - mean).max() <= 0.5
    code, _, err = call("fuse", ir, vi, "-o", out, "--model", "avrage")
    assert code == 1 and "did you mean 'average'" in one_sentence(err)
    code, _, err = call("fuse", ir, grey(tmp_path / "small.png", (10, 10)), "-o", tmp_path / "x.png", "--model", "average")
    assert code == 1 and "differ in size" in one_sentence(err) and not (tmp_path / "x.png").exists()


def test_score_of_several_methods_is_one_table(call, tmp_path):
    for seed, folder in enumerate(("ir", "vi", "fused/first", "fused/second")):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(3):
            grey(tmp_path / folder / f"{i}.png", seed=10 * seed + i)
    (tmp_path / "fused/second/1.png").unlink()
    sources = ("--ir", tmp_path / "ir", "--vi", tmp_path / "vi")
    options = ("--metrics", "EN,MSE", "-o", tmp_path / "t.csv", "--plot", tmp_path / "t.png", "--controls")
    code, out, err = call("score", tmp_path / "fused/first", tmp_path / "fused/second", *sources, *options)
    assert code == 0 and "second has no 1; 2 of 3 pictures" in err
    assert all(word in out for word in ("first", "second", "copy of the infrared", "MSE ↓"))
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 9 and (tmp_path / "t.png").exists()
    same = call("score", tmp_path / "fused", tmp_path / "ir", tmp_path / "vi", *options)
    assert same[:2] == (code, out)
    code, _, err = call("score", tmp_path / "fused/first", tmp_path / "vi")
    assert code == 1 and "say FUSED IR VI" in one_sentence(err)
    code, _, err = call("score", tmp_path / "fused/first", "--ir", tmp_path / "ir")
    assert code == 1 and "both --ir and --vi" in one_sentence(err)
    code, out, _ = call("score", tmp_path / "fused/first", *sources, "--preset", "liu2012", "--metrics", "QSF,NMI")
    assert code == 0 and "inferred" in out


def test_models_ledger_and_data(call, monkeypatch):
    code, out, _ = call("models")
    assert code == 0 and "a2rnet" in out and "3572497" in out
    code, out, _ = call("ledger", "--json")
    rows = json.loads(out)
    assert code == 0 and len(rows) == 65
    assert {"id", "status", "notebook", "comparable", "caption", "reason"} <= set(rows[0])
    code, out, _ = call("ledger")
    assert code == 0 and "derun/table5" in out
    code, out, _ = call("data", "list")
    assert code == 0 and "scenes" in out and "built in" in out and "tno" in out


def test_report(call, tmp_path):
    code, out, _ = call("report")
    assert code == 0 and out.strip() == str(tmp_path / "runs" / "report" / "index.html")
    assert Path(out.strip()).is_file()


def test_run_exit_code_and_parameters(call, monkeypatch):
    from fusionrepro.reproduction import runner

    seen = []

    def batch(jobs, parallel, cluster, force):
        seen.append((jobs, parallel, cluster, force))
        return [runner.Outcome(j, "failed" if j.parameters["seed"] == 9 else "ok") for j in jobs]

    monkeypatch.setattr(runner, "batch", batch)
    assert call("run", "a2rnet", "-p", "epochs=2", "--jobs", "3", "--force")[0] == 0
    jobs, *how = seen[-1]
    assert how == [3, "", True] and jobs[0].parameters["epochs"] == 2 and jobs[0].parameters["profile"] == "smoke"
    assert call("run", "a2rnet", "--seed", "9")[0] == 1


def test_train_gives_weights_that_load(call, tmp_path):
    from fusionrepro import load

    line = "train a2rnet -p epochs=1 -p label=max -p limit=2 -p batch=2 -p crop=16 --device cpu"
    code, out, err = call(*line.split())
    assert code == 0, err
    path = Path(out.split()[-1])
    assert path.is_file() and path.is_relative_to(tmp_path / "runs" / "training")
    assert load("a2rnet", weights=path).weights_id
    assert not (tmp_path / "runs" / "models").exists(), "without --publish the default model stays"
    assert call(*line.split(), "--publish")[0] == 0
    assert (tmp_path / "runs" / "models" / "a2rnet.safetensors").is_file()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_is_one_line(tmp_path):
    code = "from fusionrepro import cli\nfrom fusionrepro.reproduction import ledger\nimport time\nledger.as_rows = lambda: (print('ready', flush=True), time.sleep(60))\ncli.main()"
    process = subprocess.Popen([sys.executable, "-c", code, "ledger"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))  # a background job ignores it
    assert process.stdout.readline().strip() == "ready"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err == "error: interrupted.\n"


def test_fuse_says_what_is_odd_in_one_line_each(call, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(7600, 8000, (40, 50)).astype(np.uint16)).save(tmp_path / "ir.png")
    vi = grey(tmp_path / "vi.png", (50, 40))
    code, out, err = call("fuse", tmp_path / "ir.png", vi, "-o", tmp_path / "f.png", "--model", "average")
    assert code == 0 and out.strip() == str(tmp_path / "f.png")
    assert err.startswith("note: ") and err.count("\n") == 1 and "--ir-range auto" in err
    code, out, err = call("fuse", tmp_path / "ir.png", vi, "-o", tmp_path / "f.png", "--model", "average", "--ir-range", "7600:8000", "--invert-ir", "--colour", "none")
    assert code == 0 and not err
    record = json.loads((tmp_path / "f.json").read_text())
    assert record["ir_range"] == {"given": "7600:8000", "low": 7600, "high": 8000} and record["invert_ir"] and record["colour_rule"] == "none"


def test_fuse_aligns_and_pairs(call, tmp_path):
    for i in (1, 2):
        (tmp_path / "s").mkdir(exist_ok=True)
        grey(tmp_path / "s" / f"IR{i}.png", (12, 10), i), grey(tmp_path / "s" / f"VIS{i}.png", (24, 20), i + 5)
    line = ["fuse", tmp_path / "s", tmp_path / "s", "-o", tmp_path / "out", "--model", "average", "--pairs", "IR{id} VIS{id}"]
    code, out, err = call(*line)
    assert code == 1 and "2 of 2 pairs failed" in one_sentence(err) and "--align" in err
    code, out, err = call(*line, "--align", "resize-ir")
    assert code == 0 and [Path(p).name for p in out.split()] == ["1.png", "2.png"] and not err
    (tmp_path / "h.txt").write_text("2 0 0\n0 2 0\n0 0 1\n")
    assert call(*line, "--homography", tmp_path / "h.txt", "--rgb")[0] == 0
    for more, words in [(["--align", "resize"], "did you mean 'resize-"), (["--ir-range", "5"], "must be auto"), (["--colour", "red"], "unknown colour 'red'"),
                        (["--homography", tmp_path / "none"], "there is no homography")]:  # fmt: skip
        code, _, err = call(*line, *more)
        assert code == 1 and words in one_sentence(err)


def test_unpacked_archive_says_what_it_holds(call, tmp_path, monkeypatch):
    import zipfile

    monkeypatch.delenv("FUSIONREPRO_DATA", raising=False)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        for side in ("ir", "vi"):
            z.write(grey(tmp_path / f"{side}.png"), f"MSRS-main/test/{side}/1.png")
    code, out, _ = call("data", "get", "msrs", "--archive", tmp_path / "a.zip")
    assert code == 0 and "1 pair of the split test can be read" in out
    assert call("data", "verify", "msrs")[0] == 0


def test_names_that_are_no_text(call, tmp_path):
    try:
        folder = tmp_path / os.fsdecode(b"caf\xe9")
        folder.mkdir()
    except OSError:
        pytest.skip("this file system knows text only")
    code, out, _ = call("fuse", grey(folder / "ir.png"), grey(folder / "vi.png", seed=1), "-o", folder / "out.png", "--model", "average")
    assert code == 0 and "out.png" in out and (folder / "out.png").is_file()
