"""Strangers' text on a page: nothing in it may leave its place."""

from __future__ import annotations

from urllib.parse import urlsplit

from markupsafe import Markup, escape

from robench.report import safe

__all__ = ["LONGEST", "bdi", "web_address"]

LONGEST = 160


def bdi(text: object, longest: int = LONGEST) -> Markup:
    """Return `text` escaped, isolated, without control and bidi characters, cut to `longest`."""
    plain = safe(text)
    shown = plain if len(plain) <= longest else f"{plain[: longest - 1]}…"
    return Markup("<bdi>") + escape(shown) + Markup("</bdi>")


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
