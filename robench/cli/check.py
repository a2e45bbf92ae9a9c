"""`robench check`: the chain, sample by sample; exit 1 on a finding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robench.cli._app import app

if TYPE_CHECKING:
    from robench.check import Checked

__all__ = ["check", "show_check"]


@app.command("check")
def check(
    results: Annotated[list[Path], typer.Argument(help="Results folders, or run folders within them.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document with every finding.")] = False,
    limit: Annotated[int, typer.Option(help="Findings of one kind to print; 0 prints all.")] = 20,
) -> None:
    """Hold all evidence against itself and the ceilings.

    Proofs against witnesses, rows against manifests, certified accuracies against ceilings. Exit code 1 where
    something cannot be right.
    """
    from robench.check import check_folders

    outcome = check_folders(results)
    if as_json:
        print(json.dumps(outcome.document(), ensure_ascii=False, indent=1))
    else:
        show_check(outcome, limit)
    if outcome.findings:
        raise typer.Exit(1)


def show_check(outcome: Checked, limit: int) -> None:
    """Print findings by kind, notes, and what was counted."""
    from itertools import groupby

    from robench.check import CODES
    from robench.report import safe

    for code, group in groupby(outcome.findings, key=lambda finding: finding.code):
        findings = list(group)
        print(f"{code}: {CODES[code]}")
        shown = findings[:limit] if limit > 0 else findings
        for finding in shown:
            print(f"  {safe(finding.text)}")
        if len(shown) < len(findings):
            print(f"  and {len(findings) - len(shown)} more (--limit 0 prints all)")
    for note in outcome.notes:
        print(f"note: {safe(note)}")
    counts = ", ".join(_counted(count, name) for name, count in outcome.counts.items())
    found = len(outcome.findings)
    print(f"checked {counts}: {_counted(found, 'findings') if found else 'nothing wrong'}")


def _counted(count: int, plural: str) -> str:
    return f"{count} {plural}" if count != 1 else f"1 {plural.removesuffix('es' if plural.endswith('sses') else 's')}"
