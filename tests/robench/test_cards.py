"""A model's card ends beneath `--name` and `--meta` in the manifest, whatever a stranger wrote into it."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.nets import blobs, trained
from robench.api import evaluate
from robench.evaluation._display import beneath, display, read_card
from robench.graph import from_module
from robench.runs import Display


@dataclass(frozen=True)
class Carded:
    """A model from Python with any card."""

    card: object = None

    def load(self, device, dtype):
        return from_module(trained(), blobs().shape, device=device, dtype=dtype)


def shown(model, tmp_path, **options):
    done = evaluate(model, blobs(), eps="0.01", attacks=["fgsm"], certifiers=(), samples="0:2", out=tmp_path, **options)
    return done.run.manifest.display


def test_the_card_is_shown_and_the_user_wins(tmp_path):
    card = {"name": "A", "paper": "B", "training_data": "C", "licence": "D", "recipe": "E", "seed": "0"}
    display = shown(Carded(card), tmp_path)
    assert display == Display(name="A", paper="B", training_data="C", licence="D", more={"recipe": "E", "seed": "0"})
    meta = tmp_path / "meta.toml"
    meta.write_text('paper = "mine"\nseed = "7"\ncolour = "red"\n')
    display = shown(Carded(card), tmp_path, name="given", meta=meta)
    assert display == Display(
        name="given", paper="mine", training_data="C", licence="D", more={"recipe": "E", "seed": "7", "colour": "red"}
    )


def test_models_without_a_card_stay_as_they_are(tmp_path):
    assert shown(Carded(), tmp_path) == shown(trained(), tmp_path) == Display()


def test_texts_are_cut_and_printable():
    card, wrong = read_card(Carded({"name": "a\x1b[31m\nb\u202e" + "x" * 10_000, "train": "\ud800" + "y" * 10_000}))
    assert wrong is None
    assert card["name"].startswith("a�[31m b�xxx")
    assert len(card["name"]) == 500
    assert len(card["train"]) == 2000
    assert card["train"].startswith("�y")


def test_what_no_manifest_takes_is_left_out():
    card = {
        "ok": "1",
        "2bad": "x",
        "with space": "x",
        "k" * 65: "x",
        3: "x",
        "number": 7,
        "list": ["x"],
        "empty": " \n",
    }
    assert read_card(Carded(card)) == ({"ok": "1"}, None)
    many = {f"k{number}": "x" for number in range(1000)}
    assert len(read_card(Carded(many))[0]) == 32


class Raising:
    @property
    def card(self):
        raise RuntimeError("no\ncard today")


def test_a_card_that_fails_costs_no_evaluation():
    assert read_card(Raising()) == ({}, "the card is left out: RuntimeError: no card today")
    assert read_card(Carded("text")) == ({}, "the card is str, no mapping of texts: it is left out")


def test_the_user_is_told_of_a_broken_card():
    from robench.evaluation import Settings, prepare

    (prepared,) = prepare(Settings(model=Carded(7), dataset=blobs(), eps=["0.01"]))
    assert prepared.notes == ("python:Carded: the card is int, no mapping of texts: it is left out",)
    assert prepared.manifest.display == Display()


json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    card=st.dictionaries(
        st.text() | st.sampled_from(["name", "paper", "training_data", "licence", "recipe"]),
        st.text(st.characters(), max_size=600) | json,
    )
)
def test_any_card_gives_a_display_that_reads_back(card):
    made = beneath(display(), read_card(Carded(card))[0])
    assert Display.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_wrapped_classifier_does_not_take_the_name(site, tmp_path, wrapped):
    """Its training data and licence are the base's; it is another function."""
    site.write(
        "robench-t-carded",
        """
from dataclasses import dataclass
from robench import hookimpl, wrapped_fingerprint

robench_api = 1

@hookimpl
def robench_register_models(register):
    register("carded", "robench_t_carded:Model")

@hookimpl
def robench_register_wrappers(register):
    register("doubled", "robench_t_carded:Doubling")

@dataclass(frozen=True)
class Model:
    card = {"name": "base", "licence": "MIT"}
    def load(self, device, dtype):
        from oracles.nets import blobs, trained
        from robench.graph import from_module
        return from_module(trained(), blobs().shape, device=device, dtype=dtype)

@dataclass(frozen=True)
class Doubling:
    def wrap(self, classifier):
        return Twice(classifier)

class Twice:
    graph = None
    def __init__(self, base):
        self.base, self.fingerprint = base, wrapped_fingerprint(base, "doubled")
        self.input_shape, self.classes = base.input_shape, base.classes
        self.device, self.dtype = base.device, base.dtype
    def logits(self, x):
        return 2 * self.base.logits(x)
""",
    )
    site.load()
    display = shown("carded | doubled" if wrapped else "carded", tmp_path)
    assert display == Display(name=None if wrapped else "base", licence="MIT")


def test_torch_is_not_asked_for_a_card():
    assert read_card(torch.nn.Linear(2, 2)) == ({}, None)
