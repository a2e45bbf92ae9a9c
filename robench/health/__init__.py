"""The catalogue of health indicators: what shows that an empirical number rests on gradients that mislead.

An indicator is a figure about one sample with a threshold; it is raised about an evaluation when more than `share` of
the samples, and at least `count` of them, are beyond it. Where a figure comes from is its `origin`:

* `probe`: measured on the sample by an attack, usually `probe`, which puts it into the detail of the row as
  `"health": {code: number}`. Its share is taken of the samples that were looked at or broken: a sample that falls to
  the first steps is looked at no further, and speaks for the gradients that led there. So the share bounds by how much
  the number may be wrong. Samples that are neither do not count.
* `rows`: derived from the evidence of several attacks about the sample by `robench.metrics.health`, 1 where the attacks
  contradict each other. Its share is taken of all samples classified correctly.

Nothing here imports torch.
"""

from robench.health._catalogue import CATALOGUE, LEAST_BACKWARDS
from robench.health._indicator import Grade, Indicator, Origin
from robench.health._readings import beyond, readings

__all__ = ["CATALOGUE", "LEAST_BACKWARDS", "Grade", "Indicator", "Origin", "beyond", "readings"]
