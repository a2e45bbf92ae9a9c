"""What every distribution of noise must do: `check_noise`.

The theorem is held against half-spaces, whose votes are known without it: on the side of the class, the vote changes
where the projection of the noise has its median, and the distance to there is the radius, in every norm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robench.binomial import lower_bound, upper_bound
from robench.contracts import Noise
from robench.params import describe
from robench.streams import Stream
from robench.testing._findings import ALL, Check, Choice, Finding, NotApplicable, Violation, run_checks
from robench.testing._guard import Traces, watch
from robench.threat import NORMS, Norm

__all__ = ["noise_findings"]

Floats = npt.NDArray[np.float64]

_MANY = 200_000
# Of a bound that may be wrong: with a hundred of them, once in a hundred million runs.
_RARE = 1e-10
_DUAL: dict[Norm, float] = {"linf": 1.0, "l2": 2.0, "l1": np.inf}
_SIDES = np.array([0.05, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0])


@dataclass
class NoiseCase:
    """A noise, and how it is asked."""

    noise: Any
    traces: Traces = dataclasses.field(default_factory=Traces)

    @property
    def sigma(self) -> float:
        """What it says is the standard deviation of a coordinate."""
        return float(self.noise.sigma)

    def filled(self, *shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
        """Return bulk draws."""
        out = torch.full(shape, torch.nan, dtype=dtype)
        generator = torch.Generator().manual_seed(seed)
        with watch(self.traces):
            self.noise.fill(out, generator)
        return out

    def drawn(
        self, shape: tuple[int, ...], samples: range = range(1), dtype: torch.dtype = torch.float64, seed: int = 0
    ) -> Tensor:
        """Return one draw per sample, from its stream."""
        with watch(self.traces):
            out = self.noise.draw(Stream.for_samples(seed, "conformance", samples), shape, dtype)
        if not isinstance(out, Tensor) or out.dtype != dtype or tuple(out.shape) != (len(samples), *shape):
            shown = f"{out.dtype} {list(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise Violation(f"draw gave {shown} instead of {dtype} [{len(samples)}, {', '.join(map(str, shape))}]")
        return out

    def radius(self, p_low: npt.ArrayLike, norm: Norm, dimension: int) -> Floats:
        """Return the radii for bounds [K], checked for their shape."""
        p = np.asarray(p_low, dtype=np.float64)
        found = np.asarray(self.noise.radius(p, norm, dimension))
        if found.shape != p.shape or found.dtype != np.float64 or not (found >= 0).all():
            raise Violation(f"{norm}: the radii of {p.tolist()[:4]}… are {found.dtype} {found.tolist()[:4]}…")
        return found

    def each(self) -> Iterator[tuple[Norm, int]]:
        """Yield the norms that it certifies in, with dimensions."""
        for norm in self.noise.norms:
            for dimension in (1, 2, 12, 784):
                yield norm, dimension


def _parameters(case: NoiseCase) -> str:
    if not case.noise.norms or set(case.noise.norms) - set(NORMS):
        raise Violation(f"norms is {case.noise.norms!r}")
    first = next((one for one in describe(type(case.noise)) if one.name == "sigma"), None)
    if first is None or not first.positional or first.default is None:
        raise Violation("the factory has no positional parameter `sigma` with a default")
    for sigma in (0.125, 3.0):
        if (found := dataclasses.replace(case.noise, sigma=sigma).sigma) != sigma:
            raise Violation(f"made with sigma = {sigma}, it says {found}")
    return f"certifies in {' and '.join(case.noise.norms)}"


def _spread(case: NoiseCase) -> str:
    for name, values in (("fill", case.filled(_MANY // 4, 4)), ("draw", case.drawn((_MANY // 4, 4))[0])):
        if not bool(values.isfinite().all()):
            raise Violation(f"{name} gives numbers that are not finite")
        mean, deviation = float(values.mean()), float(values.std())
        if abs(mean) > 0.03 * case.sigma or abs(deviation / case.sigma - 1) > 0.03:
            raise Violation(f"{name} has mean {mean:.4g} and deviation {deviation:.4g}, sigma is {case.sigma:g}")
        together = torch.corrcoef(values.T) - torch.eye(4, dtype=torch.float64)
        if float(together.abs().max()) > 0.05:
            raise Violation(f"{name}: coordinates are correlated by {float(together.abs().max()):.3f}")
    return "mean 0, deviation sigma, coordinates uncorrelated"


def _streams(case: NoiseCase) -> str:
    for dtype in (torch.float32, torch.float64):
        whole = case.drawn((3, 2), range(5), dtype)
        if not torch.equal(whole, case.drawn((3, 2), range(5), dtype)):
            raise Violation("equal streams, different draws")
        alone = torch.cat([case.drawn((3, 2), range(i, i + 1), dtype) for i in range(5)])
        if not torch.equal(whole, alone):
            raise Violation("a sample alone has another draw than in a batch")
    single, double = (case.drawn((3, 2), range(5), dtype) for dtype in (torch.float32, torch.float64))
    if not torch.allclose(single.double(), double, rtol=1e-4, atol=1e-4 * case.sigma):
        raise Violation("float32 and float64 are different draws")
    if torch.equal(case.drawn((8,), seed=1), case.drawn((8,), seed=2)):
        raise Violation("different streams, equal draws")
    return "by their streams alone"


def _generators(case: NoiseCase) -> str:
    for dtype in (torch.float32, torch.float64):
        if not torch.equal(case.filled(64, 3, dtype=dtype), case.filled(64, 3, dtype=dtype)):
            raise Violation("equal generators, different draws")
        if torch.equal(case.filled(64, dtype=dtype), case.filled(64, dtype=dtype, seed=2)):
            raise Violation("different generators, equal draws")
        out = torch.empty(2, 8, dtype=dtype)
        generator = torch.Generator().manual_seed(0)
        case.noise.fill(out[0], generator)
        case.noise.fill(out[1], generator)
        if torch.equal(out[0], out[1]):
            raise Violation("a generator that goes on gives the same draws again")
    return "by their generator alone"


def _random(case: NoiseCase) -> str:
    case.traces = Traces()
    for _ in range(2):
        case.filled(8, 3)
        case.drawn((8, 3))
    case.traces.refuse("random", "fill and draw")
    return "as it was"


def _radii(case: NoiseCase) -> str:
    p = np.concatenate([np.linspace(0, 0.5, 51), np.linspace(0.5, 1, 501)[1:], 1 - np.logspace(-3, -16, 14)])
    p.sort()
    for norm, dimension in case.each():
        found = case.radius(p, norm, dimension)
        if (found[p <= 0.5] > 0).any():
            raise Violation(f"{norm}: a radius of {float(found[p <= 0.5].max()):.4g} where p is at most 1/2")
        if (np.diff(found[np.isfinite(found)]) < 0).any():
            raise Violation(f"{norm}, {dimension} coordinates: the radius falls with p")
        if float(found[np.searchsorted(p, 0.999)]) <= 0:
            raise Violation(f"{norm}: nothing is certified at p = .999")
        if abs(float(case.noise.radius(0.9, norm, dimension)) - float(case.radius([0.9], norm, dimension)[0])) > 0:
            raise Violation(f"{norm}: a number has another radius than in an array")
    return "rising, and 0 up to p = 1/2"


def _thresholds(case: NoiseCase) -> str:
    looked = 0
    for norm, dimension in case.each():
        if not 0.5 <= case.noise.threshold(0.0, norm, dimension) < 0.5 + 1e-9:
            raise Violation(f"{norm}: the threshold of ε = 0 is not 1/2")
        for p in (0.5001, 0.6, 0.84, 0.97, 0.999):
            eps = float(case.radius([p], norm, dimension)[0])
            p0 = float(case.noise.threshold(eps, norm, dimension))
            where = f"{norm}, {dimension} coordinates: the radius at p = {p} is {eps:.9g}, whose threshold is {p0:.9g}"
            if not p * (1 - 1e-6) <= p0 <= p * (1 + 1e-6):
                raise Violation(where)
            # A little above ε must take a higher probability: both are rounded to the safe side.
            more = eps + 1e-6 * case.sigma / dimension
            if not case.noise.threshold(more, norm, dimension) >= p:
                raise Violation(f"{where}, and less is asked for a larger ε")
            looked += 1
    return f"{looked} radii and their thresholds agree"


def _sound(case: NoiseCase) -> str:
    """Half-spaces {z: w·z > 0} and points at w·x = t: class 1 has the probability P(w·noise > −t)."""
    best = 0.0
    for dimension in (1, 4):
        noise = case.filled(_MANY, dimension).numpy()
        directions = [np.eye(dimension)[0], np.ones(dimension), np.linspace(-1, 2, dimension + 1)[1:]]
        for direction in directions:
            projected = np.sort(noise @ direction)
            unit = float(np.linalg.norm(direction)) * case.sigma
            hits = _MANY - np.searchsorted(projected, -_SIDES * unit, side="right")
            # The vote's own boundary is where p = 1/2: the lower end of the median of −w·noise.
            place = int(_MANY * float(upper_bound(_MANY // 2, _MANY, _RARE)))
            edge = float(-projected[min(place, _MANY - 1)])
            low = lower_bound(hits, _MANY, _RARE)
            for norm in case.noise.norms:
                # A hyperplane's distance in a norm is measured by the dual norm of its direction.
                exact = (_SIDES * unit - edge) / float(np.linalg.norm(direction, _DUAL[norm]))
                found = case.radius(low, norm, dimension)
                if (wrong := found > exact).any():
                    i = int(wrong.argmax())
                    raise Violation(
                        f"{norm}: a half-space at distance {float(_SIDES[i] * unit):.4g} has p ≥ {float(low[i]):.5f}, "
                        f"from which {float(found[i]):.4g} is certified; the vote changes within {float(exact[i]):.4g}"
                    )
                best = max(best, float((found[2:] / exact[2:]).max()))
    return f"the largest radius is {best:.3f} of the exact one"


def _device(case: NoiseCase) -> str:
    if not torch.cuda.is_available():
        raise NotApplicable("no CUDA device here")
    device = torch.device("cuda")
    out = torch.empty(10_000, device=device)
    case.noise.fill(out, torch.Generator(device).manual_seed(0))
    drawn = case.noise.draw(Stream.for_samples(0, "conformance", range(1), device), (8,), torch.float64)
    here = case.drawn((8,))
    if abs(float(out.std()) / case.sigma - 1) > 0.1 or not torch.allclose(drawn.cpu(), here, rtol=0, atol=1e-5):
        raise Violation("other draws than on the CPU")
    return "drawn there too"


CHECKS: list[Check[NoiseCase]] = [
    Check("parameters", "`sigma` is positional with a default; norms are known", "`smooth` sets it", _parameters),
    Check(
        "spread",
        "draws of `fill` and `draw` have mean 0 and standard deviation `sigma`, independent coordinates",
        "boards compare noises by sigma",
        _spread,
    ),
    Check(
        "streams", "equal streams give equal draws, in any batch and precision", "a run must be repeatable", _streams
    ),
    Check("generators", "equal generators give equal draws", "counts are drawn again by replay", _generators),
    Check(
        "random state",
        "the global random state is neither used nor set",
        "other code in the process must see what it would have seen",
        _random,
    ),
    Check("radii", "the radius is 0 for p ≤ 1/2 and does not fall with p", "a bound stands for all above it", _radii),
    Check(
        "thresholds",
        "radius and threshold are two sides of one theorem",
        "a decision about ε and a radius must prove the same",
        _thresholds,
    ),
    Check(
        "sound on half-spaces",
        "no radius beyond the distance at which the vote of a half-space changes",
        "a certificate above a misclassified point is false",
        _sound,
    ),
    Check("device", "noise is drawn where the classifier is", "nothing may assume the CPU", _device),
]


def noise_findings(noise: Noise, choice: Choice = ALL) -> list[Finding]:
    """Run every check of noises."""
    return run_checks(CHECKS, NoiseCase(noise), choice)
