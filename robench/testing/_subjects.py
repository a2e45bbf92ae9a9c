"""The classifiers that plugins are tried on, with samples whose robust radius is known."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robench.classifier import Classifier, margins
from robench.graph import Graph, Node
from robench.testing._oracles import linear_radius, planar_radius
from robench.threat import Domain, Norm

__all__ = ["Network", "Subject", "constant", "linear", "overflowing", "poisoned", "relu_net", "tie"]


class Network:
    """A fully connected ReLU network with parameters of its own, so that touched gradients show."""

    def __init__(self, weights: list[tuple[Tensor, Tensor]], shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Build from (weight [out, in], bias [out]) per layer; inputs have `shape`."""
        layers: list[nn.Module] = [nn.Flatten()]
        nodes = [Node("input", shape=shape)]
        digest = hashlib.sha256(repr((shape, str(dtype))).encode())
        if len(shape) != 1:
            flat = (int(torch.Size(shape).numel()),)
            nodes.append(Node("reshape", (0,), {"shape": flat}, shape=flat))
        for position, (weight, bias) in enumerate(weights):
            if position:
                layers.append(nn.ReLU())
                nodes.append(Node("relu", (len(nodes) - 1,), shape=nodes[-1].shape))
            # On `meta` first: the default initialisation would draw from the global random state.
            layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta", dtype=dtype)
            layer.weight = nn.Parameter(weight.to(dtype, copy=True))
            layer.bias = nn.Parameter(bias.to(dtype, copy=True))
            layers.append(layer)
            constants = {"weight": layer.weight.detach().clone(), "bias": layer.bias.detach().clone()}
            nodes.append(Node("linear", (len(nodes) - 1,), {}, constants, (weight.shape[0],)))
            digest.update(b"".join(c.double().numpy().tobytes() for c in constants.values()))
        self.module = nn.Sequential(*layers).eval()
        self.weights = weights
        self.graph: Graph | None = Graph(tuple(nodes))
        self.input_shape = shape
        self.classes = nodes[-1].shape[0]
        self.dtype = dtype
        self.device = torch.device("cpu")
        self.fingerprint = digest.hexdigest()

    def to(self, device: torch.device) -> Network:
        """Move the network to `device` and return it."""
        self.module.to(device)
        self.device = device
        return self

    def logits(self, x: Tensor) -> Tensor:
        """Return logits [B, classes]."""
        if x.dtype != self.dtype or tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(f"asked about {x.dtype} {tuple(x.shape)} instead of {self.dtype} [B, *{self.input_shape}]")
        out: Tensor = self.module(x)
        return out


@dataclass(frozen=True)
class Subject:
    """A classifier, correctly classified samples [B, ...] with labels [B], and their robust radii."""

    name: str
    classifier: Network
    x: Tensor
    y: Tensor
    domain: Domain
    measure: Callable[[Norm], Tensor]
    _radii: dict[Norm, Tensor] = field(default_factory=dict, repr=False)

    def radius(self, norm: Norm) -> Tensor:
        """Return the robust radii [B], float64."""
        if norm not in self._radii:
            self._radii[norm] = self.measure(norm)
        return self._radii[norm]


def _draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _samples(classifier: Classifier, domain: Domain, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs in the domain, labelled as the classifier classifies them, of every class that it predicts."""
    spread = _draw(seed, 64 * count, *classifier.input_shape)
    x = (torch.sigmoid(spread) if domain.bounded else spread).to(classifier.dtype)
    with torch.no_grad():
        logits = classifier.logits(x)
    y = logits.argmax(1)
    clear = margins(logits, y) > 1e-3  # away from the tie, where float32 could differ
    x, y = x[clear], y[clear]
    seen = (y[:, None] == torch.arange(classifier.classes)).cumsum(0)
    rows = torch.argsort(seen[torch.arange(len(y)), y], stable=True)[:count]  # the first of each class, then the second
    return x[rows], y[rows]


def linear(
    classes: int = 2,
    shape: tuple[int, ...] = (12,),
    domain: Domain | None = None,
    dtype: torch.dtype = torch.float64,
    count: int = 8,
) -> Subject:
    """Return a linear classifier with Gaussian weights, centred in its domain; radii in closed form."""
    domain = domain or Domain()
    size = int(torch.Size(shape).numel())
    weight = _draw(classes, classes, size)
    bias = -weight.sum(1) / 2 if domain.bounded else _draw(classes + 100, classes)
    network = Network([(weight, bias)], shape, dtype)
    x, y = _samples(network, domain, count, seed=1)
    held = weight.to(dtype), bias.to(dtype)
    where = "in [0, 1]" if domain.bounded else "without a box"
    name = f"linear classifier {where}, {classes} classes, {str(dtype).removeprefix('torch.')}"
    return Subject(name, network, x, y, domain, lambda norm: linear_radius(*held, x, y, norm, domain))


def relu_net(
    widths: tuple[int, ...] = (2, 8, 3), dtype: torch.dtype = torch.float64, count: int = 6, seed: int = 3
) -> Subject:
    """Return a ReLU network on [0, 1]²; radii by dense search, so never too small."""
    weights = [
        (_draw(seed + i, b, a) * (2 / a) ** 0.5 * (3 if i == 0 else 1), 0.3 * _draw(seed + 50 + i, b))
        for i, (a, b) in enumerate(itertools.pairwise(widths))
    ]
    # Centre the first layer, so that its kinks lie inside the box; and balance the logits there.
    weights[0] = (weights[0][0], weights[0][1] - weights[0][0].sum(1) / 2)
    trial = Network(weights, (widths[0],), torch.float64)
    probe = torch.sigmoid(_draw(seed, 512, widths[0]))
    with torch.no_grad():
        weights[-1] = (weights[-1][0], weights[-1][1] - trial.logits(probe).mean(0))
    network = Network(weights, (widths[0],), dtype)
    x, y = _samples(network, Domain(), count, seed=2)
    name = f"ReLU network {'-'.join(map(str, widths))} on the unit square, {str(dtype).removeprefix('torch.')}"
    return Subject(name, network, x, y, Domain(), lambda norm: planar_radius(network, x, y, norm))


def tie() -> Subject:
    """Return x₁ − 1/2 against 0 on [0, 1]² with samples at x₁ = 3/4, 1 and 5/8: radii exact in binary."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    bias = torch.tensor([-0.5, 0.0], dtype=torch.float64)
    x = torch.tensor([[0.75, 0.5], [1.0, 0.25], [0.625, 0.0]], dtype=torch.float64)
    y = torch.zeros(3, dtype=torch.int64)
    network = Network([(weight, bias)], (2,), torch.float64)
    return Subject("half-plane with exact radii", network, x, y, Domain(), lambda norm: x[:, 0] - 0.5)


def constant() -> Subject:
    """Return a classifier that answers class 0 everywhere, so that its gradients are zero and r* is infinite."""
    network = Network([(torch.zeros(3, 12), torch.tensor([1.0, 0.0, 0.0]))], (12,), torch.float64)
    x, y = torch.full((4, 12), 0.5, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    infinite = torch.full((4,), float("inf"), dtype=torch.float64)
    return Subject("constant classifier on flat inputs", network, x, y, Domain(), lambda norm: infinite)


def poisoned() -> Subject:
    """Return a linear classifier whose logits are NaN near the faces of the box, where large steps end."""
    base = linear()

    class Poisoned(Network):
        def logits(self, x: Tensor) -> Tensor:
            outside = (x - 0.5).abs().flatten(1).amax(1) > 0.499
            return torch.where(outside[:, None], torch.nan, super().logits(x))

    network = Poisoned(base.classifier.weights, (12,), torch.float64)
    network.graph = None
    x = base.x.clamp(0.05, 0.95)
    with torch.no_grad():
        y = network.logits(x).argmax(1)
    infinite = torch.full((len(x),), float("inf"), dtype=torch.float64)
    return Subject("classifier with NaN logits near the box's faces", network, x, y, Domain(), lambda norm: infinite)


def overflowing() -> list[Subject]:
    """Return linear classifiers near the largest double, where norms overflow, and with a NaN weight, where r* is 0."""
    x, y = torch.tensor([[0.9, 0.1], [0.7, 0.2]], dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    gap = x[:, 0] - x[:, 1]
    huge = torch.tensor([[1.7e308, 0.0], [0.0, 1.7e308]], dtype=torch.float64)
    exact = {"linf": gap / 2, "l2": gap / 2**0.5, "l1": gap}
    subjects = []
    for name, weight in (("huge weights", huge), ("a NaN weight", huge.clone().fill_diagonal_(torch.nan))):
        radii = exact if name == "huge weights" else dict.fromkeys(exact, torch.zeros(2, dtype=torch.float64))
        network = Network([(weight, torch.zeros(2, dtype=torch.float64))], (2,), torch.float64)
        subjects.append(Subject(f"linear classifier with {name}", network, x, y, Domain(), radii.__getitem__))
    return subjects
