"""Brackets of classes counted sample by sample, and intervals that cover what they should, by exact enumeration."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from oracles.evidence import fake_run
from robench.errors import InputError
from robench.metrics import Gap, Share, clopper_pearson, gaps, per_class, results, seed_gaps, student_mean, welch

INF = math.inf
NAMES = ("cat", "dog", "owl", "1")


def of_classes(number=0, seed=0, n=60, classes=3, title=None, eps="0.1", names=NAMES):
    """A run about random labels, predictions, witnesses and certificates, and what it says: a dict per sample."""
    generator = np.random.default_rng(seed)
    run = fake_run(number, net=f"net-{number}", n=n, eps=(eps,), display={"name": title})
    about = run.manifest.dataset.model_copy(update={"classes": names})
    run.manifest = run.manifest.replace(dataset=about)
    truth = []
    for i in range(n):
        label = int(generator.integers(classes))
        right = bool(generator.random() < 0.9 - 0.2 * label)
        low, high = bool(generator.random() < 0.3), bool(generator.random() < 0.5)
        shown = {"label": label, "prediction": label if right else 3}
        status = ("correct", 0.0, INF) if right else ("incorrect", 0.0, 0.0)
        run.add("clean", "clean", None, None, {i: status}, **shown)
        if right:
            run.add("ibp", "certificate", "linf", float(eps), {i: ("certified" if low else "open",
                    float(eps) if low else 0.0, INF)}, **shown)  # fmt: skip
            broken = high and not low
            run.add("pgd", "attack", "linf", float(eps), {i: ("falsified", 0.0, float(eps)) if broken else
                    ("open", 0.0, INF)}, **shown)  # fmt: skip
        truth.append((label, right, right and low, right and (low or not high)))
    return run, truth


@pytest.mark.parametrize("seed", range(3))
def test_each_class_is_counted_sample_by_sample(seed):
    run, truth = of_classes(seed=seed)
    (result,) = results([run])
    found = per_class(result)
    assert [one.name for one in found.brackets] == ["cat", "dog", "owl"]
    assert found.absent == ("1",)
    for one in found.brackets:
        mine = [rest for label, *rest in truth if label == one.label]
        assert one.n == len(mine)
        counts = tuple(map(sum, zip(*mine, strict=True)))
        assert (one.clean.count, one.certified.count, one.empirical.count) == counts
        assert one.joint_interval.lower == one.certified.interval.lower
        assert one.joint_interval.upper == one.empirical.interval.upper
    for side in ("clean", "certified", "empirical"):
        values = [getattr(one, side).value for one in found.brackets]
        worst = found.worst(side)
        assert worst.share.value == min(values) == getattr(worst.of, side).value
        assert worst.below_best == pytest.approx(max(values) - min(values))
        assert worst.below_mean == pytest.approx(np.mean(values) - min(values))
        assert worst.interval.lower <= worst.share.value <= worst.interval.upper


def test_of_one_class_there_is_nothing_to_tell():
    run, _ = of_classes(classes=1)
    assert per_class(results([run])[0]) is None


@pytest.mark.parametrize(("p", "k", "n"), [(0.5, 10, 20), (0.9, 4, 12), (0.05, 6, 30)])
def test_the_interval_of_the_worst_class_covers_although_it_was_chosen(p, k, n):
    """All k classes have the accuracy p: of the smallest of k counts the plain interval is too low too often."""

    def missed(level):
        ends = [clopper_pearson(count, n, level) for count in range(n + 1)]
        smallest = np.diff([0.0, *(1 - stats.binom.sf(range(n + 1), n, p) ** k)])
        return sum(mass for mass, one in zip(smallest, ends, strict=True) if not one.lower <= p <= one.upper)

    assert missed(1 - 0.05 / k) <= 0.05
    if (p, k) == (0.5, 10):
        assert missed(0.95) > 0.1


def test_the_interval_of_the_worst_class_is_that_of_all_together():
    run, _ = of_classes()
    worst = per_class(results([run])[0]).worst("clean")
    ends = [clopper_pearson(one.clean.count, one.n, 1 - 0.05 / 3) for one in per_class(results([run])[0]).brackets]
    assert worst.interval == (min(one.lower for one in ends), min(one.upper for one in ends))


@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.95, 0.3), (0.99, 0.99), (0.2, 0.9)])
def test_the_interval_of_a_gap_covers_by_enumeration(p, q):
    many, few = 14, 6
    covered = 0.0
    for a, b in itertools.product(range(many + 1), range(few + 1)):
        low, high = Gap(Share(a, many), Share(b, few)).interval
        if low <= p - q <= high:
            covered += stats.binom.pmf(a, many, p) * stats.binom.pmf(b, few, q)
    assert covered >= 0.95


def test_a_minority_is_named_or_numbered_and_its_samples_are_pooled():
    run, truth = of_classes()
    found = per_class(results([run])[0])
    for words, labels in ((("dog",), {1}), (("0", "owl"), {0, 2}), (("2",), {2})):
        gap = gaps(found, words)["clean"]
        mine = [right for label, right, *_ in truth if label in labels]
        others = [right for label, right, *_ in truth if label not in labels]
        assert (gap.minority.count, gap.minority.n) == (sum(mine), len(mine))
        assert gap.value == pytest.approx(np.mean(others) - np.mean(mine))
    assert gaps(found, ("1",)) is None  # a class of that name, without a sample, and not the label 1
    assert gaps(found, ("cat", "dog", "owl")) is None


def test_classifiers_of_one_name_are_trainings_of_one_kind():
    runs = [of_classes(number, seed=number, title="few" if number < 3 else "many")[0] for number in range(5)]
    runs.append(of_classes(9, seed=9, n=40, title="few")[0])  # on other samples
    found = [per_class(result) for result in results(runs)]
    each = {classes.result.subject.classifier: gaps(classes, ("owl",))["empirical"].value for classes in found}
    told = [one for one in seed_gaps(found, ("owl",)) if one.side == "empirical"]
    assert sorted((one.title, len(one.values)) for one in told) == [("few", 1), ("few", 3), ("many", 2)]
    few = next(one for one in told if len(one.values) == 3)
    many = next(one for one in told if one.title == "many")
    assert sorted(few.values) == sorted(each[f"net-{number}"] for number in range(3))
    assert few.mean == pytest.approx(np.mean(few.values))
    assert few.less(many) == welch(few.values, many.values)
    assert few.less(next(one for one in told if len(one.values) == 1)) is None


def test_clean_gaps_count_once_however_many_budgets_there_are():
    two = [per_class(result) for result in results([of_classes(0, seed=1, title="net")[0]])] * 2
    (clean,) = [one for one in seed_gaps(two, ("owl",)) if one.side == "clean"]
    assert len(clean.values) == 1
    assert (clean.norm, clean.eps, clean.interval) == (None, None, None)


def test_a_class_that_is_not_there_is_named():
    found = [per_class(results([of_classes()[0]])[0])]
    with pytest.raises(InputError, match="'cow'"):
        seed_gaps(found, ("dog", "cow"))
    with pytest.raises(InputError, match="leave one out"):
        seed_gaps(found, ("cat", "dog", "owl"))


def test_intervals_of_means_are_those_of_scipy():
    a, b = [0.1, 0.4, 0.35, 0.2], [0.5, 0.9, 0.7]
    assert student_mean(a) == pytest.approx(tuple(stats.ttest_1samp(a, 0).confidence_interval(0.95)))
    assert welch(a, b) == pytest.approx(tuple(stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)))
    assert welch([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25)
    assert student_mean([0.3]) is None and welch([0.3], a) is None
