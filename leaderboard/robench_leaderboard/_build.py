"""From runs and bounds to a folder of pages and files, in one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robench.bounds import Ceilings
from robench.folders import MARKER, check, marker, replace_folder
from robench.metrics import RandomResult, Subject, random_results, subjects
from robench.runs import Run
from robench_leaderboard._bars import EXAMPLE_SAMPLES, worked_example
from robench_leaderboard._boards import Board, Figures, boards_of, figures_of
from robench_leaderboard._classifiers import classifier_views
from robench_leaderboard._curves import panels_of
from robench_leaderboard._datasets import dataset_views
from robench_leaderboard._downloads import COLUMNS, board_files, evidence_file, evidence_of, figure_files
from robench_leaderboard._environment import environment, size_words
from robench_leaderboard._health import rules
from robench_leaderboard._methods import FLAGS, TRUST, speakers_of
from robench_leaderboard._names import classifier_page
from robench_leaderboard._random import random_rows
from robench_leaderboard._scaling import ScaleView, scale_views

if TYPE_CHECKING:
    import pyarrow as pa

    from robench.bounds import BoundRun
    from robench.scaling import Scale

__all__ = ["build_site"]


def build_site(runs: Sequence[Run], site: Path, bounds: Sequence[BoundRun] = (), scales: Sequence[Scale] = ()) -> Path:
    """Build the site of `runs` in `site`; return its index page. Raises InputError where the folder is not ours."""
    site = site.resolve()
    check(site, "site")
    runs = sorted(runs, key=lambda run: run.manifest.run)
    bounds = sorted(bounds, key=lambda run: run.manifest.run)
    about, ceilings = subjects(runs), Ceilings(bounds)
    figures = figures_of(about, ceilings)
    boards = boards_of(about, figures)
    drawn = random_results(runs)
    curves = scale_views(scales, list(figures.values()))
    files = figure_files(boards, _summary(runs, figures, drawn))
    for board in boards:
        files |= board_files(board)
    files |= {evidence_file(subject): evidence_of(subject, runs) for subject in about}
    made = _Pages(about, boards, figures, ceilings, bounds, _witnesses(runs), files, drawn, curves)
    pages = {name: text.encode() for name, text in made.all()}
    replace_folder(site, files | pages | {MARKER: marker("site")})
    return site / "index.html"


@dataclass(frozen=True)
class _Pages:
    """Everything that the pages are made of."""

    subjects: Sequence[Subject]
    boards: Sequence[Board]
    figures: Figures
    ceilings: Ceilings
    bounds: Sequence[BoundRun]
    witnesses: Callable[[str], Iterator[pa.Table]]
    files: dict[str, bytes]
    drawn: Sequence[RandomResult]
    scales: Sequence[ScaleView]

    def all(self) -> Iterator[tuple[str, str]]:
        """Yield each page's name and text."""
        made = environment()

        def page(template: str, **context: Any) -> str:
            return made.get_template(template).render(context)

        datasets = dataset_views(self.subjects, self.bounds, self.ceilings)
        lists = {"drawn": self.drawn, "scales": self.scales}
        example = {"example": worked_example(), "example_samples": EXAMPLE_SAMPLES}
        yield "index.html", page("index.html", boards=self.boards, datasets=datasets, **lists, **example)
        if self.drawn:
            yield "randomized.html", page("randomized.html", rows=random_rows(self.drawn))
        for curve in self.scales:
            yield curve.page, page("scaling.html", view=curve)
        yield "methods.html", page("methods.html", meanings=FLAGS, trust=TRUST, rules=rules(), **self._spoken())
        yield "downloads.html", page("downloads.html", columns=COLUMNS, **self._listed())
        for board in self.boards:
            siblings = [other for other in self.boards if other.dataset_page == board.dataset_page]
            panels = panels_of(board, self.ceilings)
            yield board.page, page("board.html", board=board, siblings=siblings, panels=panels)
        for dataset in datasets:
            mine = [curve for curve in self.scales if curve.dataset_page == dataset.page]
            yield dataset.page, page("dataset.html", view=dataset, scales=mine)
        for classifier in classifier_views(self.subjects, self.figures, self.ceilings, self.witnesses):
            view = replace(classifier, downloads=self._downloads(classifier.subject))
            yield view.page, page("classifier.html", view=view)

    def _downloads(self, subject: Subject) -> tuple[tuple[str, str], ...]:
        name = evidence_file(subject)
        rows, size = f"{len(subject.rows):,} rows", size_words(len(self.files[name]))
        return ((name, f"all evidence: {rows}, Parquet, {size}"),)

    def _spoken(self) -> dict[str, Any]:
        known = {flag.code for flag in FLAGS}
        codes = {flag.code for result in self.figures.values() for flag in result.flags}
        return {"speakers": speakers_of(self.figures.values(), self.bounds), "others": sorted(codes - known)}

    def _listed(self) -> dict[str, Any]:
        classifiers = [
            {
                "page": classifier_page(subject),
                "name": subject.title,
                "dataset": subject.dataset,
                "split": subject.split,
                "rows": len(subject.rows),
                "file": evidence_file(subject).removesuffix(".parquet"),
            }
            for subject in self.subjects
        ]
        sizes = {name: len(data) for name, data in self.files.items()}
        return {"boards": self.boards, "total": len(self.figures), "classifiers": classifiers, "sizes": sizes}


def _summary(runs: Sequence[Run], figures: Figures, drawn: Sequence[RandomResult]) -> dict[str, Any]:
    """The document of `eval --json` about `runs`, from figures that are already there."""
    names = [run.manifest.run for run in runs]
    return {
        "schema": 1,
        "run": names[0] if len(names) == 1 else names,
        "results": [
            *(result.document() for result in figures.values()),
            *(result.document() for result in drawn),
        ],
    }


def _witnesses(runs: Sequence[Run]) -> Callable[[str], Iterator[pa.Table]]:
    """Return a function that yields the witness tables of a run, by its id, part by part."""
    by_name = {run.manifest.run: run for run in runs}
    return lambda name: by_name[name].iter_witnesses()
