"""The judge: lying proposals, rounding, non-finite values, and witnesses that really are errors."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from robench.classifier import Counted
from robench.distances import distance
from robench.graph import GraphClassifier, from_torch
from robench.runner import Judge
from robench.threat import NORMS, Domain, Threat

DOMAIN = Domain()


class Opaque:
    """A classifier without a graph."""

    graph, fingerprint, device = None, "0" * 64, torch.device("cpu")

    def __init__(self, function, input_shape=(3,), classes=2, dtype=torch.float32):
        self.function, self.input_shape, self.classes, self.dtype = function, input_shape, classes, dtype

    def logits(self, x):
        return self.function(x)


def linear(weight, bias, dtype=torch.float32):
    layer = nn.Linear(len(weight[0]), len(weight)).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight, dtype=dtype))
        layer.bias.copy_(torch.tensor(bias, dtype=dtype))
    return GraphClassifier(from_torch(layer.eval(), (len(weight[0]),)), device=torch.device("cpu"), dtype=dtype)


def judge_of(classifier):
    counted = Counted(classifier)
    return Judge(counted), counted


# f_0 - f_1 = 2 (x_0 - 0.5): class 1 is right where x_0 < 0.5.
HALF = ([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], [-0.5, 0.5])


@pytest.mark.parametrize("kind", ["graph", "opaque"])
@pytest.mark.parametrize("norm", NORMS)
def test_far_points_are_pulled_in_and_judged_again(kind, norm):
    classifier = linear(*HALF)
    if kind == "opaque":
        classifier = Opaque(classifier.logits)
    judge, _ = judge_of(classifier)
    x = torch.tensor([[0.3, 0.5, 0.5], [0.45, 0.5, 0.5]])
    y = torch.tensor([1, 1])
    threat = Threat(norm, 0.1, DOMAIN)
    points = x + torch.tensor([9.0, 0.0, 0.0])  # far outside budget and box
    verdict = judge.judge(x, y, points, threat)
    assert verdict.broken.tolist() == [False, True]
    assert (verdict.distances[norm] <= 0.1).all()
    # The nearest error is .05 away: bisection gets within 1/256 of the segment.
    assert 0.05 <= verdict.distances[norm][1] <= 0.05 + 0.1 / 200
    assert verdict.prediction[1] == 0
    assert verdict.margin[1] < 0
    assert verdict.method == [None, "enclosure" if kind == "graph" else "repeat"]


def test_claims_are_not_believed():
    judge, _ = judge_of(linear(*HALF))
    x = torch.tensor([[0.3, 0.5, 0.5]])
    verdict = judge.judge(x, torch.tensor([1]), x.clone(), Threat("linf", 0.1, DOMAIN))
    assert not verdict.broken.any()
    assert verdict.distances["linf"].item() == 0


def test_non_finite_points_and_logits_are_errors_not_evidence():
    judge, _ = judge_of(linear(*HALF))
    x = torch.tensor([[0.45, 0.5, 0.5]] * 2)
    points = x.clone()
    points[0, 2] = torch.nan
    points[1, 2] = torch.inf
    verdict = judge.judge(x, torch.tensor([1, 1]), points, Threat("linf", 0.1, DOMAIN))
    assert verdict.error.tolist() == [True, True]
    assert not verdict.broken.any()
    poisoned = Opaque(lambda z: torch.where(z[:, :1] > 0.5, torch.nan, 1.0) * torch.tensor([0.0, 1.0]))
    verdict = judge_of(poisoned)[0].judge(x, torch.tensor([1, 1]), x + 0.09, Threat("linf", 0.1, DOMAIN))
    assert verdict.error.all()
    assert not verdict.broken.any()


def test_what_only_float32_believes_is_numerical():
    # In float32 the two big terms cancel to 0 and the margin is a tie; exactly it is 2**-30 > 0.
    big = 2.0**24
    weight = [[big, -big, 2.0**-30], [0.0, 0.0, 0.0]]
    classifier = linear(weight, [0.0, 0.0])
    judge, _ = judge_of(classifier)
    x = torch.tensor([[1.0, 1.0, 1.0]])
    point = torch.tensor([[1.0, 1.0 - 2.0**-24, 1.0]])
    exact = sum(Fraction(w) * Fraction(v) for w, v in zip(weight[0], point[0].tolist(), strict=True))
    assert exact > 0

    class Wrong(Opaque):
        """Float32 arithmetic gone wrong by one: what a sloppy kernel might say."""

        graph = classifier.graph

        def logits(self, z):
            return classifier.logits(z) - torch.tensor([4.0, 0.0])

    judge, _ = judge_of(Wrong(None))
    verdict = judge.judge(x, torch.tensor([0]), point, Threat("linf", 0.1, DOMAIN))
    assert verdict.numerical.tolist() == [True]
    assert not verdict.broken.any()


def test_unrepeatable_answers_of_an_opaque_classifier_are_no_witness():
    answers = iter([True] * 9 + [False] * 99)  # misclassified while searching, right when asked again

    def fickle(z):
        wrong = next(answers)
        return torch.tensor([[0.0, -1.0 if wrong else 1.0]]).expand(len(z), 2)

    judge, _ = judge_of(Opaque(fickle))
    x = torch.tensor([[0.45, 0.5, 0.5]])
    verdict = judge.judge(x, torch.tensor([1]), x + 0.01, Threat("linf", 0.1, DOMAIN))
    assert not verdict.broken.any()
    assert verdict.numerical.all()


def test_clean_verdicts_ties_and_errors():
    judge, _ = judge_of(linear(*HALF))
    x = torch.tensor([[0.5, 0, 0], [0.25, 0, 0], [0.75, 0, 0]])
    correct, error, prediction, margin = judge.clean(x, torch.tensor([1, 1, 1]))
    assert correct.tolist() == [False, True, False]  # a tie is an error
    assert not error.any()
    assert margin.tolist() == [0.0, 0.5, -0.5]
    assert prediction[1:].tolist() == [1, 0]
    broken = Opaque(lambda z: torch.full((len(z), 2), torch.nan))
    correct, error, _, _ = judge_of(broken)[0].clean(x, torch.tensor([1, 1, 1]))
    assert error.all()
    assert not correct.any()


def test_float64_precision_decides_where_float32_ties():
    # 1 + 2**-30 is 1 in float32: the weights tie there, but not in a float64 model.
    weight = [[1.0 + 2.0**-30, 0, 0], [1.0, 0, 0]]
    x = torch.tensor([[1.0, 0, 0]], dtype=torch.float64)
    y = torch.tensor([0])
    correct, *_ = judge_of(linear(weight, [0, 0], torch.float64))[0].clean(x, y)
    assert correct.all()
    correct, *_ = judge_of(linear(weight, [0, 0], torch.float32))[0].clean(x.float(), y)
    assert not correct.any()


def test_every_pass_is_charged():
    classifier = linear(*HALF)
    for one in (classifier, Opaque(classifier.logits)):
        judge, counted = judge_of(one)
        x = torch.rand(16, 3, generator=torch.Generator().manual_seed(0)) * 0.49
        y = torch.ones(16, dtype=torch.int64)
        verdict = judge.judge(x, y, x + 0.2, Threat("linf", 0.2, DOMAIN))
        assert 0 < verdict.broken.sum() < 16
        assert int(verdict.forwards.sum()) == counted.take()[0]


def test_without_a_budget_the_witness_is_the_nearest_error_on_its_segment():
    judge, _ = judge_of(linear(*HALF))
    x = torch.tensor([[0.1, 0.5, 0.5]])
    verdict = judge.judge(x, torch.tensor([1]), torch.tensor([[1.0, 0.5, 0.5]]), Threat("l2", None, DOMAIN))
    assert verdict.broken.all()
    assert 0.4 <= verdict.distances["l2"].item() <= 0.4 + 0.9 / 200
    assert torch.equal(verdict.distances["l2"], distance(verdict.points, x, "l2"))
