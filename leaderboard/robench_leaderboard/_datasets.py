"""What the page about a dataset's split shows: its samples, its boards, and what no classifier can reach on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from robench.bounds import BoundRow, BoundRun, Ceilings
from robench.metrics import Subject, curve
from robench.runs import DatasetInfo
from robench.threat import NORMS, Norm
from robench_leaderboard._charts import LARGEST, ceiling_chart
from robench_leaderboard._names import board_page, classifier_page, dataset_page
from robench_leaderboard._separation import Separation, separation_of
from robench_leaderboard._text import norm_name, plain

__all__ = ["ClassCount", "DatasetView", "Limit", "NormLimits", "SampleSet", "dataset_views"]


@dataclass(frozen=True)
class Limit:
    """One row of a bound: what it says at one ε, and how many samples any classifier must get wrong (at least)."""

    row: BoundRow
    bound: str
    run: str
    n: int
    errors: str | None
    percent: str


@dataclass(frozen=True)
class NormLimits:
    """What bounds say in one norm, in words and by ε.

    `sources` are the bounds, each with source and assumptions; `reached`: the chart shows what is certified too.
    """

    norm: Norm
    sentence: str
    limits: tuple[Limit, ...]
    sources: tuple[tuple[str, str, str], ...]
    chart: Markup | None
    reached: bool
    separation: Separation | None


@dataclass(frozen=True)
class SampleSet:
    """The samples that some bounds are about, and hold for; `shared` classifiers were evaluated on exactly these."""

    samples_hash: str
    n: int
    selection: str
    shared: int
    norms: tuple[NormLimits, ...]


@dataclass(frozen=True)
class ClassCount:
    """A class, and how many of the samples evaluated here belong to it."""

    name: str
    n: int


@dataclass(frozen=True)
class DatasetView:
    """One split of a dataset. `n` samples of it were evaluated; `most` is the largest count of a class."""

    dataset: str
    dataset_hash: str
    split: str
    page: str
    info: DatasetInfo
    shape: tuple[int, ...]
    n: int
    counts: tuple[ClassCount, ...]
    boards: tuple[tuple[Norm, str, int], ...]
    classifiers: tuple[tuple[str, str], ...]
    sets: tuple[SampleSet, ...]

    @property
    def most(self) -> int:
        """The largest count of a class."""
        return max((count.n for count in self.counts), default=0)


def dataset_views(subjects: Sequence[Subject], bounds: Sequence[BoundRun], ceilings: Ceilings) -> list[DatasetView]:
    """Return a view per split that a classifier or a bound is about, sorted by name, split and hash."""
    keys = {(one.dataset_hash, one.split) for one in subjects}
    keys |= {(run.manifest.dataset.hash, run.manifest.dataset.split) for run in bounds}
    views = []
    for key in keys:
        about = [one for one in subjects if (one.dataset_hash, one.split) == key]
        mine = [run for run in bounds if (run.manifest.dataset.hash, run.manifest.dataset.split) == key]
        views.append(_view(about, sorted(mine, key=lambda run: run.manifest.run), ceilings))
    return sorted(views, key=lambda view: (view.dataset, view.split, view.dataset_hash))


def _view(about: Sequence[Subject], bounds: Sequence[BoundRun], ceilings: Ceilings) -> DatasetView:
    # What robench measured itself knows most; of equals the newest.
    manifests = sorted((m for one in about for m in one.runs), key=lambda m: (m.origin == "measured", m.run))
    infos = [m.dataset for m in manifests] + [run.manifest.dataset for run in bounds]
    info = infos[-1] if not manifests else manifests[-1].dataset
    names = next((one.classes for one in (info, *reversed(infos)) if one.classes), ())
    dataset = min((one.dataset for one in about), default=info.canonical)
    shapes = [m.classifier.input_shape for m in manifests if m.classifier.input_shape]
    counts, n = _counts(about, names)
    return DatasetView(
        dataset=dataset,
        dataset_hash=info.hash,
        split=info.split,
        page=dataset_page(dataset, info.hash, info.split),
        info=info,
        shape=shapes[-1] if shapes else (),
        n=n,
        counts=counts,
        boards=tuple(
            (norm, board_page(dataset, info.hash, info.split, norm), asked)
            for norm in NORMS
            if (asked := sum(bool(one.requested.get(norm)) for one in about))
        ),
        classifiers=tuple(
            sorted(((one.title, classifier_page(one)) for one in about), key=lambda one: (one[0].lower(), one[1]))
        ),
        sets=tuple(_sets(about, bounds, ceilings)),
    )


def _counts(about: Sequence[Subject], names: Sequence[str]) -> tuple[tuple[ClassCount, ...], int]:
    labels: dict[int, int] = {}
    for subject in about:
        labels.update(zip(subject.samples.tolist(), subject.labels.tolist(), strict=True))
    found, sizes = np.unique(np.array(list(labels.values()), dtype=np.int64), return_counts=True)
    by_label = dict(zip(found.tolist(), sizes.tolist(), strict=True))
    places = sorted({*range(len(names)), *by_label})
    return tuple(
        ClassCount(names[label] if 0 <= label < len(names) else str(label), by_label.get(label, 0)) for label in places
    ), len(labels)


def _sets(about: Sequence[Subject], bounds: Sequence[BoundRun], ceilings: Ceilings) -> list[SampleSet]:
    """The samples that bounds are about, those that most classifiers share first."""
    hashes = {run.manifest.dataset.samples_hash or "" for run in bounds}
    out = []
    for samples_hash in hashes:
        mine = [run for run in bounds if run.manifest.dataset.samples_hash == samples_hash]
        info = mine[-1].manifest.dataset
        out.append(
            SampleSet(
                samples_hash=samples_hash,
                n=info.n,
                selection=info.selection,
                shared=sum(subject.samples_hash == samples_hash for subject in about),
                norms=tuple(
                    _limits(
                        norm,
                        [run for run in mine if run.manifest.norm == norm],
                        [one for one in about if one.samples_hash == samples_hash],
                        ceilings,
                    )
                    for norm in NORMS
                    if any(run.manifest.norm == norm for run in mine)
                ),
            )
        )
    return sorted(out, key=lambda one: (-one.shared, -one.n, one.samples_hash))


def _limits(norm: Norm, runs: Sequence[BoundRun], about: Sequence[Subject], ceilings: Ceilings) -> NormLimits:
    info = runs[-1].manifest.dataset
    steps = ceilings.curve(info.hash, info.split, info.samples_hash or "", norm)
    limits = [
        Limit(row, run.manifest.bound.canonical, run.manifest.run, info.n, _errors(row), f"{100 * row.value:.2f} %")
        for run in runs
        for row in run.rows
    ]
    limits.sort(key=lambda one: (one.row.eps.value, one.row.value, one.bound, one.run))
    separation = next((found for run in reversed(runs) if (found := separation_of(run))), None)
    texts = {row.row.eps.value: row.row.eps.text for row in limits}
    reached = _reached(about, norm)
    return NormLimits(
        norm=norm,
        sentence=_sentence(norm, steps, texts, info.n, separation),
        limits=tuple(limits),
        sources=tuple(sorted({(one.bound, one.row.source, one.row.assumptions) for one in limits})),
        chart=_chart(norm, steps, texts, info.n, reached),
        reached=bool(reached),
        separation=separation,
    )


def _errors(row: BoundRow) -> str | None:
    """How many samples must be wrong, where the bound tells."""
    told = (row.detail or {}).get("errors")
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None
    return f"{told:.1f}".removesuffix(".0")


def _sentence(
    norm: Norm, steps: Sequence[tuple[float, float]], texts: dict[float, str], n: int, separation: Separation | None
) -> str:
    """What the bounds mean, in two sentences."""
    below = [(eps, value) for eps, value in steps if value < 1]
    words = []
    if below:
        (first, value), (last, lowest) = below[0], below[-1]
        more = f", and on no more than {100 * lowest:.2f} % at {texts[last]}" if lowest < value else ""
        words.append(
            f"No classifier, however it was trained, is robust on more than {100 * value:.2f} % of these {n:,} samples "
            f"at ε = {texts[first]} in {norm_name(norm)}{more}."
        )
    elif steps:
        words.append(
            f"Up to ε = {texts[steps[-1][0]]} in {norm_name(norm)} nothing is known to keep a classifier from being "
            f"robust on all of these {n:,} samples."
        )
    if separation is not None:
        closest = separation.pairs[0]
        words.append(
            f"Two samples no more than 2ε apart share a point between them, and no answer there is right for both "
            f"classes: the closest ones here, {plain(closest.one, 30)} and {plain(closest.other, 30)}, are "
            f"{closest.distance:.4g} apart and meet at ε = {closest.distance / 2:.4g}."
        )
    return " ".join(words)


def _reached(about: Sequence[Subject], norm: Norm) -> tuple[tuple[float, float], ...]:
    """The highest certified accuracy of any classifier at each ε; () where no certifier was asked."""
    budgets = [one for one in about if norm in one.requested and one.regions is None]
    lines = [line for one in budgets if any((line := curve(one, norm)).certified)]
    if not lines:
        return ()
    places = np.unique(np.concatenate([line.eps for line in lines]))
    each = [
        np.asarray(line.certified)[np.searchsorted(line.eps, places, side="right") - 1] for line in lines
    ]  # every curve starts at 0
    return tuple(zip(places.tolist(), np.max(each, axis=0).tolist(), strict=True))


def _chart(
    norm: Norm,
    steps: Sequence[tuple[float, float]],
    texts: dict[float, str],
    n: int,
    reached: Sequence[tuple[float, float]],
) -> Markup | None:
    if not steps or steps[-1][0] > LARGEST:
        return None
    said = "; ".join(f"{texts[eps]}: {100 * value:.2f} %" for eps, value in steps[:12])
    return ceiling_chart(
        steps,
        reached,
        1.15 * steps[-1][0],
        [(eps, texts[eps]) for eps, _ in steps],
        title=f"size ε of the perturbation in {norm_name(norm)}",
        words=f"Highest robust accuracy that any classifier can have on these {n:,} samples, at ε = {said}.",
    )
