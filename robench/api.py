"""The Python interface: `robench.evaluate`, `robench.bound`, and what they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robench._replay import Replay, replay
from robench.bounds import BoundRun, Ceilings, find_bounds
from robench.bounds import compute as bound
from robench.contracts import Attack, Certifier, CompositeAttack
from robench.errors import InputError
from robench.evaluation import Settings, display, execute, prepare
from robench.metrics import in_order, random_results, results, summarise
from robench.report import result_lines
from robench.report_draws import draws_lines
from robench.runs import Run, load
from robench.storage import LocalStorage
from robench.threat import Epsilon

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BoundRun", "Evaluation", "Replay", "bound", "evaluate", "load", "replay"]


@dataclass(frozen=True)
class Evaluation:
    """What was evaluated; printed, it shows what `robench eval` does.

    Attributes:
        runs: manifest, evidence and witnesses on disk, of the model first, if anything ran about it, then of each
            function that a certifier made of it (`smoothing:sigma=0.25`).
        summary: the document of `robench eval --json`.
    """

    runs: tuple[Run, ...]
    summary: dict[str, Any]
    _ceilings: Ceilings = field(default_factory=Ceilings, compare=False, kw_only=True)

    def __str__(self) -> str:
        """Return the figures in a few lines."""
        found = in_order(results(self.runs, self._ceilings), self.runs)
        lines = [*result_lines(found), *draws_lines(random_results(self.runs))]
        return "\n".join([*lines, *(f"evidence: {run.location}" for run in self.runs)])

    @property
    def run(self) -> Run:
        """The first run: the only one unless a certifier made functions of the model."""
        return self.runs[0]

    def __repr__(self) -> str:
        """Return which run it is."""
        return f"<Evaluation {self.run.manifest.run} in {self.run.location}>"

    @property
    def evidence(self) -> pd.DataFrame:
        """One row per (sample, evaluator, norm, ε)."""
        return load([Path(run.location) for run in self.runs])


def evaluate(
    model: Any,
    dataset: Any,
    *,
    eps: str | float | Epsilon | Sequence[str | float | Epsilon] = (),
    norm: str = "linf",
    attacks: str | Sequence[str | Attack | CompositeAttack] | None = None,
    certifiers: str | Sequence[str | Certifier] | None = None,
    samples: str | None = None,
    split: str = "test",
    device: str = "auto",
    batch_size: int | None = None,
    seed: int = 0,
    precision: str = "fp32",
    draws: int = 100,
    trust_certificates: bool | float = False,
    out: str | Path = "results",
    resume: bool = False,
    name: str | None = None,
    meta: str | Path | None = None,
    progress: Callable[[int, int, Mapping[str, int]], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Evaluation:
    """Attack and certify a classifier, sample by sample, into `out`; what `robench eval` does.

    Args:
        model: a model spec, a `torch.nn.Module` in evaluation mode, or an object with `logits` or `load`.
        dataset: a dataset spec, `Samples`, a dataset object, or a pair (x [N, ...] in [0, 1], y [N]).
        eps: one budget or several, in the domain's units; `"8/255"` is kept exactly. None where the data come with sets
            of their own (`vnnlib:FOLDER`).
        norm: `linf`, `l2` or `l1`.
        attacks: specs or attack objects, or one of them; None runs the default, () or "none" switches the side off.
        certifiers: likewise; None runs every cheap one that applies.
        samples: positions `A:B` after selection.
        split: the dataset's split.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        batch_size: samples at a time; None chooses, and halves when memory runs out.
        seed: seed of every sample's random stream.
        precision: `fp32` or `fp64`.
        draws: how often a classifier that draws at inference is asked at each point.
        trust_certificates: attacks skip samples that are certified deterministically, but for an audited share (5 %, or
            the number given); no cost is claimed then.
        out: results folder.
        resume: go on with the newest equal run that was not finished.
        name: display name on boards.
        meta: TOML file with more to show: paper, training_data, licence, and any other keys.
        progress: called with (samples done, samples, rows by status) after each chunk.
        warn: called with one line about anything that went wrong on some samples.

    Returns:
        The finished run and its summary.

    Raises:
        InputError: bad input; nothing was written.
    """
    settings = Settings(
        model=model,
        dataset=dataset,
        eps=[eps] if isinstance(eps, (str, int, float, Epsilon)) else list(eps),
        norm=norm,
        attacks=_side(attacks),
        certifiers=_side(certifiers),
        samples=samples,
        split=split,
        device=device,
        batch_size=batch_size,
        seed=seed,
        precision=precision,
        draws=draws,
        trust_certificates=trust_certificates,
        display=display(name, meta),
    )
    root = LocalStorage(out)  # a plugin may change the working folder
    warn = warn or (lambda line: None)
    everything = prepare(settings)
    unidentified = [name for prepared in everything for name in prepared.unidentified]
    if resume and unidentified:
        raise InputError(
            f"no run can be resumed with {unidentified[0]}: its parameters cannot be told; make it a frozen dataclass "
            "with plain fields, or name it by a spec"
        )
    runs = []
    for prepared in everything:
        run = Run.find_resumable(out, prepared.manifest.request) if resume else None
        if run is None or not run.manifest.complete:
            with run or Run.create(out, prepared.manifest) as run:
                for note in prepared.notes:
                    warn(note)
                execute(prepared, run, progress or (lambda done, total, counts: None), warn)
        runs.append(run)
    ceilings = Ceilings(find_bounds(root, warn))
    return Evaluation(tuple(runs), summarise(runs, ceilings, ordered=True), _ceilings=ceilings)


def _side(given: Any) -> Any:
    """Return one side's evaluators as a sequence: a single spec stands for itself, `none` for an empty one."""
    return [spec for spec in (given,) if spec != "none"] if isinstance(given, str) else given
