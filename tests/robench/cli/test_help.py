"""What a newcomer reads first: the commands in the order of use, each in one whole sentence."""

import pytest
from typer.testing import CliRunner

from robench.cli import app

ORDER = "demo train scale eval run bound check replay report runs leaderboard import export plugins doctor"


def commands(*arguments: str) -> dict[str, str]:
    shown = CliRunner().invoke(app, [*arguments, "--help"], terminal_width=80)
    assert shown.exit_code == 0
    listed = shown.stdout.partition("Commands:\n")[2].splitlines()
    return {line.split()[0]: line for line in listed}


def test_commands_stand_in_the_order_of_use():
    assert list(commands()) == ORDER.split()


@pytest.mark.parametrize("group", [(), ("plugins",), ("leaderboard",)])
def test_a_command_is_told_in_one_sentence_that_fits(group):
    for line in commands(*group).values():
        assert line.endswith(".") and not line.endswith("...")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("eval", "-m", "digits-aol", "--model", "digits-ibp", "-d", "digits"), "-m / --model is given 2 times"),
        (("scale", "aol", "-d", "digits", "--sizes", "1", "--sizes", "2"), "--sizes is given 2 times"),
    ],
)
def test_an_option_that_takes_one_value_is_not_given_two(words: tuple[str, ...], says: str) -> None:
    """The last one would count, and the other vanish without a word."""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 2
    assert done.stderr == f"robench: {says} and takes one value\n"
