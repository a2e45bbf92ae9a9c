"""The page about a classifier: every figure is the metrics' own, whatever the runs hold or lack."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

import robench
from oracles.bounds import fake_bound
from oracles.evidence import fake_run, sha, toy_runs
from oracles.nets import blobs, trained
from oracles.pages import Page, files_of, site_of
from robench.bounds import Ceilings
from robench.metrics import attribution, evaluator_table, result_at, subjects
from robench.report import interval, percent
from robench.runs import Display, EvaluatorInfo, Flag, GitState
from robench_leaderboard import build
from robench_leaderboard._boards import figures_of
from robench_leaderboard._classifiers import classifier_views
from robench_leaderboard._environment import environment
from robench_leaderboard._names import classifier_page

INF = float("inf")
CEILING = {"1/16": 1.0, "1/8": 0.9, "0.2": 0.7}


def view_of(*runs, bounds=()):
    (view,) = views_of(*runs, bounds=bounds)
    return view


def views_of(*runs, bounds=()):
    by_name = {run.manifest.run: run for run in runs}
    about, ceilings = subjects(runs), Ceilings(bounds)
    return classifier_views(about, figures_of(about, ceilings), ceilings, lambda name: by_name[name].iter_witnesses())


def page_of(*runs):
    return Page(environment().get_template("classifier.html").render(view=view_of(*runs)))


def labelled(n, number=0, names=("cat", "dog", "owl"), **changes):
    run = fake_run(number, n=n, eps=("0.1", "0.2"), **changes)
    dataset = run.manifest.dataset.model_copy(update={"classes": names})
    run.manifest = run.manifest.replace(
        dataset=dataset, classifier=run.manifest.classifier.model_copy(update={"classes": 3})
    )
    return run


def of_classes(n=9, classes=3, **changes):
    """Sample i has the label i mod `classes`; a class is the more robust, the larger its label."""
    run = labelled(n, **changes)
    for i in range(n):
        label, round_ = i % classes, i // classes
        run.add("clean", "clean", None, None, {i: ("correct", 0.0, INF)}, label=label, prediction=label)
        for eps in (0.1, 0.2):
            broken = round_ >= label + (1 if eps == 0.1 else 0)
            status = ("falsified", 0.0, eps) if broken else ("open", 0.0, INF)
            run.add("pgd", "attack", "linf", eps, {i: status}, label=label, prediction=label)
            if broken:
                run.witness("pgd", "linf", eps, i, [eps * 0.9, 0, 0, 0], clean=None)
            elif round_ == 0 and label == 2:
                run.add("ibp", "certificate", "linf", eps, {i: ("certified", eps, INF)}, label=label, prediction=label)
    return run


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    runs, bounds = toy_runs(n=60), [fake_bound(CEILING, dataset="digits", samples=range(60))]
    files = site_of(folder, runs, bounds=bounds)
    return folder, runs, bounds, files


def test_every_classifier_has_a_page_with_the_figures_of_the_metrics(toy):
    _, runs, bounds, files = toy
    about = subjects(runs)
    assert len(about) == 4
    for subject in about:
        page = Page(files[classifier_page(subject)].decode())
        for eps in subject.requested["linf"]:
            result = result_at(subject, "linf", eps, Ceilings(bounds))
            row = [percent(result.certified), percent(result.empirical), interval(result.joint_interval)]
            row.append(f"{100 * result.ceiling.value:.1f} %")
            assert " ".join(row) in page.text
            assert result.flags == () or all(flag.text in page.text for flag in result.flags)
        for text in (subject.fingerprint, subject.classifier, subject.title, subject.runs[0].run):
            assert text in page.text


def test_evaluators_and_who_settled_first_are_the_metrics(toy):
    _, runs, bounds, _ = toy
    for view in views_of(*runs, bounds=bounds):
        (norm,) = view.norms
        for i, row in enumerate(norm.rows):
            eps = row.result.eps.value
            for side, place in (("certified", 0), ("falsified", 1)):
                told = {one.evaluator: one.counts[i][place] for one in norm.settled if one.counts[i][place]}
                assert told == attribution(view.subject, "linf", eps, side)
            assert list(norm.evaluators[i][1]) == evaluator_table(view.subject, "linf", eps)
            settled = sum(sum(one.counts[i]) for one in norm.settled)
            assert settled + row.open == row.result.n
            assert norm.carried == ()


def test_evidence_of_other_norms_is_told_apart():
    run = fake_run(0, n=4, norm="l2", eps=("0.5",), evaluators=(("lip", "certificate"),)).clean(
        dict.fromkeys(range(4), True)
    )
    run.add("lip", "certificate", "l2", None, dict.fromkeys(range(3), ("certified", 0.6, INF)))
    other = fake_run(1, n=4, eps=("0.5",), evaluators=(("pgd", "attack"),)).clean(dict.fromkeys(range(4), True))
    other.add("pgd", "attack", "linf", 0.5, dict.fromkeys(range(3), ("open", 0.0, INF)) | {3: ("falsified", 0.0, 0.5)})
    other.witness("pgd", "linf", 0.5, 3, [0.4, 0, 0, 0], clean=None)
    norms = {norm.norm: norm for norm in view_of(run, other).norms}
    # In l2 the witness (distance 0.4 in every norm) breaks what no attack searched; in linf l2's proofs hold.
    assert norms["l2"].carried == ((0, 1),)
    assert {one.evaluator: one.counts for one in norms["l2"].settled} == {"lip": ((3, 0),)}
    assert norms["linf"].carried == ()  # a radius of 0.6 in l2 proves 0.3 in linf (d = 4)
    assert norms["linf"].rows[0].open == 3


def test_classes_and_the_worst_one():
    """Of 3 samples a class each: broken are 3 − label at 0.2 and 2 − label at 0.1; certified is one sample of owl."""
    view = view_of(of_classes())
    (norm,) = view.norms
    table = norm.classes
    assert [(row.name, row.n, row.clean.count) for row in table.rows] == [("cat", 3, 3), ("dog", 3, 3), ("owl", 3, 3)]
    counts = [[(at.certified.count, at.empirical.count) for at in row.at] for row in table.rows]
    assert counts == [[(0, 1), (0, 0)], [(0, 2), (0, 1)], [(1, 3), (1, 2)]]
    assert [row.worst for row in table.rows] == [(True, True), (False, False), (False, False)]
    worst = [(one.certified.share.value, one.empirical.share.value, one.empirical.of.name) for one in table.worst]
    assert worst == [(0.0, 1 / 3, "cat"), (0.0, 0.0, "cat")]
    assert [row.worst for row in norm.rows] == ["0.0 – 33.3 %", "0.0 – 0.0 %"]
    assert "cat" in str(table.chart) and "worst" in str(table.chart)


def test_the_classes_add_up_to_the_whole(toy):
    _, runs, _, _ = toy
    for run in (runs[0], of_classes(), of_classes(n=8)):
        view = view_of(run)
        for norm in view.norms:
            for i, row in enumerate(norm.rows):
                if norm.classes:
                    for side in ("certified", "empirical"):
                        share, worst = getattr(row.result, side), getattr(norm.classes.worst[i], side)
                        assert sum(getattr(one.at[i], side).count for one in norm.classes.rows) == share.count
                        assert worst.share.value <= share.value


def test_classes_without_samples_are_named_and_not_counted():
    view = view_of(of_classes(n=2))  # no owl
    assert [row.name for row in view.norms[0].classes.rows] == ["cat", "dog"]
    assert view.norms[0].classes.absent == ("owl",)


def test_of_very_many_classes_the_worst_are_shown():
    n = 60
    run = fake_run(0, n=n, eps=("0.1",))
    run.manifest = run.manifest.replace(classifier=run.manifest.classifier.model_copy(update={"classes": n}))
    for i in range(n):
        run.add("clean", "clean", None, None, {i: ("correct", 0.0, INF)}, label=i, prediction=i)
        broken = i >= 50
        run.add(
            "pgd",
            "attack",
            "linf",
            0.1,
            {i: ("falsified", 0.0, 0.1) if broken else ("open", 0.0, INF)},
            label=i,
            prediction=i,
        )
        if broken:
            run.witness("pgd", "linf", 0.1, i, [0.1, 0, 0, 0], clean=None, prediction=0)
    table = view_of(run).norms[0].classes
    assert len(table.rows) == 40 and table.hidden == 20
    assert {row.name for row in table.rows} >= {str(i) for i in range(50, 60)}


def test_errors_open_and_numerical_are_counted():
    run = fake_run(0, n=5, eps=("0.1",)).clean(dict.fromkeys(range(4), True) | {4: False})
    run.add(
        "pgd",
        "attack",
        "linf",
        0.1,
        {0: ("error", 0, INF), 1: ("open", 0, INF), 2: ("open", 0, INF), 3: ("open", 0, INF)},
    )
    run.add("ibp", "certificate", "linf", 0.1, {1: ("certified", 0.1, INF)})
    run.add("ibp", "certificate", "linf", 0.1, {2: ("open", 0, INF)}, detail='{"reason": "numerical"}')
    (row,) = view_of(run).norms[0].rows
    assert (row.open, row.numerical, row.result.errors) == (3, 1, 1)
    flags = {told.flag.code: told.where for told in view_of(run).flags}
    assert {"errors", "numerical"} <= set(flags) and set(flags.values()) == {"everywhere"}


def test_flags_say_where_they_hold():
    runs = [fake_run(0, n=2, eps=("0.1", "0.2"), evaluators=(("pgd", "attack"),)).clean({0: True, 1: True})]
    runs[0].add("pgd", "attack", "linf", 0.1, {0: ("error", 0, INF), 1: ("open", 0, INF)})
    runs[0].add("pgd", "attack", "linf", 0.2, {0: ("open", 0, INF), 1: ("open", 0, INF)})
    told = {one.flag.code: one.where for one in view_of(*runs).flags}
    assert told["errors"] == "ℓ∞ 0.1"
    assert told["one-sided"] == "everywhere"


def sides(number, kinds, **changes):
    run = fake_run(number, n=3, net=f"net{number}", evaluators=kinds, **changes).clean({0: True, 1: True, 2: False})
    for name, kind in kinds:
        status = {"attack": ("open", 0, INF), "certificate": ("certified", 0.1, INF)}[kind]
        run.add(name, kind, "linf", 0.1, {0: status, 1: ("open", 0, INF)})
    return run


IMPORTED = {"fingerprint": "import:" + "a" * 64, "origin": "imported", "trust": "self-reported"}
UNUSUAL = {
    "attacked": lambda: sides(0, (("pgd", "attack"),)),
    "certified": lambda: sides(1, (("ibp", "certificate"),)),
    "imported": lambda: sides(2, (("c", "certificate"),), source="a table", **IMPORTED),
    "opaque": lambda: opaque(),
    "one sample": lambda: fake_run(4, net="one", n=1, dataset="toy").clean({0: True}).add(
        "pgd", "attack", "linf", 0.1, {0: ("open", 0, INF)}
    ),
    "all wrong": lambda: fake_run(5, net="wrong", n=3).clean(dict.fromkeys(range(3), False)),
    "clean only": lambda: fake_run(6, net="clean", n=3, evaluators=()).clean(dict.fromkeys(range(3), True)),
    "no norm": lambda: fake_run(7, net="nothing", n=2, norm=None, eps=(), evaluators=()).clean({0: True, 1: True}),
    "radius": lambda: radius(),
    "incomplete": lambda: sides(9, (("pgd", "attack"), ("ibp", "certificate")), complete=False),
    "shapeless": lambda: sides(10, (("pgd", "attack"),), shape=()),
    "classes": lambda: of_classes(net="classes", number=11),
}  # fmt: skip


def opaque():
    run = sides(3, (("pgd", "attack"),))
    run.manifest = run.manifest.replace(classifier=run.manifest.classifier.model_copy(update={"opaque": True}))
    return run


def radius():
    run = fake_run(8, net="radius", n=3, eps=(), evaluators=(("lip", "certificate"), ("fab", "attack")))
    run.clean({0: True, 1: True, 2: False})
    run.add("lip", "certificate", "linf", None, {0: ("certified", 0.3, INF), 1: ("open", 0.0, INF)})
    run.add("fab", "attack", "linf", None, {0: ("falsified", 0.0, 0.5), 1: ("open", 0, INF)})
    return run.witness("fab", "linf", None, 0, [0.5, 0, 0, 0], clean=None)


WORDS = {
    "attacked": ("not asked", "one-sided", "one-sided"),
    "certified": ("not asked", "No attack searched"),
    "imported": ("self-reported", "a table", "imported: known by its source"),
    "opaque": ("opaque: the map as executed",),
    "one sample": ("100.0 % of 1 sample of",),
    "all wrong": ("0.0 % of 3 samples",),
    "radius": ("No ε was asked for", "minimum-norm search looked at every ε"),
    "incomplete": ("not complete",),
    "shapeless": ("unknown shape",),
}


@pytest.fixture(scope="module")
def unusual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unusual")
    runs = {name: make() for name, make in UNUSUAL.items()}
    for run in runs.values():
        run.save(folder / "results", complete=run.manifest.complete)
    from robench.runs import find_runs

    build(find_runs(folder / "results"), folder / "site")
    return runs, files_of(folder / "site")


@pytest.mark.parametrize("name", UNUSUAL)
def test_every_kind_of_run_has_a_page(unusual, name):
    runs, files = unusual
    (subject,) = subjects([runs[name]])
    page = Page(files[classifier_page(subject)].decode())
    for words in WORDS.get(name, ()):
        assert words in page.text
    assert not re.search(r"\b(None|nan|inf|undefined)\b", page.text)
    assert len(page.ids) == len(set(page.ids))
    assert all(value for tag, key, value in page.attributes if key in ("aria-label", "alt", "aria-labelledby"))
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_the_curve_reaches_beyond_the_largest_budget():
    chart = str(view_of(sides(0, (("pgd", "attack"),))).norms[0].chart)
    assert "line-empirical" in chart and "line-certified" not in chart
    assert view_of(UNUSUAL["no norm"]()).norms == ()


def test_radii_alone_make_a_curve():
    (norm,) = view_of(radius()).norms
    assert norm.rows == ()
    assert "line-empirical" in norm.chart and "line-certified" in norm.chart
    assert "stroke-dasharray" not in re.search(r'class="line-empirical">(<path[^>]*>)', norm.chart)[1]


def test_where_the_numbers_come_from():
    run = sides(0, (("pgd", "attack"),), command="robench eval -m net -d toy --norm linf --eps 0.1 -c none")
    machine = run.manifest.environment.model_copy(
        update={
            "device": "cpu (x)",
            "batch_size": 7,
            "versions": {"torch": "2.9"},
            "git": GitState(commit="c" * 40, dirty=True),
        }
    )
    info = EvaluatorInfo(
        canonical="pgd", full="pgd:steps=50,restarts=1", kind="attack", side="attack", norm="linf", default=True
    )
    display = Display(
        name="Net", paper="https://arxiv.org/abs/1706.06083", training_data="toy train", licence="MIT",
        more={"recipe": "pgd-at:eps=0.1", "train": "robench train pgd-at -d toy --out net"},
    )  # fmt: skip
    run.manifest = run.manifest.replace(environment=machine, evaluators=(info,), display=display)
    page = page_of(run)
    for words in (
        run.manifest.command, "pgd:steps=50,restarts=1", "by default", "cpu (x)", "7 samples at a time", "torch 2.9",
        "c" * 40, "files differed", "toy train", "MIT", "pgd-at:eps=0.1", "robench train pgd-at -d toy --out net",
    ):  # fmt: skip
        assert words in page.text, words
    assert "https://arxiv.org/abs/1706.06083" in page.links
    folder = f"toy-{sha('toy')[:8]}/net0-{sha('net0')[:8]}/{run.manifest.run}"
    assert f"robench replay RESULTS/{folder}" in page.text


def test_the_replay_command_names_the_folder_of_the_run(tmp_path):
    run = sides(0, (("pgd", "attack"),))
    saved = run.save(tmp_path / "results")
    said = view_of(run).runs[0].replay.removeprefix("robench replay RESULTS/")
    assert (tmp_path / "results" / said / "manifest.json").is_file()
    assert saved.location.endswith(said)


def test_runs_of_python_objects_say_which_call_repeats_them(tmp_path):
    """And it does: the line from the page, given the objects, makes the same request."""
    model, dataset = trained(), blobs(20)
    given = {"eps": ["0.02", "1/20"], "attacks": "none", "samples": "0:10", "seed": 3, "out": tmp_path}
    first = robench.evaluate(model, dataset, **given).run
    shown = view_of(first).runs[0]
    assert shown.repeat.startswith("robench.evaluate(model, dataset, attacks='none', certifiers=")
    here = {"robench": robench, "model": model, "dataset": dataset}
    again = eval(shown.repeat.removesuffix(")") + f", out={str(tmp_path / 'again')!r})", here).run
    assert again.manifest.request == first.manifest.request
    folder = Path(first.location).relative_to(tmp_path)
    assert shown.replay == f"robench.replay(robench.runs.Run.open('RESULTS/{folder}'), model=model, dataset=dataset)"
    here_too = shown.replay.replace("RESULTS", str(tmp_path))
    assert eval(here_too, here).problems == []
    page = page_of(first)
    assert "robench eval" not in page.text and shown.repeat in page.text


@pytest.mark.parametrize("command", ["", "robench eval -m 'x", "robench eval -a"])
def test_a_command_that_is_none_gives_no_call(command):
    run = sides(0, (("pgd", "attack"),), classifier="python:Net")
    run.manifest = run.manifest.replace(command=command)
    assert view_of(run).runs[0].repeat == ""


def test_newer_words_about_a_classifier_win_and_older_ones_stay():
    older = fake_run(0, n=2, display={"name": "Old", "licence": "MIT", "more": {"recipe": "a", "seed": "1"}})
    newer = fake_run(1, n=2, display={"name": "New", "more": {"recipe": "b"}})
    for run in (older, newer):
        run.clean({0: True, 1: True})
    for runs in ((older, newer), (newer, older)):
        display = view_of(*runs).display
        assert (display.name, display.licence, display.more) == ("New", "MIT", {"recipe": "b", "seed": "1"})


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(3)>',
    "javascript:alert(4)",
    "{{ 7 * 7 }}{% raw %}",
    "a&lt;b&amp;",
    "x" * 10_000,
)


@pytest.mark.parametrize("text", HOSTILE)
def test_strangers_words_stay_words(text):
    def run(word):
        made = fake_run(0, net=word, n=4, dataset=word, evaluators=((word, "attack"),), shape=(1, 2, 2))
        for i in range(4):
            made.add("clean", "clean", None, None, {i: ("correct", 0.0, INF)}, label=i % 2, prediction=i % 2)
            made.add(word, "attack", "linf", 0.1, {i: ("falsified", 0, 0.1)}, label=i % 2, prediction=i % 2)
            made.points.add_rows(
                evaluator=word, norm="linf", eps=0.1, sample=np.array([i]),
                points=np.full((1, 1, 2, 2), 0.1, np.float32),
                clean=[np.zeros((1, 2, 2), np.float32)], linf=0.1001, l2=0.3, l1=0.5, prediction=1 - i % 2, margin=-1.0,
            )  # fmt: skip
        short = word[:500]
        dataset = made.manifest.dataset.model_copy(update={"classes": (short, short[:499] + "2"), "full": word})
        display = Display(name=short, paper=short, training_data=short, licence=short, more={"recipe": word})
        made.manifest = made.manifest.replace(
            display=display, dataset=dataset, source=word, command=word, flags=(Flag(code="x", text=word),)
        )
        return made

    page, harmless = page_of(run(text)), page_of(run("plain"))
    assert page.tags == harmless.tags or sorted(set(page.tags)) == sorted(set(harmless.tags))
    assert {(tag, key) for tag, key, _ in page.attributes} == {(tag, key) for tag, key, _ in harmless.attributes}
    links = [link for link in page.links if not link.startswith("data:image/png;base64,")]
    assert all(re.fullmatch(r"[A-Za-z0-9.#_-]+", link) for link in links)
    assert text[:20] in page.text
    if len(text) < 100:
        assert text in page.text


def test_the_page_does_not_depend_on_the_order_of_runs():
    runs = [*toy_runs(n=20), *(of_classes(number=20 + i, net="many") for i in range(2))]
    template = environment().get_template("classifier.html")

    def pages(*given):
        return [template.render(view=view) for view in views_of(*given)]

    assert pages(*runs) == pages(*reversed(runs))


def test_downloads_are_there(toy):
    _, runs, _, files = toy
    for subject in subjects(runs):
        links = Page(files[classifier_page(subject)].decode()).links
        assert [link for link in links if link.endswith(".parquet")]
        assert all(link.partition("#")[0] in {*files, ""} for link in links if ":" not in link)
        assert json.loads(files["results.json"])["results"]
