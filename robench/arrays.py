"""Classifiers from functions of arrays: any framework, a file format's runtime, a model behind a network.

The function is asked about NumPy arrays and answers with logits or with labels alone. It is the map as executed:
nothing is known about its inside, so there are no gradients and no graph.
"""

from __future__ import annotations

import operator
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robench.classifier import Outputs
from robench.errors import InputError
from robench.graph import check_input, identify, shape_of
from robench.text import one_line

__all__ = ["ArrayClassifier", "fingerprint_of", "from_function"]

Function = Callable[[npt.NDArray[Any]], Any]

_DTYPES = (torch.float32, torch.float64)
# Functions hold estimators of these as often as they are handed over themselves.
_PICKLED = ("sklearn", "scipy", "numpy")


class ArrayClassifier:
    """A function of arrays as a classifier; prefer `robench.from_function`.

    Attributes:
        outputs: `logits`, or `labels` for decisions alone: then the logits are 1 for the class decided on and 0 else.
        identified: whether the fingerprint names the function, in this process and others.
        why: in one line, why there is no graph.
        runtime: what executes it, name → version; manifests record it.
    """

    graph = None

    def __init__(
        self,
        function: Function,
        input_shape: Sequence[int] | int,
        classes: int,
        *,
        fingerprint: str,
        outputs: Outputs = "logits",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        identified: bool = True,
        why: str = "a function of arrays",
        runtime: Mapping[str, str] | None = None,
    ) -> None:
        """Ask `function` about arrays [B, *input_shape] of `dtype`; tensors are taken from, and returned on, `device`.

        Raises InputError for settings that cannot be.
        """
        self.input_shape = shape_of(input_shape)
        if not hasattr(classes, "__index__") or operator.index(classes) < 2:
            raise InputError(f"classes is {classes!r}: a classifier has 2 or more")
        if outputs not in get_args(Outputs):
            raise InputError(f"outputs is {outputs!r}: choose logits or labels")
        if dtype not in _DTYPES:
            raise InputError(f"dtype is {dtype}: choose torch.float32 or torch.float64")
        self._function = function
        self.classes = int(classes)
        self.outputs: Outputs = outputs
        self.dtype = dtype
        self.device = torch.device(device)
        self.fingerprint = fingerprint
        self.identified = identified
        self.why = why
        self.runtime = dict(runtime or {})

    def logits(self, x: Tensor) -> Tensor:
        """Return logits [B, classes] for `x` [B, ...], without gradients. Raises InputError for answers of other kinds.

        Logits that are not finite go through: the runner counts them as errors of the classifier.
        """
        check_input(x, self.input_shape, self.dtype)
        if not len(x):
            return torch.zeros((0, self.classes), dtype=self.dtype, device=self.device)
        # A copy: whatever the function does to its argument, the caller's samples stay as they are.
        answer = _array(self._function(np.array(x.detach().cpu().numpy(), order="C")))
        if self.outputs == "labels":
            return self._one_hot(answer, len(x)).to(self.device)
        if answer.shape != (len(x), self.classes) or answer.dtype.kind not in "fiu":
            raise InputError(
                f"the function gives {_shown(answer)} for {len(x)} inputs: logits must be numbers "
                f"[{len(x)}, {self.classes}]"
            )
        return _rounded(answer, self.dtype).to(self.device)

    def _one_hot(self, labels: npt.NDArray[Any], count: int) -> Tensor:
        if labels.shape != (count,) or labels.dtype.kind not in "iu":
            raise InputError(
                f"the function gives {_shown(labels)} for {count} inputs: labels must be integers [{count}]"
            )
        if labels.min() < 0 or labels.max() >= self.classes:
            raise InputError(
                f"the function gives labels from {labels.min()} to {labels.max()}: they must be 0 to {self.classes - 1}"
            )
        index = torch.from_numpy(labels.astype(np.int64))
        return torch.zeros((count, self.classes), dtype=self.dtype).scatter_(1, index[:, None], 1)

    def __repr__(self) -> str:
        """Shapes, precision and identity."""
        return (
            f"ArrayClassifier({list(self.input_shape)} to {self.classes} classes, {self.outputs}, {self.dtype}, "
            f"{self.fingerprint[:12]})"
        )


def from_function(
    function: Function,
    input_shape: Sequence[int] | int,
    classes: int,
    *,
    outputs: Outputs = "logits",
    identity: object = None,
    dtype: torch.dtype = torch.float32,
) -> ArrayClassifier:
    """Return the classifier that a function of arrays is.

    Args:
        function: takes a NumPy array [B, *input_shape] of `dtype` in the dataset's own domain; returns logits
            [B, classes] or, with `outputs="labels"`, integers [B], as anything that `numpy.asarray` takes. The answer
            for a sample must not depend on the rest of the batch, nor on chance. Logits are taken as float64: of
            longdoubles, and of integers beyond 53 bits, the rest is lost, and what differs there alone is a tie.
        input_shape: shape of one input; a number for flat ones.
        classes: number of classes.
        outputs: `logits`: scores, the largest decides, equal ones are an error; `labels`: decisions alone.
        identity: what names the function for good: a text such as `"acme-vision v3"`, or its weights as NumPy arrays in
            any containers. Runs about the same identity are joined as runs about one function. Without it the code of
            the function, and what that refers to, is hashed where it can be.
        dtype: of the inputs: `torch.float32` or `torch.float64`.

    Raises:
        InputError: settings that cannot be; later, when asked, answers of another shape or kind.
    """
    if not callable(function):
        raise InputError(f"a {type(function).__name__} is no function: give one from an array to logits or labels")
    shape = shape_of(input_shape)
    fingerprint, identified = fingerprint_of(function, identity, (shape, classes, outputs, dtype))
    return ArrayClassifier(
        function,
        shape,
        classes,
        outputs=outputs,
        dtype=dtype,
        fingerprint=fingerprint,
        identified=identified,
        runtime={"numpy": np.__version__},
    )


def fingerprint_of(
    value: object, identity: object, settings: tuple[Any, ...], label: str = "robench function 1"
) -> tuple[str, bool]:
    """Return the fingerprint of a function and whether it names it: by `identity` where there is one, else by content.

    What is not known has a fingerprint of its own each time. Raises InputError for an identity that cannot be hashed.
    """
    if identity is None:
        found, known = identify(label, "content", value, *settings, packages=_PICKLED)
        return (found, True) if known else (secrets.token_hex(32), False)
    found, known = identify(label, "identity", identity, *settings)
    if not known:
        raise InputError(
            f"the identity is a {type(identity).__name__} that cannot be hashed: give a text, or NumPy arrays in "
            "lists, tuples and dicts"
        )
    return found, True


def _array(answer: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(answer)
    except Exception as error:
        raise InputError(
            f"the function gives a {type(answer).__name__} that NumPy cannot read ({one_line(error)}): return an array"
        ) from None


def _shown(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _rounded(logits: npt.NDArray[Any], dtype: torch.dtype) -> Tensor:
    """Return logits in `dtype`, deciding as they did: rounding makes no tie and nothing infinite."""
    exact = logits.astype(np.float64)
    out = torch.from_numpy(exact).to(dtype)
    if logits.dtype == np.float32 or dtype == torch.float64:
        return out
    given = torch.from_numpy(exact)
    limit = torch.finfo(dtype).max
    out = torch.where(given.isfinite(), out.clamp(-limit, limit), out)
    top, first = given.max(1, keepdim=True)
    alone = (given == top).sum(1, keepdim=True) == 1
    tied = alone & (out == out.gather(1, first)) & (torch.arange(out.shape[1]) != first)
    return torch.where(tied, torch.nextafter(out, torch.full_like(out, -torch.inf)), out)
