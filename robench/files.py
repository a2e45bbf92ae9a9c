"""Files as parameters: published by name and content (`net.onnx@sha256:0123456789ab`), never by path."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from robench.errors import DataError

__all__ = ["FileRef", "find_file"]

_REFERENCE = re.compile(r"(?P<base>[^/\0]+)@sha256:(?P<digest>[0-9a-f]{12})")
_MAX_FILES = 1_000_000
_SEARCH_DEPTH = 3
_SEARCH_ENTRIES = 20_000


@dataclass(frozen=True)
class FileRef:
    """A file or folder by base name and the first 12 hex digits of the sha256 of its content."""

    base: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> FileRef | None:
        """Return the reference that `text` is, or None where it is an ordinary path."""
        match = _REFERENCE.fullmatch(text)
        return cls(match["base"], match["digest"]) if match and match["base"] not in (".", "..") else None

    @classmethod
    def of(cls, path: Path) -> FileRef:
        """Hash the file or folder at `path`. Raises DataError where it is missing, unreadable or neither."""
        whole = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links and change the name
        if not whole.name:
            raise DataError(f"{str(path)!r} has no name: give a file or a folder below the root")
        try:
            return cls(whole.name, _digest(whole)[:12])
        except FileNotFoundError:
            raise DataError(f"no file {str(path)!r}: check the path") from None
        except OSError as error:
            raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from None

    def __str__(self) -> str:
        """`base@sha256:digest`, the form in specs."""
        return f"{self.base}@sha256:{self.digest}"


def find_file(reference: FileRef | str, folders: Iterable[Path]) -> Path | None:
    """Return the file or folder that `reference` names, from `folders` or up to three levels below, or None.

    Only what has both the base name and the content counts. Links to folders are not followed.
    """
    wanted = FileRef.parse(reference) if isinstance(reference, str) else reference
    if wanted is None:
        return None
    for folder in folders:
        for candidate in _candidates(Path(folder), wanted.base):
            try:
                if FileRef.of(candidate).digest == wanted.digest:
                    return candidate
            except DataError:
                continue  # unreadable, or no file: not the one
    return None


def _candidates(folder: Path, base: str) -> Iterator[Path]:
    if folder.name == base and folder.exists():
        yield folder
    left = _SEARCH_ENTRIES
    for here, folders, files in os.walk(folder):
        if base in files or base in folders:
            yield Path(here) / base
        left -= len(files) + len(folders)
        if left < 0:
            return
        if len(Path(here).relative_to(folder).parts) >= _SEARCH_DEPTH:
            folders.clear()
        folders.sort()


def _digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes, or of a folder's sorted relative names and files."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return _hash_file(path)
    if not stat.S_ISDIR(mode):
        raise DataError(f"{str(path)!r} is neither a file nor a folder")
    sha = hashlib.sha256()
    for name, file in sorted(_files_below(path)):
        encoded = os.fsencode(name)
        sha.update(f"{len(encoded)}:".encode() + encoded + bytes.fromhex(_hash_file(file)))
    return sha.hexdigest()


def _files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    count = 0
    for here, folders, files in os.walk(folder, onerror=_raise):
        for name in folders:
            if (Path(here) / name).is_symlink():
                raise DataError(f"{str(Path(here) / name)!r} links to a folder: copy what belongs to {folder.name!r}")
        for name in files:
            file = Path(here) / name
            if not file.is_file():
                raise DataError(f"{str(file)!r} is neither a file nor a folder")
            count += 1
            if count > _MAX_FILES:
                raise DataError(f"folder {str(folder)!r} holds more than {_MAX_FILES} files")
            yield file.relative_to(folder).as_posix(), file


def _raise(error: OSError) -> None:
    raise error


def _hash_file(path: Path) -> str:
    """Hash once per state of the file: a spec is resolved more than once in a command."""
    state = path.stat()
    return _hash_state(path, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _hash_state(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
