"""Chains applied: `dataset | transform`, `model | wrapper`, `attack | modifier`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robench.errors import PluginError, SpecError

if TYPE_CHECKING:
    import torch

    from robench.classifier import Classifier, RandomizedClassifier
    from robench.registry._plugins import Part

__all__ = ["compose"]


def compose(parts: Sequence[Part]) -> Any:
    """Return the first of `parts` with the others applied to it, in order."""
    base, *links = parts
    value = base.value
    if base.kind == "models":
        return _Wrapped(base, tuple(links)) if links else value
    names = [link.name for link in links]
    if base.kind == "attacks" and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SpecError(f"{' | '.join(part.canonical for part in parts)!r}: {twice} stands there twice: leave one out")
    for link in links:
        value = link.value.apply(value) if base.kind == "datasets" else link.value.modify(value)
    return value


@dataclass(frozen=True)
class _Wrapped:
    """A model whose classifier is wrapped once it is loaded."""

    model: Part
    wrappers: tuple[Part, ...]

    def load(self, device: torch.device, dtype: torch.dtype) -> Classifier | RandomizedClassifier:
        """Load the model and apply the wrappers in order.

        Raises InputError where something that draws at inference would be wrapped, and PluginError for a wrapper
        that gives its base's fingerprint: another function under one name.
        """
        from robench.classifier import deterministic

        classifier: Any = self.model.value.load(device, dtype)
        name = self.model.canonical
        for part in self.wrappers:
            base = deterministic(classifier, name)
            classifier = part.value.wrap(base)
            if classifier.fingerprint == base.fingerprint:
                raise PluginError(part.name, "gives the base's own fingerprint: use robench.wrapped_fingerprint")
            name = f"{name} | {part.canonical}"
        return classifier  # type: ignore[no-any-return]
