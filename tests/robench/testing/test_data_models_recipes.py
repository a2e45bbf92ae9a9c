"""The kit's other kinds: an honest plugin passes, each liar is caught by the check about its lie."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robench.contracts import Trained
from robench.errors import DataError
from robench.samples import Samples
from robench.testing import (
    check_dataset,
    check_importer,
    check_model,
    check_plugin,
    check_recipe,
    check_transform,
    check_wrapper,
)
from robench.testing._data import Blobs
from robench.testing._subjects import Network, linear


def failed(kind: str, plugin: Any, **more: Any) -> set[str]:
    return {finding.check for finding in check_plugin(kind, plugin, **more) if not finding.ok}


class ChangedSamples(Blobs):
    """Blobs with some fields of its samples replaced."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        object.__setattr__(self, "changes", changes)

    def load(self, split: str) -> Samples:
        samples = super().load(split)
        return dataclasses.replace(samples, **{name: make(samples) for name, make in self.changes.items()})


class Restless(Blobs):
    def load(self, split: str) -> Samples:
        samples = super().load(split)
        return dataclasses.replace(samples, y=np.random.permutation(samples.y))


class AnySplit(Blobs):
    def load(self, split: str) -> Samples:
        return super().load("test")


class BySliceOnly:
    """An array source whose rows by index array come in another order than asked."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.shape, self.dtype = x, x.shape, x.dtype

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.x[rows] if isinstance(rows, slice) else self.x[np.sort(rows)]


def test_an_honest_dataset_passes() -> None:
    assert {finding.outcome for finding in check_dataset(Blobs())} == {"passed"}


@pytest.mark.parametrize(
    ("dataset", "check"),
    [
        (ChangedSamples(x=lambda s: s.x * 2), "valid"),
        (ChangedSamples(x=lambda s: (s.x * 255).astype(np.uint8)), "valid"),
        (ChangedSamples(y=lambda s: s.y.astype(np.int32)), "valid"),
        (ChangedSamples(classes=lambda s: ("a", "a", "b", "c")), "valid"),
        (ChangedSamples(x=lambda s: BySliceOnly(s.x)), "slices"),
        (Restless(), "stable"),
        (Restless(), "random state"),
        (AnySplit(), "unknown split"),
    ],
)
def test_a_lying_dataset_is_caught(dataset: Any, check: str) -> None:
    assert check in failed("datasets", dataset)


@dataclasses.dataclass(frozen=True)
class Rows:
    """A transform that keeps every second row and does what it is told to them."""

    lie: str = ""
    selects: bool = True

    def apply(self, dataset: Any) -> Any:
        lie = self.lie

        class Applied:
            def load(self, split: str) -> Samples:
                samples = dataset.load(split)
                if lie == "writes":
                    samples.y[:] = 0
                chosen = samples.select(slice(0, None, 2))
                if lie == "renumbers":
                    return dataclasses.replace(chosen, index=np.arange(len(chosen)) + 1000)
                if lie == "relabels":
                    return dataclasses.replace(chosen, y=(chosen.y + 1) % 4)
                return chosen

        return Applied()


def test_an_honest_transform_passes() -> None:
    assert {finding.outcome for finding in check_transform(Rows())} == {"passed"}
    changing = {one.check: one.outcome for one in check_transform(Rows(lie="relabels", selects=False))}
    assert changing["selection"] == "skipped"


@pytest.mark.parametrize(("lie", "check"), [("writes", "source"), ("renumbers", "indices"), ("relabels", "selection")])
def test_a_lying_transform_is_caught(lie: str, check: str) -> None:
    assert check in failed("transforms", Rows(lie))


class Made:
    """A model around a linear network, with one method replaced."""

    def __init__(self, lie: Any = None, **attributes: Any) -> None:
        self.lie, self.attributes = lie, attributes

    def load(self, device: torch.device, dtype: torch.dtype) -> Network:
        network = linear(3, (1, 4, 4), dtype=dtype).classifier.to(device)
        for name, value in self.attributes.items():
            setattr(network, name, value() if callable(value) else value)
        if self.lie is not None:
            honest = network.logits
            network.logits = lambda x: self.lie(honest, x)  # type: ignore[method-assign]
        return network


def test_an_honest_model_passes() -> None:
    assert {finding.outcome for finding in check_model(Made()) if finding.check != "device"} == {"passed"}


@pytest.mark.parametrize(
    ("model", "check"),
    [
        (Made(fingerprint="abc"), "describes itself"),
        (Made(classes=4), "describes itself"),
        (Made(fingerprint=lambda: f"{random.getrandbits(200):064x}"), "identity"),
        (Made(dtype=torch.float16), "describes itself"),
        (
            Made(
                fingerprint=lambda: (
                    f"{torch.rand(()).item():064.0f}".replace(".", "0")[:62] + f"{np.random.randint(99):02d}"
                )
            ),
            "quiet",
        ),
        (Made(lambda honest, x: honest(x) - honest(x).mean(0)), "function"),
        (Made(lambda honest, x: honest(x) + torch.rand(())), "function"),
        (Made(lambda honest, x: honest(x) * (1 if x.dtype == torch.float32 else 2)), "precision"),
        (Made(lambda honest, x: honest(x).detach()), "gradient"),
        (Made(lambda honest, x: honest(x.detach().mul_(1.5))), "inputs"),
        (Made(lambda honest, x: honest(x) + 0 * torch.rand(())), "quiet"),
    ],
)
def test_a_lying_model_is_caught(model: Made, check: str) -> None:
    assert check in failed("models", model)


class Scaled:
    def __init__(self, own: bool) -> None:
        self.own = own

    def wrap(self, classifier: Any) -> Any:
        if self.own:
            classifier.fingerprint = classifier.fingerprint[::-1]
        return classifier


def test_wrappers_need_an_identity_of_their_own() -> None:
    assert {finding.outcome for finding in check_wrapper(Scaled(own=True)) if finding.check != "device"} == {"passed"}
    assert failed("wrappers", Scaled(own=False)) == {"identity"}


class LeastSquares:
    """A recipe: a few steps of gradient descent from a seeded start, with one thing done to it."""

    def __init__(self, lie: str = "") -> None:
        self.lie = lie

    def train(self, train: Samples, context: Any) -> Trained:
        generator = torch.Generator().manual_seed(context.seed if self.lie != "one seed" else 0)
        x = torch.from_numpy(np.asarray(train.x[0 : len(train)])).flatten(1)
        y = torch.from_numpy(train.y)
        layer = torch.nn.Linear(x.shape[1], len(train.classes))
        start = torch.rand if self.lie == "global draws" else lambda s: torch.rand(s, generator=generator)
        weight = (0.01 * start(tuple(layer.weight.shape))).requires_grad_(True)
        history = []
        for epoch in range(3):
            for _ in range(40):
                loss = torch.nn.functional.cross_entropy(x @ weight.T, y)
                weight = (weight - 0.5 * torch.autograd.grad(loss, weight)[0]).detach().requires_grad_(True)
            history.append({"loss": loss.item()})
            if not (self.lie == "silent" and epoch == 1):
                context.report(epoch + 1, 3, history[-1])
        if self.lie == "untrained":
            weight = torch.zeros_like(weight)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.zero_()
        module = torch.nn.Sequential(torch.nn.Flatten(), layer)
        return Trained(module.train(self.lie == "training mode").requires_grad_(False), history)


@pytest.fixture(autouse=True)
def _quiet_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    # nn.Linear draws its first weights from the global state: not what these recipes are about.
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda self: None)


def test_an_honest_recipe_passes() -> None:
    assert {finding.outcome for finding in check_recipe(LeastSquares())} == {"passed"}


@pytest.mark.parametrize(
    ("lie", "checks"),
    [
        ("untrained", {"learns", "seeds"}),
        ("training mode", {"mode"}),
        ("global draws", {"repeats", "quiet"}),
        ("one seed", {"seeds"}),
        ("silent", {"history"}),
    ],
)
def test_a_lying_recipe_is_caught(lie: str, checks: set[str]) -> None:
    assert failed("recipes", LeastSquares(lie)) == checks


class Trusting:
    """An importer that takes any file for one of its own."""

    def read(self, path: Path) -> Any:
        if not path.exists():
            raise DataError("nothing there")
        yield path.read_bytes().split(b"\t")


def test_a_trusting_importer_is_caught() -> None:
    assert "foreign" in failed("importers", Trusting())


def test_an_importer_that_reads_something_else_is_caught(tmp_path: Path) -> None:
    (tmp_path / "one.tsv").write_text("a\tb\n")
    with pytest.raises(AssertionError, match=r"reads: required: .*yielded list, not ImportedRun"):
        check_importer(Trusting(), tmp_path / "one.tsv")
