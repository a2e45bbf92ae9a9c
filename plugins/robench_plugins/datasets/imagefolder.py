"""Images in folders named after their classes, like ImageNet's: resized, cropped, and decoded when they are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from robench import param
from robench.errors import DataError
from robench.samples import Samples
from robench.text import safe
from robench.threat import Domain
from robench_plugins.datasets._picture import ENDINGS, Preprocessing, decode

__all__ = ["ImageFolder"]

_SPLITS: Final = {"train": ("train",), "val": ("val",), "test": ("test", "val")}
_MOST: Final = 10_000_000  # files


@dataclass(frozen=True)
class ImageFolder:
    """Colour images [3, crop, crop], levels k/255 rounded to float32, from FOLDER/SPLIT/CLASS/IMAGE.

    Splits are the folders `train`, `val` and `test`; `test` is `val` where there is no `test`, and FOLDER/CLASS/IMAGE
    where there is no split at all. Classes are the names of the class folders of all splits, sorted; samples are sorted
    by class and file name, and a sample's index is its place.

    Each image is converted to RGB, resized so that its shorter side has `resize` pixels (the longer one rounded down;
    Pillow's filter with its antialiasing) and cropped at the centre. ε is about the result. JPEG, PNG, BMP, PPM and
    WebP are read; an orientation that metadata tell is not applied. Links that lead out of FOLDER are refused.
    """

    folder: Path = param(..., "the folder", positional=True)
    resize: int = param(256, "pixels of the shorter side before the crop", minimum=1, maximum=4096)
    crop: int = param(224, "pixels of both sides after it", minimum=1, maximum=4096)
    filter: Literal["bilinear", "bicubic"] = param("bilinear", "how pixels are interpolated")

    def __post_init__(self) -> None:
        """Refuse a crop that is larger than what it is cut from."""
        if self.crop > self.resize:
            raise ValueError(f"crop={self.crop} is larger than resize={self.resize}: crop what is there")

    def load(self, split: str) -> Samples:
        """Return a split; images are decoded, and damaged ones found, when they are read."""
        if split not in _SPLITS:
            raise DataError(f"imagefolder has no split {split!r}: choose train, val or test")
        root = _root(self.folder)
        folders = dict(_class_folders(root, root))
        places = {name: folders[name] for name in ("train", "val", "test") if name in folders}
        if places:
            place = next((places[name] for name in _SPLITS[split] if name in places), None)
        else:
            place = root if split == "test" else None
        if place is None:
            raise DataError(f"{root} has no split {split}: put images into {split}/CLASS/")
        classes = sorted({name for one in places.values() or [root] for name, _ in _class_folders(one, root)})
        labels = {name: label for label, name in enumerate(classes)}
        files: list[str] = []
        y: list[int] = []
        for name, folder in sorted(_class_folders(place, root)):
            found = sorted(_images(folder, root))
            files += found
            y += [labels[name]] * len(found)
            if len(files) > _MOST:
                raise DataError(f"{place} holds more than {_MOST} images")
        if not files:
            raise DataError(f"{place} holds no images: put them into a folder for each class")
        x = _Images(files, Preprocessing(self.resize, self.crop, self.filter))
        return Samples(x, np.array(y, np.int64), np.arange(len(y)), Domain(0.0, 1.0), tuple(classes))


class _Images:
    """Images [N, 3, crop, crop], decoded on access."""

    def __init__(self, files: list[str], how: Preprocessing) -> None:
        self._files, self._how = np.array(files, object), how
        self.shape = (len(files), 3, how.crop, how.crop)
        self.dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> npt.NDArray[np.float32]:
        wanted = self._files[rows]
        out = np.empty((np.size(wanted), *self.shape[1:]), np.float32)
        for place, file in enumerate(np.atleast_1d(wanted)):
            out[place] = decode(Path(file), self._how)
        return out.reshape(*np.shape(wanted), *self.shape[1:])


def _root(folder: Path) -> Path:
    try:
        root = folder.resolve(strict=True)
    except (OSError, RuntimeError):
        raise DataError(f"{safe(folder)} does not exist: give a folder with an image folder for each class") from None
    if not root.is_dir():
        raise DataError(f"{safe(folder)} is no folder: give one with an image folder for each class")
    return root


def _class_folders(place: Path, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the folders of a split with the classes' names; files beside them belong to no class."""
    for entry in _entries(place, root):
        if entry.is_dir():
            yield entry.name, Path(entry.path)


def _images(folder: Path, root: Path) -> Iterator[str]:
    for entry in _entries(folder, root):
        if not entry.is_file() or not entry.name.lower().endswith(ENDINGS):
            raise DataError(f"{entry.path} is no image ({', '.join(ENDINGS)}): take it out of the folder of its class")
        yield entry.path


def _entries(folder: Path, root: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what a folder holds but for hidden things. Raises DataError for names and links that are not followed."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not entry.name.isprintable():
                    raise DataError(f"{safe(entry.path)}: rename it, its name holds what cannot be printed")
                if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(root):
                    raise DataError(f"{entry.path} is a link out of the folder: copy what it leads to")
                yield entry
    except OSError as error:
        raise DataError(f"{safe(folder)} cannot be read: {error.strerror}") from None
