"""The loaded plugins: look-up by name, and specs turned into objects."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from robench.errors import PluginError, RobenchError, SpecError
from robench.kinds import KINDS, Kind
from robench.params import Context, Written, build, check_factory, suggest
from robench.registry._compose import compose
from robench.registry._loading import Entry, Loaded, PluginRow, load_all
from robench.registry._run_hooks import RunHooks
from robench.registry._sources import BUILT_IN, Source, find_sources, normalized
from robench.spec import Chain, Spec, parse
from robench.text import one_line

__all__ = ["Part", "Plugins", "Resolved", "load_plugins"]


@dataclass(frozen=True)
class Part:
    """One plugin of a chain: the built factory and how it is written.

    `entry` is None for an object given from Python; `nested` are the plugins that its parameters name.
    """

    kind: str
    name: str
    value: Any
    canonical: str
    full: str
    distribution: str
    version: str
    entry: Entry | None
    nested: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Resolved:
    """A spec made real: the base plugin and what is chained to it, in order."""

    parts: tuple[Part, ...]

    @property
    def canonical(self) -> str:
        """The short form that identifies it: parameters that differ from their defaults, no paths."""
        return " | ".join(part.canonical for part in self.parts)

    @property
    def full(self) -> str:
        """The form with every parameter."""
        return " | ".join(part.full for part in self.parts)

    @cached_property
    def value(self) -> Any:
        """The plugin with its chain applied: a Dataset, a Model, an Attack."""
        return compose(self.parts)


class Plugins:
    """What is installed; never changes after loading."""

    def __init__(self, loaded: Loaded) -> None:
        """Decide which name reaches which entry: prefer `load_plugins()` or `Plugins.load(sources)`."""
        self.rows: tuple[PluginRow, ...] = tuple(loaded.rows)
        self._names = MappingProxyType({kind: _names(kind, loaded.entries) for kind in KINDS})
        self._order = tuple((entry.kind, f"{entry.distribution}/{entry.short}") for entry in loaded.entries)
        self._factories: dict[Entry, Any] = {}
        self.run_hooks = RunHooks(loaded.manager)

    @classmethod
    def load(cls, sources: Iterable[Source]) -> Plugins:
        """Load plugins from these sources alone."""
        return cls(load_all(sources))

    @property
    def broken(self) -> tuple[PluginRow, ...]:
        """The plugins that were left out, each with its reason."""
        return tuple(row for row in self.rows if row.state != "ok")

    def entries(self, kind: str) -> list[Entry]:
        """Return the entries of a kind, each under the shortest name that reaches it, sorted."""
        unique = {id(entry): entry for entry in self._names[kind].values()}
        return sorted(unique.values(), key=lambda entry: ("/" in entry.name, entry.name))

    def defaults(self, kind: str) -> list[list[Entry]]:
        """Return what runs when nothing is asked for: per distribution its defaults, in order of registration.

        The first of them that applies is meant to run.
        """
        groups: dict[str, list[Entry]] = {}
        for entry in (self._names[own][name] for own, name in self._order if own == kind):
            if entry.default:
                groups.setdefault(entry.distribution, []).append(entry)
        return list(groups.values())

    def find(self, kind: str, name: str) -> Entry:
        """Return the entry called `name` (or `distribution/name`). Raises SpecError with the nearest names."""
        names = self._names[kind]
        distribution, slash, short = name.rpartition("/")
        entry = names.get(f"{normalized(distribution)}/{short}" if slash else name)
        if entry is None:
            raise SpecError(self._unknown(KINDS[kind], name))
        return entry

    def factory(self, entry: Entry) -> type[Any]:
        """Import an entry's class. Raises PluginError that names plugin and distribution."""
        if entry not in self._factories:
            who = f"{KINDS[entry.kind].noun} {entry.short!r} of {entry.distribution} {entry.version}"
            self._factories[entry] = _import(entry, who)
        return self._factories[entry]  # type: ignore[no-any-return]

    def resolve(self, kind: str, text: str | Chain, search: Sequence[Path] = ()) -> Resolved:
        """Turn a spec into plugins. Raises SpecError, or PluginError where a plugin fails.

        `search` holds folders in which files written as `name@sha256:…` are looked for.
        """
        chain = parse(text) if isinstance(text, str) else text
        base, link = KINDS[kind], KINDS[kind].link
        if len(chain.specs) > 1 and link is None:
            raise SpecError(f"'{chain}': nothing can be chained to a {base.noun}: remove what follows ' | '")
        parts = [self._part(base, chain.specs[0], search)]
        parts += [self._part(KINDS[link or kind], spec, search) for spec in chain.specs[1:]]
        return Resolved(tuple(parts))

    def _part(self, kind: Kind, spec: Spec, search: Sequence[Path]) -> Part:
        entry = self.find(kind.name, spec.qualified)
        factory = self.factory(entry)
        who = f"{kind.noun} {entry.short!r} of {entry.distribution} {entry.version}"

        parts: list[Part] = []

        def nested(inner: str, chain: Chain) -> Written:
            resolved = self.resolve(inner, chain, search)
            parts.extend(resolved.parts)
            return Written(resolved.value, resolved.canonical, resolved.full)

        try:
            value, canonical, full = build(factory, spec, entry.name, Context(search, nested))
        except (RobenchError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise PluginError(who, f"failed on '{spec}': {one_line(error)}") from error
        # By shape: flags with a default may be left out, and a newer flag must not disown older plugins.
        if not any(callable(getattr(value, method, None)) for method in kind.methods):
            raise PluginError(who, _misfit(kind, value))
        known = entry.distribution, entry.version, entry
        return Part(kind.name, entry.name, value, canonical, full, *known, tuple(parts))

    def _unknown(self, kind: Kind, name: str) -> str:
        known = [entry.name for entry in self.entries(kind.name)]
        claims = [entry.name for entry in self.entries(kind.name) if entry.hidden_by and entry.short == name]
        if claims:
            return f"{kind.noun} {name!r} is claimed by more than one distribution: write {' or '.join(claims)}"
        for other in KINDS.values():
            if other is not kind and name in self._names[other.name]:
                how = f": write '{kind.noun.upper()} | {name}'" if other.name == kind.link else ""
                return f"no {kind.noun} is called {name!r}: that is {other.article} {other.noun}{how}"
        hint = suggest(name, known) or (f"; there are {', '.join(known)}" if 0 < len(known) <= 12 else "")
        broken = f" ({len(self.broken)} plugins could not be loaded)" if self.broken else ""
        return f"no {kind.noun} is called {name!r}{hint or '; `robench plugins` lists what there is'}{broken}"


def _names(kind: str, entries: list[Entry]) -> Mapping[str, Entry]:
    """Map every name to its entry: the built-in wins a short name, two third parties lose it."""
    claims: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.kind == kind:
            claims.setdefault(entry.short, []).append(entry)
    names: dict[str, Entry] = {}
    for short, claimed in claims.items():
        winner = next((entry for entry in claimed if entry.distribution == BUILT_IN), None)
        if winner is None and len(claimed) == 1:
            winner = claimed[0]
        for entry in claimed:
            qualified = f"{entry.distribution}/{short}"
            if entry is not winner:
                others = sorted({e.distribution for e in claimed} - {entry.distribution})
                # Not what runs unasked: only its long name reaches it.
                entry = replace(entry, name=qualified, default=False, cost="", hidden_by=", ".join(others))
            else:
                names[short] = entry
            names[qualified] = entry
    return MappingProxyType(names)


def _import(entry: Entry, who: str) -> Any:
    module, _, path = entry.target.partition(":")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            factory = importlib.import_module(module)
            for name in path.split("."):
                factory = getattr(factory, name)
        check_factory(factory)
    except KeyboardInterrupt:
        raise
    except PluginError as error:
        raise PluginError(who, str(error)) from error
    except BaseException as error:
        raise PluginError(who, f"cannot load {entry.target}: {one_line(error)}") from error
    return factory


def _misfit(kind: Kind, value: Any) -> str:
    return f"{type(value).__name__} is not {kind.article} {kind.noun}: it has no {' or '.join(kind.methods)}"


@lru_cache(maxsize=1)
def load_plugins() -> Plugins:
    """Load every installed plugin, once per process."""
    return Plugins.load(find_sources())
