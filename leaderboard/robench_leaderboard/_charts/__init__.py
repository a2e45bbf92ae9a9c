"""Charts as inline SVG: drawn by Altair and vl-convert, coloured by the page; the only modules that know either."""

from robench_leaderboard._charts._classes import MOST_CLASSES, ClassBar, class_chart, separation_chart
from robench_leaderboard._charts._curves import LARGEST, ceiling_chart, curve_chart
from robench_leaderboard._charts._scaling import ScaleLine, scaling_chart

__all__ = [
    "LARGEST",
    "MOST_CLASSES",
    "ClassBar",
    "ScaleLine",
    "ceiling_chart",
    "class_chart",
    "curve_chart",
    "scaling_chart",
    "separation_chart",
]
