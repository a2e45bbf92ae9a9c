"""What the pages show: boards, their ε, and a row per classifier, with every figure already in words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from robench.metrics import Result, Subject, attribution, curve, rank_ranges, result_at, subjects
from robench.report import bracket, cost, interval, percent
from robench.runs import Manifest, Run, slug
from robench.threat import NORMS, Epsilon, Norm
from robench_leaderboard._bars import Bar, bar_of
from robench_leaderboard._curves import WIDTH, Panel, panel

__all__ = ["Board", "Picture", "Row", "Section", "boards_of"]

_NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}
_PICTURES = 24


@dataclass(frozen=True)
class Row:
    """One classifier at one ε."""

    result: Result
    name: str
    spec: str
    rank: str
    clean: str
    clean_interval: str
    bracket: str
    interval: str
    bar: Bar
    cost: str
    origin: str
    manifests: tuple[Manifest, ...]
    settled: tuple[tuple[str, int, int], ...]

    @property
    def ranked(self) -> bool:
        """Whether the row has a rank."""
        return bool(self.rank)


@dataclass(frozen=True)
class Section:
    """All classifiers of a board at one ε; `by` says by which accuracy they are ranked."""

    eps: Epsilon
    anchor: str
    by: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Picture:
    """A classifier's curves over ε."""

    name: str
    panel: Panel


@dataclass(frozen=True)
class Mark:
    """An ε on the axis of the curves; without a label where it would run into its neighbour."""

    x: float
    label: str


@dataclass(frozen=True)
class Board:
    """One (dataset, split, norm)."""

    dataset: str
    dataset_hash: str
    split: str
    norm: Norm
    norm_name: str
    page: str
    sections: tuple[Section, ...]
    pictures: tuple[Picture, ...]
    marks: tuple[Mark, ...]
    classifiers: int
    samples: int


def boards_of(runs: Sequence[Run]) -> list[Board]:
    """Return the boards of `runs`, sorted by dataset, split and norm."""

    def place(subject: Subject) -> tuple[str, str]:
        return subject.dataset_hash, subject.split

    boards = []
    for _, group in groupby(sorted(subjects(runs), key=place), key=place):
        together = list(group)
        boards += [
            _board(asked, norm) for norm in NORMS if (asked := [one for one in together if norm in one.requested])
        ]
    return sorted(boards, key=lambda board: (board.dataset, board.split, NORMS.index(board.norm), board.dataset_hash))


def _board(about: list[Subject], norm: Norm) -> Board:
    dataset = min(subject.dataset for subject in about)
    first = about[0]
    values = sorted({eps.value: eps for subject in about for eps in subject.requested[norm]}.items())
    sections = tuple(_section(about, norm, eps) for _, eps in values)
    right = 1.15 * values[-1][0]
    identity = hashlib.sha256(f"{first.dataset_hash}\0{first.split}".encode()).hexdigest()[:8]
    return Board(
        dataset=dataset,
        dataset_hash=first.dataset_hash,
        split=first.split,
        norm=norm,
        norm_name=_NORMS[norm],
        page=f"{slug(f'{dataset}-{first.split}', 40)}-{identity}-{norm}.html",
        sections=sections,
        pictures=tuple(_pictures(sections, norm, right)),
        marks=_marks([eps for _, eps in values], right),
        classifiers=len(about),
        samples=max(len(subject.samples) for subject in about),
    )


def _marks(epsilons: list[Epsilon], right: float) -> tuple[Mark, ...]:
    marks = []
    free = 0.0
    for eps in epsilons:
        x = WIDTH * eps.value / right
        half = 3.0 * len(eps.text)  # of a label's width
        fits = x - half > free and len(eps.text) <= 12
        free = x + half if fits else free
        marks.append(Mark(x, eps.text if fits else ""))
    return tuple(marks)


def _section(about: list[Subject], norm: Norm, eps: Epsilon) -> Section:
    found = [result_at(one, norm, eps) for one in about if eps.value in {asked.value for asked in one.requested[norm]}]
    found.sort(key=_order)
    by, ranks = _ranks(found)
    rows = tuple(_row(result, rank) for result, rank in zip(found, ranks, strict=True))
    return Section(eps, f"eps-{slug(eps.text)}", by, rows)


def _order(result: Result) -> tuple[float, float, float, str, str]:
    """Best first: by what is proven, then by what is possible."""
    proven = -1.0 if result.certified is None else result.certified.value or 0.0
    possible = -1.0 if result.empirical is None else result.empirical.value or 0.0
    return -proven, -possible, -(result.clean.value or 0.0), result.subject.classifier, result.subject.fingerprint


def _ranks(found: list[Result]) -> tuple[str, list[str]]:
    """Ranks of the rows that may be ranked, as ranges where the data cannot tell; measured and imported apart."""
    ranks = [""] * len(found)
    side = "certified" if any(result.certified is not None for result in found) else "empirical"
    origins = [_trust(result) for result in found]
    for origin in sorted(set(origins)):
        places = [
            i
            for i, result in enumerate(found)
            if origins[i] == origin and result.rankable and getattr(result, side) is not None
        ]
        if len(places) < 2:
            continue
        outcomes = []
        for place in places:
            result = found[place]
            radii = result.subject.radii(result.norm)
            robust = getattr(radii, side)(result.eps.value)
            outcomes.append(dict(zip(radii.sample.tolist(), robust.tolist(), strict=True)))
        for place, (best, worst) in zip(places, rank_ranges(outcomes), strict=True):
            ranks[place] = str(best) if best == worst else f"{best}–{worst}"
    return side, ranks


def _row(result: Result, rank: str) -> Row:
    subject = result.subject
    broken = attribution(subject, result.norm, result.eps.value, "falsified")
    proven = attribution(subject, result.norm, result.eps.value, "certified")
    return Row(
        result=result,
        name=subject.title,
        spec=subject.classifier,
        rank=rank,
        clean=percent(result.clean),
        clean_interval=interval(result.clean.interval),
        bracket=bracket(result),
        interval=interval(result.joint_interval),
        bar=bar_of(result),
        cost=cost(result),
        origin=_trust(result),
        manifests=tuple(reversed(subject.runs)),
        settled=tuple((name, proven.get(name, 0), broken.get(name, 0)) for name in sorted({*broken, *proven})),
    )


def _trust(result: Result) -> str:
    """The weakest trust level behind a row."""
    order = ("measured", "replayed", "imported", "aggregate", "self-reported")
    return max((manifest.trust for manifest in result.subject.runs), key=order.index)


def _pictures(sections: tuple[Section, ...], norm: Norm, right: float) -> list[Picture]:
    seen: dict[int, Picture] = {}
    for row in (row for section in sections for row in section.rows):
        subject = row.result.subject
        if id(subject) not in seen and len(seen) < _PICTURES:
            sides = {"certified": row.result.certified is not None, "empirical": row.result.empirical is not None}
            seen[id(subject)] = Picture(row.name, panel(curve(subject, norm), right, **sides))
    return list(seen.values())
