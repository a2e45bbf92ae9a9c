"""One run on disk.

    <run>/manifest.json
         /witnesses/part-000000000.parquet     put first; counts only once its evidence part is there
         /evidence/part-000000000.parquet      its presence commits both

A part is named by the first position (in the run's selection) that it covers and holds all rows of its samples.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from robench.errors import DataError
from robench.evidence import EVIDENCE, WITNESSES, from_parquet, repeated_key, to_parquet
from robench.runs._layout import folder_name, new_run_id, open_results
from robench.runs._manifest import Manifest, Request
from robench.storage import LocalStorage, Storage

__all__ = ["Run", "samples_hash"]

MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 64 << 20
_PART = re.compile(r"part-([0-9]{9,15})\.parquet")


def samples_hash(index: npt.ArrayLike) -> str:
    """sha256 (hex) over a set of sample indices, whatever their order."""
    return hashlib.sha256(np.sort(np.asarray(index)).astype("<i8").tobytes()).hexdigest()


class Run:
    """A run's manifest, evidence and witnesses. Writing needs the lock that `create` and `find_resumable` take."""

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        """Wrap a run whose manifest was read; prefer `Run.open`."""
        self.storage = storage
        self.manifest = manifest
        self._stack = ExitStack()
        self._locked = False
        self._hashes: dict[str, str] = {}
        self._done: set[int] | None = None

    @classmethod
    def open(cls, where: Storage | Path | str) -> Run:
        """Read the run in a folder. Raises DataError."""
        storage = _storage(where)
        return cls(storage, _read_manifest(storage))

    @classmethod
    def create(cls, results: Storage | Path | str, manifest: Manifest) -> Run:
        """Start a run in a results folder: its folder, its lock, its manifest.

        Raises InputError where the folder holds something that is not ours.
        """
        root = open_results(results) if isinstance(results, (str, Path)) else results
        while root.exists(key := _run_key(manifest)):
            manifest = manifest.replace(run=new_run_id(manifest.started))
        run = cls(root.at(key), manifest)
        run._lock()
        try:
            run.save_manifest()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def find_resumable(cls, results: Storage | Path | str, request: Request) -> Run | None:
        """Return the newest incomplete run that answers `request`, locked and cleaned, ready for `put_part`.

        Without one, the newest complete run (`manifest.complete`), without a lock; without any, None.
        Raises LockedError where the newest incomplete run is being written.
        """
        matches = [run for run in _runs_for(_storage(results), request) if run.manifest.request == request]
        matches.sort(key=lambda run: run.manifest.run, reverse=True)
        for run in [run for run in matches if not run.manifest.complete]:
            run._lock()
            if not run.manifest.complete:  # else another process finished it just now
                return run
            run.close()
        return next((run for run in matches if run.manifest.complete), None)

    @property
    def location(self) -> str:
        """The run's folder, for messages."""
        return self.storage.locate()

    def __repr__(self) -> str:
        return f"Run({self.location!r})"

    def __enter__(self) -> Self:
        """Take the lock, if `create` or `find_resumable` has not yet."""
        self._lock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock. What was put stays; only `finish` makes a run complete."""
        self.close()

    def close(self) -> None:
        """Release the lock."""
        self._stack.close()
        self._locked = False

    def put_part(self, first_position: int, evidence: pa.Table, witnesses: pa.Table | None = None) -> None:
        """Commit all rows of some samples, from position `first_position` of the selection on.

        Raises ValueError for rows of another run, of samples that are done, or of a position that is taken.
        """
        self._writable()
        done = self._known_done()
        samples = _distinct(evidence["sample"])
        problem = self._foreign(evidence) or (
            f"sample {min(done & samples)} is done already" if done & samples else None
        )
        if problem is None and (repeated := repeated_key(evidence)):
            problem = f"rows of {repeated} are there twice"
        if not samples or problem:
            raise ValueError(f"part {first_position}: {problem or 'no rows'}")
        name = f"part-{first_position:09d}.parquet"
        if self.storage.exists(f"evidence/{name}"):
            raise ValueError(f"part {first_position} is there already")
        if witnesses is not None and len(witnesses):
            self._put(f"witnesses/{name}", witnesses)
        else:
            self.storage.delete(f"witnesses/{name}")  # left by a process that was killed before its evidence part
        self._put(f"evidence/{name}", evidence)
        done |= samples

    def done(self) -> set[int]:
        """Indices of the samples whose rows are committed."""
        return set(self._known_done())

    def save_manifest(self, **changes: Any) -> None:
        """Write the manifest, with some fields changed. Raises DataError for a bad value."""
        self._writable()
        manifest = self.manifest.replace(**changes) if changes else self.manifest
        self.storage.put(MANIFEST, manifest.to_json())
        self.manifest = manifest

    def finish(self, **changes: Any) -> None:
        """Mark the run complete: finish time and the hash of every part. Raises DataError where samples miss."""
        missing = self.manifest.dataset.n - len(self._known_done())
        if missing:
            raise DataError(f"{self.location}: {abs(missing)} samples {'are missing' if missing > 0 else 'too many'}")
        parts = {key: self._hashes.get(key) or self._hash(key) for key in self._part_keys()}
        finished = datetime.now(UTC)
        self.save_manifest(**{"finished": finished, **changes, "complete": True, "parts": parts})

    def evidence(self) -> pa.Table:
        """Return all committed rows, validated. Raises DataError. Works while the run is being written."""
        tables = list(self.iter_evidence())
        return pa.concat_tables(tables).unify_dictionaries() if tables else EVIDENCE.empty_table()

    def iter_evidence(self) -> Iterator[pa.Table]:
        """Yield the committed rows part by part, validated, so that what is not needed need not fit into memory."""
        owner: set[int] = set()
        for key in self._parts("evidence"):
            table = self._read(key, "evidence")
            samples = _distinct(table["sample"])
            repeated = repeated_key(table)
            if owner & samples or repeated:
                where = f"sample {min(owner & samples)}" if owner & samples else f"{repeated}"
                raise DataError(f"{self.storage.locate(key)}: rows of {where} are there twice")
            owner |= samples
            yield table

    def witnesses(self) -> pa.Table:
        """Return all committed witnesses, validated, read when called. Raises DataError."""
        tables = list(self.iter_witnesses())
        return pa.concat_tables(tables).unify_dictionaries() if tables else WITNESSES.empty_table()

    def iter_witnesses(self) -> Iterator[pa.Table]:
        """Yield the committed witnesses part by part, so that they need not fit into memory together."""
        for key in self._parts("witnesses"):
            yield self._read(key, "witnesses")

    def verify_parts(self) -> list[str]:
        """Return what differs between the parts on disk and a complete manifest's hashes, one line each."""
        if not self.manifest.complete:
            return []
        problems = []
        on_disk, listed = set(self._part_keys(committed=False)), self.manifest.parts
        for key in sorted(on_disk | set(listed)):
            where = self.storage.locate(key)
            if key not in on_disk:
                problems.append(f"{where}: missing")
            elif key not in listed:
                problems.append(f"{where}: not a part of this run")
            elif self._hash(key) != listed[key]:
                problems.append(f"{where}: edited since it was written (its sha256 is not the manifest's)")
        return problems

    def _lock(self) -> None:
        """Take the lock, see what another process has made of the run, and clean up after a killed one."""
        if self._locked:
            return
        with ExitStack() as stack:
            stack.enter_context(self.storage.lock("run"))
            if self.storage.exists(MANIFEST):
                self.manifest = _read_manifest(self.storage)
            if not self.manifest.complete:
                self._clean()
            self._stack = stack.pop_all()
        self._locked, self._done, self._hashes = True, None, {}

    def _writable(self) -> None:
        if not self._locked:
            raise ValueError(f"{self.location}: writing needs the run's lock (`with run:`)")
        if self.manifest.complete:
            raise ValueError(f"{self.location}: a complete run is not written again")

    def _clean(self) -> None:
        """Remove what a killed process left: temporaries, and witness parts without their evidence."""
        for folder in ("", "evidence", "witnesses"):
            self.storage.sweep(folder)
        committed = set(self._parts("witnesses"))
        for key in self._part_keys(committed=False):
            if key.startswith("witnesses/") and key not in committed:
                self.storage.delete(key)

    def _known_done(self) -> set[int]:
        if self._done is None or not self._locked:  # without the lock, another process may have gone on
            self._done = set()
            for key in self._parts("evidence"):
                self._done |= _distinct(self._read(key, "evidence", ("sample",))["sample"])
        return self._done

    def _put(self, key: str, table: pa.Table) -> None:
        data = to_parquet(table)
        self.storage.put(key, data)
        self._hashes[key] = hashlib.sha256(data).hexdigest()

    def _hash(self, key: str) -> str:
        with self.storage.open(key) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _parts(self, kind: str) -> list[str]:
        """Keys of the committed parts of a kind, by position."""
        names = {name for name in self.storage.list("evidence") if _PART.fullmatch(name)}
        if kind != "evidence":
            names &= set(self.storage.list(kind))
        return [f"{kind}/{name}" for name in sorted(names, key=lambda name: (len(name), name))]

    def _part_keys(self, committed: bool = True) -> list[str]:
        if committed:
            return self._parts("witnesses") + self._parts("evidence")
        return [f"{kind}/{name}" for kind in ("witnesses", "evidence") for name in self.storage.list(kind)]

    def _read(self, key: str, kind: Any, columns: tuple[str, ...] | None = None) -> pa.Table:
        table = from_parquet(self.storage.read(key), kind, self.storage.locate(key), columns)
        problem = None if columns else self._foreign(table)
        if problem:
            raise DataError(f"{self.storage.locate(key)}: {problem}")
        return table

    def _foreign(self, table: pa.Table) -> str | None:
        """Say what in `table` belongs to another run, if anything."""
        manifest = self.manifest
        own = {
            "run": manifest.run,
            "fingerprint": manifest.classifier.fingerprint,
            "dataset_hash": manifest.dataset.hash,
            "split": manifest.dataset.split,
        }
        for name in own.keys() & set(table.column_names):
            found = set(table[name].unique().to_pylist())
            if found - {own[name]}:
                return f"rows of another {name}: {sorted(map(str, found - {own[name]}))[0][:80]!r}"
        classes = max(manifest.classifier.classes, len(manifest.dataset.classes))
        for name in ("label", "prediction"):
            if name in table.column_names and (highest := pc.max(table[name]).as_py() or 0) >= classes:
                return f"{name} {highest} of {classes} classes"
        return None


def _distinct(column: pa.ChunkedArray) -> set[int]:
    return set(column.unique().to_pylist())


def _storage(where: Storage | Path | str) -> Storage:
    return LocalStorage(where) if isinstance(where, (str, Path)) else where


def _read_manifest(storage: Storage) -> Manifest:
    return Manifest.from_json(storage.read(MANIFEST, _LARGEST_MANIFEST), storage.locate(MANIFEST))


def _classifier_key(request: Request, dataset: str, classifier: str) -> str:
    return f"{folder_name(dataset, request.dataset_hash)}/{folder_name(classifier, request.fingerprint)}"


def _run_key(manifest: Manifest) -> str:
    where = _classifier_key(manifest.request, manifest.dataset.canonical, manifest.classifier.canonical)
    return f"{where}/{manifest.run}"


def _runs_for(results: Storage, request: Request) -> Iterator[Run]:
    """Runs in the folders whose names end with the request's hashes; unreadable ones are left out."""
    data, net = (f"-{text.removeprefix('import:')[:8]}/" for text in (request.dataset_hash, request.fingerprint))
    for dataset in results.list():
        if not dataset.endswith(data):
            continue
        for classifier in results.list(dataset[:-1]):
            if not classifier.endswith(net):
                continue
            folder = dataset + classifier
            for name in results.list(folder[:-1]):
                if results.exists(f"{folder}{name}{MANIFEST}"):
                    try:
                        yield Run.open(results.at(f"{folder}{name[:-1]}"))
                    except DataError:
                        continue
