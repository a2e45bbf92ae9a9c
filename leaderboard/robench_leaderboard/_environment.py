"""The templates' surroundings: filters, and one style and one script that each page carries and vouches for."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from robench.metrics import BLOCKING
from robench_leaderboard._text import bdi, norm_mark, norm_name, plain, web_address

__all__ = ["environment", "size_words"]

_STYLES = ("style.css", "board.css", "pages.css", "print.css")


def environment() -> Environment:
    """Return an environment whose templates know the filters, the style and the script of every page."""
    made = Environment(
        loader=PackageLoader("robench_leaderboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(bdi=bdi, plain=plain, norm=norm_mark, norm_name=norm_name, web_address=web_address)
    made.filters.update(percent=_percent, count=_count, size=size_words)
    made.globals.update(_shared())
    return made


def _shared() -> dict[str, Any]:
    """What every page holds. Style and script are ours, and held by their hashes in the page's security policy."""
    folder = resources.files("robench_leaderboard").joinpath("templates")
    style = "".join(path.read_text("utf-8") for name in _STYLES if (path := folder.joinpath(name)).is_file())
    script = folder.joinpath("site.js").read_text("utf-8")
    return {
        "style": Markup(style),
        "style_hash": _digest(style),
        "script": Markup(script),
        "script_hash": _digest(script),
        "blocking": BLOCKING,
    }


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _count(number: int, noun: str) -> str:
    """`1 sample`, `1,797 samples`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_words(number: int) -> str:
    """Return a number of bytes in words: `812 B`, `12.3 kB`, `4.5 MB`."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"
