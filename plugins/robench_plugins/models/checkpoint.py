"""Classifiers from checkpoint folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from robench import param
from robench.classifier import Classifier
from robench.graph import GraphClassifier, load, read_metadata
from robench_plugins.models.cards import training_card

__all__ = ["Checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A network saved as a graph: graph.json, weights.safetensors and checkpoint.json, as `robench train` writes it."""

    folder: Path = param(..., "the checkpoint folder", positional=True)

    @property
    def card(self) -> Mapping[str, str]:
        """How it was made, by its own account: training data, recipe, seed, command."""
        return training_card(read_metadata(self.folder), self.folder.resolve().name)

    def load(self, device: torch.device, dtype: torch.dtype) -> Classifier:
        """Return the classifier. Raises DataError for a folder that is damaged or foreign."""
        graph, _ = load(self.folder)
        return GraphClassifier(graph, device, dtype)
