"""`robench plugins`: what is installed, what each plugin takes, whether it conforms, and how to begin a new one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robench.cli._app import app
from robench.cli._options import Json
from robench.errors import PluginError, SpecError

if TYPE_CHECKING:
    from robench.registry import Entry, Kind, PluginRow, Plugins

__all__ = ["plugins_app"]

plugins_app = typer.Typer(rich_markup_mode=None, help="List, show, check and begin plugins.")
app.add_typer(plugins_app, name="plugins")

KindOption = Annotated[
    str | None,
    typer.Option("--kind", help="Kind, where plugins of several kinds share the name: attacks, certifiers, …"),
]


@plugins_app.callback(invoke_without_command=True)
def list_plugins(context: typer.Context, as_json: Json = False) -> None:
    """List the plugins by kind, and those that could not be loaded with the reason."""
    if context.invoked_subcommand is not None:
        return
    from robench.registry import KINDS, load_plugins

    plugins = load_plugins()
    if as_json:
        _print_json(
            plugins=[dataclasses.asdict(entry) for kind in KINDS for entry in plugins.entries(kind)],
            modules=[dataclasses.asdict(row) for row in plugins.rows],
        )
        return
    listed = [(kind, plugins.entries(name)) for name, kind in KINDS.items()]
    width = max((len(entry.name) for _, entries in listed for entry in entries), default=0)
    for kind, entries in listed:
        if entries:
            print(f"{kind.noun}s")
            for entry in entries:
                print(f"  {entry.name:<{width}}  {_line(entry)}")
            print()
    print("[default] runs when nothing is asked for; of several attacks the first that applies to the classifier does:")
    for group in plugins.defaults("attacks"):
        print(f"  {', then '.join(entry.name for entry in group)}")
    print("[small] runs with -c auto; `robench plugins show NAME` tells more")
    if plugins.broken:
        print("\nleft out")
        for row in plugins.broken:
            print(f"  {_left_out(row)}")


@plugins_app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="NAME or DISTRIBUTION/NAME.")],
    kind: KindOption = None,
    as_json: Json = False,
) -> None:
    """Show a plugin's parameters, documentation and source."""
    from robench.registry import load_plugins

    plugins = load_plugins()
    documents = [_document(plugins, entry) for entry in _find(plugins, name, kind)]
    if as_json:
        _print_json(plugins=documents)
        return
    for position, document in enumerate(documents):
        print("\n" * bool(position) + _page(document))


@plugins_app.command("check")
def check(
    spec: Annotated[str, typer.Argument(help="NAME, or a spec where parameters must be given.")],
    kind: KindOption = None,
    path: Annotated[Path | None, typer.Option(help="A file or folder that an importer can read.")] = None,
    as_json: Json = False,
) -> None:
    """Run the conformance kit on a plugin. Exit code 1 where it finds something."""
    from robench.registry import load_plugins
    from robench.spec import parse

    plugins = load_plugins()
    entries = _find(plugins, parse(spec).specs[0].qualified, kind)
    from robench.testing import check_plugin

    found: list[dict[str, Any]] = []
    for entry in entries:
        findings = check_plugin(entry.kind, spec, path=path)
        found.append({"kind": entry.kind, "spec": spec, "findings": [dataclasses.asdict(one) for one in findings]})
        if not as_json:
            print(f"{spec} of kind {entry.kind}, {entry.distribution} {entry.version}")
            for finding in findings:
                print(f"  {finding}")
    outcomes = [one["outcome"] for document in found for one in document["findings"]]
    failed, looked = outcomes.count("failed"), "passed" in outcomes
    if as_json:
        _print_json(checks=found, failed=failed)
    else:
        print(f"{failed} failed" if failed else "conforms" if looked else "nothing could be checked")
    if failed or not looked:
        raise typer.Exit(1)


@plugins_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The plugin's name in specs: small letters, digits, '-'.")],
    kind: Annotated[str, typer.Option(help="Kind of plugin: attack, certifier, dataset, model, …")] = "attack",
    out: Annotated[Path | None, typer.Option(help="Folder to write, robench-NAME here by default.")] = None,
) -> None:
    """Write a small plugin distribution. It installs, and its test passes."""
    from robench.scaffold import write_distribution

    folder = write_distribution(name, kind, out)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(file)
    print(f"next: pip install -e '{folder}[test]' && pytest {folder}")


def _print_json(**document: Any) -> None:
    print(json.dumps({"schema": 1, **document}, ensure_ascii=False, indent=1))


def _line(entry: Entry) -> str:
    marks = "".join(f"[{mark}] " for mark in ("default" if entry.default else "", entry.cost) if mark)
    hidden = f" (the short name is also {entry.hidden_by}'s)" if entry.hidden_by else ""
    origin = "" if entry.distribution == "robench" else f" — {entry.distribution} {entry.version}"
    return f"{marks}{entry.summary}{hidden}{origin}".strip()


def _left_out(row: PluginRow) -> str:
    return f"{row.distribution} {row.version} ({row.module}) is {row.state}: {row.why}"


def _find(plugins: Plugins, name: str, kind: str | None) -> list[Entry]:
    """The entries called `name`, of every kind or of one; raises PluginError for a plugin that was left out."""
    from robench.kinds import KINDS, find_kind
    from robench.params import suggest

    kinds = list(KINDS.values()) if kind is None else [find_kind(kind)]
    found = [entry for one in kinds if (entry := _entry(plugins, one, name))]
    if found:
        return found
    for row in plugins.broken:
        if name in (row.distribution, row.module) or name.startswith(f"{row.distribution}/"):
            raise PluginError(f"{row.distribution} {row.version}", f"{row.module} is {row.state}: {row.why}")
    if len(kinds) == 1:
        plugins.find(kinds[0].name, name)  # raises, with the nearest names
    known = {entry.name for one in kinds for entry in plugins.entries(one.name)}
    raise SpecError(f"no plugin is called {name!r}{suggest(name, known) or ': `robench plugins` lists them'}")


def _entry(plugins: Plugins, kind: Kind, name: str) -> Entry | None:
    try:
        return plugins.find(kind.name, name)
    except SpecError:
        return None


def _document(plugins: Plugins, entry: Entry) -> dict[str, Any]:
    """What `show` knows about a plugin, as JSON."""
    import inspect

    from robench.params import describe, example
    from robench.registry import KINDS

    factory = plugins.factory(entry)
    text = inspect.getdoc(factory) or ""
    if text.startswith(f"{factory.__name__}("):
        text = ""  # what dataclass writes where there is no docstring
    parameters = [dataclasses.asdict(one) for one in describe(factory)]
    return {
        **dataclasses.asdict(entry),
        "doc": text,
        "parameters": parameters,
        "example": KINDS[entry.kind].usage.format(spec=example(factory, entry.name), name=entry.name),
    }


def _page(document: dict[str, Any]) -> str:
    from robench.registry import KINDS

    lines = [f"{document['name']}, {KINDS[document['kind']].noun} of {document['distribution']} {document['version']}"]
    lines += [f"  {document['target']}"]
    if document["doc"]:
        lines += ["", *(f"  {line}".rstrip() for line in document["doc"].splitlines())]
    rows = [
        (
            one["name"] + (" (first item, needs no key)" if one["positional"] else ""),
            one["type"],
            "must be given" if one["default"] is None else one["default"],
            one["doc"],
        )
        for one in document["parameters"]
    ]
    if rows:
        rows = [("parameter", "type", "default", ""), *rows]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines += [""]
        lines += [
            "  " + "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]).rstrip()
            for row in rows
        ]
    return "\n".join([*lines, "", f"  {document['example']}"])
