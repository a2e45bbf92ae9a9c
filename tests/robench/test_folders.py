"""Folders of ours are claimed once, foreign ones are left alone, and a kill never leaves half a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robench import folders
from robench.errors import InputError
from robench.folders import MARKER, check, claim, is_ours, marker, recover, replace_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_new_or_empty_folder_becomes_ours(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "a" / "b", tmp_path / "empty"):
        check(folder, "results")
        assert not is_ours(folder, "results")
        assert claim(folder, "results").root == folder
        assert is_ours(folder, "results")
        assert not is_ours(folder, "site")
        (folder / "more").write_text("x")
        claim(folder, "results")
        with pytest.raises(InputError, match="not a robench site folder"):
            claim(folder, "site")


def test_an_unfinished_claim_of_another_process_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".{MARKER}.0123456789ab.tmp").write_bytes(b"{")
    claim(tmp_path, "results")
    assert is_ours(tmp_path, "results")


@pytest.mark.parametrize("found", [None, b"", b"{}", b'{"robench": "site"}', b"[" * 4000, b'["robench"]', b"x" * 9999])
def test_foreign_folders_are_refused(tmp_path: Path, found: bytes | None) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if found is not None:
        (tmp_path / MARKER).write_bytes(found)
    before = names(tmp_path)
    for refuse in (check, claim):
        with pytest.raises(InputError, match="not empty and not a robench results folder: choose another") as caught:
            refuse(tmp_path, "results")
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        claim(tmp_path / "file", "results")


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With and without a system call that lets two folders change places."""
    if not request.param:
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    return bool(request.param)


def test_a_folder_is_replaced_whole(tmp_path: Path, exchange: bool) -> None:
    folder = tmp_path / "deep" / "site"
    replace_folder(folder, {"a": b"1", "b": b"2"})
    assert content(folder) == {"a": "1", "b": "2"}
    replace_folder(folder, {"b": b"3", MARKER: marker("site")})
    assert content(folder) == {"b": "3", MARKER: marker("site").decode()}
    assert is_ours(folder, "site")
    assert names(tmp_path / "deep") == ["site"]


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path, exchange: bool) -> None:
    replace_folder(tmp_path / "real", {"a": b"old"})
    (tmp_path / "link").symlink_to("real")
    replace_folder(tmp_path / "link", {"a": b"new"})
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "real") == {"a": "new"}
    assert names(tmp_path) == ["link", "real"]


def test_what_cannot_be_written_leaves_the_old_folder(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_folder(tmp_path / "net", {"a": b"old"})
    real, calls = Path.rename, iter(range(100))

    def rename(self: Path, target: Path) -> Path:
        if next(calls) == int(not exchange):
            raise OSError(28, "No space left on device", str(self))
        return real(self, target)

    if exchange:
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="No space left") as caught:
        replace_folder(tmp_path / "net", {"a": b"new"})
    assert caught.value.filename == str(tmp_path / "net")
    assert content(tmp_path / "net") == {"a": "old"}
    assert names(tmp_path) == ["net"]


KILLED = """
import json, os, signal, sys
from pathlib import Path
from robench import folders

place, exchange = Path(sys.argv[1]), sys.argv[2] == "True"
if not exchange:
    folders._exchange = lambda one, other: False
NEW = {"a": b"new" * 100, "c": b"new"}

def replace(folder, step):
    calls = 0
    def counted(function):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return call
    for name in ("write", "fsync", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    for name in ("rename", "replace", "mkdir"):
        setattr(Path, name, counted(getattr(Path, name)))
    folders._exchange = counted(folders._exchange)
    folders.replace_folder(folder, NEW)

for step in range(1, 200):
    folder = place / str(step) / "net"
    folders.replace_folder(folder, {"a": b"old", "b": b"old"})
    child = os.fork()
    if child == 0:
        replace(folder, step)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(step)
"""


@pytest.mark.parametrize("exchange", [True, False])
def test_killed_at_any_instant_one_of_the_two_folders_is_there(tmp_path: Path, exchange: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(exchange)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)
    steps = int(done.stdout)
    assert steps > 10  # every call that changes the disk, and once without a kill
    old, new = {"a": "old", "b": "old"}, {"a": "new" * 100, "c": "new"}
    seen, missing = [], 0
    for step in range(1, steps + 1):
        folder = tmp_path / str(step) / "net"
        missing += not folder.exists()
        recover(folder)
        seen.append(content(folder))
        assert seen[-1] in (old, new), step
        replace_folder(folder, {"a": b"again"})
        assert content(folder) == {"a": "again"}
    assert missing == (0 if exchange else 1)  # between the two renames
    assert seen[0] == old
    assert seen[-1] == new
    assert seen == sorted(seen, key=lambda one: one == new)
    assert names(tmp_path / str(steps)) == ["net"]


def test_the_marker_is_json_of_one_line() -> None:
    assert json.loads(marker("site")) == {"robench": "site", "schema": 1}
    assert marker("site").count(b"\n") == 1
