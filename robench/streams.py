"""Counter-based random streams, one per sample: the same draws for any batch, order, shard or device.

Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") in plain integer
tensor arithmetic, so that a CPU and a GPU agree to the bit. A stream is a 64-bit key per sample,
hashed from (seed, evaluator, sample index), and a counter of the draws made.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Stream"]

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def _philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Philox-4x32-10 on int64 tensors that hold 32-bit words; broadcasts counters against keys."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product wraps modulo 2**64; masking after the arithmetic shift restores the high word.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]


class Stream:
    """Random numbers for a batch of samples, each row from a stream of its own.

    Every draw advances the stream by one, whatever its size, so equal programs see equal numbers.
    Rows never influence each other: `stream.select(rows)` gives what those rows would have drawn.
    """

    def __init__(self, keys: Tensor, draws: int = 0, root: tuple[int, int] = (0, 0)) -> None:
        """Wrap 64-bit keys, int64 [B, 2] of two 32-bit words; prefer `Stream.for_samples`.

        `root` is what all rows share, whatever the batch: the key of seed and evaluator alone.
        """
        self._keys = keys
        self._draws = draws
        self._root = root

    @classmethod
    def for_samples(
        cls, seed: int, evaluator: str, samples: Iterable[int], device: torch.device | str = "cpu"
    ) -> Stream:
        """Return the streams of `samples` (original indices) for `evaluator` (canonical spec) under `seed`."""
        prefix = hashlib.blake2b(f"{seed}\0{evaluator}\0".encode(), digest_size=8)
        keys = []
        for sample in samples:
            one = prefix.copy()
            one.update(str(int(sample)).encode())
            word = int.from_bytes(one.digest(), "little")
            keys.append((word & _MASK, word >> 32))
        word = int.from_bytes(prefix.digest(), "little")
        root = word & _MASK, word >> 32
        return cls(torch.tensor(keys, dtype=torch.int64, device=device).reshape(-1, 2), root=root)

    def __len__(self) -> int:
        """The number of rows B."""
        return len(self._keys)

    def select(self, rows: Tensor) -> Stream:
        """Return the streams of some rows (bool mask or int64 positions), continuing where this one is."""
        return Stream(self._keys[rows], self._draws, self._root)

    def child(self, *path: int | str) -> Stream:
        """Return independent streams for a named part of the work (`child("restart", 3)`).

        Depends on the keys and the path alone, not on the draws made so far.
        """
        return self._children([path])

    def repeat(self, times: int, *path: int | str, first: int = 0) -> Stream:
        """Return streams for `times` copies of the batch, one by one; copy k has those of `child(*path, first + k)`."""
        return self._children([(*path, first + copy) for copy in range(times)])

    def _children(self, paths: Sequence[tuple[int | str, ...]]) -> Stream:
        """Return the streams of the batch's children, path by path."""
        digests = [hashlib.blake2b("\0".join(map(str, path)).encode(), digest_size=16).digest() for path in paths]
        words = [[int.from_bytes(one[i : i + 4], "little") for i in range(0, 16, 4)] for one in digests]
        table = torch.tensor(words, dtype=torch.int64, device=self._keys.device).reshape(-1, 4)
        counter = table.repeat_interleave(len(self), 0).unbind(1)
        keys = self._keys.repeat(len(paths), 1)
        out = _philox((counter[0], counter[1], counter[2], counter[3]), (keys[:, 0], keys[:, 1]))
        return Stream(torch.stack(out[:2], 1), root=self._root)

    def of_rows(self, rows: Tensor) -> Stream:
        """Return a stream per row of `rows` [R, ...], which need not be those of the batch.

        Depends on seed, evaluator and the numbers in the row alone: equal rows have equal streams, in any batch.
        """
        device = self._keys.device
        root = torch.tensor([self._root], dtype=torch.int64, device=device).expand(len(rows), 2)
        words = _hashed(rows.detach()).to(device)
        zero = torch.zeros_like(words[:, 0])
        out = _philox((words[:, 0], words[:, 1], zero, zero + 1), (root[:, 0], root[:, 1]))
        return Stream(torch.stack(out[:2], 1), root=self._root)

    def uniform(
        self, shape: Iterable[int], low: float = 0.0, high: float = 1.0, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Draw [B, *shape] from the uniform distribution on [low, high)."""
        shape = tuple(shape)
        if dtype == torch.float64:
            unit = self._fractions(math.prod(shape))
        else:
            unit = (self._words(math.prod(shape)) >> 8).to(torch.float32).mul_(2.0**-24).to(dtype)
        unit = unit.reshape(len(self), *shape)
        return unit if (low, high) == (0.0, 1.0) else unit.mul_(high - low).add_(low)

    def normal(self, shape: Iterable[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw [B, *shape] standard normals (Box-Muller in float64, so that devices agree to 1e-6)."""
        shape = tuple(shape)
        size = math.prod(shape)
        pairs = self._fractions(2 * math.ceil(size / 2)).reshape(len(self), math.ceil(size / 2), 2)
        # 1 − u lies in (0, 1]: the logarithm stays finite.
        r = (1 - pairs[..., 0]).log_().mul_(-2).sqrt_()
        angle = pairs[..., 1] * (2 * math.pi)
        both = torch.stack([r * angle.cos(), r * angle.sin()], 2).flatten(1)[:, :size]
        return both.to(dtype).reshape(len(self), *shape)

    def integers(self, shape: Iterable[int], high: int) -> Tensor:
        """Draw [B, *shape] int64 from 0 … high − 1 (high ≤ 2**31; bias below 2**-22)."""
        shape = tuple(shape)
        return (self._fractions(math.prod(shape)) * high).long().reshape(len(self), *shape)

    def _fractions(self, count: int) -> Tensor:
        """Return the next draw as multiples of 2**-53 in [0, 1), float64 [B, count]."""
        words = self._words(2 * count).reshape(len(self), count, 2)
        return ((words[..., 0] >> 5) * 67108864 + (words[..., 1] >> 6)).double() * 2.0**-53

    def _words(self, count: int) -> Tensor:
        """Return the next draw: `count` 32-bit words per row, int64 [B, count]."""
        blocks = torch.arange(math.ceil(count / 4), dtype=torch.int64, device=self._keys.device)
        zero = torch.zeros_like(blocks)
        counter = (blocks & _MASK, blocks >> 32, zero + self._draws, zero)
        self._draws += 1
        out = _philox(counter, (self._keys[:, :1], self._keys[:, 1:]))
        words = torch.stack(out, 2)
        return words.flatten(1)[:, :count]


def _hashed(rows: Tensor) -> Tensor:
    """Return two 32-bit words per row [R, 2] of a hash of its numbers; 0 and −0 are the same.

    Multilinear hashing (Lemire & Kaser 2014, "Strongly universal string hashing is fast"): the upper half of
    Σ m_i s_i modulo 2**64 over the 32-bit words s_i of the row, two rows colliding with probability 2**-64.
    """
    flat = (rows.flatten(1) + 0.0).contiguous()
    words = flat.view(torch.int32).reshape(len(flat), flat[:1].view(torch.int32).numel()).long() & _MASK
    places = torch.arange(1, words.shape[1] + 1, dtype=torch.int64, device=words.device)
    zero = torch.zeros_like(places)
    m = _philox((places & _MASK, places >> 32, zero, zero), (zero, zero))
    sums = [(words * (high << 32 | low)).sum(1) for high, low in ((m[0], m[1]), (m[2], m[3]))]
    return torch.stack([(total >> 32) & _MASK for total in sums], 1)
