"""Opaque modules: another function has another fingerprint, the same content the same one, in every process."""

import collections
import functools
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robench.graph import ModuleClassifier, from_module

SCALE = [2.0]


class Holds(nn.Module):
    """Holds anything, and is opaque."""

    def __init__(self, held=None):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.held = nn.Linear(4, 3), held
        self.eval()

    def forward(self, x):
        return F.gelu(self.fc(x))


class Scales:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor


class Slots:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor


def closure(factor):
    return lambda x: x * factor


def default(factor):
    def scaled(x, by=factor):
        return x * by

    return scaled


def hooked(factor):
    net = Holds()
    net.fc.register_forward_hook(lambda module, args, out: out * factor)
    return net


def prehooked(factor):
    net = Holds()
    net.register_forward_pre_hook(lambda module, args: (args[0] * factor,))
    return net


def overridden(factor):
    net = Holds()
    net.forward = lambda x: torch.sin(net.fc(x)) * factor
    return net


def executed(factor):
    scope = {"nn": nn, "F": F, "Holds": Holds}
    exec(f"class Made(Holds):\n  def forward(self, x):\n    return F.gelu(self.fc(x)) * {factor}", scope)
    return scope["Made"]()


def read_by_a_function(factor):
    scope = {"factor": factor, "helper": closure(factor)}
    exec("def f(x): return helper(x) * factor", scope)
    return Holds(scope["f"])


MADE = {
    "number": Holds,
    "list of tensors": lambda k: Holds([torch.full((3,), k)]),
    "tuple": lambda k: Holds((1, (torch.tensor(k),))),
    "set": lambda k: Holds({"a", "b", f"{k}"}),
    "dict": lambda k: Holds({"k": k, "other": {"k": [k]}}),
    "defaultdict": lambda k: Holds(collections.defaultdict(list, a=[k])),
    "numpy": lambda k: Holds(np.full(3, k)),
    "numpy scalar": lambda k: Holds(np.float32(k)),
    "numpy objects": lambda k: Holds(np.array([k, None], dtype=object)),
    "closure": lambda k: Holds(closure(k)),
    "default": lambda k: Holds(default(k)),
    "partial": lambda k: Holds(functools.partial(torch.mul, other=k)),
    "bound method": lambda k: Holds(Scales(k).__call__),
    "object": lambda k: Holds(Scales([k])),
    "slots": lambda k: Holds(Slots(k)),
    "module in a list": lambda k: Holds([Holds(k)]),
    "forward hook": hooked,
    "forward pre-hook": prehooked,
    "forward of the instance": overridden,
    "class without source": executed,
    "globals of a function": read_by_a_function,
    "unknown dtype of a tensor": lambda k: Holds(torch.tensor([k], dtype=torch.bfloat16)),
}


def opaque(module):
    classifier = from_module(module, (4,))
    assert isinstance(classifier, ModuleClassifier)
    return classifier


@pytest.mark.parametrize("case", MADE)
def test_equal_content_has_equal_fingerprints_and_other_content_others(case):
    make = MADE[case]
    first, again, other = opaque(make(1.0)), opaque(make(1.0)), opaque(make(5.0))
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
    assert first.identified
    assert other.identified


def test_functions_and_classes_are_told_apart():
    held = [
        F.gelu,
        F.silu,
        torch.sin,
        torch.cos,
        np.sin,
        np.cos,
        lambda x: x,
        lambda x: -x,
        Scales,
        Slots,
        torch.Tensor.mul,
    ]
    found = [opaque(Holds(value)) for value in held]
    assert len({classifier.fingerprint for classifier in found}) == len(held)
    assert all(classifier.identified for classifier in found)


def test_a_global_that_the_forward_pass_reads_counts(monkeypatch):
    class Reads(Holds):
        def forward(self, x):
            return F.gelu(self.fc(x)) * SCALE[0]

    before = opaque(Reads()).fingerprint
    assert opaque(Reads()).fingerprint == before
    monkeypatch.setitem(globals(), "SCALE", [3.0])
    assert opaque(Reads()).fingerprint != before


def test_what_holds_itself_is_identified():
    net = Holds([])
    net.held.append(net.held)
    other = Holds([1])
    other.held.append(other.held)
    assert opaque(net).identified
    assert opaque(net).fingerprint != opaque(other).fingerprint


class Kept:
    """Shares what cannot be copied with its copies."""

    def __init__(self, held):
        self.held = held

    def __deepcopy__(self, memo):
        return self


UNKNOWN = {"lock": threading.Lock, "generator of torch": torch.Generator, "iterator": lambda: iter([1.0])}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_cannot_be_identified_has_a_fingerprint_of_its_own(case):
    net = Holds(Kept(UNKNOWN[case]()))
    first, again = opaque(net), opaque(net)
    assert (first.identified, again.identified) == (False, False)
    assert first.fingerprint != again.fingerprint


LAYERS = [
    lambda: nn.LSTM(3, 3),
    lambda: nn.MultiheadAttention(4, 2),
    lambda: nn.TransformerEncoderLayer(4, 2),
    lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
    lambda: nn.utils.spectral_norm(nn.Linear(4, 3)),
    lambda: torch.compile(nn.Linear(4, 3), backend="eager"),
]


@pytest.mark.parametrize("make", LAYERS)
def test_layers_of_torch_are_identified(make):
    def held():
        torch.manual_seed(0)
        return opaque(Holds([make()]))

    first = held()
    assert first.identified
    assert first.fingerprint == held().fingerprint


def test_fingerprints_are_the_same_in_every_process():
    script = """
        import sys
        sys.path[:0] = [sys.argv[1]]
        import test_identity
        print(*(test_identity.opaque(make(1.0)).fingerprint for make in test_identity.MADE.values()))
    """
    found = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", textwrap.dedent(script), str(Path(__file__).parent)]
        out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        found.add(out.stdout)
    assert len(found) == 1
    assert len(set(found.pop().split())) == len(MADE)
