"""Wide residual networks for small images (Zagoruyko & Komodakis 2016): depth 6n + 4, random weights."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["wide_resnet"]


class _Block(nn.Module):
    """Normalise, rectify, convolve, twice; where the width changes the way round begins after the first rectifier."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
        )
        self.skip = None if before == width and stride == 1 else nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        start = self.first(x)
        around: Tensor = x if self.skip is None else self.skip(start)
        out: Tensor = around + self.body(start)
        return out


def wide_resnet(depth: int = 28, factor: int = 10, classes: int = 10) -> nn.Module:
    """Return WRN-depth-factor in evaluation mode; WRN-28-10 has 36.5 M parameters and takes 5.2 GFLOP a pass."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)]
    before = 16
    for width, stride in ((16 * factor, 1), (32 * factor, 2), (64 * factor, 2)):
        for block in range((depth - 4) // 6):
            layers.append(_Block(before, width, 1 if block else stride))
            before = width
    layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)]
    net = nn.Sequential(*layers)
    for one in net.modules():
        if isinstance(one, nn.Conv2d):
            nn.init.kaiming_normal_(one.weight, mode="fan_out", nonlinearity="relu")
    return net.eval()
