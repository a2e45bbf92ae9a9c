"""Clean, adversarial, difference: a classifier's first broken samples, from witnesses that keep the clean input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robench.errors import DataError
from robench.evidence import decode_clean, decode_point
from robench.threat import NORMS, Epsilon, Norm
from robench_leaderboard._png import data_uri

if TYPE_CHECKING:
    import pyarrow as pa

    from robench.metrics import Subject
    from robench.runs import Manifest

__all__ = ["Gallery", "Picture", "WitnessesOf", "galleries_of"]

WitnessesOf = Callable[[str], Iterator["pa.Table"]]
"""The witness tables of a run, by its id, part by part."""

_MOST = 12  # pictures of a classifier; at least three in each norm
_PIXELS = 600_000  # values of all pictures of a norm together
_LONGEST_SIDE = 512

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Picture:
    """One sample: three images as data URIs, and what the witness is.

    Attributes:
        sample: original index.
        label: the right class.
        prediction: the class at the adversarial point.
        clean: the clean input.
        adversarial: the witness.
        difference: their difference, centred on grey; `scale` is what white stands for.
        width: of each image, in pixels.
        height: likewise.
        scale: largest absolute change of a value.
        distances: of the witness, per norm.
        evaluator: who found it.
        eps: the budget that was searched, in the words it was given in; None for a minimum-norm search.
        run: where it lies.
    """

    sample: int
    label: int
    prediction: int
    clean: str
    adversarial: str
    difference: str
    width: int
    height: int
    scale: float
    distances: dict[Norm, float]
    evaluator: str
    eps: str | None
    run: str


@dataclass(frozen=True)
class Gallery:
    """The pictures of one norm, by sample; `note` says why there are none, or how values became brightness."""

    pictures: tuple[Picture, ...]
    note: str


@dataclass(frozen=True)
class _Witness:
    row: dict[str, Any]
    manifest: Manifest

    @property
    def rank(self) -> tuple[float, str, str, float]:
        """The nearest witness of a sample is shown; of equal ones the oldest run's."""
        row = self.row
        return row[row["norm"]], row["run"], row["evaluator"], row["eps"] or 0.0


def galleries_of(subject: Subject, witnesses_of: WitnessesOf) -> dict[Norm, Gallery]:
    """Return a gallery per norm that was asked for.

    Reads only the parts that hold the first samples of each run: those keep the clean input.
    """
    norms = list(subject.requested)
    shapes = {manifest.classifier.input_shape for manifest in subject.runs}
    reason = next((why for shape in sorted(shapes) if (why := _no_images(shape))), None)
    if reason or not shapes:
        return {norm: Gallery((), reason or "No input shape is known.") for norm in norms}
    nearest: dict[Norm, dict[int, _Witness]] = {norm: {} for norm in norms}
    for manifest in subject.runs:
        for row in _kept(witnesses_of(manifest.run)):
            mine = nearest.get(row["norm"])
            found = _Witness(row, manifest)
            if mine is not None and (row["sample"] not in mine or found.rank < mine[row["sample"]].rank):
                mine[row["sample"]] = found
    labels = dict(zip(subject.rows["sample"].tolist(), subject.rows["label"].tolist(), strict=True))
    size = math.prod(next(iter(shapes)))
    most = max(1, min(max(3, _MOST // max(1, len(norms))), _PIXELS // (3 * size)))
    return {norm: _gallery(mine, labels, most) for norm, mine in nearest.items()}


def _no_images(shape: tuple[int, ...]) -> str | None:
    if len(shape) != 3 or shape[0] not in (1, 3) or 0 in shape:
        told = "×".join(map(str, shape)) or "unknown shape"
        return f"The inputs ({told}) are not images: pictures are drawn of one or three channels, [C, H, W]."
    if max(shape) > _LONGEST_SIDE:
        return f"The inputs ({'×'.join(map(str, shape))}) are too large to be drawn on a page."
    return None


def _kept(tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
    """The witnesses that keep their clean input. Parts come in the order of samples: the rest need not be read."""
    for table in tables:
        kept = table.filter(table["clean"].is_valid())
        yield from kept.to_pylist()
        if len(kept) < len(table):
            return


def _gallery(nearest: dict[int, _Witness], labels: dict[int, int], most: int) -> Gallery:
    pictures: list[Picture] = []
    ranges: set[str] = set()
    for sample in sorted(nearest)[:most]:
        witness = nearest[sample]
        try:
            picture, shown = _picture(witness, labels.get(sample, -1))
        except DataError:
            continue  # sizes that do not fit: `robench check` names them
        pictures.append(picture)
        ranges.add(shown)
    if not pictures:
        return Gallery((), "No witness of the first samples keeps its clean input.")
    return Gallery(tuple(pictures), "Black to white is " + " or ".join(sorted(ranges)) + ".")


def _picture(witness: _Witness, label: int) -> tuple[Picture, str]:
    row, manifest = witness.row, witness.manifest
    kept = decode_clean(row)
    if kept is None:
        raise DataError("no clean input")
    clean, point = np.nan_to_num(kept.astype(np.float64)), np.nan_to_num(decode_point(row).astype(np.float64))
    if clean.ndim != 3 or clean.shape[0] not in (1, 3) or max(clean.shape) > _LONGEST_SIDE:
        raise DataError(f"{clean.shape} is no image")
    low, high = manifest.dataset.bounds
    told = f"{low:g} to {high:g}"
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = float(clean.min()), float(clean.max())
        told = "the clean input's own range"
    with np.errstate(over="ignore"):
        delta = point - clean
    scale = float(np.abs(delta).max())
    if not (math.isfinite(scale) and math.isfinite(high - low)):
        raise DataError("values too large to be drawn")
    picture = Picture(
        sample=row["sample"],
        label=label,
        prediction=row["prediction"],
        clean=data_uri(_bytes(clean, low, high)),
        adversarial=data_uri(_bytes(point, low, high)),
        difference=data_uri(_bytes(delta, -scale, scale)),
        width=clean.shape[2],
        height=clean.shape[1],
        scale=scale,
        distances={norm: row[norm] for norm in NORMS},
        evaluator=row["evaluator"],
        eps=_words(row["eps"], manifest),
        run=row["run"],
    )
    return picture, told


def _words(eps: float | None, manifest: Manifest) -> str | None:
    if eps is None:
        return None
    given = {Epsilon.parse(text).value: text for text in manifest.request.eps}
    return given.get(eps, f"{eps:.4g}")


def _bytes(image: Floats, low: float, high: float) -> npt.NDArray[np.uint8]:
    """[C, H, W] in [low, high] as [H, W] or [H, W, 3] in 0 … 255; an empty range is grey."""
    span = high - low
    share = np.clip((image - low) / span, 0.0, 1.0) if span > 0 else np.full(image.shape, 0.5)
    values = np.floor(share * 255 + 0.5).astype(np.uint8)
    return values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))
