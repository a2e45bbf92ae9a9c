"""Unfinished trainings: a folder beside the checkpoint's, which a killed training goes on from.

FOLDER.training/robench.json           ours
FOLDER.training/state.safetensors      the tensors; in its header what was asked for, and the history, as JSON
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from robench.contracts import TrainState
from robench.errors import DataError, InputError, LockedError
from robench.folders import MARKER, check, claim
from robench.storage import LocalStorage
from robench.text import safe

__all__ = ["Epochs", "Kept", "OtherTraining", "Report", "StateFolder", "differences"]

Report = Callable[[int, int, Mapping[str, float]], None]


class OtherTraining(InputError):
    """What lies in a folder was asked for otherwise; `what` says in which way, the message also what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        """Say what lies there, and what to do about it."""
        super().__init__(f"{what}: {remedy}")
        self.what = what


_KEY = "state.safetensors"
_MAX_HEADER = 2**26
_MAX_FILE = 2**36
_VERSION = 1
_SELDOM = 2.0  # seconds between two states: a kill loses less than that and an epoch


@dataclass(frozen=True)
class Kept:
    """A state, and how many seconds each of its epochs took."""

    state: TrainState
    seconds: Sequence[float]


class StateFolder:
    """Where the state of the training for the checkpoint folder `out` is kept until that is written."""

    def __init__(self, out: Path, request: Mapping[str, Any]) -> None:
        """Keep states of `request`, JSON values that say what is trained on what, and from which seed."""
        whole = Path(os.path.abspath(out))  # noqa: PTH100  (resolve would follow links)
        self.folder = whole.with_name(f"{whole.name}.training")
        self._request = request
        self._storage = LocalStorage(self.folder)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only process that trains for this checkpoint. Raises LockedError where another one does."""
        ours = True
        try:
            claim(self.folder, "training")
            with self._storage.lock(_KEY):
                self._storage.sweep()
                yield
        except LockedError:
            ours = False
            raise
        finally:
            if ours:
                self._tidy()

    def read(self) -> Kept | None:
        """Return the state, or None where there is none.

        Raises OtherTraining where it is of another request, DataError where it is not what `put` wrote.
        """
        check(self.folder, "training")
        if not self._storage.exists(_KEY):
            return None
        data = self._storage.read(_KEY, _MAX_FILE)
        try:
            head = _head(data)
            tensors = safetensors.torch.load(data)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError):
            raise DataError(f"{self._storage.locate(_KEY)}: not the state of a training; it may be truncated") from None
        if other := differences(head["request"], self._request):
            raise OtherTraining(
                f"{self.folder} holds an unfinished training that differs in {other}",
                "repeat that one, train without --resume, or choose another --out",
            )
        rows = [{name: math.nan if value is None else value for name, value in row.items()} for row in head["history"]]
        return Kept(TrainState(rows, tensors), head["seconds"])

    def put(self, kept: Kept) -> None:
        """Keep `kept` in place of an older one, in one step."""
        head = {
            "version": _VERSION,
            "request": self._request,
            "history": [
                {name: value if math.isfinite(value) else None for name, value in row.items()}
                for row in kept.state.history
            ],
            "seconds": list(kept.seconds),
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in kept.state.tensors.items()}
        self._storage.put(_KEY, safetensors.torch.save(tensors, {"training": json.dumps(head, allow_nan=False)}))

    def drop(self) -> None:
        """Forget the state: the checkpoint is written."""
        self._storage.delete(_KEY)

    def _tidy(self) -> None:
        """Remove the folder where it holds no state."""
        with suppress(OSError, DataError):
            if set(self._storage.list()) <= {MARKER}:
                self._storage.delete(MARKER)
                self.folder.rmdir()


class Epochs:
    """Passes reports and states on, and measures how long each epoch took."""

    def __init__(self, states: StateFolder, kept: Kept | None, report: Report | None) -> None:
        """Go on from `kept`; states go to `states`, reports to `report`."""
        self._states, self._report = states, report
        self.resume = None if kept is None else kept.state
        self._seconds = [] if kept is None else list(kept.seconds)
        self._last, self._kept = time.monotonic(), -math.inf

    def keep(self, state: TrainState) -> None:
        """Keep the state after an epoch, unless another one was kept just before: epochs may take milliseconds."""
        self._measure(len(state.history))
        if time.monotonic() - self._kept >= _SELDOM:
            self._states.put(Kept(state, self._seconds))
            self._kept = time.monotonic()

    def report(self, epoch: int, epochs: int, figures: Mapping[str, float]) -> None:
        """Pass on what a recipe reports."""
        self._measure(epoch)
        if self._report is not None:
            self._report(epoch, epochs, figures)

    def of(self, epochs: int) -> list[float | None]:
        """Return the seconds of each of `epochs`, as far as they are known."""
        return [*self._seconds[:epochs], *[None] * (epochs - len(self._seconds))]

    def _measure(self, epoch: int) -> None:
        if epoch > len(self._seconds):
            now = time.monotonic()
            self._seconds.append(round(now - self._last, 6))
            self._last = now


def differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Say in which entries two requests differ."""
    return ", ".join(
        f"{name} ({_short(there.get(name))}, not {_short(asked[name])})"
        for name in asked
        if there.get(name) != asked[name]
    )


def _short(value: Any) -> str:
    return safe(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:160]


def _head(data: bytes) -> dict[str, Any]:
    """Return the JSON in the header of `data`, checked. Raises some error that `read` knows."""
    size = int.from_bytes(data[:8], "little")
    if size > min(_MAX_HEADER, len(data)):
        raise ValueError("header")
    head = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["training"])
    rows, seconds = head["history"], head["seconds"]
    if head["version"] != _VERSION or not isinstance(head["request"], dict) or len(rows) != len(seconds):
        raise ValueError("version or request")
    values = [*seconds, *(value for row in rows for value in row.values() if value is not None)]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise ValueError("figures")
    return head  # type: ignore[no-any-return]
