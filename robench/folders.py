"""Folders that are ours: claimed by a marker, never mixed with what others put there, replaced whole."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from robench.errors import DataError, InputError
from robench.storage import LocalStorage, is_temporary, sync_folder

__all__ = ["MARKER", "check", "claim", "is_ours", "marker", "recover", "replace_folder"]

MARKER = "robench.json"
_EXCHANGE = 2  # renameat2: RENAME_EXCHANGE
_HERE = -100  # AT_FDCWD


def marker(kind: str) -> bytes:
    """Return the content of `MARKER` in a folder of this kind (`results`, `site`, …)."""
    return json.dumps({"robench": kind, "schema": 1}).encode() + b"\n"


def is_ours(folder: Path, kind: str) -> bool:
    """Whether `folder` carries the marker of this kind."""
    try:
        found = json.loads(LocalStorage(folder).read(MARKER, 4096))
    except (DataError, OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("robench") == kind


def check(folder: Path, kind: str) -> None:
    """Raise InputError unless `folder` is absent, empty or ours."""
    recover(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose a folder for --out")
    if is_ours(folder, kind) or not folder.exists():
        return
    # Asked again, because another process may have put its marker since.
    if any(not is_temporary(path.name) for path in folder.iterdir()) and not is_ours(folder, kind):
        raise InputError(f"{folder} is not empty and not a robench {kind} folder: choose another --out")


def claim(folder: Path | str, kind: str) -> LocalStorage:
    """Return `folder` as a storage of ours, created and marked if it is new or empty.

    Raises InputError where it holds something that is not ours.
    """
    folder = Path(folder)
    check(folder, kind)
    storage = LocalStorage(folder)
    if not is_ours(folder, kind):
        storage.put(MARKER, marker(kind))
    return storage


def replace_folder(folder: Path | str, files: Mapping[str, bytes]) -> None:
    """Make `folder` hold these files and nothing else; at every instant it is the old folder or the new one.

    The files are written and made durable beside it, then the two change places in one step. Where the file system
    cannot do that there are two renames; between them the old folder has another name, and `recover` brings it back
    after a kill. Raises OSError, and the old folder stays.
    """
    folder = Path(folder).resolve()
    recover(folder)
    fresh = folder.with_name(f".{folder.name[:40]}.{secrets.token_hex(6)}.tmp")
    storage = LocalStorage(fresh)
    try:
        for name, data in files.items():
            storage.put(name, data)
        _swap(fresh, folder)
        sync_folder(folder.parent)
    except OSError as error:
        error.filename, error.filename2 = str(folder), None
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def recover(folder: Path) -> None:
    """Bring back what a killed `replace_folder` had put aside, if nothing has taken its place."""
    aside = _aside(folder)
    if aside.is_dir() and not folder.exists():
        with suppress(OSError):  # another process was faster
            aside.rename(folder.resolve())


def _aside(folder: Path) -> Path:
    """The name that an old folder has between two renames."""
    whole = folder.resolve()
    return whole.with_name(f".{whole.name[:40]}.{hashlib.sha256(os.fsencode(whole.name)).hexdigest()[:12]}.tmp")


def _swap(fresh: Path, folder: Path) -> None:
    """Put `fresh` in the place of `folder`; what was there is then in `fresh`, or gone."""
    if not folder.exists():
        fresh.rename(folder)
    elif not _exchange(fresh, folder):
        aside = _aside(folder)
        shutil.rmtree(aside, ignore_errors=True)  # left by a process that was killed after its second rename
        folder.rename(aside)
        try:
            fresh.rename(folder)
        except OSError:
            recover(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system or the file system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return call is not None and call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0
