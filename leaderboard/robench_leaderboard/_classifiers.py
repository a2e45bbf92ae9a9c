"""What the page about a classifier shows: everything known about one function on one split."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from robench.bounds import Ceilings
from robench.metrics import (
    Curve,
    EvaluatorCounts,
    Flag,
    Result,
    Subject,
    attribution,
    clopper_pearson,
    curve,
    result_at,
    searched_at,
)
from robench.report import bracket, cost, headline, interval, percent
from robench.runs import ClassifierInfo, Display, Manifest, PluginInfo, Trust, folder_name
from robench.threat import Epsilon, Norm
from robench_leaderboard._bars import Bar, bar_of
from robench_leaderboard._boards import Figures
from robench_leaderboard._charts import LARGEST
from robench_leaderboard._curves import curves_of
from robench_leaderboard._gallery import Gallery, WitnessesOf, galleries_of
from robench_leaderboard._health import HealthTable, health_table
from robench_leaderboard._names import board_page, classifier_page, dataset_page
from robench_leaderboard._per_class import ClassTable, class_table
from robench_leaderboard._rows import trust_of
from robench_leaderboard._text import norm_name

__all__ = ["ClassifierView", "EpsView", "NormView", "RunView", "Settled", "Told", "classifier_views"]


@dataclass(frozen=True)
class EpsView:
    """One searched ε: the bracket in words and as a bar, and what did not end in a verdict.

    `open` counts correct samples neither certified nor broken, `numerical` those left open within rounding error.
    """

    result: Result
    bar: Bar
    bracket: str
    interval: str
    certified: str
    empirical: str
    ceiling: str | None
    worst: str | None
    open: int
    numerical: int
    cost: str


@dataclass(frozen=True)
class Settled:
    """How many samples an evaluator settled first, at each ε: (certified, falsified)."""

    evaluator: str
    counts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class NormView:
    """One norm.

    `board` is the page that compares others in it, None where no ε was asked for; `searched` says how the upper line
    was searched; `carried` is what evidence in other norms settles besides, (certified, falsified) at each ε; `health`
    what is known about the ground under the attacks.
    """

    norm: Norm
    board: str | None
    rows: tuple[EpsView, ...]
    chart: Markup | None
    searched: str
    settled: tuple[Settled, ...]
    carried: tuple[tuple[int, int], ...]
    evaluators: tuple[tuple[Epsilon, tuple[EvaluatorCounts, ...]], ...]
    classes: ClassTable | None
    gallery: Gallery
    health: HealthTable | None

    @property
    def average_radius(self) -> float | None:
        """The average certified radius; None where no certificate gave radii."""
        return next((row.result.average_radius for row in self.rows), None)


@dataclass(frozen=True)
class Told:
    """A flag, and where it holds: `everywhere`, or a list of norms and ε."""

    flag: Flag
    where: str


@dataclass(frozen=True)
class RunView:
    """A run, what measures it again, and what asks its witnesses again: commands, Python calls about Python objects."""

    manifest: Manifest
    repeat: str
    replay: str


@dataclass(frozen=True)
class ClassifierView:
    """One classifier on one split. `downloads` are the files about it: (address, what it holds)."""

    subject: Subject
    page: str
    dataset_page: str
    info: ClassifierInfo
    display: Display
    trust: Trust
    clean: str
    clean_interval: str
    classes: tuple[str, ...]
    norms: tuple[NormView, ...]
    flags: tuple[Told, ...]
    runs: tuple[RunView, ...]
    downloads: tuple[tuple[str, str], ...] = ()

    @property
    def abstained(self) -> int:
        """On how many clean inputs the classifier abstains."""
        return int(self.subject.abstained.sum())

    def class_name(self, label: int) -> str:
        """The name of a class; its number where names are not known."""
        return self.classes[label] if 0 <= label < len(self.classes) else "abstains" if label == -1 else str(label)

    def plugins(self, manifest: Manifest) -> list[PluginInfo]:
        """Every plugin behind a run, once."""
        parts = [manifest.classifier, manifest.dataset, *manifest.evaluators]
        found = {(one.name, one.distribution, one.version): one for part in parts for one in part.plugins}
        return [found[key] for key in sorted(found)]


def classifier_views(
    subjects: Sequence[Subject], figures: Figures, ceilings: Ceilings, witnesses_of: WitnessesOf
) -> list[ClassifierView]:
    """Return a view per subject.

    `figures` are theirs; `witnesses_of` gives the witness tables of a run, by its id, part by part.
    """
    datasets: dict[tuple[str, str], str] = {}
    for subject in subjects:
        key = subject.dataset_hash, subject.split
        datasets[key] = min(subject.dataset, datasets.get(key, subject.dataset))
    return [
        _view(subject, figures, datasets[subject.dataset_hash, subject.split], ceilings, witnesses_of)
        for subject in subjects
    ]


def _view(
    subject: Subject, figures: Figures, dataset: str, ceilings: Ceilings, witnesses_of: WitnessesOf
) -> ClassifierView:
    galleries = galleries_of(subject, witnesses_of)
    results = {
        norm: [figures[subject, norm, eps.value] for eps in epsilons] for norm, epsilons in subject.requested.items()
    }
    norms = tuple(_norm(subject, norm, results[norm], dataset, ceilings, galleries[norm]) for norm in results)
    every = [result for found in results.values() for result in found]
    newest = subject.runs[-1]
    infos = [one.classifier for one in subject.runs if one.classifier.fingerprint == subject.fingerprint]
    correct, n = int(subject.correct.sum()), len(subject.samples)
    return ClassifierView(
        subject=subject,
        page=classifier_page(subject),
        dataset_page=dataset_page(dataset, subject.dataset_hash, subject.split),
        info=(infos or [newest.classifier])[-1],
        display=_display(subject),
        trust=trust_of(every[0]) if every else newest.trust,
        clean=f"{100 * correct / n:.1f} %",
        clean_interval=interval(clopper_pearson(correct, n)),
        classes=subject.class_names,
        norms=norms,
        flags=tuple(_told(every)),
        runs=tuple(RunView(one, _repeat(one), _replay(one)) for one in reversed(subject.runs)),
    )


def _display(subject: Subject) -> Display:
    """What the runs say about the classifier, the newest word on each key."""
    fields: dict[str, str] = {}
    more: dict[str, str] = {}
    for manifest in subject.runs:
        shown = manifest.display
        for name in ("paper", "training_data", "licence"):
            if getattr(shown, name):
                fields[name] = getattr(shown, name)
        more |= shown.more
    return Display(name=subject.title[:500], **fields, more=dict(sorted(more.items())))


def _norm(
    subject: Subject, norm: Norm, results: list[Result], dataset: str, ceilings: Ceilings, gallery: Gallery
) -> NormView:
    line = curve(subject, norm)
    first = headline(results, norm)
    middle = 0 if first is None else [result.eps.value for result in results].index(first.value)
    place = f"in {norm_name(norm)} at ε = {results[middle].eps.text}" if results else ""
    classes = class_table(results, middle, place)
    rows = tuple(_row(result, classes, i) for i, result in enumerate(results))
    settled = tuple(_settled(subject, norm, results))
    return NormView(
        norm=norm,
        board=board_page(dataset, subject.dataset_hash, subject.split, norm) if results else None,
        rows=rows,
        chart=_chart(line, subject, results, ceilings),
        searched=_searched(line),
        settled=settled,
        carried=_carried(results, settled),
        evaluators=tuple((result.eps, result.evaluators) for result in results),
        classes=classes,
        gallery=gallery,
        health=health_table(results),
    )


def _row(result: Result, classes: ClassTable | None, i: int) -> EpsView:
    subject, eps = result.subject, result.eps.value
    radii, rows = subject.radii(result.norm), subject.rows
    here = (rows["norm"] == result.norm).to_numpy() & searched_at(rows["eps"].to_numpy(dtype=float), eps)
    low = percent(result.certified) if result.certified else "not asked"
    high = percent(result.empirical) if result.empirical else "not asked"
    return EpsView(
        result=result,
        bar=bar_of(result),
        bracket=bracket(result),
        interval=interval(result.joint_interval),
        certified=low,
        empirical=high,
        ceiling=f"{100 * result.ceiling.value:.1f} %" if result.ceiling else None,
        worst=_worst(classes, i),
        open=int((radii.empirical(eps) & ~radii.certified(eps)).sum()),
        numerical=int(rows.loc[here & rows["numerical"].to_numpy(), "sample"].nunique()),
        cost=cost(result),
    )


def _worst(classes: ClassTable | None, i: int) -> str | None:
    if classes is None:
        return None
    low, high = (
        None if worst is None else 100 * (worst.share.value or 0.0)
        for worst in (classes.worst[i].certified, classes.worst[i].empirical)
    )
    if low is not None and high is not None:
        return f"{low:.1f} – {high:.1f} %"
    return f"≥ {low:.1f} %" if low is not None else f"≤ {high:.1f} %" if high is not None else None


def _chart(line: Curve, subject: Subject, results: Sequence[Result], ceilings: Ceilings) -> Markup | None:
    """The curves up to the largest ε asked for; of radii alone, up to the largest one; of regions, none."""
    marks = [result.eps for result in results]
    largest = max((eps.value for eps in marks), default=max(line.eps))
    if subject.regions or not 0 < largest <= LARGEST:  # a region has no axis
        return None
    return curves_of(line, results or [result_at(subject, line.norm, Epsilon.parse(largest))], ceilings, largest, marks)


def _searched(line: Curve) -> str:
    if line.everywhere:
        return "The upper line is solid: a minimum-norm search looked at every ε."
    if line.searched:
        return "The upper line is dashed where nothing searched; dots mark each ε that an attack really searched."
    return "No attack searched in this norm: what lies above the certified part is open."


def _settled(subject: Subject, norm: Norm, results: Sequence[Result]) -> list[Settled]:
    found: dict[str, list[tuple[int, int]]] = {}
    for i, result in enumerate(results):
        proven = attribution(subject, norm, result.eps.value, "certified")
        broken = attribution(subject, norm, result.eps.value, "falsified")
        for name in {*proven, *broken}:
            counts = found.setdefault(name, [(0, 0)] * len(results))
            counts[i] = proven.get(name, 0), broken.get(name, 0)
    told = [name for manifest in subject.runs for info in manifest.evaluators for name in info.names]
    order = {name: place for place, name in reversed(list(enumerate(told)))}
    names = sorted(found, key=lambda name: (name != "clean", order.get(name, len(order)), name))
    return [Settled(name, tuple(found[name])) for name in names]


def _carried(results: Sequence[Result], settled: Sequence[Settled]) -> tuple[tuple[int, int], ...]:
    """What evidence in other norms settles at each ε beyond that, () where nothing is: (certified, falsified)."""
    out = []
    for i, result in enumerate(results):
        proven = result.certified.count if result.certified else 0
        broken = result.n - result.empirical.count if result.empirical else 0
        counted = [sum(entry.counts[i][side] for entry in settled) for side in (0, 1)]
        out.append((max(0, proven - counted[0]), max(0, broken - counted[1])))
    return tuple(out) if any(map(any, out)) else ()


def _told(results: Sequence[Result]) -> list[Told]:
    """Every flag once, with where it holds."""
    places: dict[Flag, list[str]] = {}
    for result in results:
        for flag in result.flags:
            places.setdefault(flag, []).append(f"{norm_name(result.norm)} {result.eps.text}")
    return [
        Told(flag, "everywhere" if len(found) == len(results) else ", ".join(found))
        for flag, found in sorted(places.items())
    ]


_WORDS = {"-m": "model", "-d": "dataset", "-a": "attacks", "-c": "certifiers"}


def _repeat(manifest: Manifest) -> str:
    """The run's command; for Python objects, which a command cannot name, the same call from Python."""
    evaluators = [info.canonical for info in manifest.evaluators]
    objects = _objects(manifest)
    if not (objects or any(name.startswith("python:") for name in evaluators)):
        return manifest.command
    try:
        words = shlex.split(manifest.command)[2:]
    except ValueError:
        return ""
    given: dict[str, list[str]] = {}
    for option, value in zip(words[::2], words[1::2], strict=False):
        given.setdefault(_WORDS.get(option, option.removeprefix("--")), []).append(value)
    if not {"model", "dataset"} <= given.keys():
        return ""
    items = []
    for name, values in given.items():
        # An object stands there without quotes, by its class.
        shown = [value.removeprefix("python:") if value.startswith("python:") else repr(value) for value in values]
        shown = [name] if name in objects else shown
        shown = values if name in ("seed", "draws") else shown
        one = shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]"
        items.append(one if name in ("model", "dataset") else f"{name}={one}")
    return f"robench.evaluate({', '.join(items)})"


def _objects(manifest: Manifest) -> list[str]:
    """Which of model and dataset were Python objects."""
    names = {"model": manifest.classifier.canonical, "dataset": manifest.dataset.canonical}
    return [what for what, name in names.items() if name.startswith("python:")]


def _replay(manifest: Manifest) -> str:
    dataset = folder_name(manifest.dataset.canonical, manifest.dataset.hash)
    classifier = folder_name(manifest.classifier.canonical, manifest.classifier.fingerprint)
    folder = f"RESULTS/{dataset}/{classifier}/{manifest.run}"
    if objects := _objects(manifest):
        given = ", ".join(f"{name}={name}" for name in objects)
        return f"robench.replay(robench.runs.Run.open({folder!r}), {given})"
    return f"robench replay {folder}"
