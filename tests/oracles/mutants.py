"""Mistakes put into the source on purpose: a function's code is swapped in place, wherever it was imported."""

import __future__

import inspect
import sys
import textwrap
from collections.abc import Callable

import pytest

__all__ = ["mutate"]


def mutate(monkeypatch: pytest.MonkeyPatch, function: Callable, old: str, new: str) -> None:
    """Replace `old` in the source of `function` by `new`. A pattern that is not there any more fails: adapt it."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) >= 1, f"{function.__qualname__} has no {old!r} any more"
    scope = dict(vars(sys.modules[function.__module__]))
    flags = __future__.annotations.compiler_flag
    exec(compile(source.replace(old, new, 1), "mutant", "exec", flags), scope)
    made = inspect.unwrap(scope[function.__name__])
    monkeypatch.setattr(inspect.unwrap(function), "__code__", made.__code__)
