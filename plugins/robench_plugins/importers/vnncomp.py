"""Published results of the neural network verification competition (VNN-COMP), instance by instance."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robench import param
from robench.errors import DataError
from robench.evidence import Status
from robench.importing import ImportedRows, ImportedRun
from robench.runs import Display
from robench_plugins.importers._vnncomp_answers import Answer, named_eps, read_answers, status_of, tool_files
from robench_plugins.importers._vnncomp_benchmark import Benchmark
from robench_plugins.importers._vnncomp_instances import Instance, Instances, path_of
from robench_plugins.importers._vnncomp_points import find_points

__all__ = ["VnnComp"]

_FIRST, _LAST = 2021, 2100
_SOURCES = {2021: "https://github.com/stanleybak/vnncomp2021_results"}
_PAPERS = {2021: "2109.00498", 2022: "2212.10376", 2023: "2312.16760"}
_UNKNOWN = -1  # the label and prediction of a sample whose property is not there


@dataclass(frozen=True)
class VnnComp:
    """The competition's results: a folder `<tool>/<benchmark>.csv`, one tool's folder, or one file.

    Each network is one subject, each tool an evaluator of it, each instance a sample: its number is its line, from 0
    on, in the benchmark's list of instances, as in the dataset `vnnlib`; a hash of the list is part of the dataset's
    name. A row is about the region of its property: `unsat` certifies it, `sat` is a claim until a point shows it. ε is
    that of the property's name, where it tells one. Where the benchmark's folder (`onnx/`, `vnnlib/`, `instances.csv`)
    lies beside the results, labels are read from it and published counterexamples are executed on the network, in the
    closed box and with no tolerance: one that holds is evidence, one that does not leaves the answer open.
    """

    benchmarks: str = param("", "folder of the benchmarks, where it is not the one that holds the results folder")
    classes: int = param(10, "number of classes, where no property tells", minimum=2, maximum=1_000_000)
    year: int = param(2022, "year of the competition", minimum=_FIRST, maximum=_LAST)

    def read(self, path: Path) -> Iterator[ImportedRun]:
        """Yield one run per network and tool. Raises DataError."""
        root, tools = tool_files(path)
        beside = Path(self.benchmarks) if self.benchmarks else root.parent
        if not beside.is_dir():
            raise DataError(f"benchmarks: no folder {self.benchmarks!r}")
        found: dict[str, list[list[Answer]]] = {}
        for tool, files in tools.items():
            answers: dict[str, list[Answer]] = {}
            for answer in read_answers(tool, files):
                answers.setdefault(answer.benchmark, []).append(answer)
            for name, mine in answers.items():
                found.setdefault(name, []).append(mine)
        for name, by_tool in sorted(found.items()):
            benchmark = Benchmark(beside / name)
            numbers, named = _numbered(benchmark, by_tool)
            for network in sorted({network for network, _ in numbers}):
                for mine in named:
                    if some := [answer for answer in mine if answer.network == network]:
                        yield self._run(root / some[0].tool, benchmark, numbers, some)

    def _run(
        self, folder: Path, benchmark: Benchmark, numbers: Mapping[Instance, int], answers: Sequence[Answer]
    ) -> ImportedRun:
        cases = sorted((_case(answer, numbers, folder, benchmark) for answer in answers), key=lambda case: case.sample)
        net = f"{answers[0].benchmark}/{answers[0].network}"
        digest = hashlib.sha256("\n".join(f"{a}\0{b}" for a, b in numbers).encode()).hexdigest()
        label = np.array([case.label for case in cases], dtype=np.int64)
        paper = _PAPERS.get(self.year)
        return ImportedRun(
            classifier=net,
            net=net,
            source=_SOURCES.get(self.year, f"https://github.com/ChristopherBrix/vnncomp{self.year}_results"),
            dataset=f"vnncomp:{net}@sha256:{digest[:12]}",
            split="instances",
            classes=max((case.classes for case in cases if case.classes), default=self.classes),
            sample=np.array([case.sample for case in cases], dtype=np.int64),
            label=label,
            prediction=label,
            rows=[_rows(answers[0].tool, eps, cases) for eps in sorted({case.eps for case in cases}, key=_rank)],
            norm="linf",
            eps=[],
            domain=(None, None),
            display=Display(paper=f"https://arxiv.org/abs/{paper}" if paper else None),
            names={case.sample: case.name for case in cases},
            regions="labels" if (label >= 0).all() else "conditions",
        )


@dataclass(frozen=True)
class _Case:
    """One answer of one tool, judged: `eps` and `classes` are None where nothing tells them."""

    sample: int
    name: str
    label: int
    classes: int | None
    eps: float | None
    status: Status
    seconds: float
    detail: Mapping[str, Any]


def _numbered(
    benchmark: Benchmark, by_tool: Sequence[Sequence[Answer]]
) -> tuple[dict[Instance, int], list[list[Answer]]]:
    """Number the instances as the benchmark's own list does, else the longest of the tools'; name them in the answers.

    Raises DataError where a tool answered one that is not in the list, since numbers would not agree, or one twice.
    """
    longest = max(by_tool, key=len)
    known, where = benchmark.instances(), "the benchmark's instances.csv"
    if known is None:
        known = Instances(list(dict.fromkeys((answer.network, path_of(answer.written)) for answer in longest)))
        where = f"what {longest[0].tool} answered"
    named = []
    for answers in by_tool:
        mine: dict[Instance, Answer] = {}
        for answer in answers:
            key = known.find(answer.network, path_of(answer.written))
            if key is None:
                raise DataError(f"{answer.where}: {answer.instance} of {answer.network} is not in {where}")
            if key in mine:
                raise DataError(f"{answer.where}: instance {key[1]} of {answer.network} is there twice")
            mine[key] = replace(answer, instance=key[1])
        named.append(list(mine.values()))
    return {instance: number for number, instance in enumerate(known.names)}, named


def _case(answer: Answer, numbers: Mapping[Instance, int], folder: Path, benchmark: Benchmark) -> _Case:
    instance = answer.network, answer.instance
    told = benchmark.told(instance)
    status, detail = _judged(answer, folder, benchmark)
    return _Case(
        sample=numbers[instance],
        name=answer.instance,
        label=_UNKNOWN if told is None or told.label is None else told.label,
        classes=None if told is None else told.classes,
        eps=named_eps(_base(answer)) or (None if told is None else told.eps),
        status=status,
        seconds=answer.seconds,
        detail={"property": answer.instance, "result": answer.word, "prepare_seconds": answer.prepare, **detail},
    )


def _judged(answer: Answer, folder: Path, benchmark: Benchmark) -> tuple[Status, dict[str, Any]]:
    """The status of one answer and, of one that is claimed to be falsified, what its counterexample shows."""
    status = status_of(answer.word)
    if status != "falsified":
        return status, {}
    files = find_points(folder, answer.benchmark, answer.network, _base(answer), answer.line)
    if not files:
        return status, {"replayed": False, "why": "no counterexample was published"}
    outcomes = [benchmark.replay((answer.network, answer.instance), file) for file in files]
    outcome = next((one for one in outcomes if one.holds), outcomes[0])
    return ("open" if outcome.refuted else status), {**outcome.detail, "replayed": outcome.holds}


def _base(answer: Answer) -> str:
    """The name of the property's file."""
    return answer.instance.rpartition("/")[2]


def _rows(tool: str, eps: float | None, cases: Sequence[_Case]) -> ImportedRows:
    """One tool's rows at one ε. `upper` is ε where a counterexample holds, since the point lies in the region."""
    mine = [case for case in cases if case.eps == eps]
    return ImportedRows(
        evaluator=tool,
        kind="verifier",
        norm="linf",
        eps=eps,
        sample=np.array([case.sample for case in mine], dtype=np.int64),
        status=[case.status for case in mine],
        lower=0.0,
        upper=np.array([eps if case.detail.get("replayed") and eps is not None else np.inf for case in mine]),
        seconds=np.array([case.seconds for case in mine]),
        detail=[case.detail for case in mine],
    )


def _rank(eps: float | None) -> float:
    return np.inf if eps is None else eps
