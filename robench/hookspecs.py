"""The hooks that a plugin may implement, and when each of them runs.

A plugin is a module named by an entry point of the group `robench`. It states `robench_api = 1` and
implements any of these hooks with `@robench.hookimpl`. `robench_modules`, a tuple of module names, lists
further modules with hook implementations; each is loaded, and reported, on its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pluggy import HookimplMarker, HookspecMarker

__all__ = ["API", "Register", "hookimpl"]

API = 1

hookspec = HookspecMarker("robench")
hookimpl = HookimplMarker("robench")


class Register(Protocol):
    """The callback that registration hooks get."""

    def __call__(self, name: str, target: str, *, summary: str = "", default: bool = False, cost: str = "") -> None:
        """Register a factory under `name`.

        `target` is `"module:Class"`, imported at first use. `default` marks what runs when nothing is asked
        for (of several attacks the first that applies; of attack modifiers, what attacks on classifiers that draw
        are put into), `cost="small"` what `-c auto` may run.
        """


@hookspec
def robench_register_datasets(register: Register) -> None:
    """Register datasets (`robench.Dataset`). Runs once, when plugins are loaded."""


@hookspec
def robench_register_transforms(register: Register) -> None:
    """Register dataset transforms (`robench.Transform`). Runs once, when plugins are loaded."""


@hookspec
def robench_register_models(register: Register) -> None:
    """Register sources of classifiers (`robench.Model`). Runs once, when plugins are loaded."""


@hookspec
def robench_register_wrappers(register: Register) -> None:
    """Register classifier wrappers (`robench.Wrapper`). Runs once, when plugins are loaded."""


@hookspec
def robench_register_noises(register: Register) -> None:
    """Register distributions of noise for smoothing (`robench.Noise`). Runs once, when plugins are loaded."""


@hookspec
def robench_register_attacks(register: Register) -> None:
    """Register attacks (`robench.Attack`, `robench.CompositeAttack`). Runs once, when plugins are loaded."""


@hookspec
def robench_register_attack_modifiers(register: Register) -> None:
    """Register attack modifiers (`robench.AttackModifier`). Runs once, when plugins are loaded."""


@hookspec
def robench_register_certifiers(register: Register) -> None:
    """Register certifiers (`robench.Certifier`). Runs once, when plugins are loaded."""


@hookspec
def robench_register_bounds(register: Register) -> None:
    """Register theoretical bounds (`robench.Bound`). Runs once, when plugins are loaded."""


@hookspec
def robench_register_recipes(register: Register) -> None:
    """Register training recipes (`robench.Recipe`). Runs once, when plugins are loaded."""


@hookspec
def robench_register_importers(register: Register) -> None:
    """Register importers of published results (`robench.Importer`). Runs once, when plugins are loaded."""


@hookspec
def robench_run_started(run_id: str, request: Mapping[str, Any]) -> None:
    """A run begins or goes on, before its first sample; `request` is the manifest's request."""


@hookspec
def robench_evidence_written(run_id: str, rows: int) -> None:
    """A part with `rows` rows of evidence is safely on storage."""


@hookspec
def robench_run_finished(run_id: str, summary: Mapping[str, Any]) -> None:
    """A run is complete and its manifest written; `summary` counts `samples` and `errors`."""
