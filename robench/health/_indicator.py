"""What an indicator is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Grade", "Indicator", "Origin"]

Origin = Literal["probe", "rows"]
"""Who measures an indicator: an attack, sample by sample, or the metrics, from the rows of several attacks."""

Grade = Literal["clean", "flagged", "unprobed"]
"""Probed and nothing raised; something raised; nobody looked."""


@dataclass(frozen=True)
class Indicator:
    """One thing that can be wrong with the ground under an attack.

    Attributes:
        code: its name in details, documents and pages.
        origin: who measures it (`Origin`).
        measures: the figure about one sample, with its unit.
        threshold: where the figure becomes a bad sign.
        share: the indicator is raised when more than this share of the samples is beyond the threshold …
        source: where indicator and threshold come from.
        text: what a raised indicator says, a clause for people: "…, on 12.0 % of 500 samples" follows.
        direction: `above` or `below`: on which side of the threshold the bad sign lies (at the threshold: none).
        count: … and at least this many samples are.
        decides: whether raising it makes the grade `flagged`; the others are only shown.
    """

    code: str
    origin: Origin
    measures: str
    threshold: float
    share: float
    source: str
    text: str
    direction: Literal["above", "below"] = "above"
    count: int = 1
    decides: bool = True

    def beyond(self, value: float) -> bool:
        """Whether a sample's figure is a bad sign; NaN is none."""
        return value > self.threshold if self.direction == "above" else value < self.threshold
