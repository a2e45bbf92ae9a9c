"""Classifiers that draw, for the terminal: lines of their own, never among those with brackets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from robench.metrics import Expected, RandomResult
from robench.report import interval
from robench.text import safe

__all__ = ["draws_lines", "share"]


def share(expected: Expected | None) -> str:
    """Return an expected accuracy as `74.8 %`; `-` where it was not asked for."""
    return "-" if expected is None else f"{100 * expected.value:.1f} %"


def draws_lines(results: Sequence[RandomResult]) -> list[str]:
    """Return the results as plain lines: a block per classifier and split, a line per ε, a line per flag."""
    lines: list[str] = []
    for _, group in groupby(results, key=lambda result: (result.fingerprint, result.dataset_hash, result.split)):
        mine = list(group)
        first, shared = mine[0], set.intersection(*(set(result.flags) for result in mine))
        lines += [""] if lines else []
        lines.append(f"{safe(first.title)}  on {safe(first.dataset)} {safe(first.split)}, {first.n} samples")
        lines += [f"  {safe(flag.code)}: {safe(flag.text)}" for flag in sorted(shared)]
        lines.append(_line("clean", first.clean, f"{first.draws} draws a point"))
        for result in mine:
            ahead, back = (
                sum(getattr(one, name) for one in result.evaluators) / max(1, result.n)
                for name in ("forwards", "backwards")
            )
            where = f"{result.norm} {safe(result.eps)}"
            lines.append(_line(where, result.attacked, f"{ahead:.0f} + {back:.0f} passes a sample"))
            lines += [f"    {safe(flag.code)}: {safe(flag.text)}" for flag in result.flags if flag not in shared]
    return lines


def _line(what: str, expected: Expected | None, more: str) -> str:
    ends = f"95 % {interval(expected.interval)}" if expected else ""
    return f"  {what:<10} {share(expected):>15}  {ends}  {more}".rstrip()
