"""Writes runs and kills itself (SIGKILL), once for every step between two calls into the file system, or at random.

    python crash_writer.py steps FOLDER     FOLDER/<k>: killed before its k-th call; the last one lives to the end
    python crash_writer.py times FOLDER     FOLDER/<k>: killed from outside at a random moment, k < 22

A program of its own, so that forking it copies a process with one thread.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from recorded import go_on, manifest
from robench.runs import Run

N, BATCH = 7, 3
TRIALS = 22


def write(results: Path, n: int, batch: int) -> None:
    """The whole run."""
    with Run.create(results, manifest(n)) as run:
        go_on(run, n, batch)


def die_at(step: int) -> None:
    """Kill this process before its `step`-th call that changes the disk; a write has then put half its bytes."""
    calls = 0

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                if function is really_write:
                    really_write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    really_write = os.write
    os.write, os.fsync = counted(os.write), counted(os.fsync)
    for name in ("mkdir", "replace", "unlink"):
        setattr(Path, name, counted(getattr(Path, name)))


def fork(work: Any) -> int:
    """Run `work` in a child; returns its pid."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return child


def steps(folder: Path) -> None:
    """Kill before the first call, the second … until a child survives."""
    for step in range(1, 500):

        def work(step: int = step) -> None:
            die_at(step)
            write(folder / str(step), N, BATCH)

        status = os.waitpid(fork(work), 0)[1]
        if not os.WIFSIGNALED(status):
            sys.exit(os.waitstatus_to_exitcode(status))


def times(folder: Path) -> None:
    """Kill at random moments within the time that a whole run takes."""
    source = random.Random()
    started = time.perf_counter()
    write(folder / "whole", 12 * BATCH, BATCH)
    whole = time.perf_counter() - started
    for trial in range(TRIALS):
        results = folder / str(trial)
        child = fork(lambda results=results: write(results, 12 * BATCH, BATCH))
        time.sleep(source.uniform(0, whole))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    {"steps": steps, "times": times}[sys.argv[1]](Path(sys.argv[2]))
