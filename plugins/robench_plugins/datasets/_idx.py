"""The idx format of MNIST: a magic number, the dimensions, then bytes. Plain or gzipped, and nothing taken on trust.

The magic number is 00 00 08 d for d dimensions of unsigned bytes, the dimensions are big-endian 32-bit integers.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from robench.errors import DataError

__all__ = ["read_idx"]

_LARGEST: Final = 1 << 30  # bytes, twenty times MNIST
_CHUNK: Final = 1 << 20


def read_idx(path: Path, item: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return the bytes [N, *item] of the idx file at `path`; `.gz` is unpacked. Raises DataError.

    No more is read than the header announces, and one byte to see that there is no more.
    """
    try:
        with path.open("rb") as plain:
            if path.suffix != ".gz":
                return _read(plain, path, item)
            with gzip.open(plain) as unpacked:
                return _read(unpacked, path, item)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{path} is damaged or truncated: copy the file again") from None
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _read(file: IO[bytes] | gzip.GzipFile, path: Path, item: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    head = struct.Struct(f">4s{1 + len(item)}I")
    raw = file.read(head.size)
    if raw[:4] != bytes([0, 0, 8, 1 + len(item)]):
        wanted = "images" if item else "labels"
        raise DataError(f"{path} is not an idx file of {wanted}: it starts with {raw[:4].hex(' ') or 'nothing'}")
    if len(raw) < head.size:
        raise DataError(f"{path} ends within its header: copy the file again")
    _, count, *rest = head.unpack(raw)
    if tuple(rest) != item:
        found, wanted = (" × ".join(map(str, sizes)) for sizes in (rest, item))
        raise DataError(f"{path} holds images of {found} pixels, not {wanted}")
    size = count * prod(item)
    if not 0 < size <= _LARGEST:
        raise DataError(f"{path} announces {count} entries: that is no such file")
    values = bytearray()
    while len(values) < size:
        # In steps, so that a short file costs no more memory than it has bytes.
        got = file.read(min(size - len(values), _CHUNK))
        if not got:
            raise DataError(f"{path} announces {count} entries but ends before them: copy the file again")
        values += got
    if file.read(1):
        raise DataError(f"{path} goes on after the {count} entries that it announces: copy the file again")
    return np.frombuffer(values, np.uint8).reshape(count, *item)
