import json
import shlex

import pytest

from robench.evaluation import Settings, prepare
from robench.runs import Display
from robench.training import train
from robench_plugins.models.cards import training_card
from robench_plugins.models.checkpoint import Checkpoint

COMMAND = ["robench", "train", "standard:epochs=1,width=2", "-d", "digits | subset:n=30", "--seed", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "my net"
    train("standard:width=2,epochs=1", "digits | subset:n=30", folder, seed=4, device="cpu")
    return folder


def test_a_checkpoint_tells_how_to_make_it_again(folder, tmp_path):
    card = Checkpoint(folder).card
    assert card == {
        "training_data": "digits | subset:n=30, split train, 30 samples",
        "recipe": "standard:epochs=1,width=2",
        "seed": "4",
        "train": shlex.join([*COMMAND, "--device", "cpu", "--out", "my net"]),
    }
    words = shlex.split(card["train"])
    again = train(words[2], words[4], tmp_path / "again", seed=int(words[6]), device=words[8])
    assert again.fingerprint == train(words[2], words[4], tmp_path / "twice", seed=4, device="cpu").fingerprint
    assert {key: again.metadata[key] for key in ("recipe", "selection", "dataset_hash")} == {
        key: value
        for key, value in json.loads((folder / "checkpoint.json").read_text())["metadata"].items()
        if key in ("recipe", "selection", "dataset_hash")
    }


def display_of(folder):
    settings = Settings(model=f"checkpoint:{folder}", dataset="digits", eps=["0.1"], attacks=())
    return prepare(settings)[0].manifest.display


def test_it_is_in_the_manifest(folder):
    display = display_of(folder)
    assert display.training_data == "digits | subset:n=30, split train, 30 samples"
    assert display.name is None
    assert set(display.more) == {"recipe", "seed", "train"}


@pytest.fixture
def edited(folder, tmp_path):
    """The checkpoint with other metadata."""

    def edit(metadata):
        copy = tmp_path / "edited"
        copy.mkdir(exist_ok=True)
        for file in folder.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        head = json.loads((copy / "checkpoint.json").read_text())
        (copy / "checkpoint.json").write_text(json.dumps({**head, "metadata": metadata}))
        return copy

    return edit


def test_hostile_metadata_is_shown_as_harmless_text(edited):
    metadata = {
        "recipe": "x; rm -rf / #\x1b]0;title\x07\u202e" + "z" * 20_000,
        "dataset": "$(touch me)\nsecond line\ud800",
        "split": "`id`",
        "selection": "<script>alert(1)</script>",
        "seed": 3,
        "samples": 10**12,
        "device": "--help",
    }
    display = display_of(edited(metadata))
    assert isinstance(display, Display)
    for text in (display.training_data, *display.more.values()):
        assert text.isprintable()
        assert len(text) <= 2000
    assert display.more["recipe"].startswith("x; rm -rf / #�]0;title��zzz")
    short = training_card({**metadata, "recipe": "x; rm -rf /"}, "out; reboot")
    words = shlex.split(short["train"])
    assert words[2] == "x; rm -rf /"
    assert words[-1] == "out; reboot"
    assert words[4] == "$(touch me)\nsecond line\ud800 | <script>alert(1)</script>"


@pytest.mark.parametrize("value", [None, 7, -1, True, 1.5, [], {"a": 1}, 2**70])
def test_metadata_of_other_types_are_left_out(edited, value):
    names = ("recipe", "dataset", "selection", "split", "seed", "samples", "device")
    card = training_card(dict.fromkeys(names, value), "net")
    assert card == ({"seed": "7"} if value == 7 and value is not True else {})
    assert display_of(edited(dict.fromkeys(names, value))).training_data is None


def test_nothing_is_claimed_where_nothing_is_told(edited):
    assert training_card({}, "net") == {}
    assert display_of(edited({})) == Display()
    assert "train" not in training_card({"recipe": "standard", "dataset": "digits"}, "net")
