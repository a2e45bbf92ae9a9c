"""Factories that fail, each in its own way."""

from dataclasses import dataclass

from robench import Attack, Proposal, param


class _Idle(Attack):
    def perturb(self, classifier, x, y, threat, stream):
        return Proposal(x)


@dataclass(frozen=True)
class Raises(_Idle):
    def __post_init__(self):
        raise RuntimeError("no licence\nfound")


@dataclass(frozen=True)
class Exits(_Idle):
    def __post_init__(self):
        raise SystemExit(0)


@dataclass(frozen=True)
class Refuses(_Idle):
    steps: int = param(3, "an even number")

    def __post_init__(self):
        if self.steps % 2:
            raise ValueError(f"steps={self.steps} is odd: give an even number")


@dataclass
class Thawed(_Idle):
    pass


class Plain(_Idle):
    pass


@dataclass(frozen=True)
class Untyped(_Idle):
    options: dict = param(..., "a type that no spec can hold")


@dataclass(frozen=True)
class Empty:
    """A dataclass, but no attack."""
