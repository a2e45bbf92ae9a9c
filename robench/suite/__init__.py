"""Suites: a matrix of models, datasets, threats and evaluators in a TOML file, run as one resumable piece of work."""

from robench.suite._cells import BoundCell, Cell, Suite
from robench.suite._load import load_suite, parse_suite
from robench.suite._plan import Planned, plan_suite
from robench.suite._run import Outcome, SuiteOutcome, run_suite

__all__ = [
    "BoundCell",
    "Cell",
    "Outcome",
    "Planned",
    "Suite",
    "SuiteOutcome",
    "load_suite",
    "parse_suite",
    "plan_suite",
    "run_suite",
]
