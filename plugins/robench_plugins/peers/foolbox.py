"""Attacks of foolbox (Rauber, Brendel & Bethge 2017; Rauber et al. 2020)."""

from __future__ import annotations

import inspect
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

__all__ = ["Foolbox"]

_LABELS = (
    "AdditiveGaussianNoise", "AdditiveUniformNoise", "Binarization", "BlendedUniformNoise", "BoundaryAttack",
    "ContrastReduction", "GaussianBlur", "HopSkipJump", "Inversion", "Pointwise", "SaltAndPepper",
)  # fmt: skip
"""Parts of the names of the attacks that need decisions alone."""


@dataclass(frozen=True)
class Foolbox(Peer):
    """An attack of foolbox by the name of its class: `foolbox:LinfPGD`, `foolbox:L2CarliniWagnerAttack`.

    `options` are arguments of the class: `foolbox:LinfPGD,options=steps=100+rel_stepsize=0.05`. Attacks without an ε
    of their own (foolbox's minimisation attacks) are minimum-norm attacks here.
    """

    library: ClassVar[Library] = Library("foolbox", "foolbox", "foolbox")

    attack: str = param(..., "name of the class in foolbox.attacks", positional=True)
    options: tuple[str, ...] = param((), "arguments of the class, each as key=value")
    alone: bool = param(False, "one sample at a time: slow, but a sample's result does not depend on its batch")

    @property
    def per_eps(self) -> bool:
        """Whether foolbox's attack has an ε."""
        return not issubclass(self._class(), self.library.load().attacks.base.MinimizationAttack)

    @property
    def access(self) -> Access:
        """What foolbox's attack asks for."""
        name = self._class().__name__
        return "labels" if any(part in name for part in _LABELS) else "gradients"

    def unfit(self, norm: Norm) -> str | None:
        """Return None, or why the attack does not search in `norm`. Raises InputError for wrong options."""
        try:
            distance = self._made(norm).distance
        except InputError:
            raise
        except Exception as error:
            return f"foolbox cannot make {self.attack} ({type(error).__name__}: {error})"
        wanted = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
        found = getattr(distance, "p", None)
        return None if found == wanted else f"it searches in {distance}"

    def search(self, model: Unit, u: Tensor, y: Tensor, norm: Norm, eps: float | None) -> Tensor:
        """Return foolbox's points."""
        foolbox = self.library.load()
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=u.device)
        criterion = foolbox.criteria.Misclassification(y)
        _, points, _ = self._made(norm)(wrapped, u, criterion=criterion, epsilons=eps)
        assert isinstance(points, Tensor)
        return points

    def _class(self) -> type[Any]:
        attacks = self.library.load().attacks
        known = {
            name: value
            for name, value in vars(attacks).items()
            if inspect.isclass(value) and issubclass(value, attacks.base.Attack) and value is not attacks.base.Attack
        }
        if self.attack not in known:
            raise InputError(f"foolbox.attacks has no attack {self.attack!r}{suggest(self.attack, known)}")
        return known[self.attack]

    def _made(self, norm: Norm) -> Any:
        made = self._class()
        accepted = signature_of(made, without=("distance",))
        given = self.arguments(accepted)
        if "distance" in signature_of(made, without=()):
            given["distance"] = getattr(self.library.load().distances, norm)
        return made(**given)
