"""Local storage: all or nothing under a key, no way out of the folder, locks that die with their process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robench.errors import DataError, LockedError
from robench.storage import LocalStorage, Storage, check_key


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "root")


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*"))


def test_is_a_storage(storage: LocalStorage) -> None:
    assert isinstance(storage, Storage)


def test_put_read_list_delete(storage: LocalStorage) -> None:
    storage.put("a/b/one.bin", b"1")
    storage.put("a/b/one.bin", memoryview(b"22"))
    storage.put("a/two.bin", b"")
    assert storage.read("a/b/one.bin") == b"22"
    assert storage.at("a").at("b").read("one.bin") == b"22"
    assert storage.list() == ("a/",)
    assert storage.list("a") == ("b/", "two.bin")
    assert storage.list("nothing/here") == storage.list("a/two.bin") == ()
    storage.delete("a/two.bin")
    storage.delete("a/two.bin")
    assert not storage.exists("a/two.bin")
    assert storage.exists("a/b")
    with storage.open("a/b/one.bin") as file:
        assert file.read(1) == b"2"


@given(data=st.binary(max_size=2000))
def test_bytes_come_back(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    storage = LocalStorage(tmp_path_factory.mktemp("storage"))
    storage.put("key", data)
    assert storage.read("key") == data


def test_short_writes_are_continued(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, view: write(descriptor, view[:3]))
    storage.put("key", b"0123456789")
    assert storage.read("key") == b"0123456789"


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", ".hidden", "a/.lock", "a\\b", "C:x", "a\0b", "a\nb",
     "\ud800", "x" * 201, "ä" * 101],
)  # fmt: skip
def test_keys_that_lead_elsewhere_are_refused(storage: LocalStorage, key: str) -> None:
    with pytest.raises(DataError, match="not a relative path of plain names") as caught:
        check_key(key)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError):
        LocalStorage.put(storage, key or "/", b"")
    assert not storage.root.exists()


@given(st.text(max_size=30))
def test_accepted_keys_stay_inside(key: str) -> None:
    try:
        check_key(key)
    except DataError:
        return
    root = Path("/results/root")
    inside = os.path.normpath(root / key)
    assert inside == str(root / key)
    assert inside.startswith("/results/root/")


def test_links_that_lead_out_are_refused(storage: LocalStorage, tmp_path: Path) -> None:
    storage.put("inside/file", b"mine")
    (tmp_path / "secret").write_bytes(b"theirs")
    (storage.root / "file").symlink_to(tmp_path / "secret")
    (storage.root / "folder").symlink_to(tmp_path)
    (storage.root / "circle").symlink_to("circle")
    (storage.root / "fine").symlink_to("inside/file")
    for action in (storage.read, storage.exists, storage.list, storage.at, storage.delete, storage.sweep):
        with pytest.raises(DataError, match="leads out"):
            action("folder/secret")
    with pytest.raises(DataError, match="leads out"):
        storage.put("folder/new", b"")
    for key in ("file", "circle"):
        with pytest.raises(DataError, match="leads out"):
            storage.read(key)
    assert storage.read("fine") == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "secret"]


def test_a_root_that_is_a_link_is_fine(storage: LocalStorage, tmp_path: Path) -> None:
    storage.put("key", b"x")
    (tmp_path / "link").symlink_to(storage.root)
    assert LocalStorage(tmp_path / "link").read("key") == b"x"


def test_missing_and_irregular_files(storage: LocalStorage) -> None:
    storage.put("folder/file", b"12345")
    os.mkfifo(storage.root / "pipe")  # opened plainly, it would wait for a writer for ever
    for key, why in [("none", "no such file"), ("folder", "not a regular"), ("pipe", "not a regular"),
                     ("folder/file/below", "no such file")]:  # fmt: skip
        with pytest.raises(DataError, match=why):
            storage.read(key)
    with pytest.raises(DataError, match="5 bytes, more than"):
        storage.read("folder/file", limit=4)
    assert storage.read("folder/file", limit=5) == b"12345"


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_full_disk_leaves_what_was_there(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, call: str, before: bytes | None
) -> None:
    storage.put("folder/other", b"x")
    if before is not None:
        storage.put("folder/key", before)
    calls = []
    write = os.write

    def full(descriptor: int, view: bytes = b"") -> int:
        calls.append(descriptor)
        if call == "write" and len(calls) == 1:
            return write(descriptor, view[:4])  # some of it fits
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left") as caught:
        storage.put("folder/key", b"new bytes")
    monkeypatch.undo()
    assert calls
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(storage.root / "folder/key")
    assert storage.list("folder") == (("key", "other") if before else ("other",))
    assert before is None or storage.read("folder/key") == before
    assert hidden(storage.root) == []


def test_an_interrupt_leaves_no_temporary(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    storage.root.mkdir()
    with pytest.raises(KeyboardInterrupt):
        storage.put("key", b"x")
    assert hidden(storage.root) == []


def test_put_is_durable_before_it_returns(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced before its rename, the folder after it, and every new folder in the one above."""
    order: list[str] = []
    sync, move = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        order.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name[:2]}")
        sync(descriptor)

    def replace(path: Path, target: Path) -> Path:
        order.append("rename")
        return move(path, target)

    storage.root.mkdir()
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    storage.put("aa/bb/kk", b"x")
    assert order == ["sync ro", "sync aa", "sync .k", "rename", "sync bb"]


def test_sweep_removes_temporaries_only(storage: LocalStorage) -> None:
    storage.put("folder/key", b"x")
    (storage.root / "folder/.key.0123456789ab.tmp").write_bytes(b"half")
    (storage.root / "folder/.other.tmp").write_bytes(b"not ours")
    assert storage.list("folder") == ("key",)
    storage.sweep("folder")
    storage.sweep("missing")
    assert hidden(storage.root) == [".other.tmp"]


def test_unstorable_names_are_not_listed(storage: LocalStorage) -> None:
    storage.put("key", b"x")
    for name in (b"new\nline", b"not utf-8 \xff", b"co:lon"):
        Path(os.fsdecode(os.path.join(os.fsencode(storage.root), name))).write_bytes(b"")  # noqa: PTH118
    assert storage.list() == ("key",)


def test_lock_excludes_and_leaves_nothing(storage: LocalStorage) -> None:
    with storage.lock("run"):
        with pytest.raises(LockedError, match="another process is writing") as caught, storage.lock("run"):
            pass
        assert "\n" not in str(caught.value)
        with storage.lock("other"):
            pass
    with storage.lock("run"):
        pass
    assert hidden(storage.root) == []


HOLD = """
import os, sys, time
from robench.storage import LocalStorage
with LocalStorage(sys.argv[1]).lock("run"):
    if sys.argv[2] == "fork" and os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(60)
        os._exit(0)
    if sys.argv[2] == "alone":
        os.write(1, b"0\\n")
    time.sleep(60)
"""


@pytest.mark.parametrize("way", ["alone", "fork"])
def test_lock_of_a_killed_process_is_free(storage: LocalStorage, way: str) -> None:
    """Also when a forked child, a data loader's worker, say, lives on."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(storage.root), way], stdout=subprocess.PIPE,
                              env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert holder.stdout is not None
    with holder.stdout as lines:
        child = int(lines.readline())
    try:
        with pytest.raises(LockedError), storage.lock("run"):
            pass
        holder.kill()
        holder.wait()
        with storage.lock("run"):
            pass
    finally:
        holder.kill()
        holder.wait()
        if child:
            os.kill(child, signal.SIGKILL)
    assert hidden(storage.root) == []


def test_a_lock_removed_in_between_is_taken_anew(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder unlinks the file after we opened it and before we locked it: our lock would exclude nobody."""
    import fcntl

    flock = fcntl.flock
    seen: list[int] = []

    def late(descriptor: int, operation: int) -> None:
        if not seen:
            (storage.root / ".run.lock").unlink()
        seen.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with storage.lock("run"):
        assert len(seen) == 2
        with pytest.raises(LockedError), storage.lock("run"):
            pass
    assert hidden(storage.root) == []


def test_file_systems_without_locks_are_named(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(DataError, match="has no locks"), storage.lock("run"):
        pass
