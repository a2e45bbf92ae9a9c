"""Threat models: norm, exact ε and the domain that perturbed points must stay in."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

from robench.errors import InputError

if TYPE_CHECKING:
    import torch

    from robench.regions import Region

__all__ = ["NORMS", "Domain", "Epsilon", "Norm", "Threat", "parse_norm"]

Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[Norm, ...] = get_args(Norm)
_NUMBER = re.compile(r"[+-]?([0-9]+(/[0-9]+)?|([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?)")


def parse_norm(text: str) -> Norm:
    """Return `text` as a norm. Raises InputError for anything but linf, l2, l1."""
    for norm in NORMS:
        if text == norm:
            return norm
    raise InputError(f"unknown norm {text!r}: choose one of {', '.join(NORMS)}")


@dataclass(frozen=True, order=True)
class Epsilon:
    """A perturbation budget, kept exactly as it was given.

    `8/255` stays the rational number 8/255 and the text "8/255"; `value` is the double next to it,
    the only form in which budgets are compared with distances.
    """

    exact: Fraction
    text: str

    @classmethod
    def parse(cls, text: str | float | Epsilon) -> Epsilon:
        """Parse `8/255`, `0.3`, `1e-2` or a float. Raises InputError unless positive and finite."""
        if isinstance(text, Epsilon):
            return text
        shown = repr(text) if isinstance(text, float) else str(text).strip()
        if len(shown) > 64:
            raise InputError(f"ε {shown[:20]!r}… is too long: write it like 8/255 or 0.3")
        # Before Fraction sees it: it would compute 10**n for 1e999999999, and reads 1_000.
        if _NUMBER.fullmatch(shown) is None:
            raise InputError(f"ε {shown!r} is not a number: write it like 8/255 or 0.3")
        try:
            exact = Fraction(shown)
            value = float(exact)
        except (ValueError, ZeroDivisionError, OverflowError):
            raise InputError(f"ε {shown!r} is not a number: write it like 8/255 or 0.3") from None
        if not (value > 0 and math.isfinite(value)):
            raise InputError(f"ε {shown!r} must be greater than 0 and finite")
        return cls(exact, shown)

    @property
    def value(self) -> float:
        """The double nearest to the exact value."""
        return float(self.exact)

    def __str__(self) -> str:
        """The text as it was given."""
        return self.text


@dataclass(frozen=True)
class Domain:
    """The box that inputs live in: `[0, 1]` for images, ±inf on an unbounded side."""

    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an empty box."""
        if math.isnan(self.lower) or math.isnan(self.upper) or self.lower >= self.upper:
            raise InputError(f"domain [{self.lower}, {self.upper}] is empty: lower must be below upper")

    @classmethod
    def unbounded(cls) -> Domain:
        """The whole space."""
        return cls(-math.inf, math.inf)

    @property
    def bounded(self) -> bool:
        """Whether any side is finite."""
        return math.isfinite(self.lower) or math.isfinite(self.upper)

    def box(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the bounds (lower, upper), shaped and typed like `x` [B, ...].

        Rounded into the domain in `x`'s dtype, and widened to hold `x` itself, which a cast may
        have moved out by one rounding.
        """
        import torch

        def side(value: float, inward: float) -> torch.Tensor:
            bound = torch.tensor(value, dtype=x.dtype, device=x.device)
            if bound.double().item() * inward < value * inward:
                bound = torch.nextafter(bound, torch.full_like(bound, inward * math.inf))
            return bound

        return torch.minimum(x, side(self.lower, 1.0)), torch.maximum(x, side(self.upper, -1.0))


@dataclass(frozen=True)
class Threat:
    """What an attacker may do: move within `eps` in `norm` and inside the domain.

    `eps` is a double in the domain's units; None asks for the smallest perturbation
    (minimum-norm attacks) or for a radius (certifiers that give one). `region` holds the batch's own sets
    where they came with the data: boxes within the linf balls of radius `eps`, which is the least such radius but for
    rounding up.
    """

    norm: Norm
    eps: float | None
    domain: Domain
    region: Region | None = None

    def select(self, rows: torch.Tensor) -> Threat:
        """Return the threat to some samples of the batch: a bool mask or int64 positions."""
        return self if self.region is None else replace(self, region=self.region.select(rows))
