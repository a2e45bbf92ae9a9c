"""What the page about a dataset's split shows: its samples, its boards, and what no classifier can reach on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from robench.bounds import BoundRow, BoundRun, Ceilings
from robench.metrics import Subject
from robench.report import safe
from robench.runs import DatasetInfo
from robench.threat import NORMS, Norm
from robench_leaderboard._class_chart import MOST_CLASSES, separation_chart
from robench_leaderboard._curve_chart import ceiling_chart
from robench_leaderboard._names import board_page, classifier_page, dataset_page
from robench_leaderboard._per_class import labels_of
from robench_leaderboard._text import norm_name

__all__ = ["ClassCount", "DatasetView", "Limit", "Pair", "SampleSet", "Separation", "dataset_views"]

_CLOSEST = 10


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
class Pair:
    """Two classes and the smallest distance between their samples; at half of it they meet."""

    one: str
    other: str
    distance: float


@dataclass(frozen=True)
class Separation:
    """Smallest distances between classes in one norm, the closest pairs first; no chart of very many classes."""

    norm: Norm
    pairs: tuple[Pair, ...]
    hidden: int
    chart: Markup | None
    run: str


@dataclass(frozen=True)
class NormLimits:
    """What bounds say in one norm, in one sentence and by ε."""

    norm: Norm
    sentence: str
    limits: tuple[Limit, ...]
    chart: Markup | None
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
            if (asked := sum(norm in one.requested for one in about))
        ),
        classifiers=tuple(
            sorted(((one.title, classifier_page(one)) for one in about), key=lambda one: (one[0].lower(), one[1]))
        ),
        sets=tuple(_sets(about, bounds, ceilings)),
    )


def _counts(about: Sequence[Subject], names: Sequence[str]) -> tuple[tuple[ClassCount, ...], int]:
    labels: dict[int, int] = {}
    for subject in about:
        labels.update(zip(subject.samples.tolist(), labels_of(subject).tolist(), strict=True))
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
                    _limits(norm, [run for run in mine if run.manifest.norm == norm], ceilings)
                    for norm in NORMS
                    if any(run.manifest.norm == norm for run in mine)
                ),
            )
        )
    return sorted(out, key=lambda one: (-one.shared, -one.n, one.samples_hash))


def _limits(norm: Norm, runs: Sequence[BoundRun], ceilings: Ceilings) -> NormLimits:
    info = runs[-1].manifest.dataset
    steps = ceilings.curve(info.hash, info.split, info.samples_hash or "", norm)
    limits = [
        Limit(row, run.manifest.bound.canonical, run.manifest.run, info.n, _errors(row), f"{100 * row.value:.2f} %")
        for run in runs
        for row in run.rows
    ]
    limits.sort(key=lambda one: (one.row.eps.value, one.row.value, one.bound, one.run))
    separation = next((found for run in reversed(runs) if (found := _separation(norm, run))), None)
    texts = {row.row.eps.value: row.row.eps.text for row in limits}
    return NormLimits(
        norm=norm,
        sentence=_sentence(norm, steps, texts, info.n, separation),
        limits=tuple(limits),
        chart=_chart(norm, steps, texts, info.n),
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
        eps, value = below[0]
        last, lowest = below[-1]
        more = f", and on no more than {100 * lowest:.2f} % at {texts[last]}" if lowest < value else ""
        words.append(
            f"Whatever it is and however it was trained, no classifier is robust on more than {100 * value:.2f} % of "
            f"these {n:,} samples at ε = {texts[eps]} in {norm_name(norm)}{more}: some of them come within 2ε of a "
            "sample of another class, and no answer in the middle is right for both."
        )
    elif steps:
        words.append(
            f"Up to ε = {texts[steps[-1][0]]} in {norm_name(norm)} these {n:,} samples alone forbid nothing: "
            "a classifier that is robust on all of them may exist."
        )
    if separation and separation.pairs:
        closest = separation.pairs[0]
        words.append(
            f"The closest samples of different classes are {closest.distance:.4g} apart ({_short(closest.one)} and "
            f"{_short(closest.other)}), so below ε = {closest.distance / 2:.4g} nothing is lost."
        )
    return " ".join(words)


def _short(name: str) -> str:
    plain = safe(name)
    return plain if len(plain) <= 30 else f"{plain[:29]}…"


def _chart(norm: Norm, steps: Sequence[tuple[float, float]], texts: dict[float, str], n: int) -> Markup | None:
    if not steps:
        return None
    said = "; ".join(f"{texts[eps]}: {100 * value:.2f} %" for eps, value in steps[:12])
    return ceiling_chart(
        [("ceiling", steps)],
        1.15 * steps[-1][0],
        [(eps, texts[eps]) for eps, _ in steps],
        title=f"size ε of the perturbation in {norm_name(norm)}",
        words=f"Highest robust accuracy that any classifier can have on these {n:,} samples, at ε = {said}.",
    )


def _separation(norm: Norm, run: BoundRun) -> Separation | None:
    """The distances between classes among a bound's facts, if they are there and have the form that they should."""
    told = run.manifest.facts.get("separation")
    if not isinstance(told, dict):
        return None
    names, table = told.get("classes"), told.get("distance")
    if not _is_table(names, table):
        return None
    assert isinstance(names, list) and isinstance(table, list)
    pairs = [
        Pair(names[i], names[j], float(table[i][j]))
        for i in range(len(names))
        for j in range(i)
        if table[i][j] is not None
    ]
    pairs.sort(key=lambda pair: (pair.distance, pair.one, pair.other))
    if not pairs:
        return None
    closest = pairs[0]
    words = (
        f"Smallest distances in {norm_name(norm)} between the samples of {len(names)} classes; the closest are "
        f"{_short(closest.one)} and {_short(closest.other)}, {closest.distance:.4g} apart."
    )
    chart = separation_chart(names, table, words=words) if 2 <= len(names) <= MOST_CLASSES else None
    return Separation(norm, tuple(pairs[:_CLOSEST]), max(0, len(pairs) - _CLOSEST), chart, run.manifest.run)


def _is_table(names: Any, table: Any) -> bool:
    """Whether facts hold class names and a square table of distances or nulls: they may come from anybody."""
    if not (isinstance(names, list) and isinstance(table, list) and len(table) == len(names)):
        return False
    return all(isinstance(name, str) for name in names) and all(
        isinstance(line, list)
        and len(line) == len(names)
        and all(one is None or (isinstance(one, int | float) and not isinstance(one, bool)) for one in line)
        for line in table
    )
