"""The command line, and the composition root: the only place that names the other two packages, lazily.

Every command lives in a module of its own that imports nothing heavy before it runs.
"""

from __future__ import annotations

import sys

from robench.cli._app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; `--debug` anywhere shows tracebacks."""
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    app(arguments, prog_name="robench", obj={"debug": len(arguments) < len(sys.argv) - 1})
