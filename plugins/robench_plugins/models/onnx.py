"""Classifiers from ONNX files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from robench import param
from robench.classifier import Classifier
from robench.graph import GraphClassifier, from_onnx

__all__ = ["Onnx"]


@dataclass(frozen=True)
class Onnx:
    """A network from an ONNX file (also gzipped), in evaluation mode, with one input and one output of logits.

    The first dimension of the input is the batch; whatever batch the file was exported with, any runs. A
    softmax at the very end is dropped: it changes no decision. Operators that the network graph does not have are
    refused by name. Needs the `onnx` package (`pip install 'robench[onnx]'`).
    """

    file: Path = param(..., "the .onnx file", positional=True)

    def load(self, device: torch.device, dtype: torch.dtype) -> Classifier:
        """Return the classifier. Raises DataError for a damaged file, GraphError for an unsupported network."""
        return GraphClassifier(from_onnx(self.file), device, dtype)
