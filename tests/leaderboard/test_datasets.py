"""The page about a dataset: its samples, its boards, and what bounds say, in the numbers that they were given in."""

import re

import numpy as np
import pytest

from oracles.bounds import fake_bound
from oracles.evidence import fake_run, sha, toy_runs
from oracles.pages import Page, pages_of, site_of
from robench.bounds import BoundRun, Ceilings
from robench.metrics import curve, subjects
from robench_leaderboard._charts._curves import value_at
from robench_leaderboard._datasets import _reached, dataset_views
from robench_leaderboard._environment import environment
from robench_leaderboard._separation import separation_of

INF = float("inf")
VALUES = {"0.1": 1.0, "0.2": 0.75, "0.4": 0.5}
FACTS = {
    "separation": {
        "classes": ["cat", "dog", "owl"],
        "distance": [[None, 0.3, 0.9], [0.3, None, None], [0.9, None, None]],
    }
}


def bound(values=VALUES, facts=None, **changes):
    details = [{"errors": round(4 * (1 - value), 2)} for value in values.values()]
    return fake_bound(values, details=details, **({"facts": facts} if facts else {}), **changes)


def simple(number=0, n=4, **changes):
    run = fake_run(number, net=f"net{number}", n=n, eps=("0.1", "0.2"), **changes).clean(dict.fromkeys(range(n), True))
    run.add("pgd", "attack", "linf", 0.2, dict.fromkeys(range(n), ("open", 0, INF)))
    return run.add(
        "ibp",
        "certificate",
        "linf",
        0.2,
        {i: ("certified", 0.2, INF) if i < number + 1 else ("open", 0, INF) for i in range(n)},
    )


def view_of(runs, bounds=()):
    (view,) = dataset_views(subjects(runs), bounds, Ceilings(bounds))
    return view


def page_of(runs, bounds=()):
    return Page(environment().get_template("dataset.html").render(view=view_of(runs, bounds), scales=[]))


def test_ceilings_stand_there_as_computed():
    bounds = [bound(facts=FACTS)]
    page = page_of([simple()], bounds)
    for eps, errors, value in (("0.1", "0", "100.00"), ("0.2", "1", "75.00"), ("0.4", "2", "50.00")):
        assert f"{eps} ≤ {value} % {errors} 4 oracle {bounds[0].manifest.run}" in page.text
    assert "enumeration" in page.text and "Assumes: none" in page.text
    assert "no more than 50.00 % at 0.4" in page.text
    assert "robust on more than 75.00 % of these 4 samples at ε = 0.2 in ℓ∞" in page.text


def test_half_errors_are_told_as_they_are():
    """The linear program's value may be half-integral."""
    run = fake_bound({"0.1": 0.9}, details=[{"errors": 2.5}])
    (limit,) = view_of([], [run]).sets[0].norms[0].limits
    assert limit.errors == "2.5"
    for strange in (None, {}, {"errors": "many"}, {"errors": True}):
        (limit,) = view_of([], [fake_bound({"0.1": 0.9}, details=[strange])]).sets[0].norms[0].limits
        assert limit.errors is None


def test_separation_closest_first():
    found = separation_of(bound(facts=FACTS))
    assert [(pair.one, pair.other, pair.distance) for pair in found.pairs] == [("cat", "dog", 0.3), ("cat", "owl", 0.9)]
    page = page_of([simple()], [bound(facts=FACTS)])
    assert "cat and dog 0.3 0.15" in page.text
    assert "cat and dog, are 0.3 apart and meet at ε = 0.15" in page.text


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"separation": None},
        {"separation": []},
        {"separation": {"classes": ["a"], "distance": [[None]]}},
        {"separation": {"classes": ["a", "b"], "distance": [[None, 1.0]]}},
        {"separation": {"classes": ["a", "b"], "distance": [[None, 1.0], [1.0]]}},
        {"separation": {"classes": ["a", 2], "distance": [[None, 1.0], [1.0, None]]}},
        {"separation": {"classes": ["a", "b"], "distance": [[None, "1"], ["1", None]]}},
        {"separation": {"classes": ["a", "b"], "distance": [[None, -1.0], [-1.0, None]]}},
        {"separation": {"classes": ["a", "b"], "distance": [[None, True], [True, None]]}},
        {"separation": {"classes": ["a", "b"], "distance": [[None, None], [None, None]]}},
        {"separation": {"classes": "ab", "distance": "ab"}},
    ],
)
def test_facts_of_another_form_are_left_out(facts):
    run = bound(facts=facts)
    assert separation_of(run) is None
    assert view_of([simple()], [run]).sets[0].norms[0].separation is None


def test_many_classes_have_a_list_and_no_map():
    names = [f"class {i}" for i in range(60)]
    rng = np.random.default_rng(0)
    distance = rng.random((60, 60)) + 1
    distance[7, 3] = distance[3, 7] = 0.5
    table = [[None if i == j else float(distance[min(i, j), max(i, j)]) for j in range(60)] for i in range(60)]
    found = separation_of(bound(facts={"separation": {"classes": names, "distance": table}}))
    assert found.chart is None
    assert (found.pairs[0].one, found.pairs[0].other) == ("class 3", "class 7")
    assert len(found.pairs) + found.hidden == 60 * 59 // 2


def test_what_is_reached_is_the_best_certified_at_every_radius():
    about = subjects(list(toy_runs(n=50)))
    reached = _reached(about, "linf")
    eps, values = zip(*reached, strict=True)
    lines = [curve(one, "linf") for one in about]
    for at in np.linspace(0, 0.3, 301):
        assert value_at(eps, values, at) == max(value_at(line.eps, line.certified, at) for line in lines)
    assert _reached(about, "l2") == ()


def test_ceilings_of_other_samples_are_told_apart():
    bounds = [bound(), bound({"0.1": 0.6}, number=1, samples=range(2)), bound({"0.1": 0.9}, number=2, norm="l2")]
    view = view_of([simple(0), simple(1)], bounds)
    assert [(one.n, one.shared, [norm.norm for norm in one.norms]) for one in view.sets] == [
        (4, 2, ["linf", "l2"]),
        (2, 0, ["linf"]),
    ]
    page = page_of([simple(0), simple(1)], bounds)
    assert len(page.ids) == len(set(page.ids))
    assert "What no classifier can reach on 2 samples" in page.text


def test_several_bounds_stand_side_by_side():
    bounds = [bound(), bound({"0.2": 0.6}, number=1, name="other")]
    norms = view_of([simple()], bounds).sets[0].norms
    assert [(limit.row.eps.text, limit.bound, limit.row.value) for limit in norms[0].limits] == [
        ("0.1", "oracle", 1.0), ("0.2", "other", 0.6), ("0.2", "oracle", 0.75), ("0.4", "oracle", 0.5),
    ]  # fmt: skip
    assert "60.00 %" in norms[0].sentence  # the lowest counts


def test_floors_and_populations_are_no_ceilings():
    floor = bound({"0.1": 0.3}, direction="floor")
    view = view_of([simple()], [floor])
    assert view.sets[0].norms[0].chart is None
    assert view.sets[0].norms[0].sentence == ""


def test_classes_counts_boards_and_classifiers(tmp_path):
    runs = []
    for number, samples in enumerate((range(6), range(3, 9))):
        run = fake_run(number, net=f"net{number}", n=6, display={"name": f"Net {number}"})
        dataset = run.manifest.dataset.model_copy(
            update={"classes": ("cat", "dog", "owl", "yak"), "thresholds": {"linf": ("8/255",)}}
        )
        run.manifest = run.manifest.replace(
            dataset=dataset, classifier=run.manifest.classifier.model_copy(update={"classes": 4})
        )
        for i in samples:
            run.add("clean", "clean", None, None, {i: ("correct", 0.0, INF)}, label=i % 3, prediction=i % 3)
        runs.append(run)
    view = view_of(runs)
    assert view.n == 9  # samples that both saw count once
    assert [(count.name, count.n) for count in view.counts] == [("cat", 3), ("dog", 3), ("owl", 3), ("yak", 0)]
    assert [(norm, asked) for norm, _, asked in view.boards] == [("linf", 2)]
    files = site_of(tmp_path, runs)
    page = Page(files[view.page].decode())
    assert (
        {view.boards[0][1], *(page for _, page in view.classifiers)}
        <= set(page.links)
        <= {*files, "#main", *page.links}
    )
    assert all(link.partition("#")[0] in {*files, ""} for link in page.links)
    assert "8/255" in page.text and sha("toy") in page.text


def test_a_bound_without_classifiers_has_a_page():
    view = view_of([], [bound(facts=FACTS)])
    assert (view.dataset, view.n, view.boards, view.classifiers) == ("toy", 0, (), ())
    assert view.sets[0].shared == 0


def test_splits_and_hashes_are_told_apart():
    runs = [simple(0), simple(1, dataset="other"), simple(2)]
    bounds = [bound(), bound(dataset="third")]
    views = dataset_views(subjects(runs), bounds, Ceilings(bounds))
    assert [view.dataset for view in views] == ["other", "third", "toy"]
    assert len({view.page for view in views}) == 3


@pytest.mark.parametrize("domain", [(0.0, 1.0), (None, None), (-1.0, None), (None, 2.5)])
def test_the_domain_is_told(domain):
    run = simple()
    run.manifest = run.manifest.replace(dataset=run.manifest.dataset.model_copy(update={"domain": domain}))
    text = page_of([run]).text
    words = {(0.0, 1.0): "[0, 1]", (None, None): "unbounded", (-1.0, None): "[-1, ∞]", (None, 2.5): "[−∞, 2.5]"}
    assert words[domain] in text


@pytest.mark.parametrize(
    "text", ["<b>x</b>", '"><img src=x>', "javascript:alert(1)", "{{ 7 }}", "\u05d0\u05d1 x", "y" * 2000]
)
def test_strangers_words_stay_words(text):
    def pages(word):
        facts = {"separation": {"classes": [word[:500], "b"], "distance": [[None, 1.0], [1.0, None]]}}
        run = bound(facts=facts, dataset=word, name=word)
        rows = tuple(
            row.__class__(**{**vars(row), "source": word[:2000], "assumptions": word[:2000]}) for row in run.rows
        )
        mine = simple(dataset=word)
        dataset = mine.manifest.dataset.model_copy(update={"classes": (word[:500], "b"), "selection": word})
        mine.manifest = mine.manifest.replace(dataset=dataset)
        bounds = [BoundRun(run.manifest, rows, "memory")]
        return page_of([mine], bounds)

    page, harmless = pages(text), pages("plain")
    assert page.tags == harmless.tags
    assert {(tag, key) for tag, key, _ in page.attributes} == {(tag, key) for tag, key, _ in harmless.attributes}
    assert all(re.fullmatch(r"[A-Za-z0-9.#_-]+", link) for link in page.links)
    assert text[:100] in page.text


def test_the_whole_site_links_to_what_is_there(tmp_path):
    files = site_of(tmp_path, [simple(0), simple(1)], bounds=[bound(facts=FACTS)])
    for name, page in pages_of(files).items():
        for link in page.links:
            file, _, anchor = link.partition("#")
            assert not file or file in files, (name, link)
            assert not anchor or anchor in Page(files[file or name].decode()).ids, (name, link)
