"""Reads an ONNX file without trusting it: sizes limited, external data only from the file's own folder."""

from __future__ import annotations

import gzip
import hashlib
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robench.errors import DataError, GraphError, InputError
from robench.text import one_line

if TYPE_CHECKING:
    import onnx

__all__ = ["as_tensor", "quoted", "read_model", "read_onnx"]

_MAX_FILE = 2**31  # protobuf's own limit
_MAX_EXTERNAL = 2**35
_GZIP = b"\x1f\x8b"


def read_model(path: Path) -> onnx.ModelProto:
    """Return the parsed file (which may be gzipped), external data loaded. Raises DataError, InputError."""
    return _read(path)[0]


def read_onnx(path: Path) -> tuple[bytes, str]:
    """Return an ONNX file as one message that refers to no other file, and the sha256 of all that it holds.

    External data, from the file's own folder alone, is moved inside. Raises DataError, InputError.
    """
    model, data, external = _read(path)
    sha = hashlib.sha256(data)
    for part in external:
        sha.update(part)
    try:
        return (model.SerializeToString() if external else data), sha.hexdigest()
    except Exception:  # the error's type is protobuf's implementation's
        raise DataError(f"{path}: larger than 2 GiB with its external data") from None


def _read(path: Path) -> tuple[onnx.ModelProto, bytes, list[bytes]]:
    """Return the parsed file, its bytes, and the external data that were loaded into it."""
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise InputError("reading ONNX files needs the onnx package: pip install 'robench[onnx]'") from None
    model = onnx.ModelProto()
    data = _read_bytes(path)
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError):
        raise DataError(f"{path}: not an ONNX file, or a truncated one") from None
    if not model.graph.node or not model.opset_import:
        raise DataError(f"{path}: holds no ONNX network; it may be truncated")
    tensors = list(_tensors(model))
    if any(isinstance(text, bytes) for text in _texts(model, tensors)):
        raise DataError(f"{path}: holds names that are not UTF-8; the file is damaged")
    external = []
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.raw_data = _external(tensor, path)
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
            external.append(tensor.raw_data)
    return model, data, external


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        size = path.stat().st_size
        data = path.read_bytes() if size <= _MAX_FILE else b""
        if data[:2] == _GZIP:
            with gzip.open(path) as stream:
                data = stream.read(_MAX_FILE + 1)
                size = len(data)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if size > _MAX_FILE:
        raise DataError(f"{path}: larger than 2 GiB: keep the weights in external data")
    if not data:
        raise DataError(f"{path}: the file is empty")
    return data


def _texts(model: Any, tensors: list[Any]) -> Iterator[object]:
    """Yield the names in a file; protobuf hands out bytes where one is not UTF-8."""
    for opset in model.opset_import:
        yield opset.domain
    for node in model.graph.node:
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
        yield from (attribute.ref_attr_name for attribute in node.attribute)
    for value in (*model.graph.input, *model.graph.output):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for tensor in tensors:
        yield tensor.name
        for entry in tensor.external_data:
            yield from (entry.key, entry.value)


def _tensors(message: Any) -> Iterator[Any]:
    """Yield every stored tensor, wherever the file has it: also in branches, loops, functions and sparse tensors."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in value if hasattr(value, "__len__") else (value,):
            if field.message_type.name == "TensorProto":
                yield item
            else:
                yield from _tensors(item)


def _external(tensor: Any, path: Path) -> bytes:
    """Return the bytes of a tensor stored beside the file. Raises DataError for anything outside its folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    where = f"{path}: external data of {quoted(tensor.name)}"
    pure = Path(location)
    if not location or "\0" in location or pure.is_absolute() or ".." in pure.parts:
        raise DataError(f"{where} lies outside the file's folder ({quoted(location)})")
    folder = path.resolve().parent
    target = (folder / pure).resolve()
    if not target.is_relative_to(folder):
        raise DataError(f"{where} lies outside the file's folder ({quoted(location)})")
    try:
        status = target.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{where}: {quoted(location)} is not a regular file")
        size = status.st_size
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(size - offset)))
        if not (offset >= 0 and 0 <= length <= _MAX_EXTERNAL and offset + length <= size):
            raise DataError(
                f"{where}: bytes {offset} to {offset + length} are not in {quoted(location)} ({size} bytes)"
            )
        with target.open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)
    except ValueError:
        raise DataError(f"{where}: offset or length is no number") from None
    except OSError as error:
        raise DataError(f"{where}: {quoted(location)} cannot be read ({error.strerror})") from None


def as_tensor(proto: Any, path: Path) -> Tensor:
    """Return a stored tensor. Raises DataError where its data do not fill its shape, GraphError for other types."""
    import onnx
    from onnx import numpy_helper

    name = quoted(proto.name)
    dims = tuple(proto.dims)
    if any(size < 0 for size in dims) or math.prod(dims) > 2**40:
        raise DataError(f"{path}: tensor {name} declares the impossible shape {list(dims)}")
    try:
        array = numpy_helper.to_array(proto)
        if proto.data_type == onnx.TensorProto.BFLOAT16:
            return torch.from_numpy(array.astype("float32")).to(torch.bfloat16)
        return torch.from_numpy(array.copy())
    except TypeError:
        kind = onnx.TensorProto.DataType.Name(proto.data_type) if proto.data_type else "undefined"
        raise GraphError(f"{path}: tensor {name} has the type {kind}, which is not supported") from None
    except (ValueError, KeyError, RuntimeError):
        raise DataError(f"{path}: tensor {name} does not fill its shape {list(dims)}; the file is damaged") from None


def quoted(name: str) -> str:
    """Return a name from the file for a one-line message."""
    return repr(one_line(name, 60))
