"""The instances of a benchmark's folder: lines `network,property,seconds`, and the files that they name."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from robench.errors import DataError, InputError
from robench_plugins.datasets._vnnlib_read import problem

__all__ = ["Instance", "Line", "instances_of", "net_name", "one_net", "read_lines"]

_LARGEST: Final = 16 << 20  # bytes of an instances.csv
_PROPERTIES: Final = (".vnnlib", ".vnnlib.gz")


@dataclass(frozen=True)
class Line:
    """A line of instances.csv, `number` from 1: the network's file, the property's, and seconds."""

    number: int
    onnx: str
    vnnlib: str
    seconds: float


@dataclass(frozen=True)
class Instance:
    """A line of instances.csv: `row` counts them from 0; `onnx` is None where the network is not there."""

    row: int
    net: str
    onnx: Path | None
    vnnlib: Path
    name: str
    seconds: float


def instances_of(path: Path, net: str) -> Sequence[Instance]:
    """Return the instances of a benchmark's folder, of its instances.csv, or the one of a single .vnnlib file.

    Raises DataError for a line, with its number, that is none, and for a property that is not there.
    """
    if path.is_dir():
        path = path / "instances.csv"
        if not path.is_file():
            raise DataError(f"{path}: no such file: a folder of properties has lines network,property,seconds there")
    if path.name.endswith(_PROPERTIES):
        return [_single(path, net)]
    found = [_instance(path, line, row) for row, line in enumerate(read_lines(path))]
    if not found:
        raise DataError(f"{path}: holds no instances")
    return found


def read_lines(path: Path) -> list[Line]:
    """Return the lines of an instances.csv but for empty ones. Raises DataError, with the number of one that is none.

    No file is looked for; none of those that are named lies outside the folder.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path}: larger than {_LARGEST >> 20} MiB")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: neither instances.csv nor a .vnnlib file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    lines = csv.reader(text.splitlines(), strict=True)
    try:
        return [_line(path, lines.line_num, cells) for cells in lines if cells]
    except csv.Error as error:
        raise problem(path, lines.line_num, f"not a line of a table ({error})") from None


def one_net(path: Path, found: Sequence[Instance], net: str) -> list[Instance]:
    """Return the instances of the network `net`, or of the only one. Raises InputError for a name that is none."""
    nets = list(dict.fromkeys(one.net for one in found))
    if not net and len(nets) > 1:
        raise InputError(f"{path} is about {len(nets)} networks: add net=NAME, one of {_listed(nets)}")
    wanted = net or nets[0]
    if wanted not in nets:
        raise InputError(f"{path} has no network {ascii(wanted)[:60]}: it has {_listed(nets)}")
    return [one for one in found if one.net == wanted]


def net_name(text: str) -> str:
    """Return a network's name: its file's, without .onnx and .gz."""
    return PurePosixPath(text).name.removesuffix(".gz").removesuffix(".onnx")


def _line(path: Path, line: int, cells: list[str]) -> Line:
    if len(cells) != 3:
        raise problem(path, line, f"{len(cells)} columns: a line is network,property,seconds")
    onnx, vnnlib, limit = (cell.strip() for cell in cells)
    for name, what in ((onnx, "network"), (vnnlib, "property")):
        pure = PurePosixPath(name)
        if not name or not name.isprintable() or len(name) > 400:
            raise problem(path, line, f"no name of a {what}")
        if pure.is_absolute() or ".." in pure.parts or "\\" in name:
            raise problem(path, line, f"the {what} lies outside the folder")
    return Line(line, onnx, vnnlib, _seconds(path, line, limit))


def _instance(path: Path, line: Line, row: int) -> Instance:
    file = _there(path.parent / line.vnnlib)
    if file is None:
        raise problem(path, line.number, f"no file {line.vnnlib}, with or without .gz")
    onnx = _there(path.parent / line.onnx)
    return Instance(row, net_name(line.onnx), onnx, file, _plain(line.vnnlib), line.seconds)


def _seconds(path: Path, line: int, text: str) -> float:
    try:
        seconds = float(text) if len(text) <= 40 and text.isascii() else math.nan
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise problem(path, line, f"{ascii(text)[:60]} is no number of seconds above 0")
    return seconds


def _single(path: Path, net: str) -> Instance:
    """Return the instance of one property; its network lies beside it, or in ../onnx."""
    if net != net_name(net):
        raise InputError(f"net={ascii(net)[:60]}: give a network's name, without folder and ending")
    places = (path.parent, path.parent.parent / "onnx")
    onnx = next((file for place in places if (file := _there(place / f"{net}.onnx"))), None) if net else None
    if net and onnx is None:
        raise InputError(f"{path}: no {net}.onnx beside it or in ../onnx, with or without .gz")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return Instance(0, net, onnx, path, _plain(path.name), math.inf)


def _there(path: Path) -> Path | None:
    """Return the file, gzipped or not, whichever of both is there."""
    plain = path.with_name(path.name.removesuffix(".gz"))
    return next((one for one in (path, plain, plain.with_name(f"{plain.name}.gz")) if one.is_file()), None)


def _plain(name: str) -> str:
    """Return a property's name: as instances.csv writes it, without .gz."""
    return name.removesuffix(".gz")


def _listed(nets: Sequence[str]) -> str:
    return ", ".join(nets[:8]) + (f" and {len(nets) - 8} more" if len(nets) > 8 else "")
