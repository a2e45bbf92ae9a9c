"""Data scaling: one recipe on nested subsets of a training set, and the law of its accuracies.

<dataset>/_scale/<recipe>/<run>/manifest.json    which trainings belong together; figures follow from their evidence
"""

from robench.scaling._curves import QUANTITIES, Curve, ScaleCurves, curves_of
from robench.scaling._law import Gain, Law, Level, Needed, law
from robench.scaling._neighbours import Nearness, intrinsic_dimension, median_distances
from robench.scaling._perform import Failure, evaluations, record, train_members
from robench.scaling._plan import Compute, Member, Plan, make_plan
from robench.scaling._published import Published, published_for
from robench.scaling._record import Distance, Scale, ScaleManifest, ScaleMember, find_scales
from robench.scaling._sizes import parse_sizes
from robench.scaling._stick import Bend, Slope, find_bend

__all__ = [
    "QUANTITIES",
    "Bend",
    "Compute",
    "Curve",
    "Distance",
    "Failure",
    "Gain",
    "Law",
    "Level",
    "Member",
    "Nearness",
    "Needed",
    "Plan",
    "Published",
    "Scale",
    "ScaleCurves",
    "ScaleManifest",
    "ScaleMember",
    "Slope",
    "curves_of",
    "evaluations",
    "find_bend",
    "find_scales",
    "intrinsic_dimension",
    "law",
    "make_plan",
    "median_distances",
    "parse_sizes",
    "published_for",
    "record",
    "train_members",
]
