"""A scaling curve on disk: which trainings belong together. Accuracies are not in it; they follow from the evidence.

<dataset>/_scale/<recipe>/<run>/manifest.json
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from robench.errors import DataError
from robench.fields import Count, Identity, SpecText, Strict, Text, Time, first_problem
from robench.runs import Component, DatasetInfo, Environment, RunId, new_run_id
from robench.scaling._sizes import MOST_SIZES
from robench.storage import LocalStorage, Storage

__all__ = ["FOLDER", "MANIFEST", "Distance", "Scale", "ScaleManifest", "ScaleMember", "find_scales"]

FOLDER: Final = "_scale"
MANIFEST: Final = "manifest.json"
_LARGEST: Final = 16 << 20
_DEPTH: Final = 2
_Many = Field(max_length=100_000)
_Size = Annotated[int, Field(ge=1, lt=10**12)]


class ScaleMember(Strict):
    """One training, and the functions that were evaluated, by what stands behind the model's spec (nothing: itself).

    Without any where it failed.
    """

    n: _Size
    seed: Count
    epochs: Count | None = None
    fingerprints: dict[Text, Identity]


class Distance(Strict):
    """The median l2 distance of test samples to the nearest of n training samples."""

    n: _Size
    seed: Count
    median: Annotated[float, Field(ge=0, le=1e100, allow_inf_nan=False)]


class ScaleManifest(Strict):
    """Everything about one curve.

    Attributes:
        run: id, as of runs: UTC time + 6 hex digits.
        recipe: the recipe at the largest size.
        dataset: what was evaluated on; `train_hash` identifies the data that subsets were taken of.
        compute: `steps`: all trainings take equally many; `epochs`: all pass equally often over their data.
        targets: accuracies of which it is told how many samples they would take.
        members: the trainings.
        distances: to the nearest training sample.
    """

    schema_version: Literal[1] = 1
    run: RunId = Field(default_factory=new_run_id)
    recipe: Component
    dataset: DatasetInfo
    train: SpecText
    train_hash: Identity
    compute: Literal["steps", "epochs"]
    targets: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(max_length=100)] = ()
    members: Annotated[tuple[ScaleMember, ...], _Many]
    distances: Annotated[tuple[Distance, ...], _Many] = ()
    environment: Environment = Environment()
    started: Time = Field(default_factory=lambda: datetime.now(UTC))
    finished: Time
    command: Text = ""

    @model_validator(mode="after")
    def _one_for_each(self) -> Self:
        """Each size and seed stands for one training, and there are no more sizes than `parse_sizes` gives."""
        for name, found in (("members", self.members), ("distances", self.distances)):
            if len({(one.n, one.seed) for one in found}) < len(found):
                raise ValueError(f"{name} holds a size twice with one seed")
            if len({one.n for one in found}) > MOST_SIZES:
                raise ValueError(f"{name} holds more than {MOST_SIZES} sizes")
        return self

    def to_json(self) -> bytes:
        """Return the manifest as indented JSON."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, where: str) -> ScaleManifest:
        """Parse a manifest that may come from anybody. Raises DataError, one line, naming `where`."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise DataError(f"{where}: not the manifest of a scaling curve: {first_problem(error)}") from None


@dataclass(frozen=True)
class Scale:
    """A curve's manifest, and its folder, for messages."""

    manifest: ScaleManifest
    location: str


def find_scales(
    paths: str | Path | Storage | Iterable[str | Path | Storage], problem: Callable[[str], None] | None = None
) -> list[Scale]:
    """Return the curves in results folders or folders within them, oldest first, each once; [] where there are none.

    `problem` is told, on one line, of a curve that cannot be read, which is left out then. Raises DataError for one
    without `problem`, and where a path is missing.
    """
    given = [paths] if isinstance(paths, (str, Path, Storage)) else list(paths)
    found: dict[str, Scale] = {}
    for path in given:
        if isinstance(path, (str, Path)) and not Path(path).is_dir():
            raise DataError(f"{path}: no such results folder")
        storage = LocalStorage(path) if isinstance(path, (str, Path)) else path
        inside = isinstance(path, (str, Path)) and FOLDER in Path(path).resolve().parts[-3:]
        for folder in _walk(storage, _DEPTH, inside):
            try:
                manifest = ScaleManifest.from_json(folder.read(MANIFEST, _LARGEST), folder.locate(MANIFEST))
                other = found.setdefault(manifest.run, Scale(manifest, folder.locate()))
                if other.manifest != manifest:
                    raise DataError(
                        f"{other.location} and {folder.locate()} are different curves with one id; remove one"
                    )
            except DataError as error:
                if problem is None:
                    raise
                problem(str(error))
    return [found[name] for name in sorted(found)]


def _walk(storage: Storage, depth: int, inside: bool) -> Iterator[Storage]:
    names = storage.list()
    if MANIFEST in names:
        if inside:
            yield storage
    elif f"{FOLDER}/" in names:
        yield from _walk(storage.at(FOLDER), _DEPTH, True)
    elif depth:
        for name in names:
            if name.endswith("/"):
                yield from _walk(storage.at(name[:-1]), depth - 1, inside or name[:-1] == FOLDER)
