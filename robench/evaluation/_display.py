"""What boards show beside the numbers: from `--name`, a TOML file, and the card of the model."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from robench.errors import InputError
from robench.fields import first_problem
from robench.runs import Display
from robench.text import one_line

__all__ = ["beneath", "display", "read_card"]

_KNOWN: Final = ("name", "paper", "training_data", "licence")
_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")
_MOST_KEYS: Final = 32
_LONGEST_LINE: Final = 500  # as `Display` allows
_LONGEST_MORE: Final = 2000


def display(name: str | None = None, meta: Path | str | None = None) -> Display:
    """Return the display metadata; `name` wins over the file's. Unknown keys of the file are kept as they are.

    Raises InputError for a file that is missing or not TOML, and for text that is too long or not printable.
    """
    fields: dict[str, Any] = {}
    if meta is not None:
        try:
            fields = tomllib.loads(Path(meta).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"metadata file {meta}: {error}") from None
    known = {key: fields.pop(key) for key in _KNOWN if key in fields}
    if name is not None:
        known["name"] = name
    try:
        return Display(**known, more={key: str(value) for key, value in fields.items()})
    except ValidationError as error:
        raise InputError(f"display metadata: {first_problem(error)}") from None


def read_card(model: Any) -> tuple[Mapping[str, str], str | None]:
    """Return the card of a Model, empty where it has none, and what is wrong with it, if anything is.

    A card may be a stranger's: keys that no manifest takes are left out, texts become one printable line and are cut.
    """
    try:
        card = getattr(model, "card", None)
        if card is None:
            return {}, None
        if not isinstance(card, Mapping):
            return {}, f"the card is {type(card).__name__}, no mapping of texts: it is left out"
        texts = {key: _line(key, text) for key, text in list(card.items())[:_MOST_KEYS] if isinstance(text, str)}
    except Exception as error:  # whatever a plugin does: the numbers do not need it
        return {}, f"the card is left out: {one_line(error)}"
    return {key: text for key, text in texts.items() if text and isinstance(key, str) and _KEY.fullmatch(key)}, None


def beneath(display: Display, card: Mapping[str, str]) -> Display:
    """Return `display` with what it leaves open filled in from a card as `read_card` returns it."""
    known = {key: text for key, text in card.items() if key in _KNOWN and getattr(display, key) is None}
    more = {key: text for key, text in card.items() if key not in _KNOWN}
    return display.model_copy(update={**known, "more": {**more, **display.more}})


def _line(key: object, text: str) -> str:
    return one_line(text, _LONGEST_LINE if key in _KNOWN else _LONGEST_MORE)
