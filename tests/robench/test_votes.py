"""Votes: what a draw votes for, what a test of them says, and what of a row's detail is believed."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.voters import Constant, half
from robench.binomial import top_two_pvalue
from robench.errors import InputError
from robench.streams import Stream
from robench.votes import Ballot, note, predict, share, status, told, votes_of, winner
from robench_plugins.smoothing.smooth import Smooth

N = 400


def test_ties_and_logits_that_are_not_finite_are_no_votes():
    nan, inf = math.nan, math.inf
    logits = [[0, 1, 0], [1, 1, 0], [nan, 1, 0], [inf, 1, 0], [-inf, 1, 0], [2, 2, 2], [3, 1, 2]]
    assert votes_of(torch.tensor(logits)).tolist() == [1, 3, 3, 3, 3, 3, 0]


def test_a_class_wins_where_the_top_two_differ():
    """No vote is a competitor that never wins; p = 2 P(X ≥ 15; 20, 1/2) = 0.0414."""
    votes = torch.tensor([[15, 5, 0], [5, 0, 15], [15, 0, 5], [10, 10, 0], [0, 0, 20]])
    assert top_two_pvalue(15, 5) == pytest.approx(0.0414, abs=1e-4)
    assert winner(votes, 0.05).tolist() == [0, -1, 0, -1, -1]
    assert winner(votes, 0.04).tolist() == [-1, -1, -1, -1, -1]
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(InputError, match="alpha"):
            winner(votes, alpha)


def test_what_votes_say_about_clean_samples():
    votes = torch.tensor([[20, 0, 0], [20, 0, 0], [10, 10, 0], [5, 0, 15], [0, 0, 20], [0, 1, 19]])
    y = torch.tensor([0, 1, 0, 0, 0, 1])
    assert status(votes, y, 0.05) == ["correct", "incorrect", "abstain", "abstain", "error", "abstain"]
    assert [Ballot(0.05, row).status(label) for row, label in zip(votes, y.tolist(), strict=True)] == status(
        votes, y, 0.05
    )
    assert Ballot(0.05, votes[1]).winner == 0


def test_predict_counts_n_draws_and_abstains():
    x = half().at(1.0, -1.0, 0.0)
    stream = Stream.for_samples(0, "test", range(3))
    found = predict(Smooth(sigma=0.5, n=300).wrap(half()), x, stream, 0.001)
    assert (found.dtype, found.tolist()) == (torch.int64, [1, 0, -1])
    tie = Constant(1.0, 1.0)
    assert predict(Smooth(sigma=0.5, n=77).wrap(tie), torch.zeros(3, 3).double(), stream, 0.1).tolist() == [-1] * 3
    assert sum(tie.passes) == 3 * 77


def test_alpha_is_shared_by_all_points_that_may_be_proposed():
    def one(kind, per_eps):
        return SimpleNamespace(kind=kind, per_eps=per_eps)

    attack, nearest, verifier = one("attack", True), one("attack", False), one("verifier", True)
    assert share(0.07, [attack, nearest, verifier, one("certificate", True)], 3) == pytest.approx(0.01)
    assert share(0.07, [one("certificate", False)], 3) == 0.07


@given(st.integers(2, 5), st.data(), st.floats(1e-9, 0.5))
def test_a_note_is_read_back_as_it_was_written(classes, data, alpha):
    votes = data.draw(st.lists(st.integers(0, 60), min_size=classes + 1, max_size=classes + 1).filter(any))
    (written,) = note(torch.tensor([votes]), alpha)
    ballot = told(json.dumps(written), sum(votes), classes)
    assert (ballot.alpha, ballot.votes.tolist()) == (alpha, votes)


@pytest.mark.parametrize(
    "detail",
    [
        None,
        "null",
        "[]",
        "7",
        '{"alpha":0.0005}',
        '{"votes":{"0":400}}',
        '{"alpha":"0.0005","votes":{"0":400}}',
        '{"alpha":0.0,"votes":{"0":400}}',
        '{"alpha":NaN,"votes":{"0":400}}',
        '{"alpha":0.0005,"votes":[400]}',
        '{"alpha":0.0005,"votes":{"0":401}}',
        '{"alpha":0.0005,"votes":{"0":399}}',
        '{"alpha":0.0005,"votes":{"0":500,"1":-100}}',
        '{"alpha":0.0005,"votes":{"0":400,"3":0}}',
        '{"alpha":0.0005,"votes":{"0":400.0}}',
        '{"alpha":0.0005,"votes":{"0":true}}',
        '{"alpha":0.0005,"votes":{"٠":400}}',
        '{"alpha":0.0005,"votes":{"0":1%s}}' % ("0" * 400),
        '{"alpha":0.0005,"votes":{"0":1%s}}' % ("0" * 5000),
        "[" * 50_000,
        '{"n":300,"hits":-5}',
        '{"n":300,"hits":1e400}',
    ],
)
def test_details_that_no_run_could_have_written_are_refused_in_one_line(detail):
    with pytest.raises(ValueError, match=r"tells? (no )?\d* ?votes|no alpha|not counts") as caught:
        told(detail, N, 3)
    assert not isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["0", "2", "none", "x"]), inner),
    ),
    st.floats(0, 1) | st.none() | st.integers(),
)
def test_what_is_told_are_votes(votes, alpha):
    try:
        ballot = told(json.dumps({"alpha": alpha, "votes": votes}), 5, 3)
    except ValueError:
        return
    assert 0 < ballot.alpha < 1
    assert ballot.votes.shape == (4,)
    assert (ballot.votes >= 0).all() and ballot.votes.sum() == 5
