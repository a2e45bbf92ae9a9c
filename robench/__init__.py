"""robench: adversarial robustness, per sample and from both sides.

Everything here is imported at first use, so that `import robench` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Access",
    "Attack",
    "AttackModifier",
    "Bound",
    "BoundCurve",
    "Certificates",
    "Certifier",
    "Classifier",
    "CompositeAttack",
    "CountingCertifier",
    "DataError",
    "Dataset",
    "Domain",
    "Epsilon",
    "GraphError",
    "HeldOut",
    "Importer",
    "InputError",
    "LockedError",
    "Model",
    "Noise",
    "Norm",
    "Outcome",
    "Passes",
    "PluginError",
    "Proposal",
    "RandomizedClassifier",
    "Recipe",
    "RobenchError",
    "Samples",
    "SmoothedClassifier",
    "SpecError",
    "Stream",
    "Threat",
    "TrainContext",
    "TrainState",
    "Trained",
    "Transform",
    "TwoSidedNoise",
    "Wrapper",
    "__version__",
    "bound",
    "evaluate",
    "from_function",
    "from_module",
    "from_sklearn",
    "hookimpl",
    "load",
    "param",
    "replay",
    "wrapped_fingerprint",
]

_HOME = {
    "Access": "contracts",
    "Attack": "contracts",
    "AttackModifier": "contracts",
    "Bound": "contracts",
    "BoundCurve": "contracts",
    "Certificates": "contracts",
    "Certifier": "contracts",
    "Classifier": "classifier",
    "CompositeAttack": "contracts",
    "CountingCertifier": "contracts",
    "DataError": "errors",
    "Dataset": "contracts",
    "Domain": "threat",
    "Epsilon": "threat",
    "GraphError": "errors",
    "HeldOut": "contracts",
    "Importer": "contracts",
    "InputError": "errors",
    "LockedError": "errors",
    "Model": "contracts",
    "Noise": "contracts",
    "Norm": "threat",
    "Outcome": "contracts",
    "Passes": "contracts",
    "PluginError": "errors",
    "Proposal": "contracts",
    "RandomizedClassifier": "classifier",
    "Recipe": "contracts",
    "RobenchError": "errors",
    "Samples": "samples",
    "SmoothedClassifier": "classifier",
    "SpecError": "errors",
    "Stream": "streams",
    "Threat": "threat",
    "TrainContext": "contracts",
    "TrainState": "contracts",
    "Trained": "contracts",
    "Transform": "contracts",
    "TwoSidedNoise": "contracts",
    "Wrapper": "contracts",
    "bound": "api",
    "evaluate": "api",
    "from_function": "arrays",
    "from_module": "graph",
    "from_sklearn": "estimators",
    "hookimpl": "hookspecs",
    "load": "api",
    "param": "params",
    "replay": "api",
    "wrapped_fingerprint": "classifier",
}

if TYPE_CHECKING:
    from robench.api import bound, evaluate, load, replay
    from robench.arrays import from_function
    from robench.classifier import Classifier, RandomizedClassifier, SmoothedClassifier, wrapped_fingerprint
    from robench.contracts import (
        Access,
        Attack,
        AttackModifier,
        Bound,
        BoundCurve,
        Certificates,
        Certifier,
        CompositeAttack,
        CountingCertifier,
        Dataset,
        HeldOut,
        Importer,
        Model,
        Noise,
        Outcome,
        Passes,
        Proposal,
        Recipe,
        TrainContext,
        Trained,
        TrainState,
        Transform,
        TwoSidedNoise,
        Wrapper,
    )
    from robench.errors import DataError, GraphError, InputError, LockedError, PluginError, RobenchError, SpecError
    from robench.estimators import from_sklearn
    from robench.graph import from_module
    from robench.hookspecs import hookimpl
    from robench.params import param
    from robench.samples import Samples
    from robench.streams import Stream
    from robench.threat import Domain, Epsilon, Norm, Threat


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
