"""Whoever names a folder that is not there is told what belongs into it, as is whoever names none."""

import pytest

from robench.errors import DataError
from robench.loading import load_data
from robench.registry import load_plugins

NAMES = ("mnist", "fashion-mnist", "cifar10", "cifar100", "svhn")


def refused(spec):
    with pytest.raises(DataError) as raised:
        load_data(load_plugins().resolve("datasets", spec), "test")
    return str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_to_put_where(name, tmp_path, monkeypatch):
    monkeypatch.delenv("ROBENCH_DATA", raising=False)
    how = f"into a folder {name}, and set ROBENCH_DATA to the folder above it or write {name}:FOLDER"
    for spec in (name, f"{name}:{tmp_path / 'nowhere'}", f"{name}:{tmp_path}"):
        said = refused(spec)
        assert "torchvision.datasets." in said and said.endswith(how)
        assert "\n" not in said
