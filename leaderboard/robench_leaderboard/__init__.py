"""The site: boards of brackets, built from results into pages that open from a file and without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robench.bounds import BoundRun
    from robench.runs import Run
    from robench.scaling import Scale

__all__ = ["build", "is_site"]


def build(runs: Sequence[Run], site: Path | str, bounds: Sequence[BoundRun] = (), scales: Sequence[Scale] = ()) -> Path:
    """Build the site of `runs` in the folder `site`, replacing an older one in one step; return its index page.

    `bounds` are shown as ceilings where they speak about the samples of a row, `scales` on pages of their own. The same
    results give the same bytes. Raises InputError where the folder holds something that is not ours.
    """
    from robench_leaderboard._build import build_site

    return build_site(runs, Path(site), bounds, scales)


def is_site(folder: Path) -> bool:
    """Whether `folder` is a site that `build` made."""
    from robench.folders import is_ours

    return is_ours(folder, "site")
