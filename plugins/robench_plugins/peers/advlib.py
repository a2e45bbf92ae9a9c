"""Attacks of adv-lib (Rony & Ben Ayed, "Adversarial Library")."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from robench import InputError, param
from robench.params import suggest
from robench_plugins.peers._library import Library
from robench_plugins.peers._peer import Peer, signature_of
from robench_plugins.peers._unit import Unit

if TYPE_CHECKING:
    from robench import Norm
    from robench.contracts import Access

__all__ = ["AdvLib"]

_P: Mapping[Norm, float] = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


@dataclass(frozen=True)
class _Call:
    """How a function of adv-lib is told the norm and ε: by which argument, if by any."""

    norms: tuple[Norm, ...]
    norm: str | None = None
    eps: str | None = None


_ALL: tuple[Norm, ...] = ("linf", "l2", "l1")
_CALLS: Mapping[str, _Call] = {
    "alma": _Call(("l2", "l1"), "distance"),
    "apgd": _Call(_ALL, "norm", "eps"),
    "apgd_targeted": _Call(_ALL, "norm", "eps"),
    "carlini_wagner_l2": _Call(("l2",)),
    "carlini_wagner_linf": _Call(("linf",)),
    "ddn": _Call(("l2",)),
    "df": _Call(("linf", "l2"), "norm"),
    "fab": _Call(_ALL, "norm"),
    "fmn": _Call(_ALL, "norm"),
    "pdgd": _Call(("l2",)),
    "pdpgd": _Call(_ALL, "norm"),
    "pgd_linf": _Call(("linf",), None, "ε"),
    "sdf": _Call(("l2",)),
    "tr": _Call(("linf", "l2"), "p"),
}
"""Its attacks in l0 or in perceptual distances are left out."""


@dataclass(frozen=True)
class AdvLib(Peer):
    """An attack of adv-lib by the name of its function: `advlib:fmn`, `advlib:alma`, `advlib:apgd_targeted`.

    `options` are arguments of the function: `advlib:fmn,options=steps=1000`; the norm and ε come from the threat
    model. Attacks without an ε are minimum-norm attacks here.
    """

    library: ClassVar[Library] = Library("adv_lib.attacks", "adv-lib", "advlib")

    attack: str = param(..., "name of the function in adv_lib.attacks", positional=True)
    options: tuple[str, ...] = param((), "arguments of the function, each as key=value")
    alone: bool = param(False, "one sample at a time: slow, but a sample's result does not depend on its batch")

    @property
    def per_eps(self) -> bool:
        """Whether the attack has an ε."""
        return self._call.eps is not None

    @property
    def access(self) -> Access:
        """What the attack asks for: all of these need gradients."""
        return "gradients"

    def unfit(self, norm: Norm) -> str | None:
        """Return None, or why the attack does not search in `norm`."""
        self._given()
        return None if norm in self._call.norms else f"it searches in {' and '.join(self._call.norms)}"

    def search(self, model: Unit, u: Tensor, y: Tensor, norm: Norm, eps: float | None) -> Tensor:
        """Return the points of adv-lib."""
        call, given = self._call, self._given()
        if call.norm is not None:
            given[call.norm] = norm if call.norm == "distance" else _P[norm]
        if call.eps is not None:
            given[call.eps] = eps
        points = getattr(self.library.load(), self.attack)(model=model, inputs=u, labels=y, **given)
        assert isinstance(points, Tensor)
        return points

    @property
    def _call(self) -> _Call:
        if self.attack not in _CALLS:
            raise InputError(f"no attack {self.attack!r} of adv-lib{suggest(self.attack, _CALLS)}: {', '.join(_CALLS)}")
        return _CALLS[self.attack]

    def _given(self) -> dict[str, Any]:
        ours = (
            "model",
            "inputs",
            "labels",
            "targeted",
            "callback",
            "penalty",
            self._call.norm or "",
            self._call.eps or "",
        )
        return self.arguments(signature_of(getattr(self.library.load(), self.attack), without=ours))
