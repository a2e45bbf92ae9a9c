"""From evidence to figures: merged radii, brackets with intervals, curves, attribution, paired comparisons."""

from __future__ import annotations

from robench.metrics._beyond import Beyond, beyond
from robench.metrics._chance import LEAST_CONFIDENCE, ByChance, claims, contradictions_by_chance
from robench.metrics._compare import above, certified_at, contradicts, falsified_at, searched_at, within
from robench.metrics._curves import Curve, curve
from robench.metrics._evaluators import EvaluatorCounts, attribution, evaluator_table
from robench.metrics._flags import BLOCKING, Flag
from robench.metrics._gaps import Gap, SeedGap, gaps, seed_gaps
from robench.metrics._health import Health, Measured, health
from robench.metrics._intervals import Interval, clopper_pearson, student_mean, welch
from robench.metrics._norms import carried_lower
from robench.metrics._paired import Comparison, holm, mcnemar, rank_ranges
from robench.metrics._per_class import SIDES, ClassBracket, Classes, Side, Worst, per_class
from robench.metrics._radii import Radii
from robench.metrics._random import Expected, RandomResult, counted_draws, random_results
from robench.metrics._regions import GIVEN, in_units, region_kind
from robench.metrics._statement import RHO, DatasetStatement, dataset_statement, most_by_chance
from robench.metrics._subject import RunLike, Subject, subjects
from robench.metrics._summary import LEVEL, Result, Share, in_order, result_at, results, summarise

__all__ = [
    "BLOCKING",
    "GIVEN",
    "LEAST_CONFIDENCE",
    "LEVEL",
    "RHO",
    "SIDES",
    "Beyond",
    "ByChance",
    "ClassBracket",
    "Classes",
    "Comparison",
    "Curve",
    "DatasetStatement",
    "EvaluatorCounts",
    "Expected",
    "Flag",
    "Gap",
    "Health",
    "Interval",
    "Measured",
    "Radii",
    "RandomResult",
    "Result",
    "RunLike",
    "SeedGap",
    "Share",
    "Side",
    "Subject",
    "Worst",
    "above",
    "attribution",
    "beyond",
    "carried_lower",
    "certified_at",
    "claims",
    "clopper_pearson",
    "contradictions_by_chance",
    "contradicts",
    "counted_draws",
    "curve",
    "dataset_statement",
    "evaluator_table",
    "falsified_at",
    "gaps",
    "health",
    "holm",
    "in_order",
    "in_units",
    "mcnemar",
    "most_by_chance",
    "per_class",
    "random_results",
    "rank_ranges",
    "region_kind",
    "result_at",
    "results",
    "searched_at",
    "seed_gaps",
    "student_mean",
    "subjects",
    "summarise",
    "welch",
    "within",
]
