"""Classifiers of unknown make: what they do to their input, what they answer, and what they are refused for."""

import numpy as np
import pytest
import torch
from torch import nn

import robench
from robench.classifier import Counted
from robench.contracts import Attack, Proposal
from robench.errors import InputError
from robench.graph import ModuleClassifier, RandomModule
from robench.runner import _judge, refuse_undeclared_randomness
from robench.samples import Samples
from robench.streams import Stream
from robench.threat import Domain

WEIGHT = torch.tensor([[1.0, 0.5, 0.0], [-1.0, -0.5, 0.0]])


def data(count=20):
    x = np.random.default_rng(0).random((count, 3)).astype(np.float32)
    return x, (np.round(x * 4) / 4 @ WEIGHT.numpy().T + [-0.7, 0.7]).argmax(1)


def samples(count=20):
    x, y = data(count)
    return Samples(x, y, np.arange(count), Domain(), ("a", "b"))


class Levels(nn.Module):
    """Rounds its input to quarters, in the input's own memory or in a copy."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace

    def forward(self, x):
        rounded = x.data if self.inplace else x.data.clone()
        rounded.mul_(4).round_().div_(4)
        return rounded.sort(-1).values[:, :0].sum(1, keepdim=True) + rounded @ WEIGHT.T + torch.tensor([-0.7, 0.7])


class Normalized(nn.Module):
    """Normalises its input in place."""

    def forward(self, x):
        x.sub_(0.7)
        return x.sort(-1).values[:, 1:]


class Foreign:
    """An object with `logits`."""

    input_shape, classes, dtype, device = (3,), 2, torch.float32, torch.device("cpu")
    fingerprint, graph = "1" * 64, None

    def __init__(self, logits):
        self.logits = logits


class Drawing:
    """An object with `sample`."""

    input_shape, classes, dtype, device = (3,), 2, torch.float32, torch.device("cpu")
    fingerprint, graph = "2" * 64, None

    def __init__(self, sample):
        self.sample = sample


class Walk(Attack):
    """Moves everything to one side, by ε or to its edge."""

    def perturb(self, classifier, x, y, threat, stream):
        side = 1 - 2 * (classifier.logits(x).argmax(1) == 0).float()
        return Proposal(x + threat.eps * side[:, None])


@pytest.mark.parametrize("made", ["module", "object"])
def test_a_classifier_that_writes_into_its_input_changes_no_point(made, tmp_path):
    x, y = data()
    before, found = x.copy(), []
    for inplace in (False, True):
        module = Levels(inplace).eval()
        model = module if made == "module" else Foreign(module)
        done = robench.evaluate(model, (x, y), eps="0.2", attacks=[Walk()], certifiers=(), out=tmp_path / str(inplace))
        assert np.array_equal(x, before)
        rows = done.evidence[done.evidence["kind"] == "attack"]
        assert (rows["upper"][rows["status"] == "falsified"] <= 0.2).all()
        assert robench.replay(done.run, model=model, dataset=(x, y)).problems == []
        found.append((done.summary["results"][0]["empirical_accuracy"], rows["status"].tolist()))
    assert found[0] == found[1]
    assert 0 < found[0][0] < 1


def test_a_module_that_normalises_in_place_is_differentiable_and_keeps_its_input():
    classifier = ModuleClassifier(Normalized().eval(), (3,), 2)
    x = torch.rand(4, 3, requires_grad=True)
    before = x.detach().clone()
    first, again = classifier.logits(x), classifier.logits(x)
    assert torch.equal(first, again)
    first.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.detach(), before)


def test_a_module_that_normalises_in_place_is_evaluated(tmp_path):
    x, _ = data()
    before = x.copy()
    y = (np.sort(x, 1)[:, 1:] - 0.7).argmax(1)
    done = robench.evaluate(Normalized().eval(), (x, y), eps="0.05", attacks=[Walk()], out=tmp_path)
    assert done.summary["results"][0]["clean_accuracy"] == 1
    assert np.array_equal(x, before)


def test_what_draws_gets_a_copy_too():
    class Hidden(nn.Module):
        def forward(self, x):
            return x.mul_(0).add_(torch.rand_like(x))[:, :2]

    x = torch.rand(4, 3)
    before = x.clone()
    stream = Stream.for_samples(0, "a", range(4))
    RandomModule(Hidden().eval(), (3,)).sample(x, stream)
    Counted(Drawing(lambda x, stream: x.zero_()[:, :2])).sample(x, stream)
    assert torch.equal(x, before)


def test_a_point_that_leaves_its_budget_while_it_is_judged_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(_judge, "project", lambda points, x, threat: points)
    x, y = data()
    model = Foreign(Levels(False))

    class Far(Attack):
        def perturb(self, classifier, x, y, threat, stream):
            return Proposal(1 - x.round())

    done = robench.evaluate(model, (x, y), eps="0.01", attacks=[Far()], certifiers=(), out=tmp_path)
    rows = done.evidence[done.evidence["kind"] == "attack"]
    assert set(rows["status"]) == {"error"}
    assert rows["detail"].str.contains("left domain or budget").all()
    assert np.isinf(rows["upper"]).all()


# ------------------------------------------------------------------- the guard


def scores(x):
    return x @ WEIGHT.T


@pytest.mark.parametrize(
    "logits",
    [
        lambda x: scores(x) + 0 * (torch.tensor(0.0) / (len(x) - 1)),  # alone: not a number
        lambda x: scores(x) + (len(x) == 1),
        lambda x: scores(x) * torch.tensor([1 + (1 < len(x) < 5), 1.0]),
        lambda x: scores(x) / (len(x) != 7),
    ],
    ids=["nan", "one", "few", "infinite"],
)
def test_answers_that_depend_on_the_batch_are_refused(logits):
    with pytest.raises(InputError, match="depend on the others"):
        refuse_undeclared_randomness(Foreign(logits), samples())


@pytest.mark.parametrize("kind", ["buffer", "nan"])
def test_answers_that_change_are_refused(kind):
    out, calls = torch.zeros(20, 2), []

    def logits(x):
        calls.append(1)
        shift = len(calls) if kind == "buffer" else (torch.nan if len(calls) % 2 else 0.0)
        return out[: len(x)].copy_(scores(x) + torch.tensor([shift, 0.0]))

    with pytest.raises(InputError, match="different logits for the same input"):
        refuse_undeclared_randomness(Foreign(logits), samples())


@pytest.mark.parametrize("count", [1, 2, 20])
def test_the_same_errors_each_time_pass(count):
    refuse_undeclared_randomness(Foreign(lambda x: scores(x).masked_fill(x[:, :2] > 0.5, torch.nan)), samples(count))
    refuse_undeclared_randomness(Foreign(lambda x: scores(x) / torch.tensor([0.0, 1.0])), samples(count))


def unable(x, stream=None):
    raise ValueError("no such\ndevice")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Foreign(lambda x: [[0.0] * 2] * len(x)), r"gives list for 16 inputs: logits must be a tensor of floats"),
        (Foreign(lambda x: scores(x).numpy()), "gives ndarray"),
        (Foreign(lambda x: scores(x).long()), r"gives torch.int64 \[16, 2\]"),
        (Foreign(lambda x: scores(x)[:, : len(x)]), r"gives torch.float32 \[1, 1\] for 1 inputs"),
        (Foreign(lambda x: scores(x)[0]), r"gives torch.float32 \[2\]"),
        (Foreign(unable), "the model fails on clean samples: ValueError: no such device"),
        (Drawing(unable), "the model fails on clean samples"),
        (Drawing(lambda x, stream: scores(x).long()), r"gives torch.int64 \[16, 2\]"),
        (Drawing(lambda x, stream: scores(x)[:, : 1 + (len(x) < 17)]), r"gives torch.float32 \[\d+, 1\]"),
        (robench.from_function(unable, (3,), 2), "the model fails on clean samples: ValueError"),
    ],
)
def test_other_answers_are_one_line(model, told, tmp_path):
    with pytest.raises(InputError, match=told) as raised:
        robench.evaluate(model, data(), eps="0.1", certifiers=(), out=tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_bad_answer(error):
    def logits(x):
        raise error

    with pytest.raises(error):
        refuse_undeclared_randomness(Foreign(logits), samples())
