"""Images as PNG (RFC 2083) in a data URI.

Written here, not by an imaging library: 8-bit grey or RGB without filters takes a few lines, and stored (uncompressed)
blocks make the bytes independent of the zlib that Python was built with. The pictures of a gallery are small enough.
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt

__all__ = ["data_uri", "png"]

_BLOCK = 0xFFFF  # bytes in a stored block


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """Return an image [H, W] (grey) or [H, W, 3] (RGB) as PNG."""
    if image.dtype != np.uint8 or image.size == 0 or image.shape[2:] not in ((), (3,)):
        raise ValueError(f"{image.dtype} {image.shape} is no 8-bit grey or RGB image")
    height, width = image.shape[:2]
    lines = image.reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), lines], axis=1).tobytes()  # filter 0 before each line
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if image.ndim == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(raw)) + _chunk(b"IEND", b"")


def data_uri(image: npt.NDArray[np.uint8]) -> str:
    """Return the image as the address of an `<img>`."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """A zlib stream (RFC 1950) of stored blocks."""
    out = [b"\x78\x01"]
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        last = start + _BLOCK >= len(data)
        out += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    return b"".join([*out, struct.pack(">I", zlib.adler32(data))])
