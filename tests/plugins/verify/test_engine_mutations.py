"""The checks see the mistakes that bound propagation makes: each, put in on purpose, is caught.

A pattern that is not in the source any more fails: adapt it with the code.
"""

import pytest
import torch

from oracles.engine_mutations import MUTATIONS, Mutation
from oracles.linear_bounds import complaint, random_case
from oracles.mutants import mutate
from oracles.rounding import FAMILIES, traps
from robench.threat import Domain, Threat
from robench_plugins.verify._engine import bounds, region, relax, slopes
from robench_plugins.verify._engine.backward import lower_bounds
from robench_plugins.verify._forms import label_forms


def caught(one: Mutation, seeds: int = 24) -> str | None:
    """Return the first complaint, None where every check passes."""
    if one.rounding:
        return _trapped(one.rounding)
    names = [name.replace("\xa0", " ") for name in one.steps.split(" ")]
    for seed in range(seeds):
        try:
            found = complaint(random_case(seed, names, shape=one.shape))
        except (RuntimeError, IndexError, TypeError, AssertionError) as error:  # shapes that do not fit any more
            found = f"{type(error).__name__}: {error}"
        if found:
            return found
    return None


def _trapped(name: str) -> str | None:
    for graph, x, _ in traps(name, 24):
        here = region.region_of(x[None], Threat("linf", 0.0, Domain.unbounded()))
        known = bounds.bounded(graph, here, "crown")
        rows = label_forms(torch.tensor([0]), 2).rows(known.program.last)
        claimed = lower_bounds(known.program, here, known.lines, rows, errors=known.errors).bound.item()
        if claimed > 0:
            return f"claimed {claimed}"
    return None


def test_without_a_mutation_nothing_is_found():
    for steps_ in sorted({one.steps for one in MUTATIONS.values()}):
        assert caught(Mutation(relax.relax, "", "", steps_), seeds=2) is None
    for name in FAMILIES:
        assert _trapped(name) is None


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_is_seen(name, monkeypatch):
    one = MUTATIONS[name]
    mutate(monkeypatch, one.function, one.old, one.new)
    assert caught(one) is not None


def test_slopes_that_are_not_kept_at_their_best_are_seen(monkeypatch):
    """Not unsound, but worse than CROWN's own: the promise of alpha-CROWN."""
    mutate(monkeypatch, slopes.optimise, "(value > top[alive])", "(value < top[alive])")
    assert caught(Mutation(slopes.optimise, "", "", "linear relu linear leaky_relu linear relu"), seeds=60) is not None
