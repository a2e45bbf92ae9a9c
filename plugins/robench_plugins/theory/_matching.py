"""Maximum matchings of bipartite graphs that grow edge by edge, from one ε to the next.

Alternating forests from all free vertices at once, every tree augmented along one path and dropped (Azad, Buluç &
Pothen 2017), each level either from the forest's side or, where few vertices are left to reach, from theirs (Beamer,
Asanović & Patterson 2012). Levels are array operations. Berge 1957: a matching is maximum when no forest reaches a free
vertex; the forests then hold König's vertex cover of the same size, the unreached left and the reached right vertices.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

__all__ = ["Matching"]

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]

_PROPOSALS: Final = 8
_CHUNK: Final = 2 << 20  # edges looked at together


class Matching:
    """A matching between left and right vertices.

    `double_cover` says that both sides are copies of the vertices of one graph, whose edges {u, v} stand for (u, v) and
    (v, u): half of its size is then the graph's fractional matching number (Nemhauser & Trotter 1975).

    Attributes:
        left: the right vertex that each left one is matched to, −1 where it is free; int32 [left].
        right: the same for right vertices, int32 [right].
    """

    def __init__(self, left: int, right: int, *, double_cover: bool = False) -> None:
        """Start without edges."""
        self.left, self.right = np.full(left, -1, np.int32), np.full(right, -1, np.int32)
        self._double_cover = double_cover
        self._forward = self._backward = _Neighbours(_graph(left, right, *[np.empty(0, np.int32)] * 2))
        self._reached = np.ones(left, bool), np.zeros(right, bool)
        self._draw = np.random.default_rng(0)  # chooses among equals; the size does not depend on it

    def __len__(self) -> int:
        """Return how many pairs are matched."""
        return int(np.count_nonzero(self.left >= 0))

    def add(self, i: Ints, j: Ints) -> None:
        """Add edges between left vertices i and right vertices j; known ones may repeat."""
        new = _graph(len(self.left), len(self.right), i, j)
        if self._double_cover:
            new = new + new.T.tocsr()
        forward = self._forward.graph + new if self._forward.graph.nnz else new
        self._forward = _Neighbours(forward)
        self._backward = self._forward if self._double_cover else _Neighbours(forward.T.tocsr())

    def grow(self) -> None:
        """Make the matching a maximum one."""
        self._propose()
        while self._augment():
            pass

    def open(self) -> tuple[Ints, Ints]:
        """Return the left vertices that the last forest reached and the right ones that it did not.

        After `grow`, the matching stays maximum whatever edges are added, unless one is between these.
        """
        left, right = self._reached
        return np.flatnonzero(left).astype(np.int32), np.flatnonzero(~right).astype(np.int32)

    def _propose(self) -> None:
        """Match greedily: every free left vertex asks a neighbour, and the ones with fewest neighbours go first."""
        degrees = self._forward.degrees
        for _ in range(_PROPOSALS):
            free = np.flatnonzero((self.left < 0) & (degrees > 0))
            if not len(free):
                return
            free = free[np.argsort(-degrees[free], kind="stable")]
            asked = self._forward.pick(free, self._draw.integers(0, degrees[free]))
            free, asked = free[self.right[asked] < 0], asked[self.right[asked] < 0]
            self.right[asked] = free  # the last one written wins
            won = self.right[asked] == free
            self.left[free[won]] = asked[won]

    def _augment(self) -> int:
        """Grow one forest from all free left vertices; return along how many paths the matching was augmented."""
        forward, backward = self._forward, self._backward
        root, parent = np.full(len(self.left), -1, np.int32), np.full(len(self.right), -1, np.int32)
        end = np.full(len(self.left), -1, np.int32)  # of each root's tree: the free right vertex found
        unreached = np.ones(len(self.right), bool)
        front = np.flatnonzero(self.left < 0).astype(np.int32)
        root[front] = front
        while len(front):
            near, far = forward.degrees[front].sum(), backward.degrees[unreached].sum()
            if near <= max(far // 2, _CHUNK // 64):
                new = self._from_front(front, unreached, parent)
            else:
                new = self._from_rest(front, unreached, parent)
            unreached[new] = False
            tree = root[parent[new]]
            free = self.right[new] < 0
            end[tree[free]] = new[free]
            front = self.right[new[~free]]
            root[front] = tree[~free]
            front = front[end[root[front]] < 0]
        self._reached = root >= 0, ~unreached
        at = end[end >= 0]
        paths = len(at)
        while len(at):
            left = parent[at]
            before = self.left[left]
            self.left[left], self.right[at] = at, left
            at = before[before >= 0]
        return paths

    def _from_front(self, front: Ints, unreached: npt.NDArray[np.bool_], parent: Ints) -> Ints:
        """Reach the unreached neighbours of `front`, each from one of its vertices drawn at random."""
        found = []
        for part in _chunks(front, self._forward.degrees[front]):
            source, target = self._forward.expand(part)
            source, target = source[unreached[target]], target[unreached[target]]
            mixed = self._draw.permutation(len(target))
            source, target = source[mixed], target[mixed]
            parent[target] = source
            new = target[parent[target] == source]
            unreached[new] = False
            found.append(new)
        return np.concatenate(found)

    def _from_rest(self, front: Ints, unreached: npt.NDArray[np.bool_], parent: Ints) -> Ints:
        """Reach the same vertices from their side: each looks at its neighbours until one is in `front`."""
        here = np.zeros(len(self.left), bool)
        here[front] = True
        backward = self._backward
        rest = np.flatnonzero(unreached & (backward.degrees > 0)).astype(np.int32)
        seen, first = np.zeros(len(rest), np.int64), self._draw.integers(0, backward.degrees[rest])
        found, width = [], 4
        while len(rest):
            looks = np.minimum(width, backward.degrees[rest] - seen)
            for part in _chunks(np.arange(len(rest)), looks):
                which = np.repeat(part, looks[part])
                target = rest[which]
                turn = (first[which] + _spans(seen[part], looks[part])) % backward.degrees[target]
                source = backward.pick(target, turn)
                parent[target[here[source]]] = source[here[source]]
            hit = parent[rest] >= 0
            found.append(rest[hit])
            seen += looks
            more = ~hit & (seen < backward.degrees[rest])
            rest, seen, first, width = rest[more], seen[more], first[more], 4 * width
        return np.concatenate([np.empty(0, np.int32), *found])


class _Neighbours:
    """Adjacency lists."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.starts: Longs = graph.indptr[:-1].astype(np.int64)
        self.degrees: Longs = np.diff(graph.indptr).astype(np.int64)

    def pick(self, vertices: npt.NDArray[Any], number: Longs) -> Ints:
        """Return one neighbour of each vertex, by its number."""
        picked: Ints = self.graph.indices[self.starts[vertices] + number]
        return picked

    def expand(self, vertices: Ints) -> tuple[Ints, Ints]:
        """Return all pairs (vertex, neighbour)."""
        degrees = self.degrees[vertices]
        targets: Ints = self.graph.indices[_spans(self.starts[vertices], degrees)]
        return np.repeat(vertices, degrees), targets


def _graph(left: int, right: int, i: Ints, j: Ints) -> Any:
    return csr_array((np.ones(len(i), bool), (i, j)), shape=(left, right))


def _spans(starts: Longs, counts: Longs) -> Longs:
    """Return starts[0], … (counts[0] of them), starts[1], … and so on."""
    before = np.cumsum(counts) - counts
    positions: Longs = np.arange(int(counts.sum()), dtype=np.int64) + np.repeat(starts - before, counts)
    return positions


def _chunks(vertices: npt.NDArray[Any], degrees: Longs) -> list[npt.NDArray[Any]]:
    """Cut `vertices` where their degrees have added up to another `_CHUNK`; a chunk holds one vertex at least."""
    chunk = np.cumsum(degrees) // _CHUNK
    cuts = np.flatnonzero(np.diff(chunk)) + 1
    return [vertices[start:stop] for start, stop in pairwise([0, *cuts.tolist(), len(vertices)])]
