"""What a scaling curve is made of: a training on each size with each seed, of equal compute."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from robench.errors import InputError
from robench.loading import Data, load_data
from robench.params import canonical
from robench.registry import Resolved, load_plugins
from robench.runs import slug
from robench.scaling._sizes import parse_sizes
from robench.spec import parse

__all__ = ["Compute", "Member", "Plan", "make_plan"]

Compute = Literal["steps", "epochs"]


@dataclass(frozen=True)
class Member:
    """One training: `recipe` with `seed` on the `n` samples of `dataset`, `epochs` long, kept in `folder`.

    `epochs` is None where the recipe does not tell how long it trains. `shown` is the dataset without the places of
    files.
    """

    n: int
    seed: int
    epochs: int | None
    recipe: str
    dataset: str
    shown: str
    folder: Path


@dataclass(frozen=True)
class Plan:
    """A checked request. `train` is the whole training set, `dataset` its spec as written."""

    recipe: Resolved
    dataset: str
    train: Data
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    compute: Compute
    members: tuple[Member, ...]


def make_plan(recipe: str, dataset: str, sizes: str, seeds: Sequence[int], compute: Compute, models: Path) -> Plan:
    """Lay out the trainings of a curve, the smallest sizes first.

    Subsets are nested: those of one seed contain each other (`subset:n=…,seed=…`). With `compute="steps"` every
    training takes as many steps as the recipe takes at the largest size: where n is k times smaller there are about k
    times as many epochs (Prach & Lampert 2025, section 4). `epochs` leaves the recipe as it is. Raises InputError.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError("give one seed or several different ones")
    plugins = load_plugins()
    chosen = plugins.resolve("recipes", recipe)
    if any(spec.name.rpartition("/")[2] == "subset" for spec in parse(dataset).specs[1:]):
        raise InputError(f"{dataset} is a subset already: scale takes the subsets itself, from --sizes")
    train = load_data(plugins.resolve("datasets", dataset), "train")
    found = parse_sizes(sizes, len(train.samples))
    members = []
    for n in found:
        length, text = _recipe(chosen, n, found[-1], compute)
        digest = hashlib.sha256(f"{text}\n{train.hash}\n{train.samples_hash}".encode()).hexdigest()
        for seed in seeds:
            folder = models / slug(chosen.canonical) / f"n{n}-seed{seed}-{digest[:8]}"
            subset = f" | subset:n={n},seed={seed}"
            members.append(Member(n, seed, length, text, dataset + subset, train.described + subset, folder))
    return Plan(chosen, dataset, train, found, tuple(seeds), compute, tuple(members))


def _recipe(recipe: Resolved, n: int, largest: int, compute: Compute) -> tuple[int | None, str]:
    """Return the recipe's length in epochs on `n` samples, and its spec."""
    value: Any = recipe.value
    epochs, batch = getattr(value, "epochs", None), getattr(value, "batch", None)
    if compute == "epochs":
        return (epochs if isinstance(epochs, int) else None), recipe.canonical
    if not (isinstance(epochs, int) and isinstance(batch, int) and dataclasses.is_dataclass(value)):
        raise InputError(
            f"{recipe.canonical} has no parameters epochs and batch, so that equal compute cannot be told: "
            "add --compute epochs"
        )
    length = max(1, round(epochs * -(-largest // batch) / -(-n // batch)))
    try:
        longer = dataclasses.replace(value, epochs=length)  # type: ignore[type-var]
    except ValueError as error:
        raise InputError(f"{recipe.canonical} on {n} samples for {length} epochs: {error}") from None
    return length, canonical(longer, recipe.canonical.partition(":")[0])
