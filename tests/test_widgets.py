"""Lessons: they run without their solutions, and their sliders work in a real browser."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nbdev.test import test_nb as run_notebook

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted(p for p in (ROOT / "nbs" / "course").glob("*.ipynb"))
PANEL = ROOT / "nbs" / "course" / "01_metrics_panel.ipynb"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_every_exercise_has_a_solution_and_a_check(path):
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    for k, cell in enumerate(cells):
        if "exercise" in tags(cell):
            assert "solution" in tags(cells[k + 1]) and cells[k + 2]["cell_type"] == "code", f"cell {cell['id']}"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_the_student_copy_runs(path, tmp_path, monkeypatch):
    """What a student gets, with no solution in it, runs to the end: every check takes the stub too."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["cells"] = [c for c in notebook["cells"] if "solution" not in tags(c)]
    copy = tmp_path / "student.ipynb"
    copy.write_text(json.dumps(notebook), encoding="utf-8")
    passed, _ = run_notebook(copy, basepath=tmp_path)
    assert passed, f"{path.name} without its solutions failed: the traceback is above"


@pytest.fixture
def chromium():
    """A headless page-maker, or a skip: neither playwright nor a browser is a requirement of the project."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright for the browser test")
    if not (browser_path := next(filter(None, map(shutil.which, BROWSERS)), None)):
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def lab(chromium, tmp_path):
    """JupyterLab on a copy of the panel up to the panel itself; gives the address of the open notebook."""
    notebook = json.loads(PANEL.read_text(encoding="utf-8"))
    last = next(k for k, c in enumerate(notebook["cells"]) if "".join(c["source"]).strip().endswith("panel.view"))
    notebook["cells"] = notebook["cells"][: last + 1]
    (tmp_path / "panel.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port, token = free.getsockname()[1], secrets.token_hex(8)
    # A private home, so that neither the user's settings nor an old workspace decide what opens.
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR",
             "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")  # fmt: skip
    env = os.environ | {home: str(tmp_path / home.lower()) for home in homes} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--port-retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={tmp_path}"]  # fmt: skip
    log = tmp_path / "lab.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/lab/tree/panel.ipynb?reset&token={token}"
    finally:
        server.terminate()  # the server ends its kernels before it goes
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def test_a_real_slider_changes_the_picture_and_the_table(lab, chromium, tmp_path):
    """A key on the slider's handle goes to the kernel; a new picture and new numbers come back."""
    page = chromium.new_page(viewport={"width": 1500, "height": 1000})
    page.set_default_timeout(120_000)
    page.goto(lab)
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.get_by_text("| Idle").wait_for()  # what is run before the kernel is ready is lost
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    image, table = page.locator("img.widget-image").first, page.locator(".widget-html table")
    image.wait_for()
    before = image.get_attribute("src"), table.inner_text()
    handle = page.locator(".widget-slider .noUi-handle").first
    handle.focus()
    for _ in range(6):
        handle.press("ArrowRight")
    page.wait_for_function("old => document.querySelector('img.widget-image').src !== old", arg=before[0])
    page.wait_for_function("old => document.querySelector('.widget-html table').innerText !== old", arg=before[1])
    assert page.locator(".widget-readout").first.inner_text() == "0.80"
    assert not page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count()
    page.screenshot(path=tmp_path / "panel.png")  # kept by pytest for the last three runs: for whoever wants to look
