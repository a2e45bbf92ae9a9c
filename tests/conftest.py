"""What every test may rely on: reproducible examples, and a named reason where something is absent."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from sites import Site

# The same examples in every run; HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("repeat", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


def _no_cuda() -> bool:
    import torch

    return not torch.cuda.is_available()


def _no_example() -> bool:
    return not any(metadata.distributions(name="robench-example"))


ABSENT = {
    "gpu": (_no_cuda, "no CUDA device"),
    "data": (lambda: not os.environ.get("ROBENCH_DATA"), "ROBENCH_DATA is not set"),
    "browser": (lambda: shutil.which("chromium") is None, "no chromium"),
    "downstream": (_no_example, "the distributions of tests/third_party are not installed"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for name, (absent, reason) in ABSENT.items():
        marked = [item for item in items if item.get_closest_marker(name)]
        if marked and absent():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Networks that a test makes without a generator are the same in every run."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real data; only for tests marked `data`."""
    return Path(os.environ["ROBENCH_DATA"])


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Site]":
    """A folder in which a test installs plugin distributions; they are gone after it."""
    from sites import Site, forget

    before = set(sys.modules)
    yield Site(tmp_path_factory.mktemp("site"), monkeypatch)
    forget(before)
