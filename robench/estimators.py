"""Classifiers from fitted scikit-learn estimators."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from robench.arrays import ArrayClassifier, fingerprint_of
from robench.classifier import Outputs
from robench.errors import InputError
from robench.graph import shape_of
from robench.text import one_line

__all__ = ["from_sklearn"]

Method = Literal["decision_function", "predict_proba", "predict"]


def from_sklearn(
    estimator: Any,
    input_shape: Sequence[int] | int | None = None,
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
    shape = shape_of(int(features) if input_shape is None else input_shape)
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
    fingerprint, identified = fingerprint_of(estimator, identity, settings, "robench sklearn 1")
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
        steps = getattr(estimator, "steps", None)
        inner = steps[-1][1] if steps else getattr(estimator, "best_estimator_", None)
        if inner is None:
            return estimator
        estimator = inner
