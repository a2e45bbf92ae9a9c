"""docs/health.md holds the catalogue as it is, and says of every indicator what to do."""

import re

from documentation.health_table import PAGE, current
from robench.health import CATALOGUE


def test_the_catalogue_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == current(), "renew it: python tests/documentation/health_table.py"


def test_every_indicator_has_a_word_on_what_it_means_and_what_to_do() -> None:
    advice = PAGE.read_text(encoding="utf-8").split("## What to do")[1].split("\n## ")[0]
    assert set(re.findall(r"`([a-z-]+)`", advice.replace("\n", " "))) >= set(CATALOGUE)
