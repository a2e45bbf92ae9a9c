"""Run ids, and folder names that hostile names cannot bend."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robench.errors import InputError
from robench.folders import is_ours
from robench.runs import folder_name, new_run_id, open_results, slug
from robench.runs._layout import RESERVED, RUN_ID
from robench.storage import check_key


def test_run_ids() -> None:
    made = {new_run_id(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) for _ in range(50)}
    assert len(made) > 45
    assert all(re.fullmatch(RUN_ID, one) and one.startswith("20260102T030405Z-") for one in made)
    assert re.fullmatch(RUN_ID, new_run_id())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("digits", "digits"),
        ("checkpoint:Net_v1.5@sha256:0123456789ab", "checkpoint-net-v1.5-sha256-0123456789ab"),
        ("m | smooth:sigma=0.25", "m-smooth-sigma-0.25"),
        ("_bounds", "bounds"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("数据", "unnamed"),
        ("Müller ½ Netz", "muller-12-netz"),
        ("a" * 100, "a" * 60),
        ("<script>alert(1)</script>", "script-alert-1-script"),
    ],
)
def test_slugs(text: str, name: str) -> None:
    assert slug(text) == name


@given(st.text() | st.text(alphabet="./\\_-aB\0\n:~", max_size=200))
def test_folder_names_are_safe(text: str) -> None:
    name = folder_name(text, "import:0123456789abcdef")
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*-01234567", name)
    assert len(name) <= 60
    assert ".." not in name
    assert name not in RESERVED
    assert check_key(name) == name


def test_a_results_folder_is_claimed_and_others_are_refused(tmp_path: Path) -> None:
    assert open_results(tmp_path / "results").root == tmp_path / "results"
    assert is_ours(tmp_path / "results", "results")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not empty and not a robench results folder"):
        open_results(tmp_path / "mine")
