"""Classifiers whose gradients mislead, made of honest ones: what health probes must notice, and attacks must survive.

Each mask says whether it leaves every decision of its base as it is (`same`): then the base's robust accuracy is the
truth about it, and a much higher empirical accuracy is an error of the evaluation. They keep to the digits' domain.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robench.classifier import Classifier

__all__ = ["MASKS", "Mask", "Masked", "masked", "winners_take_all"]

Logits = Callable[[Tensor], Tensor]


class Masked:
    """A classifier behind a mask: opaque, with the base's shape, dtype and device."""

    def __init__(self, base: Any, name: str, function: Callable[[Logits, Tensor], Tensor]) -> None:
        """Wrap `base`; `function` maps (the base's logits, x) to logits."""
        self._base, self._function = base, function
        self.input_shape: tuple[int, ...] = tuple(base.input_shape)
        self.classes: int = base.classes
        self.dtype: torch.dtype = base.dtype
        self.device: torch.device = base.device
        self.fingerprint = hashlib.sha256(f"{base.fingerprint} behind {name}".encode()).hexdigest()
        self.graph = None

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, classes] of `x` [B, ...]."""
        return self._function(self._base.logits, x)


@dataclass(frozen=True)
class Mask:
    """A way to hide a classifier.

    Attributes:
        name: its name in tables.
        family: rounding, scale, probabilities, vanishing, shattered, trap, not finite, random.
        apply: (the base's logits, x [B, ...]) → logits [B, classes].
        same: whether every decision stays the base's.
        harmless: whether gradients with a scale-free loss still lead to the truth: nothing needs to be noticed.
    """

    name: str
    family: str
    apply: Callable[[Logits, Tensor], Tensor]
    same: bool = True
    harmless: bool = False


def masked(base: Classifier, mask: Mask) -> Masked:
    """Return `base` behind `mask`."""
    return Masked(base, mask.name, mask.apply)


# ------------------------------------------------------------------ inputs


def _levels(count: int) -> Callable[[Logits, Tensor], Tensor]:
    """Grey levels (Guo et al. 2018): the derivative of rounding is 0."""
    return lambda f, x: f((x * count).round() / count)


def _dithered(f: Logits, x: Tensor) -> Tensor:
    """Four levels with a fixed random threshold per pixel."""
    threshold = torch.rand((1, *x.shape[1:]), generator=_generator(1), dtype=x.dtype).to(x.device)
    return f((x * 8 + threshold).floor() / 8)


def _resampled(f: Logits, x: Tensor) -> Tensor:
    """Values looked up in a table, as a codec does: not differentiable. The identity on multiples of 1/16."""
    table = torch.linspace(0, 1, 17, dtype=x.dtype, device=x.device)
    return f(table[(x * 16).round().long().clamp(0, 16)] + 0 * x)


def _cosine_coded(f: Logits, x: Tensor) -> Tensor:
    """Coefficients of a cosine transform over each row, rounded to 1/8 (as in JPEG, Guo et al. 2018)."""
    size = x.shape[-1]
    n = torch.arange(size, dtype=x.dtype, device=x.device)
    basis = torch.cos(math.pi / size * (n[None] + 0.5) * n[:, None]) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    coded = ((x @ basis.T) * 8).round() / 8
    return f(coded @ basis)


def _binarised(slope: float) -> Callable[[Logits, Tensor], Tensor]:
    """Steep sigmoids that make pixels almost black or white, added to the identity's rounding: gradients vanish."""
    return lambda f, x: f(((x * 4).detach().floor() + torch.sigmoid(slope * ((x * 4) % 1 - 0.5))) / 4)


def _rippled(height: float, frequency: float) -> Callable[[Logits, Tensor], Tensor]:
    """A ripple too small to matter whose slope buries the true one: shattered gradients (Athalye et al. 2018)."""
    return lambda f, x: f(x + height * torch.sin(frequency * x + 1))


def _shuffled_bits(f: Logits, x: Tensor) -> Tensor:
    """A saw-tooth of height 1/50 and slope −9 in every pixel: the gradient points the wrong way everywhere."""
    return f(x - 0.02 * ((500 * x) % 1))


def _half_cut(share: float) -> Callable[[Logits, Tensor], Tensor]:
    """Gradients cut off on a fixed part of the pixels."""

    def apply(f: Logits, x: Tensor) -> Tensor:
        cut = torch.rand(x.shape[1:], generator=_generator(2)).to(x.device) < share
        return f(torch.where(cut, x.detach(), x))

    return apply


# ----------------------------------------------------------------- outputs


def _scaled(factor: float) -> Callable[[Logits, Tensor], Tensor]:
    """Logits in other units."""
    return lambda f, x: f(x) * factor


def _rounded_logits(unit: float) -> Callable[[Logits, Tensor], Tensor]:
    """Logits rounded to multiples of a unit, the decision kept."""

    def apply(f: Logits, x: Tensor) -> Tensor:
        z = f(x)
        return (z / unit).round() * unit + 0.1 * unit * _decision(z)

    return apply


def _saturated(f: Logits, x: Tensor) -> Tensor:
    """A stack of steep, monotone squashings: the derivative underflows where the classifier is sure."""
    z = f(x)
    z = z - z.mean(1, keepdim=True)
    for _ in range(3):
        z = torch.tanh(3 * z)
    return z + 0.01 * _decision(f(x)).detach()


def _one_hot(f: Logits, x: Tensor) -> Tensor:
    """The decision alone, in a form that has a gradient: 0."""
    z = f(x)
    return _decision(z) + 0 * z


# ------------------------------------------------------------------- traps


def _pit(height: float, period: float) -> Callable[[Logits, Tensor], Tensor]:
    """The decision's logit grows as x leaves the grid on which the data lie: gradients point back."""

    def apply(f: Logits, x: Tensor) -> Tensor:
        z = f(x)
        away = (1 - torch.cos(2 * math.pi / period * x)).flatten(1).mean(1, keepdim=True)
        return z + height * z.detach().std(1, keepdim=True) * away * _decision(z)

    return apply


class _Replaced(torch.autograd.Function):
    """The identity, with a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.change(gradients[0]), None


def _backward(change: Callable[[Tensor], Tensor]) -> Callable[[Logits, Tensor], Tensor]:
    """A backward pass that is not the derivative of the forward pass."""
    return lambda f, x: f(_Replaced.apply(x, change))  # type: ignore[no-untyped-call]


def _permuted(gradient: Tensor) -> Tensor:
    order = torch.randperm(gradient[0].numel(), generator=_generator(3)).to(gradient.device)
    return gradient.flatten(1)[:, order].reshape(gradient.shape)


def _drowned(gradient: Tensor) -> Tensor:
    noise = torch.randn(gradient.shape[1:], generator=_generator(4), dtype=gradient.dtype).to(gradient.device)
    size = gradient.flatten(1).abs().amax(1).reshape(-1, *[1] * (gradient.dim() - 1))
    return gradient + 10 * size * noise


def _decoy(f: Logits, x: Tensor) -> Tensor:
    """The base's values with the gradient of a fixed random network."""
    z = f(x).detach()
    draw = _generator(5)
    first = torch.randn(x[0].numel(), 32, generator=draw, dtype=x.dtype).to(x.device)
    second = torch.randn(32, z.shape[1], generator=draw, dtype=x.dtype).to(x.device)
    other = (x.flatten(1) @ first).relu() @ second
    return z + other - other.detach()


def _broken_square_root(f: Logits, x: Tensor) -> Tensor:
    """A square root at 0: its derivative is infinite, and times 0 not a number."""
    z = f(x)
    return z + torch.sqrt((0 * x).flatten(1).sum(1, keepdim=True))


def _own_confidence(f: Logits, x: Tensor) -> Tensor:
    """The base's decision with a confidence that knows nothing of it: linear in x, along a direction per class."""
    decision = _decision(f(x))
    ways = torch.randn(decision.shape[1], x[0].numel(), generator=_generator(6), dtype=x.dtype).to(x.device)
    height = ((x.flatten(1) - 0.5) @ ways.T * decision).sum(1, keepdim=True)
    return decision * (1 + 0.02 * height.clamp(-45, 45))


def _noisy_off_grid(f: Logits, x: Tensor) -> Tensor:
    """Noise drawn at inference, but only where a pixel is no multiple of 1/16: never on the data themselves."""
    off = (x * 16 != (x * 16).round()).flatten(1).any(1).reshape(-1, *[1] * (x.dim() - 1))
    return f(x + 0.01 * off * torch.randn_like(x))


def _noisy(size: float) -> Callable[[Logits, Tensor], Tensor]:
    """Noise drawn at inference, from the global generator."""
    return lambda f, x: f(x + size * torch.randn_like(x))


def _decision(z: Tensor) -> Tensor:
    """Return 1 at the largest logit, 0 elsewhere; without gradient."""
    return F.one_hot(z.detach().argmax(1), z.shape[1]).to(z.dtype)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


MASKS: tuple[Mask, ...] = (
    Mask("rounded to 16 levels", "rounding", _levels(16), same=False),
    Mask("rounded to 8 levels", "rounding", _levels(8), same=False),
    Mask("dithered to 8 levels", "rounding", _dithered, same=False),
    Mask("looked up in a table", "rounding", _resampled, same=False),
    Mask("rounded cosine coefficients", "rounding", _cosine_coded, same=False),
    Mask("logits × 10⁴", "scale", _scaled(1e4), harmless=True),
    Mask("logits × 100", "scale", _scaled(100), harmless=True),
    Mask("logits × 10⁻⁴", "scale", _scaled(1e-4), harmless=True),
    Mask("log-probabilities", "probabilities", lambda f, x: f(x).log_softmax(1), harmless=True),
    Mask("probabilities", "probabilities", lambda f, x: f(x).softmax(1)),
    Mask("probabilities, temperature 1/10", "probabilities", lambda f, x: (10 * f(x)).softmax(1)),
    Mask("logits rounded to 1", "vanishing", _rounded_logits(1.0)),
    Mask("logits rounded to 100", "vanishing", _rounded_logits(100.0)),
    Mask("one-hot", "vanishing", _one_hot),
    Mask("saturated outputs", "vanishing", _saturated),
    Mask("steep sigmoids on pixels, slope 30", "vanishing", _binarised(30), same=False),
    Mask("steep sigmoids on pixels, slope 300", "vanishing", _binarised(300), same=False),
    Mask("ripple .01, slope 6", "shattered", _rippled(0.01, 600), same=False),
    Mask("ripple .003, slope 30", "shattered", _rippled(0.003, 10000), same=False),
    Mask("saw-tooth, slope −9", "shattered", _shuffled_bits, same=False),
    Mask("half of the gradient cut", "trap", _half_cut(0.5)),
    Mask("nine tenths of the gradient cut", "trap", _half_cut(0.9)),
    Mask("pit of period 1/16", "trap", _pit(3, 1 / 16)),
    Mask("pit of period 1/16, shallow", "trap", _pit(0.5, 1 / 16)),
    Mask("pit of period 1/4", "trap", _pit(3, 1 / 4)),
    Mask("gradient reversed", "trap", _backward(torch.neg)),
    Mask("gradient permuted", "trap", _backward(_permuted)),
    Mask("gradient drowned in noise", "trap", _backward(_drowned)),
    Mask("gradient of a decoy", "trap", _decoy),
    Mask("square root at 0", "not finite", _broken_square_root),
    Mask("confidence of its own", "trap", _own_confidence),
    Mask("noise off the grid", "random", _noisy_off_grid, same=False),
    Mask("noise at inference", "random", _noisy(0.05), same=False),
    Mask("little noise at inference", "random", _noisy(1e-3), same=False),
)
"""Every mask, from the obvious to the sly."""


# ----------------------------------------------------------------- trained


class _Net:
    """A trained module as a classifier."""

    def __init__(self, module: nn.Module, shape: tuple[int, ...], classes: int, name: str) -> None:
        self.module = module.eval().requires_grad_(False)
        self.input_shape, self.classes, self.dtype = shape, classes, torch.float32
        self.device, self.graph = torch.device("cpu"), None
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, classes] of `x`."""
        return self.module(x)  # type: ignore[no-any-return]


class _Winners(nn.Module):
    """k winners take all (Xiao et al. 2020): the largest tenth of the units stays, the others become 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations [B, units]."""
        least = x.topk(max(1, x.shape[1] // 10), dim=1).values[:, -1:]
        return torch.where(x >= least, x, 0)


def winners_take_all(x: Tensor, y: Tensor, seed: int = 0, epochs: int = 30) -> _Net:
    """Return an MLP of discontinuous activations trained on `x` [N, ...] with labels `y`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        width = 1000
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(x[0].numel(), width), _Winners(), nn.Linear(width, width), _Winners(),
            nn.Linear(width, int(y.max()) + 1),
        )  # fmt: skip
        _train(net, x, y, epochs)
    return _Net(net, tuple(x.shape[1:]), int(y.max()) + 1, f"winners take all {seed}")


def _train(net: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
