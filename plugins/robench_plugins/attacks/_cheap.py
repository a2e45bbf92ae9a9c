"""A classifier computed in lower precision, compiled where asked for: what a search looks at, not what is judged."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor

from robench.classifier import Classifier, Outputs, outputs_of
from robench.graph import GraphModule
from robench.numerics import per_sample

__all__ = ["SPACING", "CheapView", "Precision", "compiled", "reduced"]

Precision = Literal["bf16", "fp16", "tf32", "full"]

SPACING: Final[dict[Precision, float]] = {"bf16": 2.0**-7, "fp16": 2.0**-10, "tf32": 2.0**-10, "full": 2.0**-23}
"""The relative distance between neighbouring numbers of each precision."""

_AUTOCAST: Final[dict[Precision, torch.dtype]] = {"bf16": torch.bfloat16, "fp16": torch.float16}

_SIZES = (256, 64, 16)
"""Batch sizes that are compiled. With and without gradients six programs; torch keeps eight for one function."""

_BACKEND = "inductor"


class CheapView:
    """A classifier whose logits and gradients are computed in lower precision; all else is the classifier's.

    Logits come back in the classifier's dtype. The passes are the classifier's: counted where it counts. Gradients
    through the logits are taken in the same precision, and reach no parameters.
    """

    def __init__(
        self, classifier: Classifier, precision: Precision, run: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """See `classifier` in `precision`; `run` is a compiled form of its graph, asked instead of it."""
        self._classifier, self._precision, self._run = classifier, precision, run
        self.input_shape = classifier.input_shape
        self.classes = classifier.classes
        self.dtype = classifier.dtype
        self.device = classifier.device
        self.fingerprint = classifier.fingerprint
        self.graph = classifier.graph
        self.outputs: Outputs = outputs_of(classifier)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, classes] of `x` [B, ...], differentiable where the classifier's are."""
        if torch.is_grad_enabled() and x.requires_grad:
            return cast(Tensor, _Cheap.apply(x, self))  # type: ignore[no-untyped-call]
        return torch.cat(self.ask(x, track=False)[1])

    def ask(self, x: Tensor, track: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Ask about `x` in parts; returns the inputs, leaves that `track` gradients, and the logits of each part."""
        run: Callable[[Tensor], Tensor] = self._classifier.logits
        cuts = [(0, len(x), len(x))]
        if self._run is not None and len(x):
            run, cuts = self._run, list(pieces(len(x)))
            self._charge(len(x), 0)
        points, answers = [], []
        with reduced(self._precision, x.device.type), torch.set_grad_enabled(track):
            for start, stop, size in cuts:
                rows = x[start:stop].detach()
                if size > len(rows):
                    rows = torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])
                points.append(rows.requires_grad_(track))
                answers.append(run(points[-1])[: stop - start].to(self.dtype))
        return points, answers

    def pull_back(self, points: list[Tensor], answers: list[Tensor], vector: Tensor) -> Tensor:
        """Return the gradient of ⟨v, logits⟩ in the inputs, for what `ask` returned.

        Every row of v is brought to a largest entry from ½ to 1 by a power of two, and its gradient back: exact, and a
        loss with a small slope does not vanish in the narrow range of fp16.
        """
        sizes = [len(one) for one in answers]
        if self.compiled:
            self._charge(0, len(vector))
        # Range enough that neither 2^k nor 2^−k leaves float32.
        power = torch.frexp(vector.abs().amax(1).nan_to_num(0, 0, 0)).exponent.clamp(-120, 120)
        up, down = (torch.ldexp(torch.ones_like(vector[:, 0]), sign * power) for sign in (1, -1))
        with reduced(self._precision, vector.device.type):
            found = torch.autograd.grad(
                answers,
                points,
                torch.split(vector * down[:, None], sizes),
                # Compiled programs free what they need for the way back, so that none can be gone through twice.
                retain_graph=not self.compiled,
                allow_unused=True,
                materialize_grads=True,
            )
        gradient = torch.cat([one[:size] for one, size in zip(found, sizes, strict=True)])
        return gradient * per_sample(up, gradient)

    @property
    def compiled(self) -> bool:
        """Whether the logits are those of a compiled program."""
        return self._run is not None

    def _charge(self, forwards: int, backwards: int) -> None:
        """Count rows as the classifier would; those that only fill a batch up are about no sample, and do not count."""
        charge = getattr(self._classifier, "charge", None)
        if charge is not None:
            charge(forwards, backwards)


class _Cheap(torch.autograd.Function):
    """The logits of a view: the way back too runs under its settings, wherever the gradient is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, view: CheapView) -> Tensor:
        ctx.view, ctx.x, ctx.asked = view, x.detach(), view.ask(x, track=True)
        answers = ctx.asked[1]
        seen = torch.cat([one.detach() for one in answers])
        if not any(one.requires_grad for one in answers):
            ctx.mark_non_differentiable(seen)
        return seen

    @staticmethod
    def backward(ctx: Any, vector: Tensor) -> tuple[Tensor, None]:
        view: CheapView = ctx.view
        points, answers = ctx.asked or view.ask(ctx.x, track=True)
        ctx.asked = None if view.compiled else ctx.asked
        return view.pull_back(points, answers, vector.detach()), None


def pieces(count: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, stop, size): how a batch is cut, so that few sizes occur and less than 16 rows are filled up."""
    start = 0
    while start < count:
        size = next((size for size in _SIZES if size <= count - start), _SIZES[-1])
        yield start, min(start + size, count), size
        start += size


_names = itertools.count()


def compiled(classifier: Classifier) -> Callable[[Tensor], Tensor]:
    """Return a compiled form of the classifier's graph, a program for every batch size that it is asked for."""
    assert classifier.graph is not None
    module = GraphModule(classifier.graph, classifier.dtype).to(classifier.device)

    def run(x: Tensor) -> Tensor:
        return module(x)  # type: ignore[no-any-return]

    # torch keeps programs by code object, eight at most: code of its own, or one classifier would use up another's.
    code = run.__code__.replace(co_name=f"logits_{next(_names)}")
    own = FunctionType(code, run.__globals__, code.co_name, closure=run.__closure__)
    return cast("Callable[[Tensor], Tensor]", torch.compile(own, dynamic=False, backend=_BACKEND))


@contextlib.contextmanager
def reduced(precision: Precision, device: str) -> Iterator[None]:
    """Compute in `precision`; float64 stays as it is. The settings are put back whatever happens."""
    if precision == "tf32":
        with _TF32:
            yield
    elif precision in _AUTOCAST:
        # Without its cache, which could keep what others put in.
        with torch.autocast(device, dtype=_AUTOCAST[precision], cache_enabled=False):
            yield
    else:
        yield


class _Allowed:
    """TF32 while any thread is inside; the last one out puts the process's settings back, in whatever order they go.

    The settings are the process's: a verdict at the same time in another thread could meet them. robench runs cells
    side by side in processes of their own.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, (False, False)
        self._newer: list[str] = []

    def __enter__(self) -> None:
        matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn
        with self._lock:
            if not self._inside:
                self._before = matmul.allow_tf32, conv.allow_tf32
                self._newer = [one.fp32_precision for one in _newer_settings()]
                matmul.allow_tf32 = conv.allow_tf32 = True
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = self._before
                # The older settings leave the newer ones to what these inherit, which may be TF32.
                for one, value in zip(_newer_settings(), self._newer, strict=True):
                    one.fp32_precision = value


def _newer_settings() -> list[Any]:
    backends: Any = torch.backends
    cudnn = backends.cudnn
    return [backends.cuda.matmul, cudnn.conv, cudnn.rnn] if hasattr(backends, "fp32_precision") else []


_TF32 = _Allowed()
