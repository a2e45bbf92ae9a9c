import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robench.errors import SpecError
from robench.spec import MAX_DEPTH, MAX_LENGTH, Chain, Item, Spec, Text, parse

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
# Whatever may stand bare: no delimiter, no edge spaces, printable; '=' only behind something that is no key.
BARE = st.text(min_size=1, max_size=8).filter(
    lambda text: text.isprintable() and text == text.strip(" ") and not set(text) & set(',()+"|=')
)
QUOTED = st.text(max_size=8).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))
TEXTS = st.one_of(BARE.map(Text), QUOTED.map(lambda text: Text(text, quoted=True)))


def specs(atoms: st.SearchStrategy) -> st.SearchStrategy[Spec]:
    values = st.lists(atoms, max_size=3).map(tuple)
    keyed = st.lists(st.builds(Item, KEYS, values), max_size=3, unique_by=lambda item: item.key)
    positional = st.lists(st.builds(Item, st.none(), values), max_size=1)
    items = st.tuples(positional, keyed).map(lambda both: tuple(both[0] + both[1]))
    return st.builds(Spec, NAMES, items, st.none() | NAMES)


def chains(atoms: st.SearchStrategy) -> st.SearchStrategy[Chain]:
    return st.lists(specs(atoms), min_size=1, max_size=3).map(lambda parts: Chain(tuple(parts)))


CHAINS = chains(st.recursive(TEXTS, lambda atoms: st.one_of(TEXTS, chains(atoms)), max_leaves=6))


@given(CHAINS)
def test_text_of_a_chain_parses_to_an_equal_chain(chain):
    assert parse(str(chain)) == chain


@given(CHAINS)
def test_repr_evaluates_to_an_equal_chain(chain):
    assert eval(repr(chain)) == chain


@given(st.text(max_size=40) | st.text('ab1:=,+() |"\\/.-', max_size=40))
def test_any_text_parses_or_is_refused_in_one_line(text):
    try:
        chain = parse(text)
    except SpecError as error:
        assert str(error).isprintable()
    else:
        assert parse(str(chain)) == chain


@given(st.text(max_size=20).filter(lambda text: text.isprintable()))
def test_of_writes_any_text_so_that_it_reads_back(text):
    (item,) = parse(f"a:{Text.of(text)}").specs[0].items
    assert item.key is None
    assert [atom.text for atom in item.values] == [text]


def test_the_examples_of_the_design():
    assert parse("onnx:net.onnx") == Chain((Spec("onnx", (Item(None, (Text("net.onnx"),)),)),))
    assert parse("apgd:loss=dlr,steps=50").specs[0].items == (
        Item("loss", (Text("dlr"),)),
        Item("steps", (Text("50"),)),
    )
    assert parse("mnist | subset:n=500,seed=1").specs[1].name == "subset"
    source = parse("transfer:source=(onnx:a.onnx)").specs[0].items[0].values[0]
    assert source == parse("onnx:a.onnx")


def test_a_positional_value_may_hold_an_equals_sign_behind_what_is_no_key():
    assert parse("npz:a/b=c.npz").specs[0].items[0] == Item(None, (Text("a/b=c.npz"),))
    assert parse("npz:b=c.npz").specs[0].items[0] == Item("b", (Text("c.npz"),))
    assert parse('npz:"b=c.npz"').specs[0].items[0] == Item(None, (Text("b=c.npz", quoted=True),))


def test_values_keep_inner_spaces_colons_and_later_equals_signs():
    items = parse(r'npz: C:/my files/x=1.npz , note = "a, \"b\" (c)" , url=s3://b/k?v=1').specs[0].items
    assert items[0].values == (Text("C:/my files/x=1.npz"),)
    assert items[1].values == (Text('a, "b" (c)', quoted=True),)
    assert items[2].values == (Text("s3://b/k?v=1"),)


def test_tuples_empty_tuples_and_nested_tuples():
    items = parse("a:x=1+2+3,y=(),z=(m:k=1+2)+(n)").specs[0].items
    assert [text.text for text in items[0].values] == ["1", "2", "3"]
    assert items[1].values == ()
    assert items[2].values == (parse("m:k=1+2"), parse("n"))


def test_distribution_before_the_name():
    spec = parse("robench-example/pgd:steps=5").specs[0]
    assert (spec.distribution, spec.name, spec.qualified) == ("robench-example", "pgd", "robench-example/pgd")


@pytest.mark.parametrize(
    ("text", "what", "column"),
    [
        ("", "nothing where a plugin's name", 1),
        ("   ", "nothing where a plugin's name", 4),
        (":a", "':' where a plugin's name", 1),
        ("a/", "nothing where a plugin's name", 3),
        ("a/b/c", "unexpected '/'", 4),
        ("a b", "unexpected 'b'", 3),
        ("a=1", "unexpected '='", 2),
        ("a:", "nothing where a value", 3),
        ("a:,b=1", "nothing where a value", 3),
        ("a:b=", "nothing where the value of 'b'", 5),
        ("a:b=1,", "nothing where a value", 7),
        ("a:b=1,2", "without its key", 7),
        ("a:b=1,c=2,b=3", "'b' given twice", 11),
        ("a:b=1+", "nothing where the value of 'b'", 7),
        ("a:b=(c", "never closed", 5),
        ("a:b=c)", "without its '('", 6),
        ("a:b=(c)d", "unexpected 'd'", 8),
        ("a:b=x(1)", "'(' inside a bare value", 6),
        ('a:b=x"y"', "inside a bare value", 6),
        ('a:b="x', "no JSON string (unterminated", 5),
        ('a:b="\\ud800"', "no JSON string", 5),
        ('a:b="x"y', "unexpected 'y'", 8),
        ("a:b=x\ty", "'\\t' in a bare value", 6),
        ("a|b", "without a space on both sides", 2),
        ("a |b", "without a space on both sides", 3),
        ("a:b=1| c", "without a space on both sides", 6),
        ("a | ", "nothing where a plugin's name", 5),
    ],
)
def test_errors_name_what_and_the_column(text, what, column):
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert what in str(caught.value)
    assert f"at column {column}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_length_and_nesting_are_limited():
    assert parse("a:b=" + "x" * (MAX_LENGTH - 4)).specs[0].items[0].values[0].text.startswith("xxx")
    with pytest.raises(SpecError, match="8193 characters"):
        parse("a:b=" + "x" * (MAX_LENGTH - 3))
    nested = "a:b=(" * MAX_DEPTH + "c" + ")" * MAX_DEPTH
    assert str(parse(nested)) == nested
    with pytest.raises(SpecError, match="nested more than"):
        parse(f"a:b=({nested})")
    with pytest.raises(SpecError, match="nested more than"):
        parse("a:b=(" * 1600)


def test_long_specs_are_shown_around_the_error():
    with pytest.raises(SpecError) as caught:
        parse("a:" + ",".join(f"k{i}=1" for i in range(200)) + ",oops(=1")
    assert "oops(" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_quoted_texts_are_written_as_ascii_where_they_would_not_print():
    text = Text("a\nb\u200b", quoted=True)
    assert str(text).isascii()
    assert json.loads(str(text)) == text.text
    assert str(Text("ε, σ", quoted=True)) == '"ε, σ"'
