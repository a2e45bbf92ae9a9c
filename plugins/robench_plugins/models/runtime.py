"""Classifiers as ONNX Runtime executes them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robench import DataError, GraphError, InputError, param
from robench.arrays import ArrayClassifier
from robench.classifier import Classifier, Outputs
from robench.graph import read_onnx
from robench.text import one_line

__all__ = ["OnnxRuntime"]

_INPUTS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_SCORES = (*_INPUTS,)
_LABELS = ("tensor(int64)", "tensor(int32)")
_SAME = 1e-3
"""Largest deviation between a sample's scores alone and in a batch, relative to the largest score."""


@dataclass(frozen=True)
class OnnxRuntime:
    """An ONNX file (also gzipped) as ONNX Runtime executes it on the CPU: for what `onnx:` cannot read as a graph.

    Any operators that the runtime has. The classifier is opaque: attacks on its answers apply, gradients and
    certificates do not; where `onnx:FILE` takes the file, prefer it. The first dimension of the one input is the batch,
    free or fixed. An output of scores [batch, classes] gives logits; one of integers [batch] labels alone. External
    data are taken from the file's own folder only. Threads are as many as torch's.
    Needs `pip install 'robench[onnxruntime]'`.
    """

    file: Path = param(..., "the .onnx file", positional=True)
    output: str | None = param(None, "the output that decides; none: the only one with scores, else the only labels")
    classes: int | None = param(None, "number of classes, needed for labels", minimum=2)
    shape: tuple[int, ...] = param((), "shape of one input, where the file leaves it open: 1+28+28", minimum=1)

    def load(self, device: torch.device, dtype: torch.dtype) -> Classifier:
        """Return the classifier, which the CPU executes whatever `device` the tensors are on.

        Inputs in `dtype` are rounded to the file's type. Raises DataError for a damaged file, GraphError for what
        cannot be run.
        """
        content, digest = read_onnx(self.file)
        runs = _Session(self.file.name, content, self.output)
        shape = self.shape or runs.shape
        if shape is None or (runs.shape is not None and shape != runs.shape):
            told = "leaves open" if runs.shape is None else f"has as {list(runs.shape)}"
            raise InputError(
                f"{self.file.name}: the shape of an input, which the file {told}: give shape=1+28+28 or so"
            )
        classes = runs.check(shape, self.classes)
        # The name of the runtime, not its version: versions differ in rounding.
        named = f"robench onnxruntime 1\0{digest}\0{runs.output}\0{shape}\0{classes}\0{dtype}"
        return ArrayClassifier(
            runs,
            shape,
            classes,
            outputs=runs.outputs,
            dtype=dtype,
            device=device,
            fingerprint=hashlib.sha256(named.encode()).hexdigest(),
            why="as ONNX Runtime executes it",
            runtime={"onnxruntime": f"{runs.version}, {runs.input_type.__name__}, CPU", "numpy": np.__version__},
        )


class _Session:
    """A network in the runtime: arrays [B, ...] in, the answers of one output out."""

    def __init__(self, name: str, content: bytes, output: str | None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise InputError("running a file as it is needs onnxruntime: pip install 'robench[onnxruntime]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.name, self.version = name, onnxruntime.__version__
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise GraphError(f"{name}: onnxruntime cannot run it: {one_line(error, 300)}") from None
        self._input = self._only_input()
        self.input_type: Any = _INPUTS[self._input.type]
        chosen = self._choose(output)
        self.output: str = chosen.name
        self.outputs: Outputs = "labels" if chosen.type in _LABELS else "logits"
        batch, *rest = self._input.shape
        self._batch = batch if isinstance(batch, int) and batch > 0 else None
        known = all(isinstance(size, int) and size > 0 for size in rest)
        self.shape: tuple[int, ...] | None = tuple(rest) if known else None

    def __call__(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the output for `x` [B, ...], in batches of the file's size where it fixes one."""
        x = x.astype(self.input_type, copy=False)
        if self._batch is None:
            return self._run(x)
        parts = []
        for start in range(0, len(x), self._batch):
            part = x[start : start + self._batch]
            fill = np.repeat(part[-1:], self._batch - len(part), 0)
            parts.append(self._run(np.concatenate([part, fill]))[: len(part)])
        return np.concatenate(parts)

    def check(self, shape: tuple[int, ...], classes: int | None) -> int:
        """Return the number of classes, by asking about three inputs, together and one alone."""
        probes = np.random.default_rng(0).random((3, *shape))
        together, alone = self(probes), self(probes[:1])
        if self.outputs == "labels":
            if classes is None:
                raise InputError(f"{self.name}: output {self.output!r} holds labels alone: give classes=N")
            return classes
        if (
            together.ndim != 2
            or len(together) != 3
            or together.shape[1] < 2
            or classes not in (None, together.shape[1])
        ):
            expected = classes or "classes"
            raise GraphError(
                f"{self.name}: output {self.output!r} is {list(together.shape)} for 3 inputs, not [3, {expected}]"
            )
        scale = np.abs(np.nan_to_num(together)).max()
        if not np.allclose(together[:1], alone, rtol=0, atol=float(_SAME * scale), equal_nan=True):
            raise InputError(f"{self.name}: the scores of a sample depend on the others in its batch")
        return int(together.shape[1])

    def _run(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        try:
            return np.asarray(self._session.run([self.output], {self._input.name: x})[0])
        except Exception as error:
            raise DataError(
                f"{self.name}: onnxruntime fails on inputs {list(x.shape)}: {one_line(error, 300)}"
            ) from None

    def _only_input(self) -> Any:
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _INPUTS or len(inputs[0].shape) < 2:
            told = ", ".join(f"{one.name!r} {one.type} {one.shape}" for one in inputs)
            raise GraphError(
                f"{self.name}: its inputs are {one_line(told, 200)}: it must have one of floats [batch, ...]"
            )
        return inputs[0]

    def _choose(self, name: str | None) -> Any:
        outputs = self._session.get_outputs()
        taken = [one for one in outputs if one.type in (*_SCORES, *_LABELS) and name in (None, one.name)]
        scores = [one for one in taken if one.type in _SCORES]
        for some in (scores, taken):
            if len(some) == 1:
                return some[0]
        told = one_line(", ".join(f"{one.name!r} {one.type} {one.shape}" for one in outputs), 300)
        raise InputError(
            f"{self.name}: which of its outputs are the scores [batch, classes]? give output=NAME; it has {told}"
        )
