"""Saves a graph as a folder of JSON and safetensors, and reads one back without trusting it.

FOLDER/graph.json           operators, settings, topology, shapes
FOLDER/weights.safetensors  constants, named `3.weight` for node 3
FOLDER/checkpoint.json      format version and metadata of the user
FOLDER/history.parquet      figures of each epoch, where it was trained here
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from robench.errors import DataError, GraphError, InputError
from robench.folders import recover, replace_folder
from robench.graph._ir import Graph
from robench.graph._json import from_json, to_json
from robench.graph.operators import validate

__all__ = ["check_folder", "load", "read_metadata", "save"]

_FORMAT = "robench checkpoint"
_VERSION = 1
_MAX_JSON = 2**26
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FILES = ("checkpoint.json", "graph.json", "history.parquet", "weights.safetensors")


def check_folder(folder: str | Path) -> Path:
    """Return `folder` if a checkpoint may be written there: it is absent, empty, or holds nothing but a checkpoint.

    Raises InputError otherwise. Ask before the work whose result is to be saved.
    """
    folder = Path(folder)
    recover(folder)
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= set(_FILES)):
        raise InputError(f"{folder} exists and is no checkpoint: choose another folder")
    return folder


def save(graph: Graph, folder: str | Path, metadata: Mapping[str, Any], history: bytes | None = None) -> None:
    """Write `graph` and JSON `metadata` to `folder`, all or nothing; an older checkpoint there is replaced.

    `history` is a Parquet file, kept beside them for people: `load` does not read it.
    Raises InputError where the folder holds something else, or cannot be written.
    """
    validate(graph)
    folder = check_folder(folder)
    try:
        head = json.dumps({"format": _FORMAT, "version": _VERSION, "metadata": metadata}, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the metadata of a checkpoint must be JSON values: {error}") from None
    tensors = {
        f"{position}.{name}": tensor.contiguous()
        for position, node in enumerate(graph.nodes)
        for name, tensor in node.constants.items()
    }
    files = {
        "graph.json": json.dumps(to_json(graph), indent=1, allow_nan=False).encode(),
        "weights.safetensors": safetensors.torch.save(tensors),
        "checkpoint.json": head.encode(),
    }
    if history is not None:
        files["history.parquet"] = history
    try:
        replace_folder(folder, files)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from None


def load(folder: str | Path) -> tuple[Graph, dict[str, Any]]:
    """Return the graph and the metadata of a checkpoint folder.

    Raises DataError where anything is missing, left over, ill-shaped, not finite or of another format.
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    tensors = _tensors(folder / "weights.safetensors")
    try:
        graph = from_json(_parse(folder / "graph.json"), tensors)
        validate(graph)
    except (GraphError, DataError) as error:
        raise DataError(f"{folder}: {error}") from None
    return graph, metadata


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint folder alone. Raises DataError where they are missing or foreign."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    head = _parse(folder / "checkpoint.json")
    if not isinstance(head, dict) or head.get("format") != _FORMAT:
        raise DataError(f"{folder}/checkpoint.json: not a checkpoint of robench")
    if head.get("version") != _VERSION:
        raise DataError(f"{folder}: checkpoint version {head.get('version')!r}; this robench reads {_VERSION}")
    if not isinstance(head.get("metadata"), dict):
        raise DataError(f"{folder}/checkpoint.json: metadata are missing")
    metadata: dict[str, Any] = head["metadata"]
    return metadata


def _bytes(path: Path, limit: int | None = None) -> bytes:
    try:
        if path.is_symlink() or not path.is_file():
            raise DataError(f"{path}: no such file (links are not followed)")
        if limit is not None and path.stat().st_size > limit:
            raise DataError(f"{path}: larger than {limit} bytes")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _parse(path: Path) -> Any:
    try:
        return json.loads(_bytes(path, _MAX_JSON), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not valid JSON; it may be truncated") from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load(_bytes(path))
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError):
        raise DataError(f"{path}: not a safetensors file; it may be truncated") from None
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise DataError(f"{path}: tensor {name!r:.60} is {tensor.dtype}, not a floating point type")
    return tensors
