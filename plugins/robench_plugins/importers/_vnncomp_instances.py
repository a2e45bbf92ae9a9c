"""Which instance an answer is about: properties in several folders may have one name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from robench_plugins.importers._vnncomp_answers import NAME

__all__ = ["Instance", "Instances", "path_of"]

Instance = tuple[str, str]
"""Network and property."""

Parts = tuple[str, ...]


def path_of(text: str) -> Parts:
    """Return a property's name after those of its folders, as far up as these are plain."""
    *folders, name = text.strip().removesuffix(".gz").removesuffix(".vnnlib").split("/")
    plain = takewhile(NAME.fullmatch, (one for one in reversed(folders) if one not in ("", ".")))
    return (*reversed(list(plain)), name)


class Instances:
    """The instances of a benchmark, in order.

    A property goes by its file's name; where files in several folders have that name, by the folders too that tell them
    apart (`a/p`, `b/p`).
    """

    def __init__(self, known: Sequence[tuple[str, Parts]]) -> None:
        """Take (network, path of the property) of each; one that is there twice is so in `names`."""
        paths: dict[Instance, set[Parts]] = {}
        for network, path in known:
            paths.setdefault((network, path[-1]), set()).add(path)
        self.names = [(network, _shortest(path, paths[network, path[-1]])) for network, path in known]
        self._found: dict[Instance, set[str]] = {}
        for (network, path), (_, name) in zip(known, self.names, strict=True):
            self._found.setdefault((network, path[-1]), set()).add(name)

    def find(self, network: str, path: Parts) -> Instance | None:
        """Return the instance with the name of `path`; of several the one that has the same folders above it, too."""
        names = self._found.get((network, path[-1]), set())
        if len(names) > 1:
            whole = f"/{'/'.join(path)}"
            names = {name for name in names if whole.endswith(f"/{name}")}
        return (network, max(names, key=len)) if names else None


def _shortest(path: Parts, same: set[Parts]) -> str:
    """Return the end of `path` that tells it apart from all others in `same`."""
    count = next(count for count in range(1, 1000) if len({one[-count:] for one in same}) == len(same))
    return "/".join(path[-count:])
