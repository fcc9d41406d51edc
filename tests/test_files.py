"""Files written whole, locks between processes, what a kill leaves, and settings from the environment."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from fusionrepro import files, settings
from fusionrepro.errors import FusionReproError, InputError, Notice, typed
from fusionrepro.files import atomic, locked, write_text

FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
forks = pytest.mark.skipif(FORK is None, reason="needs fork")


def run(function, *arguments) -> int:
    (process := FORK.Process(target=function, args=arguments)).start()
    process.join(60)
    return process.exitcode


def die_while_writing(path):
    with atomic(path) as temporary:
        temporary.write_text("half")
        os._exit(9)


@forks
def test_what_a_kill_left_is_cleaned_at_the_next_start(tmp_path, monkeypatch):
    write_text(tmp_path / "a.json", "old")
    assert run(die_while_writing, tmp_path / "a.json") == 9
    (tmp_path / ".mine-1234-5.json").write_text("the user's")
    assert (tmp_path / "a.json").read_text() == "old" and len(list(tmp_path.glob(".a-*"))) == 1
    monkeypatch.setattr(files, "_swept", set())  # a new process has swept nothing yet
    write_text(tmp_path / "b.json", "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mine-1234-5.json", "a.json", "b.json"]


def test_what_another_one_is_writing_is_left_alone(tmp_path, monkeypatch):
    with atomic(tmp_path / "a.txt") as temporary:
        monkeypatch.setattr(files, "_swept", set())
        write_text(tmp_path / "b.txt", "b")
        temporary.write_text("a")
    assert (tmp_path / "a.txt").read_text() == "a"


def add(path, times):
    for _ in range(times):
        with locked(path):
            value = int(path.read_text())
            time.sleep(0.001)
            path.write_text(str(value + 1))


@forks
def test_one_process_at_a_time(tmp_path):
    (path := tmp_path / "n").write_text("0")
    several = [FORK.Process(target=add, args=(path, 25)) for _ in range(4)]
    for p in several: p.start()
    for p in several: p.join(60)
    assert path.read_text() == "100" and [p.name for p in tmp_path.iterdir()] == ["n"], "and the lock lies elsewhere"


@forks
def test_a_lock_that_is_not_let_go_is_said(tmp_path):
    def other():
        with pytest.raises(FusionReproError, match="another process is writing .*n: wait for it"):
            with locked(tmp_path / "n", patience=0.1):
                pass

    with locked(tmp_path / "n"):
        assert run(other) == 0
    with locked(tmp_path / "x" / ".." / "n", patience=0):
        pass


@forks
def test_waiting_is_said(tmp_path, monkeypatch):
    def other():
        with pytest.warns(Notice, match="another process is writing .*n: waiting"), locked(tmp_path / "n"):
            pass

    monkeypatch.setattr(files, "_SILENT", 0.05)
    with locked(tmp_path / "n"):
        (process := FORK.Process(target=other)).start()
        time.sleep(0.5)
    process.join(30)
    assert process.exitcode == 0


def test_unknown_variables_are_named_with_the_nearest(monkeypatch):
    settings._say_unknown.cache_clear()
    monkeypatch.setenv("FUSIONREPRO_RUNS_PTH", "x")
    with pytest.warns(Notice, match="sets FUSIONREPRO_RUNS_PTH, which nothing reads.*did you mean 'FUSIONREPRO_RUNS_PATH'"):
        settings.get("runs_path")
    settings._say_unknown.cache_clear()


def test_relative_folders_count_from_where_the_user_stands(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSIONREPRO_DATA", "mine")
    monkeypatch.setenv("FUSIONREPRO_RUNS_PATH", "./my runs")
    monkeypatch.setenv("FUSIONREPRO_CACHE_PATH", "~/cache")
    assert settings.path("runs_path") == tmp_path / "my runs" and settings.data_root() == tmp_path / "mine"
    settings.settle_paths()
    monkeypatch.chdir("/")  # as a kernel that runs elsewhere
    assert settings.path("runs_path") == tmp_path / "my runs" and settings.data_root() == tmp_path / "mine"
    assert settings.cache_dir() == Path.home() / "cache"
    assert settings.path("nbs_path") == settings.root() / "nbs", "what settings.ini says counts from the project"


@typed
def example(a: int, b: float | None = None, z: Any = 0, *, c: str | Path = "x", d: list[int] | tuple[int, ...] = (), **rest: int) -> int:
    return a


@pytest.mark.parametrize("arguments, words", [
    ({"a": 1.0}, "a of example must be a whole number, not 1.0"), ({"a": True}, "a whole number, not True"), ({"a": 1, "b": "2"}, "b of example must be a number or None"),
    ({"a": 1, "c": None}, "c of example must be text or a path, not NoneType"), ({"a": 1, "d": {}}, "d of example must be list or tuple"), ({}, "missing a required argument: 'a'"),
])  # fmt: skip
def test_annotations_are_kept(arguments, words):
    with pytest.raises(InputError, match=words):
        example(**arguments)


def test_what_annotations_allow():
    import numpy as np

    assert example(np.int64(3), 2, object(), c=Path("y"), d=[1], e="anything") == 3 and example(1, np.float32(2)) == 1
    assert example.__name__ == "example" and example.__wrapped__
