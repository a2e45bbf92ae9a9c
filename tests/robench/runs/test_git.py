"""Commit and dirtiness of the working tree, and nothing that names its owner or place."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from robench.runs import git_state


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A Name", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def test_states(tree: Path) -> None:
    assert git_state(tree) is None  # no commit yet
    (tree / "file").write_text("1")
    git(tree, "add", "file")
    git(tree, "commit", "-q", "-m", "first")
    head = git(tree, "rev-parse", "HEAD")
    state = git_state(tree)
    assert state is not None
    assert (state.commit, state.dirty) == (head, False)
    assert set(type(state).model_fields) == {"commit", "dirty"}
    for change in ("file", "untracked"):
        (tree / change).write_text("2")
        state = git_state(tree)
        assert state is not None
        assert state.dirty
        git(tree, "checkout", "-q", "--", ".")
    (tree / "sub").mkdir()
    assert git_state(tree / "sub") == git_state(tree)


def test_without_a_tree_or_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) is None
