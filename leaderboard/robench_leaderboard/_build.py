"""From runs to a folder of pages, in one step."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from robench.errors import InputError
from robench.metrics import BLOCKING, summarise
from robench.runs import Run, is_ours
from robench_leaderboard._boards import Board, boards_of
from robench_leaderboard._curves import HEIGHT, WIDTH
from robench_leaderboard._text import bdi, web_address

__all__ = ["build_site"]

_EXCHANGE = 2  # renameat2: RENAME_EXCHANGE
_HERE = -100  # AT_FDCWD


def build_site(runs: Sequence[Run], site: Path) -> Path:
    """Build the site of `runs` in `site`; return its index page. Raises InputError where the folder is not ours."""
    site = site.resolve()
    if site.exists() and not site.is_dir():
        raise InputError(f"{site} is a file: choose a folder for --out")
    if site.is_dir() and any(site.iterdir()) and not is_ours(site, "site"):
        raise InputError(f"{site} is not empty and not a robench site: choose another --out")
    pages = _pages(boards_of(runs))
    pages["results.json"] = json.dumps(summarise(runs), indent=1, sort_keys=True) + "\n"
    pages["robench.json"] = json.dumps({"robench": "site", "schema": 1}) + "\n"

    site.parent.mkdir(parents=True, exist_ok=True)
    fresh = site.parent / f".{site.name[:100]}.{secrets.token_hex(6)}.tmp"
    fresh.mkdir()
    try:
        for name, text in pages.items():
            with (fresh / name).open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        _swap(fresh, site)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return site / "index.html"


def _pages(boards: list[Board]) -> dict[str, str]:
    """Every page's name and text."""
    environment = Environment(
        loader=PackageLoader("robench_leaderboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(bdi=bdi, web_address=web_address)
    style = resources.files("robench_leaderboard").joinpath("templates/style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    shared: dict[str, Any] = {
        "style": Markup(style),  # ours, and held by its hash in the page's content security policy
        "style_hash": digest,
        "blocking": BLOCKING,
        "width": WIDTH,
        "height": HEIGHT,
        "boards": boards,
    }
    pages = {"index.html": environment.get_template("index.html").render(shared)}
    for board in boards:
        pages[board.page] = environment.get_template("board.html").render(shared, board=board)
    return pages


def _swap(fresh: Path, site: Path) -> None:
    """Put `fresh` in the place of `site`; what was there is then in `fresh`."""
    if not site.exists():
        fresh.rename(site)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    exchange = getattr(libc, "renameat2", None)
    if exchange is not None and exchange(_HERE, os.fsencode(fresh), _HERE, os.fsencode(site), _EXCHANGE) == 0:
        return
    # A file system without exchange: two renames, and the old site comes back if the second one fails.
    old = fresh.with_name(f"{fresh.name}.old")
    site.rename(old)
    try:
        fresh.rename(site)
    except OSError:
        old.rename(site)
        raise
    shutil.rmtree(old, ignore_errors=True)
