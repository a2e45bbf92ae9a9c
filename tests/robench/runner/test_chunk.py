"""A chunk through its evaluators: order, settling, composites, liars, memory, and the charge for every pass."""

import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from robench.classifier import Counted
from robench.contracts import Attack, Certificates, Certifier, Outcome, Passes, Proposal
from robench.graph import GraphClassifier, from_torch
from robench.runner import Evaluator, Plan, evaluate_chunk
from robench.samples import Samples
from robench.streams import Stream
from robench.threat import Domain, Epsilon

WEIGHT = torch.tensor([[1.0, 0.5, 0.0], [-1.0, -0.5, 0.0]])


def half_space(dtype=torch.float32):
    """f_0 − f_1 = 2 (x_0 + x_1 / 2 − 0.7): the exact linf radius without a box is |margin| / 3."""
    layer = nn.Linear(3, 2).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(WEIGHT)
        layer.bias.copy_(torch.tensor([-0.7, 0.7]))
    return GraphClassifier(from_torch(layer.eval(), (3,)), device="cpu", dtype=dtype)


def samples(n=40, seed=0):
    # Away from the box, so that the radius without one is exact.
    x = (0.2 + 0.6 * np.random.default_rng(seed).random((n, 3))).astype(np.float32)
    y = (x[:, 0] + x[:, 1] / 2 < 0.7).astype(np.int64)
    y[::10] = 1 - y[::10]  # some that the classifier gets wrong
    return Samples(x, y, np.arange(n) * 3, Domain(), ("a", "b"))


def radius(data):
    margin = 2 * np.abs(data.x[:, 0] + data.x[:, 1] / 2 - 0.7)
    return margin / 3


@dataclass(frozen=True)
class Optimal(Attack):
    """Moves along the gradient's signs, as far as asked."""

    length: float = 1.0

    def perturb(self, classifier, x, y, threat, stream):
        x = x.clone().requires_grad_()
        logits = classifier.logits(x)
        (gradient,) = torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), x)
        step = gradient.sign() * (1 - 2 * (y == 0).float())[:, None]
        return Proposal(x.detach() + step * (threat.eps or 1.0) * self.length)


@dataclass(frozen=True)
class Nearest(Optimal):
    per_eps: ClassVar[bool] = False


@dataclass(frozen=True)
class Exact(Certifier):
    """margin / ‖w‖_1, times a factor: 1 is the truth."""

    factor: float = 0.999
    per_eps: ClassVar[bool] = False

    def certify(self, classifier, x, y, threat, stream):
        logits = classifier.logits(x)
        margin = (logits[:, 0] - logits[:, 1]).abs().double()
        return Certificates(margin / 3 * self.factor, ["certified"] * len(x))


@dataclass(frozen=True)
class AtEps(Exact):
    per_eps: ClassVar[bool] = True


def run(evaluators, eps=("0.05", "0.1"), data=None, size=1000, seed=0):
    data = data if data is not None else samples()
    named = [one if isinstance(one, Evaluator) else Evaluator(f"e{i}", *one) for i, one in enumerate(evaluators)]
    plan = Plan(half_space(), data, "linf", [Epsilon.parse(e) for e in eps], named, seed)
    warnings = []
    blocks, witnesses = [], []
    for start in range(0, len(data), size):
        result = evaluate_chunk(plan, start, min(start + size, len(data)), size, warnings.append)
        for block in result.blocks:
            rows = zip(
                block.rows + start, block.status, block.lower, block.upper, block.forwards, block.backwards, strict=True
            )
            blocks += [(block.evaluator, block.eps, int(data.index[r[0]]), *r[1:]) for r in rows]
        witnesses += result.witnesses
    return blocks, witnesses, warnings


def statuses(blocks, evaluator, eps=None):
    return {row[2]: row[3] for row in blocks if row[0] == evaluator and row[1] == eps}


def test_verdicts_follow_the_exact_radius():
    data = samples()
    blocks, witnesses, _ = run([("attack", Optimal())], data=data)
    r = dict(zip(data.index.tolist(), radius(data).tolist(), strict=True))
    clean = statuses(blocks, "clean")
    assert {i for i, s in clean.items() if s == "incorrect"} == set(data.index[::10].tolist())
    small, large = statuses(blocks, "e0", 0.05), statuses(blocks, "e0", 0.1)
    for index, status in small.items():
        assert status == ("falsified" if r[index] <= 0.05 else "open")
    # Incorrect samples are not attacked, and what fell at .05 is settled at .1.
    assert set(small) == {i for i, s in clean.items() if s == "correct"}
    assert set(large) == {i for i, s in small.items() if s == "open"}
    for index, status in large.items():
        assert status == ("falsified" if r[index] <= 0.1 else "open")
    upper = {row[2]: row[5] for row in blocks if row[3] == "falsified"}
    for index, value in upper.items():
        assert r[index] <= value <= r[index] + 0.1 / 200
    assert sum(len(w.rows) for w in witnesses) == len(upper)


def test_a_minimum_norm_attack_runs_once_and_settles_every_eps():
    blocks, _, _ = run([("attack", Optimal()), ("attack", Nearest())])
    assert {row[1] for row in blocks if row[0] == "e1"} == {None}
    assert set(statuses(blocks, "e1").values()) == {"falsified"}
    upper = {row[2]: row[5] for row in blocks if row[0] == "e1"}
    assert all(upper[i] > 0.05 for i in statuses(blocks, "e0", 0.05))


def test_cheap_certificates_run_first_and_do_not_stop_attacks():
    blocks, _, _ = run([("attack", Optimal()), Evaluator("cheap", "certificate", Exact(1.5), early=True)])
    claimed = {row[2]: row[4] for row in blocks if row[0] == "cheap" and row[3] == "certified"}
    broken = {row[2]: row[5] for row in blocks if row[0] == "e0" and row[3] == "falsified"}
    # The unsound certifier claims every correct sample, and the attack contradicts some of its claims.
    assert set(claimed) == {i for i, s in statuses(blocks, "clean").items() if s == "correct"}
    assert any(claimed[i] >= broken[i] for i in broken)


def test_costly_certifiers_skip_what_fell_and_what_others_proved():
    data = samples()
    early = Evaluator("early", "certificate", Exact(0.5), early=True)
    late = Evaluator("late", "certificate", AtEps())
    blocks, _, _ = run([late, early, ("attack", Optimal())], data=data)
    r = dict(zip(data.index.tolist(), radius(data).tolist(), strict=True))
    for eps in (0.05, 0.1):
        ran = set(statuses(blocks, "late", eps))
        assert ran == {
            i for i, s in statuses(blocks, "clean").items() if s == "correct" and eps < r[i] and r[i] / 2 < eps
        }
        assert ran


def test_composites_send_outcomes_and_record_their_stages():
    seen = []

    @dataclass(frozen=True)
    class Two:
        def stages(self, classifier, threat):
            outcome = yield "weak", Optimal(0.5), None
            seen.append(outcome)
            assert isinstance(outcome, Outcome)
            mask = ~outcome.broken & (outcome.margin < 0.149)
            seen.append((yield "strong", Optimal(), mask))

    data = samples()
    blocks, _, _ = run([("attack", Two())], eps=("0.1",), data=data)
    weak, strong = statuses(blocks, "weak", 0.1), statuses(blocks, "strong", 0.1)
    r = dict(zip(data.index.tolist(), radius(data).tolist(), strict=True))
    assert weak == {i: "falsified" if r[i] <= 0.05 else "open" for i in weak}
    assert set(strong) < {i for i, s in weak.items() if s == "open"}
    assert set(strong.values()) == {"falsified"}
    assert len(seen) == 2
    assert all(len(outcome.broken) == len(data) for outcome in seen)
    assert int(seen[0].forwards.sum()) == sum(row[6] for row in blocks if row[0] == "weak")


@pytest.mark.parametrize("size", [1, 7, 40])
def test_rows_do_not_depend_on_the_batch_size(size):
    @dataclass(frozen=True)
    class Random(Attack):
        def perturb(self, classifier, x, y, threat, stream):
            return Proposal(x + stream.uniform(x.shape[1:], -threat.eps, threat.eps, dtype=x.dtype))

    evaluators = [("attack", Random()), ("attack", Optimal()), Evaluator("c", "certificate", Exact(), early=True)]
    whole, _, _ = run(evaluators)
    parts, _, _ = run(evaluators, size=size)
    assert sorted(parts, key=str) == sorted(whole, key=str)


def lying(change):
    @dataclass(frozen=True)
    class Liar(Attack):
        def perturb(self, classifier, x, y, threat, stream):
            return change(x)

    return Liar()


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        (lambda x: Proposal(x * torch.nan), "error", "non-finite"),
        (lambda x: Proposal(x[:, :2]), "error", "expected floats"),
        (lambda x: Proposal(x[:-1]), "error", "expected floats"),
        (lambda x: Proposal(x.long()), "error", "expected floats"),
        (lambda x: x, "error", "not a Proposal"),
        (lambda x: 1 / 0, "error", "ZeroDivisionError"),
        (lambda x: sys.exit(0), "error", "SystemExit"),
        (lambda x: Proposal(x, detail=[{}]), "error", "detail has 1"),
        (lambda x: Proposal(x, detail=iter([None] * len(x))), "error", "detail has list_iterator"),
        (lambda x: Proposal(x, detail=["found"] * len(x)), "error", "neither a mapping"),
        (lambda x: Proposal(x, detail=[{"tensor": object()}] * len(x)), "open", None),
        (lambda x: Proposal(x, passes=Passes([1] * len(x), [0] * len(x))), "open", None),
        (lambda x: Proposal(x, passes="many"), "open", None),
        (lambda x: Proposal([x]), "error", "points are list"),
        (lambda x: Proposal(x + 1e-6), "open", None),
        (lambda x: Proposal(x.double()), "open", None),
    ],
)
def test_liars_leave_no_evidence(change, status, word):
    blocks, _, warnings = run([("attack", lying(change)), ("attack", Optimal())])
    correct = {i for i, s in statuses(blocks, "clean").items() if s == "correct"}
    assert statuses(blocks, "e0", 0.05) == dict.fromkeys(correct, status)
    # The honest attack after it still ran on everything.
    assert set(statuses(blocks, "e1", 0.05)) == correct
    if word and word != "non-finite":
        assert word in warnings[0]


def test_points_outside_box_and_budget_never_count():
    blocks, witnesses, _ = run([("attack", lying(lambda x: Proposal(x + torch.randn_like(x) * 100)))], eps=("0.05",))
    data = samples()
    r = dict(zip(data.index.tolist(), radius(data).tolist(), strict=True))
    for row in blocks:
        if row[3] == "falsified":
            assert r[row[2]] <= row[5] <= 0.05
    for found in witnesses:
        assert found.points.min() >= 0
        assert found.points.max() <= 1
        assert (found.distances["linf"] <= 0.05).all()


def test_an_attack_that_edits_its_arguments_changes_nothing():
    def vandal(x):
        x.fill_(0.5)
        return Proposal(x)

    blocks, _, _ = run([("attack", lying(vandal)), ("attack", Optimal())])
    honest, _, _ = run([("attack", lying(lambda x: Proposal(torch.full_like(x, 0.5)))), ("attack", Optimal())])
    assert blocks == honest


@pytest.mark.parametrize(
    ("lower", "status", "expected"),
    [
        (torch.nan, "certified", "open"),
        (-1.0, "certified", "open"),
        (0.0, "certified", "open"),
        (torch.inf, "certified", "certified"),
        (0.2, "open", "open"),
        (0.2, "timeout", "timeout"),
        (0.2, "falsified", "open"),
        (0.2, "proved", "error"),
    ],
)
def test_claims_of_certifiers_are_checked(lower, status, expected):
    @dataclass(frozen=True)
    class Claims(Certifier):
        per_eps: ClassVar[bool] = False

        def certify(self, classifier, x, y, threat, stream):
            return Certificates(torch.full((len(x),), lower, dtype=torch.float64), [status] * len(x))

    blocks, _, _ = run([("certificate", Claims())])
    assert set(statuses(blocks, "e0").values()) == {expected}
    proven = {row[4] for row in blocks if row[0] == "e0"}
    assert proven == ({lower} if expected == "certified" else {0.0})


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda n: Certificates(torch.ones(n), ["certified"] * n, confidence=torch.full((n,), 1.5)), "confidence"),
        (
            lambda n: Certificates(torch.ones(n), ["certified"] * n, confidence=torch.full((n,), torch.nan)),
            "confidence",
        ),
        (lambda n: Certificates([1.0] * n, ["certified"] * n), "lower is list"),
        (lambda n: Certificates(torch.ones(n, 1), ["certified"] * n), "lower is"),
        (lambda n: Certificates(torch.ones(n), "certified"), "status"),
        (lambda n: Certificates(torch.ones(n), ["certified"]), "status has 1"),
        (lambda n: Certificates(torch.ones(n), ["open"] * n, points=torch.zeros(n, 3)), "not declared"),
        (lambda n: None, "not Certificates"),
    ],
)
def test_malformed_certificates_are_error_rows(answer, word):
    @dataclass(frozen=True)
    class Malformed(Certifier):
        def certify(self, classifier, x, y, threat, stream):
            return answer(len(x))

    blocks, _, warnings = run([("certificate", Malformed()), ("attack", Optimal())], eps=("0.1",))
    assert set(statuses(blocks, "e0", 0.1).values()) == {"error"}
    assert word in warnings[0]
    assert "falsified" in statuses(blocks, "e1", 0.1).values()


@pytest.mark.parametrize(
    ("stage", "word"),
    [
        (("stage", object(), None), "no perturb"),
        (("stage", Optimal(), torch.ones(3, dtype=torch.bool)), "mask"),
        (("stage", Optimal(), torch.ones(40)), "mask"),
        (Optimal(), "not (spec, attack, mask)"),
    ],
)
def test_malformed_stages_are_error_rows(stage, word):
    @dataclass(frozen=True)
    class Malformed:
        def stages(self, classifier, threat):
            yield stage

    blocks, _, warnings = run([("attack", Malformed())], eps=("0.1",))
    assert set(statuses(blocks, "e0", 0.1).values()) == {"error"}
    assert word in warnings[0]


def test_a_stage_that_comes_again_has_a_key_of_its_own():
    @dataclass(frozen=True)
    class Twice:
        def stages(self, classifier, threat):
            classifier.logits(torch.zeros(1, 3))  # a probe: charged to the stage that follows
            yield "same", Optimal(0.1), None
            yield "same", Optimal(), None

    blocks, _, _ = run([("attack", Twice())], eps=("0.1",))
    assert {row[0] for row in blocks} == {"clean", "same", "same#2"}
    first, again = (sum(row[6] for row in blocks if row[0] == name) for name in ("same", "same#2"))
    count = len(statuses(blocks, "same", 0.1))
    broken = sum(row[3] == "falsified" for row in blocks if row[0] == "same")
    assert first >= 2 * count + 1 + 8 * broken
    assert again > 0


def test_what_plugins_print_stays_off_stdout(capsys):
    def chatty(x):
        print("found something")
        return Proposal(x)

    run([("attack", lying(chatty))])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "found something" in captured.err


def test_a_verifiers_point_is_judged_like_an_attacks():
    @dataclass(frozen=True)
    class Verifier(Certifier):
        complete: ClassVar[bool] = True

        def certify(self, classifier, x, y, threat, stream):
            points = Optimal().perturb(classifier, x, y, threat, stream).points
            return Certificates(torch.zeros(len(x)), ["falsified"] * len(x), points=points)

    data = samples()
    blocks, witnesses, _ = run([("certificate", Verifier())], eps=("0.1",), data=data)
    r = dict(zip(data.index.tolist(), radius(data).tolist(), strict=True))
    found = statuses(blocks, "e0", 0.1)
    assert found == {i: "falsified" if r[i] <= 0.1 else "open" for i in found}
    assert sum(len(w.rows) for w in witnesses) == sum(s == "falsified" for s in found.values())


def test_running_out_of_memory_halves_the_batch():
    sizes = []

    @dataclass(frozen=True)
    class Greedy(Attack):
        def perturb(self, classifier, x, y, threat, stream):
            sizes.append(len(x))
            if len(x) > 10:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return Optimal().perturb(classifier, x, y, threat, stream)

    blocks, _, warnings = run([("attack", Greedy())], eps=("0.1",))
    assert sizes[:3] == [36, 18, 9]
    assert max(sizes[3:]) <= 9
    assert len(warnings) == 2
    expected, _, _ = run([("attack", Optimal())], eps=("0.1",))
    assert [row[:6] for row in blocks] == [row[:6] for row in expected]


def test_one_sample_that_does_not_fit_is_an_error_row():
    @dataclass(frozen=True)
    class Greedy(Attack):
        def perturb(self, classifier, x, y, threat, stream):
            raise torch.OutOfMemoryError("CUDA out of memory")

    blocks, _, _ = run([("attack", Greedy())], eps=("0.1",))
    assert set(statuses(blocks, "e0", 0.1).values()) == {"error"}


def test_a_plugin_charges_samples_only_if_its_account_adds_up():
    @dataclass(frozen=True)
    class Accountant(Attack):
        share: int

        def perturb(self, classifier, x, y, threat, stream):
            classifier.logits(x)
            count = torch.zeros(len(x), dtype=torch.int64)
            count[0] = len(x) * self.share
            return Proposal(x, passes=Passes(count, torch.zeros_like(count)))

    for share, first in ((1, 36 + 1), (2, 1 + 1), (0, 1 + 1)):
        blocks, _, _ = run([("attack", Accountant(share))], eps=("0.1",))
        rows = [row for row in blocks if row[0] == "e0"]
        assert rows[0][6] == first
        assert sum(row[6] for row in rows) == 36 * 2


def test_backward_passes_are_counted():
    counted = Counted(half_space())
    x = torch.rand(5, 3).requires_grad_()
    torch.autograd.grad(counted.logits(x).sum(), x)
    with torch.no_grad():
        counted.logits(x)
    assert counted.take() == (10, 5)
    assert counted.take() == (0, 0)


def test_draws_of_a_randomized_classifier_are_counted():
    class Noisy:
        input_shape, classes, dtype, device = (3,), 2, torch.float32, torch.device("cpu")
        fingerprint, graph = "0" * 64, None

        def sample(self, x, stream):
            return x[:, :2] + stream.uniform((2,))

    counted = Counted(Noisy())
    x = torch.rand(5, 3).requires_grad_()
    torch.autograd.grad(counted.sample(x, Stream.for_samples(0, "e", range(5))).sum(), x)
    assert counted.take() == (5, 5)
