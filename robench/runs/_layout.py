"""Where a run lies: run ids, folder names, the results folder."""

from __future__ import annotations

import re
import secrets
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

from robench.folders import claim
from robench.storage import LocalStorage

__all__ = ["RESERVED", "RUN_ID", "folder_name", "new_run_id", "open_results", "slug"]

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


def open_results(folder: Path | str) -> LocalStorage:
    """Return the results folder `folder`, created and marked if it is new or empty. Raises InputError if foreign."""
    return claim(folder, "results")
