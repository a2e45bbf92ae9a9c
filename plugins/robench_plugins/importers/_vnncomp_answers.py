"""The result files of the neural network verification competition (VNN-COMP): what each line says.

Comma-separated `category,onnx,vnnlib,prepare_seconds,result,run_seconds`, without a header; one file or several per
tool, in a folder of the tool's name.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from robench.errors import DataError
from robench.evidence import Status
from robench.text import one_line

__all__ = ["Answer", "named_eps", "read_answers", "status_of", "tool_files"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=\-]{0,199}")
_TOOL = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,39}")
_WORD = re.compile(r"[A-Za-z0-9_.\-]{0,60}")
_NUMBER = r"[0-9]*\.?[0-9]+(?:e-?[0-9]{1,2})?"
_SECONDS = re.compile(rf"-1|{_NUMBER}")
_EPS = (re.compile(rf"eps(?:ilon)?[_=\-]?({_NUMBER})(?![0-9.])"), re.compile(r"_([0-9]*\.[0-9]+)$"))
_LARGEST = 64 << 20
_COLUMNS = 6

_STATUSES: dict[str, Status] = {
    "unsat": "certified",
    "holds": "certified",
    "sat": "falsified",
    "violated": "falsified",
    "unknown": "open",
    "no_result_in_file": "error",
    "run_single_instance_error": "error",
    "run_instance_timeout": "timeout",
    "prepare_instance_timeout": "timeout",
}
_BEGINNINGS: dict[str, Status] = {"timeout": "timeout", "error": "error", "prepare_instance_error": "error"}


@dataclass(frozen=True)
class Answer:
    """What a tool said about one instance; the word as it stands there, in lower case.

    `written` is the property's file as it stands there, `line` that of the result file `file`, from 1.
    """

    tool: str
    benchmark: str
    network: str
    instance: str
    written: str
    word: str
    prepare: float
    seconds: float
    file: Path
    line: int

    @property
    def where(self) -> str:
        """The line, for messages."""
        return f"{self.file}, line {self.line}"


def status_of(word: str) -> Status:
    """Return what a result's word says; `open` for one that is not known here."""
    if word in _STATUSES:
        return _STATUSES[word]
    return next((status for beginning, status in _BEGINNINGS.items() if word.startswith(beginning)), "open")


def named_eps(instance: str) -> float | None:
    """Return the ε that a property's name tells (`prop_3_0.05`, `img7-eps0.01`), or None."""
    for pattern in _EPS:
        found = pattern.findall(instance)
        if found and 0 < float(found[-1]) < math.inf:
            return float(found[-1])
    return None


def tool_files(path: Path) -> tuple[Path, dict[str, list[Path]]]:
    """Return the folder that holds the tools, and the result files of each tool found at `path`, by name.

    `path` is that folder, one tool's, or a file in it. Raises DataError where there are none.
    """
    whole = path.absolute()
    if whole.is_file():
        return whole.parent.parent, {_tool(whole.parent): [whole]}
    if not whole.is_dir():
        raise DataError(f"{path}: no such file or folder")
    if own := _files(whole):
        return whole.parent, {_tool(whole): own}
    folders = [(folder, _files(folder)) for folder in sorted(whole.iterdir()) if folder.is_dir()]
    found = {_tool(folder): files for folder, files in folders if files}
    if not found:
        raise DataError(f"{path}: no results here: a folder <tool>/<benchmark>.csv, or one tool's, is needed")
    return whole, found


def read_answers(tool: str, files: Iterable[Path]) -> list[Answer]:
    """Return all answers of one tool, in the files' order. Raises DataError, naming the line, for what is irregular."""
    answers: list[Answer] = []
    for file in files:
        try:
            if file.stat().st_size > _LARGEST:
                raise DataError(f"{file}: larger than any result file of the competition")
            text = file.read_bytes().decode("ascii")
        except UnicodeDecodeError:
            raise DataError(f"{file}: not a result file (it is not plain text)") from None
        except OSError as error:
            raise DataError(f"{file}: {error.strerror}") from None
        for number, content in enumerate(text.splitlines(), start=1):
            try:
                answers.append(_parse(content, tool, file, number))
            except (ValueError, csv.Error) as error:
                raise DataError(f"{file}, line {number}: {one_line(str(error), 200)}") from None
    if not answers:
        raise DataError(f"{one_line(', '.join(map(str, files)))}: a result file without lines")
    return answers


def _parse(content: str, tool: str, file: Path, line: int) -> Answer:
    cells = next(csv.reader(io.StringIO(content), strict=True), [])
    if len(cells) != _COLUMNS:
        raise ValueError(f"{len(cells)} columns instead of {_COLUMNS}: category,onnx,vnnlib,prepare,result,seconds")
    word = cells[4].strip().lower()
    if not _WORD.fullmatch(word):
        raise ValueError(f"result {cells[4][:20]!r} is not a word")
    return Answer(
        tool=tool,
        benchmark=_name(cells[0], "category", ""),
        network=_name(cells[1], "network", ".onnx"),
        instance=_name(cells[2], "property", ".vnnlib"),
        written=cells[2],
        word=word,
        prepare=_seconds(cells[3]),
        seconds=_seconds(cells[5]),
        file=file,
        line=line,
    )


def _name(cell: str, what: str, ending: str) -> str:
    base = cell.strip().removesuffix(".gz")
    if not base.endswith(ending):
        raise ValueError(f"{what} {cell[:60]!r} does not end in {ending}")
    name = base.removesuffix(ending).rsplit("/", 1)[-1]
    if not NAME.fullmatch(name):
        raise ValueError(f"{what} {cell[:60]!r} has no name of letters, digits, and _ . + = - in between")
    return name


def _seconds(cell: str) -> float:
    """Seconds; what was never run is written as -1 and took none."""
    text = cell.strip().lower()
    if not _SECONDS.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(f"{cell[:20]!r} is not a number of seconds")
    return max(0.0, float(text))


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.csv") if file.is_file())


def _tool(folder: Path) -> str:
    if not _TOOL.fullmatch(folder.name):
        raise DataError(f"{folder}: not a tool's name: letters, digits, and _ . - in between, at most 40")
    return folder.name
