"""One chunk of samples through every evaluator of the plan, into evidence and witnesses."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from robench.classifier import Counted
from robench.contracts import Attack, Certificates, Certifier, CompositeAttack, Outcome, Proposal
from robench.errors import PluginError
from robench.evidence import Kind
from robench.runner._judge import Judge, Verdict
from robench.runner._plan import Evaluator, Plan
from robench.runner._rows import Block, WitnessBlock, encode_detail, spread
from robench.streams import Stream
from robench.threat import Threat

__all__ = ["Chunk", "ChunkResult"]

Result = TypeVar("Result")

_CLAIMS = ("certified", "open", "abstain", "timeout", "error", "falsified")


@dataclass(frozen=True, eq=False)
class ChunkResult:
    """What a chunk left behind: clean predictions (None: error) and the rows, in the order they were made."""

    predictions: list[int | None]
    blocks: list[Block]
    witnesses: list[WitnessBlock]


class Chunk:
    """The state of one chunk while evaluators pass over it.

    Tensors have one entry per sample of the chunk: `open_` (correct and finite), `upper` (nearest verified
    witness of this run, +inf without) and `lower` per deterministic certifier.
    """

    def __init__(self, plan: Plan, x: Tensor, y: Tensor, indices: Sequence[int], warn: Callable[[str], None]) -> None:
        """Prepare samples `x` [B, ...] with labels `y` and original `indices`."""
        self.plan, self.x, self.y, self.indices, self.warn = plan, x, y, indices, warn
        self.classifier = Counted(plan.classifier)
        self.judge = Judge(self.classifier)
        self.blocks: list[Block] = []
        self.witnesses: list[WitnessBlock] = []
        self.upper = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        self.lower: dict[str, Tensor] = {}
        self.limit = max(1, len(x))

    def run(self) -> ChunkResult:
        """Run the clean pass and every evaluator; returns all rows."""
        predictions = self._clean()
        for evaluator, eps in self.plan.passes():
            threat = Threat(self.plan.norm, eps, self.plan.samples.domain)
            if evaluator.side == "attack":
                self._attack(evaluator, threat)
            else:
                self._certify(evaluator, threat)
        return ChunkResult(predictions, self.blocks, self.witnesses)

    # ------------------------------------------------------------------ clean

    def _clean(self) -> list[int | None]:
        start = time.perf_counter()
        parts = list(
            self._batches(torch.arange(len(self.x)), lambda rows: self.judge.clean(self.x[rows], self.y[rows]))
        )
        correct, error, prediction, margin = (torch.cat([part[i] for _, part in parts]) for i in range(4))
        self.open_ = correct
        seen = [None if bad else int(one) for bad, one in zip(error.tolist(), prediction.tolist(), strict=True)]
        forwards, backwards = spread(self.classifier.take(), None, len(seen))
        self.blocks.append(
            Block(
                evaluator="clean",
                kind="clean",
                norm=None,
                eps=None,
                rows=np.arange(len(seen)),
                lower=np.zeros(len(seen)),
                upper=np.where(correct.cpu().numpy() | error.cpu().numpy(), np.inf, 0.0),
                confidence=np.ones(len(seen)),
                status=[
                    "error" if bad else "correct" if good else "incorrect"
                    for good, bad in zip(correct.tolist(), error.tolist(), strict=True)
                ],
                forwards=forwards,
                backwards=backwards,
                seconds=time.perf_counter() - start,
                detail=[
                    encode_detail({"reason": "non-finite logits"} if bad else {"margin": value})
                    for bad, value in zip(error.tolist(), margin.tolist(), strict=True)
                ],
            )
        )
        return seen

    # ----------------------------------------------------------------- attack

    def _attack(self, evaluator: Evaluator, threat: Threat) -> None:
        schedule = _schedule(evaluator, self.classifier, threat)
        outcome: Outcome | None = None
        seen: Counter[str] = Counter()
        while True:
            try:
                spec, attack, mask = schedule.send(outcome) if outcome else next(schedule)
            except StopIteration:
                return
            except Exception as error:
                failure = PluginError(evaluator.spec, f"{type(error).__name__}: {error}")
                self._failed(evaluator.spec, "attack", threat, self._active(threat).nonzero()[:, 0], failure)
                return
            seen[spec] += 1
            if seen[spec] > 1:  # a key of its own for every stage
                spec = f"{spec}#{seen[spec]}"
            active = self._active(threat)
            rows = (active if mask is None else active & mask.to(active.device)).nonzero()[:, 0]
            outcome = self._stage(spec, attack, threat, rows)

    def _active(self, threat: Threat) -> Tensor:
        """Bool [B]: correct samples that no witness has settled at this ε."""
        return self.open_ if threat.eps is None else self.open_ & (self.upper > threat.eps)

    def _stage(self, spec: str, attack: Attack, threat: Threat, rows: Tensor) -> Outcome:
        size = len(self.x)
        device = self.x.device
        outcome = Outcome(
            broken=torch.zeros(size, dtype=torch.bool, device=device),
            margin=torch.full((size,), torch.nan, dtype=torch.float64, device=device),
            forwards=torch.zeros(size, dtype=torch.int64),
            backwards=torch.zeros(size, dtype=torch.int64),
            detail=[None] * size,
        )
        details: list[Mapping[str, Any] | None] = list(outcome.detail)

        def work(part: Tensor) -> tuple[Proposal, tuple[int, int], Verdict]:
            self.classifier.take()
            # Fresh copies go out: a plugin that writes into its arguments changes nothing here.
            proposal = _call(
                spec, attack.perturb, self.classifier, self.x[part], self.y[part], threat, self._stream(spec, part)
            )
            _check_proposal(spec, proposal, self.x[part])
            searched = self.classifier.take()
            return proposal, searched, self.judge.judge(self.x[part], self.y[part], proposal.points, threat)

        for part, start, made in self._guarded(spec, "attack", threat, rows, work):
            proposal, searched, verdict = made
            forwards, backwards = spread(searched, proposal.passes, len(part))
            forwards = forwards + verdict.forwards.cpu().numpy()
            self.classifier.take()
            self._record(spec, "attack", threat, part, verdict, (forwards, backwards), proposal.detail, start)
            outcome.broken[part] = verdict.broken
            outcome.margin[part] = verdict.margin
            outcome.forwards[part.cpu()] = torch.from_numpy(forwards)
            outcome.backwards[part.cpu()] = torch.from_numpy(backwards)
            for row, detail in zip(part.tolist(), proposal.detail or [None] * len(part), strict=True):
                details[row] = detail
        return Outcome(outcome.broken, outcome.margin, outcome.forwards, outcome.backwards, details)

    def _record(
        self,
        spec: str,
        kind: Kind,
        threat: Threat,
        rows: Tensor,
        verdict: Verdict,
        passes: tuple[Any, Any],
        details: Sequence[Mapping[str, Any] | None] | None,
        start: float,
        certificates: tuple[Any, Sequence[str], Any] | None = None,
    ) -> None:
        """Append the rows of a judged proposal; a verifier's `certificates` stand where nothing was falsified."""
        broken = verdict.broken.cpu().numpy()
        found = verdict.distances[threat.norm]
        self.upper[rows] = torch.where(verdict.broken, torch.minimum(self.upper[rows], found), self.upper[rows])
        lower, otherwise, confidence = certificates or (np.zeros(len(rows)), ["open"] * len(rows), np.ones(len(rows)))
        status, notes = [], []
        for i in range(len(rows)):
            note: dict[str, Any] = {}
            if broken[i]:
                status.append("falsified")
                note = {"verified": verdict.method[i]}
            elif verdict.error[i] and certificates is None:
                status.append("error")
                note = {"reason": "non-finite point or logits"}
            else:
                status.append(otherwise[i])
                if verdict.numerical[i]:
                    note = {"reason": "numerical"}
            notes.append(encode_detail(details[i] if details else None, note))
        self.blocks.append(
            Block(
                evaluator=spec,
                kind=kind,
                norm=threat.norm,
                eps=threat.eps,
                rows=rows.cpu().numpy(),
                lower=np.where(broken, 0.0, lower),
                upper=np.where(broken, found.cpu().numpy(), np.inf),
                confidence=np.where(broken, 1.0, confidence),
                status=status,
                forwards=passes[0],
                backwards=passes[1],
                seconds=time.perf_counter() - start,
                detail=notes,
            )
        )
        if broken.any():
            kept = verdict.broken
            self.witnesses.append(
                WitnessBlock(
                    evaluator=spec,
                    norm=threat.norm,
                    eps=threat.eps,
                    rows=rows[kept].cpu().numpy(),
                    points=verdict.points[kept].cpu().numpy(),
                    distances={norm: value[kept].cpu().numpy() for norm, value in verdict.distances.items()},
                    prediction=verdict.prediction[kept].cpu().numpy(),
                    margin=verdict.margin[kept].cpu().numpy(),
                    detail=[encode_detail({"verified": how}) for how in verdict.method if how],
                )
            )

    # ---------------------------------------------------------------- certify

    def _certify(self, evaluator: Evaluator, threat: Threat) -> None:
        certifier, spec = cast(Certifier, evaluator.value), evaluator.spec
        active = self._active(threat)
        if threat.eps is not None:
            for other, radius in self.lower.items():
                if other != spec:
                    active = active & (radius < threat.eps)

        def work(part: Tensor) -> tuple[Certificates, tuple[int, int], Verdict]:
            self.classifier.take()
            made = _call(
                spec, certifier.certify, self.classifier, self.x[part], self.y[part], threat, self._stream(spec, part)
            )
            _check_certificates(spec, made, self.x[part])
            searched = self.classifier.take()
            if made.points is None:
                return made, searched, _no_verdict(self.x[part])
            return made, searched, self.judge.judge(self.x[part], self.y[part], made.points, threat)

        proven = self.lower.setdefault(spec, torch.zeros_like(self.upper))
        rows = active.nonzero()[:, 0]
        for part, start, made in self._guarded(spec, "certificate", threat, rows, work):
            certificates, searched, verdict = made
            forwards, backwards = spread(searched, None, len(part))
            forwards = forwards + verdict.forwards.cpu().numpy()
            self.classifier.take()
            confidence = certificates.confidence
            sure = torch.ones(len(part), dtype=torch.float64) if confidence is None else confidence.cpu().double()
            lower, status = _claims(certificates, threat)
            kind: Kind = "certificate" if certificates.points is None else "verifier"
            self._record(
                spec,
                kind,
                threat,
                part,
                verdict,
                (forwards, backwards),
                certificates.detail,
                start,
                (lower, status, sure.numpy()),
            )
            settled = torch.from_numpy(np.where(sure.numpy() == 1.0, lower, 0.0)).to(proven)
            proven[part] = torch.maximum(proven[part], settled)

    # ---------------------------------------------------------------- plumbing

    def _stream(self, spec: str, rows: Tensor) -> Stream:
        indices = [self.indices[row] for row in rows.tolist()]
        return Stream.for_samples(self.plan.seed, spec, indices, self.x.device)

    def _guarded(
        self, spec: str, kind: Kind, threat: Threat, rows: Tensor, work: Callable[[Tensor], Result]
    ) -> Iterator[tuple[Tensor, float, Result]]:
        """Run `work` over `rows` in batches; one that raises leaves rows of status `error` behind."""
        start = time.perf_counter()
        for part, made in self._batches(rows, lambda part: _attempt(work, part)):
            if isinstance(made, PluginError):
                self.classifier.take()
                self._failed(spec, kind, threat, part, made)
            else:
                yield part, start, made
            start = time.perf_counter()

    def _failed(self, spec: str, kind: Kind, threat: Threat, rows: Tensor, error: PluginError) -> None:
        reason = " ".join(str(error).split())[:500]
        self.warn(f"{len(rows)} samples end in error: {reason}")
        count = len(rows)
        if count:
            self.blocks.append(
                Block(
                    evaluator=spec,
                    kind=kind,
                    norm=threat.norm,
                    eps=threat.eps,
                    rows=rows.cpu().numpy(),
                    lower=np.zeros(count),
                    upper=np.full(count, np.inf),
                    confidence=np.ones(count),
                    status=["error"] * count,
                    forwards=np.zeros(count, np.int64),
                    backwards=np.zeros(count, np.int64),
                    seconds=0.0,
                    detail=[encode_detail({"reason": reason})] * count,
                )
            )

    def _batches(self, rows: Tensor, work: Callable[[Tensor], Result]) -> Iterator[tuple[Tensor, Result]]:
        """Run `work` on batches of `rows`, halving the batch for good whenever memory runs out."""
        start = 0
        while start < len(rows):
            part = rows[start : start + self.limit].to(self.x.device)
            try:
                made = work(part)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or len(part) == 1:
                    raise
                self.limit = max(1, len(part) // 2)
                self.warn(f"out of memory: going on with batches of {self.limit}")
                self.classifier.take()
                continue
            yield part, made
            start += len(part)


def _call(spec: str, method: Callable[..., Result], *arguments: Any) -> Result:
    """Call a plugin; what it raises becomes a PluginError, except memory running out."""
    try:
        with torch.enable_grad():
            return method(*arguments)
    except Exception as error:
        if _out_of_memory(error) or isinstance(error, PluginError):
            raise
        raise PluginError(spec, f"{type(error).__name__}: {error}") from error


def _attempt(work: Callable[[Tensor], Result], part: Tensor) -> Result | PluginError:
    """Run `work` and return the PluginError that it raises, if it does."""
    try:
        return work(part)
    except PluginError as error:
        return error
    except Exception as error:
        if _out_of_memory(error) and len(part) == 1:
            return PluginError("memory", "one sample alone does not fit")
        raise


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def _schedule(
    evaluator: Evaluator, classifier: Counted, threat: Threat
) -> Generator[tuple[str, Attack, Tensor | None], Outcome | None, None]:
    if hasattr(evaluator.value, "stages"):
        stages = cast(CompositeAttack, evaluator.value).stages(classifier, threat)
        try:
            stage = next(stages)
            while True:
                outcome = yield stage
                assert outcome is not None
                stage = stages.send(outcome)
        except StopIteration:
            return
    yield evaluator.spec, cast(Attack, evaluator.value), None


def _check_proposal(spec: str, proposal: Any, x: Tensor) -> None:
    if not isinstance(proposal, Proposal):
        raise PluginError(spec, f"perturb returned {type(proposal).__name__}, not a Proposal")
    points: Any = proposal.points
    if not isinstance(points, Tensor) or points.shape != x.shape or not points.dtype.is_floating_point:
        seen = f"{points.dtype} {list(points.shape)}" if isinstance(points, Tensor) else type(points).__name__
        raise PluginError(spec, f"points are {seen}, expected floats {list(x.shape)}")
    if proposal.detail is not None and len(proposal.detail) != len(x):
        raise PluginError(spec, f"detail has {len(proposal.detail)} entries for {len(x)} samples")


def _check_certificates(spec: str, made: Any, x: Tensor) -> None:
    if not isinstance(made, Certificates):
        raise PluginError(spec, f"certify returned {type(made).__name__}, not Certificates")
    if tuple(made.lower.shape) != (len(x),) or len(made.status) != len(x):
        raise PluginError(spec, f"lower {list(made.lower.shape)} or status [{len(made.status)}] is not [{len(x)}]")
    if made.confidence is not None and tuple(made.confidence.shape) != (len(x),):
        raise PluginError(spec, f"confidence {list(made.confidence.shape)} is not [{len(x)}]")
    if made.points is not None and made.points.shape != x.shape:
        raise PluginError(spec, f"points {list(made.points.shape)} are not {list(x.shape)}")
    unknown = set(made.status) - set(_CLAIMS)
    if unknown:
        raise PluginError(spec, f"unknown status {sorted(unknown)[0]!r}: use one of {', '.join(_CLAIMS)}")
    if made.detail is not None and len(made.detail) != len(x):
        raise PluginError(spec, f"detail has {len(made.detail)} entries for {len(x)} samples")


def _claims(made: Certificates, threat: Threat) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[str]]:
    """Return (lower, status) as the evidence keeps them: a radius only where the plugin says `certified`.

    NaN and negative radii prove nothing; `certified` needs lower ≥ ε, or lower > 0 where a radius was asked for.
    `falsified` without a surviving point is `open`.
    """
    lower = made.lower.detach().cpu().double().numpy()
    enough = lower > 0 if threat.eps is None else lower >= threat.eps
    status = []
    for claim, holds in zip(made.status, enough.tolist(), strict=True):
        status.append("open" if claim == "falsified" or (claim == "certified" and not holds) else claim)
    certified = np.array([claim == "certified" for claim in status], dtype=bool)
    return np.where(certified, lower, 0.0), status


def _no_verdict(x: Tensor) -> Verdict:
    """Return the verdict on a certifier that proposes no points."""
    nothing = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    inf = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    return Verdict(
        nothing, nothing, nothing, x, {"linf": inf, "l2": inf, "l1": inf}, count, inf, [None] * len(x), count
    )
