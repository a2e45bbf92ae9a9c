"""What a checkpoint tells about how it was made, for boards to show beside the numbers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

__all__ = ["training_card"]


def training_card(metadata: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return `training_data`, `recipe`, `train` (the command) and `seed` from what `robench train` wrote.

    `name` is the folder that the command writes to. Metadata may be a stranger's: what is missing, or of another
    type than `robench train` writes, is left out.
    """
    card: dict[str, str] = {}
    recipe, data, selection = (_text(metadata, key) for key in ("recipe", "dataset", "selection"))
    split, seed, samples = _text(metadata, "split"), _number(metadata, "seed"), _number(metadata, "samples")
    source = f"{data} | {selection}" if selection else data
    if source:
        parts = [source, f"split {split}" if split else "", f"{samples:,} samples" if samples is not None else ""]
        card["training_data"] = ", ".join(part for part in parts if part)
    if recipe:
        card["recipe"] = recipe
    if seed is not None:
        card["seed"] = str(seed)
    if recipe and source and seed is not None:
        words = ["robench", "train", recipe, "-d", source, "--seed", str(seed)]
        words += ["--device", _text(metadata, "device") or "cpu", "--out", name]
        card["train"] = shlex.join(words)
    return card


def _text(metadata: Mapping[str, Any], key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) else ""


def _number(metadata: Mapping[str, Any], key: str) -> int | None:
    value = metadata.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None
