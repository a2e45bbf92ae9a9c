"""What `robench train` proposes to run next is about the ball that was trained on."""

import pytest

from robench.registry import load_plugins


@pytest.mark.parametrize("recipe", ["pgd-at", "trades"])
def test_the_ball_of_the_training(recipe: str) -> None:
    value = load_plugins().resolve("recipes", f"{recipe}:norm=l2,eps=36/255").parts[0].value
    assert value.evaluate == ("--norm", "l2", "--eps", "36/255")
