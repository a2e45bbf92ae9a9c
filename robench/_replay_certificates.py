"""Certificates again: proofs are made anew, statistical ones derived from their counts, and a few drawn anew."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from robench import registry
from robench._replay_redraw import ROUNDING, Redraw
from robench.contracts import Certifier
from robench.streams import Stream
from robench.text import one_line
from robench.threat import Threat, parse_norm

if TYPE_CHECKING:
    from robench._replay_asker import Asker, Row
    from robench.runs import Manifest

__all__ = ["replay_certificates"]


def replay_certificates(
    asker: Asker, manifest: Manifest, rows: Sequence[Row], search: Sequence[Path], redraw: Redraw
) -> None:
    """Derive again whatever `rows` claim as a lower bound."""
    for spec, group in _groups(rows, "evaluator"):
        if spec.startswith("python:"):
            asker.result.not_replayed[spec] = "the certifier was a Python object"
            continue
        proofs = [row for row in group if row["confidence"] == 1.0]
        others = [row for row in group if row["confidence"] != 1.0]
        try:
            certifier = registry.load_plugins().resolve("certifiers", spec, search=search).parts[0].value
        except Exception as error:  # a plugin's
            for row in group:
                asker.found("certificate", row, f"cannot be derived again: {one_line(error)}")
            continue
        _proofs(asker, certifier, spec, proofs, manifest.request.seed)
        if others and hasattr(certifier, "rederive"):
            _statistical(asker, certifier, spec, others, redraw)
        elif others:
            asker.result.not_replayed[spec] = "statistical"


def _groups(rows: Sequence[Row], *names: str) -> Iterator[tuple[Any, list[Row]]]:
    """Yield the rows that agree in these columns: the value of the only column or the tuple of values, and the rows."""

    def values(row: Row) -> Any:
        return tuple(row[name] for name in names) if len(names) > 1 else row[names[0]]

    for value, group in groupby(sorted(rows, key=lambda row: (str(values(row)), row["sample"])), values):
        yield value, list(group)


def _proofs(asker: Asker, certifier: Certifier, spec: str, rows: Sequence[Row], seed: int) -> None:
    """Certify again."""
    for (norm, eps), group in _groups(rows, "norm", "eps"):
        for part in asker.batches(group):
            try:
                threat = Threat(parse_norm(str(norm)), eps, asker.data.whole.domain)
                _certified(asker, certifier, spec, threat, part, seed)
            except Exception as error:  # a plugin's, or of a row that no run could have written
                for row in part:
                    asker.found("certificate", row, f"cannot be derived again: {one_line(error)}")
            asker.result.certificates += len(part)
            asker.asked()


def _certified(asker: Asker, certifier: Certifier, spec: str, threat: Threat, rows: list[Row], seed: int) -> None:
    x, y = asker.inputs(rows)
    stream = Stream.for_samples(seed, spec, [row["sample"] for row in rows], x.device)
    made = certifier.certify(asker.classifier, x, y, threat, stream)
    surety = [1.0] * len(rows) if made.confidence is None else made.confidence.tolist()
    for row, lower, status, sure in zip(rows, made.lower.tolist(), made.status, surety, strict=True):
        if status != "certified" or not lower >= row["lower"] * (1 - ROUNDING):
            asker.found("certificate", row, f"recorded lower {row['lower']!r}, now {status} {lower!r}")
        elif sure < 1:
            asker.found("certificate", row, f"recorded as a proof, now with confidence {sure!r}")


def _statistical(asker: Asker, certifier: Certifier, spec: str, rows: list[Row], redraw: Redraw) -> None:
    """Derive every row from its counts, and hold a random subset of the counts against fresh draws."""
    sound: list[Row] = []
    for part in asker.batches(rows):
        for row, label in zip(part, asker.inputs(part)[1].tolist(), strict=True):
            if text := _underived(asker, certifier, row, label):
                asker.found("certificate", row, text)
            else:
                sound.append(row)
        asker.result.rederived += len(part)
        asker.asked()
    if not hasattr(certifier, "recount"):
        asker.result.not_replayed[spec] = "its draws: it counts none anew"
        return
    for (norm, eps), group in _groups(redraw.chosen(sound), "norm", "eps"):
        threat = Threat(parse_norm(str(norm)), eps, asker.data.whole.domain)
        for part in asker.batches(group):
            for row, why in zip(part, _recounted(asker, certifier, threat, part, redraw), strict=True):
                if why is not None:
                    asker.found("certificate", row, why)
            asker.result.redrawn += len(part)
            asker.asked()


def _underived(asker: Asker, certifier: Any, row: Row, label: int) -> str | None:
    """Return what the counts of a row do not carry: its bound, its class or its confidence."""
    alpha = getattr(certifier, "alpha", None)
    try:
        detail = _counts(row)
        lower = float(certifier.rederive(asker.classifier, parse_norm(str(row["norm"])), row["eps"], detail))
    except Exception as error:  # counts that no run could have made, or a plugin's
        return f"cannot be derived again: {one_line(error)}"
    if not lower >= row["lower"] * (1 - ROUNDING):
        return f"recorded lower {row['lower']!r}, its counts prove {lower!r}"
    if detail.get("class", label) != label:
        return f"its counts are about class {one_line(detail['class'], 40)}, the data says {label}"
    if isinstance(alpha, float) and not (row["confidence"] is not None and row["confidence"] <= 1 - alpha):
        return f"recorded confidence {row['confidence']!r}, alpha = {alpha!r} gives {1 - alpha!r}"
    return None


def _recounted(
    asker: Asker, certifier: Any, threat: Threat, rows: list[Row], redraw: Redraw
) -> list[str] | list[str | None]:
    """Return for each row why its counts cannot be right, by fresh draws."""
    x, _ = asker.inputs(rows)
    stream = redraw.stream(rows[0], [row["sample"] for row in rows], x.device)
    try:
        found = list(certifier.recount(asker.classifier, x, [_counts(row) for row in rows], threat, stream))
    except Exception as error:  # a plugin's
        return [f"cannot be drawn again: {one_line(error)}"] * len(rows)
    if len(found) != len(rows):
        return [f"cannot be drawn again: recount gives {len(found)} answers about {len(rows)} samples"] * len(rows)
    return [None if why is None else one_line(why) for why in found]


def _counts(row: Row) -> Mapping[str, Any]:
    """Return the detail of a row. Raises ValueError where it is none."""
    told: Any = json.loads(row["detail"] or "null")
    if not isinstance(told, dict):
        raise ValueError("the row has no detail")
    return cast(Mapping[str, Any], told)
