"""The bundled classifiers are the documented ones: files, function, accuracy, and how they were made."""

import hashlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robench.errors import DataError
from robench.evaluation import Settings, prepare
from robench.graph import load
from robench.registry import load_plugins
from robench.training import accuracy, train
from robench_plugins.datasets.digits import DIGESTS as DATA
from robench_plugins.datasets.digits import Digits
from robench_plugins.zoo import digits
from robench_plugins.zoo.digests import DIGESTS, FINGERPRINTS

ROOT = Path(__file__).parents[3]
FOLDER = Path(digits.__file__).parent
NAMES = [bundled.name for bundled in digits.BUNDLED]
COMMANDS = {
    shlex.split(line)[-1]: line.strip()
    for line in (ROOT / "examples/zoo.sh").read_text().splitlines()
    if line.startswith("robench ")
}


def metadata(name):
    return json.loads((FOLDER / name / "checkpoint.json").read_text())["metadata"]


@pytest.fixture(scope="module")
def test_split():
    return Digits().load("test")


def loaded(name):
    (part,) = load_plugins().resolve("models", name).parts
    return part.value.load(torch.device("cpu"), torch.float32)


def test_every_one_is_registered_documented_and_small():
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__"}
    entries = {
        entry.name for entry in load_plugins().entries("models") if entry.target.startswith("robench_plugins.zoo")
    }
    assert entries == set(NAMES) == folders == set(DIGESTS) == set(FINGERPRINTS) == set(COMMANDS)
    files = [file for name in NAMES for file in (FOLDER / name).iterdir()]
    assert sum(file.stat().st_size for file in files) < 2_000_000
    assert {file.suffix for file in files} == {".json", ".safetensors"}


@pytest.mark.parametrize("name", NAMES)
def test_files_are_those_in_the_code(name):
    actual = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (FOLDER / name).iterdir()}
    assert actual == DIGESTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_recorded_function_with_the_recorded_accuracy(name, test_split):
    classifier = loaded(name)
    assert classifier.fingerprint == FINGERPRINTS[name]
    assert (classifier.input_shape, classifier.classes) == ((1, 8, 8), 10)
    recorded = metadata(name)["test_accuracy"]
    assert round(accuracy(classifier, test_split) * 450) == round(recorded * 450)
    assert recorded >= 0.96


@pytest.mark.parametrize("name", NAMES)
def test_metadata_are_those_of_the_documented_command(name):
    words = shlex.split(COMMANDS[name])
    assert words[:2] == ["robench", "train"]
    recipe, *options = words[2:]
    assert options == ["-d", "digits", "--seed", "0", "--device", "cpu", "--out", name]
    recorded = metadata(name)
    resolved = load_plugins().resolve("recipes", recipe)
    assert (recorded["recipe"], recorded["recipe_full"]) == (resolved.canonical, resolved.full)
    assert (recorded["dataset"], recorded["split"], recorded["selection"]) == ("digits", "train", "")
    assert (recorded["seed"], recorded["device"], recorded["samples"]) == (0, "cpu", 1347)
    assert recorded["dataset_hash"] == DATA["train"]
    assert recorded["threads"] == 1
    assert len(recorded["history"]) == resolved.parts[0].value.epochs


@pytest.mark.parametrize("name", NAMES)
def test_its_card_is_complete_and_holds_the_documented_command(name):
    prepared = prepare(Settings(model=name, dataset="digits", eps=["0.1"], attacks=()))
    display = prepared.manifest.display
    assert prepared.notes == ()
    assert display.training_data == "digits, split train, 1,347 samples"
    assert display.licence == "MIT"
    assert display.more["train"] == COMMANDS[name]
    assert {"method", "recipe", "seed", "train"} == set(display.more)
    assert (display.paper is None) == (name == "digits-standard")
    assert display.paper is None or re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{5}", display.paper)
    titles = {bundled.title for bundled in digits.BUNDLED}
    assert display.name in titles
    assert len(titles) == len(NAMES)


def test_layers_of_the_lipschitz_net_expand_nothing():
    graph, _ = load(FOLDER / "digits-aol")
    assert {node.op for node in graph.nodes} == {"input", "reshape", "linear", "group_sort"}
    largest = [
        float(torch.linalg.svdvals(node.constants["weight"].double())[0]) for node in graph.nodes if node.constants
    ]
    assert len(largest) == 4
    assert max(largest) <= 1 + 1e-6
    assert min(largest) > 0.99


@pytest.mark.parametrize("file", ["checkpoint.json", "graph.json", "weights.safetensors"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_changed_file_is_refused(file, how, tmp_path, monkeypatch):
    for name in DIGESTS["digits-aol"]:
        target = tmp_path / "digits-aol" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((FOLDER / "digits-aol" / name).read_bytes())
    monkeypatch.setattr(digits, "__file__", str(tmp_path / "digits.py"))
    bundled = digits.Aol()
    assert bundled.load(torch.device("cpu"), torch.float32).fingerprint == FINGERPRINTS["digits-aol"]
    target = tmp_path / "digits-aol" / file
    if how == "gone":
        target.unlink()
    else:
        target.write_bytes(target.read_bytes()[:-1] + b" ")
    with pytest.raises(DataError, match=rf"digits-aol/{file} is not the file that robench came with"):
        bundled.load(torch.device("cpu"), torch.float32)
    with pytest.raises(DataError, match="install robench again"):
        _ = bundled.card


def test_the_command_makes_an_equal_classifier_again(tmp_path, test_split):
    """Not to the bit: another processor sums in another order."""
    words = shlex.split(COMMANDS["digits-gaussian"])
    again = train(words[2], words[4], tmp_path / "again", seed=0, device="cpu")
    assert again.metadata["test_accuracy"] == pytest.approx(metadata("digits-gaussian")["test_accuracy"], abs=0.015)


def test_listing_them_reads_no_weights():
    find = "load_plugins().find('models', 'digits-aol')"
    code = f"import sys; from robench.registry import load_plugins; {find}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
