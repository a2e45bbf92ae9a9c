"""Randomized smoothing's published per-sample certificates (Cohen et al. 2019)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robench import param
from robench.errors import DataError
from robench.importing import ImportedRows, ImportedRun
from robench.runs import Display
from robench_plugins.importers._alpha import infer_alpha
from robench_plugins.importers._certify import Line, certified_lower, read_lines

__all__ = ["Cohen"]

SOURCE = "https://github.com/locuslab/smoothing"
PAPER = "https://arxiv.org/abs/1902.02918"
EPS = ("0.25", "0.5", "0.75", "1", "1.25", "1.5", "2")
_DATASETS: dict[str, tuple[int, tuple[int, ...]]] = {"cifar10": (10, (3, 32, 32)), "imagenet": (1000, (3, 224, 224))}
_FILE = re.compile(r"sigma_([0-9]{1,2}\.[0-9]{1,4})")
_NOISE = re.compile(r"noise_([0-9]{1,2}\.[0-9]{1,4})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,39}")


@dataclass(frozen=True)
class Cohen:
    """The CERTIFY files of Cohen et al.: a file, or a folder laid out as theirs.

    `<dataset>/<net>/noise_<training noise>/<split>/sigma_<smoothing noise>`; what a path does not tell is a parameter.
    Each file is one smoothed classifier. `lower` is the printed radius less half a printed unit; the radius as
    printed stays in the detail. α is inferred from the discrete radii near the cap unless given; where that fails, the
    confidence is null.
    """

    alpha: float | None = param(None, "failure rate of each certificate, where it is known", above=0.0, maximum=0.5)
    dataset: str = param("cifar10", "dataset, where the path does not tell: cifar10 or imagenet")
    n: int = param(100_000, "draws that each certificate rests on", minimum=1)
    n0: int = param(100, "draws that choose the class", minimum=1)
    sigma: float | None = param(None, "smoothing noise, where the file's name does not tell", above=0.0)
    split: str = param("test", "split, where the path does not tell")

    def __post_init__(self) -> None:
        """Refuse a dataset whose classes are not known."""
        if self.dataset not in _DATASETS:
            raise ValueError(f"dataset {self.dataset!r}: choose one of {', '.join(_DATASETS)}")

    def read(self, path: Path) -> Iterator[ImportedRun]:
        """Yield one run per CERTIFY file, in the order of their paths. Raises DataError."""
        if path.is_dir():
            files = sorted(found for found in path.rglob("sigma_*") if _FILE.fullmatch(found.name) and found.is_file())
            if not files:
                raise DataError(f"{path}: no CERTIFY files (sigma_<noise>) in this folder")
        elif path.exists():
            files = [path]
        else:
            raise DataError(f"{path}: no such file or folder")
        for file in files:
            yield self._run(file)

    def _run(self, file: Path) -> ImportedRun:
        lines = read_lines(file)
        place = _Place.of(file, self)
        alpha = self.alpha or infer_alpha([line.radius for line in lines], float(place.sigma), self.n)
        spec = f"n={self.n},n0={self.n0},sigma={place.sigma}" + (f",alpha={alpha:g}" if alpha else "")
        classes, shape = _DATASETS[place.dataset]
        top = max(max(line.label, line.predict) for line in lines)
        if top >= classes:
            raise DataError(f"{file}: class {top} of a dataset with {classes} classes: is the dataset {place.dataset}?")
        return ImportedRun(
            classifier=f"{place.net} | smooth:sigma={place.sigma}",
            net=f"{place.dataset}/{place.net}/sigma_{place.sigma}",
            source=SOURCE,
            dataset=place.dataset,
            split=place.split,
            classes=classes,
            sample=np.array([line.sample for line in lines], dtype=np.int64),
            label=np.array([line.label for line in lines], dtype=np.int64),
            prediction=np.array([line.predict for line in lines], dtype=np.int64),
            rows=_rows(lines, f"smoothing:{spec}", alpha, self.n + self.n0),
            norm="l2",
            eps=EPS,
            input_shape=shape,
            display=Display(name=f"{place.title} (Cohen et al. 2019)", paper=PAPER),
        )


@dataclass(frozen=True)
class _Place:
    """What a file's path says about it."""

    dataset: str
    net: str
    noise: str | None
    split: str
    sigma: str

    @classmethod
    def of(cls, file: Path, given: Cohen) -> _Place:
        name = _FILE.fullmatch(file.name)
        sigma = f"{given.sigma:g}" if given.sigma else str(float(name[1])) if name else None
        if sigma is None:
            raise DataError(f"{file}: the name does not tell the smoothing noise: give cohen:sigma=…")
        folders = [*reversed(file.absolute().parts[:-1]), "", "", "", ""]
        noise = _NOISE.fullmatch(folders[1])
        if noise and _NAME.fullmatch(folders[0]) and _NAME.fullmatch(folders[2]):
            dataset = folders[3] if folders[3] in _DATASETS else given.dataset
            return cls(dataset, f"{folders[2]}-noise-{float(noise[1])}", str(float(noise[1])), folders[0], sigma)
        stem = file.stem if _NAME.fullmatch(file.stem) and not name else "unnamed"
        return cls(given.dataset, stem, None, given.split, sigma)

    @property
    def title(self) -> str:
        net = self.net.split("-noise-")[0]
        trained = f" trained with noise {self.noise}" if self.noise else ""
        return f"σ = {self.sigma} on {net}{trained}"


def _rows(lines: Sequence[Line], evaluator: str, alpha: float | None, passes: int) -> tuple[ImportedRows, ImportedRows]:
    """Clean rows for all samples; certificates of the correct ones and abstentions.

    The prediction is CERTIFY's own, so its passes count once: on the certificate, else on the clean row.
    """
    certified = [line for line in lines if line.correct or line.abstains]
    confidence = None if alpha is None else 1 - alpha
    clean = ImportedRows(
        evaluator="clean",
        kind="clean",
        norm=None,
        eps=None,
        sample=np.array([line.sample for line in lines], dtype=np.int64),
        status=["correct" if line.correct else "incorrect" for line in lines],
        lower=0.0,
        upper=np.array([np.inf if line.correct else 0.0 for line in lines]),
        confidence=confidence,
        forwards=np.array([0 if line.correct or line.abstains else passes for line in lines]),
        seconds=np.array([0.0 if line.correct or line.abstains else line.seconds for line in lines]),
        detail=[None if line.correct or line.abstains else {"radius_printed": str(line.radius)} for line in lines],
    )
    certificates = ImportedRows(
        evaluator=evaluator,
        kind="certificate",
        norm="l2",
        eps=None,
        sample=np.array([line.sample for line in certified], dtype=np.int64),
        status=["abstain" if line.abstains else "certified" if line.radius else "open" for line in certified],
        lower=np.array([certified_lower(line.radius) for line in certified]),
        upper=np.array([0.0 if line.abstains else np.inf for line in certified]),
        confidence=confidence,
        forwards=passes,
        seconds=np.array([line.seconds for line in certified]),
        detail=[{"radius_printed": str(line.radius)} for line in certified],
    )
    return clean, certificates
