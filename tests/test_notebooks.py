"""Every exported notebook and tour runs from top to bottom."""

import os
from pathlib import Path

import pytest
from nbdev.config import get_config
from nbdev.test import test_nb as run_notebook

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(
    p for p in (ROOT / "nbs").rglob("*.ipynb")
    # papermill runs the reproduction notebooks: tests/test_reproduction_notebooks.py
    if not {"_drafts", ".ipynb_checkpoints", "reproduction"} & set(p.parts)
)  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT / "nbs")))
def test_notebook(path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    config = get_config(path=ROOT)
    skip = [f for f in config.tst_flags if f not in os.environ.get("NB_FLAGS", "").split()]
    passed, _ = run_notebook(path, skip_flags=skip, basepath=ROOT)
    assert passed, f"{path.relative_to(ROOT)} failed: the traceback is above"
