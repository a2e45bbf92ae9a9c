"""What commands say where attacks trusted certificates and an audit broke one."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from robench.metrics import Result

__all__ = ["AUDIT_FAILED", "report_audits"]

AUDIT_FAILED: Final = 1
"""The exit code: a check that was asked for found something."""


def report_audits(found: Iterable[Result]) -> bool:
    """Say on stderr which certificates an audit broke; returns whether there are any."""
    from robench.report import safe

    failed = [(result, flag) for result in found for flag in result.flags if flag.code == "audit-failed"]
    for result, flag in failed:
        where = f"{result.subject.title} at {result.norm} {result.eps}"
        print(f"robench: THE AUDIT FAILED: {safe(where)}: {safe(flag.text)}", file=sys.stderr)
    return bool(failed)
