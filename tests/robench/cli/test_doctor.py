"""`robench doctor`: fine here, and exit 1 with the reason where something is broken."""

import getpass
import json
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from robench import diagnosis
from robench.cli import app
from robench.diagnosis import Line, diagnose


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    return list(diagnose())


def test_nothing_is_wrong_here(lines: list[Line]) -> None:
    assert [line for line in lines if line.state == "wrong"] == []


def test_every_topic_is_looked_at(lines: list[Line]) -> None:
    assert list(dict.fromkeys(line.topic for line in lines)) == [
        "versions",
        "extras",
        "devices",
        "plugins",
        "self-test",
        "room",
    ]


def test_both_sides_are_tried_on_known_radii(lines: list[Line]) -> None:
    tried = [line for line in lines if line.topic == "self-test"]
    assert any("exact radius" in line.text and "broken within" in line.text for line in tried)
    assert any("no certificate above the exact radius" in line.text for line in tried)


def test_no_user_host_or_path(lines: list[Line]) -> None:
    text = "\n".join(f"{line.name} {line.text}" for line in lines)
    assert platform.node() not in text
    assert str(Path.cwd()) not in text
    assert f"/{getpass.getuser()}" not in text


def test_wrong_numbers_from_the_streams_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "PHILOX", (0, 1, 2, 3))
    (line,) = [line for line in diagnose() if line.name == "streams"]
    assert line.state == "wrong"


def test_the_published_numbers_are_those_of_random123() -> None:
    # kat_vectors: philox4x32 10, counter 0, key 0.
    assert [f"{word:08x}" for word in diagnosis.PHILOX] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


def test_a_missing_library_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "LIBRARIES", ("torch", "no-such-library"))
    (line,) = [line for line in diagnose() if line.name == "no-such-library"]
    assert (line.state, line.text) == ("wrong", "missing: install robench again")


def test_what_raises_is_a_line_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: 1 / 0)
    found = list(diagnose())
    assert Line("devices", "devices", "wrong", "ZeroDivisionError: division by zero") in found
    assert found[-1].topic == "room"


def fake(*states: str) -> Iterator[Line]:
    for state in states:
        yield Line("plugins", "other 1.0", state, "broken: ImportError: no module named x")  # type: ignore[arg-type]


@pytest.mark.parametrize(("states", "code"), [(("ok", "note"), 0), (("ok", "wrong"), 1)])
def test_exit_code_and_json(monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], code: int) -> None:
    monkeypatch.setattr(diagnosis, "diagnose", lambda: fake(*states))
    text = CliRunner().invoke(app, ["doctor"])
    assert text.exit_code == code
    assert "no module named x" in text.stdout
    document = CliRunner().invoke(app, ["doctor", "--json"])
    assert document.exit_code == code
    assert json.loads(document.stdout)["wrong"] == code
    assert len(json.loads(document.stdout)["lines"]) == 2
