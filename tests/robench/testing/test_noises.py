"""Noises that do not keep their word are caught, each by the check that is about its lie."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri

from robench import Noise, param
from robench.testing import ConformanceError, check_noise, check_plugin

TRUE = 1 - 1e-12


@dataclass(frozen=True)
class Normal(Noise):
    """Normal noise, as a third party might write it."""

    sigma: float = param(0.25, "standard deviation", positional=True, above=0)

    norms: ClassVar = ("l2",)

    def fill(self, out, generator):
        out.normal_(0.0, self.sigma, generator=generator)

    def draw(self, stream, shape, dtype):
        return stream.normal(shape, dtype) * self.sigma

    def radius(self, p_low, norm, dimension):
        p = np.asarray(p_low, dtype=np.float64)
        return np.where(p > 0.5, self.sigma * ndtri(np.maximum(p, 0.5)) * TRUE, 0.0)

    def threshold(self, eps, norm, dimension):
        return min(float(ndtr(eps / self.sigma)) / TRUE, 1.0) if eps else 0.5


class TooFar(Normal):
    """Consistent, and a tenth too far."""

    def radius(self, p_low, norm, dimension):
        return 1.1 * super().radius(p_low, norm, dimension)

    def threshold(self, eps, norm, dimension):
        return super().threshold(eps / 1.1, norm, dimension)


class Farther(Normal):
    """The l2 radius, said of linf."""

    norms: ClassVar = ("linf",)


class Skewed(Normal):
    """Exponential noise with mean 0, whose median is elsewhere, and the theorem of the normal one."""

    def fill(self, out, generator):
        out.exponential_(1 / self.sigma, generator=generator).sub_(self.sigma)

    def draw(self, stream, shape, dtype):
        return (-torch.log1p(-stream.uniform(shape, dtype=torch.float64)) - 1).mul(self.sigma).to(dtype)


class Apart(Normal):
    """A threshold that its radius does not reach."""

    def threshold(self, eps, norm, dimension):
        return super().threshold(0.99 * eps, norm, dimension)


class Wide(Normal):
    def fill(self, out, generator):
        out.normal_(0.0, 1.1 * self.sigma, generator=generator)


class Narrow(Normal):
    def draw(self, stream, shape, dtype):
        return stream.normal(shape, dtype) * self.sigma * 0.9


class Moved(Normal):
    def fill(self, out, generator):
        out.normal_(0.1 * self.sigma, self.sigma, generator=generator)


class Together(Normal):
    def fill(self, out, generator):
        super().fill(out, generator)
        if out.ndim > 1:
            out.copy_(out[:, :1].clone().expand_as(out))


class Eager(Normal):
    def radius(self, p_low, norm, dimension):
        return super().radius(np.minimum(np.asarray(p_low) + 0.01, 1.0), norm, dimension)


class Falling(Normal):
    def radius(self, p_low, norm, dimension):
        return np.where(np.asarray(p_low) > 0.99, 0.01, super().radius(p_low, norm, dimension))


class Stuck(Normal):
    def fill(self, out, generator):
        super().fill(out, torch.Generator().manual_seed(7))


class Global(Normal):
    def fill(self, out, generator):
        out.copy_(torch.randn(out.shape, dtype=out.dtype) * self.sigma)


class Batchwise(Normal):
    def draw(self, stream, shape, dtype):
        return super().draw(stream, shape, dtype).roll(1, 0)


class Precise(Normal):
    def draw(self, stream, shape, dtype):
        return super().draw(stream.child(str(dtype)), shape, dtype)


class Rounded(Normal):
    def draw(self, stream, shape, dtype):
        return super().draw(stream, shape, torch.float32)


@dataclass(frozen=True)
class Keyword(Normal):
    sigma: float = param(0.25, "standard deviation", above=0)


LIES = {
    TooFar: "sound on half-spaces",
    Farther: "sound on half-spaces",
    Skewed: "sound on half-spaces",
    Apart: "thresholds",
    Wide: "spread",
    Narrow: "spread",
    Moved: "spread",
    Together: "spread",
    Eager: "radii",
    Falling: "radii",
    Stuck: "generators",
    Global: "random state",
    Batchwise: "streams",
    Precise: "streams",
    Rounded: "spread",
    Keyword: "parameters",
}


def test_an_honest_noise_conforms():
    findings = check_noise(Normal())
    assert {one.check for one in findings if one.outcome == "skipped"} <= {"device"}


def test_any_scale_conforms():
    for sigma in (1e-3, 40.0):
        check_noise(replace(Normal(), sigma=sigma), skip=["streams", "generators", "random state", "parameters"])


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_caught_by_its_check(lie):
    (finding,) = [one for one in check_plugin("noises", lie(), only=[LIES[lie]]) if one.check == LIES[lie]]
    assert finding.outcome == "failed", str(finding)


def test_the_message_says_where():
    with pytest.raises(ConformanceError, match=r"a half-space at distance .* is certified; the vote changes within"):
        check_noise(TooFar(), skip=["spread"])
