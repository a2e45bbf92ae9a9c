"""What the method page tells: flags and trust levels with their meanings, and who spoke in these results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robench.metrics import BLOCKING, Result
from robench.registry import load_plugins

if TYPE_CHECKING:
    from robench.bounds import BoundRun
    from robench.runs import PluginInfo

__all__ = ["FLAGS", "TRUST", "Meaning", "Speaker", "speakers_of"]

_KINDS = {
    "attack": ("attacks", "attack"),
    "certificate": ("certifiers", "certifier"),
    "verifier": ("certifiers", "verifier"),
    "bound": ("bounds", "bound"),
}
_MOST_FORMS = 12


@dataclass(frozen=True)
class Meaning:
    """A code and what it says; `blocks` where a row that carries it has no rank."""

    code: str
    text: str
    blocks: bool = False


def _flag(code: str, text: str) -> Meaning:
    return Meaning(code, text, code in BLOCKING)


FLAGS: tuple[Meaning, ...] = (
    _flag(
        "above-ceiling",
        "More samples are unbroken than any classifier can be robust on: the attacks are provably too weak, by at "
        "least the number of samples that the flag tells.",
    ),
    _flag(
        "audit-failed",
        "Attacks trusted certificates, and an audited one turned out wrong: neither figure can be trusted.",
    ),
    _flag(
        "chance-contradictions",
        "More statistical bounds contradict each other, or a ceiling, than their error rates explain (binomial "
        "quantile at 0.999).",
    ),
    _flag("confidence-unknown", "Rests on statistical evidence whose source does not tell its confidence."),
    _flag(
        "contradictions",
        "A sample is certified beyond a verified misclassified point, or more samples are certified than the ceiling "
        "allows: one of the two tools is wrong. robench check names the samples.",
    ),
    _flag("coverage", "Some correct samples that nothing settles were never given to an attack, or to a certifier."),
    _flag("disputed", "Rows disagree about the prediction on a clean sample."),
    _flag(
        "errors",
        "Some samples ended in error: they count as unbroken and not certified, so the bracket still holds.",
    ),
    _flag(
        "health",
        "What attacks measured on their way says that gradients mislead here, so the empirical accuracy may be too "
        "high; the reasons stand with the row.",
    ),
    _flag("imported", "Published by others and not measured here; the trust level says how it was published."),
    _flag("incomplete", "A run was interrupted and not resumed."),
    _flag(
        "numerical",
        "Some samples are left open because a margin lies within the rounding error of the decision boundary.",
    ),
    _flag("one-sided", "Only attacks, or only certifiers, were asked."),
    _flag("opaque", "The classifier has no graph: the evidence is about the map as it was executed."),
    _flag("probabilistic", "Rests on statements that hold with high confidence, not surely (randomized smoothing)."),
    _flag(
        "randomized",
        "The classifier draws at inference: accuracies are expected ones over its draws, in a table of their own.",
    ),
    _flag(
        "trusted",
        "Attacks skipped samples with a deterministic certificate, but for a random share that was audited: such "
        "samples are unbroken because they are certified, and no cost is claimed.",
    ),
    _flag("unsearched", "Nothing was asked at this ε itself: the values carry over from other budgets or norms."),
)
"""Every code that the figures can carry; runs may bring others of their own."""

TRUST: tuple[Meaning, ...] = (
    Meaning("measured", "Evaluated by robench; every counterexample was verified and is kept."),
    Meaning("replayed", "Others' counterexamples, asked again of the classifier itself."),
    Meaning("imported", "Published per-sample results, taken as they are."),
    Meaning("aggregate", "Published totals without their samples."),
    Meaning("self-reported", "Reported by the authors of the classifier."),
)
"""Trust levels, the strongest first. A row has that of its weakest run."""


@dataclass(frozen=True)
class Speaker:
    """An attack, certifier, verifier or bound: its one-line summary, its plugin, and the forms it was asked in."""

    kind: str
    name: str
    summary: str
    plugin: str
    forms: tuple[str, ...]
    more: int


def speakers_of(results: Iterable[Result], bounds: Sequence[BoundRun]) -> list[Speaker]:
    """Return everything that speaks in these results, by kind and name.

    The summary is that of the installed plugin of this name; it is empty where there is none.
    """
    forms: dict[tuple[str, str], set[str]] = {}
    plugins: dict[tuple[str, str], set[str]] = {}
    for result in results:
        for counts in result.evaluators:
            if counts.kind in _KINDS:
                forms.setdefault((counts.kind, _name(counts.evaluator)), set()).add(counts.evaluator)
        for manifest in result.subject.runs:
            for info in manifest.evaluators:
                plugins.setdefault((info.kind, _name(info.canonical)), set()).update(_versions(info.plugins))
    for run in bounds:
        key = "bound", _name(run.manifest.bound.canonical)
        forms.setdefault(key, set()).add(run.manifest.bound.canonical)
        plugins.setdefault(key, set()).update(_versions(run.manifest.bound.plugins))
    installed = load_plugins()
    summaries = {
        kind: {entry.name: entry.summary for entry in installed.entries(registered)}
        for kind, (registered, _) in _KINDS.items()
    }
    order = list(_KINDS)
    return [
        Speaker(
            kind=_KINDS[kind][1],
            name=name,
            summary=summaries[kind].get(name, ""),
            plugin=", ".join(sorted(plugins.get((kind, name), ()))),
            forms=tuple(sorted(asked)[:_MOST_FORMS]),
            more=max(0, len(asked) - _MOST_FORMS),
        )
        for (kind, name), asked in sorted(forms.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    ]


def _name(spec: str) -> str:
    """The name that a spec begins with."""
    return re.split(r"[:|#\s]", spec, maxsplit=1)[0][:100] or spec[:100]


def _versions(plugins: Iterable[PluginInfo]) -> set[str]:
    return {f"{one.distribution} {one.version}" for one in plugins}
