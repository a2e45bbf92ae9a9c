import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from robench_plugins.training.intervals import imbalance, layer_inputs, worst_margins
from robench_plugins.training.linear_bounds import linear_margins, pull
from robench_plugins.training.networks import Normalise, build


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_network(architecture, seed, shape=(1, 4, 4), width=1):
    g = generator(seed)
    normalise = Normalise(torch.full((1, 1, 1), 0.3), torch.full((1, 1, 1), 0.7))
    network = build(architecture, width, normalise, shape, 3, "he", g).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=g, dtype=torch.float64))
    return network


def random_boxes(network, seed, scale, count=4, shape=(1, 4, 4)):
    g = generator(seed)
    x = torch.rand(count, *shape, generator=g, dtype=torch.float64)
    radius = scale * torch.rand(count, *shape, generator=g, dtype=torch.float64)
    return layer_inputs(network, x - radius, x + radius), torch.arange(count) % 3


NETWORKS = {
    "architecture": st.sampled_from(["mlp", "cnn"]),
    "seed": st.integers(0, 10_000),
    "scale": st.sampled_from([0.01, 0.1, 0.3, 1.0]),
    "slope": st.sampled_from(["adaptive", "zero"]),
}


@given(**NETWORKS)
def test_no_point_of_the_box_is_above_the_bounds(architecture, seed, scale, slope):
    network = random_network(architecture, seed)
    boxes, y = random_boxes(network, seed, scale)
    with torch.no_grad():
        bound = linear_margins(network, boxes, y, slope)
        lower, upper = boxes[0]
        g = generator(seed + 1)
        share = torch.rand((60, *lower.shape), generator=g, dtype=torch.float64)
        share[::2] = share[::2].round()  # corners, too
        points = (lower + share * (upper - lower)).flatten(0, 1)
        logits = network(points).reshape(60, len(y), 3)
        margins = logits - logits.gather(2, y.expand(60, -1)[:, :, None])
        assert (margins <= bound + 1e-9).all()
        assert (bound.gather(1, y[:, None]).abs() < 1e-9).all()


@given(**{name: NETWORKS[name] for name in ("architecture", "seed", "scale")})
def test_with_a_lower_line_of_zero_bounds_are_never_looser_than_intervals(architecture, seed, scale):
    network = random_network(architecture, seed)
    boxes, y = random_boxes(network, seed, scale)
    with torch.no_grad():
        intervals = worst_margins(network[-1], boxes[-1], y)
        assert (linear_margins(network, boxes, y, "zero") <= intervals + 1e-9).all()


def test_they_are_tighter_than_intervals_on_average_and_not_always():
    """The known exception: −relu on [−1, 2] is at most 0, and at most 1 by the line z below it."""
    closer = []
    for seed in range(20):
        network = random_network("mlp", seed)
        boxes, y = random_boxes(network, seed, 0.1)
        with torch.no_grad():
            closer.append(linear_margins(network, boxes, y) - worst_margins(network[-1], boxes[-1], y))
    assert torch.stack(closer).mean() < -0.1
    last = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        last.weight.copy_(torch.tensor([[1.0], [0.0]]))
    network = nn.Sequential(nn.ReLU(), last).requires_grad_(False)
    boxes = layer_inputs(network, torch.tensor([[-1.0]]), torch.tensor([[2.0]]))
    y = torch.tensor([0])
    assert worst_margins(last, boxes[-1], y)[0, 1] == 0
    assert linear_margins(network, boxes, y)[0, 1] == 1
    assert linear_margins(network, boxes, y, "zero")[0, 1] == 0
    # relu ≤ 2/3 (z + 1): the chord.
    assert linear_margins(network, boxes, torch.tensor([1]))[0, 0] == pytest.approx(2)


@pytest.mark.parametrize("slope", ["adaptive", "zero"])
@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_without_width_they_are_the_function(architecture, slope):
    network = random_network(architecture, 3)
    x = torch.rand(5, 1, 4, 4, generator=generator(), dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1])
    logits = network(x)
    bound = linear_margins(network, layer_inputs(network, x, x), y, slope)
    torch.testing.assert_close(bound, logits - logits.gather(1, y[:, None]))


@pytest.mark.parametrize("kind", ["stable", "linear"])
def test_they_are_exact_where_nothing_is_relaxed(kind):
    """A network whose ReLUs keep their sign is linear on the box: its maximum lies at a corner by the rows' signs."""
    network = random_network("mlp", 5)
    x = torch.rand(1, 1, 4, 4, generator=generator(2), dtype=torch.float64)
    if kind == "linear":
        network = nn.Sequential(network[0], network[1], nn.Linear(16, 3).double())
    radius = 0.5 if kind == "linear" else 1e-6
    boxes, y = layer_inputs(network, x - radius, x + radius), torch.tensor([1])
    bound = linear_margins(network, boxes, y)[0].detach()
    for rival in (0, 2):
        point = x.clone().requires_grad_()
        logits = network(point)[0]
        (gradient,) = torch.autograd.grad(logits[rival] - logits[1], point)
        corner = network(x + radius * gradient.sign())[0].detach()
        assert float(bound[rival]) == pytest.approx(float(corner[rival] - corner[1]), abs=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": (3, 2), "padding": (0, 2)},
        {"dilation": 2, "groups": 2, "bias": False},
    ],
)
@pytest.mark.parametrize("size", [(7, 8), (8, 7)])
def test_a_convolution_is_pulled_back_by_its_transpose(settings, size):
    layer = nn.Conv2d(2, 4, 3, **settings).double()
    g = generator()
    x = torch.randn(2, 2, *size, generator=g, dtype=torch.float64, requires_grad=True)
    out = layer(x)
    rows = torch.randn(2, 3, *out.shape[1:], generator=g, dtype=torch.float64)
    shift = torch.randn(2, 3, generator=g, dtype=torch.float64)
    back, constant = pull(layer, rows, shift, x.shape[1:])
    wanted = torch.stack([torch.autograd.grad(out, x, rows[:, k], retain_graph=True)[0] for k in range(3)], 1)
    torch.testing.assert_close(back, wanted)
    torch.testing.assert_close(
        (back * x[:, None]).flatten(2).sum(2) + constant, (rows * out[:, None]).flatten(2).sum(2) + shift
    )


def test_gradients_reach_the_weights_through_lines_and_intervals():
    network = random_network("mlp", 1)
    x = torch.rand(2, 1, 4, 4, generator=generator(1), dtype=torch.float64)
    y = torch.tensor([0, 2])
    weight = network[2].weight

    def bound():
        return linear_margins(network, layer_inputs(network, x - 0.1, x + 0.1), y).sum()

    (gradient,) = torch.autograd.grad(bound(), weight)
    for row, column in ((0, 0), (3, 7), (7, 15)):
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight[row, column] += step
                ends.append(float(bound()))
                weight[row, column] -= step
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(gradient[row, column]), rel=1e-4, abs=1e-6)


def test_layers_without_a_rule_are_named():
    box = (torch.zeros(1, 2), torch.ones(1, 2))
    network = nn.Sequential(nn.Sigmoid(), nn.Linear(2, 2))
    with pytest.raises(TypeError, match="no linear rule for Sigmoid"):
        linear_margins(network, [box, box], torch.tensor([0]))
    with pytest.raises(TypeError, match="circular padding"):
        pull(nn.Conv2d(1, 1, 3, padding_mode="circular"), torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1), (1, 3, 3))


def plain(*layers):
    return nn.Sequential(Normalise(torch.zeros(1), torch.ones(1)), *layers)


def test_the_regularisers_are_those_of_the_paper():
    """Shi et al. 2021, eqs. 12 and 13, by hand: three units on [1, 3], [−3, −2] and [−1, 2] after one on [0, 1]."""
    network = plain(nn.Flatten(), nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 2))
    lower, upper = torch.tensor([[1.0, -3.0, -1.0]]), torch.tensor([[3.0, -2.0, 2.0]])
    box = torch.zeros(1, 1), torch.ones(1, 1)
    got = imbalance(network, [box, box, box, (lower, upper), (lower, upper)], tolerance=0.8)
    # Widths 1 and 2 in the mean. Active centre 2, inactive −2.5, mean of all 0: means 2/2.5, variances 4/6.25.
    tightness = 0.8 - 1 / 2
    sides = max(0, 0.8 - 2 / 2.5) + (0.8 - 4 / 6.25)
    assert float(got) == pytest.approx((tightness + sides) / 0.8, rel=1e-6)
    # Narrow and balanced: nothing to correct. One side empty: nothing to compare.
    even = torch.tensor([[0.5, -1.5, 0.0]]), torch.tensor([[1.5, -0.5, 0.0]])
    assert float(imbalance(network, [box, box, box, even, even])) == 0
    active = torch.tensor([[0.5, 0.5, 0.5]]), torch.tensor([[1.5, 1.5, 1.5]])
    assert float(imbalance(network, [box, box, box, active, active])) == 0
