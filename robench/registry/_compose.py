"""Chains applied: `dataset | transform`, `model | wrapper`, `attack | modifier`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from robench.classifier import Classifier, RandomizedClassifier
    from robench.contracts import Model, Wrapper

__all__ = ["compose"]


def compose(kind: str, values: Sequence[Any]) -> Any:
    """Return the first of `values` with the others applied to it, in order."""
    base, *links = values
    if kind == "models":
        return _Wrapped(base, tuple(links)) if links else base
    for link in links:
        base = link.apply(base) if kind == "datasets" else link.modify(base)
    return base


@dataclass(frozen=True)
class _Wrapped:
    """A model whose classifier is wrapped once it is loaded."""

    model: Model
    wrappers: tuple[Wrapper, ...]

    def load(self, device: torch.device, dtype: torch.dtype) -> Classifier | RandomizedClassifier:
        """Load the model and apply the wrappers in order."""
        classifier: Any = self.model.load(device, dtype)
        for wrapper in self.wrappers:
            classifier = wrapper.wrap(classifier)
        return classifier  # type: ignore[no-any-return]
