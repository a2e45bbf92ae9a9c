"""From runs and bounds to a folder of pages, in one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robench.folders import MARKER, check, marker, replace_folder
from robench.metrics import Result, Subject, result_at, subjects
from robench.runs import Run
from robench.threat import Norm
from robench_leaderboard._boards import Board, boards_of
from robench_leaderboard._environment import environment

if TYPE_CHECKING:
    import pyarrow as pa

    from robench.bounds import BoundRun

__all__ = ["build_site"]


def build_site(runs: Sequence[Run], site: Path, bounds: Sequence[BoundRun] = ()) -> Path:
    """Build the site of `runs` in `site`; return its index page. Raises InputError where the folder is not ours."""
    site = site.resolve()
    check(site, "site")
    about = subjects(runs)
    figures: dict[tuple[Subject, Norm, float], Result] = {
        (subject, norm, eps.value): result_at(subject, norm, eps)
        for subject in about
        for norm, epsilons in subject.requested.items()
        for eps in epsilons
    }
    pages = _pages(boards_of(about, figures))
    replace_folder(site, {name: text.encode() for name, text in pages.items()} | {MARKER: marker("site")})
    return site / "index.html"


def _pages(boards: list[Board]) -> dict[str, str]:
    """The home page and the boards: name and text."""
    made = environment()
    pages = {"index.html": made.get_template("index.html").render(boards=boards)}
    for board in boards:
        siblings = [other for other in boards if other.dataset_page == board.dataset_page]
        pages[board.page] = made.get_template("board.html").render(board=board, siblings=siblings)
    return pages


def _witnesses(runs: Sequence[Run]) -> Callable[[Subject], Iterator[pa.Table]]:
    """Return a function that yields the witness tables of a subject's runs, oldest run first."""
    by_name = {run.manifest.run: run for run in runs}

    def of(subject: Subject) -> Iterator[pa.Table]:
        for manifest in subject.runs:
            yield from by_name[manifest.run].iter_witnesses()

    return of
