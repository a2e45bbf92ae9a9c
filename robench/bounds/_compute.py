"""A bound computed and stored: the spec, the samples, the plugin's answer checked, two files."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

import robench
from robench.bounds._answer import answer_problem, facts_in, rows_of
from robench.bounds._find import FOLDER, find_bounds
from robench.bounds._manifest import MOST_EPSILONS, BoundManifest
from robench.bounds._run import MANIFEST, ROWS, BoundRun
from robench.bounds._table import to_parquet
from robench.contracts import Bound, BoundCurve
from robench.errors import InputError, PluginError, RobenchError
from robench.fields import first_problem
from robench.folders import check
from robench.runs import Component, Environment, folder_name, git_state, new_run_id, open_results, slug
from robench.storage import LocalStorage
from robench.text import one_line
from robench.threat import Epsilon, Norm, parse_norm

if TYPE_CHECKING:
    from robench.loading import Data

__all__ = ["compute", "find_computed"]

Progress = Callable[[int, int], None]


def compute(
    bound: str | Bound,
    dataset: Any,
    *,
    norm: str,
    eps: str | float | Epsilon | Sequence[str | float | Epsilon],
    samples: str | None = None,
    split: str = "test",
    out: str | Path = "results",
    resume: bool = False,
    progress: Progress | None = None,
    search: Sequence[Path] = (Path(),),
) -> BoundRun:
    """Compute a theoretical bound on the samples of a dataset and store it in the results folder `out`.

    Args:
        bound: a bound's spec, or an object with `evaluate`.
        dataset: a dataset spec, `Samples`, a dataset object, or a pair (x [N, ...] in [0, 1], y [N]).
        norm: `linf`, `l2` or `l1`.
        eps: one budget or several, in the domain's units; `"8/255"` is kept exactly.
        samples: positions `A:B` after selection. A ceiling holds for exactly the samples that it was computed on.
        split: the dataset's split.
        out: results folder.
        resume: return an equal bound that was computed before, if there is one.
        progress: called with (steps done, steps) during long work.
        search: folders in which files written as `name@sha256:…` are looked for.

    Returns:
        The bound as it lies in `out`.

    Raises:
        InputError: bad input; nothing was written.
        PluginError: the bound failed, or answered what no bound can be.
    """
    draft, value, who = _asked(bound, dataset, norm, eps, samples, split, search)
    target, begun = Path(out), Path(out).absolute()
    check(target, "results")  # before the work, not after it
    known = draft.computed_before(out) if resume else None
    if known is not None:
        return known
    curve = _evaluate(value, who, draft, progress or (lambda done, steps: None))
    # The bound may have changed the working folder.
    return draft.store(open_results(target if target.absolute() == begun else begun), curve)


def find_computed(
    bound: str | Bound,
    dataset: Any,
    *,
    norm: str,
    eps: str | float | Epsilon | Sequence[str | float | Epsilon],
    samples: str | None = None,
    split: str = "test",
    out: str | Path = "results",
    search: Sequence[Path] = (Path(),),
) -> BoundRun | None:
    """Return what `compute` with `resume` would find in `out`: the newest equal bound, None where it would compute.

    Arguments as of `compute`. Raises InputError.
    """
    return _asked(bound, dataset, norm, eps, samples, split, search)[0].computed_before(out)


def _asked(
    bound: str | Bound, dataset: Any, norm: str, eps: Any, samples: str | None, split: str, search: Sequence[Path]
) -> tuple[_Draft, Bound, str]:
    """Return the request, checked, the bound, and how messages call it."""
    from robench import registry

    parsed = parse_norm(norm)
    given = [eps] if isinstance(eps, (str, int, float, Epsilon)) else list(eps)
    epsilons = tuple(sorted({Epsilon.parse(one).value: Epsilon.parse(one) for one in given}.values()))
    if not epsilons:
        raise InputError("no ε given: add --eps, for example --eps 8/255")
    if len(epsilons) > MOST_EPSILONS:
        raise InputError(f"{len(epsilons)} different ε: a bound is stored at up to {MOST_EPSILONS}")
    value, component, who = _bound(registry.load_plugins(), bound, search)
    data = _data(dataset, split, samples, search)
    if not len(data.samples):
        raise InputError(f"{data.canonical} holds no samples in split {data.split!r}")
    return _Draft(component, data, parsed, epsilons, samples), value, who


def _bound(plugins: Any, bound: str | Bound, search: Sequence[Path]) -> tuple[Bound, Component, str]:
    """Return the bound, what the manifest says about it, and how messages call it."""
    from robench.loading import plugin_infos, python_name

    if isinstance(bound, str):
        resolved = plugins.resolve("bounds", bound, search=search)
        component = Component(canonical=resolved.canonical, full=resolved.full, plugins=plugin_infos(resolved.parts))
        (part,) = resolved.parts
        return resolved.value, component, f"bound {part.name!r} of {part.distribution} {part.version}"
    name = python_name(bound)
    if not callable(getattr(bound, "evaluate", None)):
        raise InputError(f"a {type(bound).__name__} is no bound: give a spec or an object with evaluate")
    return bound, Component(canonical=name, full=name), name


def _data(dataset: Any, split: str, rows: str | None, search: Sequence[Path]) -> Data:
    from robench.loading import given_data, load_data
    from robench.registry import load_plugins

    if not isinstance(dataset, str):
        return given_data(dataset, split, rows)
    return load_data(load_plugins().resolve("datasets", dataset, search=search), split, rows)


def _evaluate(bound: Bound, who: str, draft: _Draft, progress: Progress) -> BoundCurve:
    data, norm, epsilons = draft.data, draft.norm, [eps.value for eps in draft.epsilons]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            curve = bound.evaluate(data.samples, norm, epsilons, progress)
    except (RobenchError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginError(who, f"failed on {data.canonical} in {norm}: {one_line(error)}") from error
    if problem := answer_problem(curve, len(epsilons)):
        raise PluginError(who, problem)
    return curve


class _Draft:
    """A bound that is asked for: everything of its manifest but the answer."""

    def __init__(
        self, bound: Component, data: Data, norm: Norm, epsilons: tuple[Epsilon, ...], rows: str | None
    ) -> None:
        self.bound, self.data, self.norm, self.epsilons, self.rows = bound, data, norm, epsilons, rows
        self.started = datetime.now(UTC)
        self.versions = {"robench": robench.__version__}
        self.versions.update({plugin.distribution: plugin.version for plugin in bound.plugins})
        try:
            self.dataset = data.info
        except ValidationError as error:
            raise InputError(f"{data.canonical} cannot be described: {first_problem(error)}") from None
        self.folder = f"{folder_name(data.canonical, data.hash)}/{FOLDER}"

    def computed_before(self, out: str | Path) -> BoundRun | None:
        """Return the newest equal bound in `out`: the same request by the same major versions."""
        results = LocalStorage(out)
        runs: list[BoundRun] = []
        for folder in results.list():  # a dataset's folder may have another name
            if folder.endswith(f"-{self.data.hash[:8]}/"):
                runs += find_bounds(results.at(f"{folder}{FOLDER}"), lambda problem: None)
        equal = [run for run in runs if self._asks(run.manifest)]
        return max(equal, key=lambda run: run.manifest.run, default=None)

    def _asks(self, found: BoundManifest) -> bool:
        """Whether a manifest answers the same request."""
        mine, known = self.dataset, found.dataset
        return (
            self.bound.full == found.bound.full
            and self.bound.plugins != ()  # of an object from Python, nobody can tell whether it is the same
            and (mine.hash, mine.split, mine.samples_hash) == (known.hash, known.split, known.samples_hash)
            and self.norm == found.norm
            and [eps.value for eps in self.epsilons] == [eps.value for eps in found.epsilons]
            and _majors(self.versions)
            == _majors({name: found.environment.versions.get(name, "") for name in self.versions})
        )

    def store(self, results: LocalStorage, curve: BoundCurve) -> BoundRun:
        """Put the rows, then the manifest that makes them count."""
        rows = rows_of(curve, self.norm, self.epsilons, self.data.samples_hash)
        table = to_parquet(rows)
        run = new_run_id(self.started)
        place = f"{self.folder}/{slug(self.bound.canonical)}"
        while results.exists(f"{place}/{run}"):
            run = new_run_id(self.started)
        manifest = BoundManifest(
            run=run,
            bound=self.bound,
            dataset=self.dataset,
            norm=self.norm,
            eps=tuple(eps.text for eps in self.epsilons),
            environment=Environment(
                device=f"cpu ({platform.machine()})",
                versions={**self.versions, "python": platform.python_version(), "numpy": np.__version__},
                git=git_state(),
            ),
            started=self.started,
            finished=datetime.now(UTC),
            command=self._command(),
            facts=facts_in(curve.facts),
            sha256=hashlib.sha256(table).hexdigest(),
        )
        storage = results.at(f"{place}/{run}")
        storage.put(ROWS, table)
        storage.put(MANIFEST, manifest.to_json())
        return BoundRun(manifest, rows, storage.locate())

    def _command(self) -> str:
        words = ["robench", "bound", self.bound.canonical, "-d", self.data.described]
        words += ["--norm", self.norm, *(word for eps in self.epsilons for word in ("--eps", eps.text))]
        if self.rows:
            words += ["--samples", self.rows]
        if self.data.split != "test":
            words += ["--split", self.data.split]
        return shlex.join(words)


def _majors(versions: Mapping[str, str]) -> dict[str, str]:
    return {name: version.split(".")[0] for name, version in versions.items()}
