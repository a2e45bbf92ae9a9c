"""Functions of arrays as classifiers: what they are asked, what they may answer, what names them."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import robench
from robench.arrays import ArrayClassifier
from robench.classifier import Classifier, Counted, margins
from robench.contracts import Attack, Proposal
from robench.errors import InputError
from robench.runner import Judge
from robench.threat import Domain, Threat

WEIGHT = np.random.default_rng(0).normal(size=(6, 3))


def scores(x):
    return x.reshape(len(x), -1) @ WEIGHT


def asked(answer, outputs="logits", count=4, dtype=torch.float32):
    """What a classifier with a fixed answer gives for `count` inputs [2, 3]."""
    classifier = robench.from_function(lambda x: answer, (2, 3), 3, outputs=outputs, dtype=dtype)
    return classifier.logits(torch.rand(count, 2, 3, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_function_gets_arrays_and_its_numbers_are_the_logits(dtype):
    seen = []

    def function(x):
        seen.append((type(x), x.dtype, x.shape, x.flags.c_contiguous))
        return scores(x)

    classifier = robench.from_function(function, [2, 3], 3, dtype=dtype)
    x = torch.rand(3, 5, 2, dtype=dtype).permute(1, 2, 0)
    logits = classifier.logits(x.clone().requires_grad_())
    assert seen == [(np.ndarray, np.dtype(str(dtype).removeprefix("torch.")), (5, 2, 3), True)]
    np.testing.assert_allclose(logits.numpy(), scores(x.numpy()), rtol=1e-6)
    assert (logits.dtype, logits.requires_grad) == (dtype, False)
    assert isinstance(classifier, Classifier)
    assert (classifier.graph, classifier.outputs, classifier.device.type) == (None, "logits", "cpu")
    assert classifier.logits(x[:0]).shape == (0, 3)
    assert len(seen) == 1  # nothing is asked about nothing


def test_what_the_function_does_to_its_argument_stays_there():
    def function(x):
        x[:] = 0
        return np.zeros((len(x), 3))

    x = torch.rand(4, 2, 3)
    before = x.clone()
    robench.from_function(function, (2, 3), 3).logits(x)
    assert torch.equal(x, before)


def test_labels_become_one_hot_logits_with_margins_of_one():
    logits = asked(np.array([0, 2, 1, 2], np.uint8), "labels")
    assert torch.equal(logits, torch.eye(3)[[0, 2, 1, 2]])
    assert margins(logits, torch.tensor([0, 2, 2, 0])).tolist() == [1, 1, -1, -1]
    assert Counted(robench.from_function(scores, (2, 3), 3, outputs="labels")).outputs == "labels"
    assert Counted(robench.from_function(scores, (2, 3), 3)).outputs == "logits"


@pytest.mark.parametrize(
    ("answer", "outputs", "told"),
    [
        (np.zeros((4, 2)), "logits", r"float64 \[4, 2\] for 4 inputs: logits must be numbers \[4, 3\]"),
        (np.zeros(12), "logits", r"float64 \[12\]"),
        (np.zeros((4, 3), bool), "logits", "bool"),
        (np.zeros((4, 3), complex), "logits", "complex128"),
        ([["a"] * 3] * 4, "logits", "logits must be numbers"),
        (None, "logits", r"object \[\] for 4 inputs"),
        ([[1, 2], [3]], "logits", "a list that NumPy cannot read"),
        (np.zeros((4, 3)), "labels", r"float64 \[4, 3\] for 4 inputs: labels must be integers \[4\]"),
        (np.zeros(4), "labels", "integers"),
        (np.array([0, 1, 2, 3]), "labels", "labels from 0 to 3: they must be 0 to 2"),
        (np.array([0, -1, 2, 0]), "labels", "labels from -1 to 2"),
    ],
)
def test_other_answers_are_refused_in_one_line(answer, outputs, told):
    with pytest.raises(InputError, match=told) as raised:
        asked(answer, outputs)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"input_shape": ()}, "input_shape"),
        ({"input_shape": (0, 3)}, "input_shape"),
        ({"input_shape": float("nan")}, "input_shape nan: give the shape"),
        ({"input_shape": (2, 3.5)}, "input_shape"),
        ({"input_shape": "ab"}, "input_shape 'ab'"),
        ({"input_shape": 0}, "input_shape 0"),
        ({"classes": None}, "classes is None"),
        ({"classes": "3"}, "2 or more"),
        ({"classes": 1}, "2 or more"),
        ({"classes": 2.5}, "2 or more"),
        ({"outputs": "probabilities"}, "choose logits or labels"),
        ({"dtype": torch.float16}, "choose torch.float32"),
        ({"function": 3}, "a int is no function"),
        ({"identity": torch.Generator()}, "give a text"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, told):
    with pytest.raises(InputError, match=told):
        robench.from_function(**{"function": scores, "input_shape": (2, 3), "classes": 3, **settings})


def test_a_number_is_the_shape_of_flat_inputs():
    assert robench.from_function(scores, 6, 3).input_shape == (6,)
    one, other = (robench.from_function(scores, shape, 3).fingerprint for shape in (6, [np.int64(6)]))
    assert one == other


def test_inputs_of_another_shape_or_dtype_are_refused():
    classifier = robench.from_function(scores, (2, 3), 3)
    for x in (torch.rand(4, 3, 2), torch.rand(4, 2, 3, dtype=torch.float64)):
        with pytest.raises(InputError, match="the classifier takes"):
            classifier.logits(x)


def test_rounding_to_float32_changes_no_decision():
    close = np.array([[0.5, 0.5 + 1e-12, 0.1], [1e300, 1e299, -1e300], [0.3, 0.3, 0.1], [1 + 1e-12, 1.0, 1.0]])
    logits = asked(close)
    assert torch.isfinite(logits).all()
    assert logits.argmax(1).tolist() == [1, 0, 0, 0]
    sure = margins(logits, torch.tensor([1, 0, 0, 0])) > 0
    assert sure.tolist() == [True, True, False, True]  # a tie stays one
    assert torch.equal(asked(close, dtype=torch.float64), torch.from_numpy(close))
    assert asked(np.full((4, 3), np.nan)).isnan().all()
    assert asked(np.full((4, 3), np.inf)).isinf().all()
    assert asked(np.arange(12).reshape(4, 3)).tolist() == np.arange(12.0).reshape(4, 3).tolist()


# --------------------------------------------------------------- identity


def test_a_function_is_named_by_its_code_and_what_it_reads():
    def made(weight, outputs="logits", **settings):
        return robench.from_function(lambda x: x.reshape(len(x), -1) @ weight, (2, 3), 3, outputs=outputs, **settings)

    one, again = made(WEIGHT), made(WEIGHT.copy())
    assert one.identified
    assert one.fingerprint == again.fingerprint
    others = [made(WEIGHT + 1), made(WEIGHT, "labels"), made(WEIGHT, dtype=torch.float64), robench.from_function(
        lambda x: x.reshape(len(x), -1) @ WEIGHT, (3, 2), 3)]  # fmt: skip
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_a_stated_identity_names_the_function_instead():
    remote = torch.Generator()  # stands for a connection: nobody can say what is behind it

    def function(x, remote=remote):
        return scores(x)

    unknown = [robench.from_function(function, (2, 3), 3) for _ in range(2)]
    assert not any(classifier.identified for classifier in unknown)
    assert unknown[0].fingerprint != unknown[1].fingerprint
    named = [robench.from_function(function, (2, 3), 3, identity="acme v3") for _ in range(2)]
    assert all(classifier.identified for classifier in named)
    assert named[0].fingerprint == named[1].fingerprint == robench.from_function(
        scores, [2, 3], 3, identity="acme v3").fingerprint  # fmt: skip
    by_weights = robench.from_function(function, (2, 3), 3, identity={"dense": [WEIGHT]})
    assert by_weights.identified
    changed = [robench.from_function(function, (2, 3), 3, identity={"dense": [WEIGHT + 1e-9]}),
               robench.from_function(function, (2, 3), 4, identity={"dense": [WEIGHT]})]  # fmt: skip
    assert len({by_weights.fingerprint, *(one.fingerprint for one in changed)}) == 3


# ------------------------------------------------------------ scikit-learn


def blobs(classes=3, count=120, seed=0):
    draw = np.random.default_rng(seed)
    y = np.arange(count) % classes
    return np.clip(0.5 + 0.3 * np.eye(6)[y] + 0.1 * draw.normal(size=(count, 6)), 0, 1), y


ESTIMATORS = {
    "forest": lambda: RandomForestClassifier(5, random_state=0),
    "logistic": lambda: LogisticRegression(),
    "machine": lambda: make_pipeline(StandardScaler(), SVC(break_ties=True)),
    "network": lambda: MLPClassifier((8,), max_iter=200, random_state=0),
    "ridge": lambda: RidgeClassifier(),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_decide_as_predict_does(name, classes):
    x, y = blobs(classes)
    estimator = ESTIMATORS[name]().fit(x, y)
    inputs = torch.tensor(np.random.default_rng(1).random((200, 2, 3)), dtype=torch.float32)
    expected = estimator.predict(inputs.numpy().reshape(200, -1))
    classifier = robench.from_sklearn(estimator, (2, 3))
    logits = classifier.logits(inputs)
    assert (classifier.classes, classifier.outputs, logits.dtype) == (classes, "logits", torch.float32)
    strict = margins(logits, torch.from_numpy(expected)) > 0
    tied = margins(logits, torch.from_numpy(expected)) == 0
    assert (strict | tied).all()
    assert strict.double().mean() > 0.6  # few trees tie often
    labels = robench.from_sklearn(estimator, (2, 3), method="predict")
    assert labels.outputs == "labels"
    assert labels.logits(inputs).argmax(1).tolist() == expected.tolist()
    assert classifier.identified
    assert len({classifier.fingerprint, labels.fingerprint}) == 2


def test_an_estimator_is_named_by_what_it_learnt_and_copied():
    x, y = blobs()
    made = [RandomForestClassifier(5, random_state=seed).fit(x, y) for seed in (0, 0, 1)]
    first, again, other = (robench.from_sklearn(one) for one in made)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    inputs = torch.tensor(x, dtype=torch.float32)
    before = first.logits(inputs)
    made[0].fit(x, (y + 1) % 3)
    assert torch.equal(first.logits(inputs), before)
    assert first.runtime["scikit-learn"]


def test_estimators_have_the_same_fingerprint_in_every_process():
    script = """
        import sys
        sys.path[:0] = [sys.argv[1]]
        import test_arrays, robench
        x, y = test_arrays.blobs()
        print(*(robench.from_sklearn(test_arrays.ESTIMATORS[name]().fit(x, y)).fingerprint
                for name in ("forest", "logistic", "machine")))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(Path(__file__).parent)]
    found = {subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout for _ in range(2)}
    x, y = blobs()
    here = [
        robench.from_sklearn(ESTIMATORS[name]().fit(x, y)).fingerprint for name in ("forest", "logistic", "machine")
    ]
    assert found == {" ".join(here) + "\n"}


def test_what_is_no_fitted_classifier_on_labels_from_zero_is_refused():
    x, y = blobs()
    for estimator, settings, told in (
        (LogisticRegression(), {}, "give a fitted classifier"),
        (StandardScaler().fit(x), {}, "give a fitted classifier"),
        (LogisticRegression().fit(x, y + 1), {}, r"labels \[1 2 3\]: fit it on 0 to 2"),
        (LogisticRegression().fit(x, np.array(["a", "b", "c"])[y]), {}, "fit it on 0 to 2"),
        (LogisticRegression().fit(x, y), {"input_shape": (2, 2)}, "takes 6 features"),
        (LogisticRegression().fit(x, y), {"input_shape": 5}, r"input_shape \[5\] has 5"),
        (LogisticRegression().fit(x, y), {"input_shape": (2, None)}, "give the shape of one input"),
        (make_pipeline(StandardScaler(), SVC()).fit(x, y), {}, "by votes"),
        (GridSearchCV(make_pipeline(StandardScaler(), SVC()), {}, cv=2).fit(x, y), {}, "by votes"),
        (RandomForestClassifier(2).fit(x, y), {"method": "decision_function"}, "it has predict_proba, predict"),
    ):
        with pytest.raises(InputError, match=told) as raised:
            robench.from_sklearn(estimator, **settings)
        assert "\n" not in str(raised.value)


# ------------------------------------------------------------- in the runner


def test_the_judge_asks_again_and_takes_labels():
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    seen = []

    def labels(x):
        seen.append(len(x))
        return (x @ weight.numpy().T - [0.5, 0]).argmax(1)

    classifier = robench.from_function(labels, (2,), 2, outputs="labels")
    x, y = torch.tensor([[0.75, 0.5], [0.9, 0.1]]), torch.tensor([0, 0])
    judge = Judge(Counted(classifier))
    correct, error, prediction, margin = judge.clean(x, y)
    assert (correct.tolist(), error.tolist(), prediction.tolist(), margin.tolist()) == (
        [True] * 2, [False] * 2, [0, 0], [1, 1])  # fmt: skip
    verdict = judge.judge(x, y, torch.tensor([[0.25, 0.5], [0.8, 0.1]]), Threat("linf", 0.6, Domain()))
    assert verdict.broken.tolist() == [True, False]
    assert verdict.margin.tolist() == [-1, 1]
    assert verdict.method == ["repeat", None]
    assert verdict.distances["linf"][0] <= 0.25 + 0.5 / 256


class Nudge(Attack):
    """Moves everything up by ε."""

    def perturb(self, classifier, x, y, threat, stream):
        return Proposal((x + threat.eps).clamp(0, 1))


@pytest.mark.parametrize("outputs", ["logits", "labels"])
def test_a_run_about_a_function_is_evidence_about_the_map_as_executed(outputs, tmp_path):
    x, y = blobs()
    estimator = LogisticRegression().fit(x, y)
    method = {"logits": "decision_function", "labels": "predict"}[outputs]
    classifier = robench.from_sklearn(estimator, method=method)
    assert isinstance(classifier, ArrayClassifier)
    data = x[:20].astype(np.float32), y[:20]
    notes = []
    done = robench.evaluate(classifier, data, eps="0.1", attacks=[Nudge()], out=tmp_path, warn=notes.append)
    manifest = done.run.manifest
    assert manifest.classifier.opaque
    assert manifest.environment.versions["scikit-learn"]
    assert any("evidence is about the map as executed" in note for note in notes)
    assert done.summary["results"][0]["clean_accuracy"] == (estimator.predict(x[:20]) == y[:20]).mean()
    assert done.summary["results"][0]["certified_accuracy"] is None
