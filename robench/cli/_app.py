"""The typer application: its commands, and what happens when one of them raises."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from robench.errors import InputError, RobenchError
from robench.text import safe

__all__ = ["app"]


_COMMANDS = (
    "demo",
    "train",
    "scale",
    "eval",
    "run",
    "bound",
    "check",
    "replay",
    "report",
    "runs",
    "leaderboard",
    "import_",
    "export",
    "plugins",
    "doctor",
)


class _Group(TyperGroup):
    """Lists the commands in our order, and turns robench's errors into one line and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name.rstrip("_") for name in _COMMANDS]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            _refuse_repeated(type(ctx)(command, parent=ctx, resilient_parsing=True), rest)
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RobenchError as error:
            _fail(ctx, error, str(error), error.exit_code)
        except KeyboardInterrupt as error:
            _fail(ctx, error, str(error) or "interrupted", 130)
        except OSError as error:
            if error.errno is None:
                raise
            where = f" ({error.filename})" if error.filename else ""
            _fail(ctx, error, f"{error.strerror}{where}; what was written before is kept", 2)


def _refuse_repeated(ctx: Any, args: list[str]) -> None:
    """Refuse an option that takes one value and is given several: the last one would silently count."""
    _, _, order = ctx.command.make_parser(ctx).parse_args(list(args))
    for param in order:
        if order.count(param) > 1 and not (param.multiple or getattr(param, "is_flag", False)):
            raise InputError(f"{' / '.join(param.opts)} is given {order.count(param)} times and takes one value")


def _fail(ctx: Any, error: BaseException, line: str, code: int) -> None:
    if (ctx.obj or {}).get("debug"):
        raise error
    print(f"robench: {safe(line)}", file=sys.stderr)
    ctx.exit(code)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Adversarial robustness, per sample and from both sides.",
)

for _command in _COMMANDS:  # each adds itself to `app`
    import_module(f"robench.cli.{_command}")
