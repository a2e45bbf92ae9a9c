"""What the adapters share: a library's attack called on a batch, and nothing of it left behind."""

from __future__ import annotations

import ast
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from robench import InputError, Passes, Proposal
from robench.numerics import per_sample
from robench_plugins.attacks.gradients import applies
from robench_plugins.peers._library import Library
from robench_plugins.peers._unit import Unit

if TYPE_CHECKING:
    from robench import Classifier, Norm, Stream, Threat
    from robench.contracts import Access

__all__ = ["Peer", "signature_of"]


class Peer:
    """An attack of a library. Subclasses are factories with the fields `attack`, `options` and `alone`."""

    library: ClassVar[Library]
    attack: str
    options: tuple[str, ...]
    alone: bool

    @property
    def per_eps(self) -> bool:
        """Whether the library's attack searches at a given ε; minimum-norm attacks do not."""
        raise NotImplementedError

    @property
    def access(self) -> Access:
        """What the library's attack asks the classifier for."""
        raise NotImplementedError

    @property
    def versions(self) -> Mapping[str, str]:
        """The library's version, for the manifest."""
        version = self.library.version
        return {} if version is None else {self.library.distribution: version}

    def unfit(self, norm: Norm) -> str | None:
        """Return None, or why the library's attack does not search in `norm`. Raises InputError for wrong options."""
        raise NotImplementedError

    def search(self, model: Unit, u: Tensor, y: Tensor, norm: Norm, eps: float | None) -> Tensor:
        """Return the library's points for inputs `u` [B, ...] in [0, 1]."""
        raise NotImplementedError

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        why = self.unfit(norm)
        if why is None and self.access == "gradients":
            return applies(classifier)
        return why

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose what the library returns for `x` [B, ...] with labels `y` [B].

        Points that are not finite are replaced by the clean input.
        """
        seeds = stream.child("peer").integers((1,), 2**31 - 1)[:, 0].tolist()
        size = 1 if self.alone else max(len(x), 1)
        points, forwards, backwards = x.clone(), torch.zeros_like(y), torch.zeros_like(y)
        for first in range(0, len(x), size):
            rows = slice(first, first + size)
            model = Unit(classifier, x[rows], threat)
            eps = None if threat.eps is None or not self.per_eps else threat.eps / model.width
            with _own_randomness(seeds[rows], x.device):
                found = self.search(model, model.into(x[rows]), y[rows].clone(), threat.norm, eps)
            found = model.back(found.detach().reshape(x[rows].shape).to(x))
            finite = found.flatten(1).isfinite().all(1)
            points[rows] = torch.where(per_sample(finite, found), found, x[rows])
            # The library passes rows as it likes: its cost is shared evenly, the remainder by the first.
            forwards[rows], backwards[rows] = _shares(model.forwards, y[rows]), _shares(model.backwards, y[rows])
        return Proposal(points, passes=Passes(forwards, backwards))

    def arguments(self, accepted: Sequence[str]) -> dict[str, Any]:
        """Return `options` as keyword arguments. Raises InputError for what is no `key=value` or not `accepted`."""
        read: dict[str, Any] = {}
        for option in self.options:
            key, equals, text = option.partition("=")
            key = key.strip()
            if not equals or not key.isidentifier():
                raise InputError(f"option {option!r} of {self.attack}: write key=value")
            if key not in accepted:
                raise InputError(f"{self.attack} has no option {key!r}: it has {', '.join(accepted) or 'none'}")
            if key in read:
                raise InputError(f"option {key!r} of {self.attack} is given twice: keep one")
            read[key] = _value(text.strip())
        return read


def signature_of(function: Callable[..., Any], without: Sequence[str]) -> list[str]:
    """Return the parameters of a function or class that an option may set."""
    parameters = inspect.signature(function).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [one.name for one in parameters if one.kind in named and one.name not in ("self", *without)]


def _value(text: str) -> Any:
    """Return a number, truth value or None as Python writes it (`true`, `false`, `none` too), else the text."""
    plain = {"true": True, "false": False, "none": None}
    if text.lower() in plain:
        return plain[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float) else text


def _shares(total: int, y: Tensor) -> Tensor:
    count = max(len(y), 1)
    return total // count + (torch.arange(len(y), device=y.device) < total % count).to(y.dtype)


@contextmanager
def _own_randomness(seeds: Sequence[int], device: torch.device) -> Iterator[None]:
    """Seed the global generators, which libraries draw from, and put them back as they were."""
    seed = sum(seeds) % (2**31 - 1)
    devices = [device] if device.type == "cuda" else []
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=cast("list[int]", devices)):
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = flags
