import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robench.contracts import Attack, CompositeAttack, Model
from robench.errors import DataError, InputError, PluginError, SpecError
from robench.files import FileRef, find_file
from robench.params import Context, Written, build, canonical, check_factory, describe, param
from robench.spec import parse
from robench.threat import Epsilon

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True)
class Everything:
    label: str = param("x", "A text.", positional=True)
    flag: bool = param(False, "A switch.")
    steps: int = param(10, "Steps.", minimum=1, maximum=1000)
    step: float = param(0.5, "Step.", above=0)
    loss: Literal["ce", "dlr", "none"] = param("ce", "Loss.")
    order: Literal[1, 2] = param(2, "Order.")
    eps: Epsilon | None = param(None, "Budget.")
    note: str | None = param(None, "A text or nothing.")
    weights: tuple[float, ...] = param((), "Weights.")
    names: tuple[str, ...] = param(("a", "b"), "Names.")


def made(text: str, cls: type = Everything, context: Context | None = None) -> Written:
    return build(cls, parse(text).specs[0], "e", context)


EPSILONS = st.sampled_from(["8/255", "0.3", "1e-3", "1e+2", ".5"]).map(Epsilon.parse)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANY_TEXT = st.text(max_size=10).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))
VALUES = st.builds(
    Everything,
    label=ANY_TEXT,
    flag=st.booleans(),
    steps=st.integers(1, 1000),
    step=st.floats(1e-300, 1e300),
    loss=st.sampled_from(["ce", "dlr", "none"]),
    order=st.sampled_from([1, 2]),
    eps=st.none() | EPSILONS,
    note=st.none() | ANY_TEXT | st.just("none"),
    weights=st.lists(FINITE, max_size=3).map(tuple),
    names=st.lists(ANY_TEXT, max_size=3).map(tuple),
)


def spelled(value: Everything) -> str:
    """A spec of `value` written by hand, in another order and with needless quotes."""
    import json

    def number(x: float) -> str:
        return repr(x).replace("e+", "e")

    items = {
        "names": "+".join(map(json.dumps, value.names)) or "()",
        "weights": "+".join(map(number, value.weights)) or "()",
        "note": "none" if value.note is None else json.dumps(value.note),
        "eps": "none" if value.eps is None else str(value.eps),
        "order": str(value.order),
        "loss": value.loss,
        "step": number(value.step),
        "steps": str(value.steps),
        "flag": str(value.flag).lower(),
        "label": json.dumps(value.label),
    }
    return "e:" + ",".join(f"{key}={text}" for key, text in items.items())


@given(VALUES)
def test_both_forms_parse_again_to_an_equal_value_and_are_fixed_points(value):
    written = made(spelled(value))
    assert written.value == value
    for text in (written.canonical, written.full):
        again = made(text)
        assert again == written


@given(VALUES)
def test_canonical_form_holds_exactly_what_differs_sorted(value):
    items = parse(made(spelled(value)).canonical).specs[0].items
    default = Everything()
    differing = {name for name in vars(default) if getattr(value, name) != getattr(default, name)}
    assert {item.key or "label" for item in items} == differing
    keys = [item.key for item in items if item.key is not None]
    assert keys == sorted(keys)
    assert all(item.key is not None for item in items[1:])


@given(VALUES)
def test_an_instance_is_written_as_its_spec_would_be(value):
    assert canonical(value, "e") == made(spelled(value)).canonical


def test_an_instance_with_a_plugin_in_it_is_not_written():
    with pytest.raises(TypeError):
        canonical(Transfer(source=object()), "e")


def test_defaults_written_out_are_not_in_the_canonical_form():
    written = made("e:x,steps=10,step=0.5,weights=(),names=a+b,eps=none")
    assert written.canonical == "e"
    assert written.full == ("e:x,eps=none,flag=false,loss=ce,names=a+b,note=none,order=2,step=0.5,steps=10,weights=()")
    assert written.value == Everything()


def test_numbers_are_written_shortest():
    assert made("e:step=1.50e0,weights=1.0+1e20+-0.0").canonical == "e:step=1.5,weights=1+1e20+0"
    assert made("e:eps=8/255").canonical == "e:eps=8/255"


@pytest.mark.parametrize(
    ("item", "what"),
    [
        ("steps=1.0", "is not a whole number"),
        ("steps=1e3", "is not a whole number"),
        ("steps=ten", "is not a whole number"),
        ("steps=1_0", "is not a whole number"),
        ("steps=true", "is not a whole number"),
        ("steps=99999999999999999999", "is not a whole number"),
        ('steps="5"', "write it without quotes"),
        ("steps=0", "must be ≥ 1 and ≤ 1000"),
        ("steps=1001", "must be ≥ 1 and ≤ 1000"),
        ("steps=1+2", "is not a whole number"),
        ("steps=()", "takes one value"),
        ("steps=(e)", "takes no spec in parentheses"),
        ("step=nan", "is not a finite number"),
        ("step=inf", "is not a finite number"),
        ("step=-inf", "is not a finite number"),
        ("step=1e999", "is not a finite number"),
        ("step=1e99999", "is not a finite number"),
        ("step=0x10", "is not a finite number"),
        ("step=2/255", "is not a finite number"),
        ("step=0", "must be > 0"),
        ("weights=1+nan", "is not a finite number"),
        ("weights=1+none", "is not a finite number"),
        ("flag=True", "must be true or false"),
        ("flag=1", "must be true or false"),
        ("flag=yes", "must be true or false"),
        ("loss=cee", "is not one of ce, dlr, none"),
        ("order=3", "is not one of 1, 2"),
        ('order="1"', "is not one of 1, 2"),
        ("eps=0", "greater than 0"),
        ("eps=-8/255", "greater than 0"),
        ("eps=1/0", "not a number"),
        ("eps=1e999999999", "not a number"),
        ('note="a"+"b"', "takes one value"),
        ("note=a + b", "takes one value"),
    ],
)
def test_nothing_is_converted_fuzzily(item, what):
    with pytest.raises(InputError, match=f"^e: parameter '{item.partition('=')[0]}': ") as caught:
        made(f"e:{item}")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bare_plus_belongs_to_a_text_that_is_no_tuple():
    assert made("e:note=a+b").value.note == "a+b"
    assert made("e:note=a+b").canonical == 'e:note="a+b"'


def test_none_the_word_and_none_the_value_differ():
    assert made("e:note=none").value.note is None
    assert made('e:note="none"').value.note == "none"
    assert made('e:note="none"').canonical == 'e:note="none"'
    assert made("e:loss=none").value.loss == "none"


def test_unknown_parameter_names_the_nearest_and_lists_all():
    with pytest.raises(SpecError, match=r"no parameter 'stps'; did you mean 'steps'\?; its ") as caught:
        made("e:stps=5")
    assert "its parameters are label, eps, flag, loss, names, note, order, step, steps, weights" in str(caught.value)


def test_a_parameter_given_twice_through_its_position():
    with pytest.raises(SpecError, match="'label' given twice"):
        made("e:y,label=z")


def test_a_value_without_key_where_nothing_is_positional():
    @dataclass(frozen=True)
    class Plain:
        steps: int = param(1, "Steps.")

    with pytest.raises(SpecError, match="'5' has no key"):
        made("e:5", Plain)


def test_required_parameters():
    @dataclass(frozen=True)
    class Required:
        path: Path = param(..., "File.", positional=True)
        seed: int = param(..., "Seed.")

    with pytest.raises(SpecError, match="'path', 'seed' must be given: e:path=…,seed=…"):
        made("e", Required)
    assert [one.default for one in describe(Required)] == [None, None]


def test_a_factory_may_refuse_with_a_value_error():
    @dataclass(frozen=True)
    class Even:
        n: int = param(2, "An even number.")

        def __post_init__(self) -> None:
            if self.n % 2:
                raise ValueError(f"n={self.n} is odd: give an even number")

    assert made("e:n=4", Even).value.n == 4
    with pytest.raises(SpecError, match=r"^e: n=3 is odd: give an even number$"):
        made("e:n=3", Even)


# ----------------------------------------------------------------- nested specs


@dataclass(frozen=True)
class Transfer:
    source: Model | None = param(None, "Source model.")
    attacks: tuple[Attack | CompositeAttack, ...] = param((), "Attacks.")


def test_nested_specs_are_resolved_by_kind():
    asked = []

    def resolve(kind, chain):
        asked.append((kind, str(chain)))
        return Written((kind, str(chain)), f"short-{chain}", f"full-{chain}")

    written = made("e:source=(onnx:a.onnx | w:s=1),attacks=(pgd)+(fgsm)", Transfer, Context(resolve=resolve))
    assert asked == [("models", "onnx:a.onnx | w:s=1"), ("attacks", "pgd"), ("attacks", "fgsm")]
    assert written.value.source == ("models", "onnx:a.onnx | w:s=1")
    assert written.canonical == "e:attacks=(short-pgd)+(short-fgsm),source=(short-onnx:a.onnx | w:s=1)"
    assert written.full == "e:attacks=(full-pgd)+(full-fgsm),source=(full-onnx:a.onnx | w:s=1)"
    with pytest.raises(SpecError, match="no registry"):
        made(
            "e:source=(m)",
            Transfer,
            Context(resolve=lambda kind, chain: (_ for _ in ()).throw(SpecError("no registry"))),
        )
    with pytest.raises(InputError, match="must be one model spec in parentheses"):
        made("e:source=onnx", Transfer)


@dataclass(frozen=True)
class Named:
    noise: str = param("gaussian", "", spec="noises", apart="sigma")


def test_a_named_spec_is_its_canonical_text_without_what_is_given_outside():
    def resolve(kind, chain):
        assert kind == "noises"
        name = str(chain).partition(":")[0]
        return Written(object(), f"{name}:0.5,b=2", f"{name}:sigma=0.5,a=1,b=2")

    def read(text):
        return build(Named, parse(text).specs[0], "n", Context(resolve=resolve))

    for text in ("n:noise=other", "n:noise=(other:b=2)"):
        assert read(text) == (Named(noise="other:b=2"), "n:noise=(other:b=2)", "n:noise=(other:a=1,b=2)")
    assert build(Named, parse("n").specs[0], "n") == (Named(), "n", "n:noise=gaussian")
    for text, why in (
        ("n:noise=(other:0.5)", "must leave out sigma, which is given outside"),
        ("n:noise=(other:sigma=1)", "must leave out sigma"),
        ("n:noise=other:b=2", "must stand in parentheses"),
        ("n:noise=a+b", "unexpected"),
        ("n:noise=()", "takes one value"),
        ('n:noise="other"', "without quotes"),
    ):
        with pytest.raises(SpecError, match=why):
            read(text)


def test_a_named_spec_must_be_a_text_of_a_known_kind():
    @dataclass(frozen=True)
    class Wrong:
        noise: int = param(1, "", spec="noises")

    @dataclass(frozen=True)
    class Unknown:
        noise: str = param("a", "", spec="voices")

    @dataclass(frozen=True)
    class Odd:
        noise: str = param("a | ", "", spec="noises")

    for cls, why in ((Wrong, "annotate it str"), (Unknown, "annotate it str"), (Odd, "default")):
        with pytest.raises(PluginError, match=why):
            check_factory(cls)


# ------------------------------------------------------------------------ files


@dataclass(frozen=True)
class Reader:
    path: Path = param(..., "File.", positional=True)


def test_a_file_is_published_by_name_and_content_never_by_path(tmp_path):
    folder = tmp_path / "secret-user"
    folder.mkdir()
    file = folder / "net.onnx"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()[:12]
    written = made(f"e:{file}", Reader)
    assert written.canonical == written.full == f"e:net.onnx@sha256:{digest}"
    assert written.value.path == file
    again = made(written.canonical, Reader, Context(search=[folder]))
    assert again == written
    file.write_bytes(b"Weights")
    assert made(f"e:{file}", Reader).canonical != written.canonical
    with pytest.raises(DataError, match=r"^e: parameter 'path': no file 'net.onnx@.* with this name and content"):
        made(written.canonical, Reader, Context(search=[folder]))


@pytest.mark.parametrize("name", ["my net (1).onnx", "a=b.npz", "a+b,c.npz", 'say "hi".npz', "ε.npz", "none"])
def test_awkward_file_names_survive(tmp_path, name):
    (tmp_path / name).write_bytes(b"1")
    import json

    written = made(f"e:{json.dumps(str(tmp_path / name))}", Reader)
    assert made(written.canonical, Reader, Context(search=[tmp_path])) == written


def test_a_relative_path_is_looked_for_in_the_search_folders_in_order(tmp_path, monkeypatch):
    for name, text in (("here", "1"), ("one", "2"), ("two", "3")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.npz").write_text(text)
    (tmp_path / "two" / "only.npz").write_text("4")
    monkeypatch.chdir(tmp_path / "here")
    folders = [tmp_path / "one", tmp_path / "two"]
    assert made("e:a.npz", Reader).value.path.read_text() == "1"
    assert made("e:a.npz", Reader, Context(search=folders)).value.path.read_text() == "2"
    assert made("e:a.npz", Reader, Context(search=[Path(), *folders])).value.path.read_text() == "1"
    assert made("e:only.npz", Reader, Context(search=folders)).value.path.read_text() == "4"
    absolute = tmp_path / "here" / "a.npz"
    assert made(f"e:{absolute}", Reader, Context(search=folders)).value.path == absolute
    for text in ("nowhere.npz", "n" * 5000):
        with pytest.raises(DataError, match=r"no file|cannot read"):
            made(f"e:{text}", Reader, Context(search=folders))


def test_a_folder_is_hashed_by_names_and_bytes(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder / "run" / "sub").mkdir(parents=True)
        (tmp_path / folder / "run" / "a").write_bytes(b"1")
        (tmp_path / folder / "run" / "sub" / "b").write_bytes(b"2")
    first, second = (FileRef.of(tmp_path / folder / "run") for folder in ("one", "two"))
    assert first == second
    assert find_file(first, [tmp_path]) in (tmp_path / "one" / "run", tmp_path / "two" / "run")
    (tmp_path / "two" / "run" / "a").rename(tmp_path / "two" / "run" / "c")
    assert FileRef.of(tmp_path / "two" / "run") != first
    # The border between a name and its content is part of the hash.
    (tmp_path / "one" / "run" / "sub" / "b").unlink()
    (tmp_path / "one" / "run" / "sub").rmdir()
    assert FileRef.of(tmp_path / "one" / "run") != first


def test_find_file_wants_name_and_content_and_looks_three_levels_down(tmp_path):
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (tmp_path / "net.onnx").write_bytes(b"other")
    (deep / "net.onnx").write_bytes(b"right")
    reference = FileRef("net.onnx", hashlib.sha256(b"right").hexdigest()[:12])
    assert find_file(reference, [tmp_path]) == deep / "net.onnx"
    assert find_file(str(reference), [tmp_path]) == deep / "net.onnx"
    assert find_file(reference, []) is None
    assert find_file("net.onnx", [tmp_path]) is None
    (deep / "d").mkdir()
    (deep / "net.onnx").rename(deep / "d" / "net.onnx")
    assert find_file(reference, [tmp_path]) is None


def test_find_file_passes_over_what_it_cannot_read(tmp_path):
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    os.mkfifo(tmp_path / "a" / "net.onnx")
    (tmp_path / "b" / "net.onnx").symlink_to(tmp_path / "nowhere")
    (tmp_path / "c" / "net.onnx").write_bytes(b"right")
    reference = FileRef.of(tmp_path / "c" / "net.onnx")
    assert find_file(reference, [tmp_path / "missing", tmp_path]) == tmp_path / "c" / "net.onnx"
    run = FileRef.of(tmp_path / "c")
    assert find_file(run, [tmp_path / "c"]) == tmp_path / "c"  # the search folder itself


def test_a_folder_with_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        FileRef.of(tmp_path)


@pytest.mark.parametrize("text", ["../net@sha256:0123456789ab", "..@sha256:0123456789ab", "net@sha256:0123", "net"])
def test_what_is_no_reference(text):
    assert FileRef.parse(text) is None


def test_files_that_cannot_be_hashed(tmp_path):
    with pytest.raises(DataError, match="no file"):
        made(f"e:{tmp_path}/missing.npz", Reader)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        made(f"e:{tmp_path}/pipe", Reader)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot read"):
        made(f"e:{tmp_path}/file/below", Reader)
    with pytest.raises(InputError, match="is not a path"):
        made('e:"a\\u0000b"', Reader)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(DataError, match="links to a folder"):
        FileRef.of(tmp_path / "folder")


def test_a_missing_base_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert FileRef.of(Path()).base == tmp_path.name
    with pytest.raises(DataError, match="has no name"):
        FileRef.of(Path("/"))


# -------------------------------------------------------------------- factories


def test_describe_is_the_table_of_plugins_show():
    rows = {row.name: row for row in describe(Everything)}
    assert next(iter(rows)) == "label"
    assert rows["label"].positional
    assert (rows["steps"].type, rows["steps"].default, rows["steps"].doc) == (
        "integer ≥ 1 and ≤ 1000",
        "10",
        "Steps.",
    )
    assert rows["step"].type == "number > 0"
    assert rows["loss"].type == "ce|dlr|none"
    assert rows["eps"].type == "ε like 8/255 or 0.3 or none"
    assert rows["names"].default == "a+b"
    assert rows["weights"].type == "number, several joined by +"


def test_inherited_parameters_and_annotations_as_text_are_read_where_they_were_written():
    @dataclass(frozen=True)
    class Child(Everything):
        depth: "int | None" = param(None, "Depth.")
        model: "Model | None" = param(None, "Model.")

    assert made("e:depth=3", Child).value.depth == 3
    assert {row.name for row in describe(Child)} > {"depth", "steps"}


def bad_factories():
    class NoDataclass:
        pass

    @dataclass
    class Thawed:
        steps: int = 1

    @dataclass(frozen=True)
    class Untyped:
        steps: dict = param(..., "A dictionary.")

    @dataclass(frozen=True)
    class Unknown:
        steps: "Decimal" = param(..., "A name that only type checkers see.")

    @dataclass(frozen=True)
    class TwoPositional:
        a: int = param(1, "A.", positional=True)
        b: int = param(2, "B.", positional=True)

    @dataclass(frozen=True)
    class WrongDefault:
        steps: int = param(1.5, "Steps.")

    @dataclass(frozen=True)
    class NotFinite:
        step: float = param(math.inf, "Step.")

    @dataclass(frozen=True)
    class Mixed:
        steps: int | str = param(1, "Two types.")

    return [
        (NoDataclass, "must be a dataclass"),
        (len, "must be a dataclass"),
        (Thawed, "frozen"),
        (Untyped, "is annotated"),
        (Unknown, "cannot be read"),
        (TwoPositional, "at most one"),
        (WrongDefault, "default 1.5 of parameter 'steps'"),
        (NotFinite, "default inf"),
        (Mixed, "is annotated"),
    ]


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (bool, 1),
        (int, True),
        (float, "0.5"),
        (float, True),
        (str, 3),
        (Literal["ce", "dlr"], "cw"),
        (Literal[1, 2], True),
        (Epsilon, 0.3),
        (Path, "file"),
        (tuple[int, ...], [1, 2]),
        (tuple[int, ...], (1, "2")),
        (int | None, "none"),
        (Model | None, "onnx:net.onnx"),
    ],
)
def test_a_default_must_be_of_its_type(annotation, default):
    import dataclasses

    class Parent:
        pass

    Parent.__annotations__ = {"value": annotation}
    Parent.value = dataclasses.field(default_factory=lambda: default)
    with pytest.raises(PluginError, match=r"the default .* of parameter 'value'"):
        check_factory(dataclass(frozen=True)(Parent))


@pytest.mark.parametrize(("cls", "what"), bad_factories(), ids=lambda value: getattr(value, "__name__", None))
def test_a_class_that_cannot_stand_in_a_spec_is_refused_by_name(cls, what):
    with pytest.raises(PluginError, match=what) as caught:
        check_factory(cls)
    assert cls.__name__ in str(caught.value)
