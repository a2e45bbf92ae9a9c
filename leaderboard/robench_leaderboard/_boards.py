"""The boards: one per (dataset, split, norm), with a section per ε that was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from robench.bounds import Ceilings
from robench.metrics import Result, Subject, result_at
from robench.report import headline
from robench.threat import NORMS, Norm
from robench_leaderboard._names import board_page, dataset_page
from robench_leaderboard._rows import Row, Section, section_of

__all__ = ["Board", "Figures", "boards_of", "figures_of"]

Figures = Mapping[tuple[Subject, Norm, float], Result]
"""The result of each subject at every (norm, ε) that was asked for."""


@dataclass(frozen=True)
class Board:
    """One (dataset, split, norm). `headline` is the section to show first; `subjects` are in its order."""

    dataset: str
    dataset_hash: str
    split: str
    norm: Norm
    page: str
    dataset_page: str
    sections: tuple[Section, ...]
    headline: Section
    subjects: tuple[Subject, ...]

    @property
    def stem(self) -> str:
        """The page's name without its ending."""
        return self.page.removesuffix(".html")

    @property
    def samples(self) -> tuple[int, int]:
        """The smallest and the largest number of samples of a row."""
        sizes = [row.result.n for section in self.sections for row in section.rows]
        return min(sizes), max(sizes)

    @property
    def limited(self) -> bool:
        """Whether any row has a ceiling below 100 %."""
        return any(limit.value < 1 for section in self.sections for limit in section.limits)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every row of every section."""
        return tuple(row for section in self.sections for row in section.rows)


def figures_of(subjects: Iterable[Subject], ceilings: Ceilings) -> Figures:
    """Return the figures of `subjects`."""
    return {
        (subject, norm, eps.value): result_at(subject, norm, eps, ceilings)
        for subject in subjects
        for norm, epsilons in subject.requested.items()
        for eps in epsilons
    }


def boards_of(subjects: Sequence[Subject], figures: Figures) -> list[Board]:
    """Return the boards of `subjects`, sorted by dataset, split and norm."""

    def place(subject: Subject) -> tuple[str, str]:
        return subject.dataset_hash, subject.split

    boards = []
    for _, group in groupby(sorted(subjects, key=place), key=place):
        together = list(group)
        name = min(subject.dataset for subject in together)
        for norm in NORMS:
            asked = [subject for subject in together if subject.requested.get(norm)]  # of radii alone there is no ε
            if asked:
                boards.append(_board(name, asked, norm, figures))
    return sorted(boards, key=lambda board: (board.dataset, board.split, board.dataset_hash, NORMS.index(board.norm)))


def _board(name: str, about: list[Subject], norm: Norm, figures: Figures) -> Board:
    values = sorted({eps.value: eps for subject in about for eps in subject.requested[norm]}.items())
    sections = []
    for value, eps in values:
        sections.append(section_of([figures[one, norm, value] for one in about if (one, norm, value) in figures], eps))
    first = headline([row.result for section in sections for row in section.rows], norm)
    shown = next(section for section in sections if first is None or section.eps.value == first.value)
    seen: dict[Subject, None] = {}
    for row in (*shown.rows, *(row for section in sections for row in section.rows)):
        seen.setdefault(row.result.subject)
    hash_, split = about[0].dataset_hash, about[0].split
    return Board(
        dataset=name,
        dataset_hash=hash_,
        split=split,
        norm=norm,
        page=board_page(name, hash_, split, norm),
        dataset_page=dataset_page(name, hash_, split),
        sections=tuple(sections),
        headline=shown,
        subjects=tuple(seen),
    )
