"""The batch runner on tiny notebooks: failures, skips, kills, parameters, a cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from fusionrepro.cluster import connect
from fusionrepro.errors import FusionReproError, InputError
from fusionrepro.reproduction import runner

KERNEL = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
PARAMETERS = 'profile: str = "smoke"\nseed: int = 0\nrate: float = 0.5\nflag: bool = False\nout_dir: str = ""'


def notebook(folder: Path, name: str, *cells: str) -> Path:
    """A notebook with a parameters cell, a heading, and `cells`."""
    first = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(metadata=KERNEL, cells=[first, nbformat.v4.new_markdown_cell("## The work"), *map(nbformat.v4.new_code_cell, cells)])
    nbformat.write(book, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def job(folder: Path, name: str, *cells: str, timeout: int = 60) -> runner.Job:
    out = folder / "runs" / name
    return runner.Job(name, notebook(folder, name, *cells), out, {"seed": 3, "out_dir": str(out)}, timeout)


WRITES = "from pathlib import Path\nPath(out_dir, 'seen.txt').write_text(str(seed))"


def test_one_failing_notebook_does_not_stop_the_others(tmp_path):
    bad = job(tmp_path, "bad", WRITES, "1 / 0", "unreached = True")
    good = job(tmp_path, "good", WRITES)
    states: list[dict] = []
    outcomes = {o.job.name: o for o in runner.run_jobs([bad, good], 1, report=states.append, poll=0.1)}
    assert outcomes["good"].status == "ok" and (good.folder / "seen.txt").read_text() == "3"
    assert outcomes["bad"].status == "failed" and "ZeroDivisionError" in outcomes["bad"].error
    assert (bad.folder / "seen.txt").exists(), "partial results stay"
    kept = json.loads((bad.folder / "notebook.ipynb").read_text())
    assert any(o["output_type"] == "error" for c in kept["cells"] if c["cell_type"] == "code" for o in c["outputs"]), "the traceback stays"
    assert any("The work" in s["bad"] for s in states), "the current cell is told"

    # A rerun does only what is missing; a changed notebook is missing; --force does it all.
    (good.folder / "seen.txt").unlink()
    again = {o.job.name: o.status for o in runner.run_jobs([bad, good], 2, poll=0.1)}
    assert again == {"bad": "failed", "good": "skipped"} and not (good.folder / "seen.txt").exists()
    changed = job(tmp_path, "good", WRITES, "changed = 1")
    assert not changed.is_done()
    assert runner.run_jobs([good], force=True, poll=0.1)[0].status == "ok" and (good.folder / "seen.txt").exists()


def test_the_count_that_a_long_cell_prints_is_told(tmp_path):
    long = job(tmp_path, "long", "import time\nprint('stage 1/2: step 3 of 40, 7 s, loss 0.1', flush=True); time.sleep(1.5)")
    states: list[dict] = []
    runner.run_jobs([long], 1, report=states.append, poll=0.1)
    assert any(s["long"].endswith("The work, stage 1/2: step 3 of 40") for s in states), states


def test_a_cell_that_takes_too_long_fails(tmp_path):
    slow = job(tmp_path, "slow", "import time; time.sleep(60)", timeout=2)
    outcome = runner.run_jobs([slow], poll=0.1)[0]
    assert outcome.status == "failed" and "2 s" in outcome.error


def test_a_dying_kernel_is_a_failure_not_a_retry(tmp_path):
    count = tmp_path / "count"
    dies = job(tmp_path, "dies", f"open({str(count)!r}, 'a').write('x')", "import os; os._exit(9)")
    outcome = runner.run_jobs([dies], poll=0.1)[0]
    assert outcome.status == "failed" and "kernel died" in outcome.error
    assert count.read_text() == "x"


def test_a_kernel_that_does_not_start_is_tried_once_more(tmp_path, monkeypatch):
    from fusionrepro.reproduction import job as module

    calls = []

    def execute(*a, **k):
        calls.append(k["start_timeout"])
        if len(calls) == 1:
            raise RuntimeError("Kernel didn't respond in 180 seconds")

    monkeypatch.setattr("papermill.execute_notebook", execute)
    wanted = job(tmp_path, "late", "1")
    wanted.folder.mkdir(parents=True)
    assert module.execute(wanted.spec())["status"] == "ok" and len(calls) == 2
    monkeypatch.setattr("papermill.execute_notebook", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("Kernel died")))
    assert module.execute(wanted.spec())["status"] == "failed"


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_batch_ends_its_notebooks_and_is_continued(tmp_path):
    done = job(tmp_path, "done", WRITES)
    long = job(tmp_path, "long", "import os\nfrom pathlib import Path\nPath(out_dir, 'pid').write_text(str(os.getpid()))", "import time; time.sleep(300)")
    code = (
        "import sys, json; from pathlib import Path; from fusionrepro.reproduction import runner as r\n"
        "jobs = [r.Job(n, Path(b), Path(f), {'seed': 3, 'out_dir': f}, 400) for n, b, f in json.loads(sys.argv[1])]\n"
        "r.run_jobs(jobs, poll=0.1)"
    )
    given = json.dumps([[j.name, str(j.notebook), str(j.folder)] for j in (done, long)])
    process = subprocess.Popen([sys.executable, "-c", code, given], cwd=Path(__file__).parents[1])
    pid_file = long.folder / "pid"
    deadline = time.time() + 90
    while not (pid_file.exists() and pid_file.read_text()) and time.time() < deadline:
        time.sleep(0.2)
    kernel = int(pid_file.read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while alive(kernel) and time.time() < deadline + 30:
        time.sleep(0.2)
    assert not alive(kernel), "no kernel goes on behind a killed batch"
    assert done.is_done() and not long.is_done()
    short = job(tmp_path, "long", WRITES)
    assert {o.job.name: o.status for o in runner.run_jobs([done, short], poll=0.1)} == {"done": "skipped", "long": "ok"}


def test_parameters_are_checked(tmp_path):
    book = notebook(tmp_path, "book")
    typed = runner.check_parameters(book, {"seed": "7", "rate": "1e-3", "flag": "False"})
    assert typed == {"seed": 7, "rate": 1e-3, "flag": False}
    with pytest.raises(InputError, match="did you mean 'seed'"):
        runner.check_parameters(book, {"sed": 1})
    with pytest.raises(InputError, match="whole number"):
        runner.check_parameters(book, {"seed": "many"})
    bare = nbformat.v4.new_notebook(metadata=KERNEL, cells=[nbformat.v4.new_code_cell("1")])
    nbformat.write(bare, tmp_path / "bare.ipynb")
    with pytest.raises(InputError, match="tagged 'parameters'"):
        runner.check_parameters(tmp_path / "bare.ipynb", {})


def test_plan_refuses_what_cannot_run():
    with pytest.raises(InputError, match="did you mean 'a2rnet'"):
        runner.plan(["a2rnett"])
    with pytest.raises(InputError, match="did you mean 'smoke'"):
        runner.plan(profile="smok")
    with pytest.raises(InputError, match="no folder"):
        runner.plan(data_root="/nowhere/at/all")


def test_dask_cluster(tmp_path):
    distributed = pytest.importorskip("distributed")
    with pytest.raises(FusionReproError, match="no Dask scheduler"):
        connect("tcp://127.0.0.1:1")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, processes=False) as cluster:
        jobs = [job(tmp_path, "far", WRITES), job(tmp_path, "off", "1 / 0")]
        outcomes = {o.job.name: o.status for o in runner.run_jobs(jobs, 2, cluster.scheduler_address, poll=0.1)}
    assert outcomes == {"far": "ok", "off": "failed"}
    assert (jobs[0].folder / "log.txt").exists()
