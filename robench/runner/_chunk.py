"""One chunk of samples through every evaluator of the plan, into evidence and witnesses."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robench.audit import AUDITED
from robench.classifier import Counted, Tally
from robench.contracts import Attack, Certifier, CompositeAttack, Outcome, Proposal
from robench.distances import distance
from robench.errors import PluginError
from robench.evidence import Kind
from robench.runner._answers import Claims, call, checked_certificates, checked_proposal, checked_stage, spread
from robench.runner._batches import Batches, out_of_memory
from robench.runner._judge import Judge, Verdict
from robench.runner._plan import Evaluator, Plan, Side
from robench.runner._rows import Block, WitnessBlock, encode_detail
from robench.runner._trust import Trust
from robench.streams import Stream
from robench.text import one_line
from robench.threat import Threat

__all__ = ["Chunk", "ChunkResult", "Cost", "Work"]

Result = TypeVar("Result")
Details = Sequence[Mapping[str, Any] | None]


@dataclass(frozen=True, eq=False)
class ChunkResult:
    """What a chunk left behind: clean predictions (None: error) and the rows, in the order they were made.

    `limit` is the largest batch that fitted into memory; `stages` holds the stages of each composite attack by their
    names in the evidence; `certified` says that a sample was certified deterministically, where attacks trust that.
    """

    predictions: list[int | None]
    blocks: list[Block]
    witnesses: list[WitnessBlock]
    limit: int
    stages: Mapping[str, Mapping[str, Attack]] = field(default_factory=dict)
    certified: bool = False


@dataclass(frozen=True, eq=False)
class Work:
    """What one evaluator was given: its name and kind, the threat, and rows of the chunk, int64 [R]."""

    spec: str
    kind: Kind
    threat: Threat
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Cost:
    """What a batch took: passes per sample, int64 [B], and seconds in all."""

    forwards: npt.NDArray[np.int64]
    backwards: npt.NDArray[np.int64]
    seconds: float


class Chunk:
    """The state of one chunk while evaluators pass over it.

    Tensors have one entry per sample of the chunk: `correct` (and finite), `upper` (nearest verified
    witness of this run, +inf without) and `lower` per deterministic certifier.
    """

    def __init__(
        self, plan: Plan, x: Tensor, y: Tensor, indices: Sequence[int], limit: int, warn: Callable[[str], None]
    ) -> None:
        """Prepare samples `x` [B, ...] with labels `y` and original `indices`, in batches of at most `limit`."""
        self.plan, self.x, self.y, self.indices, self.warn = plan, x, y, indices, warn
        self.searched = Tally()
        # The judge's own: nothing that a plugin does to the classifier it was handed reaches the verdicts.
        self.judge = Judge(Counted(plan.classifier))
        self.batches = Batches(limit, warn)
        self.blocks: list[Block] = []
        self.witnesses: list[WitnessBlock] = []
        self.correct = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.upper = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        self.lower: dict[str, Tensor] = {}
        self.turns: Counter[tuple[str, float | None]] = Counter()
        self.stages: dict[str, dict[str, Attack]] = {}
        self.trust: Trust | None = None

    def run(self, certified_before: bool = False) -> ChunkResult:
        """Run the clean pass and every evaluator; returns all rows.

        `certified_before` says that an earlier sample was certified; it counts where attacks trust certificates.
        """
        if (share := self.plan.audit) is not None:
            self.trust = Trust(self.plan.seed, share, self.indices, self.lower, before=certified_before)
        predictions = self._clean()
        for evaluator, eps in self.plan.passes():
            self._pass(evaluator, Threat(self.plan.norm, eps, self.plan.samples.domain))
        certified = self.trust is not None and bool(self.trust.certified(self._within(None, min)).any())
        return ChunkResult(predictions, self.blocks, self.witnesses, self.batches.limit, self.stages, certified)

    def _pass(self, evaluator: Evaluator, threat: Threat) -> None:
        if evaluator.side == "attack":
            self._attack(evaluator, threat)
        else:
            self._certify(evaluator, threat)

    # ------------------------------------------------------------------ clean

    def _clean(self) -> list[int | None]:
        start = time.perf_counter()
        rows = torch.arange(len(self.x), device=self.x.device)
        parts = list(self.batches.run(rows, self._classify))
        self.correct, error, prediction, margin = (torch.cat([part[i] for _, part in parts]) for i in range(4))
        count = len(rows)
        forwards, backwards = spread(self.judge.classifier.take(), None, count)
        right, wrong = self.correct.tolist(), error.tolist()
        self.blocks.append(
            Block(
                evaluator="clean",
                kind="clean",
                norm=None,
                eps=None,
                rows=np.arange(count),
                lower=np.zeros(count),
                upper=np.array([np.inf if good or bad else 0.0 for good, bad in zip(right, wrong, strict=True)]),
                confidence=np.ones(count),
                status=[
                    "error" if bad else "correct" if good else "incorrect"
                    for good, bad in zip(right, wrong, strict=True)
                ],
                forwards=forwards,
                backwards=backwards,
                seconds=time.perf_counter() - start,
                detail=[
                    encode_detail({"reason": "non-finite logits"} if bad else {"margin": value})
                    for bad, value in zip(wrong, margin.tolist(), strict=True)
                ],
            )
        )
        return [None if bad else int(one) for bad, one in zip(wrong, prediction.tolist(), strict=True)]

    def _classify(self, part: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.judge.clean(self.x[part], self.y[part])

    # ----------------------------------------------------------------- attack

    def _attack(self, evaluator: Evaluator, threat: Threat) -> None:
        schedule = _schedule(evaluator, self._handed(), threat)
        outcome: Outcome | None = None
        while True:
            active = self._active(threat, "attack")
            try:
                stage = call(evaluator.spec, schedule.send, outcome)
                spec, attack, mask = checked_stage(evaluator.spec, stage, len(self.x))
            except PluginError as error:
                if not isinstance(error.__cause__, StopIteration):
                    self._failed(Work(evaluator.spec, "attack", threat, active.nonzero()[:, 0]), error)
                return
            spec = self._key(evaluator, spec, threat)
            if hasattr(evaluator.value, "stages"):
                self.stages.setdefault(evaluator.spec, {}).setdefault(spec, attack)
            chosen = active if mask is None else active & mask.to(active.device)
            outcome = self._stage(Work(spec, "attack", threat, chosen.nonzero()[:, 0]), attack)

    def _key(self, evaluator: Evaluator, spec: str, threat: Threat) -> str:
        """Return the name of a stage in the evidence: `spec`, or `spec#2` where the name is taken."""
        if not hasattr(evaluator.value, "stages"):
            return spec
        taken = any(spec == other.spec and other is not evaluator for other in self.plan.evaluators)
        self.turns[spec, threat.eps] += 1
        times = self.turns[spec, threat.eps] + taken
        return spec if times == 1 else f"{spec}#{times}"

    def _active(self, threat: Threat, side: Side) -> Tensor:
        """Bool [B]: correct samples that no witness has settled at this ε, for attacks or for certifiers."""
        budget = self._budget(threat)
        active = self.correct if budget is None else self.correct & (self.upper > budget)
        if side == "attack" and self.trust is not None:
            active = active & ~self.trust.skipped(self._within(threat, max), self._within(None, min))
        return active

    def _within(self, threat: Threat | None, pick: Callable[[list[float]], float]) -> float | Tensor:
        """Return the budget of a threat, or the one that `pick` takes of all where it has none: [B] or one for all."""
        eps = None if threat is None else self._budget(threat)
        return pick([one.value for one in self.plan.epsilons]) if eps is None else eps

    def _budget(self, threat: Threat) -> float | Tensor | None:
        """Return the ε within which a witness or a proof settles a sample: one for all, or float64 [B]."""
        return threat.eps

    def _given(self, threat: Threat, part: Tensor) -> Threat:
        """Return the threat to the samples `part`, as evaluators and the judge get it."""
        return threat

    def _stage(self, work: Work, attack: Attack) -> Outcome:
        def propose(part: Tensor) -> tuple[Proposal, tuple[int, int], Verdict]:
            # Fresh copies go out: a plugin that writes into its arguments changes nothing here.
            made = call(
                work.spec,
                attack.perturb,
                self._handed(),
                self.x[part],
                self.y[part],
                self._given(work.threat, part),
                self._stream(work.spec, part),
            )
            proposal = checked_proposal(work.spec, made, self.x[part])
            searched = self.searched.take()
            return proposal, searched, self._judge(work.spec, part, proposal.points, work.threat)

        size, device = len(self.x), self.x.device
        broken = torch.zeros(size, dtype=torch.bool, device=device)
        margin = torch.full((size,), torch.nan, dtype=torch.float64, device=device)
        forwards, backwards = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.int64)
        details: list[Mapping[str, Any] | None] = [None] * size
        for part, seconds, (proposal, searched, verdict) in self._guarded(work, propose):
            cost = _cost(searched, proposal, verdict, seconds)
            self._record(work, part, verdict, cost, proposal.detail)
            broken[part], margin[part] = verdict.broken, verdict.margin
            forwards[part.cpu()], backwards[part.cpu()] = (
                torch.from_numpy(cost.forwards),
                torch.from_numpy(cost.backwards),
            )
            for row, detail in zip(part.tolist(), proposal.detail or [None] * len(part), strict=True):
                details[row] = detail
        return Outcome(broken, margin, forwards, backwards, details)

    # ---------------------------------------------------------------- certify

    def _certify(self, evaluator: Evaluator, threat: Threat) -> None:
        certifier, spec = cast(Certifier, evaluator.value), evaluator.spec
        active, budget = self._active(threat, "certificate"), self._budget(threat)
        if budget is not None:
            for other, radius in self.lower.items():
                if other != spec:
                    active = active & (radius < budget)
        work = Work(spec, evaluator.kind, threat, active.nonzero()[:, 0])

        def prove(part: Tensor) -> tuple[Claims, tuple[int, int], Verdict | None]:
            made = call(
                spec,
                certifier.certify,
                self._handed(),
                self.x[part],
                self.y[part],
                self._given(threat, part),
                self._stream(spec, part),
            )
            claims = self._claims(work, part, made)
            searched = self.searched.take()
            return claims, searched, None if claims.points is None else self._judge(spec, part, claims.points, threat)

        proven = self.lower.setdefault(spec, torch.zeros_like(self.upper))
        for part, seconds, (claims, searched, verdict) in self._guarded(work, prove):
            self._record(work, part, verdict, _cost(searched, None, verdict, seconds, len(part)), claims.detail, claims)
            settled = np.where(claims.confidence == 1.0, claims.lower, 0.0)
            proven[part] = torch.maximum(proven[part], torch.from_numpy(settled).to(proven))

    def _claims(self, work: Work, part: Tensor, made: Any) -> Claims:
        return checked_certificates(work.spec, made, self.x[part], work.threat, work.kind == "verifier")

    # ---------------------------------------------------------------- plumbing

    def _handed(self) -> Counted:
        """Return a classifier to hand to a plugin: a fresh one each time."""
        return Counted(self.plan.classifier, self.searched)

    def _judge(self, spec: str, rows: Tensor, points: Tensor, threat: Threat) -> Verdict:
        verdict = self.judge.judge(self.x[rows], self.y[rows], points, self._given(threat, rows))
        self._check_within(spec, rows, verdict.points, threat)
        return verdict

    def _check_within(self, spec: str, rows: Tensor, points: Tensor, threat: Threat) -> None:
        """Raise PluginError where a point, as it is to be kept, is no longer within domain and budget."""
        lower, upper = threat.domain.box(self.x[rows])
        outside = ~((points >= lower) & (points <= upper)).flatten(1).all(1)
        if threat.eps is not None:
            outside |= ~(distance(points, self.x[rows], threat.norm) <= threat.eps)
        if outside.any():
            sample = self.indices[int(rows[outside][0])]
            raise PluginError(spec, f"the point of sample {sample} left domain or budget while it was judged")

    def _stream(self, spec: str, rows: Tensor) -> Stream:
        indices = [self.indices[row] for row in rows.tolist()]
        return Stream.for_samples(self.plan.seed, spec, indices, self.x.device)

    def _guarded(self, work: Work, answer: Callable[[Tensor], Result]) -> Iterator[tuple[Tensor, float, Result]]:
        """Yield (rows, seconds, answer) batch by batch; a plugin that fails leaves rows of status `error` behind."""

        def attempt(part: Tensor) -> Result | PluginError:
            try:
                return answer(part)
            except PluginError as error:
                self.searched.take()
                return error
            except (MemoryError, RuntimeError) as error:
                if out_of_memory(error) and len(part) == 1:
                    return PluginError(work.spec, "one sample alone does not fit into memory")
                raise

        start = time.perf_counter()
        for part, made in self.batches.run(work.rows, attempt):
            if isinstance(made, PluginError):
                self._failed(Work(work.spec, work.kind, work.threat, part), made)
            else:
                yield part, time.perf_counter() - start, made
            start = time.perf_counter()

    def _record(
        self,
        work: Work,
        rows: Tensor,
        verdict: Verdict | None,
        cost: Cost,
        details: Details | None,
        claims: Claims | None = None,
    ) -> None:
        """Append the rows of a judged answer; a certifier's claims stand where no witness was found."""
        count = len(rows)
        broken = np.zeros(count, dtype=bool) if verdict is None else verdict.broken.cpu().numpy()
        upper = np.full(count, np.inf)
        if verdict is not None:
            found = verdict.distances[work.threat.norm]
            self.upper[rows] = torch.where(verdict.broken, torch.minimum(self.upper[rows], found), self.upper[rows])
            upper = np.where(broken, found.cpu().numpy(), np.inf)
        status, notes = [], []
        checks = self._checks(work)[rows].tolist()
        for i in range(count):
            outcome, note = _outcome(i, verdict, claims)
            status.append(outcome)
            mark = {AUDITED: True} if checks[i] else {}
            notes.append(encode_detail(details[i] if details else None, {**note, **mark}))
        self.blocks.append(
            Block(
                evaluator=work.spec,
                kind=work.kind,
                norm=work.threat.norm,
                eps=work.threat.eps,
                rows=rows.cpu().numpy(),
                lower=np.where(broken | (claims is None), 0.0, 0.0 if claims is None else claims.lower),
                upper=upper,
                confidence=np.where(
                    broken | (claims is None),
                    1.0 if verdict is None else verdict.confidence,
                    1.0 if claims is None else claims.confidence,
                ),
                status=status,
                forwards=cost.forwards,
                backwards=cost.backwards,
                seconds=cost.seconds,
                detail=notes,
            )
        )
        if verdict is not None and broken.any():
            self._keep_witnesses(work, rows, verdict)

    def _checks(self, work: Work) -> Tensor:
        """Return for which samples this attack checks a certificate that others trust, bool [B]."""
        if self.trust is None or work.kind != "attack":
            return torch.zeros_like(self.correct)
        return self.trust.certified(self._within(work.threat, max))

    def _keep_witnesses(self, work: Work, rows: Tensor, verdict: Verdict) -> None:
        kept = verdict.broken
        self.witnesses.append(
            WitnessBlock(
                evaluator=work.spec,
                norm=work.threat.norm,
                eps=work.threat.eps,
                rows=rows[kept].cpu().numpy(),
                points=verdict.points[kept].cpu().numpy(),
                distances={norm: value[kept].cpu().numpy() for norm, value in verdict.distances.items()},
                prediction=verdict.prediction[kept].cpu().numpy(),
                margin=verdict.margin[kept].cpu().numpy(),
                detail=[encode_detail({"verified": how}) for how in verdict.method if how],
            )
        )

    def _failed(self, work: Work, error: PluginError) -> None:
        reason = one_line(str(error), 500)
        count = len(work.rows)
        self.warn(f"{count} samples end in error: {reason}")
        if count:
            nothing = np.zeros(count, np.int64)
            self.blocks.append(
                Block.open(
                    work.rows.cpu().numpy(),
                    evaluator=work.spec,
                    kind=work.kind,
                    norm=work.threat.norm,
                    eps=work.threat.eps,
                    status=["error"] * count,
                    forwards=nothing,
                    backwards=nothing,
                    seconds=0.0,
                    detail=[encode_detail({"reason": reason})] * count,
                )
            )


def _outcome(i: int, verdict: Verdict | None, claims: Claims | None) -> tuple[str, Mapping[str, Any]]:
    """Return status and note of one row: a verified witness first, then what a certifier claims."""
    told = dict(verdict.notes[i]) if verdict is not None and verdict.notes is not None else {}
    if verdict is not None and verdict.broken[i]:
        return "falsified", {**told, "verified": verdict.method[i]}
    note = {**told, "reason": "numerical"} if verdict is not None and verdict.numerical[i] else told
    if claims is not None:
        return claims.status[i], note
    if verdict is not None and verdict.error[i]:
        return "error", {"reason": "non-finite point or logits"}
    return "open", note


def _cost(
    searched: tuple[int, int], proposal: Proposal | None, verdict: Verdict | None, seconds: float, count: int = 0
) -> Cost:
    """Return the cost of a batch: the search as charged by the plugin or evenly, and the judging."""
    count = count or len(proposal.points if proposal else ())
    forwards, backwards = spread(searched, proposal.passes if proposal else None, count)
    if verdict is not None:
        forwards = forwards + verdict.forwards.cpu().numpy()
    return Cost(forwards, backwards, seconds)


def _schedule(evaluator: Evaluator, classifier: Counted, threat: Threat) -> Generator[Any, Outcome | None, None]:
    """Yield the stages of an evaluator, a plain attack being a schedule of one."""
    if hasattr(evaluator.value, "stages"):
        yield from cast(CompositeAttack, evaluator.value).stages(classifier, threat)
    else:
        yield evaluator.spec, evaluator.value, None
