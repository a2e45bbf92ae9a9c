"""Convolutions on circular padding: their norms are those of the whole operator, written out as a matrix."""

import pytest
import torch
from torch import nn

from oracles.expansion import most_expanded
from oracles.operators import largest, matrix_of
from robench.graph import from_torch
from robench_plugins.lipschitz import _matrices
from robench_plugins.lipschitz.constant import lipschitz_constant

# kernel, stride, dilation, padding, input
CASES = [
    (3, 1, 1, 1, (2, 5, 4)),
    (3, 1, 1, "same", (2, 6, 6)),
    (2, 1, 1, "same", (2, 5, 4)),
    ((3, 1), 1, 1, (1, 0), (2, 4, 5)),
    (4, 2, 1, 1, (3, 6, 4)),
    (3, 2, 1, 1, (2, 6, 8)),
    (5, 1, 1, 2, (2, 3, 3)),  # taps that fall on the same pixel
    (3, 1, 2, 2, (2, 5, 4)),
    (3, 1, 1, (0, 1), (2, 5, 4)),
]


def net(kernel, stride, dilation, padding, shape, groups=1, seed=0):
    torch.manual_seed(seed)
    conv = nn.Conv2d(shape[0], 4, kernel, stride, padding, dilation=dilation, groups=groups, padding_mode="circular")
    return nn.Sequential(conv, nn.Flatten()).eval()


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_norm_is_that_of_the_matrix(case, explicit, monkeypatch):
    monkeypatch.setattr(_matrices, "_QUICK", 1.0 if explicit else 0.0)
    *settings, shape = case
    module = net(*settings, shape, seed=int(explicit))
    true = largest(matrix_of(module, shape))
    found = lipschitz_constant(from_torch(module, shape))
    assert {layer.source for layer in found.layers} <= ({"matrix"} if explicit else {"torus", "grid", "rows", "sums"})
    smaller = settings[3] == (0, 1) or settings[0] == (3, 1)  # a restriction, or one frequency more than there is
    assert true * (1 - 1e-9) <= found.value <= true * (1.2 if smaller else 1 + 1e-6)


def test_groups_and_factors_of_channels():
    """A scale before the padding and a batch norm behind the convolution are bounded together with it."""
    module = net(3, 1, 1, 1, (4, 5, 4), groups=2)
    norm = nn.BatchNorm2d(4)
    norm.running_var.uniform_(0.1, 4)
    gain = nn.BatchNorm2d(4)
    gain.running_var.uniform_(0.1, 4)
    whole = nn.Sequential(gain, module[0], norm, nn.Flatten()).eval()
    found = lipschitz_constant(from_torch(whole, (4, 5, 4)))
    assert found.value == pytest.approx(largest(matrix_of(whole, (4, 5, 4))), rel=1e-6)


class Written(nn.Module):
    def __init__(self, pad, **settings):
        super().__init__()
        torch.manual_seed(0)
        self.pad, self.conv = pad, nn.Conv2d(2, 3, 3, **settings)
        self.eval()

    def forward(self, x):
        return self.conv(self.pad(x)).flatten(1)


def across(left, right):
    return lambda x: torch.cat([*left(x), x, *right(x)], 3)


def twice(sizes):
    return lambda x: nn.functional.pad(nn.functional.pad(x, sizes, mode="circular"), sizes, mode="circular")


OTHERS = {
    "start and end changed": Written(across(lambda x: [x[..., :1]], lambda x: [x[..., -1:]])),
    "not at the end": Written(across(lambda x: [x[..., -2:-1]], lambda x: [x[..., :1]])),
    "every other": Written(across(lambda x: [x[..., 1::2]], lambda x: [x[..., :1]])),
    "of another": Written(lambda x: torch.cat([(2 * x)[..., -1:], x, x[..., :1]], 3)),
    "rows instead": Written(across(lambda x: [x[..., -1:, :].reshape(-1, 2, 4, 1)], lambda x: [])),
    "zeros around": Written(across(lambda x: [x[..., -1:]], lambda x: [x[..., :1]]), padding=1),
    "windows more than positions": Written(across(lambda x: [x[..., -2:]], lambda x: [x[..., :2]])),
    "a stride that does not close": Written(across(lambda x: [x[..., -1:]], lambda x: [x[..., :2]]), stride=3),
    "twice in front": Written(twice((1, 0, 0, 0))),
    "twice behind": Written(twice((0, 1, 0, 0))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_like_it_keeps_a_sound_bound(name):
    graph = from_torch(OTHERS[name], (2, 4, 4))
    true = largest(matrix_of(OTHERS[name], (2, 4, 4)))
    assert true <= lipschitz_constant(graph).value


def test_a_network_of_them_is_never_expanded_beyond_its_constant():
    torch.manual_seed(0)
    whole = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.ReLU(),
        nn.Conv2d(4, 4, 4, stride=2, padding=1, padding_mode="circular"), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3),
    ).eval()  # fmt: skip
    graph = from_torch(whole, (1, 4, 4))
    found = lipschitz_constant(graph)
    assert most_expanded(graph, 0, starts=8, steps=8)[0] <= found.value
    tails = found.tails(graph, range(len(graph.nodes)))
    assert tails[0] >= found.value * (1 - 1e-9)
    assert all(value > 0 for node, value in tails.items() if graph.nodes[node].op in ("relu", "conv2d", "linear"))
