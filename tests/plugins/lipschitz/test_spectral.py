"""The spectral norm's upper bound: never below the true one, in exact arithmetic, and hardly above it."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robench_plugins.lipschitz import spectral
from robench_plugins.lipschitz.spectral import spectral_norm_upper


def is_upper_bound(matrix, bound):
    """Whether s²I − WᵀW has positive pivots, in fractions: exactly then s is above the largest singular value."""
    if bound == math.inf:
        return True
    w = [[Fraction(float(v)) for v in row] for row in matrix]
    w = w if len(w) >= len(w[0]) else [list(column) for column in zip(*w, strict=True)]
    n = len(w[0])
    a = [
        [-sum(row[i] * row[j] for row in w) + (Fraction(bound) ** 2 if i == j else 0) for j in range(n)]
        for i in range(n)
    ]
    for k in range(n):
        if a[k][k] <= 0:
            return False
        for i in range(k + 1, n):
            factor = a[i][k] / a[k][k]
            a[i] = [left - factor * above for left, above in zip(a[i], a[k], strict=True)]
    return True


def largest_singular_value(matrix):
    with mpmath.workdps(60):
        return mpmath.mpf(max(mpmath.svd_r(mpmath.matrix(matrix.tolist()), compute_uv=False)))


@settings(max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 7),
    st.integers(1, 7),
    st.sampled_from(["normal", "integers", "rank one", "one column", "graded", "sparse"]),
    st.integers(-300, 300),
)
def test_never_below_in_exact_arithmetic_whatever_the_scale(seed, rows, columns, kind, power):
    rng = np.random.default_rng(seed)
    matrix = {
        "normal": lambda: rng.normal(size=(rows, columns)),
        "integers": lambda: rng.integers(-3, 4, (rows, columns)).astype(float),
        "rank one": lambda: np.outer(rng.normal(size=rows), rng.normal(size=columns)),
        "one column": lambda: np.eye(columns)[0] * rng.normal(size=(rows, 1)),
        "graded": lambda: rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-200, 1, columns),
        "sparse": lambda: rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < 0.3),
    }[kind]() * 10.0**power
    bound = spectral_norm_upper(torch.tensor(matrix))
    if not matrix.any():
        assert bound == 0
        return
    assert is_upper_bound(matrix, bound)
    # 2**-1000 is the smallest bound that is given.
    assert bound <= max(np.linalg.norm(matrix / abs(matrix).max()) * abs(matrix).max() * (1 + 1e-12), 2.0**-1000)


def test_the_exact_check_knows_what_is_below():
    matrix = np.random.default_rng(0).normal(size=(5, 4))
    true = float(largest_singular_value(matrix))
    assert is_upper_bound(matrix, true * (1 + 1e-14)) and not is_upper_bound(matrix, true * (1 - 1e-14))


def test_what_lapack_says_is_no_upper_bound():
    """Which is why it is not believed."""
    rng = np.random.default_rng(1)
    matrices = [rng.normal(size=(6, 6)) for _ in range(20)]
    assert sum(not is_upper_bound(matrix, np.linalg.norm(matrix, 2)) for matrix in matrices) >= 5


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (4, 20), (20, 4), (16, 16)])
@pytest.mark.parametrize("condition", [1.0, 1e8, 1e30])
def test_tight_to_a_trillionth_for_any_condition(shape, condition):
    rng = np.random.default_rng(shape[0])
    matrix = rng.normal(size=shape) * np.geomspace(1, 1 / condition, shape[1])
    true = largest_singular_value(matrix)
    bound = spectral_norm_upper(torch.tensor(matrix))
    assert true < bound < true * (1 + mpmath.mpf("1e-12"))


@pytest.mark.parametrize("size", [64, 256, 1024])
def test_large_matrices_with_known_norms(size):
    """Integer matrices, so that nothing is lost in making them: vᵀv I − 2vvᵀ has only the singular value vᵀv."""
    v = torch.randint(-3, 4, (size,), generator=torch.Generator().manual_seed(size)).double()
    square = float(v @ v)
    for matrix, norm in (
        (square * torch.eye(size, dtype=torch.float64) - 2 * torch.outer(v, v), square),
        (torch.outer(torch.ones(size, dtype=torch.float64), v), math.sqrt(size * square)),
        (torch.diag(v), float(v.abs().max())),
    ):
        assert norm * (1 - 1e-15) < spectral_norm_upper(matrix) < norm * (1 + 1e-11)


def test_hadamard_matrices_of_all_sizes_are_tight():
    """All singular values of the 2^k matrix are 2^(k/2), so that every error term counts."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for k in range(1, 11):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
        bound = spectral_norm_upper(matrix)
        assert Fraction(bound) ** 2 > 2**k and bound < 2 ** (k / 2) * (1 + 2e-11)


@pytest.mark.parametrize("shape", [(3, 3000), (3000, 3), (1, 2**20), (40, 5000)])
def test_long_sums(shape):
    """A matrix of ones has the norm √(mn), and sums of thousands of terms."""
    bound = spectral_norm_upper(torch.ones(shape, dtype=torch.float64))
    assert Fraction(bound) ** 2 > math.prod(shape) and bound < math.sqrt(math.prod(shape)) * (1 + 1e-11)


@pytest.mark.parametrize("value", [1e308, 1e160, 1e-160, 2e-308, 5e-324])
def test_ends_of_the_range(value):
    bound = spectral_norm_upper(torch.full((3, 2), value, dtype=torch.float64))
    assert Fraction(bound) ** 2 > 6 * Fraction(value) ** 2 if bound < math.inf else value == 1e308
    assert bound <= max(value * 2.45, 2.0**-1000)


def test_what_is_not_known_is_infinite_and_zero_is_zero():
    assert spectral_norm_upper(torch.tensor([[1.0, math.nan]])) == math.inf
    assert spectral_norm_upper(torch.tensor([[math.inf, 0.0]])) == math.inf
    assert spectral_norm_upper(torch.zeros(3, 2)) == 0
    assert spectral_norm_upper(torch.full((2, 2), 1.7e308, dtype=torch.float64)) == math.inf
    for shape in ((3,), (2**14, 2**14)):
        with pytest.raises(ValueError, match="matrix of at most"):
            spectral_norm_upper(torch.zeros(()).expand(shape))


def test_a_bad_decomposition_costs_tightness_alone(monkeypatch):
    """Nothing that LAPACK returns is trusted: wrong vectors, wrong values and no answer all give upper bounds."""
    matrix = np.random.default_rng(3).normal(size=(6, 5))
    true = largest_singular_value(matrix)
    eigh = torch.linalg.eigh

    def fails(gram):
        raise torch.linalg.LinAlgError("no convergence")

    answers = {
        "small values": lambda g: (eigh(g)[0] * 0.9, eigh(g)[1]),
        "no values": lambda g: (eigh(g)[0] * 0.0, eigh(g)[1]),
        "wrong order": lambda g: (eigh(g)[0].flip(0), eigh(g)[1]),
        "short vectors": lambda g: (eigh(g)[0], eigh(g)[1] * 0.5),
        "long vectors": lambda g: (eigh(g)[0], eigh(g)[1] * 1.01),
        "equal vectors": lambda g: (eigh(g)[0], eigh(g)[1][:, -1:].expand(-1, len(g)).contiguous()),
        "NaN": lambda g: (eigh(g)[0] * math.nan, eigh(g)[1]),
        "failure": fails,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.linalg, "eigh", answer)
        assert true < spectral_norm_upper(torch.tensor(matrix)) < 4 * true, name


@pytest.mark.parametrize("term", ["residual", "skew", "products"])
def test_leaving_out_an_error_term_is_noticed(term, monkeypatch):
    """Each term of the bound is needed, where its error is large."""
    matrix = torch.tensor(np.random.default_rng(4).normal(size=(6, 5)))
    true = largest_singular_value(matrix.numpy())
    eigh, product = torch.linalg.eigh, spectral._product
    if term == "residual":
        monkeypatch.setattr(torch.linalg, "eigh", lambda g: (eigh(g)[0] * 0.9, eigh(g)[1]))
    elif term == "skew":  # Q Λ Qᵀ is right, but Q is too long and Λ too small
        monkeypatch.setattr(torch.linalg, "eigh", lambda g: (eigh(g)[0] * 0.81, eigh(g)[1] / 0.9))
    else:
        monkeypatch.setattr(spectral, "_product", lambda a, b: (product(a, b)[0] * (1 - 1e-6), 1e-6))
    assert true < spectral_norm_upper(matrix)
    monkeypatch.setattr(spectral, "_frobenius", lambda m: 0.0)
    if term == "products":
        assert true < spectral_norm_upper(matrix)
        monkeypatch.setattr(spectral, "_product", lambda a, b: (product(a, b)[0] * (1 - 1e-6), 0.0))
    assert spectral_norm_upper(matrix) < true


def test_rounded_entries_are_allowed_for():
    """Entries that are products of two doubles: the bound is about the products, not about their roundings."""
    rng = np.random.default_rng(5)
    for _ in range(40):
        weight, factors = rng.normal(size=(4, 3)), rng.uniform(0, 2, 3)
        with mpmath.workdps(60):
            exact = mpmath.matrix(weight.tolist()) * mpmath.diag([mpmath.mpf(float(v)) for v in factors])
            true = max(mpmath.svd_r(exact, compute_uv=False))
        assert true < spectral_norm_upper(torch.tensor(weight * factors), 1) < true * (1 + 1e-12)


def test_the_dtype_is_no_matter():
    weight = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    assert spectral_norm_upper(weight.requires_grad_()) == spectral_norm_upper(weight.detach().double())
    assert spectral_norm_upper(weight.half()) == spectral_norm_upper(weight.half().double())
