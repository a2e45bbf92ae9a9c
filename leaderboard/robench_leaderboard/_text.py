"""Strangers' text on a page: nothing in it may leave its place."""

from __future__ import annotations

from urllib.parse import urlsplit

from markupsafe import Markup, escape

from robench.report import safe
from robench.threat import Norm

__all__ = ["LONGEST", "bdi", "norm_mark", "norm_name", "plain", "web_address"]

LONGEST = 160
_INDEX: dict[Norm, str] = {"linf": "∞", "l2": "2", "l1": "1"}


def plain(text: object, longest: int = LONGEST) -> str:
    """Return `text` without control and bidi characters, cut to `longest`: for attributes and titles."""
    shown = safe(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def bdi(text: object, longest: int = LONGEST) -> Markup:
    """Return `text` escaped, isolated, without control and bidi characters, cut to `longest`."""
    return Markup("<bdi>") + escape(plain(text, longest)) + Markup("</bdi>")


def norm_name(norm: Norm) -> str:
    """Return a norm as plain text: `ℓ∞`."""
    return f"ℓ{_INDEX[norm]}"


def norm_mark(norm: Norm) -> Markup:
    """Return a norm as a formula: ℓ with its index below the line."""
    return Markup("<span class=norm>ℓ<sub>{}</sub></span>").format(_INDEX[norm])


def web_address(text: object) -> str | None:
    """Return `text` if it is a plain http(s) address that may be linked, else None."""
    address = str(text)
    if len(address) > 500 or safe(address) != address or any(character in address for character in " \"'<>\\^`{|}"):
        return None
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and not parts.password
    except ValueError:
        return None
    return address if usable and address.isascii() else None
