"""Ceilings where they hold, counted in whole samples, against figures that come from a known truth."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.bounds import fake_bound
from oracles.evidence import fake_run, sha
from robench.bounds import Ceilings
from robench.metrics import BLOCKING, above, result_at, results, subjects, summarise
from robench.runs import samples_hash
from robench.threat import Epsilon

INF = math.inf
KEY = (sha("toy"), "test", samples_hash(range(4)))
values = st.sampled_from([0.0, 0.25, 0.4, 0.5, 0.75, 1.0])
budgets = st.lists(st.sampled_from(["0.05", "0.1", "0.2", "0.3", "0.5"]), min_size=1, unique=True)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            budgets.map(sorted),
            values,
            st.sampled_from(["linf", "l2"]),
            st.sampled_from(["ceiling", "floor"]),
            st.sampled_from(["samples", "population"]),
            st.sampled_from([4, 5]),
            st.sampled_from(["toy", "other"]),
        ),
        max_size=5,
    )
)
def test_the_lowest_ceiling_at_or_below_the_budget(drawn):
    bounds = [
        fake_bound(
            dict.fromkeys(eps, value),
            number=number,
            norm=norm,
            direction=direction,
            scope=scope,
            samples=range(n),
            dataset=dataset,
        )
        for number, (eps, value, norm, direction, scope, n, dataset) in enumerate(drawn)
    ]
    ceilings = Ceilings(bounds)
    for norm in ("linf", "l2", "l1"):
        for asked in (0.01, 0.05, 0.1, 0.15, 0.5, 2.0):
            mine = [
                (value, float(text))
                for eps, value, of, direction, scope, n, dataset in drawn
                for text in eps
                if (of, direction, scope, n, dataset) == (norm, "ceiling", "samples", 4, "toy") and float(text) <= asked
            ]
            found = ceilings.at(*KEY, norm, asked)
            assert (found is None) == (not mine)
            if found is not None:
                assert (found.value, found.eps) == min(mine)
                assert any(run.manifest.run == found.run for run in bounds)
        curve = ceilings.curve(*KEY, norm)
        assert [ceilings.at(*KEY, norm, eps).value for eps, _ in curve] == [value for _, value in curve]
        assert list(curve) == sorted(curve) and [v for _, v in curve] == sorted((v for _, v in curve), reverse=True)


def test_the_order_of_bounds_does_not_matter_and_none_is_false():
    bounds = [fake_bound({"0.1": 0.5, "0.2": 0.5}, number=number) for number in range(3)]
    first, second = Ceilings(bounds).at(*KEY, "linf", 0.3), Ceilings(reversed(bounds)).at(*KEY, "linf", 0.3)
    assert first == second
    assert first.run == bounds[0].manifest.run and first.eps == 0.1
    assert not Ceilings() and Ceilings(bounds)
    assert Ceilings().curve(*KEY, "linf") == ()


@given(st.integers(1, 3000), st.data())
def test_above_counts_whole_samples(n, data):
    count = data.draw(st.integers(0, n))
    errors = Fraction(data.draw(st.integers(0, 2 * n)), 2)  # half-integral, as of a linear program
    exact = (n - errors) / n
    allowed = math.floor(n - errors)
    assert above(count, n, float(exact)) == max(0, count - allowed)
    up = float(exact) if Fraction(float(exact)) >= exact else math.nextafter(float(exact), 1)
    assert above(count, n, min(1.0, math.nextafter(up, 1))) == max(0, count - allowed)


def test_nothing_is_above_in_an_empty_set():
    assert above(0, 0, 0.0) == 0


def attacked(**more):
    run = fake_run(0, n=4, eps=("0.1", "0.2"), evaluators=(("pgd", "attack"), ("ibp", "certificate")), **more)
    run.clean(dict.fromkeys(range(4), True))
    for eps in (0.1, 0.2):
        run.add("pgd", "attack", "linf", eps, {**dict.fromkeys(range(3), ("open", 0, INF)), 3: ("falsified", 0, 0.05)})
        run.add("ibp", "certificate", "linf", eps, {0: ("certified", eps, INF)})
    return run


def test_a_result_carries_its_ceiling_and_says_what_the_attacks_missed():
    bound = fake_bound({"0.1": 0.75, "0.15": 0.49})
    first, second = results([attacked()], Ceilings([bound]))
    assert (first.ceiling.value, first.ceiling.eps, first.ceiling.run) == (0.75, 0.1, bound.manifest.run)
    assert (second.ceiling.value, second.ceiling.eps, second.ceiling.bound) == (0.49, 0.15, "oracle")
    assert "above-ceiling" not in {flag.code for flag in first.flags}  # 3 of 4 is just allowed
    (flag,) = [flag for flag in second.flags if flag.code == "above-ceiling"]
    assert "at least 2 of the 3 unbroken samples can be broken" in flag.text
    assert "on more than 1 of these 4 (oracle)" in flag.text
    assert "above-ceiling" not in BLOCKING and second.rankable == first.rankable
    assert first.joint_interval == results([attacked()])[0].joint_interval


def test_the_document_holds_the_ceiling():
    document = summarise([attacked()], Ceilings([fake_bound({"0.15": 0.5})]))
    assert [result["ceiling"] for result in document["results"]] == [None, 0.5]
    assert [result["ceiling"] for result in summarise([attacked()])["results"]] == [None, None]


@pytest.mark.parametrize(
    "changes",
    [{"dataset": "other"}, {"samples": range(5)}, {"samples": range(3)}, {"norm": "l2"}, {"direction": "floor"},
     {"scope": "population"}, {"split": "train"}],
)  # fmt: skip
def test_a_ceiling_about_anything_else_does_not_appear(changes):
    assert [result.ceiling for result in results([attacked()], Ceilings([fake_bound({"0.1": 0.1}, **changes)]))] == [
        None,
        None,
    ]


def test_a_ceiling_needs_all_samples_of_a_run_that_is_not_finished():
    """Rows about 0, 1 and 2 only: the ceiling of 0 … 3 says nothing about them."""
    run = fake_run(0, n=4, complete=False).clean(dict.fromkeys(range(3), True))
    run.add("pgd", "attack", "linf", 0.1, dict.fromkeys(range(3), ("open", 0, INF)))
    ceilings = Ceilings([fake_bound({"0.1": 0.5})])
    assert results([run], ceilings)[0].ceiling is None
    (subject,) = subjects([run])
    assert subject.samples_hash == samples_hash([2, 0, 1])
    (subject,) = subjects([attacked()])
    assert result_at(subject, "linf", Epsilon.parse("0.3"), ceilings).ceiling.value == 0.5


def test_only_attacks_can_be_too_weak():
    run = fake_run(0, n=4, evaluators=(("ibp", "certificate"),)).clean(dict.fromkeys(range(4), True))
    run.add("ibp", "certificate", "linf", 0.1, dict.fromkeys(range(4), ("open", 0, INF)))
    (result,) = results([run], Ceilings([fake_bound({"0.1": 0.25})]))
    assert result.ceiling.value == 0.25
    assert "above-ceiling" not in {flag.code for flag in result.flags}


@pytest.mark.parametrize(
    ("confidence", "extra", "code"),
    [(1.0, 0, None), (1.0, 1, "contradictions"), (0.99, 3, "probabilistic"), (0.99, 4, "chance-contradictions"),
     (None, 4, "confidence-unknown")],
)  # fmt: skip
@pytest.mark.parametrize("attacked", [False, True])
def test_more_certified_than_a_ceiling_allows_has_no_rank(confidence, extra, code, attacked):
    """30 of 40 are certified. Each is wrong with probability 0.01: the binomial quantile at 0.999 is 3."""
    kinds = (("cert", "certificate"), *((("pgd", "attack"),) if attacked else ()))
    run = fake_run(0, n=40, evaluators=kinds).clean(dict.fromkeys(range(40), True))
    if attacked:
        run.add("pgd", "attack", "linf", 0.1, dict.fromkeys(range(40), ("open", 0, INF)))
    rows = {i: ("certified", 0.1, INF) if i < 30 else ("open", 0, INF) for i in range(40)}
    run.add("cert", "certificate", "linf", 0.1, rows, confidence=confidence)
    (result,) = results([run], Ceilings([fake_bound({"0.1": (30 - extra) / 40}, samples=range(40))]))
    told = {flag.code for flag in result.flags if "any classifier can be right on" in flag.text}
    assert told == ({code} if code else set())
    assert result.rankable == (code not in ("contradictions", "chance-contradictions"))
    assert ("above-ceiling" in {flag.code for flag in result.flags}) == (attacked and code != "contradictions")
