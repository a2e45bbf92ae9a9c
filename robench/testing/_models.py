"""What every model and wrapper must do: `check_model`, `check_wrapper`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robench.classifier import Classifier, RandomizedClassifier
from robench.contracts import Model, Wrapper
from robench.streams import Stream
from robench.testing._findings import ALL, Check, Choice, Finding, NotApplicable, Violation, run_checks
from robench.testing._guard import Traces, watch
from robench.testing._subjects import linear

__all__ = ["model_findings", "wrapper_findings"]

CPU = torch.device("cpu")


@dataclass
class ClassifierCase:
    """Something that gives a classifier, in a dtype."""

    make: Callable[[torch.device, torch.dtype], Any]
    traces: Traces = field(default_factory=Traces)
    base: Classifier | None = None

    def classifier(self, dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Any:
        """Return the classifier in `dtype` on `device`, made under watch."""
        with watch(self.traces):
            made = self.make(device, dtype)
        if not isinstance(made, Classifier | RandomizedClassifier):
            raise Violation(f"{type(made).__name__} has neither `logits` nor `sample`, or lacks an attribute of both")
        return made

    def inputs(self, classifier: Any, count: int = 6) -> Tensor:
        """Return inputs [B, ...] in [0, 1]."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand((count, *classifier.input_shape), generator=generator, dtype=torch.float64)
        return x.to(classifier.device, classifier.dtype)

    def ask(self, classifier: Any, x: Tensor, rows: Iterable[int] | None = None) -> Tensor:
        """Return the logits of `x`, of one draw where the classifier draws, under watch."""
        with watch(self.traces, x=x):
            if isinstance(classifier, RandomizedClassifier):
                samples = range(len(x)) if rows is None else rows
                return classifier.sample(x, Stream.for_samples(0, "conformance", samples, x.device)).detach()
            out: Tensor = classifier.logits(x)
            return out.detach()


def _describes(case: ClassifierCase) -> str:
    for dtype in (torch.float32, torch.float64):
        one = case.classifier(dtype)
        if one.dtype != dtype or torch.device(one.device) != CPU:
            raise Violation(f"asked for {dtype} on {CPU}, got {one.dtype} on {one.device}")
        if not re.fullmatch(r"[0-9a-f]{64}", one.fingerprint):
            raise Violation(f"the fingerprint is {one.fingerprint!r}, not 64 hex digits")
        if not (isinstance(one.input_shape, tuple) and isinstance(one.classes, int) and one.classes >= 2):
            raise Violation(f"input_shape is {one.input_shape!r}, classes is {one.classes!r}")
        x = case.inputs(one)
        logits = case.ask(one, x)
        if tuple(logits.shape) != (len(x), one.classes) or logits.dtype != dtype:
            raise Violation(
                f"logits are {logits.dtype} {list(logits.shape)} for {dtype} [{len(x)}], {one.classes} classes"
            )
        if tuple(case.ask(one, x[:0]).shape) != (0, one.classes):
            raise Violation(f"logits of an empty batch are {list(case.ask(one, x[:0]).shape)}")
    return f"inputs {list(one.input_shape)}, {one.classes} classes"


def _function(case: ClassifierCase) -> str:
    one = case.classifier(torch.float64)
    x = case.inputs(one)
    first, second = case.ask(one, x), case.ask(one, x)
    if not torch.equal(first, second):
        raise Violation("asked twice, two answers")
    rows = torch.cat([case.ask(one, x[i : i + 1], [i]) for i in range(len(x))])
    gap = float((rows - first).abs().max())
    if not gap <= 1e-9 * (1 + float(first.abs().max())):
        raise Violation(f"logits of a sample alone differ by {gap:.3g} from those in a batch: training mode?")
    return f"batches agree to {gap:.1e}"


def _precision(case: ClassifierCase) -> str:
    single, double = case.classifier(torch.float32), case.classifier(torch.float64)
    x = case.inputs(single)
    low, high = case.ask(single, x).double(), case.ask(double, x.double())
    gap = float((low - high).abs().max() / (1 + high.abs().max()))
    if not gap <= 1e-3:
        raise Violation(f"float32 and float64 logits differ by {gap:.3g} of their size")
    return f"float32 and float64 agree to {gap:.1e}"


def _identity(case: ClassifierCase) -> str:
    first, second = case.classifier().fingerprint, case.classifier().fingerprint
    if first != second:
        raise Violation(f"made twice, fingerprints {first[:12]}… and {second[:12]}…")
    if case.base is not None and first == case.base.fingerprint:
        raise Violation("the fingerprint is the wrapped classifier's")
    return f"{first[:12]}…"


def _gradient(case: ClassifierCase) -> str:
    one = case.classifier(torch.float64)
    x = case.inputs(one).requires_grad_(True)
    stream = Stream.for_samples(0, "conformance", range(len(x)))
    logits = one.sample(x, stream) if isinstance(one, RandomizedClassifier) else one.logits(x)
    if not logits.requires_grad:
        if one.graph is None:
            raise NotApplicable("the classifier is opaque and gives no gradients")
        raise Violation("it has a graph, but its logits carry no gradient")
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    if gradient.shape != x.shape or not torch.isfinite(gradient).all():
        raise Violation(f"the gradient is {list(gradient.shape)}, finite: {bool(torch.isfinite(gradient).all())}")
    return "finite"


def _quiet(case: ClassifierCase) -> str:
    for _ in range(2):
        one = case.classifier()
        case.ask(one, case.inputs(one))
    case.traces.refuse("random", "making and asking")
    case.traces.refuse("gradients", "making and asking")
    return "as it was"


def _inputs(case: ClassifierCase) -> str:
    one = case.classifier()
    case.ask(one, case.inputs(one))
    case.traces.refuse("inputs", "asking")
    return "as they were"


def _device(case: ClassifierCase) -> str:
    if not torch.cuda.is_available():
        raise NotApplicable("no CUDA device here")
    one = case.classifier(torch.float32, torch.device("cuda"))
    logits = case.ask(one, case.inputs(one))
    if logits.device.type != "cuda":
        raise Violation(f"logits on {logits.device}")
    return "logits where the inputs are"


CHECKS: list[Check[ClassifierCase]] = [
    Check(
        "describes itself",
        "input_shape, classes, dtype, device and a fingerprint of 64 hex digits, true for its logits",
        "everything that is asked is shaped after them",
        _describes,
    ),
    Check(
        "function",
        "a sample has the same logits alone, in a batch and when asked again (for equal draws)",
        "evidence is about one function of one sample",
        _function,
    ),
    Check("precision", "float32 and float64 are the same network", "witnesses are confirmed in float64", _precision),
    Check(
        "identity",
        "made twice, one fingerprint; a wrapped classifier has another than its base",
        "evidence is joined by it",
        _identity,
    ),
    Check("gradient", "logits are differentiable, unless the classifier is opaque", "attacks follow them", _gradient),
    Check("quiet", "the global random state and torch's settings stay as they were", "others rely on them", _quiet),
    Check("inputs", "inputs are not written to", "others go on with the same tensors", _inputs),
    Check("device", "it runs where it was asked for", "nothing may assume the CPU", _device),
]


def model_findings(model: Model, choice: Choice = ALL) -> list[Finding]:
    """Run every check of models."""
    return run_checks(CHECKS, ClassifierCase(model.load), choice)


def wrapper_findings(wrapper: Wrapper, choice: Choice = ALL) -> list[Finding]:
    """Run every check of wrappers, around a linear classifier of 4 × 4 pictures."""

    def make(device: torch.device, dtype: torch.dtype) -> Classifier | RandomizedClassifier:
        return wrapper.wrap(linear(3, (1, 4, 4), dtype=dtype).classifier.to(device))

    base = linear(3, (1, 4, 4), dtype=torch.float32).classifier
    return run_checks(CHECKS, ClassifierCase(make, base=base), choice)
