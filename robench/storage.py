"""Named bytes on local disk (later also in object stores): atomic put, read, list, and a live lock.

A key is a relative POSIX path. What is under a key is there completely or not at all: a process killed
at any instant, or a full disk, leaves what was there before, and at most a temporary that `sweep` removes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Protocol, runtime_checkable

from robench.errors import DataError, LockedError

__all__ = ["LocalStorage", "Storage", "check_key", "is_temporary", "sync_folder"]

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
_LONGEST = 200  # bytes in one name: a temporary adds 18, and file systems stop at 255

# A forked child would keep the parent's locks alive after its death, so it closes its copies. Closing one
# of several copies of a descriptor does not release the lock.
_held: set[int] = set()


def _close_in_child() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


def check_key(key: str) -> str:
    """Return `key` if it is a relative POSIX path of plain names. Raises DataError otherwise."""
    if not all(map(_is_plain, key.split("/"))):
        raise DataError(f"{key[:80]!r} is not a relative path of plain names")
    return key


def _is_plain(name: str) -> bool:
    """Whether a name can be stored: visible, without separators of any system, short enough for a temporary."""
    return (
        name.isprintable()  # which lone surrogates are not, so that the name can be encoded
        and not name.startswith(".")
        and not any(character in name for character in "/\\:")
        and 0 < len(name.encode()) <= _LONGEST
    )


def is_temporary(name: str) -> bool:
    """Whether a file of this name is an unfinished `put`."""
    return _TEMPORARY.fullmatch(name) is not None


@runtime_checkable
class Storage(Protocol):
    """Where results live. Missing or irregular files raise DataError; the system's own errors pass through."""

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Store `data` under `key`, replacing what was there in one step, and make it durable."""

    def open(self, key: str) -> BufferedReader:
        """Open what is under `key` for reading."""

    def read(self, key: str, limit: int | None = None) -> bytes:
        """Return what is under `key`; more than `limit` bytes are refused unread."""

    def exists(self, key: str) -> bool:
        """Whether something is stored under `key`."""

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """Names directly beneath `prefix`, sorted; those of folders end with `/`. Temporaries are left out."""

    def delete(self, key: str) -> None:
        """Remove what is under `key`, if anything."""

    def sweep(self, prefix: str = "") -> None:
        """Remove the temporaries that killed processes left directly beneath `prefix`."""

    def lock(self, key: str) -> AbstractContextManager[None]:
        """Hold a lock that dies with the process. Raises LockedError where another one is alive."""

    def at(self, prefix: str) -> Storage:
        """The part of this storage beneath `prefix`."""

    def locate(self, key: str = "") -> str:
        """How to name `key` in a message."""


class LocalStorage:
    """A folder on local disk; created with the first `put`. Links that lead out of it are refused."""

    def __init__(self, root: Path | str) -> None:
        """Store beneath `root`, wherever the process goes from here."""
        self.root = Path(root)
        self._absolute = Path(root).absolute()

    def __repr__(self) -> str:
        return f"LocalStorage({str(self.root)!r})"

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Store `data` under `key`: temporary name, fsync, rename, fsync of the folder."""
        path = self._path(key)
        _make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            _write(temporary, data)
            temporary.replace(path)
        except BaseException as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                error.filename, error.filename2 = str(path), None
            raise
        sync_folder(path.parent)

    def open(self, key: str) -> BufferedReader:
        """Open a regular file; anything else (a folder, a pipe) is refused without waiting for it."""
        path = self._path(key)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(f"{path}: no such file") from None
        file = os.fdopen(descriptor, "rb") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
        if file is None:
            os.close(descriptor)
            raise DataError(f"{path}: not a regular file")
        return file

    def read(self, key: str, limit: int | None = None) -> bytes:
        """Return the file's bytes; more than `limit` are refused unread."""
        with self.open(key) as file:
            size = os.fstat(file.fileno()).st_size
            if limit is not None and size > limit:
                raise DataError(f"{self.locate(key)}: {size} bytes, more than the {limit} that can be right")
            return file.read()

    def exists(self, key: str) -> bool:
        """Whether a file or folder is there."""
        return self._path(key).exists()

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """Names directly beneath `prefix`; hidden ones (temporaries, locks) are left out, links are files."""
        try:
            with os.scandir(self._path(prefix)) as entries:
                names = [
                    entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in entries
                    if _is_plain(entry.name)
                ]
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return tuple(sorted(names))

    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""
        self._path(key).unlink(missing_ok=True)

    def sweep(self, prefix: str = "") -> None:
        """Remove temporaries directly beneath `prefix`. Call it under the lock that guards them."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for path in self._path(prefix).iterdir():
                if is_temporary(path.name):
                    path.unlink(missing_ok=True)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold `flock` on a hidden file beside `key`; the file goes with the lock."""
        path = self._path(key)
        _make_folder(path.parent)
        path = path.with_name(f".{path.name}.lock")
        descriptor = _acquire(path)
        _held.add(descriptor)
        try:
            yield
        finally:
            # Unlinked while still held: whoever waits for this inode will notice that it is gone.
            if descriptor in _held:
                _held.discard(descriptor)
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                os.close(descriptor)

    def at(self, prefix: str) -> LocalStorage:
        """The folder beneath this one."""
        part = LocalStorage(self.root / prefix if prefix else self.root)
        part._absolute = self._path(prefix)
        return part

    def locate(self, key: str = "") -> str:
        """The path as the user gave it."""
        return str(self.root / key) if key else str(self.root)

    def _path(self, key: str) -> Path:
        if not key:
            return self._absolute
        path = self._absolute / check_key(key)
        try:
            inside = path.resolve().is_relative_to(self._absolute.resolve())
        except RuntimeError:  # a circle of links
            inside = False
        if not inside:
            raise DataError(f"{path}: a link that leads out of {self.root}")
        return path


def _write(path: Path, data: bytes | memoryview) -> None:
    """Write a new file and wait until it is on disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """Create `folder` and its parents, each made durable in the one above."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """Open and lock `path`; try again where the holder removed the file in between."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same_file(descriptor, path):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise LockedError(f"{path.parent}: another process is writing here; wait for it or stop it") from None
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise DataError(f"{path.parent}: this file system has no locks; choose another folder") from None
            raise
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
