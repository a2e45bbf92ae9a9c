"""Sizes of training sets, as written: `64:4096:x2`, `100:1000:+100`, `48+97+195`."""

from __future__ import annotations

import re
from typing import Final

from robench.errors import InputError

__all__ = ["MOST_SIZES", "parse_sizes"]

MOST_SIZES: Final = 1000
_LADDER: Final = re.compile(r"([0-9]+):([0-9]+|all):([x+])([0-9]+)", re.ASCII)


def parse_sizes(text: str, available: int) -> tuple[int, ...]:
    """Return the sizes that `text` names, ascending, each once.

    `A:B:xK` goes from A to B by factors of K, `A:B:+K` by steps of K, `A+B+C` lists them; `all` stands for
    `available` samples, on a ladder in place of rungs within half a step. Raises InputError, one line, for anything
    else, for fewer than two sizes, and for one beyond the data.
    """
    ladder = _LADDER.fullmatch(text)
    if ladder is not None:
        sizes = _ladder(ladder, text, available)
    else:
        items = [item.strip() for item in text.split("+")]
        if not all(item == "all" or re.fullmatch("[0-9]{1,12}", item, re.ASCII) for item in items):
            raise InputError(f"--sizes {text!r:.60} is no list of sizes: write 64:4096:x2, 100:1000:+100 or 48+97+195")
        sizes = {available if item == "all" else int(item) for item in items}
    found = tuple(sorted(sizes))
    if len(found) < 2:
        raise InputError(f"--sizes {text!r:.60} names {len(found)} size: a curve takes two or more")
    if len(found) > MOST_SIZES:
        raise InputError(f"--sizes {text!r:.60} names more than {MOST_SIZES} sizes: take fewer")
    if found[0] < 1:
        raise InputError(f"--sizes {text!r:.60}: a training set holds 1 sample or more")
    if found[-1] > available:
        raise InputError(f"--sizes {text!r:.60} asks for {found[-1]} samples, but there are {available} to train on")
    return found


def _ladder(match: re.Match[str], text: str, available: int) -> set[int]:
    first, last = int(match[1]), available if match[2] == "all" else int(match[2])
    step = int(match[4])
    if first < 1 or step < (2 if match[3] == "x" else 1):
        raise InputError(f"--sizes {text!r:.60} never ends: start from 1 or more, with factors from 2 or steps from 1")
    sizes, size = set(), first
    while size <= last:
        sizes.add(size)
        if len(sizes) > MOST_SIZES:
            raise InputError(f"--sizes {text!r:.60} names more than {MOST_SIZES} sizes: take larger steps")
        size = size * step if match[3] == "x" else size + step
    if match[2] != "all":
        return sizes
    return {one for one in sizes if _apart(one, available, match[3], step)} | {available}


def _apart(size: int, available: int, kind: str, step: int) -> bool:
    """Whether a rung is at least half a step below all samples: a gain between nearer ones says nothing."""
    return size * size * step <= available * available if kind == "x" else 2 * (available - size) >= step
