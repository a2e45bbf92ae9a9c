"""Text from strangers on its way to a terminal or a message: one line, nothing that the terminal would obey."""

from __future__ import annotations

__all__ = ["one_line", "safe"]


def safe(text: object) -> str:
    """Return `text` on one line; control, escape, bidi and other unprintable characters become `�`."""
    joined = " ".join(str(text).split())
    return "".join(character if character.isprintable() else "�" for character in joined)


def one_line(error: object, longest: int = 300) -> str:
    """Return an exception as `Name: message`, or any other text, on one safe line of at most `longest` characters."""
    try:
        text = safe(error)
    except Exception:  # a plugin's error may have a broken __str__
        text = ""
    if isinstance(error, BaseException):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= longest else text[: longest - 1] + "…"
