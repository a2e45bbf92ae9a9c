"""The manifest of a run: what it takes to repeat it, and what to show about it. Never a user, host or path.

Every field is checked on the way in and out: manifests also come from strangers.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from robench.contracts import Access
from robench.errors import DataError
from robench.fields import (
    Count,
    EpsilonText,
    Identity,
    Key,
    Line,
    Sha256,
    SpecText,
    Strict,
    Text,
    Time,
    first_problem,
)
from robench.regions import RegionKind
from robench.runs._layout import RUN_ID, new_run_id
from robench.threat import Norm

__all__ = [
    "MANIFEST_VERSION",
    "ClassifierInfo",
    "Component",
    "DatasetInfo",
    "Display",
    "Environment",
    "EvaluatorInfo",
    "Flag",
    "GitState",
    "Manifest",
    "PluginInfo",
    "Request",
    "RunId",
    "StageInfo",
    "Trust",
]

MANIFEST_VERSION: Final = 1

Trust = Literal["measured", "replayed", "imported", "aggregate", "self-reported"]
PartName = Annotated[str, StringConstraints(pattern=r"^(evidence|witnesses)/part-[0-9]{9,15}\.parquet$")]
RunId = Annotated[str, StringConstraints(pattern=f"^{RUN_ID}$")]


class PluginInfo(Strict):
    """The plugin behind one part of a spec: its name, distribution and version."""

    name: Line
    distribution: Line
    version: Line


class Component(Strict):
    """A part of a run as a spec names it: the short form, the one with every parameter, and the plugins behind it."""

    canonical: SpecText
    full: Text = ""
    plugins: tuple[PluginInfo, ...] = ()


class ClassifierInfo(Component):
    """The function under evaluation.

    `opaque` marks one without a graph, `randomized` one that draws at inference, `smoothed` a vote over such draws.
    """

    fingerprint: Identity
    opaque: bool = False
    randomized: bool = False
    smoothed: bool = False
    classes: Annotated[int, Field(ge=1, lt=2**31)]
    input_shape: Annotated[tuple[Count, ...], Field(max_length=8)] = ()
    parameters: Count | None = None


class DatasetInfo(Component):
    """The samples: `hash` is the whole split's, `samples_hash` that of the selected indices, `n` their number.

    `canonical` leaves selections out; `selection` holds them. A side of `domain` that is unbounded is None.
    `names`: what the source calls each sample, by index, where it names them. `regions` says that each sample has a set
    of its own, and whether what must not happen there is about its label. `facts` are figures that transforms tell.
    """

    hash: Identity
    split: Line
    selection: Text = ""
    samples_hash: Sha256 | None = None
    n: Count
    domain: tuple[float | None, float | None] = (0.0, 1.0)
    classes: tuple[Line, ...] = ()
    thresholds: dict[Norm, tuple[EpsilonText, ...]] = Field(default_factory=dict)
    regions: RegionKind | None = None
    names: Annotated[dict[Count, Line], Field(max_length=100_000)] = Field(default_factory=dict)
    facts: Annotated[dict[Key, Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=100)] = Field(
        default_factory=dict
    )

    @property
    def bounds(self) -> tuple[float, float]:
        """The domain as two doubles, ±inf where unbounded."""
        lower, upper = self.domain
        return (-math.inf if lower is None else lower), (math.inf if upper is None else upper)


class StageInfo(Strict):
    """A stage of a composite attack: what it asks the classifier for, and whether it is not a minimum-norm attack."""

    access: Access | None = None
    per_eps: bool = True


class EvaluatorInfo(Component):
    """One attack or certifier. `default` marks one that ran because nothing was asked for.

    `access` is what an attack asks the classifier for; `stages`, of a composite attack, the evaluators that it left
    rows of, by their names in the evidence, in the order of their first turn. Both are None where it is not told.
    """

    kind: Literal["attack", "certificate", "verifier"]
    side: Literal["attack", "certificate"]
    norm: Norm | None = None
    per_eps: bool = True
    deterministic: bool = True
    default: bool = False
    access: Access | None = None
    stages: dict[SpecText, StageInfo] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The evaluators of the evidence that speak for it: itself, and the stages of a composite attack."""
        return (self.canonical, *(self.stages or ()))


class Request(Strict):
    """What `--resume` compares: two runs with equal requests give the same evidence.

    `draws` is null where the classifier does not draw, `alpha` where it does not vote; `audit` is the share of
    certified samples that is attacked where the others are trusted, null where attacks trust no certificate.
    """

    fingerprint: Identity
    dataset_hash: Identity
    split: Line
    samples: Text
    samples_hash: Sha256 | None = None
    norm: Norm | None
    eps: tuple[EpsilonText, ...]
    evaluators: tuple[SpecText, ...]
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    precision: Line
    draws: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    audit: Annotated[float, Field(gt=0, le=1)] | None = None
    versions: dict[Line, Line] = Field(default_factory=dict)


class GitState(Strict):
    """Commit of the working directory, and whether files differed from it."""

    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
    dirty: bool


class Environment(Strict):
    """What the run was measured on and with."""

    device: Line = ""
    engine: Line = "local"
    batch_size: Count | None = None
    versions: dict[Line, Line] = Field(default_factory=dict)
    deterministic: dict[Key, bool] = Field(default_factory=dict)
    git: GitState | None = None


class Display(Strict):
    """What boards show beside the numbers (`--name`, `--meta`)."""

    name: Line | None = None
    paper: Line | None = None
    training_data: Line | None = None
    licence: Line | None = None
    more: dict[Key, Text] = Field(default_factory=dict)


class Flag(Strict):
    """Something a reader of the numbers must know; `code` is for programs, `text` for people."""

    code: Key
    text: Text


class Manifest(Strict):
    """Everything about a run but its rows. `parts` holds the sha256 of every part once the run is complete."""

    schema_version: Literal[1] = MANIFEST_VERSION
    run: RunId = Field(default_factory=new_run_id)
    complete: bool = False
    origin: Literal["measured", "imported"] = "measured"
    trust: Trust = "measured"
    source: Text | None = None
    request: Request
    classifier: ClassifierInfo
    dataset: DatasetInfo
    evaluators: tuple[EvaluatorInfo, ...] = ()
    environment: Environment = Environment()
    started: Time = Field(default_factory=lambda: datetime.now(UTC))
    finished: Time | None = None
    display: Display = Display()
    command: Text = ""
    flags: tuple[Flag, ...] = ()
    errors: Count = 0
    same_as: tuple[Identity, ...] = ()
    parts: dict[PartName, Sha256] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if self.request.fingerprint != self.classifier.fingerprint:
            raise ValueError("request and classifier differ in the fingerprint")
        if (self.request.dataset_hash, self.request.split) != (self.dataset.hash, self.dataset.split):
            raise ValueError("request and dataset differ in hash or split")
        if (self.origin == "imported") and self.trust == "measured":
            raise ValueError("imported evidence is not measured")
        return self

    def to_json(self) -> bytes:
        """Return the manifest as indented JSON."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Parse a manifest that may come from anybody. Raises DataError, one line, naming `where`."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise DataError(f"{where}: not a run's manifest: {first_problem(error)}") from None

    def replace(self, **changes: object) -> Manifest:
        """Return a checked copy with some fields changed. Raises DataError for a bad value."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        try:
            return type(self).model_validate({**fields, **changes})
        except ValidationError as error:
            raise DataError(f"manifest: {first_problem(error)}") from None
