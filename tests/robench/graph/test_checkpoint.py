"""Checkpoints come back as the graph that was saved; damaged and hostile folders are refused in one line."""

import json
import os

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from oracles.random_graphs import random_graph, step_names
from robench.errors import DataError, InputError
from robench.graph import fingerprint, from_torch, load, save


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return from_torch(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.LeakyReLU(0.1), nn.Linear(3, 2)).eval(), (2, 2))


@pytest.fixture
def folder(graph, tmp_path):
    save(graph, tmp_path / "net", {"recipe": "standard"})
    return tmp_path / "net"


@pytest.mark.parametrize("seed", range(15))
def test_any_graph_comes_back_as_it_was(seed, tmp_path):
    rng = np.random.default_rng(seed)
    graph = random_graph(list(rng.permutation(step_names())[:16]), rng, shape=(2, 5, 4))
    save(graph, tmp_path / "net", {"seed": seed})
    again, metadata = load(tmp_path / "net")
    assert metadata == {"seed": seed}
    assert len(again.nodes) == len(graph.nodes)
    for ours, theirs in zip(again.nodes, graph.nodes, strict=True):
        assert (ours.op, ours.inputs, ours.shape) == (theirs.op, theirs.inputs, theirs.shape)
        assert dict(ours.attributes) == dict(theirs.attributes)
        assert ours.constants.keys() == theirs.constants.keys()
        for name, tensor in theirs.constants.items():
            assert ours.constants[name].dtype == tensor.dtype
            assert torch.equal(ours.constants[name], tensor)
    assert fingerprint(again, torch.float32) == fingerprint(graph, torch.float32)


def test_a_folder_holds_json_and_safetensors_and_nothing_else(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.json", "graph.json", "weights.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["net"]
    head = json.loads((folder / "checkpoint.json").read_text())
    assert head == {"format": "robench checkpoint", "version": 1, "metadata": {"recipe": "standard"}}


def test_saving_replaces_a_checkpoint_and_nothing_else(graph, folder, tmp_path):
    save(graph, folder, {"recipe": "other"})
    assert load(folder)[1] == {"recipe": "other"}
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is no checkpoint"):
        save(graph, folder, {})
    assert (folder / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is no checkpoint"):
        save(graph, tmp_path / "file", {})
    with pytest.raises(InputError, match="JSON values"):
        save(graph, tmp_path / "new", {"value": object()})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "net"]


@pytest.mark.parametrize("after", ["graph.json", "weights.safetensors", "checkpoint.json"])
def test_a_full_disk_leaves_the_old_checkpoint(graph, folder, monkeypatch, after):
    real = os.fsync
    written = []

    def full(descriptor):
        written.append(descriptor)
        if len(written) == 1 + ["graph.json", "weights.safetensors", "checkpoint.json"].index(after):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        save(graph, folder, {"recipe": "new"})
    assert load(folder)[1] == {"recipe": "standard"}
    assert [path.name for path in folder.parent.iterdir()] == ["net"]


def edit(folder, change):
    path = folder / "graph.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def tensors(folder, change):
    path = folder / "weights.safetensors"
    held = safetensors.torch.load(path.read_bytes())
    change(held)
    safetensors.torch.save_file(held, path)


def node(position, **changes):
    return lambda folder: edit(folder, lambda value: value["nodes"][position].update(changes))


def set_tensor(name, value):
    return lambda folder: tensors(folder, lambda held: held.__setitem__(name, value))


def truncated(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


def replaced(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def linked(folder):
    (folder / "weights.safetensors").rename(folder.parent / "elsewhere")
    (folder / "weights.safetensors").symlink_to(folder.parent / "elsewhere")


HEAD = {"format": "robench checkpoint", "version": 1, "metadata": {}}
DAMAGE = {
    "no folder": (lambda folder: folder.rename(folder.parent / "gone"), "no such folder"),
    "no head": (lambda folder: (folder / "checkpoint.json").unlink(), "no such file"),
    "no graph": (lambda folder: (folder / "graph.json").unlink(), "no such file"),
    "no weights": (lambda folder: (folder / "weights.safetensors").unlink(), "no such file"),
    "link to elsewhere": (linked, "links are not followed"),
    "truncated graph": (truncated("graph.json"), "not valid JSON"),
    "truncated weights": (truncated("weights.safetensors"), "not a safetensors file"),
    "empty weights": (replaced("weights.safetensors", b""), "not a safetensors file"),
    "random weights": (replaced("weights.safetensors", bytes(range(256)) * 10), "not a safetensors file"),
    "pickled weights": (replaced("weights.safetensors", b"\x80\x04\x95" + b"c" * 100), "not a safetensors file"),
    "binary graph": (replaced("graph.json", b"\xff\xfe\x00"), "not valid JSON"),
    "deep graph": (replaced("graph.json", b"[" * 100_000), "not valid JSON"),
    "NaN in the graph": (replaced("graph.json", b'{"nodes": [NaN]}'), "not valid JSON"),
    "list as graph": (replaced("graph.json", b"[]"), "holds no nodes"),
    "no nodes": (replaced("graph.json", b'{"nodes": []}'), "holds no nodes"),
    "nodes of numbers": (replaced("graph.json", b'{"nodes": [1]}'), "needs exactly the keys"),
    "foreign head": (replaced("checkpoint.json", b'{"format": "pytorch"}'), "not a checkpoint of robench"),
    "list as head": (replaced("checkpoint.json", b"[]"), "not a checkpoint of robench"),
    "newer version": (replaced("checkpoint.json", json.dumps(HEAD | {"version": 2}).encode()), "version 2; this"),
    "no metadata": (replaced("checkpoint.json", json.dumps(HEAD | {"metadata": 1}).encode()), "metadata are missing"),
    "unknown operator": (node(2, op="exec"), "node 2: unknown operator 'exec'"),
    "missing key": (lambda folder: edit(folder, lambda v: v["nodes"][1].pop("shape")), "node 1: needs exactly"),
    "extra key": (node(1, code="import os"), "node 1: needs exactly"),
    "unknown attribute": (node(3, attributes={"slope": 0.1, "alpha": 1}), "node 3: unknown attribute 'alpha'"),
    "missing attribute": (node(3, attributes={}), "leaky_relu has the attributes"),
    "attribute of another kind": (node(3, attributes={"slope": "0.1"}), "not of kind float"),
    "huge attribute": (node(3, attributes={"slope": 10**400}), "not of kind float|not valid JSON"),
    "boolean attribute": (node(1, attributes={"shape": [True, 4]}), "must be a list of integers"),
    "input from behind": (node(1, inputs=[3]), "do not come before"),
    "input of itself": (node(2, inputs=[2]), "do not come before"),
    "negative input": (node(2, inputs=[-1]), "do not come before"),
    "no inputs": (node(2, inputs=[]), "takes 1 to 1 inputs"),
    "declared shape": (node(2, shape=[4]), r"declares the shape \[4\], but gives \[3\]"),
    "huge input": (node(0, shape=[2**40, 2]), "node 1"),
    "negative input size": (node(0, shape=[-2, -2]), "sizes above 0"),
    "first node": (node(0, op="relu"), "the first node must be the input"),
    "no output": (lambda folder: edit(folder, lambda v: v["nodes"].pop()), "does not use: '4.bias'"),
    "image as output": (
        lambda folder: (
            edit(folder, lambda v: v["nodes"].__delitem__(slice(1, None))),
            tensors(folder, lambda held: held.clear()),
        ),
        "the input itself|one axis|a safetensors",
    ),
    "constants as text": (node(2, constants="weight"), "list of names"),
    "missing tensor": (lambda folder: tensors(folder, lambda held: held.pop("4.bias")), "'4.bias' is missing"),
    "extra tensor": (set_tensor("5.weight", torch.ones(2)), "does not use: '5.weight'"),
    "ill-shaped tensor": (set_tensor("4.weight", torch.ones(2, 4)), "does not fit"),
    "ill-shaped bias": (set_tensor("4.bias", torch.ones(3)), "bias has the shape"),
    "integer tensor": (set_tensor("4.bias", torch.ones(2, dtype=torch.int64)), "not a floating point type"),
    "NaN": (set_tensor("4.bias", torch.tensor([0.0, float("nan")])), "bias holds a value that is not finite"),
    "infinity": (set_tensor("2.weight", torch.full((3, 4), float("inf"))), "weight holds a value that is not finite"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_refused_in_one_line(case, folder):
    damage, message = DAMAGE[case]
    damage(folder)
    with pytest.raises(DataError, match=message) as raised:
        load(folder)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400
