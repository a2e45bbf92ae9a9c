"""Layers without weights that change no distance between inputs, or drop a part of it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Centre", "FirstChannels", "PixelUnshuffle", "ZeroChannels"]


class Centre(nn.Module):
    """x − mean, broadcast against one input: division by a standard deviation would expand distances."""

    mean: Tensor

    def __init__(self, mean: Tensor) -> None:
        """Keep the mean as a buffer: it moves with the network and is not trained."""
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, x: Tensor) -> Tensor:
        """Return the centred inputs [B, ...]."""
        return x - self.mean


class ZeroChannels(nn.Module):
    """Append channels of zeros: an isometry."""

    def __init__(self, more: int) -> None:
        """Append `more` channels."""
        super().__init__()
        self.more = more

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, ...] to [B, C + more, ...]."""
        return F.pad(x, (0, 0) * (x.dim() - 2) + (0, self.more))


class FirstChannels(nn.Module):
    """Keep the first channels: a projection."""

    def __init__(self, count: int) -> None:
        """Keep `count` channels."""
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, ...] to [B, count, ...]."""
        return x[:, : self.count]


class PixelUnshuffle(nn.Module):
    """Four channels of half the size for each: torch's PixelUnshuffle(2), by operators that graphs have."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, 2H, 2W] to [B, 4C, H, W]; channel 4c + 2i + j holds the pixels (2h + i, 2w + j) of channel c."""
        _, channels, height, width = x.shape
        pixels = x.reshape(x.shape[0], channels, height // 2, 2, width // 2, 2)
        return pixels.permute(0, 1, 3, 5, 2, 4).reshape(x.shape[0], 4 * channels, height // 2, width // 2)
