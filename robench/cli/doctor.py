"""`robench doctor`: versions, devices, plugins, a self-test; exit 1 where something is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from robench.cli._app import app
from robench.cli._options import Json

__all__ = ["doctor"]


@app.command("doctor")
def doctor(as_json: Json = False) -> None:
    """Look at this installation and test it.

    Shows versions, devices and plugins. Exit code 1 where something is wrong.
    """
    from robench.diagnosis import diagnose

    lines = []
    for line in diagnose():
        lines.append(line)
        if not as_json:
            if len(lines) == 1 or lines[-2].topic != line.topic:
                print(line.topic)
            print(f"  {line.state:<6}{line.name:<14}{line.text}", flush=True)
    wrong = sum(line.state == "wrong" for line in lines)
    if as_json:
        document = {"schema": 1, "wrong": wrong, "lines": [asdict(line) for line in lines]}
        print(json.dumps(document, ensure_ascii=False, indent=1))
    else:
        print(f"{wrong} wrong: mend what is marked so" if wrong else "nothing is wrong")
    if wrong:
        raise typer.Exit(1)
