"""The suite file as written: what its keys are and what may stand under them. Nothing is resolved here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from robench.errors import InputError
from robench.fields import Key, Line, SpecText, Strict, Text
from robench.threat import Epsilon, Norm

__all__ = ["Block", "ModelEntry", "Shared", "SuiteFile", "ThreatEntry", "keys_at"]

_MOST = 10_000  # entries of a list


def _many(value: Any) -> Any:
    """Read a single entry as a list of one."""
    if isinstance(value, list):
        return tuple(value)
    return value if isinstance(value, tuple) else (value,)


def _model(value: Any) -> Any:
    """Read a bare spec as a table that holds nothing else."""
    return {"spec": value} if isinstance(value, str) else value


def _budget(value: Any) -> Epsilon:
    """Read `"8/255"`, `0.1` or `1`."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("must be a number or a text like '8/255'")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("is too large")
    try:
        return Epsilon.parse(value)
    except InputError as error:
        raise ValueError(str(error)) from None


def _batch_size(value: Any) -> Any:
    if value in (None, "auto") or (isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31):
        return value
    raise ValueError("must be a whole number from 1, or 'auto'")


def _different(epsilons: tuple[Epsilon, ...]) -> tuple[Epsilon, ...]:
    values = [eps.value for eps in epsilons]
    for position, value in enumerate(values):
        if value in values[:position]:
            raise ValueError(f"{epsilons[position]} stands there twice")
    return epsilons


_List = BeforeValidator(_many)
_Short = Field(max_length=_MOST)
_Size = Field(min_length=1, max_length=_MOST)
Specs = Annotated[tuple[SpecText, ...], _List, _Short]


class ModelEntry(Strict):
    """A model and what boards show about it: the keys of `robench eval --meta`."""

    spec: SpecText
    name: Line | None = None
    paper: Line | None = None
    training_data: Line | None = None
    licence: Line | None = None
    more: dict[Key, Text] = Field(default_factory=dict)


def _given(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """Read `"given"` as no budget at all."""
    return () if value == "given" else read(value)


class ThreatEntry(Strict):
    """A norm and its budgets; none where `eps = "given"`: the data bring sets of their own."""

    norm: Norm
    eps: Annotated[
        tuple[Annotated[Epsilon, PlainValidator(_budget)], ...],
        _List,
        _Size,
        AfterValidator(_different),
        WrapValidator(_given),
    ]


class Shared(Strict):
    """Settings that stand at the top of the file for all blocks, or in a block for itself; None was not given."""

    split: Line | None = None
    samples: Line | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    device: Line | None = None
    precision: Literal["fp32", "fp64"] | None = None
    draws: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    trust_certificates: bool | Annotated[float, Field(gt=0, le=1)] | None = None
    batch_size: Annotated[int | str | None, PlainValidator(_batch_size)] = None


class Block(Shared):
    """A matrix: every model on every dataset under every threat. Evaluators: None runs the defaults, () none."""

    models: Annotated[tuple[Annotated[ModelEntry, BeforeValidator(_model)], ...], _List, _Short] = ()
    datasets: Annotated[Specs, Field(min_length=1)]
    threats: Annotated[tuple[ThreatEntry, ...], _List, _Size]
    attacks: Specs | None = None
    certifiers: Specs | None = None
    bounds: Specs = ()


class SuiteFile(Shared):
    """The whole file."""

    evaluations: Annotated[tuple[Block, ...], _List, _Size]


def keys_at(place: tuple[int | str, ...]) -> tuple[str, ...]:
    """Return the keys that the table at `place` may hold, for a hint at a misspelt one."""
    names = [step for step in place if isinstance(step, str)]
    tables: dict[tuple[str, ...], type[Strict]] = {
        (): SuiteFile,
        ("evaluations",): Block,
        ("evaluations", "models"): ModelEntry,
        ("evaluations", "threats"): ThreatEntry,
    }
    table = tables.get(tuple(names))
    return tuple(table.model_fields) if table else ()
