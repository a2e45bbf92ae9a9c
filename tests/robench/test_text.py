"""Strangers' text in messages: one printable line, whatever it holds."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from robench.text import one_line, safe


@given(st.text() | st.text(alphabet="a \n\t\r\x1b\x00\x85\u2028\u202e\u200b\ud800\U000e0041"))
def test_what_is_shown_is_one_printable_line(text):
    shown = safe(text)
    assert shown.isprintable()
    assert shown == safe(shown)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()  # a lone surrogate would raise


def test_printable_text_stays_and_white_space_is_joined():
    assert safe("ε ≤ 8/255, 数据") == "ε ≤ 8/255, 数据"
    assert safe("  two\n lines\tand more ") == "two lines and more"
    assert safe("\x1b]0;owned\x07\u202egnp.exe") == "�]0;owned��gnp.exe"


def test_errors_are_named_and_long_texts_are_cut():
    assert one_line(ValueError("one\ntwo")) == "ValueError: one two"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert one_line("a" * 300) == "a" * 300
    assert one_line("a" * 301) == "a" * 299 + "…"
    assert one_line(ValueError("a" * 50), 20) == "ValueError: aaaaaaa…"


def test_an_error_that_cannot_be_shown_is_named():
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError("no")

    assert one_line(Broken()) == "Broken"
