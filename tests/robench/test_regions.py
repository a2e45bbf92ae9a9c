"""Sets of the samples' own: boxes and conditions in rational arithmetic, and whole runs over them."""

import json
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from oracles.nets import blobs, trained
from robench.api import bound, evaluate, replay
from robench.bounds import Ceilings
from robench.check import check
from robench.cli import app
from robench.contracts import Certificates, Proposal
from robench.distances import inner_radius, linf_box, outer_radius, project
from robench.errors import DataError, InputError
from robench.evidence import decode_points
from robench.metrics import results as results_of
from robench.regions import Condition, Region, Regions, about_labels
from robench.runner import budget
from robench.runner._conditions import condition_bounds, condition_margins
from robench.runs import Run
from robench.threat import Domain, Threat

SMALL = st.floats(-4, 4).map(lambda v: v + 0.0)


def boxes(samples, eps, domain=True):
    x = np.asarray(samples.x, dtype=np.float64)
    eps = np.broadcast_to(np.asarray(eps, dtype=np.float64).reshape(-1, 1), (len(x), 1))
    low, high = x - eps, x + eps
    return (np.clip(low, 0, 1), np.clip(high, 0, 1)) if domain else (low, high)


def with_regions(samples, eps, conditions=None):
    """The samples with linf balls as boxes, about their labels unless told otherwise."""
    lower, upper = boxes(samples, eps)
    n = len(samples)
    conditions = conditions or tuple(Condition.of_label(int(label), 3) for label in samples.y)
    names = tuple(f"prop_{i}" for i in range(n))
    return replace(samples, regions=Regions(lower, upper, tuple(conditions), names, np.full(n, math.inf)))


@pytest.fixture(scope="module")
def net():
    return trained()


@pytest.fixture(scope="module")
def right(net):
    """Samples that the net gets right."""
    data = blobs(60)
    good = net(torch.from_numpy(np.asarray(data.x))).argmax(1).numpy() == data.y
    return data.select(np.flatnonzero(good)[:24])


# ----------------------------------------------------------------- boxes and radii


@given(st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=4), st.sampled_from([torch.float32, torch.float64]))
def test_the_numbers_inside_a_box_are_those_of_the_dtype(sides, dtype):
    low = torch.tensor([[min(pair) for pair in sides]], dtype=torch.float64)
    high = torch.tensor([[max(pair) for pair in sides]], dtype=torch.float64)
    inside = Region(low, high, []).inside(torch.zeros(1, len(sides), dtype=dtype))
    for exact, side, outward in ((low, inside[0], -math.inf), (high, inside[1], math.inf)):
        assert side.dtype == dtype
        next_out = torch.nextafter(side, torch.full_like(side, outward))
        for true, found, beyond in zip(exact[0].tolist(), side[0].tolist(), next_out[0].tolist(), strict=True):
            assert (found - true) * outward <= 0 or found == true
            assert beyond < true if outward < 0 else beyond > true


def test_the_inner_box_counts_where_decimals_are_no_doubles():
    low, high = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    just = torch.tensor([[5e-324]], dtype=torch.float64)
    region = Region(low, high, [], least=just, most=high)
    assert region.inside(torch.zeros(1, 1))[0].item() == math.ldexp(1, -149)
    assert region.inside(low)[0].item() == 5e-324


@given(st.lists(st.tuples(SMALL, SMALL, SMALL), min_size=1, max_size=4), st.booleans())
def test_radii_are_those_of_the_smallest_ball_around_and_the_largest_within(sides, bounded):
    low = torch.tensor([[min(s) for s in sides]], dtype=torch.float64)
    x = torch.tensor([[sorted(s)[1] for s in sides]], dtype=torch.float64)
    high = torch.tensor([[max(s) for s in sides]], dtype=torch.float64)
    domain = Domain(-4.0, 4.0) if bounded else Domain.unbounded()
    region = Region(low, high, [])
    triples = [tuple(map(Fraction, one)) for one in zip(low[0].tolist(), x[0].tolist(), high[0].tolist(), strict=True)]
    reach = max(max(b - a, c - b) for a, b, c in triples)
    outer = outer_radius(x, region).item()
    assert Fraction(math.nextafter(outer, 0)) <= reach <= Fraction(outer)
    inner = inner_radius(x, region, domain).item()
    gaps = [b - a for a, b, _ in triples if not (bounded and a == -4)]
    gaps += [c - b for _, b, c in triples if not (bounded and c == 4)]
    assert inner == math.inf if not gaps else Fraction(inner) <= min(gaps) <= Fraction(inner + 2**-50 + inner * 2**-50)


@given(st.floats(0, 1e6))
def test_a_budget_is_never_below_the_radius_nor_far_above(radius):
    assert radius <= budget(radius) <= max(radius * (1 + 2**-18), 1e-29)
    assert budget(budget(radius)) == budget(radius) > 0


def test_points_are_projected_into_the_box_and_attacks_see_it():
    x = torch.tensor([[0.5, 0.5]])
    region = Region(
        torch.tensor([[0.45, 0.5]], dtype=torch.float64), torch.tensor([[0.6, 0.7]], dtype=torch.float64), []
    )
    threat = Threat("linf", 0.2, Domain(), region)
    low, high = linf_box(x, threat)
    assert (low.double() >= region.lower).all() and (high.double() <= region.upper).all()
    assert torch.equal(project(torch.tensor([[0.0, 9.0]]), x, threat), torch.stack([low[0, 0], high[0, 1]])[None])
    none = threat.select(torch.tensor([False]))
    assert none.region.lower.shape == (0, 2) and project(x[:0], x[:0], none).shape == (0, 2)
    with pytest.raises(ValueError, match=r"take Threat\.select"):
        project(x.repeat(2, 1), x.repeat(2, 1), threat)


def test_regions_must_fit_the_samples(right):
    regions = with_regions(right, 0.1).regions
    with pytest.raises(DataError, match="differ in length"):
        replace(regions, names=regions.names[1:])
    with pytest.raises(DataError, match="above its upper bound"):
        replace(regions, lower=regions.upper + 1)
    with pytest.raises(DataError, match="not of the shape"):
        replace(right, regions=replace(regions, lower=regions.lower[:, :2], upper=regions.upper[:, :2]))


def test_boxes_and_conditions_are_part_of_the_datas_identity(right):
    one = with_regions(right, 0.1)
    assert one.digest() == with_regions(right, 0.1).digest() != right.digest()
    assert one.digest() != with_regions(right, 0.11).digest()
    other = (Condition.of_label(int(1 - right.y[0] % 2), 3), *one.regions.conditions[1:])
    assert one.digest() != with_regions(right, 0.1, other).digest()
    chosen = one.select(np.array([3, 1]))
    assert chosen.regions.names == ("prop_3", "prop_1")


# ----------------------------------------------------------------- conditions

conditions = st.integers(1, 3).flatmap(
    lambda size: st.lists(
        st.lists(st.tuples(st.lists(SMALL, min_size=size, max_size=size), SMALL), min_size=1, max_size=3),
        min_size=1,
        max_size=3,
    )
)


@settings(max_examples=200)
@given(conditions, st.data())
def test_margins_of_conditions_are_enclosed(disjuncts, data):
    size = len(disjuncts[0][0][0])
    condition = Condition(
        tuple((np.array([row for row, _ in one]), np.array([offset for _, offset in one])) for one in disjuncts)
    )
    ends = data.draw(st.lists(st.tuples(SMALL, SMALL), min_size=size, max_size=size))
    low, high = ([f(pair) for pair in ends] for f in (min, max))
    lower, upper = condition_bounds(*(torch.tensor([side], dtype=torch.float64) for side in (low, high)), [condition])
    for corner in (low, high, [sum(pair) / 2 for pair in ends]):
        true = min(
            max(
                sum(Fraction(a) * Fraction(v) for a, v in zip(row, corner, strict=True)) + Fraction(b) for row, b in one
            )
            for one in disjuncts
        )
        assert Fraction(lower.item()) <= true <= Fraction(upper.item())
        margin = condition_margins(torch.tensor([corner], dtype=torch.float64), [condition]).item()
        assert abs(Fraction(margin) - true) <= Fraction(1, 10**12)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.integers(0, 2), st.floats(0, 1e-3))
def test_a_condition_occurs_only_where_every_output_in_the_box_meets_it(centre, label, spread):
    lower, upper = np.array(centre) - spread, np.array(centre) + spread
    condition = Condition.of_label(label, 3)
    others = [j for j in range(3) if j != label]
    assert condition.occurs(lower, upper) == any(lower[j] >= upper[label] for j in others)
    assert condition.occurs(centre) == any(centre[j] >= centre[label] for j in others)


def test_a_condition_occurs_in_rational_arithmetic_by_its_strict_side():
    both = Condition(((np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.0, -0.5])),))  # f0 <= 0 and f1 <= 0.5
    for f, met in (((0.0, 0.5), True), ((0.0, 0.6), False), ((1e-300, 0.0), False), ((-math.inf, 0.0), False)):
        assert both.occurs(f) is both.occurs(np.array(f), np.array(f)) is met
    assert not both.occurs((-1.0, 0.0), (-1.0, math.inf)) and not both.occurs((math.nan, 0.0))
    # 1e16 + 1 - 1e16 is 0 in double arithmetic.
    assert not Condition(((np.array([[1.0, 1.0]]), np.array([-1e16])),)).occurs((1e16, 1.0))
    given = Condition(both.disjuncts, strict=((np.array([[1.0, 0.0]]), np.array([1.0])),))  # f0 <= -1
    assert given.occurs((-1.0, 9.0)) and not given.occurs((-0.5, 0.0))


def test_conditions_are_about_labels_where_each_is_of_its_own():
    some = [Condition.of_label(label, 3) for label in (0, 2)]
    assert about_labels(some, [0, 2]) and about_labels([], [])
    assert not about_labels(some, [0, 1])


def test_a_labels_condition_has_the_labels_margin():
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for label in range(4):
        margin = condition_margins(logits, [Condition.of_label(label, 4)] * 20)
        others = logits.clone()
        others[:, label] = -math.inf
        assert torch.equal(margin, logits[:, label] - others.amax(1))
    assert condition_margins(torch.tensor([[1.0, math.nan]]), [Condition.of_label(0, 2)]).isnan().all()
    lower, upper = condition_bounds(
        torch.full((1, 2), -math.inf), torch.full((1, 2), math.inf), [Condition.of_label(0, 2)]
    )
    assert (lower.item(), upper.item()) == (-math.inf, math.inf)


# ----------------------------------------------------------------- runs


@dataclass(frozen=True)
class Known:
    """A verifier that knows regions: certifies what it is told to, proposes what it is told to."""

    claim: str = "certified"
    corner: float = 0.0
    per_eps: ClassVar[bool] = True
    deterministic: ClassVar[bool] = True
    complete: ClassVar[bool] = True
    regions: ClassVar[bool] = True

    def certify(self, classifier, x, y, threat, stream):
        assert threat.region is not None and len(threat.region.conditions) == len(x)
        assert threat.region.lower.shape == x.shape
        assert (outer_radius(x, threat.region) <= threat.eps).all()
        points = (threat.region.lower + self.corner * (threat.region.upper - threat.region.lower)).to(x)
        return Certificates(torch.full((len(x),), threat.eps), [self.claim] * len(x), points=points)


@dataclass(frozen=True)
class Beyond:
    """An attack that leaves the box in every coordinate; it asks for labels alone."""

    per_eps: ClassVar[bool] = True

    def perturb(self, classifier, x, y, threat, stream):
        return Proposal(x + torch.where(torch.rand(x.shape) < 0.5, -9.0, 9.0))


def witnesses(run):
    table = next(iter(run.iter_witnesses()))
    return dict(zip(table["sample"].to_pylist(), decode_points(table), strict=True))


def test_one_run_settles_each_sample_within_its_own_box(net, right, tmp_path):
    eps = np.geomspace(0.001, 0.4, len(right))
    samples = with_regions(right, eps)
    done = evaluate(net, samples, attacks=["pgd:steps=20"], certifiers="ibp", out=tmp_path)
    (result,) = done.summary["results"]
    assert (result["eps"], result["eps_value"], result["norm"]) == ("given", None, "linf")
    rows = done.evidence[done.evidence["kind"] != "clean"]
    order = {int(index): place for place, index in enumerate(samples.index)}
    for row in rows.itertuples():
        assert row.eps == pytest.approx(eps[order[row.sample]], rel=1e-5)
    sure, broken = (set(rows[rows["status"] == word]["sample"]) for word in ("certified", "falsified"))
    assert sure and broken and not sure & broken
    assert result["certified_accuracy"] == len(sure) / len(right)
    assert result["empirical_accuracy"] == 1 - len(broken) / len(right)
    assert min(order[one] for one in broken) > max(order[one] for one in sure) - 12  # ordered by ε, about
    for sample, point in witnesses(done.run).items():
        at = order[sample]
        assert (point.astype(np.float64) >= samples.regions.lower[at]).all()
        assert (point.astype(np.float64) <= samples.regions.upper[at]).all()
        assert net(torch.from_numpy(point[None])).argmax().item() != samples.y[at]
    # The same questions as balls of one ε each.
    for index, place in list(order.items())[::6]:
        alone = evaluate(
            net, right.select(np.array([place])), eps=float(eps[place]), attacks=(), certifiers="ibp",
            out=tmp_path / str(place),
        )  # fmt: skip
        status = alone.evidence[alone.evidence["evaluator"] == "ibp"]["status"].tolist()
        assert status == rows[(rows["sample"] == index) & (rows["evaluator"] == "ibp")]["status"].tolist()
    assert check([done.run]).findings == ()
    again = replay(done.run, model=net, dataset=samples)
    assert again.problems == [] and again.witnesses == len(broken)


@pytest.mark.parametrize(
    "attack", ["autoattack", "portfolio", "square:queries=50", "fab:steps=5", "pgd:steps=5 | fast"]
)
def test_every_way_of_attacking_stays_in_the_boxes(net, right, tmp_path, attack):
    samples = with_regions(right, np.geomspace(0.02, 0.3, len(right)))
    narrow = samples.regions.lower.copy()
    narrow[:, 0] = np.asarray(right.x[:], dtype=np.float64)[:, 0]  # no balls
    samples = replace(samples, regions=replace(samples.regions, lower=narrow))
    warnings = []
    done = evaluate(net, samples, attacks=attack, certifiers="ibp", out=tmp_path, warn=warnings.append)
    (result,) = done.summary["results"]
    assert result["errors"] == 0 and result["contradictions"] == 0
    assert result["certified_accuracy"] <= result["empirical_accuracy"] < 1
    assert not [line for line in warnings if "error" in line]
    for sample, point in witnesses(done.run).items():
        at = samples.index.tolist().index(sample)
        assert (point >= samples.regions.lower[at]).all() and (point <= samples.regions.upper[at]).all()


def test_batches_change_nothing(net, right, tmp_path):
    samples = with_regions(right, np.geomspace(0.01, 0.3, len(right)))
    one, other = (
        evaluate(net, samples, attacks="pgd:steps=5", certifiers="ibp", out=tmp_path / str(size), batch_size=size)
        for size in (1, 24)
    )
    columns = ["sample", "evaluator", "eps", "lower", "status"]
    frames = [run.evidence[columns].sort_values(columns[:2]).reset_index(drop=True) for run in (one, other)]
    assert frames[0].equals(frames[1])


def test_points_beyond_the_box_are_moved_into_it(net, right, tmp_path):
    samples = with_regions(right, 0.2)
    done = evaluate(net, samples, attacks=[Beyond()], certifiers=(), out=tmp_path)
    found = witnesses(done.run)
    assert found
    for sample, point in found.items():
        at = samples.index.tolist().index(sample)
        assert (point >= samples.regions.lower[at]).all() and (point <= samples.regions.upper[at]).all()


def test_a_certified_row_says_how_large_a_ball_the_box_holds(net, right, tmp_path):
    samples = with_regions(right, 0.05)
    wide = samples.regions.upper.copy()
    wide[:, 0] = np.minimum(wide[:, 0] + 0.1, 1)
    samples = replace(samples, regions=replace(samples.regions, upper=wide))
    done = evaluate(net, samples, attacks=(), certifiers=[Known()], out=tmp_path)
    rows = done.evidence[(done.evidence["kind"] == "verifier") & (done.evidence["status"] == "certified")]
    assert len(rows)
    assert rows["lower"].to_numpy() == pytest.approx(0.05, rel=1e-6)
    assert (rows["eps"] > 0.1).sum() > len(rows) / 2


def test_a_false_certificate_meets_the_witness_of_another_run(net, right, tmp_path):
    samples = with_regions(right, 0.3)
    false = evaluate(net, samples, attacks=(), certifiers=[Known(corner=0.5)], out=tmp_path)
    true = evaluate(net, samples, attacks="pgd:steps=20", certifiers=(), out=tmp_path)
    assert check([false.run]).findings == () == check([true.run]).findings
    broken = set(true.evidence[true.evidence["status"] == "falsified"]["sample"])
    findings = [one for one in check([false.run, true.run]).findings if one.code == "contradiction"]
    assert {one.sample for one in findings} == broken
    assert "certifies its region, but" in findings[0].text and "has a counterexample in it" in findings[0].text
    (merged,) = results_of([false.run, true.run])
    assert merged.contradictions == len(broken) and "contradictions" in {flag.code for flag in merged.flags}


def test_a_witness_outside_its_box_does_not_replay(net, right, tmp_path):
    done = evaluate(net, with_regions(right, 0.3), attacks="pgd:steps=20", certifiers=(), out=tmp_path)
    smaller = with_regions(right, 0.3)
    tight = smaller.regions.upper.copy()
    tight[:, 0] = np.asarray(right.x, dtype=np.float64)[:, 0]
    object.__setattr__(smaller.regions, "upper", tight)
    loaded = Run.open(done.run.location)
    object.__setattr__(smaller, "digest", lambda: loaded.manifest.dataset.hash)
    problems = {one.text for one in replay(loaded, model=net, dataset=smaller).problems}
    assert "the point lies outside the box" in problems


# ----------------------------------------------------------------- conditions about no label


def above(threshold, output=0):
    """f_output ≥ threshold must not occur."""
    row = np.zeros((1, 3))
    row[0, output] = -1.0
    return Condition(((row, np.array([float(threshold)])),))


def test_conditions_about_no_label_are_judged_by_the_outputs(net, right, tmp_path):
    x = torch.from_numpy(np.asarray(right.x[:]))
    first = net(x)[:, 0].detach().double()
    # At x it does not hold; half of the boxes' lower corners decide.
    corner = torch.from_numpy(boxes(right, 0.2)[0]).float()
    there = net(corner)[:, 0].detach().double()
    levels = torch.maximum(first + 0.01, (first + there) / 2)
    samples = with_regions(right, 0.2, [above(level) for level in levels.tolist()])
    samples = replace(samples, y=np.zeros(len(samples), dtype=np.int64))
    done = evaluate(net, samples, attacks=(), certifiers=[Known("open")], out=tmp_path)
    rows = done.evidence
    assert set(rows[rows["kind"] == "clean"]["status"]) == {"correct"}
    wanted = {int(i) for i, bad in zip(samples.index, (there >= levels).tolist(), strict=True) if bad}
    assert wanted and set(rows[rows["status"] == "falsified"]["sample"]) == wanted
    (result,) = done.summary["results"]
    assert result["empirical_accuracy"] == pytest.approx(1 - len(wanted) / len(right))
    assert result["clean_accuracy"] == 1
    assert done.run.manifest.dataset.regions == "conditions"
    assert check([done.run]).findings == ()
    assert replay(done.run, model=net, dataset=samples).problems == []
    proven = evaluate(net, samples, attacks=(), certifiers=[Known(corner=0.5)], out=tmp_path)
    sure = proven.evidence[proven.evidence["status"] == "certified"]
    assert len(sure) and (sure["lower"] == 0).all()  # about no radius
    found = {one.sample for one in check([done.run, proven.run]).findings if one.code == "contradiction"}
    assert found == wanted & set(sure["sample"]) and found
    assert proven.summary["results"][0]["certified_accuracy"] == pytest.approx(len(sure) / len(right))


def test_where_a_condition_holds_at_x_the_sample_is_incorrect(net, right, tmp_path):
    samples = with_regions(right, 0.1, [above(-1e9)] * len(right))
    samples = replace(samples, y=np.zeros(len(samples), dtype=np.int64))
    done = evaluate(net, samples, attacks=(), certifiers=[Known()], out=tmp_path)
    assert set(done.evidence["status"]) == {"incorrect"}
    assert done.summary["results"][0]["certified_accuracy"] == 0


# ----------------------------------------------------------------- what is refused


def refusal(net, samples, **options):
    with pytest.raises(InputError) as error:
        evaluate(net, samples, out=Path("nowhere"), **options)
    assert not Path("nowhere").exists()
    return str(error.value)


def test_what_does_not_go_with_regions_is_refused(net, right):
    samples = with_regions(right, 0.1)
    assert "brings a set for each sample: leave out --eps" in refusal(net, samples, eps="0.1")
    assert "leave out --norm l2" in refusal(net, samples, norm="l2")
    general = replace(with_regions(right, 0.1, [above(1e9)] * len(right)), y=np.zeros(len(right), dtype=np.int64))
    for name, options in (
        ("pgd", {"attacks": "pgd", "certifiers": ()}),
        ("ibp", {"attacks": (), "certifiers": "ibp"}),
    ):
        why = refusal(net, general, **options)
        assert name in why and "asks about labels" in why
    assert "add a verifier" in refusal(net, general, attacks=(), certifiers=())
    far = replace(samples, x=np.clip(np.asarray(right.x[:]) + 0.3, 0, 1).astype(np.float32))
    assert "lies outside its own box" in refusal(net, far)
    two = [Condition.of_label(0, 2)] * len(right)
    assert "is about 2 outputs" in refusal(net, with_regions(right, 0.1, two))
    thin = np.full_like(samples.regions.lower, 0.1)  # no float32 number
    thin = replace(samples, x=thin.copy(), regions=replace(samples.regions, lower=thin, upper=thin))
    assert "prop_0: no float32 number lies in the box of X_0: take --precision fp64" in refusal(net, thin)
    past = with_regions(right, 0.1).regions
    past = replace(samples, regions=replace(past, upper=past.upper + 1))
    assert "a box reaches beyond the domain [0, 1]" in refusal(net, past)
    assert "it draws at inference, and the data's own sets are about one function" in refusal(
        net, samples, certifiers="smoothing:sigma=0.25,n=10", attacks=()
    )


def test_without_regions_a_budget_is_still_needed(net, right):
    assert "no ε given" in refusal(net, right)


def test_every_command_reads_such_a_run(net, right, tmp_path):
    results = tmp_path / "results"
    samples = with_regions(right, 0.01)
    done = evaluate(net, samples, attacks="pgd:steps=3", certifiers="ibp", out=results)
    for words in (["report"], ["runs"], ["check"]):
        result = CliRunner().invoke(app, [*words, str(results)])
        assert result.exit_code == 0, result.output
        assert words == ["check"] or "linf given" in result.output
    built = CliRunner().invoke(app, ["leaderboard", "build", str(results), "--out", str(tmp_path / "site")])
    assert built.exit_code == 0, built.output
    pages = "".join(page.read_text() for page in (tmp_path / "site").glob("*.html"))
    assert "ε = <bdi>given</bdi>" in pages and "Accuracy against ε" not in pages
    # A ceiling is about balls of one ε: it says nothing about boxes, however it is called.
    low = bound("transport", samples, norm="linf", eps=[0.5], out=results)
    assert low.rows[0].value < done.summary["results"][0]["empirical_accuracy"]
    (after,) = results_of([done.run], Ceilings([low]))
    assert after.ceiling is None and check([done.run], [low]).findings == ()
    tmp_path = results
    said = CliRunner().invoke(app, ["report", str(tmp_path), "--json"])
    assert json.loads(said.output)["results"][0]["eps"] == "given"


def test_attacks_that_trust_certificates_skip_certified_regions(net, right, tmp_path):
    samples = with_regions(right, 0.02)
    plain = evaluate(net, samples, attacks="pgd:steps=3", certifiers="ibp", out=tmp_path / "a")
    trusting = evaluate(
        net, samples, attacks="pgd:steps=3", certifiers="ibp", trust_certificates=0.1, out=tmp_path / "b"
    )
    counts = [one.evidence["evaluator"].value_counts()["pgd:steps=3"] for one in (plain, trusting)]
    sure = (plain.evidence["status"] == "certified").sum()
    assert counts[0] == len(right) and counts[0] - sure <= counts[1] < counts[0]
    assert check([trusting.run]).findings == ()


def test_classes_cannot_be_taken_out_of_conditions(right):
    from robench_plugins.datasets.classes import Classes

    class Given:
        def load(self, split):
            return with_regions(right, 0.1)

    with pytest.raises(DataError, match="conditions on all outputs come with these samples"):
        Classes(("0", "1")).apply(Given()).load("test")
