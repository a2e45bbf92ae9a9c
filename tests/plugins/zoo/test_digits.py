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

from robench.api import evaluate
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
    assert recorded["recipe"] == resolved.canonical
    # Parameters that recipes have got since leave things as they were by default.
    then, now = (set(full.partition(":")[2].split(",")) for full in (recorded["recipe_full"], resolved.full))
    assert then <= now
    assert (recorded["dataset"], recorded["split"], recorded["selection"]) == ("digits", "train", "")
    assert (recorded["seed"], recorded["device"], recorded["samples"]) == (0, "cpu", 1347)
    assert recorded["dataset_hash"] == DATA["train"]
    assert recorded["threads"] == 1
    assert len(recorded["history"]) == resolved.parts[0].value.epochs


@pytest.mark.parametrize("name", NAMES)
def test_its_card_is_complete_and_holds_the_documented_command(name):
    (prepared,) = prepare(Settings(model=name, dataset="digits", eps=["0.1"], attacks=()))
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


def documented():
    """The table of docs/zoo.md: name → (clean, {(norm, ε): (certified, empirical)}), in percent."""
    page = (ROOT / "docs/zoo.md").read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in page.splitlines() if "|" in line]
    head = next(line for line in lines if line[1:2] == ["clean"])
    table = {
        line[0].strip("`"): line[1:] for line in lines if len(line) == len(head) and line[0].startswith("`digits-")
    }
    return {
        name: (
            float(clean),
            {
                tuple(at.split()): tuple(float(side) for side in bracket.split(" – "))
                for at, bracket in zip(head[2:], brackets, strict=True)
            },
        )
        for name, (clean, *brackets) in table.items()
    }


def test_documented_commands_and_clean_accuracies_are_the_real_ones():
    page = (ROOT / "docs/zoo.md").read_text(encoding="utf-8")
    assert "```sh\n" + "".join(f"{line}\n" for line in COMMANDS.values()) + "```" in page
    table = documented()
    assert {name: clean for name, (clean, _) in table.items()} == {
        name: round(100 * metadata(name)["test_accuracy"], 1) for name in NAMES
    }
    for _, brackets in table.values():
        assert len(brackets) == 7
        assert all(certified <= empirical for certified, empirical in brackets.values())


@pytest.mark.parametrize(("name", "norm"), [("digits-ibp", "linf"), ("digits-aol", "l2")])
def test_documented_certified_accuracies_are_measured(name, norm, tmp_path):
    wanted = {eps: certified for (at, eps), (certified, _) in documented()[name][1].items() if at == norm}
    done = evaluate(name, "digits", norm=norm, eps=list(wanted), attacks=(), out=tmp_path)
    assert {result["eps"]: round(100 * result["certified_accuracy"], 1) for result in done.summary["results"]} == wanted


def test_trained_against_an_attack_is_what_resists_it(tmp_path):
    """A short attack on 100 samples: the order of the documented table, by a wide margin."""
    left = {}
    for name, norm, eps in (
        ("digits-standard", "linf", ".15"),
        ("digits-pgd-linf", "linf", ".15"),
        ("digits-standard", "l2", ".5"),
        ("digits-pgd-l2", "l2", ".5"),
    ):
        options = {"attacks": ["pgd:steps=20,targets=0"], "certifiers": (), "samples": "0:100", "out": tmp_path}
        (result,) = evaluate(name, "digits", norm=norm, eps=eps, **options).summary["results"]
        left[name, norm] = result["empirical_accuracy"]
    assert left["digits-pgd-linf", "linf"] >= left["digits-standard", "linf"] + 0.4
    assert left["digits-pgd-l2", "l2"] >= left["digits-standard", "l2"] + 0.1


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
