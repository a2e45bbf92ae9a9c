"""Sizes as written."""

from __future__ import annotations

import pytest

from robench.errors import InputError
from robench.scaling import parse_sizes


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("64:512:x2", (64, 128, 256, 512)),
        ("64:500:x2", (64, 128, 256)),
        ("100:300:+100", (100, 200, 300)),
        ("97+48+195+48", (48, 97, 195)),
        ("10+all", (10, 1000)),
        ("100:all:x3", (100, 300, 1000)),  # 900 is nearer to 1000 than half a factor of 3
        ("250:all:x2", (250, 500, 1000)),
        ("100:all:+400", (100, 500, 1000)),  # 900 is nearer than half of 400
        ("200:all:+300", (200, 500, 800, 1000)),
    ],
)
def test_sizes(text: str, sizes: tuple[int, ...]) -> None:
    assert parse_sizes(text, 1000) == sizes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("64:4096:x2", "asks for 4096 samples, but there are 1000"),
        ("64", "two or more"),
        ("64:64:x2", "two or more"),
        ("0:64:x2", "never ends"),
        ("64:128:x1", "never ends"),
        ("64:128:+0", "never ends"),
        ("1:999:+0", "never ends"),
        ("0+64", "1 sample or more"),
        ("64:128", "no list of sizes"),
        ("-5+64", "no list of sizes"),
        ("٣٢+64", "no list of sizes"),
        ("", "no list of sizes"),
        ("1:99999999999999999999:+1", "more than 1000"),
        ("+".join(map(str, range(1, 1002))), "more than 1000"),
    ],
)
def test_bad_sizes_are_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        parse_sizes(text, 1000)
    assert "\n" not in str(caught.value)
