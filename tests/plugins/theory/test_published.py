"""Figures about MNIST that were computed by other code: a full matrix of distances, scipy's matching, HiGHS.

The training images at hand are rebuilt: a pixel value of 1 reads 0. Their figures are the same to the digits given.
"""

import numpy as np
import pytest

from robench_plugins.datasets.classes import Classes
from robench_plugins.datasets.mnist import THRESHOLDS, Mnist
from robench_plugins.theory.transport import Transport

pytestmark = pytest.mark.data


def samples(data_folder, split, keep, first=None):
    """The classes `keep`, the `first` of each in the order of the file."""
    whole = Classes(tuple(map(str, keep))).apply(Mnist(data_folder / "mnist")).load(split)
    return whole.select(np.concatenate([np.flatnonzero(whole.y == label)[:first] for label in range(len(keep))]))


def evaluate(data, norm, eps):
    return Transport().evaluate(data, norm, eps, lambda done, steps: None)


def test_three_against_seven_of_the_test_set_in_l2(data_folder):
    data = samples(data_folder, "test", (3, 7))
    curve = evaluate(data, "l2", [2.25, 2.5, 3, 3.5, 4, 4.5, 5])
    assert [detail["matching"] for detail in curve.detail] == [0, 3, 20, 105, 302, 680, 952]
    assert {detail["n"] for detail in curve.detail} == {1010 + 1028}
    assert round(curve.facts["separation"]["distance"][0][1], 4) == 4.5793


def test_three_against_seven_of_the_test_set_in_linf(data_folder):
    curve = evaluate(samples(data_folder, "test", (3, 7)), "linf", [0.1, 0.3, 0.4, 0.49])
    assert [detail["matching"] for detail in curve.detail] == [0, 0, 0, 0]
    assert round(curve.facts["separation"]["distance"][0][1], 4) == 0.9882


TRAIN = {
    200: (5.9093, [0, 0, 0.0025, 0.0350, 0.1100, 0.3000, 0.4575]),
    1000: (3.6694, [0.0005, 0.0020, 0.0135, 0.0595, 0.1625, 0.3290, 0.4580]),
}


@pytest.mark.parametrize("first", TRAIN)
def test_three_against_seven_of_the_training_set(data_folder, first):
    nearest, errors = TRAIN[first]
    curve = evaluate(samples(data_folder, "train", (3, 7), first), "l2", [2, 2.5, 3, 3.5, 4, 4.5, 5])
    assert [round(detail["errors"] / detail["n"], 4) for detail in curve.detail] == errors
    assert round(curve.facts["separation"]["distance"][0][1], 4) == nearest


def test_three_classes_of_the_training_set(data_folder):
    curve = evaluate(samples(data_folder, "train", (1, 4, 7), 1000), "l2", [2, 2.5, 3])
    assert [round(detail["errors"] / detail["n"], 4) for detail in curve.detail] == [0.0020, 0.0193, 0.0877]
    assert curve.detail[2]["edges"] == 9130


def test_the_whole_test_set_at_the_headline_budgets_and_beyond(data_folder):
    data = Mnist(data_folder / "mnist").load("test")
    curve = evaluate(data, "l2", [*map(float, THRESHOLDS["l2"]), 2.5, 3])
    assert [detail["matching"] for detail in curve.detail] == [2, 32, 504, 2555]
    assert curve.detail[3]["edges"] == 31827
