"""The cells of a suite: one evaluation or one bound each, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robench.audit import share_of
from robench.errors import InputError, RobenchError
from robench.evaluation import Settings
from robench.fields import first_problem
from robench.loading import parse_device, parse_rows
from robench.registry import Plugins, load_plugins
from robench.runs import Display
from robench.suite._format import Block, ModelEntry, Shared, SuiteFile, ThreatEntry
from robench.threat import Epsilon, Norm

__all__ = ["BoundCell", "Cell", "Suite", "expand"]

_MOST_CELLS = 100_000


@dataclass(frozen=True)
class Cell:
    """One evaluation: what `robench eval` would be asked for.

    Attributes:
        place: the block that it comes from, `evaluations[0]`.
        model: canonical spec.
        dataset: canonical spec.
        settings: the request.
    """

    place: str
    model: str
    dataset: str
    settings: Settings

    @property
    def title(self) -> str:
        """The cell in a few words."""
        return _title(self.settings.display.name or self.model, self.dataset, self.settings.norm, self.settings.eps)


@dataclass(frozen=True)
class BoundCell:
    """One bound on some samples in one norm, at every ε that any block asks it for.

    Attributes:
        place: the first block that asks for it.
        bound: canonical spec; `spec` as written.
        dataset: canonical spec; `data` as written.
    """

    place: str
    bound: str
    spec: str
    dataset: str
    data: str
    split: str
    samples: str | None
    norm: Norm
    eps: tuple[Epsilon, ...]

    @property
    def title(self) -> str:
        """The cell in a few words."""
        return _title(self.bound, self.dataset, self.norm, self.eps)


@dataclass(frozen=True)
class Suite:
    """A checked suite: bounds first, so that ceilings are there when the evaluations are shown.

    Attributes:
        where: the file's name in messages.
        folder: what the files in its specs are relative to.
    """

    where: str
    folder: Path
    bounds: tuple[BoundCell, ...]
    cells: tuple[Cell, ...]

    @property
    def tasks(self) -> tuple[BoundCell | Cell, ...]:
        """All cells in the order in which they run."""
        return (*self.bounds, *self.cells)


def expand(file: SuiteFile, where: str, folder: Path) -> Suite:
    """Resolve every spec of a file and multiply its blocks out. Raises InputError that names the place."""
    return _Expansion(where, folder).of(file)


@dataclass
class _Expansion:
    where: str
    folder: Path
    plugins: Plugins = field(default_factory=load_plugins)
    known: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, file: SuiteFile) -> Suite:
        count = sum(len(block.models) * len(block.datasets) * len(block.threats) for block in file.evaluations)
        if count > _MOST_CELLS:
            raise InputError(f"{self.where}: {count} cells: at most {_MOST_CELLS} are allowed")
        self._check_shared(file, "")
        cells: dict[Any, Cell] = {}
        bounds: dict[Any, BoundCell] = {}
        for number, block in enumerate(file.evaluations):
            place = f"evaluations[{number}]"
            self._check_shared(block, f"{place}.")
            if not (block.models or block.bounds):
                raise InputError(f"{self.where}: {place}: no models and no bounds: there is nothing to run")
            for key, cell in self._cells(file, block, place):
                if key in cells:
                    raise InputError(f"{self.where}: {place}: {cell.title} stands in {cells[key].place} already")
                cells[key] = cell
            for bound in self._bounds(file, block, place):
                shared = bound.bound, bound.dataset, bound.split, bound.samples, bound.norm
                bounds[shared] = _joined(bounds[shared], bound) if shared in bounds else bound
        return Suite(self.where, self.folder, tuple(bounds.values()), tuple(cells.values()))

    def _cells(self, file: SuiteFile, block: Block, place: str) -> Iterator[tuple[Any, Cell]]:
        attacks = self._side("attacks", block.attacks, place)
        certifiers = self._side("certifiers", block.certifiers, place)
        models = [
            (self._resolved("models", entry.spec, f"{place}.models[{i}]"), entry, self._display(entry, place, i))
            for i, entry in enumerate(block.models)
        ]
        shared = _settings(file, block)
        for i, dataset in enumerate(block.datasets):
            data = self._resolved("datasets", dataset, f"{place}.datasets[{i}]")
            for model, entry, display in models:
                for threat in block.threats:
                    settings = Settings(
                        model=entry.spec,
                        dataset=dataset,
                        eps=threat.eps,
                        norm=threat.norm,
                        attacks=attacks,
                        certifiers=certifiers,
                        display=display,
                        search=(self.folder,),
                        **shared,
                    )
                    yield self._key(settings, model, data, threat), Cell(place, model, data, settings)

    def _key(self, settings: Settings, model: str, data: str, threat: ThreatEntry) -> Any:
        """What two cells must not share: all that decides the rows."""
        sides = [
            None if side is None else tuple(self.known.get((kind, str(spec)), str(spec)) for spec in side)
            for kind, side in (("attacks", settings.attacks), ("certifiers", settings.certifiers))
        ]
        budgets = frozenset(eps.value for eps in threat.eps)
        shared = (
            *(settings.split, settings.samples, settings.seed, settings.precision, settings.draws),
            share_of(settings.trust_certificates),
        )
        return model, data, threat.norm, budgets, *sides, shared

    def _bounds(self, file: SuiteFile, block: Block, place: str) -> Iterator[BoundCell]:
        shared = _settings(file, block)
        for i, dataset in enumerate(block.datasets):
            data = self._resolved("datasets", dataset, f"{place}.datasets[{i}]")
            for j, spec in enumerate(block.bounds):
                bound = self._resolved("bounds", spec, f"{place}.bounds[{j}]")
                for threat in block.threats:
                    yield BoundCell(
                        place=place,
                        bound=bound,
                        spec=spec,
                        dataset=data,
                        data=dataset,
                        split=shared["split"],
                        samples=shared["samples"],
                        norm=threat.norm,
                        eps=threat.eps,
                    )

    def _side(self, kind: str, given: tuple[str, ...] | None, place: str) -> tuple[str, ...] | None:
        """Return the specs of one side, checked: None for the defaults, () where it is switched off."""
        if given is None:
            return None
        if "none" in given:
            if len(given) > 1:
                raise InputError(f"{self.where}: {place}.{kind}: 'none' switches the side off: leave out the others")
            return ()
        for i, spec in enumerate(given):
            if not (kind == "certifiers" and spec == "auto"):
                self._resolved(kind, spec, f"{place}.{kind}[{i}]")
        return given

    def _resolved(self, kind: str, text: str, place: str) -> str:
        """Return the canonical form of a spec, resolved once."""
        if (kind, text) not in self.known:
            with self._at(place):
                self.known[kind, text] = self.plugins.resolve(kind, text, search=(self.folder,)).canonical
        return self.known[kind, text]

    def _display(self, entry: ModelEntry, place: str, number: int) -> Display:
        try:
            return Display(**entry.model_dump(exclude={"spec"}))
        except ValidationError as error:
            raise InputError(f"{self.where}: {place}.models[{number}]: {first_problem(error)}") from None

    def _check_shared(self, given: Shared, place: str) -> None:
        if given.device is not None:
            with self._at(f"{place}device"):
                parse_device(given.device)
        if given.samples is not None:
            with self._at(f"{place}samples"):
                parse_rows(given.samples, 10**18)

    @contextmanager
    def _at(self, place: str) -> Iterator[None]:
        """Put the place before a complaint."""
        try:
            yield
        except RobenchError as error:
            raise InputError(f"{self.where}: {place}: {error}") from None


def _settings(file: SuiteFile, block: Block) -> dict[str, Any]:
    """Return the settings of a block: its own, else the file's, else the usual ones."""
    usual: dict[str, Any] = {"split": "test", "samples": None, "seed": 0, "device": "auto", "precision": "fp32"}
    usual |= {"draws": Settings.draws, "trust_certificates": Settings.trust_certificates}
    out = {**usual, "batch_size": None}
    for source in (file, block):
        out.update({name: value for name in out if (value := getattr(source, name)) is not None})
    out["batch_size"] = None if out["batch_size"] == "auto" else out["batch_size"]
    return out


def _joined(one: BoundCell, other: BoundCell) -> BoundCell:
    """The same bound at the ε of both."""
    merged = {eps.value: eps for eps in (*other.eps, *one.eps)}
    return replace(one, eps=tuple(merged[value] for value in sorted(merged)))


def _title(what: str, dataset: str, norm: str, epsilons: Any) -> str:
    shown = " ".join(str(eps) for eps in sorted(epsilons, key=lambda eps: eps.value))
    return f"{what} on {dataset}, {norm} {shown or 'given'}"
