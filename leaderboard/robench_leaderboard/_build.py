"""From runs to a folder of pages, in one step."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from robench.folders import MARKER, check, marker, replace_folder
from robench.metrics import BLOCKING, summarise
from robench.runs import Run
from robench_leaderboard._boards import Board, boards_of
from robench_leaderboard._curves import HEIGHT, WIDTH
from robench_leaderboard._text import bdi, web_address

__all__ = ["build_site"]


def build_site(runs: Sequence[Run], site: Path) -> Path:
    """Build the site of `runs` in `site`; return its index page. Raises InputError where the folder is not ours."""
    site = site.resolve()
    check(site, "site")
    pages = _pages(boards_of(runs))
    pages["results.json"] = json.dumps(summarise(runs), indent=1, sort_keys=True) + "\n"
    replace_folder(site, {name: text.encode() for name, text in pages.items()} | {MARKER: marker("site")})
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
