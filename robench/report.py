"""Figures and runs for the terminal: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from robench.metrics import ClassBracket, Result, Share
from robench.text import safe
from robench.threat import Epsilon, Norm

if TYPE_CHECKING:
    from rich.table import Table

    from robench.bounds import BoundRun
    from robench.runs import Run

__all__ = [
    "age",
    "bound_document",
    "bound_lines",
    "bracket",
    "ceiling",
    "cost",
    "headline",
    "health",
    "interval",
    "percent",
    "print_results",
    "print_runs",
    "result_lines",
    "run_rows",
    "safe",
]


def percent(share: Share | None) -> str:
    """Return a fraction as `74.8 %`; a side that was switched off or has no samples as `-`."""
    return "-" if share is None or share.value is None else f"{100 * share.value:.1f} %"


def bracket(result: Result | ClassBracket) -> str:
    """Return `[certified, empirical]` in words: `42.8 – 61.2 %`, `≥ 42.8 %`, `≤ 61.2 %`, or `-`."""
    low, high = result.certified, result.empirical
    if low and high and low.value is not None and high.value is not None:
        return f"{100 * low.value:.1f} – {100 * high.value:.1f} %"
    if low:
        return f"≥ {percent(low)}"
    return f"≤ {percent(high)}" if high else "-"


def interval(ends: tuple[float, float]) -> str:
    """Return an interval in per cent: `[38.4, 65.5]`."""
    return f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"


def ceiling(result: Result) -> str:
    """Return what no classifier is above on these samples: `55.1 %`, or `-` where no bound is known."""
    return f"{100 * result.ceiling.value:.1f} %" if result.ceiling else "-"


def cost(result: Result) -> str:
    """Return passes per sample and total time, `103 + 100 passes a sample, 12 s`; none where attacks trusted proofs."""
    if result.audit:
        return "no cost claimed"
    n = max(1, result.n)
    return f"{_short(result.forwards / n)} + {_short(result.backwards / n)} passes a sample, {_seconds(result.seconds)}"


def health(result: Result) -> str:
    """Return the health of the attacks in words: `health flagged`; nothing where no attack was asked.

    Where nobody looked and the attack `probe` can, it says so.
    """
    found = result.health
    if found is None:
        return ""
    missing = found.grade == "unprobed" and found.unbroken and not found.probed and _has_gradients(result)
    missing = missing and not result.subject.smoothed  # `probe` asks for one function
    return f"health {found.grade}" + (" (add -a probe)" if missing else "")


def _has_gradients(result: Result) -> bool:
    """Whether an attack that asks for gradients ran, as `probe` does."""
    attacks = [one for run in result.subject.runs if run.origin == "measured" for one in run.evaluators]
    return any("gradients" in (one.access, *(stage.access for stage in (one.stages or {}).values())) for one in attacks)


def _what_to_do(results: Sequence[Result]) -> list[str]:
    flagged = any(result.health and result.health.grade == "flagged" for result in results)
    return ["", "health flagged: what to do: docs/health.md"] if flagged else []


def age(then: datetime, now: datetime | None = None) -> str:
    """Return how long ago `then` was, in its largest unit: `3 days`."""
    passed = (now or datetime.now(UTC)) - then
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(passed / timedelta(seconds=size))
        if count > 0:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "just now"


def result_lines(results: Sequence[Result]) -> list[str]:
    """Return the results as plain lines: a block per classifier and split, a line per ε, a line per flag."""
    lines: list[str] = []
    for subject, group in groupby(results, key=lambda result: result.subject):
        mine = list(group)
        shared = set.intersection(*(set(result.flags) for result in mine))
        lines += [""] if lines else []
        lines.append(f"{safe(subject.title)}  on {safe(subject.dataset)} {safe(subject.split)}, {mine[0].n} samples")
        lines += [f"  {safe(flag.code)}: {safe(flag.text)}" for flag in sorted(shared)]
        abstained = f"  abstains on {mine[0].abstained}" if mine[0].abstained else ""
        lines.append(f"  clean      {percent(mine[0].clean):>15}  95 % {interval(mine[0].clean.interval)}{abstained}")
        radii = {one.norm: one.average_radius for one in mine if one.average_radius is not None}
        lines += [f"  {norm:<10} {radius:>15.4g}  average certified radius" for norm, radius in radii.items()]
        for result in mine:
            where = f"{result.norm} {safe(result.eps)}"
            above = f"ceiling {ceiling(result)}  " if result.ceiling else ""
            told = ", ".join(words for words in (cost(result), health(result)) if words)
            lines.append(f"  {where:<10} {bracket(result):>15}  95 % {interval(result.joint_interval)}  {above}{told}")
            lines += [f"    {safe(flag.code)}: {safe(flag.text)}" for flag in result.flags if flag not in shared]
    return lines + _what_to_do(results)


def headline(results: Sequence[Result], norm: Norm) -> Epsilon | None:
    """Return the ε to show of a norm where there is room for one; None where there are no results in it.

    The middle one of the dataset's own thresholds that were searched, else of those that most results are about.
    """
    mine = [result for result in results if result.norm == norm]
    if not mine:
        return None
    budgets = {result.eps.value: result.eps for result in sorted(mine, key=lambda result: result.eps)}
    told = {
        Epsilon.parse(text).value
        for result in mine
        for manifest in result.subject.runs
        for text in manifest.dataset.thresholds.get(norm, ())
    }
    counts = {value: sum(result.eps.value == value for result in mine) for value in budgets}
    most = max(counts.values())
    usual = [value for value in budgets if value in told] or [value for value in budgets if counts[value] == most]
    return budgets[usual[(len(usual) - 1) // 2]]


def print_results(results: Sequence[Result], others: Sequence[str] = ()) -> None:
    """Write the results to stdout: a table on a terminal, `result_lines` elsewhere; then the lines `others`."""
    if results and sys.stdout.isatty():
        _show(_result_table(results))
        _write(_what_to_do(results)[1:])
    elif results:
        _write(result_lines(results))
    _write([*([""] if results and others else []), *others])


def bound_document(run: BoundRun) -> dict[str, Any]:
    """Return a bound as JSON values: the entry of `robench bound --json`."""
    manifest = run.manifest
    return {
        "run": manifest.run,
        "bound": manifest.bound.canonical,
        "dataset": manifest.dataset.canonical,
        "dataset_hash": manifest.dataset.hash,
        "split": manifest.dataset.split,
        "samples_hash": manifest.dataset.samples_hash,
        "n": manifest.dataset.n,
        "norm": manifest.norm,
        "rows": [
            {
                "eps": row.eps.text,
                "eps_value": row.eps.value,
                "value": row.value,
                "direction": row.direction,
                "scope": row.scope,
                "assumptions": row.assumptions,
                "source": row.source,
                "detail": row.detail,
            }
            for row in run.rows
        ],
        "facts": manifest.facts,
        "location": run.location,
    }


def bound_lines(run: BoundRun) -> list[str]:
    """Return a bound as plain lines: what it is about, what it rests on, a line per ε."""
    manifest, first = run.manifest, run.rows[0]
    about = manifest.dataset
    lines = [
        f"{safe(manifest.bound.canonical)}  on {safe(about.canonical)} {safe(about.split)}, {about.n} samples",
        f"  source: {safe(first.source)}",
        f"  assumes: {safe(first.assumptions)}",
    ]
    for row in run.rows:
        about_whom = "" if row.scope == "samples" else "of the population"
        figures = ", ".join(f"{name} {_figure(value)}" for name, value in (row.detail or {}).items())
        where = f"{row.norm} {safe(row.eps)}"
        shown = f"{row.direction} {100 * row.value:.2f} % {about_whom}".rstrip()
        lines.append(f"  {where:<12} {shown:<20} {safe(figures)}".rstrip())
    return [*lines, f"  stored: {run.location}"]


def run_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return what identifies each run, oldest first, as JSON values."""
    rows = []
    for run in runs:
        manifest = run.manifest
        rows.append(
            {
                "run": manifest.run,
                "classifier": manifest.classifier.canonical,
                "fingerprint": manifest.classifier.fingerprint,
                "dataset": manifest.dataset.canonical,
                "split": manifest.dataset.split,
                "norm": manifest.request.norm,
                "eps": ["given"] if manifest.dataset.regions else list(manifest.request.eps),
                "n": manifest.dataset.n,
                "done": manifest.dataset.n if manifest.complete else len(run.done()),
                "complete": manifest.complete,
                "origin": manifest.origin,
                "trust": manifest.trust,
                "started": manifest.started.isoformat(),
                "finished": manifest.finished.isoformat() if manifest.finished else None,
                "location": run.location,
            }
        )
    return rows


def print_runs(rows: Sequence[dict[str, Any]], now: datetime | None = None) -> None:
    """Write rows of `run_rows` to stdout: a table on a terminal, tab-separated lines with a header elsewhere."""
    header = ["run", "classifier", "dataset", "ε", "samples", "state", "age"]
    cells = []
    for row in rows:
        state = "complete" if row["complete"] else "incomplete"
        cells.append(
            [
                row["run"],
                safe(row["classifier"]),
                safe(f"{row['dataset']} {row['split']}"),
                safe(f"{row['norm'] or ''} {' '.join(row['eps'])}".strip()) or "-",
                f"{row['n']}" if row["complete"] else f"{row['done']} of {row['n']}",
                state if row["origin"] == "measured" else f"{state}, {row['trust']}",
                age(datetime.fromisoformat(row["started"]), now),
            ]
        )
    if not sys.stdout.isatty():
        _write(["\t".join(line) for line in [header, *cells]])
        return
    table = _table(header, right={"samples"})
    for line in cells:
        _add(table, line)
    _show(table)


def _result_table(results: Sequence[Result]) -> Table:
    limited = any(result.ceiling for result in results)
    header = ["classifier", "data", "n", "clean", "norm, ε", "certified – empirical", "95 % interval"]
    header += [*(["ceiling"] if limited else []), "cost", "health", "flags"]
    table = _table(header, right={"n", "clean", "certified – empirical", "95 % interval", "ceiling"})
    subject = None
    for result in results:
        first = result.subject is not subject
        if first and subject is not None:
            table.add_section()
        subject = result.subject
        row = [safe(subject.title), safe(f"{subject.dataset} {subject.split}"), str(result.n), percent(result.clean)]
        _add(
            table,
            [
                *(row if first else [""] * 4),
                f"{result.norm} {safe(result.eps)}",
                bracket(result),
                interval(result.joint_interval),
                *([ceiling(result)] if limited else []),
                cost(result),
                health(result).removeprefix("health "),
                "\n".join(f"{safe(flag.code)}: {safe(flag.text)}" for flag in result.flags),
            ],
        )
    return table


def _table(header: Sequence[str], right: set[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for name in header:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


def _add(table: Table, cells: Sequence[str]) -> None:
    from rich.text import Text

    table.add_row(*(Text(cell) for cell in cells))  # Text: a name such as "[red]" is no markup


def _show(table: Table) -> None:
    from rich.console import Console

    Console().print(table)


def _write(lines: Sequence[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _figure(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short(value: float) -> str:
    for least, size, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= least:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
