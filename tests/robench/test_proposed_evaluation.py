"""What `robench train` proposes to run next is about the ball that was trained on."""

import pytest

from robench.registry import load_plugins


@pytest.mark.parametrize("recipe", ["pgd-at", "trades"])
def test_the_ball_of_the_training(recipe: str) -> None:
    value = load_plugins().resolve("recipes", f"{recipe}:norm=l2,eps=36/255").parts[0].value
    assert value.evaluate == ("--norm", "l2", "--eps", "36/255")


@pytest.mark.parametrize("recipe", ["fgsm-at", "gradalign"])
def test_the_ball_of_single_steps(recipe: str) -> None:
    value = load_plugins().resolve("recipes", f"{recipe}:eps=8/255").parts[0].value
    assert value.evaluate == ("--norm", "linf", "--eps", "8/255")


def test_votes_are_certified_with_the_noise_that_was_trained_on() -> None:
    value = load_plugins().resolve("recipes", "smoothadv:sigma=0.5,eps=1").parts[0].value
    assert value.evaluate == ("-c", "smoothing:sigma=0.5", "--norm", "l2", "--eps", "1")
