"""Bounds that must not be believed."""

from dataclasses import dataclass

from robench import Bound, BoundCurve, param


def _curve(values, direction="ceiling"):
    return BoundCurve(values, direction, "samples", assumptions="none", source="nowhere")


@dataclass(frozen=True)
class Rising(Bound):
    """A ceiling that rises with ε."""

    def evaluate(self, samples, norm, epsilons, progress):
        return _curve([0.5 + place / (2 * len(epsilons)) for place in range(len(epsilons))])


@dataclass(frozen=True)
class Nan(Bound):
    """NaN at every ε."""

    def evaluate(self, samples, norm, epsilons, progress):
        return _curve([float("nan")] * len(epsilons))


@dataclass(frozen=True)
class Short(Bound):
    """One value, whatever the number of ε."""

    def evaluate(self, samples, norm, epsilons, progress):
        return _curve([0.5])


@dataclass(frozen=True)
class Words(Bound):
    """A direction that nobody knows."""

    def evaluate(self, samples, norm, epsilons, progress):
        return _curve([0.5] * len(epsilons), direction="sideways")


@dataclass(frozen=True)
class Raises(Bound):
    """Raises after its first step."""

    def evaluate(self, samples, norm, epsilons, progress):
        progress(1, 2)
        raise RuntimeError("the matching went wrong")


@dataclass(frozen=True)
class Low(Bound):
    """The same value on any samples: well formed, and false wherever somebody is above it."""

    value: float = param(0.5, "the ceiling", minimum=0, maximum=1)

    def evaluate(self, samples, norm, epsilons, progress):
        return _curve([self.value] * len(epsilons))
