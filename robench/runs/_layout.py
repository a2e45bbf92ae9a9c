"""Where a run lies: run ids, folder names, and the marker of a results folder."""

from __future__ import annotations

import json
import re
import secrets
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

from robench.errors import DataError, InputError
from robench.storage import LocalStorage, is_temporary

__all__ = [
    "MARKER",
    "RESERVED",
    "RUN_ID",
    "claim_folder",
    "folder_name",
    "is_ours",
    "new_run_id",
    "open_results",
    "slug",
]

MARKER = "robench.json"
RESERVED = ("_aggregates", "_bounds", "_scale", "_studies")
RUN_ID = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}"
_LONGEST = 60


def new_run_id(now: datetime | None = None) -> str:
    """Return UTC time + 6 random hex digits, `20260131T235959Z-0a1b2c`."""
    now = now or datetime.now(UTC)
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def slug(text: str, longest: int = _LONGEST) -> str:
    """Return `text` as a folder name of [a-z0-9._-], at most `longest` characters; never hidden, reserved or empty."""
    plain = unicodedata.normalize("NFKD", text[:1000]).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9.]+", "-", plain)
    return re.sub(r"\.{2,}", ".", name).strip("-.")[:longest].rstrip("-.") or "unnamed"


def folder_name(name: str, digest: str) -> str:
    """Return `<slug>-<8 hex of the hash>`, at most 60 characters (`import:` before the hash is left out)."""
    return f"{slug(name, _LONGEST - 9)}-{digest.removeprefix('import:')[:8]}"


def is_ours(folder: Path, kind: str = "results") -> bool:
    """Whether `folder` carries the marker of robench folders of this kind (`results`, `site`, …)."""
    try:
        marker = json.loads(LocalStorage(folder).read(MARKER, 4096))
    except (DataError, OSError, ValueError, RecursionError):
        return False
    return isinstance(marker, dict) and marker.get("robench") == kind


def claim_folder(folder: Path | str, kind: str) -> LocalStorage:
    """Return `folder` as a storage of ours, created and marked if it is new or empty.

    Raises InputError where it holds something that is not ours.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose a folder for --out")
    storage = LocalStorage(folder)
    if is_ours(folder, kind):
        return storage
    if folder.exists() and any(not is_temporary(path.name) for path in folder.iterdir()):
        # Another process may have put its marker since.
        if is_ours(folder, kind):
            return storage
        raise InputError(f"{folder} is not empty and not a robench {kind} folder: choose another --out")
    storage.put(MARKER, json.dumps({"robench": kind, "schema": 1}).encode() + b"\n")
    return storage


def open_results(folder: Path | str) -> LocalStorage:
    """Return the results folder `folder`, created and marked if it is new or empty. Raises InputError if foreign."""
    return claim_folder(folder, "results")
