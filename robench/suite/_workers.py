"""Cells in processes of their own, several at a time: small networks do not fill more than a core each.

A process that dies (killed for its memory, say) fails its cell and is replaced. Interrupted processes put what they
measured and end; they also end with the process that started them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from robench.runs import Run
from robench.suite._cells import BoundCell, Cell
from robench.suite._perform import Outcome, Shelf, perform

__all__ = ["cores", "perform_in_processes"]

_PATIENCE = 10.0  # seconds for an interrupted process to put what it has
_SELDOM = 0.2  # seconds between two messages about progress


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def perform_in_processes(
    cells: Sequence[BoundCell | Cell],
    out: Path | str,
    folder: Path,
    jobs: int,
    started: Callable[[int, BoundCell | Cell], None],
    progress: Callable[[int, int, int, Mapping[str, int]], None],
    warn: Callable[[str], None],
) -> Generator[tuple[int, Outcome]]:
    """Yield (position, outcome) as the cells end, `jobs` at a time, begun in their order."""
    pool = _Pool(min(jobs, len(cells)), (str(out), folder, max(1, cores() // jobs)))
    waiting = iter(enumerate(cells))
    try:
        idle = [pool.start() for _ in range(pool.size)]
        while True:
            for worker, (position, cell) in zip(list(idle), waiting, strict=False):
                idle.remove(worker)
                worker.give(position, cell)
                started(position, cell)
            busy = [worker for worker in pool.workers if worker.cell is not None]
            if not busy:
                return
            for worker in pool.ready(busy):
                kind, *said = worker.hear()
                if kind == "progress":
                    progress(worker.position, *said)
                elif kind == "warn":
                    warn(said[0])
                else:
                    outcome = worker.outcome(*said) if kind == "outcome" else worker.death()
                    idle.append(worker if kind == "outcome" else pool.replace(worker))
                    position, worker.cell = worker.position, None
                    yield position, outcome
    finally:
        pool.stop()


@dataclass(eq=False)
class _Worker:
    """A process and the cell that it works on."""

    process: BaseProcess
    pipe: Connection
    position: int = -1
    cell: BoundCell | Cell | None = None
    begun: float = 0.0

    def give(self, position: int, cell: BoundCell | Cell) -> None:
        self.position, self.cell, self.begun = position, cell, time.monotonic()
        with suppress(OSError):  # it died meanwhile: hear() says so
            self.pipe.send(cell)

    def hear(self) -> tuple[Any, ...]:
        try:
            return self.pipe.recv()  # type: ignore[no-any-return]
        except (EOFError, OSError):
            return ("death",)

    def outcome(self, outcome: Outcome, locations: Sequence[str]) -> Outcome:
        run, *others = map(Run.open, locations) if locations else (outcome.run,)
        return replace(outcome, run=run, others=tuple(others))

    def death(self) -> Outcome:
        assert self.cell is not None
        self.process.join()
        code = self.process.exitcode or 0
        how = signal.Signals(-code).name if -code in signal.valid_signals() else f"exit code {code}"
        hint = ": it may have run out of memory" if -code == signal.SIGKILL else ""
        return Outcome(self.cell, "failed", f"its process died ({how}){hint}", seconds=time.monotonic() - self.begun)


class _Pool:
    """The processes. Started afresh (`spawn`): a fork would share torch's threads and locks."""

    def __init__(self, size: int, arguments: tuple[Any, ...]) -> None:
        self.size, self.arguments = size, arguments
        self.workers: list[_Worker] = []
        self.context = multiprocessing.get_context("spawn")

    def start(self) -> _Worker:
        here, there = self.context.Pipe()
        process = self.context.Process(target=_work, args=(there, *self.arguments), daemon=True)
        process.start()
        there.close()
        self.workers.append(_Worker(process, here))
        return self.workers[-1]

    def replace(self, worker: _Worker) -> _Worker:
        self.workers.remove(worker)
        worker.pipe.close()
        return self.start()

    def ready(self, workers: Sequence[_Worker]) -> list[_Worker]:
        pipes = wait([worker.pipe for worker in workers])
        return [worker for worker in workers if worker.pipe in pipes]

    def stop(self) -> None:
        for worker in self.workers:
            worker.process.terminate()
        until = time.monotonic() + _PATIENCE
        for worker in self.workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def _work(pipe: Connection, out: str, folder: Path, threads: int) -> None:
    """Perform the cells that come through `pipe` until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells every process; the first one decides
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_follow, daemon=True).start()
    sys.stdout = sys.stderr  # stdout is for results,
    os.dup2(2, 1)  # whoever writes
    import torch

    torch.set_num_threads(threads)
    shelf = Shelf((folder,))
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            cell = pipe.recv()
            last = 0.0

            def progress(done: int, total: int, counts: Mapping[str, int]) -> None:
                nonlocal last
                if time.monotonic() - last > _SELDOM:
                    last = time.monotonic()
                    pipe.send(("progress", done, total, dict(counts)))

            outcome = perform(cell, out, shelf, progress, lambda line: pipe.send(("warn", line)))
            runs = [run for run in (outcome.run, *outcome.others) if isinstance(run, Run)]
            sent = replace(outcome, run=None, others=()) if runs else outcome
            pipe.send(("outcome", sent, [run.location for run in runs]))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _follow() -> None:
    """End with the process that started this one, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
