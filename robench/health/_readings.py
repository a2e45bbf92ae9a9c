"""What a row's detail says about its sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robench.health._catalogue import CATALOGUE

__all__ = ["beyond", "readings"]


def readings(detail: object) -> dict[str, float]:
    """Return the indicators that a row's detail measured; anything else that may stand there is left out.

    `detail` may be a stranger's: unknown codes, those that rows alone can show, and values that are no finite numbers
    are ignored.
    """
    health: Any = detail.get("health") if isinstance(detail, Mapping) else None
    if not isinstance(health, Mapping):
        return {}
    found = {}
    for code, indicator in CATALOGUE.items():
        value = health.get(code)
        if indicator.origin == "probe" and isinstance(value, int | float) and -1e300 < value < 1e300:
            found[code] = float(value)
    return found


def beyond(detail: object) -> list[str]:
    """Return the codes whose figure in a row's detail is a bad sign about that sample."""
    return [code for code, value in readings(detail).items() if CATALOGUE[code].beyond(value)]
