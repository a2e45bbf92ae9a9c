"""Attacks of torchattacks (Kim 2020, "Torchattacks: a PyTorch repository for adversarial attacks")."""

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

__all__ = ["Torchattacks"]

_L2 = ("CW", "PGDL2", "PGDRSL2", "DeepFool")
_L1 = ("EADL1",)
_OTHER = ("EADEN", "JSMA", "LGV", "MultiAttack", "OnePixel", "Pixle", "SparseFool", "VANILA")
"""Not searches within a ball of one of our norms: L0, the elastic net, wrappers and no attack at all."""

_LOGITS = ("Square", "SPSA")
_LABELS = ("GN",)


@dataclass(frozen=True)
class Torchattacks(Peer):
    """An attack of torchattacks by the name of its class: `torchattacks:PGD`, `torchattacks:AutoAttack`.

    `options` are arguments of the class: `torchattacks:PGD,options=steps=100`; the norm and ε come from the threat
    model. Its AutoAttack runs 10 steps per APGD unless told otherwise (torchattacks issues 164, 188, 196): it is
    another attack than the published one.
    """

    library: ClassVar[Library] = Library("torchattacks", "torchattacks", "torchattacks")

    attack: str = param(..., "name of the class in torchattacks", positional=True)
    options: tuple[str, ...] = param((), "arguments of the class, each as key=value")
    alone: bool = param(False, "one sample at a time: slow, but a sample's result does not depend on its batch")

    @property
    def per_eps(self) -> bool:
        """Whether the attack has an ε."""
        return "eps" in signature_of(self._class(), without=())

    @property
    def access(self) -> Access:
        """What the attack asks for."""
        return "logits" if self.attack in _LOGITS else "labels" if self.attack in _LABELS else "gradients"

    def unfit(self, norm: Norm) -> str | None:
        """Return None, or why the attack does not search in `norm`."""
        accepted = signature_of(self._class(), without=())
        self.arguments([name for name in accepted if name not in _OURS])
        if self.attack in _OTHER:
            return "it does not search within a ball of linf, l2 or l1"
        own: tuple[Norm, ...]
        if "norm" in accepted:
            own = ("linf", "l2") if self.attack != "FAB" else ("linf", "l2", "l1")
        else:
            own = ("l2",) if self.attack in _L2 else ("l1",) if self.attack in _L1 else ("linf",)
        return None if norm in own else f"it searches in {' and '.join(own)}"

    def search(self, model: Unit, u: Tensor, y: Tensor, norm: Norm, eps: float | None) -> Tensor:
        """Return the points of torchattacks; inputs that are no images become images of one row."""
        made = self._class()
        accepted = signature_of(made, without=())
        given = self.arguments([name for name in accepted if name not in _OURS])
        ours = {"eps": eps, "norm": norm.capitalize(), "n_classes": model.classifier.classes}
        given.update({name: value for name, value in ours.items() if name in accepted})
        images = u if u.dim() == 4 else u.reshape(len(u), 1, 1, -1)
        points = made(model, **given)(images, y)
        assert isinstance(points, Tensor)
        return points

    def _class(self) -> type[Any]:
        module = self.library.load()
        known = {name: value for name, value in vars(module).items() if inspect.isclass(value)}
        if self.attack not in known:
            raise InputError(f"torchattacks has no attack {self.attack!r}{suggest(self.attack, known)}")
        return known[self.attack]


_OURS = ("model", "eps", "norm", "n_classes")
"""Arguments that the threat model and the classifier decide."""
