"""Classifiers from functions of arrays: any framework, a file format's runtime, a model behind a network.

The function is asked about NumPy arrays and answers with logits or with labels alone. It is the map as executed:
nothing is known about its inside, so there are no gradients and no graph.
"""

from __future__ import annotations

import copy
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robench.classifier import Outputs
from robench.errors import InputError
from robench.graph import check_input, identify
from robench.text import one_line

__all__ = ["ArrayClassifier", "from_function", "from_sklearn"]

Function = Callable[[npt.NDArray[Any]], Any]
Method = Literal["decision_function", "predict_proba", "predict"]

_DTYPES = (torch.float32, torch.float64)
_SKLEARN = ("sklearn", "scipy", "numpy")


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
        input_shape: Sequence[int],
        classes: int,
        *,
        fingerprint: str,
        outputs: Outputs = "logits",
        dtype: torch.dtype = torch.float32,
        identified: bool = True,
        why: str = "a function of arrays",
        runtime: Mapping[str, str] | None = None,
    ) -> None:
        """Ask `function` about arrays [B, *input_shape] of `dtype`. Raises InputError for settings that cannot be."""
        self.input_shape = tuple(int(size) for size in input_shape)
        if not self.input_shape or min(self.input_shape) < 1:
            raise InputError(f"input_shape {list(self.input_shape)}: give the shape of one input, like (3, 32, 32)")
        if int(classes) != classes or classes < 2:
            raise InputError(f"classes is {classes!r}: a classifier has 2 or more")
        if outputs not in get_args(Outputs):
            raise InputError(f"outputs is {outputs!r}: choose logits or labels")
        if dtype not in _DTYPES:
            raise InputError(f"dtype is {dtype}: choose torch.float32 or torch.float64")
        self._function = function
        self.classes = int(classes)
        self.outputs: Outputs = outputs
        self.dtype = dtype
        self.device = torch.device("cpu")
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
            return torch.zeros((0, self.classes), dtype=self.dtype)
        # A copy: whatever the function does to its argument, the caller's samples stay as they are.
        answer = _array(self._function(np.array(x.detach().numpy(), order="C")))
        if self.outputs == "labels":
            return self._one_hot(answer, len(x))
        if answer.shape != (len(x), self.classes) or answer.dtype.kind not in "fiu":
            raise InputError(
                f"the function gives {_shown(answer)} for {len(x)} inputs: logits must be numbers "
                f"[{len(x)}, {self.classes}]"
            )
        return _rounded(answer, self.dtype)

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
    input_shape: Sequence[int],
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
            for a sample must not depend on the rest of the batch, nor on chance.
        input_shape: shape of one input.
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
    shape = tuple(int(size) for size in input_shape)
    fingerprint, identified = _fingerprint(function, identity, (shape, classes, outputs, dtype))
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


def from_sklearn(
    estimator: Any,
    input_shape: Sequence[int] | None = None,
    *,
    method: Method | None = None,
    identity: object = None,
    dtype: torch.dtype = torch.float32,
) -> ArrayClassifier:
    """Return the classifier that a fitted scikit-learn estimator, or a pipeline, is; a copy of it is asked.

    Args:
        estimator: fitted on labels 0, 1, …; inputs are handed over flat.
        input_shape: shape of one input; by default [number of features].
        method: whose answer counts: `decision_function`, `predict_proba`, or `predict` for labels alone. The first that
            the estimator has, by default.
        identity: as for `from_function`; by default the estimator's content.
        dtype: of the inputs.

    Raises:
        InputError: an estimator that is not fitted, is no classifier, or has other labels.
    """
    name = type(estimator).__name__
    known, features = getattr(estimator, "classes_", None), getattr(estimator, "n_features_in_", None)
    if known is None or features is None:
        raise InputError(f"{name} has no classes_ and n_features_in_: give a fitted classifier")
    labels = np.asarray(known)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not np.array_equal(labels, np.arange(len(labels))):
        raise InputError(f"{name} was fitted on the labels {one_line(labels, 60)}: fit it on 0 to {len(labels) - 1}")
    shape = (int(features),) if input_shape is None else tuple(int(size) for size in input_shape)
    if math.prod(shape) != features:
        raise InputError(f"{name} takes {features} features, but input_shape {list(shape)} has {math.prod(shape)}")
    offered = [one for one in get_args(Method) if callable(getattr(estimator, one, None))]
    if (method or "predict") not in offered:
        raise InputError(f"{name} has no {method or 'predict'}: it has {', '.join(offered) or 'no answer'}")
    chosen = method or offered[0]
    if method is None and len(labels) > 2 and getattr(_deciding(estimator), "break_ties", None) is False:
        raise InputError(
            f"{name} decides between {len(labels)} classes by votes, which its decision_function does not repeat: "
            "fit it with break_ties=True, or give method='predict' for labels alone"
        )
    try:
        asked = getattr(copy.deepcopy(estimator), chosen)
    except Exception as error:
        raise InputError(f"{name} cannot be copied: {one_line(error)}") from None

    def answer(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        found = np.asarray(asked(x.reshape(len(x), -1)))
        if chosen == "decision_function" and found.ndim == 1:
            return np.stack([np.zeros_like(found), found], 1)  # of two classes: above 0 is class 1
        return found

    import sklearn

    outputs: Outputs = "labels" if chosen == "predict" else "logits"
    settings = (chosen, shape, dtype)
    fingerprint, identified = _fingerprint(estimator, identity, settings, "robench sklearn 1")
    return ArrayClassifier(
        answer,
        shape,
        len(labels),
        outputs=outputs,
        dtype=dtype,
        fingerprint=fingerprint,
        identified=identified,
        why=f"a scikit-learn estimator, asked by {chosen}",
        runtime={"scikit-learn": sklearn.__version__, "numpy": np.__version__},
    )


def _deciding(estimator: Any) -> Any:
    """Return the estimator that decides: the last step of a pipeline, the best one of a search."""
    while True:
        inner = (
            getattr(estimator, "best_estimator_", None) or (getattr(estimator, "steps", None) or [(None, None)])[-1][1]
        )
        if inner is None:
            return estimator
        estimator = inner


def _fingerprint(
    value: object, identity: object, settings: tuple[Any, ...], label: str = "robench function 1"
) -> tuple[str, bool]:
    """Return (fingerprint, whether it names the function) by `identity` where there is one, else by content."""
    if identity is None:
        found, known = identify(label, "content", value, *settings, packages=_SKLEARN)
        # What is not known has a fingerprint of its own each time.
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
