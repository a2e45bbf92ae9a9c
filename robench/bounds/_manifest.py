"""The manifest of a bound: what it takes to compute it again. Never a user, host or path."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from robench.errors import DataError
from robench.fields import EpsilonText, Json, Line, Sha256, Strict, Text, Time, first_problem
from robench.runs import Component, DatasetInfo, Environment, RunId, new_run_id
from robench.threat import Epsilon, Norm

__all__ = ["MOST_EPSILONS", "BoundManifest", "facts_of"]

BOUND_VERSION: Final = 1
MOST_EPSILONS: Final = 10_000


class BoundManifest(Strict):
    """Everything about one bound on some samples but its rows.

    Attributes:
        run: id, as of runs: UTC time + 6 hex digits.
        bound: its spec, and the plugin behind it.
        dataset: the samples; `samples_hash` is always there, since a ceiling holds for exactly those.
        norm: the norm.
        eps: the budgets as given, ascending.
        facts: the bound's figures about the samples as a whole.
        sha256: of bound.parquet.
    """

    schema_version: Literal[1] = BOUND_VERSION
    run: RunId = Field(default_factory=new_run_id)
    bound: Component
    dataset: DatasetInfo
    norm: Norm
    eps: Annotated[tuple[EpsilonText, ...], Field(min_length=1, max_length=MOST_EPSILONS)]
    environment: Environment = Environment()
    started: Time = Field(default_factory=lambda: datetime.now(UTC))
    finished: Time
    command: Text = ""
    facts: dict[Line, Json] = Field(default_factory=dict)
    sha256: Sha256

    @model_validator(mode="after")
    def _consistent(self) -> BoundManifest:
        if self.dataset.samples_hash is None:
            raise ValueError("dataset.samples_hash is missing: a bound holds for exactly its samples")
        if any(one.value >= other.value for one, other in itertools.pairwise(self.epsilons)):
            raise ValueError("eps is not strictly ascending")
        return self

    @property
    def epsilons(self) -> tuple[Epsilon, ...]:
        """The budgets, ascending."""
        return tuple(map(Epsilon.parse, self.eps))

    def to_json(self) -> bytes:
        """Return the manifest as indented JSON."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, where: str) -> BoundManifest:
        """Parse a manifest that may come from anybody. Raises DataError, one line, naming `where`."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise DataError(f"{where}: not a bound's manifest: {first_problem(error)}") from None


_FACTS: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[Line, Json], config=ConfigDict(strict=True))


def facts_of(text: str) -> dict[str, Any]:
    """Return a JSON object as checked facts. Raises ValueError, one line."""
    try:
        return _FACTS.validate_json(text)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
