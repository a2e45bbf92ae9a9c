"""docs/cli.md: the help of every command. `python tests/documentation/cli_reference.py` writes it anew."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from robench.cli import app

PAGE = Path(__file__).parents[2] / "docs/cli.md"
HEAD = """# Commands

Results go to stdout, messages and progress to stderr; `--json` prints one JSON document and nothing else on stdout.
`--debug` anywhere shows the traceback of an error. Exit codes: [when something is wrong](errors.md).
"""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from commands(child, (*path, name))


def reference() -> str:
    parts = [HEAD]
    for path in commands(typer.main.get_command(app)):
        shown = CliRunner().invoke(app, [*path, "--help"], terminal_width=100, prog_name="robench")
        assert shown.exit_code == 0, shown.output
        text = "\n".join(line.rstrip() for line in shown.stdout.strip().splitlines())
        parts.append(f"## {' '.join(('robench', *path))}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
