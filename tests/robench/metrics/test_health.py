"""The grade of hand-made evidence: what each indicator sees, what it does not, and when a number counts as probed.

Thresholds, shares and counts are the catalogue's: the tests ask for one sample more, or none, whatever they are.
"""

import json
import math

import pytest

from oracles.evidence import composite, fake_run, info
from robench.health import CATALOGUE, LEAST_BACKWARDS, beyond, readings
from robench.metrics import health as health_of
from robench.metrics import results, subjects, summarise

INF, N, EPS = math.inf, 40, 0.1
PROBE = [one for one in CATALOGUE.values() if one.origin == "probe"]
ROWS = [one for one in CATALOGUE.values() if one.origin == "rows"]
PGD = info("pgd", access="gradients")
FOUND = ("falsified", 0.0, 0.04)
OPEN = ("open", 0.0, INF)


def least(indicator, n=N):
    """The fewest of n samples that raise an indicator."""
    return next(k for k in range(1, n + 1) if k >= indicator.count and k / n > indicator.share)


def run_of(*evaluators, number=0, eps=("0.1",), n=N, **more):
    return fake_run(number, n=n, eps=eps, evaluators=evaluators, **more).clean(dict.fromkeys(range(n), True))


def attacked(run, name, statuses, eps=EPS, *, backwards=LEAST_BACKWARDS, **more):
    return run.add(name, "attack", "linf", eps, statuses, backwards=backwards, **more)


def all_open(n=N):
    return dict.fromkeys(range(n), OPEN)


def broken(k, n=N):
    return {i: FOUND if i < k else OPEN for i in range(n)}


def judged(*runs, eps=EPS):
    (subject,) = subjects(runs)
    return health_of(subject, "linf", eps)


def raised(*runs, eps=EPS):
    found = judged(*runs, eps=eps)
    assert (found.grade == "flagged") == any(one.raised and one.indicator.decides for one in found.indicators)
    return {one.indicator.code for one in found.indicators if one.raised}


# ------------------------------------------------------------------------------------------------------ from rows

RIVALS = {  # code -> (the rival, its ε in the rows, its backward passes)
    "blackbox-stronger": (info("square", access="logits"), EPS, 0),
    "transfer-stronger": (info("transfer", access="transfer"), EPS, 0),
    "single-step-breaks-more": (info("fgsm", access="gradients"), EPS, 1),
    "minimum-norm-disagrees": (info("ddn", access="gradients", per_eps=False), None, 100),
    "budget-not-helping": (PGD, 0.05, LEAST_BACKWARDS),
}


def pair(code, ours, theirs, **more):
    """Two runs: gradient attacks with the rows `ours`, the rival of `code` with the rows `theirs`."""
    rival, eps, passes = RIVALS[code]
    first = attacked(run_of(PGD), "pgd", ours, **more)
    second = run_of(rival, number=1, eps=(str(eps or EPS),))
    return first, attacked(second, rival.canonical, theirs, eps, backwards=passes)


def test_every_indicator_from_rows_has_a_rival_here():
    assert {one.code for one in ROWS} == set(RIVALS)


@pytest.mark.parametrize("code", RIVALS)
def test_what_gradients_left_and_a_rival_broke_is_counted(code):
    k = least(CATALOGUE[code])
    assert raised(*pair(code, all_open(), broken(k))) == {code}
    assert raised(*pair(code, all_open(), broken(k - 1))) == set()
    (one,) = judged(*pair(code, all_open(), broken(k - 1))).indicators
    assert (one.indicator.code, one.n, one.beyond) == (code, N, k - 1)


@pytest.mark.parametrize("code", RIVALS)
def test_what_gradients_broke_too_contradicts_nothing(code):
    assert raised(*pair(code, broken(N), broken(N))) == set()


@pytest.mark.parametrize("code", RIVALS)
def test_gradient_attacks_that_hardly_tried_cannot_be_contradicted(code):
    short = pair(code, all_open(), broken(N), backwards=LEAST_BACKWARDS - 1)
    assert judged(*short).indicators == ()
    more = attacked(run_of(info("apgd", access="gradients"), number=2), "apgd", all_open(), backwards=2)
    assert raised(*short, more) == {code}, "passes of several gradient attacks add up"


@pytest.mark.parametrize("code", RIVALS)
def test_samples_that_gradient_attacks_never_saw_say_nothing(code):
    """The rival came first, in a cascade, and left only what it did not break."""
    k = least(CATALOGUE[code])
    ours = dict.fromkeys(range(k, N), OPEN)
    assert raised(*pair(code, ours, broken(k))) == set()


@pytest.mark.parametrize("code", RIVALS)
def test_another_gradient_attack_that_broke_them_settles_it(code):
    rescue = attacked(run_of(info("apgd", access="gradients"), number=2), "apgd", broken(N))
    assert raised(*pair(code, all_open(), broken(N)), rescue) == set()


@pytest.mark.parametrize("code", RIVALS)
def test_what_lies_beyond_the_budget_is_not_missed(code):
    rival, eps, passes = RIVALS[code]
    far = dict.fromkeys(range(N), ("falsified", 0.0, 0.15))
    first = attacked(run_of(PGD), "pgd", all_open())
    second = run_of(rival, number=1, eps=("0.2",))
    attacked(second, rival.canonical, far, None if eps is None else 0.2, backwards=passes)
    assert raised(first, second) == set()


@pytest.mark.parametrize("code", RIVALS)
def test_errors_are_not_left_open(code):
    assert raised(*pair(code, dict.fromkeys(range(N), ("error", 0.0, INF)), broken(N))) == set()


@pytest.mark.parametrize("code", RIVALS)
def test_runs_that_do_not_tell_what_attacks_ask_for_say_nothing(code):
    rival, eps, passes = RIVALS[code]
    old = rival.model_copy(update={"access": None})
    first = attacked(run_of(PGD), "pgd", all_open())
    second = run_of(old, number=1, eps=(str(eps or EPS),))
    attacked(second, old.canonical, broken(N), eps, backwards=passes)
    assert raised(first, second) == set()


def test_one_cascade_tells_it_by_its_stages():
    both = composite("both", apgd="gradients", square="logits", again="gradients")
    run = run_of(both)
    attacked(run, "apgd", {**all_open(), 0: FOUND})
    attacked(run, "square", {i: FOUND if i < 20 else OPEN for i in range(1, N)}, backwards=0)
    attacked(run, "again", dict.fromkeys(range(20, N), OPEN))
    found = {one.indicator.code: one for one in judged(run).indicators}
    assert set(found) == {"blackbox-stronger"}
    assert (found["blackbox-stronger"].beyond, found["blackbox-stronger"].raised) == (19, True)


def test_a_black_box_attack_that_comes_first_says_nothing():
    run = run_of(composite("both", square="logits", apgd="gradients"))
    attacked(run, "square", broken(20), backwards=0)
    attacked(run, "apgd", dict.fromkeys(range(20, N), OPEN))
    assert judged(run).grade == "unprobed"
    assert raised(run) == set()


def test_one_attack_that_a_run_asks_at_two_budgets():
    """At the larger ε it meets only what it left at the smaller one: nothing to contradict."""
    run = run_of(PGD, eps=("0.05", "0.1"))
    attacked(run, "pgd", broken(20), 0.05)
    attacked(run, "pgd", dict.fromkeys(range(20, N), OPEN))
    assert raised(run) == set()
    assert raised(run, eps=0.05) == set()


def test_imports_are_neither_judged_nor_held_against_anybody():
    rival = run_of(info("square", access="logits"), number=1, origin="imported", trust="imported")
    attacked(rival, "square", broken(N), backwards=0)
    assert judged(attacked(run_of(PGD), "pgd", all_open()), rival).indicators == ()
    probed = run_of(info("probe", access="gradients"), origin="imported", trust="imported")
    attacked(probed, "probe", all_open(), detail=[good()] * N)
    assert judged(probed).grade == "unprobed"


# ----------------------------------------------------------------------------------------------------- from probes


def good(**values):
    """A detail where every indicator lies on its threshold, which is no bad sign, but those given."""
    return {"health": {one.code: one.threshold for one in PROBE} | {k.replace("_", "-"): v for k, v in values.items()}}


def probed(details, statuses=None, eps=("0.1",), **more):
    """A run of a probe: a detail per sample, None where it was not run."""
    run = run_of(info("probe", access="gradients"), n=len(details), eps=eps, **more)
    rows = {i: (statuses or {}).get(i, OPEN) for i, detail in enumerate(details) if detail is not None}
    return attacked(run, "probe", rows, detail=[detail for detail in details if detail is not None], backwards=6)


def bad(indicator):
    return indicator.threshold + (1 if indicator.direction == "above" else -1)


def test_probed_and_nothing_found_is_clean():
    found = judged(probed([good()] * N))
    assert (found.grade, found.reasons, found.probed, found.unbroken) == ("clean", (), N, N)
    assert [one.indicator.code for one in found.indicators] == [one.code for one in PROBE]


@pytest.mark.parametrize("indicator", PROBE, ids=[one.code for one in PROBE])
def test_each_indicator_is_raised_by_more_than_its_share(indicator):
    k = least(indicator)
    worse = {indicator.code: bad(indicator)}
    found = judged(probed([good(**worse)] * k + [good()] * (N - k)))
    assert found.grade == ("flagged" if indicator.decides else "clean")
    assert [one.indicator.code for one in found.indicators if one.raised] == [indicator.code]
    assert judged(probed([good(**worse)] * (k - 1) + [good()] * (N - k + 1))).grade == "clean"
    if indicator.decides:
        (reason,) = found.reasons
        assert reason.startswith(indicator.text)
        assert reason.endswith(f" % of {N} samples")


def test_without_a_probe_nothing_is_known():
    run = attacked(run_of(PGD), "pgd", all_open(), detail=[{"restart": 1}] * N)
    assert (judged(run).grade, judged(run).reasons) == ("unprobed", ())


def test_a_probe_elsewhere_says_nothing_here():
    run = probed([good()] * N, eps=("0.1", "0.2"))
    attacked(run, "probe", all_open(), 0.2)
    assert (judged(run).grade, judged(run, eps=0.2).grade) == ("clean", "unprobed")


def test_what_survives_must_have_been_probed():
    """The number is made of unbroken samples: a probe of the broken ones alone does not carry it."""
    half = [good() if i < N // 2 else None for i in range(N)]
    some = probed(half)
    attacked(some, "pgd", dict.fromkeys(range(N // 2, N), OPEN))
    assert (judged(some).grade, judged(some).probed) == ("clean", N // 2)
    fewer = probed([None, *half[1:]])
    attacked(fewer, "pgd", {i: OPEN for i in range(N) if not 0 < i < N // 2})
    assert judged(fewer).grade == "unprobed"
    fallen = probed(half, statuses=dict.fromkeys(range(N // 2), FOUND))
    attacked(fallen, "pgd", dict.fromkeys(range(N // 2, N), OPEN))
    assert judged(fallen).grade == "unprobed"


def test_what_was_broken_speaks_for_the_gradients():
    """A probe looks at the few that are left: shares are taken of all that was looked at or broken."""
    indicator = next(one for one in PROBE if one.decides and 0.1 <= one.share < 0.5)
    odd, left = least(indicator) - 1, N // 2
    details = [None] * (N - left) + [good(**{indicator.code: bad(indicator)})] * odd + [good()] * (left - odd)
    run = probed(details)
    attacked(run, "pgd", dict.fromkeys(range(N - left), FOUND))
    found = {one.indicator.code: one for one in judged(run).indicators}[indicator.code]
    assert (found.n, found.beyond, judged(run).grade) == (N, odd, "clean")
    alone = judged(probed(details))
    assert {one.indicator.code: one for one in alone.indicators}[indicator.code].n == left
    assert alone.reasons


def test_an_attack_that_measures_one_thing_is_no_probe():
    run = probed([{"health": {"loss-not-rising": 1.0}}] * N)
    assert judged(run).grade == "unprobed"
    assert [one.indicator.code for one in judged(run).indicators] == ["loss-not-rising"]


def test_the_worse_of_two_figures_about_a_sample_counts():
    run = run_of(composite("both", first="gradients", second="gradients"))
    for name, value in (("first", 1.0), ("second", 0.0)):
        attacked(run, name, all_open(), detail=[good(randomness=value)] * N)
    assert raised(run) == {"randomness"}


# ------------------------------------------------------------------------------------------------- details of others

HOSTILE = {
    "a string": '{"health": "fine"}',
    "a list": '{"health": [1, 2]}',
    "a number": '{"health": 1e400}',
    "no object": '["health"]',
    "no JSON": '{"health": ',
    "texts": json.dumps({"health": {one.code: "<script>alert(1)</script>" for one in PROBE}}),
    "not finite": json.dumps({"health": {one.code: math.nan for one in PROBE}}),
    "infinite": json.dumps({"health": {one.code: math.inf for one in PROBE}}),
    "beyond doubles": '{"health": {"randomness": 1' + "0" * 400 + "}}",
    "beyond integers": '{"health": {"randomness": 1' + "0" * 5000 + "}}",
    "unknown codes": json.dumps({"health": {f"<b>{i}</b>": 1 for i in range(1000)}}),
    "from rows": json.dumps({"health": {one.code: 1.0 for one in ROWS}}),
    "nested": '{"health": ' + "[" * 30_000 + "]" * 30_000 + "}",
    "over the limit": json.dumps({"health": good()["health"], "more": "x" * 70_000}),
    "nothing": '{"health": {}}',
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_figure_is_ignored(case):
    run = probed([HOSTILE[case]] * N)
    document = summarise([run])["results"][0]["health"]
    assert (document["grade"], document["indicators"]) == ("unprobed", {})
    json.dumps(document, allow_nan=False)


def test_figures_beside_nonsense_still_count():
    assert readings({"health": {"randomness": True, "logit-scale": [1], "x": 2}}) == {"randomness": 1.0}
    assert beyond({"health": {"randomness": 1, "logit-scale": "1e9"}}) == ["randomness"]
    assert readings(None) == readings("health") == {}


# --------------------------------------------------------------------------------------------------------- results


def test_the_grade_stands_beside_the_number_and_blocks_no_rank():
    run = probed([good(randomness=1.0)] * N)
    (result,) = results([run])
    (flag,) = [flag for flag in result.flags if flag.code == "health"]
    assert result.health.reasons[0] in flag.text
    assert result.rankable
    document = result.document()["health"]
    assert document["grade"] == "flagged"
    assert document["reasons"] == list(result.health.reasons)
    assert document["indicators"]["randomness"] == {
        "n": N, "beyond": N, "share": 1.0, "threshold": CATALOGUE["randomness"].threshold, "direction": "above",
        "limit": CATALOGUE["randomness"].share, "raised": True,
    }  # fmt: skip
    json.dumps(document, allow_nan=False)


def test_without_attacks_there_is_nothing_to_judge():
    run = run_of(info("ibp", "certificate"))
    run.add("ibp", "certificate", "linf", EPS, all_open())
    (result,) = results([run])
    assert result.health is None
    assert result.document()["health"] is None


def test_the_catalogue_is_complete_and_in_words():
    for code, one in CATALOGUE.items():
        assert code == one.code
        assert code.replace("-", "").isalnum()
        assert all(
            text and text.isprintable() and not text.endswith(".") for text in (one.measures, one.source, one.text)
        )
        assert 0 <= one.share < 1 <= one.count
        assert not one.beyond(math.nan) and not one.beyond(one.threshold)
        assert one.beyond(bad(one))
