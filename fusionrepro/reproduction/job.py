"""One notebook, executed by papermill in a process of its own: `python -m fusionrepro.reproduction.job JOB.json`.

The batch runner starts this module on this machine or on a Dask worker. It leaves beside the executed notebook
log.txt and job.json with the status; both exist whatever happens to the notebook.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from fusionrepro.files import write_text

START_TIMEOUT = 180  # seconds for a kernel to start on a busy machine


def execute(spec: dict) -> dict:
    """Run the notebook of `spec` (see `runner.Job.spec`); the record that also stands in job.json."""
    folder = Path(spec["folder"])
    record = {k: spec[k] for k in ("name", "notebook", "parameters", "fingerprint", "code")} | {"status": "running", "started": time.time()}
    write_text(folder / "job.json", json.dumps(record, indent=1) + "\n")
    # A kernel sometimes does not start, when two choose the same port at once: that is worth one more try.
    for attempt in (1, 2):
        status, error = _attempt(spec, folder)
        if status != "kernel":
            break
        if attempt == 2:
            status = "failed"
    record |= {"status": status, "error": error, "seconds": round(time.time() - record["started"], 1)}
    write_text(folder / "job.json", json.dumps(record, indent=1) + "\n")
    return record


def _attempt(spec: dict, folder: Path) -> tuple[str, str]:
    """`ok`, `failed` or `kernel` (it did not start), and the error in words."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(
            spec["notebook"],
            str(folder / "notebook.ipynb"),
            spec["parameters"],
            kernel_name="python3",
            language="python",
            cwd=spec["cwd"],
            progress_bar=False,
            log_output=True,
            start_timeout=START_TIMEOUT,
            execution_timeout=spec["timeout"],
            autosave_cell_every=60,
            extra_arguments=["--log-level=40"],
        )
    except PapermillExecutionError as e:
        return "failed", f"cell {e.exec_count or '?'}: {e.ename}: {e.evalue}"
    except DeadKernelError:
        return "failed" if executed(folder / "notebook.ipynb") else "kernel", "the kernel died, perhaps for want of memory; see log.txt"
    except Exception as e:
        traceback.print_exc()
        started = executed(folder / "notebook.ipynb")
        words = f"a cell took longer than {spec['timeout']} s" if "Timeout" in type(e).__name__ else f"{type(e).__name__}: {e}"
        return "failed" if started or not _is_start(e) else "kernel", words
    return "ok", ""


def _is_start(e: Exception) -> bool:
    """Whether the kernel never answered: jupyter raises a plain RuntimeError then."""
    return isinstance(e, RuntimeError | OSError) and "ernel" in str(e) or "Address already in use" in str(e)


def executed(notebook: Path) -> int:
    """Cells of a saved copy that papermill has finished; 0 for one that cannot be read just now."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return 0
    return sum(c["metadata"].get("papermill", {}).get("status") in ("completed", "failed") for c in cells)


def _end_with_parent() -> None:
    """A killed batch must not leave notebooks running that a new batch would start again."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)  # papermill shuts the kernel down
        time.sleep(15)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    import logging

    _end_with_parent()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    done = execute(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    sys.exit(0 if done["status"] == "ok" else 1)
