"""What a board shows at one ε: a row per classifier, ranked where the data can tell, every figure in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robench.metrics import Result, Share, rank_ranges
from robench.report import cost, interval, percent
from robench.runs import Trust
from robench.threat import Epsilon
from robench_leaderboard._bars import Bar, bar_of
from robench_leaderboard._names import classifier_page

__all__ = ["Figure", "Limit", "Row", "Section", "section_of", "trust_of"]

_TRUST: tuple[Trust, ...] = ("measured", "replayed", "imported", "aggregate", "self-reported")


@dataclass(frozen=True)
class Figure:
    """An accuracy as the page writes it; `value` orders it."""

    text: str
    interval: str
    value: float


@dataclass(frozen=True)
class Row:
    """One classifier at one ε. `rank` is empty where it has none; a `twin` looks like another row but for its hash."""

    result: Result
    name: str
    page: str
    rank: str
    best: int | None
    worst: int | None
    trust: str
    bar: Bar
    clean: Figure
    certified: Figure | None
    empirical: Figure | None
    ceiling: str | None
    passes: float | None
    passes_text: str
    time: str
    twin: bool

    @property
    def gap(self) -> float:
        """Width of the open part, in per cent."""
        return self.bar.open

    @property
    def doubted(self) -> bool:
        """Whether the attacks behind the empirical accuracy are flagged."""
        return self.result.health is not None and self.result.health.grade == "flagged"

    @property
    def words(self) -> str:
        """What the filter looks through besides the name and the spec."""
        return " ".join([self.trust, *(flag.code for flag in self.result.flags)])


@dataclass(frozen=True)
class Limit:
    """A ceiling that some rows of a section share: they were evaluated on the same `n` samples."""

    value: float
    bound: str
    n: int
    rows: int


@dataclass(frozen=True)
class Section:
    """All classifiers of a board at one ε.

    `by` says by which accuracy they are ranked, None where fewer than two can be; `n` is the number of samples, None
    where rows differ.
    """

    eps: Epsilon
    anchor: str
    by: str | None
    n: int | None
    rows: tuple[Row, ...]
    limits: tuple[Limit, ...]

    @property
    def radii(self) -> bool:
        """Whether a row has an average certified radius."""
        return any(row.result.average_radius is not None for row in self.rows)

    @property
    def uneven(self) -> bool:
        """Whether rows differ in their ceiling, or in having one."""
        return bool(self.limits) and (len(self.limits) > 1 or self.limits[0].rows < len(self.rows))


def section_of(results: Sequence[Result], eps: Epsilon) -> Section:
    """Return the section of the results at one (norm, ε), best first."""
    found = sorted(results, key=_order)
    by, ranks = _ranks(found)
    sizes = {result.n for result in found}
    labels = [_label(result) for result in found]
    twins = {label for label in labels if labels.count(label) > 1}
    return Section(
        eps=eps,
        anchor="eps-" + eps.text.replace("/", "-").replace("+", ""),
        by=by if any(ranks) else None,
        n=sizes.pop() if len(sizes) == 1 else None,
        rows=tuple(_row(result, rank, _label(result) in twins) for result, rank in zip(found, ranks, strict=True)),
        limits=_limits(found),
    )


def trust_of(result: Result) -> Trust:
    """Return the weakest trust level behind a row."""
    return max((manifest.trust for manifest in result.subject.runs), key=_TRUST.index)


def _order(result: Result) -> tuple[float, float, float, str, str]:
    """Best first: by what is proven, then by what is possible."""
    proven = -1.0 if result.certified is None else result.certified.value or 0.0
    possible = -1.0 if result.empirical is None else result.empirical.value or 0.0
    return -proven, -possible, -(result.clean.value or 0.0), result.subject.classifier, result.subject.fingerprint


def _ranks(found: list[Result]) -> tuple[str, list[tuple[int, int] | None]]:
    """Ranks of the rows that may be ranked, as ranges where the data cannot tell; each trust level on its own."""
    ranks: list[tuple[int, int] | None] = [None] * len(found)
    side = "certified" if any(result.certified is not None for result in found) else "empirical"
    levels = [trust_of(result) for result in found]
    for level in sorted(set(levels)):
        places = [
            i
            for i, result in enumerate(found)
            if levels[i] == level and result.rankable and getattr(result, side) is not None
        ]
        if len(places) < 2:
            continue
        outcomes = []
        for place in places:
            result = found[place]
            radii = result.subject.radii(result.norm)
            robust = getattr(radii, side)(result.eps.value)
            outcomes.append(dict(zip(radii.sample.tolist(), robust.tolist(), strict=True)))
        for place, ends in zip(places, rank_ranges(outcomes), strict=True):
            ranks[place] = ends
    return side, ranks


def _limits(found: list[Result]) -> tuple[Limit, ...]:
    counted: dict[tuple[float, str, int], int] = {}
    for result in found:
        if result.ceiling is not None:
            key = (result.ceiling.value, result.ceiling.bound, result.n)
            counted[key] = counted.get(key, 0) + 1
    return tuple(Limit(*key, rows) for key, rows in sorted(counted.items()))


def _label(result: Result) -> tuple[str, str]:
    return result.subject.title, result.subject.classifier


def _row(result: Result, rank: tuple[int, int] | None, twin: bool) -> Row:
    subject = result.subject
    passes, _, time = cost(result).partition(" passes a sample, ")
    return Row(
        result=result,
        name=subject.title,
        page=classifier_page(subject),
        rank="" if rank is None else str(rank[0]) if rank[0] == rank[1] else f"{rank[0]}–{rank[1]}",
        best=None if rank is None else rank[0],
        worst=None if rank is None else rank[1],
        trust=trust_of(result),
        bar=bar_of(result),
        clean=_figure(result.clean),
        certified=None if result.certified is None else _figure(result.certified),
        empirical=None if result.empirical is None else _figure(result.empirical),
        ceiling=None if result.ceiling is None else f"{100 * result.ceiling.value:.1f} %",
        passes=None if result.audit else (result.forwards + result.backwards) / max(1, result.n),
        passes_text=passes,
        time=time,
        twin=twin,
    )


def _figure(share: Share) -> Figure:
    return Figure(percent(share), interval(share.interval), share.value or 0.0)
