"""Counting votes over noise: memory independent of the number of draws, counts on the device.

Randomness. Each sample has a generator of its own, of the device, seeded from its stream; it is drawn from in pieces
whose sizes depend on what is asked for that sample alone. So a sample's noise is the same in any batch, and for any
number of rows in a forward pass. Another device has other draws.

Layout. A block of rows is one flat buffer that is drawn into, shifted by the inputs and passed on, again and again. On
a CPU images are laid out channels last, which convolutions take faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from robench.classifier import Classifier
from robench.contracts import Noise
from robench.errors import InputError
from robench.graph import check_input, full_precision
from robench.streams import Stream
from robench.votes import votes_of
from robench_plugins.smoothing import _checked

__all__ = ["Draws", "rows_per_pass"]


_COUNTED = 4096
"""Rows whose votes are counted together: on a small network counting each pass would take a tenth of its time."""


def rows_per_pass(size: int, device: torch.device) -> int:
    """Return how many inputs of `size` numbers to pass at once: a speed, which no result depends on."""
    numbers, fewest, most = (2**17, 32, 512) if device.type == "cpu" else (2**24, 64, 4096)
    return max(fewest, min(most, numbers // size // 32 * 32))


def _piece(size: int, device: torch.device) -> int:
    """Return the draws of one call of a generator, at most. Results depend on it: it is a function of these alone."""
    numbers = 2**14 if device.type == "cpu" else 2**20
    return max(32, min(1024, numbers // size // 32 * 32))


class Draws:
    """The noise around B samples, and the votes of `base` at it: each call of `count` goes on where the last ended."""

    def __init__(self, base: Classifier, noise: Noise, x: Tensor, stream: Stream, rows: int | None = None) -> None:
        """Draw around `x` [B, ...].

        Args:
            base: the classifier that votes.
            noise: what is added to its inputs.
            x: samples, in the dtype and on the device of `base`.
            stream: of these samples; it is not advanced.
            rows: inputs in one pass through `base`; by default `rows_per_pass`.

        Raises:
            InputError: another shape, dtype or number of streams, or `rows` below 1.
        """
        check_input(x, base.input_shape, base.dtype)
        if len(stream) != len(x):
            raise InputError(f"{len(stream)} streams for {len(x)} samples")
        if rows is not None and rows < 1:
            raise InputError(f"rows in a pass must be at least 1, not {rows}")
        self._base, self._noise = base, noise
        self._size = math.prod(base.input_shape)
        self._rows = rows or rows_per_pass(self._size, base.device)
        self._piece = _piece(self._size, base.device)
        self._last = base.device.type == "cpu" and len(base.input_shape) == 3
        laid = x.detach().permute(0, 2, 3, 1) if self._last else x.detach()
        self._x = laid.reshape(len(x), self._size)
        # A generator of the CPU takes 32 bits of its seed, one of CUDA all of them.
        words = stream.child("votes").integers((2,), 2**31).tolist()
        seeds = [low | high << 31 for low, high in words]
        self._generators = [torch.Generator(base.device).manual_seed(seed) for seed in seeds]
        self._block: Tensor | None = None
        self._ballots: Tensor | None = None

    def count(self, samples: Sequence[int], draws: Sequence[int]) -> Tensor:
        """Return the votes [A, classes + 1] of fresh draws; the last column counts the draws without a vote.

        Args:
            samples: positions in the batch, each at most once.
            draws: how many for each of them.

        Returns:
            int64, on the classifier's device: reading it is the only time that the host waits.
        """
        classes = self._base.classes
        # In this order: leaving inference mode turns gradients on.
        with full_precision(), torch.no_grad():
            votes = torch.zeros(len(samples) * (classes + 1), dtype=torch.int64, device=self._base.device)
            waiting = 0
            owners: list[tuple[int, int]] = []
            for pieces in self._blocks(draws):
                room = sum(length for _, length in pieces)
                if waiting and waiting + room > _COUNTED:
                    self._add(votes, owners, waiting)
                    waiting, owners = 0, []
                self._ask([(samples[place], length) for place, length in pieces], waiting)
                owners += pieces
                waiting += room
            if waiting:
                self._add(votes, owners, waiting)
        return votes.view(len(samples), classes + 1)

    def _blocks(self, draws: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
        """Yield (position, draws) of the pieces that fill one block."""
        capacity, used = max(self._rows, self._piece), 0
        pieces: list[tuple[int, int]] = []
        for place, wanted in enumerate(draws):
            for start in range(0, wanted, self._piece):
                length = min(self._piece, wanted - start)
                if used + length > capacity:
                    yield pieces
                    pieces, used = [], 0
                pieces.append((place, length))
                used += length
        if pieces:
            yield pieces

    def _ask(self, pieces: list[tuple[int, int]], place: int) -> None:
        """Draw one block, (sample, draws) by piece, and keep its logits from row `place` on."""
        first = self._block is None
        if self._block is None:
            self._block = self._x.new_full((max(self._rows, self._piece), self._size), torch.nan)
        used = 0
        for sample, length in pieces:
            part = self._block[used : used + length]
            _checked.fill(self._noise, part, self._generators[sample])
            if first:
                _checked.check_filled(self._noise, part)
                first = False
            part.add_(self._x[sample])
            used += length
        start = 0
        while start < used:
            stop = min(start + self._rows, used)
            try:
                logits = self._logits(self._block[start:stop])
            except torch.cuda.OutOfMemoryError:
                if self._rows == 1:
                    raise
                # The noise is drawn already: the same rows again, fewer at once.
                self._rows = (stop - start + 1) // 2
                continue
            if self._ballots is None:
                self._ballots = logits.new_empty(max(_COUNTED, len(self._block)), logits.shape[1])
            # A copy: a classifier may write its next answer into the same memory.
            self._ballots[place + start : place + stop] = logits
            start = stop

    def _add(self, votes: Tensor, owners: list[tuple[int, int]], count: int) -> None:
        """Add the votes of the first `count` rows kept, which are those of `owners`: (position, draws)."""
        assert self._ballots is not None
        found = votes_of(self._ballots[:count])
        places, lengths = torch.tensor(owners).unbind(1)
        first = (places * (self._base.classes + 1)).repeat_interleave(lengths).to(votes.device, non_blocking=True)
        votes.scatter_add_(0, first + found, torch.ones_like(found))

    def _logits(self, rows: Tensor) -> Tensor:
        shape = self._base.input_shape
        if self._last:
            channels, height, width = shape
            inputs = rows.view(-1, height, width, channels).permute(0, 3, 1, 2)
        else:
            inputs = rows.view(-1, *shape)
        logits = self._base.logits(inputs)
        if logits.shape != (len(rows), self._base.classes):
            raise InputError(f"the model gives {list(logits.shape)} for {len(rows)} inputs")
        return logits
