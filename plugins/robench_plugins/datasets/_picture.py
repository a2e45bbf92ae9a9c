"""One image file to an array: bounded before it is decoded, and prepared in one documented way."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from robench.errors import DataError
from robench.text import one_line

__all__ = ["ENDINGS", "Preprocessing", "decode"]

ENDINGS: Final = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp")

_FORMATS: Final = ("JPEG", "PNG", "BMP", "PPM", "WEBP")
_MODES: Final = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # 8 bits for each channel
_BYTES: Final = 1 << 27  # of a file
_PIXELS: Final = 1 << 26  # of an image: 192 MiB in RGB. The largest of ImageNet has 8 million
_SCALED: Final = 1 << 26  # after resizing: a strip of 1 × 100,000 pixels must not become one of 256 × 25 million


@dataclass(frozen=True)
class Preprocessing:
    """Pixels of the shorter side, pixels of the crop, and the filter's name."""

    resize: int
    crop: int
    filter: str


def decode(path: Path, how: Preprocessing) -> npt.NDArray[np.float32]:
    """Return the image [3, crop, crop], levels k/255 rounded to float32.

    Raises DataError for what is no image of eight bits for each channel, is damaged or truncated, or too large.
    """
    from PIL import Image

    try:
        if path.stat().st_size > _BYTES:
            raise DataError(f"{path} has more than {_BYTES >> 20} MiB: shrink the image")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large or odd images: they are refused below, or read as they are
            with Image.open(path, formats=_FORMATS) as image:
                return _prepared(image, how, path)
    except DataError:
        raise
    except Image.DecompressionBombError:  # the library's own limit, which is found first
        raise _too_large(path) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read as an image: {one_line(error.strerror or str(error))}") from None
    except Exception as error:  # decoders raise whatever they like over bytes that a stranger chose
        raise DataError(f"{path} is damaged: {one_line(error)}") from None


def _prepared(image: Any, how: Preprocessing, path: Path) -> npt.NDArray[np.float32]:
    from PIL import Image

    width, height = image.size
    if width * height > _PIXELS:
        raise _too_large(path)
    if image.mode not in _MODES:
        raise DataError(f"{path} has pixels of the kind {image.mode}: save it with 8 bits for each channel")
    short = min(width, height)
    size = int(how.resize * width / short), int(how.resize * height / short)
    if size[0] * size[1] > _SCALED:
        raise DataError(f"{path} has {width} × {height} pixels: it is too narrow to be resized")
    rgb = image.convert("RGB")
    if size != rgb.size:
        rgb = rgb.resize(size, getattr(Image.Resampling, how.filter.upper()))
    left, top = (round((side - how.crop) / 2) for side in size)
    levels = np.asarray(rgb.crop((left, top, left + how.crop, top + how.crop)), np.uint8)
    return levels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)


def _too_large(path: Path) -> DataError:
    return DataError(f"{path} has more than {_PIXELS} pixels: shrink the image")
