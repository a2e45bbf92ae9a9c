"""Noises that break their contract: one clear line each, no traceback, no endless search and no certificate."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from oracles.voters import half
from robench.cli import app
from robench.contracts import Noise
from robench.errors import PluginError
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.smoothing import _checked
from robench_plugins.smoothing.certify import Smoothing
from robench_plugins.smoothing.noises import Gaussian, Uniform
from robench_plugins.smoothing.smooth import SmoothedClassifier

SIGMA = 0.5
NAME = "^noise Liar: "


def streams(count):
    return Stream.for_samples(0, "test", range(count))


def liar(made=Gaussian, **methods):
    """A noise that is honest but for these methods."""
    return dataclass(frozen=True)(type("Liar", (made,), methods))(SIGMA)


def vote(noise):
    return SmoothedClassifier(half(), noise, "smooth:sigma=0.5")


def certified(noise, eps=None, **settings):
    x = half().at(0.3, 0.6)
    threat = Threat("l2", eps, Domain.unbounded())
    y = torch.ones(2, dtype=torch.int64)
    return Smoothing(**{"n": 300} | settings).certify(vote(noise), x, y, threat, streams(2))


def refused(ask, *arguments, why, **settings):
    with pytest.raises(PluginError, match=NAME + why) as caught:
        ask(*arguments, **settings)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def gives(value):
    return lambda self, p_low, *_: value(np.asarray(p_low))


def fails(*_):
    raise RuntimeError("this one is\nbroken")


RADII = {
    "an error": (fails, "(two_sided_)?radius failed: RuntimeError: this one is"),
    "a text": (gives(lambda p: "far"), ".*gives str, and must give float64 numbers"),
    "texts": (gives(lambda p: np.full(p.shape, "far")), ".*must give float64"),
    "nothing": (gives(lambda p: None), ".*gives NoneType"),
    "a list": (gives(lambda p: p.tolist()), ".*gives list"),
    "single precision": (gives(lambda p: p.astype(np.float32)), ".*gives float32 numbers"),
    "complex numbers": (gives(lambda p: p + 1j), ".*gives complex128 numbers"),
    "nan": (gives(lambda p: p * np.nan), ".*gives nan at p_low = .*must be from 0 on"),
    "below 0": (gives(lambda p: -p), ".*gives -.*must be from 0 on"),
    "another shape": (gives(lambda p: np.append(p, 0.1)), r".*gives the shape \["),
    "one for all": (gives(lambda p: 0.1), r".*gives the shape \[\]"),
    "infinite": (gives(lambda p: np.where(p > 0.5, np.inf, 0.0)), ".*gives inf at p_low = .*must be finite"),
}


@pytest.mark.parametrize("lie", RADII)
@pytest.mark.parametrize("settings", [{}, {"sides": 2}, {"tolerance": 0.05}])
def test_a_radius_that_is_none(lie, settings):
    method, why = RADII[lie]
    if settings.get("sides") == 2:
        noise = liar(two_sided_radius=lambda self, low, up, *more: method(self, low, *more))
    else:
        noise = liar(radius=method)
    refused(certified, noise, why=why, **settings)
    refused(Smoothing(n=300, **settings).out_of_reach, vote(noise), "l2", 0.5, why=why)


def test_a_radius_below_one_half():
    noise = liar(radius=gives(lambda p: p + 0.0))
    refused(certified, noise, n0=1, n=3, why=r"radius gives 0.1 at p_low = 0.1, which proves nothing")


def test_a_radius_on_two_sides_where_another_class_may_be_ahead():
    noise = liar(two_sided_radius=lambda self, low, up, norm, dimension: low + up)
    refused(certified, noise, sides=2, n=3, why="two_sided_radius gives .*proves nothing")


def test_what_a_method_does_to_its_arguments_is_not_believed():
    def radius(self, p_low, norm, dimension):
        found = Gaussian(SIGMA).radius(p_low, norm, dimension)
        p_low[...] = 1.0
        return found

    honest, other = certified(Gaussian(SIGMA)), certified(liar(radius=radius))
    assert other.detail == honest.detail
    assert other.lower.tolist() == honest.lower.tolist()


@pytest.mark.parametrize("settings", [{}, {"sides": 2}])
def test_radii_of_0_end_the_search_for_the_draws(settings):
    asked = []

    def nothing(self, p_low, *_):
        asked.append(p_low)
        return np.zeros_like(p_low)

    noise = liar(radius=nothing, two_sided_radius=nothing)
    why = Smoothing(n=300, **settings).out_of_reach(vote(noise), "l2", 0.5)
    assert "at most 10000000 are possible" in why
    assert len(asked) < 40


THRESHOLDS = {
    "an error": (fails, "threshold failed: RuntimeError: this one is"),
    "a text": (lambda *_: "high", "threshold gives str at eps = 0.2"),
    "nan": (lambda *_: math.nan, "threshold gives nan"),
    "below one half": (lambda *_: 0.49, "threshold gives 0.49"),
    "above 1": (lambda *_: 1.01, "threshold gives 1.01"),
    "true": (lambda *_: True, "threshold gives True"),
    "single precision": (lambda *_: np.float32(0.9), "threshold gives float32"),
    "an array": (lambda *_: np.array([0.9, 0.9]), "threshold gives ndarray"),
}


@pytest.mark.parametrize("lie", THRESHOLDS)
def test_a_threshold_that_is_none(lie):
    method, why = THRESHOLDS[lie]
    noise = liar(threshold=method)
    refused(certified, noise, 0.2, mode="decide", why=why)
    refused(Smoothing(n=2).out_of_reach, vote(noise), "l2", 0.2, why=why)


def first_row(self, out, generator):
    out[0].normal_(0, SIGMA, generator=generator)


def same_rows(self, out, generator):
    out.copy_(torch.empty_like(out[0]).normal_(0, SIGMA, generator=generator).expand_as(out))


FILLS = {
    "an error": (fails, "fill failed: RuntimeError: this one is"),
    "nothing": (lambda *_: None, "fill leaves numbers"),
    "another tensor": (lambda self, out, generator: torch.randn_like(out), "fill leaves numbers"),
    "one row": (first_row, "fill leaves numbers"),
    "infinite": (lambda self, out, generator: out.fill_(math.inf), "fill leaves numbers"),
    "zeros": (lambda self, out, generator: out.zero_(), "fill draws the same"),
    "one draw for all": (same_rows, "fill draws the same"),
}


@pytest.mark.parametrize("lie", FILLS)
def test_draws_that_are_none(lie):
    method, why = FILLS[lie]
    refused(certified, liar(fill=method), why=why)
    x = half().at(0.3)
    refused(vote(liar(fill=method)).predict, x, streams(1), 0.001, why=why)


@pytest.mark.parametrize(
    ("method", "why"),
    [
        (fails, "draw failed: RuntimeError"),
        (lambda *_: None, "draw gives NoneType"),
        (lambda self, stream, shape, dtype: torch.zeros(shape, dtype=dtype), r"draw gives torch.float64 \[12\]"),
        (lambda self, stream, shape, dtype: torch.zeros(1, *shape, dtype=dtype), r".*\[1, 12\], .* \[2, 12\]"),
        (lambda self, stream, shape, dtype: stream.normal(shape, torch.float32), "draw gives torch.float32"),
    ],
)
def test_a_single_draw_that_is_none(method, why):
    refused(vote(liar(draw=method)).sample, half().at(0.3, 0.6), streams(2), why=why)


def test_few_draws_in_one_dimension_may_be_the_same():
    """A coin's: no draw of an honest noise is called a lie."""

    def coin(self, out, generator):
        out.bernoulli_(0.5, generator=generator).mul_(2 * SIGMA).sub_(SIGMA)

    classifier = SmoothedClassifier(half(1), liar(fill=coin), "smooth:sigma=0.5")
    for seed in range(20):
        votes = classifier.draws(half(1).at(3.0), Stream.for_samples(seed, "test", [0])).count([0], [2])
        assert votes[0, 1] == 2


@pytest.mark.parametrize("noise", [Gaussian(SIGMA), Uniform(SIGMA)])
def test_honest_noises_stay_as_they_are(noise):
    assert isinstance(noise, Noise)
    p = np.array([0.0, 0.3, 0.5, math.nextafter(0.5, 1.0), 0.9, math.nextafter(1.0, 0.0), 1.0])
    norm = noise.norms[0]
    assert (_checked.radius(noise, p, norm, 3) == noise.radius(p, norm, 3)).all()
    assert _checked.threshold(noise, 0.1, norm, 3) == noise.threshold(0.1, norm, 3)
    if isinstance(noise, Gaussian):
        low, up = (grid.ravel() for grid in np.meshgrid(p, p))
        assert (_checked.two_sided_radius(noise, low, up, "l2", 3) == noise.two_sided_radius(low, up, "l2", 3)).all()


LIARS = """
from dataclasses import dataclass
from robench import hookimpl
from robench_plugins.smoothing.noises import Gaussian
robench_api = 1

@hookimpl
def robench_register_noises(register):
    register("far", f"{__name__}:Far")
    register("silent", f"{__name__}:Silent")

@dataclass(frozen=True)
class Far(Gaussian):
    def radius(self, p_low, norm, dimension):
        return "far"

@dataclass(frozen=True)
class Silent(Gaussian):
    def fill(self, out, generator):
        pass
"""


@pytest.mark.parametrize(
    ("noise", "why"), [("far", "noise Far: radius gives str"), ("silent", "noise Silent: fill leaves numbers")]
)
def test_the_command_line_tells_it_in_one_line(site, tmp_path, noise, why):
    site.write("robench-t-liars", LIARS)
    site.load()
    words = ["eval", "-m", "digits-gaussian", "-d", "digits | subset:n=2", "--norm", "l2", "--eps", "0.25", "-a",
             "none", "-c", f"smoothing:n=300,noise={noise},sigma=0.25", "--out", str(tmp_path / "out")]  # fmt: skip
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 2, shown.output
    assert why in shown.stderr
    assert "Traceback" not in shown.output
