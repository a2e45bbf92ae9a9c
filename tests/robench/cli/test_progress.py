"""Progress off a terminal: a line when work ends, its rate from this piece of work alone."""

import re

from robench.cli._progress import Progress, rows


def test_a_second_piece_of_work_has_a_rate_of_its_own(capsys):
    with Progress("replay") as progress:
        for total in (1000, 10):
            progress.update(total // 2, total, {})
            progress.update(total, total, {"witnesses": 3})
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["replay: 1000/1000", "replay: 10/10"]
    assert all(float(re.search(r", (\S+)/s", line)[1]) > 0 for line in lines)


def test_the_first_figures_have_no_rate_yet(capsys):
    with Progress("train", interval=0) as progress:
        progress.update(1, 4, {"loss": 2.5})
        progress.update(2, 4, {})
    first, second = capsys.readouterr().err.splitlines()
    assert first == "train: 1/4; loss 2.5"
    assert re.fullmatch(r"train: 2/4, \S+/s, \d+ s left", second)


def test_rows_are_not_taken_for_samples(capsys):
    with Progress("eval") as progress:
        progress.update(0, 2, rows({}))
        progress.update(2, 2, rows({"attack open": 292, "certificate open": 4}))
    assert capsys.readouterr().err.endswith("; rows: attack open 292, certificate open 4\n")


def test_without_figures_nothing_dangles(capsys):
    with Progress("bound transport") as progress:
        progress.update(0, 2, {})
        progress.update(2, 2, {})
    assert capsys.readouterr().err.endswith("left\n")
