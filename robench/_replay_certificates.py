"""Certificates again: proofs are made anew, statistical ones derived from their counts, and a few drawn anew."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robench import registry
from robench._replay_redraw import ROUNDING, Redraw, same_draws
from robench.contracts import Certificates, Certifier, CountingCertifier
from robench.runner import budget
from robench.streams import Stream
from robench.text import one_line
from robench.threat import Threat, parse_norm

if TYPE_CHECKING:
    from robench._replay_asker import Asker, Row
    from robench.runs import Manifest

__all__ = ["Claim", "counts_told", "replay_certificates", "unproven"]


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
        if others and isinstance(certifier, CountingCertifier):
            _statistical(asker, certifier, others, manifest, redraw)
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
                threat = Threat(parse_norm(str(norm)), eps, asker.data.whole.domain, asker.region(part))
                _certified(asker, certifier, spec, threat, part, seed)
            except Exception as error:  # a plugin's, or of a row that no run could have written
                for row in part:
                    asker.found("certificate", row, f"cannot be derived again: {one_line(error)}")
            asker.result.certificates += len(part)
            asker.asked()


def _certified(asker: Asker, certifier: Certifier, spec: str, threat: Threat, rows: list[Row], seed: int) -> None:
    x, y = asker.inputs(rows)
    stream = Stream.for_samples(seed, spec, [row["sample"] for row in rows], x.device)
    if threat.region is not None and threat.eps is not None:
        threat = replace(threat, eps=budget(threat.eps) if getattr(certifier, "per_eps", True) else None)
    made = certifier.certify(asker.classifier, x, y, threat, stream)
    surety = [1.0] * len(rows) if made.confidence is None else made.confidence.tolist()
    for row, lower, status, sure in zip(rows, made.lower.tolist(), made.status, surety, strict=True):
        least = row["lower"] if threat.region is None else row["eps"]  # the whole region, not the ball within
        if status != "certified" or not lower >= least * (1 - ROUNDING):
            asker.found("certificate", row, f"recorded lower {least!r}, now {status} {lower!r}")
        elif sure < 1:
            asker.found("certificate", row, f"recorded as a proof, now with confidence {sure!r}")


def _statistical(
    asker: Asker, certifier: CountingCertifier, rows: list[Row], manifest: Manifest, redraw: Redraw
) -> None:
    """Derive every row from its counts; hold a random subset of the counts against the run's own and fresh draws."""
    sound: list[Row] = []
    for (norm, eps), group in _groups(rows, "norm", "eps"):
        for part in asker.batches(group):
            for row, why in zip(part, _underived(asker, certifier, norm, eps, part), strict=True):
                if why is not None:
                    asker.found("certificate", row, why)
                else:
                    sound.append(row)
            asker.result.rederived += len(part)
            asker.asked()
    for (norm, eps), group in _groups(redraw.chosen(sound), "norm", "eps"):
        threat = Threat(parse_norm(str(norm)), eps, asker.data.whole.domain)
        for part in asker.batches(group):
            own: list[str | None] = [None] * len(part)
            if same_draws(manifest, asker.classifier.device):
                own = _repeated(asker, certifier, threat, part, manifest.request.seed)
            fresh = _recounted(asker, certifier, threat, part, redraw)
            for row, *reasons in zip(part, own, fresh, strict=True):
                if why := next(filter(None, reasons), None):
                    asker.found("certificate", row, why)
            asker.result.redrawn += len(part)
            asker.asked()


def _underived(
    asker: Asker, certifier: CountingCertifier, norm: object, eps: float | None, rows: list[Row]
) -> list[str | None]:
    """Return for each row what its counts do not carry: its bound, its status or its confidence."""
    try:
        threat = Threat(parse_norm(str(norm)), eps, asker.data.whole.domain)
        details = [counts_told(row["detail"]) for row in rows]
        made = certifier.rederive(asker.classifier, asker.inputs(rows)[1], details, threat)
        claims = _claims(made, len(rows))
    except Exception as error:  # a plugin's, or of a row that no run could have written
        if len(rows) == 1:
            return [f"cannot be derived again: {one_line(error)}"]
        # One of them need not be the others' fault.
        return [why for row in rows for why in _underived(asker, certifier, norm, eps, [row])]
    return [unproven(row, claim) for row, claim in zip(rows, claims, strict=True)]


@dataclass(frozen=True)
class Claim:
    """What counts prove."""

    lower: float
    status: str
    confidence: float
    reason: str = ""


def _claims(made: Certificates, count: int) -> list[Claim]:
    lower = made.lower.tolist()
    surety = [1.0] * count if made.confidence is None else made.confidence.tolist()
    details: Sequence[Mapping[str, Any] | None] = [None] * count if made.detail is None else made.detail
    if not len(lower) == len(made.status) == len(surety) == len(details) == count:
        raise ValueError(f"rederive gives {len(lower)} answers about {count} samples")
    reasons = [one_line((one or {}).get("reason", "")) for one in details]
    return [Claim(*parts) for parts in zip(lower, made.status, surety, reasons, strict=True)]


def unproven(row: Row, claim: Claim) -> str | None:
    """Return what a row says that its counts do not; None where they carry it."""
    why = f": {claim.reason}" if claim.reason else ""
    if claim.status == "error":
        return f"cannot be derived again{why}"
    if not claim.lower >= row["lower"] * (1 - ROUNDING):
        return f"recorded lower {row['lower']!r}, its counts prove {claim.lower!r}{why}"
    if claim.status != row["status"]:
        return f"recorded {row['status']}, its counts say {claim.status}{why}"
    if row["confidence"] is None or not row["confidence"] <= claim.confidence:
        return f"recorded confidence {row['confidence']!r}, its counts give {claim.confidence!r}"
    return None


def _repeated(
    asker: Asker, certifier: CountingCertifier, threat: Threat, rows: list[Row], seed: int
) -> list[str | None]:
    """Certify again from the run's own streams; return for each row what its counts should have been."""
    x, y = asker.inputs(rows)
    stream = Stream.for_samples(seed, rows[0]["evaluator"], [row["sample"] for row in rows], x.device)
    try:
        made = certifier.certify(asker.classifier, x, y, threat, stream)
        now = [dict(one or {}) for one in made.detail or [None] * len(rows)]
        claims = zip(made.lower.tolist(), now, strict=True)
        return [
            None if lower >= row["lower"] * (1 - ROUNDING) else _moved(counts_told(row["detail"]), told)
            for row, (lower, told) in zip(rows, claims, strict=True)
        ]
    except Exception as error:  # a plugin's
        return [f"cannot be drawn again: {one_line(error)}"] * len(rows)


def _moved(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return which count is another than now; None where all are within what rounding moves: 1 + n/1000 of n draws."""
    counts = {name: value for name, value in recorded.items() if type(value) is int}
    slack = 1 + max(counts.values(), default=0) // 1000
    for name, value in sorted(counts.items()):
        if type(now.get(name)) is int and abs(value - now[name]) > slack:
            return f"recorded {name} = {value}, drawn again from the run's stream {now[name]}"
    return None


def _recounted(
    asker: Asker, certifier: CountingCertifier, threat: Threat, rows: list[Row], redraw: Redraw
) -> list[str] | list[str | None]:
    """Return for each row why its counts cannot be right, by fresh draws."""
    x, _ = asker.inputs(rows)
    stream = redraw.stream(rows[0], [row["sample"] for row in rows], x.device)
    details = [counts_told(row["detail"]) for row in rows]
    try:
        found = list(certifier.recount(asker.classifier, x, details, threat, stream))
    except Exception as error:  # a plugin's
        return [f"cannot be drawn again: {one_line(error)}"] * len(rows)
    if len(found) != len(rows):
        return [f"cannot be drawn again: recount gives {len(found)} answers about {len(rows)} samples"] * len(rows)
    return [None if why is None else one_line(why) for why in found]


def counts_told(detail: str | None) -> Mapping[str, Any]:
    """Return what the detail of a row tells. Raises ValueError where it is no JSON object."""
    try:
        told: Any = json.loads(detail or "null")
    except RecursionError:
        raise ValueError("the row's detail is nested too deeply") from None
    if not isinstance(told, dict):
        raise ValueError("the row has no detail")
    return told
