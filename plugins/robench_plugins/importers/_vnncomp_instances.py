"""Which instance an answer is about: properties in several folders may have one name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, takewhile

from robench_plugins.importers._vnncomp_answers import NAME

__all__ = ["Instance", "Instances", "path_of"]

Instance = tuple[str, str]
"""Network and property."""

Parts = tuple[str, ...]


_DEEPEST = 32


def path_of(text: str) -> Parts:
    """Return a property's name after those of its folders, as far up as these are plain, and at most 32."""
    *folders, name = text.strip().removesuffix(".gz").removesuffix(".vnnlib").split("/")
    plain = takewhile(NAME.fullmatch, (one for one in reversed(folders) if one not in ("", ".")))
    return (*reversed(list(islice(plain, _DEEPEST))), name)


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
        parts = {key: _least(same) for key, same in paths.items()}
        self.names = [(network, "/".join(path[-parts[network, path[-1]] :])) for network, path in known]
        self._known = frozenset(self.names)

    def find(self, network: str, path: Parts) -> Instance | None:
        """Return the instance with the name of `path`; of several the one that has the same folders above it, too."""
        ends = ((network, "/".join(path[start:])) for start in range(len(path)))
        return next((end for end in ends if end in self._known), None)


def _least(same: set[Parts]) -> int:
    """Return how many of their last parts tell these paths apart."""
    return next(parts for parts in range(1, _DEEPEST + 2) if len({path[-parts:] for path in same}) == len(same))
