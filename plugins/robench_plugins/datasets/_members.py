"""Arrays inside an .npz file, read in place: no pickle, no trust in what the headers say, no copy of the whole.

An .npz is a zip archive of .npy files. A stored (uncompressed) member is read row by row at its offset in the
archive; a compressed one is unpacked once, to memory or to a temporary file. Rows are fetched by positional reads
and not through a memory map: a file that shrinks while it is read then ends in an error, not in SIGBUS, and the
pages read do not count as this process's memory.
"""

from __future__ import annotations

import os
import struct
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, Final, Self

import numpy as np
import numpy.typing as npt

from robench.errors import DataError

__all__ = ["Archive", "Rows"]

_IN_MEMORY: Final = 64 << 20  # bytes up to which a compressed member is unpacked to memory
_SMALL: Final = 1 << 30  # bytes of a whole array: labels of a hundred million samples
_TURNED: Final = 8 << 30  # bytes of inputs in Fortran order, which are read whole
_CHUNK: Final = 8 << 20
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError)
_MAX_HEADER: Final = 10_000  # what numpy itself accepts: a dtype and a shape take less than 200 bytes


class Rows:
    """A C-ordered array in an open file, from a byte offset on; rows are read when asked for."""

    def __init__(self, file: IO[bytes], offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
        """Keep a descriptor of `file` of its own, for as long as this object lives."""
        self._descriptor, self._offset, self._name = os.dup(file.fileno()), offset, name
        weakref.finalize(self, os.close, self._descriptor)
        self.shape = shape
        self.dtype = dtype
        self._stride = prod(shape[1:]) * dtype.itemsize

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def __getitem__(self, rows: Any) -> npt.NDArray[Any]:
        """Return rows by slice or int64 array: one read per run of neighbours."""
        wanted = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.arange(len(self))[rows]
        flat = np.atleast_1d(wanted)
        out = np.empty(len(flat) * self._stride, np.uint8)
        view = out.data
        cuts = np.flatnonzero(np.diff(flat) != 1) + 1
        if out.size:
            for start, stop in zip([0, *cuts], [*cuts, len(flat)], strict=True):
                self._fill(view[start * self._stride : stop * self._stride], int(flat[start]))
        return out.view(self.dtype).reshape(*wanted.shape, *self.shape[1:])

    def _fill(self, view: memoryview, row: int) -> None:
        position = self._offset + row * self._stride
        while view:
            count = os.preadv(self._descriptor, [view], position)
            if count == 0:
                raise DataError(f"{self._name} became shorter while it was read: copy the file again")
            view = view[count:]
            position += count


@dataclass(frozen=True)
class _Header:
    """What an .npy header says."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    size: int  # bytes of the header itself


class Archive:
    """The arrays of one .npz file."""

    def __init__(self, path: Path) -> None:
        """Open `path`. Raises DataError where it is no zip archive."""
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            if isinstance(error, FileNotFoundError):
                raise DataError(f"{path} does not exist") from None
            if isinstance(error, OSError):
                raise DataError(f"{path} cannot be read: {error.strerror}") from None
            raise DataError(f"{path} is not an .npz file, or not a whole one: write it with numpy.savez") from None
        self._members = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the archive; rows that were handed out stay readable."""
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        """Whether there is an array of that name."""
        return name in self._members

    def names(self) -> list[str]:
        """The arrays' names, in the order of the file."""
        return list(self._members)

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return a small array, whole and checked."""
        with self._open(name) as member:
            header = self._header(member, name)
            self._bounded(name, _SMALL, "keep labels and names in smaller types")
            raw = self._read(member, name)
        return np.frombuffer(raw, header.dtype).reshape(header.shape, order="F" if header.fortran else "C")

    def rows(self, name: str) -> npt.NDArray[Any] | Rows:
        """Return an array [N, ...] whose rows are read on access, after reading all of it once against its checksum."""
        info = self._members[name]
        with self._open(name) as member:
            header = self._header(member, name)
            if header.fortran or (info.compress_type != zipfile.ZIP_STORED and info.file_size <= _IN_MEMORY):
                self._bounded(name, _TURNED, "save it with numpy.ascontiguousarray")
                raw = self._read(member, name)
                return np.frombuffer(raw, header.dtype).reshape(header.shape, order="F" if header.fortran else "C")
            where = self._where(name)
            if info.compress_type == zipfile.ZIP_STORED:
                for _ in self._chunks(member, name):
                    pass
                with self.path.open("rb") as file:
                    return Rows(file, self._offset(file, info) + header.size, header.shape, header.dtype, where)
            with tempfile.TemporaryFile(prefix="robench-") as unpacked:
                for chunk in self._chunks(member, name):
                    unpacked.write(chunk)
                unpacked.flush()
                return Rows(unpacked, 0, header.shape, header.dtype, where)

    def _where(self, name: str) -> str:
        return f"array {name} in {self.path}"

    def _bounded(self, name: str, most: int, advice: str) -> None:
        """Refuse what would take more memory than `most`: a few megabytes of zip may announce gigabytes."""
        size = self._members[name].file_size
        if size > most:
            raise DataError(f"{self._where(name)} has {size} bytes, and at most {most} are read whole: {advice}")

    def _damaged(self, name: str, error: Exception) -> DataError:
        return DataError(f"{self._where(name)} is damaged ({error}): copy the file again")

    def _open(self, name: str) -> IO[bytes]:
        try:
            return self._zip.open(self._members[name])
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError) as error:
            raise DataError(f"{self._where(name)} cannot be read: {error}") from None

    def _chunks(self, member: IO[bytes], name: str) -> Iterator[bytes]:
        """Yield the rest of a member; the last read holds the whole against the checksum."""
        try:
            while chunk := member.read(_CHUNK):
                yield chunk
        except _DAMAGE as error:
            raise self._damaged(name, error) from None

    def _read(self, member: IO[bytes], name: str) -> bytearray:
        return bytearray().join(self._chunks(member, name))

    def _offset(self, file: IO[bytes], info: zipfile.ZipInfo) -> int:
        """Position of a stored member's first byte: its local header repeats the name and has an extra field."""
        file.seek(info.header_offset)
        _, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        return info.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)

    def _header(self, member: IO[bytes], name: str) -> _Header:
        """Read an .npy header; refuse objects, records and sizes that do not add up."""
        where = self._where(name)
        npy = np.lib.format
        try:
            version = npy.read_magic(member)
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, fortran, dtype = read(member, max_header_size=_MAX_HEADER)
        except _DAMAGE as error:
            raise self._damaged(name, error) from None
        except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise DataError(f"{where} is not a NumPy array: write the file with numpy.savez") from None
        if dtype.hasobject:
            raise DataError(f"{where} holds pickled objects, which are never loaded: save numbers, not dtype=object")
        if (
            dtype.kind not in "fiuU"
            or dtype.itemsize == 0
            or dtype.subdtype
            or (dtype.kind == "f" and dtype.itemsize > 8)
        ):
            raise DataError(f"{where} has dtype {dtype}: save floats, integers or (for class names) strings")
        size = member.tell()
        stored = self._members[name].file_size - size
        if any(n < 0 for n in shape) or prod(shape) * dtype.itemsize != stored:
            raise DataError(f"{where} announces shape {shape}, which does not fit its {stored} bytes")
        return _Header(tuple(int(n) for n in shape), bool(fortran), dtype, size)
