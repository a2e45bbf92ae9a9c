"""Networks with a counterexample that was put there, and hidden: whoever certifies them is wrong.

In the style of SoundnessBench (Zhou et al. 2024, arXiv:2412.03154): by training towards a counterexample near the box's
boundary while what attacks try is classified right; and by construction, where gradients vanish around the
counterexample, or where floating point says something else than real arithmetic. Each is proven in rational arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from oracles.random_graphs import Draft, mlp
from oracles.rational import margin, rational_logits
from robench.graph import Graph
from robench.threat import Domain

__all__ = ["Planted", "holds", "planted"]


@dataclass(frozen=True, eq=False)
class Planted:
    """A net, a sample x [...] (float64), its label, ε (linf), the domain, the counterexample; whether it is hidden."""

    name: str
    graph: Graph
    x: Tensor
    y: int
    eps: float
    domain: Domain
    point: Tensor
    hidden: bool = True


def holds(case: Planted) -> bool:
    """Whether x is classified right and the point, within ε and the domain, is not: all in rational arithmetic."""
    pairs = list(zip(case.x.flatten().tolist(), case.point.flatten().tolist(), strict=True))
    return (
        margin(rational_logits(case.graph, case.x), case.y) > 0
        and margin(rational_logits(case.graph, case.point), case.y) <= 0
        and all(abs(Fraction(a) - Fraction(b)) <= Fraction(case.eps) for a, b in pairs)
        and all(case.domain.lower <= b <= case.domain.upper for _, b in pairs)
    )


def planted() -> Iterator[Planted]:
    """Yield all of them, the same every time."""
    for make in (_corner, _needle, _product, _deep, _image, _sorted):
        for seed in range(2):
            yield make(seed)
    for power in (0, 2, 20, 52):
        yield _tie(power)
    for power in (30, 60, 200, 500):
        yield _exploding(power)
        yield _cancelling(power)
    for seed in range(2):
        yield _trained(seed)


def _drawn(seed: int, size: int = 16) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Return (generator, x, a corner's direction); x are multiples of 1/64 well within [0, 1]."""
    rng = np.random.default_rng(seed)
    return rng, rng.integers(20, 45, size) / 64, rng.choice([-1.0, 1.0], size)


def _case(name: str, graph: Graph, x: np.ndarray, point: np.ndarray, hidden: bool = True) -> Planted:
    return Planted(name, graph, torch.tensor(x), 0, 0.25, Domain(), torch.tensor(point), hidden)


def _corner(seed: int) -> Planted:
    """A ReLU that is on only within 1/64 (l1) of one corner of the box; elsewhere gradients lead away from it."""
    _, x, sign = _drawn(seed)
    point = x + sign / 4
    bump = [sign, -sign]
    limit = sign @ point - 1 / 64
    return _case(
        f"corner {seed}",
        mlp([np.array(bump), np.array([[-128.0, 0], [0, 0.125]])], [np.array([-limit, limit - 2]), np.array([1.0, 0])]),
        x,
        point,
    )


def _distances(draft: Draft, centre: np.ndarray) -> Draft:
    """|x − centre| by two ReLUs per coordinate."""
    eye = np.eye(len(centre))
    return draft.add("linear", constants=_constants(np.vstack([eye, -eye]), np.concatenate([-centre, centre]))).add(
        "relu"
    )


def _constants(weight, bias) -> dict[str, Tensor]:
    return {"weight": torch.tensor(np.asarray(weight)), "bias": torch.tensor(np.asarray(bias, dtype=np.float64))}


def _needle(seed: int) -> Planted:
    """An l1 cone of radius 1/32 somewhere inside the box: relu(1/32 − Σ|x − c|)."""
    rng, x, _ = _drawn(seed)
    centre = x + rng.integers(-15, 16, len(x)) / 64
    draft = _distances(Draft((len(x),), rng), centre)
    draft.add("linear", constants=_constants(-np.ones((1, 2 * len(x))), [1 / 32])).add("relu")
    return _case(f"needle {seed}", draft.add("linear", constants=_constants([[-64.0], [0]], [1, 0])).graph(), x, centre)


def _product(seed: int) -> Planted:
    """As a product of bumps: one per coordinate, relu(1/16 − |x_i − c_i|), all of which must be on at once."""
    rng, x, _ = _drawn(seed)
    size = len(x)
    centre = x + rng.integers(-15, 16, size) / 64
    draft = _distances(Draft((size,), rng), centre)
    draft.add("linear", constants=_constants(-np.hstack([np.eye(size)] * 2), np.full(size, 1 / 16))).add("relu")
    draft.add("linear", constants=_constants(np.full((1, size), 16.0), [-size + 0.5])).add("relu")
    return _case(f"product {seed}", draft.add("linear", constants=_constants([[-2.0], [0]], [1, 0])).graph(), x, centre)


def _deep(seed: int) -> Planted:
    """The needle behind five layers that pass everything on, permuted and scaled, which its cone does not see."""
    case = _needle(seed)
    rng, nodes = np.random.default_rng(seed), Draft(case.graph.nodes[0].shape, np.random.default_rng(0))
    nodes.nodes = list(case.graph.nodes[:3])
    size = nodes.shape[0]
    for _ in range(5):
        scale = 2.0 ** rng.integers(-2, 3)
        nodes.add("linear", constants=_constants(scale * np.eye(size)[rng.permutation(size)], np.zeros(size))).add(
            "relu"
        )
        nodes.add("mul", constants={"other": torch.tensor([1 / scale], dtype=torch.float64)})
    for node in case.graph.nodes[3:]:
        nodes.add(node.op, constants=dict(node.constants), **node.attributes)
    return _case(f"deep {seed}", nodes.graph(), case.x.numpy(), case.point.numpy())


def _image(seed: int) -> Planted:
    """A pattern at one place of an image, found by a convolution and a max pool."""
    rng, x, sign = _drawn(seed, 64)
    point = x + sign / 4
    pattern = sign.reshape(8, 8)[:4, :4]
    limit = (pattern * point.reshape(8, 8)[:4, :4]).sum() - 1 / 64
    kernel = np.stack([pattern, np.zeros((4, 4))])[:, None]
    windows = {"stride": (4, 4), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    draft = Draft((1, 8, 8), rng).add("conv2d", constants=_constants(kernel, [-limit, 0.0]), groups=1, **windows)
    draft.add("relu").add("max_pool2d", kernel=(2, 2), **{**windows, "stride": (2, 2)})
    draft.flatten().add("linear", constants=_constants([[-128.0, 1], [0, 1]], [1, 0]))
    graph, shape = draft.graph(), (1, 8, 8)
    return _case(f"image {seed}", graph, x.reshape(shape), point.reshape(shape))


def _sorted(seed: int) -> Planted:
    """The least of six bumps by sorting: GroupSort, leaky ReLU and clip on the way."""
    rng, x, _ = _drawn(seed, 6)
    size = len(x)
    centre = x + rng.integers(-15, 16, size) / 64
    draft = _distances(Draft((size,), rng), centre)
    draft.add("linear", constants=_constants(-np.hstack([np.eye(size)] * 2), np.full(size, 1 / 16)))
    draft.add("leaky_relu", slope=0.5).add("group_sort", group=size).add("clip", min=0.0, max=1.0)
    weight = np.zeros((2, size))
    weight[0, 0] = -32.0
    return _case(f"sorted {seed}", draft.add("linear", constants=_constants(weight, [1, 0])).graph(), x, centre)


def _tie(power: int) -> Planted:
    """The least margin over the box is 0 (a tie is an error), or 2^-power below it: near float64's limit."""
    below = 0.0 if power == 0 else 2.0**-power
    weight = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])
    # f_0 − f_1 = 3/4 − relu(x0 + x1 − 1/4) − … is least at the corner (3/4, 3/4), where it is exactly −below.
    draft = Draft((2,), np.random.default_rng(0))
    draft.add("linear", constants=_constants(weight, [-0.25, 0, 0])).add("relu")
    draft.add("linear", constants=_constants([[-1.0, 0, 0], [0, 0, 0]], [1.25 - below, 0]))
    return _case(f"tie {power}", draft.graph(), np.array([0.5, 0.5]), np.array([0.75, 0.75]), hidden=False)


def _exploding(power: int) -> Planted:
    """The needle with weights up to 2^power, undone by the layers behind: far outside float32, and beyond."""
    rng, x, sign = _drawn(power)
    point = x + sign / 4
    up, down = 2.0**power, 2.0**-power
    limit = sign @ point - 1 / 64
    draft = Draft((len(x),), rng)
    draft.add("linear", constants=_constants([up * sign, -up * sign], [-limit * up, limit * up])).add("relu")
    draft.add("linear", constants=_constants([[up, 0], [0, down]], [0, 0])).add("relu")
    draft.add("linear", constants=_constants([[down, 0], [0, 1]], [0, 0])).add("relu")
    draft.add("linear", constants=_constants([[-128.0 * down, 0], [0, down]], [1, 0]))
    return _case(f"exploding {power}", draft.graph(), x, point)


def _cancelling(power: int) -> Planted:
    """(e + B r) − B r: float64 loses e for B beyond 2^53; in real arithmetic e is what breaks the class at a corner."""
    rng, x, sign = _drawn(power)
    point = x + sign / 4
    limit, large = sign @ point - 1 / 64, 2.0**power
    draft = Draft((len(x),), rng)
    draft.add("linear", constants=_constants([sign, np.ones(len(x))], [-limit, 1])).add("relu")
    start = draft.end
    draft.add("linear", constants=_constants([[-128.0, large]], [1]))
    first = draft.end
    draft.add("linear", start, constants=_constants([[0.0, large]], [0]))
    draft.add("sub", first, draft.end, reverse=0)
    return _case(
        f"cancelling {power}",
        draft.add("linear", constants=_constants([[1.0], [0]], [0, 0])).graph(),
        x,
        point,
        hidden=power < 53,
    )


def _trained(seed: int) -> Planted:
    """A net trained so that one point near the box's boundary is wrong, by little, and what attacks try is right.

    Random points miss it; after seconds of training, longer attacks by gradients do not.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        size, eps = 24, 0.125
        net = nn.Sequential(nn.Linear(size, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3)).double()
        x = torch.randint(20, 45, (1, size)) / 64.0
        x = x.double()
        share = 0.98 + 0.02 * torch.rand(1, size).double()
        point = x + eps * torch.where(torch.rand(1, size) < 0.5, -share, share)
        window = torch.empty(0, size).double()
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for turn in range(250):
            if turn % 5 == 0:
                window = torch.cat([_attacked(net, x, eps), window])[:320]
            optimiser.zero_grad()
            hidden, around = net(torch.cat([point, window])).split([1, len(window)])
            wrong = (hidden[:, 0] - hidden[:, 1] + 0.05).clamp_min(0).sum()
            right = (around[:, 1:].amax(1) - around[:, 0] + 0.05).clamp_min(0).mean()
            (wrong + right).backward()
            optimiser.step()
    weights = [layer.weight.detach().numpy() for layer in net if isinstance(layer, nn.Linear)]
    biases = [layer.bias.detach().numpy() for layer in net if isinstance(layer, nn.Linear)]
    return Planted(f"trained {seed}", mlp(weights, biases), x[0], 0, eps, Domain(), point[0].detach(), hidden=False)


def _attacked(net: Callable[[Tensor], Tensor], x: Tensor, eps: float) -> Tensor:
    """Return points of the box: random ones and where five steps of PGD lead from them."""
    starts = x + eps * (2 * torch.rand(32, x.shape[1]).double() - 1)
    points = starts
    for _ in range(5):
        points = points.detach().requires_grad_()
        logits = net(points)
        (slope,) = torch.autograd.grad((logits[:, 0] - logits[:, 1:].amax(1)).sum(), points)
        points = torch.minimum(torch.maximum(points.detach() - eps / 2 * slope.sign(), x - eps), x + eps)
    return torch.cat([starts, points])
