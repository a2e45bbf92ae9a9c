"""Full precision whatever the caller has set, and the caller's settings as they were."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import robench
from oracles.nets import blobs, trained
from robench.errors import InputError
from robench.graph import full_precision

NEWER = hasattr(torch.backends, "fp32_precision")
OPERATIONS = ["cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"]


def backend(name):
    found = torch.backends
    for part in name.split("."):
        found = getattr(found, part)
    return found


def read(get):
    try:
        return get()
    except RuntimeError:
        return "cannot be read"


def state():
    return [
        read(torch.get_float32_matmul_precision),
        read(lambda: torch.backends.cuda.matmul.allow_tf32),
        read(lambda: torch.backends.cudnn.allow_tf32),
        *(backend(name).fp32_precision for name in OPERATIONS if NEWER),
    ]


@pytest.fixture(autouse=True)
def _settings_put_back():
    yield
    if NEWER:
        torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    if NEWER:
        for name, value in zip(OPERATIONS, ("none", "tf32", "tf32", "none", "none", "none"), strict=True):
            backend(name).fp32_precision = value


def older():
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = False


def newer(name, value):
    def set_it():
        if not NEWER:
            pytest.skip("this torch has the older settings alone")
        (backend(name) if name else torch.backends).fp32_precision = value

    return set_it


SETTINGS = {
    "default": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "older": older,
    "all": newer("", "tf32"),
    "all-ieee": newer("", "ieee"),
    "matmul": newer("cuda.matmul", "tf32"),
    "conv": newer("cudnn.conv", "ieee"),
    "mkldnn": newer("mkldnn.matmul", "bf16"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_precision_is_full_inside_and_what_it_was_afterwards(name):
    SETTINGS[name]()
    before = state()
    for _ in range(2):
        with full_precision():
            inside = state()
            with full_precision():
                assert state() == inside
            assert state() == inside
        assert state() == before
    assert inside == ["highest", False, False, *["ieee"] * (len(OPERATIONS) if NEWER else 0)]
    with pytest.raises(KeyError), full_precision():
        raise KeyError
    assert state() == before


@pytest.mark.skipif(not NEWER, reason="this torch has the older settings alone")
def test_what_is_inherited_goes_on_being_so():
    with full_precision():
        pass
    torch.backends.fp32_precision = "tf32"
    assert torch.backends.cuda.matmul.fp32_precision == torch.backends.mkldnn.conv.fp32_precision == "tf32"


def test_autocast_and_inference_mode_stay_outside():
    layer = nn.Linear(4, 4)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
        with full_precision():
            assert layer(torch.ones(1, 4)).dtype == torch.float32
            assert not torch.ones(1).is_inference()
        assert torch.is_inference_mode_enabled()
    with torch.no_grad(), full_precision():
        assert not torch.is_grad_enabled()


class Opaque(nn.Module):
    """A net that no graph can express."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.sort(-1).values)


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize(
    "around",
    [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["inference", "no-grad", "autocast"],
)
def test_an_evaluation_is_the_same_within_the_caller_s_contexts(around, opaque, tmp_path):
    data, given = blobs(), {"eps": "0.05", "attacks": "pgd:steps=5"}
    net = Opaque(trained()).eval() if opaque else trained()
    plain = robench.evaluate(net, data, out=tmp_path / "a", **given)
    with around():
        model = copy.deepcopy(net)
        other = robench.evaluate(model, data, out=tmp_path / "b", **given)
        early = robench.from_module(model, data.shape)
        assert robench.replay(other.run, model=model, dataset=data).problems == []
    for one in (other, robench.evaluate(early, data, out=tmp_path / "c", **given)):
        for column in ("status", "upper", "lower"):
            np.testing.assert_array_equal(one.evidence[column], plain.evidence[column])
    assert plain.summary["results"][0]["errors"] == 0


def test_the_meta_device_is_refused_in_one_line(tmp_path):
    with torch.device("meta"), pytest.raises(InputError, match="computes nothing"):
        robench.evaluate("digits-linear", "digits", eps="0.1", out=tmp_path)
