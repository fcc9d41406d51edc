"""Downloads against a local server that can be made to misbehave; archives that try to escape."""

import contextlib
import errno
import hashlib
import io
import multiprocessing
import os
import re
import socket
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml

from fusionrepro import settings
from fusionrepro.data import download
from fusionrepro.data.build_manifests import COLUMNS
from fusionrepro.data.download import fetch_file, get, terms, unpack, verify
from fusionrepro.data.hashes import pixels_sha256
from fusionrepro.data.manifests import datasets, load_dataset, load_manifest
from fusionrepro.errors import DataError, DownloadError, InputError
from fusionrepro.imaging.io import write_image


class Server:
    """Files by path, the requests that came, and how to misbehave."""

    def __init__(self):
        self.files, self.requests = {}, []
        self.break_after = {}  # path: [bytes to send before the connection is cut, one entry a request]
        self.status = {}  # path: [status codes, one entry a request]
        self.ranges, self.delay = True, 0
        self.length = None  # what to say as Content-Length; None: what is right, empty: nothing
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.answer(self)

            def log_message(self, *a):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler):
        path, wanted = handler.path, handler.headers.get("Range", "")
        self.requests.append((path, wanted))
        code = self.status[path].pop(0) if self.status.get(path) else 200 if path in self.files else 404
        body = self.files.get(path, b"") if code == 200 else b""
        start, total = 0, len(body)
        if code == 200 and wanted and self.ranges:
            start = int(re.match(r"bytes=(\d+)-", wanted)[1])
            code = 206 if start < total else 416
            body = body[start:]
        handler.send_response(code)
        if code == 206:
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if self.length != "":
            handler.send_header("Content-Length", str(len(body)) if self.length is None else self.length)
        handler.close_connection = self.length is not None
        handler.end_headers()
        time.sleep(self.delay)
        if self.break_after.get(path):
            body = body[: self.break_after[path].pop(0)]
            handler.wfile.write(body)
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
        else:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                handler.wfile.write(body)


@pytest.fixture
def server():
    s = Server()
    yield s
    s.http.shutdown()
    s.http.server_close()


BYTES = np.random.default_rng(0).bytes(300_000)
HASH = hashlib.sha256(BYTES).hexdigest()


def left(folder) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


# ---- one file ----------------------------------------------------------------------------------------------------------


def test_file_is_fetched_and_named_when_it_is_right(server, tmp_path):
    server.files["/a.bin"] = BYTES
    counted = []
    path = fetch_file(f"{server.url}/a.bin", tmp_path / "deep/a.bin", HASH, count=counted.append)
    assert path.read_bytes() == BYTES and left(tmp_path) == ["a.bin"] and sum(counted) == len(BYTES)
    assert path.stat().st_mode & 0o044, "readable like any other file"


def test_cut_connection_is_resumed(server, tmp_path):
    server.files["/a.bin"], server.break_after["/a.bin"] = BYTES, [100_000, 50_000]
    path = fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH, wait=0)
    assert path.read_bytes() == BYTES
    starts = [int(r[6:-1]) if r else 0 for _, r in server.requests]
    assert len(starts) == 3 and starts[0] == 0 < starts[1] < starts[2], "each attempt goes on where the last one ended"


def test_next_run_goes_on_where_the_killed_one_ended(server, tmp_path):
    server.files["/a.bin"] = BYTES
    (tmp_path / ".a.bin.part").write_bytes(BYTES[:200_000])
    fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH)
    assert server.requests == [("/a.bin", "bytes=200000-")] and left(tmp_path) == ["a.bin"]


def test_server_without_ranges_starts_over(server, tmp_path):
    server.files["/a.bin"], server.ranges = BYTES, False
    (tmp_path / ".a.bin.part").write_bytes(BYTES[:200_000])
    assert fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH).read_bytes() == BYTES


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * len(BYTES), b"x" * (len(BYTES) + 5)])
def test_stale_part_is_thrown_away(server, tmp_path, stale):
    server.files["/a.bin"] = BYTES
    (tmp_path / ".a.bin.part").write_bytes(stale)
    assert fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH).read_bytes() == BYTES


def test_complete_part_needs_no_byte(server, tmp_path):
    server.files["/a.bin"] = BYTES
    (tmp_path / ".a.bin.part").write_bytes(BYTES)
    assert fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH).read_bytes() == BYTES


def test_wrong_bytes_are_never_kept(server, tmp_path):
    server.files["/a.bin"] = b"something else"
    with pytest.raises(DownloadError, match="14 bytes whose checksum is wrong"):
        fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH)
    assert left(tmp_path) == []


def test_gone_file_is_not_tried_again(server, tmp_path):
    with pytest.raises(DownloadError, match="status 404"):
        fetch_file(f"{server.url}/gone.bin", tmp_path / "gone.bin", HASH, wait=0)
    assert len(server.requests) == 1 and left(tmp_path) == []


def test_overloaded_server_is_tried_again(server, tmp_path):
    server.files["/a.bin"], server.status["/a.bin"] = BYTES, [503, 429]
    assert fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH, wait=0).read_bytes() == BYTES
    assert len(server.requests) == 3


def test_connection_that_always_breaks_keeps_its_part(server, tmp_path):
    server.files["/a.bin"], server.break_after["/a.bin"] = BYTES, [30_000] * 10
    with pytest.raises(DownloadError, match=f"after {download.ATTEMPTS} attempts"):
        fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH, wait=0)
    assert left(tmp_path) == [".a.bin.part"] and 0 < (tmp_path / ".a.bin.part").stat().st_size < len(BYTES)


def test_refused_connection(tmp_path):
    with socket.socket() as s:  # a port on which nobody listens
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(DownloadError, match="connection refused.*run again"):
        fetch_file(f"http://127.0.0.1:{port}/a", tmp_path / "a", HASH, wait=0)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_full_disk(server, tmp_path, monkeypatch):
    server.files["/a.bin"] = BYTES
    monkeypatch.setattr(download, "open", lambda path, mode: open("/dev/full", "wb"), raising=False)
    with pytest.raises(DownloadError, match="disk is full"):
        fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH, wait=0)
    assert not (tmp_path / "a.bin").exists()


def test_unwritable_target(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="cannot write"):
        fetch_file(f"{server.url}/a.bin", tmp_path / "file/a.bin", HASH)


FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
forks = pytest.mark.skipif(FORK is None, reason="needs fork")


@forks
def test_two_processes_fetch_one_file_once(server, tmp_path):
    """The part files of both would be one: the second waits, and finds the work done."""
    server.files["/a.bin"], server.delay = BYTES, 0.5
    both = [FORK.Process(target=fetch_file, args=(f"{server.url}/a.bin", tmp_path / "a.bin", HASH)) for _ in range(2)]
    for p in both: p.start()
    for p in both: p.join(60)
    assert [p.exitcode for p in both] == [0, 0]
    assert (tmp_path / "a.bin").read_bytes() == BYTES and len(server.requests) == 1 and left(tmp_path) == ["a.bin"]


def test_the_users_file_stays_until_its_successor_is_right(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    for body in (None, b"something else", BYTES + b"more"):
        server.files = {} if body is None else {"/a.bin": body}
        with pytest.raises(DownloadError):
            fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH, wait=0.0, limit=len(BYTES))
        assert (tmp_path / "a.bin").read_bytes() == b"mine" and left(tmp_path) == ["a.bin"]
    server.files["/a.bin"] = BYTES
    assert fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH).read_bytes() == BYTES


@pytest.mark.parametrize("told", [True, False])
def test_no_more_bytes_than_the_file_has(server, tmp_path, told):
    server.files["/a.bin"], server.length = BYTES * 20, None if told else ""
    counted = []
    with pytest.raises(DownloadError, match="larger than the 300000 bytes"):
        fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH, count=counted.append, limit=len(BYTES))
    assert sum(counted) <= (0 if told else len(BYTES) + (1 << 13)) and left(tmp_path) == [] and len(server.requests) == 1


@pytest.mark.parametrize("nonsense", ["zzz", "-5", "1e3", ""])
def test_nonsense_as_content_length(server, tmp_path, nonsense):
    server.files["/a.bin"], server.length = BYTES, nonsense
    assert fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH, wait=0.0).read_bytes() == BYTES


def test_a_part_that_is_a_link_is_not_followed(server, tmp_path):
    server.files["/a.bin"] = BYTES
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / ".a.bin.part").symlink_to(tmp_path / "precious")
    assert fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin", HASH).read_bytes() == BYTES
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_without_a_hash_nothing_is_continued(server, tmp_path):
    server.files["/a.bin"] = BYTES
    (tmp_path / ".a.bin.part").write_bytes(b"of another file")
    assert fetch_file(f"{server.url}/a.bin", tmp_path / "a.bin").read_bytes() == BYTES


# ---- a data set --------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(server, tmp_path, monkeypatch):
    """A data set of five pairs, listed as PNG, that the mirror serves as BMP; the paths served."""
    from PIL import Image

    folder, rng, rows, paths = tmp_path / "manifests", np.random.default_rng(3), [], []
    folder.mkdir()
    for i in range(5):
        for side in ("ir", "vi"):
            png = write_image(tmp_path / "made" / side / f"{i}.png", rng.random((12, 14)))
            bmp = io.BytesIO()
            Image.open(png).save(bmp, "bmp")
            paths.append(f"/o/r/c0/a%20b/{side}/{i}.bmp")
            server.files[paths[-1]] = bmp.getvalue()
            rows.append({"id": str(i), "split": "test", "role": side, "path": f"{side}/{i}.png", "source": f"s:a b/{side}/{i}.bmp",
                         "bytes": 200, "sha256": "0" * 64, "pixels": pixels_sha256(png), "note": ""})  # fmt: skip
    rows.append({"id": "0", "split": "test", "role": "boxes", "path": "boxes/0.txt", "source": "", "bytes": 1, "sha256": "1" * 64, "pixels": "", "note": ""})
    manifest = {"title": "Mine", "what": "w", "licence": "for nobody", "citation": "A. Author", "homepage": "https://example.org", "folder": "my/set",
                "splits": {"test": "t"}, "sources": {"s": {"repo": "o/r", "commit": "c0", "licence": "MIT"}}}  # fmt: skip
    (folder / "mine.yaml").write_text(yaml.safe_dump(manifest))
    lines = [",".join(COLUMNS), *(",".join(str(r[c]) for c in COLUMNS) for r in rows)]
    (folder / "mine.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("FUSIONREPRO_MANIFESTS_PATH", str(folder))
    monkeypatch.setenv("FUSIONREPRO_MIRROR", server.url + "/")
    monkeypatch.delenv("FUSIONREPRO_DATA", raising=False)
    load_manifest.cache_clear(), datasets.cache_clear()
    yield paths
    load_manifest.cache_clear(), datasets.cache_clear()


def test_data_set_from_nothing_to_pairs(server, mirror, capsys):
    got = get("mine")
    assert len(got.new) == 10 and got.kept == 0 and got.unaddressed == ("boxes/0.txt",)
    assert got.folder == settings.cache_dir() / "data/my/set" and (got.folder / "ir/0.bmp").is_file()
    shown = capsys.readouterr().err
    assert "for nobody" in shown and "A. Author" in shown and "o/r (MIT)" in shown, "the terms come before the bytes"
    data = load_dataset("mine")
    assert len(data) == 5 and data[0].ir.shape == (1, 12, 14) and verify("mine", progress=False).ok


def test_second_call_fetches_nothing(server, mirror, capsys):
    get("mine", progress=False)
    server.requests.clear()
    again = get("mine", progress=False)
    assert again.new == () and again.kept == 10 and not server.requests and not capsys.readouterr().err


def test_only_what_is_wrong_is_fetched(server, mirror):
    folder = get("mine", progress=False).folder
    (folder / "vi/2.bmp").unlink()
    (folder / "ir/3.bmp").write_bytes(b"damaged")
    server.requests.clear()
    got = get("mine", progress=False)
    assert sorted(got.new) == ["ir/3.bmp", "vi/2.bmp"] and got.kept == 8 and len(server.requests) == 2


def test_some_files_only(server, mirror):
    assert sorted(get("mine", files=["3"], progress=False).new) == ["ir/3.bmp", "vi/3.bmp"]
    assert get("mine", files="vi/1.png", progress=False).new == ("vi/1.bmp",)
    with pytest.raises(InputError, match="no file or pair 'vi/9.png'"):
        get("mine", files="vi/9.png", progress=False)


def test_one_lost_file_does_not_keep_the_others(server, mirror):
    del server.files[mirror[4]], server.files[mirror[5]]
    with pytest.raises(DownloadError, match="status 404.*1 more files failed"):
        get("mine", progress=False)
    folder = settings.cache_dir() / "data/my/set"
    assert len(left(folder)) == 8
    with pytest.raises(DataError, match="lacks ir/2.png, vi/2.png"):
        load_dataset("mine")
    found = verify("mine", progress=False)
    assert set(found.missing) == {"ir/2.png", "vi/2.png"} and found.pairs == 4 and not found.ok


def test_an_overloaded_file_does_not_keep_the_others(server, mirror):
    server.status[mirror[2]] = [503] * 99
    with pytest.raises(DownloadError, match="status 503"):
        get("mine", progress=False, wait=0.0)
    assert len(left(settings.cache_dir() / "data/my/set")) == 9


def test_a_users_own_copy_is_not_lost_to_a_failed_download(server, mirror, tmp_path):
    mine = write_image(tmp_path / "own/ir/0.png", np.zeros((4, 4)))
    content = mine.read_bytes()
    good, server.files = server.files, {}
    with pytest.raises(DownloadError):
        get("mine", folder=tmp_path / "own", progress=False)
    assert mine.read_bytes() == content
    server.files = good
    get("mine", folder=tmp_path / "own", progress=False)
    assert left(tmp_path / "own/ir") == [f"{i}.bmp" for i in range(5)], "the verified successor stands in for it"


def test_wrong_picture_is_refused(server, mirror):
    server.files[mirror[0]] = server.files[mirror[1]]
    with pytest.raises(DownloadError, match="checksum is wrong"):
        get("mine", progress=False)
    assert not (settings.cache_dir() / "data/my/set/ir/0.bmp").exists()


def test_failed_download_can_be_tried_again(server, mirror):
    """Whatever bare folders the first attempt left."""
    good = dict(server.files)
    server.files.clear()
    for _ in range(2):
        with pytest.raises(DownloadError, match="was refused"):
            get("mine", progress=False)
        with pytest.raises(DataError, match="fusionrepro data get mine"):
            load_dataset("mine")
    server.files.update(good)
    assert len(get("mine", progress=False).new) == 10 and len(load_dataset("mine"))


def test_dead_mirror_stops_at_once(server, mirror, monkeypatch):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        monkeypatch.setenv("FUSIONREPRO_MIRROR", f"http://127.0.0.1:{s.getsockname()[1]}")
    with pytest.raises(DownloadError, match="connection refused") as e:
        get("mine", progress=False, wait=0)
    failed = re.search(r"\((\d+) more", str(e.value))
    assert failed is None or int(failed[1]) < download.THREADS, "files not yet begun are left alone"


def test_mirror_must_be_an_address(mirror, monkeypatch):
    monkeypatch.setenv("FUSIONREPRO_MIRROR", "/some/folder")
    with pytest.raises(InputError, match="FUSIONREPRO_MIRROR"):
        get("mine", progress=False)


def test_too_little_space_is_told_before_the_first_byte(server, mirror, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda p: type("Usage", (), {"free": 100})())
    with pytest.raises(DownloadError, match="only 0.0 MiB are free"):
        get("mine", progress=False)
    assert not server.requests


def test_complete_data_root_needs_no_download(server, mirror, tmp_path, monkeypatch):
    (tmp_path / "root/my").mkdir(parents=True)
    (tmp_path / "made").rename(tmp_path / "root/my/set")
    monkeypatch.setenv("FUSIONREPRO_DATA", str(tmp_path / "root"))
    got = get("mine", progress=False)
    assert got.new == () and got.kept == 10 and got.folder == (tmp_path / "root/my/set").resolve() and not server.requests


def test_by_hand_set_says_how(monkeypatch):
    got = get("kaist", progress=False)
    assert not got.new and "kaist/images" in got.by_hand
    assert "licence" in terms("kaist")


# ---- archives ----------------------------------------------------------------------------------------------------------


def a_zip(path, members, link=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in members.items():
            z.writestr(name, data)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0o120777 << 16
            z.writestr(info, "/etc/passwd")
    return path


def a_tar(path, members, link=None, kind=tarfile.SYMTYPE):
    with tarfile.open(path, "w:gz") as t:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = kind, "/etc/passwd"
            t.addfile(info)
    return path


@pytest.mark.parametrize("make, name", [(a_zip, "a.zip"), (a_tar, "a.tar.gz")])
def test_archive_unpacks_inside_its_folder(tmp_path, make, name):
    archive = make(tmp_path / name, {"ir/1.png": b"one", "vi/1.png": b"two"})
    written = unpack(archive, tmp_path / "out")
    assert [p.relative_to(tmp_path / "out").as_posix() for p in written] == ["ir/1.png", "vi/1.png"]
    assert (tmp_path / "out/vi/1.png").read_bytes() == b"two" and left(tmp_path / "out") == ["1.png", "1.png"]


@pytest.mark.parametrize("make, name", [(a_zip, "a.zip"), (a_tar, "a.tar.gz")])
@pytest.mark.parametrize("evil", ["../evil.txt", "ok/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:\\evil.txt", "C:/evil.txt"])
def test_archive_cannot_escape(tmp_path, make, name, evil):
    archive = make(tmp_path / name, {"fine.txt": b"fine", evil: b"evil"})
    before = left(tmp_path)
    with pytest.raises(DataError, match="outside its folder"):
        unpack(archive, tmp_path / "out")
    assert left(tmp_path) == before, "nothing was written, not even the harmless member"


@pytest.mark.parametrize("archive", [
    lambda p: a_zip(p / "a.zip", {"x": b"x"}, link="link"),
    lambda p: a_tar(p / "a.tgz", {"x": b"x"}, link="link"),
    lambda p: a_tar(p / "a.tgz", {"x": b"x"}, link="link", kind=tarfile.LNKTYPE),
    lambda p: a_tar(p / "a.tgz", {"x": b"x"}, link="link", kind=tarfile.FIFOTYPE),
])  # fmt: skip
def test_links_and_devices_are_refused(tmp_path, archive):
    with pytest.raises(DataError, match="link or device"):
        unpack(archive(tmp_path), tmp_path / "out")
    assert left(tmp_path / "out") == []


def test_broken_archives(tmp_path):
    (tmp_path / "text.zip").write_text("no archive")
    whole = a_zip(tmp_path / "a.zip", {"x": BYTES}).read_bytes()
    (tmp_path / "flipped.zip").write_bytes(whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:])
    cut = a_tar(tmp_path / "a.tgz", {"x": BYTES}).read_bytes()
    (tmp_path / "cut.tgz").write_bytes(cut[: len(cut) // 2])
    for name in ("text.zip", "flipped.zip", "cut.tgz"):
        with pytest.raises(DataError, match=f"{name} is damaged or no archive"):
            unpack(tmp_path / name, tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        unpack(tmp_path / "none.zip", tmp_path / "out")
    assert left(tmp_path / "out") == []


@pytest.mark.parametrize("head, words", [
    (b"Rar!\x1a\x07\x01\x00" + bytes(50), "is a RAR archive.*by hand into"),
    (b"7z\xbc\xaf\x27\x1c" + bytes(50), "is a 7z archive.*by hand into"),
    (b"\x28\xb5\x2f\xfd" + bytes(50), "Zstandard"),
    (b"\n<!DOCTYPE html><html>", "is a web page"),
    (b"PK\x07\x08" + bytes(50), "one part of a split archive"),
])  # fmt: skip
def test_whole_archives_of_other_kinds_are_not_called_damaged(mirror, tmp_path, head, words):
    (tmp_path / "a.zip").write_bytes(head)
    for call in (lambda: unpack(tmp_path / "a.zip", tmp_path / "out"), lambda: get("mine", archive=tmp_path / "a.zip", progress=False)):
        with pytest.raises(DataError, match=words):
            call()


def test_an_encrypted_archive_is_named(tmp_path):
    content = bytearray(a_zip(tmp_path / "a.zip", {"x": b"secret"}).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match="is encrypted.*by hand, with its password"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("make, name", [(a_zip, "a.zip"), (a_tar, "a.tar.gz")])
def test_a_bomb_does_not_unpack(tmp_path, monkeypatch, make, name):
    archive = make(tmp_path / name, {f"{i}.bin": bytes(1 << 20) for i in range(3)})
    monkeypatch.setattr(download, "_BOMB", (1 << 20, 100))
    with pytest.raises(DataError, match="more than 100 times its own size"):
        unpack(archive, tmp_path / "out")
    assert left(tmp_path / "out") == []


@pytest.mark.parametrize("damage", range(40))
def test_a_damaged_archive_is_one_sentence(tmp_path, damage):
    make, name = ((a_zip, "a.zip"), (a_tar, "a.tgz"))[damage % 2]
    content = bytearray(make(tmp_path / name, {"a/x": b"some bytes" * 9, "a/y": b"others"}).read_bytes())
    content[np.random.default_rng(damage).integers(len(content))] ^= 1 << damage % 8
    (tmp_path / name).write_bytes(content)
    with contextlib.suppress(DataError):
        unpack(tmp_path / name, tmp_path / "out")
    assert not [p for p in tmp_path.glob("out/.*")]


def test_the_folder_around_everything_is_left_away(tmp_path):
    made = {"MSRS-main/test/ir/1.png": b"one", "MSRS-main/README.md": b"read", "__MACOSX/MSRS-main/._README.md": b"litter"}
    assert len(unpack(a_zip(tmp_path / "a.zip", made), tmp_path / "out")) == 2
    assert (tmp_path / "out/test/ir/1.png").read_bytes() == b"one" and not (tmp_path / "out/__MACOSX").exists()
    unpack(a_zip(tmp_path / "b.zip", {"infrared/test/1.png": b"one", "visible/test/1.png": b"two"}), tmp_path / "two")
    assert (tmp_path / "two/infrared/test/1.png").is_file(), "two folders side by side are what is meant"


@forks
def test_what_a_killed_unpacking_left_is_cleaned(tmp_path, monkeypatch):
    archive = a_zip(tmp_path / "a.zip", {"x": b"x", "y": b"y"})
    with monkeypatch.context() as m:
        m.setattr(download, "_move_into", lambda *a: os._exit(9))
        (killed := FORK.Process(target=unpack, args=(archive, tmp_path / "out"))).start()
        killed.join(60)
    assert killed.exitcode == 9 and len(list((tmp_path / "out").iterdir())) == 1
    unpack(archive, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["x", "y"]


def test_full_disk_while_unpacking(tmp_path, monkeypatch):
    def full(*a):
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = a_zip(tmp_path / "a.zip", {"x": b"x"})
    monkeypatch.setattr(download.shutil, "copyfileobj", full)
    with pytest.raises(DataError, match="disk is full"):
        unpack(archive, tmp_path / "out")
    assert left(tmp_path / "out") == []


def test_archive_fetched_by_hand_becomes_the_data_set(mirror, tmp_path):
    made = {f"{p.parent.name}/{p.name}": p.read_bytes() for p in (tmp_path / "made").rglob("*.png")}
    got = get("mine", archive=a_zip(tmp_path / "mine.zip", made), progress=False)
    assert len(got.new) == 10 and verify("mine", progress=False).ok and got.found == "5 pairs of the split test can be read."


def test_archive_with_folders_around_the_set(mirror, tmp_path):
    made = {f"mine-main/data/{p.parent.name}/{p.name}": p.read_bytes() for p in (tmp_path / "made").rglob("*.png")}
    get("mine", archive=a_zip(tmp_path / "mine.zip", made), progress=False)
    assert len(load_dataset("mine")) == 5
    got = get("mine", archive=a_zip(tmp_path / "else.zip", {"a/x.txt": b"x"}), folder=tmp_path / "else", progress=False)
    assert "no pair" in got.found
