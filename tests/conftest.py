"""Shared by all tests: a private place for runs and downloads, and the optional real data."""

import os
from pathlib import Path

import matplotlib
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _private_folders(tmp_path, monkeypatch):
    """No test touches the user's runs, models or downloads."""
    monkeypatch.setenv("FUSIONREPRO_RUNS_PATH", str(tmp_path / "runs"))
    monkeypatch.setenv("FUSIONREPRO_CACHE_PATH", str(tmp_path / "cache"))


@pytest.fixture
def data_root() -> Path:
    """The real pack, or a skip."""
    if not (given := os.environ.get("FUSIONREPRO_DATA")) or not Path(given).is_dir():
        pytest.skip("FUSIONREPRO_DATA names no data root")
    return Path(given)


@pytest.fixture
def oracles() -> Path:
    """Published weights, images and values of other authors, or a skip."""
    if not (given := os.environ.get("FUSIONREPRO_ORACLES")) or not Path(given).is_dir():
        pytest.skip("FUSIONREPRO_ORACLES names no folder")
    return Path(given)
