"""Run ids, folder names that hostile names cannot bend, and the marker of our folders."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robench.errors import InputError
from robench.runs import claim_folder, folder_name, is_ours, new_run_id, open_results, slug
from robench.runs._layout import MARKER, RESERVED, RUN_ID
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


def test_a_new_or_empty_folder_becomes_ours(tmp_path: Path) -> None:
    for folder in (tmp_path / "a" / "b", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert not is_ours(folder)
        assert open_results(folder).root == folder
        assert is_ours(folder)
        assert not is_ours(folder, "site")
        (folder / "more").write_text("x")
        open_results(folder)


def test_an_unfinished_claim_of_another_process_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".{MARKER}.0123456789ab.tmp").write_bytes(b"{")
    open_results(tmp_path)
    assert is_ours(tmp_path)


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b'{"robench": "site"}', b"[" * 4000, b'["robench"]', b"x" * 9999]
)
def test_foreign_folders_are_refused(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if content is not None:
        (tmp_path / MARKER).write_bytes(content)
    with pytest.raises(InputError, match="not empty and not a robench results folder: choose another --out") as caught:
        open_results(tmp_path)
    assert "\n" not in str(caught.value)
    if content is None:
        assert sorted(os.listdir(tmp_path)) == ["thesis.tex"]  # noqa: PTH208


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        open_results(tmp_path / "file")


def test_kinds_of_folder(tmp_path: Path) -> None:
    claim_folder(tmp_path / "site", "site")
    (tmp_path / "site" / "index.html").write_text("x")
    claim_folder(tmp_path / "site", "site")
    with pytest.raises(InputError, match="not a robench results folder"):
        open_results(tmp_path / "site")
