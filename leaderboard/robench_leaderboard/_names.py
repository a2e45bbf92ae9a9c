"""File names of the pages: from identities, so that a link never depends on what a stranger calls something."""

from __future__ import annotations

import hashlib

from robench.metrics import Subject
from robench.runs import slug
from robench.threat import Norm

__all__ = ["board_page", "classifier_page", "dataset_page", "scaling_page"]


def dataset_page(dataset: str, dataset_hash: str, split: str) -> str:
    """Return the name of the page about a split."""
    return f"{_split(dataset, dataset_hash, split)}.html"


def board_page(dataset: str, dataset_hash: str, split: str, norm: Norm) -> str:
    """Return the name of the board of a split in a norm."""
    return f"{_split(dataset, dataset_hash, split)}-{norm}.html"


def classifier_page(subject: Subject) -> str:
    """Return the name of the page about a classifier on a split."""
    digest = _digest(subject.fingerprint, subject.dataset_hash, subject.split)
    return f"{slug(subject.title, 40)}-{digest}.html"


def scaling_page(recipe: str, run: str) -> str:
    """Return the name of the page about a scaling curve."""
    return f"scaling-{slug(recipe, 40)}-{_digest('scaling', run)}.html"


def _split(dataset: str, dataset_hash: str, split: str) -> str:
    return f"{slug(f'{dataset}-{split}', 40)}-{_digest(dataset_hash, split)}"


def _digest(*identity: str) -> str:
    # 64 bits: nobody finds a second identity with the same page by trying.
    return hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]
