"""The state of the git working tree that a run was made in."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pydantic import ValidationError

from robench.runs._manifest import GitState

__all__ = ["git_state"]


def git_state(folder: Path | None = None) -> GitState | None:
    """Return commit and dirtiness of the working tree around `folder`, None without git, tree or commit."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    # Untracked files count: a model may be defined in one.
    changes = _git(folder, "status", "--porcelain", "--untracked-files=normal")
    if commit is None or changes is None:
        return None
    try:
        return GitState(commit=commit.strip(), dirty=bool(changes.strip()))
    except ValidationError:
        return None


def _git(folder: Path | None, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")
