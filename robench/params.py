"""Factories: frozen dataclasses whose fields are a plugin's parameters.

A spec becomes a factory's instance, its canonical form (the parameters that differ from their defaults,
sorted; files by name and content) and its full form (all parameters). No form holds a path, and both
parse again to an equal instance.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import sys
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from robench._values import (
    Boolean,
    Budget,
    Choice,
    Context,
    File,
    Integer,
    Many,
    Named,
    Nested,
    Number,
    Optional,
    Range,
    String,
    Type,
    Written,
)
from robench.errors import DataError, InputError, PluginError, SpecError
from robench.kinds import KINDS
from robench.spec import Chain, Item, Spec, parse
from robench.threat import Epsilon

__all__ = [
    "Context",
    "Parameter",
    "Written",
    "build",
    "canonical",
    "check_factory",
    "describe",
    "example",
    "param",
    "suggest",
]

_USUAL = ("eps", "epochs", "steps", "n", "queries", "sigma")
_MISSING: Any = dataclasses.MISSING
_PROTOCOLS = {protocol: kind for kind in KINDS.values() for protocol in kind.protocols}
# Names that annotations may use although the module imports them for type checkers alone.
_NAMES = {protocol.__name__: protocol for protocol in _PROTOCOLS} | {"Epsilon": Epsilon, "Path": Path}


@dataclass(frozen=True)
class _Declared:
    doc: str
    positional: bool
    range: Range
    spec: str = ""
    apart: str = ""
    hint: str = ""


def param(
    default: Any,
    doc: str,
    *,
    positional: bool = False,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    spec: str = "",
    apart: str = "",
    hint: str = "",
) -> Any:
    """Declare a parameter of a factory: a field of a frozen dataclass.

    `default` may be `...` where a value must be given. `positional` lets the value be the spec's first item
    without a key. `minimum` and `maximum` are allowed values, `above` is not. The parameters are keyword-only,
    the positional one aside. `spec` names a kind of plugin (`noises`) of which a text is the canonical spec, without
    its parameter `apart`: a spec gives it by name, or in parentheses. `hint` says what to do where a file is missing.
    """
    declared = _Declared(doc, positional, Range(minimum, maximum, above), spec, apart, hint)
    given = _MISSING if default is ... else default
    return dataclasses.field(default=given, metadata={"robench": declared}, kw_only=not positional)


@dataclass(frozen=True)
class Parameter:
    """A parameter as `robench plugins show` prints it. `default` is its spec text, None where it is required."""

    name: str
    type: str
    default: str | None
    positional: bool
    doc: str


@dataclass(frozen=True)
class _Field:
    name: str
    type: Type
    default: Any
    positional: bool
    doc: str
    hint: str = ""

    @property
    def required(self) -> bool:
        return self.default is _MISSING


def describe(cls: type[Any]) -> tuple[Parameter, ...]:
    """Return the parameters of a factory, the positional one first, then by name."""
    return tuple(
        Parameter(f.name, f.type.words, None if f.required else f.type.write(f.default), f.positional, f.doc)
        for f in _fields(cls)
    )


def example(cls: type[Any], name: str) -> str:
    """Return a spec under `name` that gives what must be given or else, where it can, changes one parameter.

    The first that the factory takes is changed: the positional one, else one that most plugins of its kind have.
    """
    fields = _fields(cls)
    needed = {f.name: "FILE" if isinstance(f.type, File) else f.name.upper() for f in fields if f.required}
    if needed:
        return _join(name, needed, {f.name: f for f in fields})
    for field in sorted(fields, key=lambda f: (not f.positional, _USUAL.index(f.name) if f.name in _USUAL else 99)):
        for text in _others(field):
            spec = _join(name, {field.name: text}, {field.name: field})
            try:
                changed = build(cls, parse(spec).specs[0], name).canonical != name
            except InputError:
                continue
            if changed:
                return spec
    return name


def _others(field: _Field) -> tuple[str, ...]:
    """Other values than the default that a parameter may well have."""
    default = field.default
    if isinstance(field.type, Budget):
        return ("8/255", "0.25")
    if isinstance(field.type, Boolean):
        return (field.type.write(not default),)
    if isinstance(field.type, Choice):
        return tuple(field.type.write(choice) for choice in field.type.choices)
    if isinstance(field.type, Integer | Number):
        return tuple(field.type.write(value) for value in (2 * default, default + 1))
    return ()


def check_factory(cls: Any) -> None:
    """Raise PluginError unless `cls` is a frozen dataclass whose fields can stand in a spec."""
    _fields(cls)


def build(cls: type[Any], spec: Spec, name: str, context: Context | None = None) -> Written:
    """Return the factory built from `spec`, with its canonical and its full form under `name`.

    Raises SpecError for unknown, missing or wrong parameters, and whenever the factory refuses them
    with a ValueError.
    """
    fields = {field.name: field for field in _fields(cls)}
    given: dict[str, Written] = {}
    for item in spec.items:
        field = _find(item, fields, spec)
        if field.name in given:
            raise SpecError(f"{name}: parameter {field.name!r} given twice, once without its name: keep one")
        try:
            given[field.name] = field.type.read(item.values, context or Context())
        except InputError as error:
            raised = DataError if isinstance(error, DataError) else SpecError
            hint = f"; else {field.hint}" if field.hint and raised is DataError else ""
            raise raised(f"{name}: parameter {field.name!r}: {_shown(item, error)}{error}{hint}") from None
    missing = [field.name for field in fields.values() if field.required and field.name not in given]
    if missing:
        example = ",".join(f"{key}=…" for key in missing)
        raise SpecError(f"{name}: parameter {', '.join(map(repr, missing))} must be given: {name}:{example}")
    try:
        value = cls(**{key: written.value for key, written in given.items()})
    except ValueError as error:
        raise SpecError(f"{name}: {error}") from error
    short = {key: w.canonical for key, w in given.items() if fields[key].required or w.value != fields[key].default}
    full = {f.name: given[f.name].full if f.name in given else f.type.write(f.default) for f in fields.values()}
    return Written(value, _join(name, short, fields), _join(name, full, fields))


def canonical(value: Any, name: str) -> str:
    """Return the canonical form of a factory's instance under `name`, as `build` gives it.

    Raises TypeError for a parameter whose text its value does not tell, as that of another plugin.
    """
    fields = {field.name: field for field in _fields(type(value))}
    given = {key: getattr(value, key) for key in fields}
    short = {key: f.type.write(given[key]) for key, f in fields.items() if f.required or given[key] != f.default}
    return _join(name, short, fields)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" or nothing."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _find(item: Item, fields: Mapping[str, _Field], spec: Spec) -> _Field:
    if item.key is None:
        for field in fields.values():
            if field.positional:
                return field
        raise SpecError(f"{spec.qualified}: '{item}' has no key: write key=value; {_keys(fields)}")
    if item.key not in fields:
        raise SpecError(f"{spec.qualified}: no parameter {item.key!r}{suggest(item.key, fields)}; {_keys(fields)}")
    return fields[item.key]


def _keys(fields: Mapping[str, _Field]) -> str:
    return f"its parameters are {', '.join(fields)}" if fields else "it has no parameters"


def _shown(item: Item, error: InputError) -> str:
    """The offending value, unless the error shows it already."""
    text = str(dataclasses.replace(item, key=None))
    if repr(text) in str(error) or any(isinstance(atom, Chain) for atom in item.values):
        return ""
    return f"{text if len(text) <= 60 else text[:60] + '…'} "


def _join(name: str, texts: Mapping[str, str], fields: Mapping[str, _Field]) -> str:
    items = [texts[key] if fields[key].positional else f"{key}={texts[key]}" for key in fields if key in texts]
    return f"{name}:{','.join(items)}" if items else name


def _fields(cls: Any) -> tuple[_Field, ...]:
    return _cached_fields(cls)


@lru_cache(maxsize=1024)
def _cached_fields(cls: Hashable) -> tuple[_Field, ...]:
    who = f"{getattr(cls, '__module__', '?')}:{getattr(cls, '__qualname__', repr(cls))}"
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise PluginError(who, "a factory must be a dataclass")
    if not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise PluginError(who, "a factory must be a frozen dataclass: write @dataclass(frozen=True)")
    fields = [_field(cls, field, who) for field in dataclasses.fields(cls) if field.init]
    if sum(field.positional for field in fields) > 1:
        raise PluginError(who, "at most one parameter can be positional")
    return tuple(sorted(fields, key=lambda field: (not field.positional, field.name)))


def _field(cls: type[Any], field: dataclasses.Field[Any], who: str) -> _Field:
    declared = field.metadata.get("robench", _Declared("", False, Range()))
    annotation = _annotation(cls, field.name, who)
    kind = _type_of(annotation, declared.range)
    if declared.spec and isinstance(kind, String) and declared.spec in KINDS:
        kind = Named(declared.spec, KINDS[declared.spec].noun, declared.apart)
    elif declared.spec:
        raise PluginError(who, f"parameter {field.name!r} is to hold a spec: annotate it str, name a kind of plugin")
    if kind is None:
        raise PluginError(
            who,
            f"parameter {field.name!r} is annotated {annotation!r}: use bool, int, float, str, Literal, pathlib.Path, "
            "Epsilon, a protocol of robench, tuple[T, ...] or T | None",
        )
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if default is not _MISSING:
        try:
            kind.write(default)
        except TypeError:
            raise PluginError(who, f"the default {default!r} of parameter {field.name!r} is no {kind.words}") from None
    return _Field(field.name, kind, default, declared.positional, declared.doc, declared.hint)


def _annotation(cls: type[Any], name: str, who: str) -> Any:
    for owner in cls.__mro__:
        annotation = inspect.get_annotations(owner).get(name)
        if annotation is None:
            continue
        if not isinstance(annotation, str):
            return annotation
        scope = {**_NAMES, **vars(sys.modules.get(owner.__module__, types))}
        try:
            return eval(annotation, scope)
        except Exception as error:
            raise PluginError(
                who, f"the annotation {annotation!r} of parameter {name!r} cannot be read ({error}): import its names"
            ) from error
    raise PluginError(who, f"parameter {name!r} has no annotation")


def _type_of(annotation: Any, limits: Range) -> Type | None:
    """Return the parameter type for an annotation, or None where there is none."""
    plain: dict[Any, Type] = {
        bool: Boolean(),
        int: Integer(limits),
        float: Number(limits),
        str: String(),
        Path: File(),
        Epsilon: Budget(),
    }
    if isinstance(annotation, type) and annotation in plain:
        return plain[annotation]
    if annotation in _PROTOCOLS:
        return Nested(_PROTOCOLS[annotation].name, _PROTOCOLS[annotation].noun)
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is Literal and all(isinstance(a, str | int) and not isinstance(a, bool) for a in arguments):
        return Choice(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        inner = _type_of(arguments[0], limits)
        return None if inner is None or isinstance(inner, Many | Optional) else Many(inner)
    if origin in (typing.Union, types.UnionType):
        some = [a for a in arguments if a is not type(None)]
        kinds = {_type_of(a, limits) for a in some}
        inner = kinds.pop() if len(kinds) == 1 else None
        return Optional(inner) if inner is not None and len(some) < len(arguments) else inner
    return None
