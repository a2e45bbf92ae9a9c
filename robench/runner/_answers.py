"""What plugins hand back, checked before anything is believed: type, shape, dtype and range.

Every function raises PluginError, which names the evaluator and says what was wrong.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robench.contracts import Certificates, Passes, Proposal
from robench.errors import PluginError
from robench.runner._batches import out_of_memory
from robench.threat import Threat

__all__ = ["CLAIMS", "Claims", "call", "checked_certificates", "checked_proposal", "checked_stage", "spread"]

Result = TypeVar("Result")
Integers = npt.NDArray[np.int64]

CLAIMS = ("certified", "open", "abstain", "timeout", "error", "falsified")
"""The statuses that a certifier may give."""


def call(spec: str, method: Callable[..., Result], *arguments: Any) -> Result:
    """Call a plugin, its prints on stderr; what it raises becomes a PluginError, except memory running out."""
    try:
        with torch.enable_grad(), contextlib.redirect_stdout(sys.stderr):
            return method(*arguments)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        if out_of_memory(error):
            raise
        raise PluginError(spec, f"{type(error).__name__}: {error}") from error


def checked_proposal(spec: str, made: Any, x: Tensor) -> Proposal:
    """Return the answer of `perturb` about samples `x` [B, ...]."""
    if not isinstance(made, Proposal):
        raise PluginError(spec, f"perturb returned {type(made).__name__}, not a Proposal")
    return Proposal(_points(spec, made.points, x), _details(spec, made.detail, len(x)), made.passes)


@dataclass(frozen=True, eq=False)
class Claims:
    """A certifier's answer as the evidence keeps it, [B] each.

    `lower` is 0 wherever the status is not `certified`; `points` are a verifier's counterexamples, still to be judged.
    """

    lower: npt.NDArray[np.float64]
    status: list[str]
    confidence: npt.NDArray[np.float64]
    points: Tensor | None
    detail: Sequence[Mapping[str, Any] | None] | None


def checked_certificates(spec: str, made: Any, x: Tensor, threat: Threat, complete: bool) -> Claims:
    """Return the answer of `certify` about samples `x` [B, ...].

    `certified` needs lower ≥ ε, or lower > 0 where a radius was asked for: NaN and negative radii prove nothing.
    `falsified` stays open until its point is judged.
    """
    if not isinstance(made, Certificates):
        raise PluginError(spec, f"certify returned {type(made).__name__}, not Certificates")
    lower = _numbers(spec, "lower", made.lower, len(x))
    ones = np.ones(len(x))
    confidence = ones if made.confidence is None else _numbers(spec, "confidence", made.confidence, len(x))
    if not ((confidence > 0) & (confidence <= 1)).all():
        raise PluginError(spec, "a confidence is not above 0 and at most 1")
    given = _sequence(spec, "status", made.status, len(x))
    unknown = [claim for claim in given if claim not in CLAIMS]
    if unknown:
        raise PluginError(spec, f"unknown status {unknown[0]!r}: use one of {', '.join(CLAIMS)}")
    if made.points is not None and not complete:
        raise PluginError(spec, "proposes points, but is not declared `complete`")
    enough = lower > 0 if threat.eps is None else lower >= threat.eps
    status = [
        "open" if claim == "falsified" or (claim == "certified" and not holds) else str(claim)
        for claim, holds in zip(given, enough.tolist(), strict=True)
    ]
    certified = np.array([claim == "certified" for claim in status], dtype=bool)
    points = None if made.points is None else _points(spec, made.points, x)
    return Claims(np.where(certified, lower, 0.0), status, confidence, points, _details(spec, made.detail, len(x)))


def checked_stage(spec: str, stage: Any, size: int) -> tuple[str, Any, Tensor | None]:
    """Return the (spec, attack, mask) that a composite yielded for a batch of `size` samples."""
    if not (isinstance(stage, tuple) and len(stage) == 3 and isinstance(stage[0], str)):
        raise PluginError(spec, "a stage is not (spec, attack, mask)")
    name, attack, mask = stage
    if not (name.strip() and name.isprintable() and len(name) <= 2000):
        raise PluginError(spec, "a stage's spec is empty, too long or not printable")
    if not callable(getattr(attack, "perturb", None)):
        raise PluginError(spec, f"stage {name!r} is {type(attack).__name__}, which has no perturb")
    if mask is not None and not (isinstance(mask, Tensor) and mask.shape == (size,) and mask.dtype == torch.bool):
        raise PluginError(spec, f"the mask of stage {name!r} is not a bool tensor [{size}]")
    return name, attack, mask


def spread(total: tuple[int, int], claimed: Passes | None, count: int) -> tuple[Integers, Integers]:
    """Charge the passes counted by the runner, (forwards, backwards), to `count` samples.

    A plugin's own account is used where it adds up to exactly what was counted; otherwise equal shares are.
    """
    if claimed is not None:
        theirs = [_counts(getattr(claimed, name, None), count) for name in ("forwards", "backwards")]
        if all(one is not None and one.sum() == number for one, number in zip(theirs, total, strict=True)):
            return theirs[0], theirs[1]  # type: ignore[return-value]
    forwards, backwards = (_shares(number, count) for number in total)
    return forwards, backwards


def _shares(number: int, count: int) -> Integers:
    base, extra = divmod(number, count)
    return np.full(count, base, np.int64) + (np.arange(count) < extra)


def _counts(values: Any, count: int) -> Integers | None:
    array = values.detach().cpu().numpy() if _plain(values) and not values.dtype.is_floating_point else None
    if array is None or array.shape != (count,) or array.dtype.kind not in "iu" or (array < 0).any():
        return None
    return array.astype(np.int64)


def _plain(values: Any) -> TypeGuard[Tensor]:
    """Whether `values` is a tensor that holds numbers: not sparse, not quantised, not on the meta device."""
    return (
        isinstance(values, Tensor) and values.layout == torch.strided and not values.is_meta and not values.is_quantized
    )


def _points(spec: str, points: Any, x: Tensor) -> Tensor:
    if not _plain(points) or points.shape != x.shape or not points.dtype.is_floating_point:
        seen = f"{points.dtype} {list(points.shape)}" if isinstance(points, Tensor) else type(points).__name__
        raise PluginError(spec, f"points are {seen}, expected floats {list(x.shape)}")
    return points


def _numbers(spec: str, name: str, values: Any, count: int) -> npt.NDArray[np.float64]:
    if not _plain(values) or values.shape != (count,) or values.dtype.is_complex:
        seen = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise PluginError(spec, f"{name} is {seen}, expected numbers [{count}]")
    return values.detach().cpu().double().numpy()


def _sequence(spec: str, name: str, values: Any, count: int) -> Sequence[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != count:
        seen = f"{len(values)} entries" if isinstance(values, Sequence) else type(values).__name__
        raise PluginError(spec, f"{name} has {seen}, expected {count}")
    return values


def _details(spec: str, detail: Any, count: int) -> Sequence[Mapping[str, Any] | None] | None:
    if detail is None:
        return None
    values = _sequence(spec, "detail", detail, count)
    if not all(one is None or isinstance(one, Mapping) for one in values):
        raise PluginError(spec, "a detail is neither a mapping nor None")
    return values
