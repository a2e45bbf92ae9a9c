"""Suites: a matrix of models, datasets, threats and evaluators in a TOML file, run as one resumable piece of work."""

from robench.suite._cells import BoundCell, Cell, Suite
from robench.suite._load import load_suite, make_suite, parse_suite
from robench.suite._perform import Outcome
from robench.suite._plan import Planned, plan_suite
from robench.suite._run import SuiteOutcome, run_suite
from robench.suite._workers import cores

__all__ = [
    "BoundCell",
    "Cell",
    "Outcome",
    "Planned",
    "Suite",
    "SuiteOutcome",
    "cores",
    "load_suite",
    "make_suite",
    "parse_suite",
    "plan_suite",
    "run_suite",
]
