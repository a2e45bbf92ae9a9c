"""The compact table: which ε it shows, how wide it gets, what strangers can put into it."""

import pytest
from rich.cells import cell_len

from oracles.bounds import fake_bound
from oracles.evidence import fake_run, probed_run
from robench.bounds import Ceilings
from robench.cli._overview import overview
from robench.metrics import results
from robench.report import headline
from robench.threat import Epsilon

INF = float("inf")
HOSTILE = "\u202e[red]Ω" + "宽" * 100 + "x" * 100


def measured(number, broken, *, norm="linf", eps=("0.1",), thresholds=None, **more):
    """Four samples, the last misclassified, the first certified everywhere; `broken` holds a number of samples by ε."""
    run = fake_run(number, n=4, norm=norm, eps=eps, **more)
    if thresholds:
        run.manifest = run.manifest.replace(dataset=run.manifest.dataset.model_copy(update={"thresholds": thresholds}))
    run.clean({0: True, 1: True, 2: True, 3: False})
    for text, count in zip(eps, broken, strict=True):
        value = Epsilon.parse(text).value
        states = {i: ("falsified", 0, value) if i > 2 - count else ("open", 0, INF) for i in range(3)}
        run.add("pgd", "attack", norm, value, states)
        for i, (state, _, _) in states.items():
            if state == "falsified":
                run.witness("pgd", norm, value, i, [value, 0, 0, 0])
        left = {i: ("open", 0, INF) for i, (state, _, _) in states.items() if state == "open"}
        run.add("ibp", "certificate", norm, value, left | {0: ("certified", value, INF)})
    return run


def test_a_row_per_classifier_and_the_ceilings_last():
    runs = [
        measured(0, (1, 2), eps=("0.1", "0.2"), net="b"),
        measured(1, (0,), norm="l2", eps=("0.01",), net="b"),
        measured(2, (2, 2), eps=("0.1", "0.2"), net="a"),
    ]
    ceilings = Ceilings([fake_bound({"0.1": 1.0, "0.2": 0.5}), fake_bound({"0.01": 0.75}, number=1, norm="l2")])
    found = sorted(results(runs, ceilings), key=lambda result: result.subject.classifier != "b")
    lines = overview(found)
    assert lines == [
        "toy test, 4 samples: certified – empirical accuracy",
        "",
        "                         clean       linf 0.1        l2 0.01",
        "b                       75.0 %  25.0 – 50.0 %  25.0 – 75.0 %",
        "a                       75.0 %  25.0 – 25.0 %              -",
        "no classifier is above                100.0 %         75.0 %",
        "no classifier is above, at other ε: linf 0.2: 50.0 %",
    ]


@pytest.mark.parametrize(("eps", "marked"), [("1/8", True), ("1/16", False)])
def test_a_flagged_number_is_marked_and_the_mark_explained(eps, marked):
    run = probed_run(0, "masked", bad={"blackbox-stronger": 0.5})
    run.manifest = run.manifest.replace(
        dataset=run.manifest.dataset.model_copy(update={"thresholds": {"linf": (eps,)}})
    )
    lines = overview(results([run]))
    assert any(line.endswith("≤ 50.0 % ?") for line in lines) == marked
    assert any(line.startswith("? ") and "may be too high" in line for line in lines) == marked


@pytest.mark.parametrize(
    ("thresholds", "eps", "shown"),
    [
        (None, ("0.1", "0.2", "0.3"), "0.2"),
        (None, ("0.1", "0.2", "0.3", "0.4"), "0.2"),
        ({"linf": ("3/10", "0.4")}, ("0.1", "0.2", "0.3"), "0.3"),
        ({"linf": ("0.4",), "l2": ("0.1",)}, ("0.1", "0.2"), "0.1"),
    ],
)
def test_the_headline_is_the_boards(thresholds, eps, shown):
    found = results([measured(0, [0] * len(eps), eps=eps, thresholds=thresholds)])
    assert str(headline(found, "linf")) == shown
    assert headline(found, "l2") is None


def test_without_thresholds_the_headline_is_where_most_were_asked():
    runs = [measured(0, (0,), eps=("0.1",), net="a"), measured(1, (0,) * 3, eps=("0.1", "0.2", "0.3"), net="b")]
    assert str(headline(results(runs), "linf")) == "0.1"


def test_names_of_strangers_are_cut_and_obeyed_by_nothing():
    run = measured(0, (1,), net="n")
    run.manifest = run.manifest.replace(
        display=run.manifest.display.model_copy(update={"name": HOSTILE}),
    )
    lines = overview(results([run]))
    assert max(map(cell_len, lines)) <= 100
    assert "\u202e" not in "".join(lines) and "[red]Ω宽" in lines[3]
    assert lines[3].endswith("…     75.0 %  25.0 – 50.0 %") or "…" in lines[3]


def test_what_cannot_be_ranked_is_marked():
    run = fake_run(n=2, evaluators=(("pgd", "attack"),)).clean({0: True, 1: True})
    run.add("pgd", "attack", "linf", 0.1, {0: ("error", 0, INF), 1: ("open", 0, INF)})
    lines = overview(results([run]))
    assert lines[3].endswith("≤ 100.0 % !")
    assert lines[-1].startswith("! not to be ranked (") and "errors" in lines[-1]


def test_sets_of_samples_have_tables_of_their_own():
    runs = [measured(0, (1,), dataset="one"), measured(1, (1,), dataset="two")]
    lines = overview(results(runs))
    assert [line for line in lines if "samples" in line] == [
        "one test, 4 samples: certified – empirical accuracy",
        "two test, 4 samples: certified – empirical accuracy",
    ]
    assert overview([]) == []
