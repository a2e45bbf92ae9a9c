"""`robench demo`: bundled classifiers on bundled data, from nothing to a checked site."""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robench.cli._app import app
from robench.cli._options import Json
from robench.cli._overview import overview
from robench.cli.check import show_check
from robench.cli.run import report_failures, run_shown, suite_document

if TYPE_CHECKING:
    from robench.suite import Suite

__all__ = ["bundled_suite", "demo"]


@app.command("demo")
def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for results and site.")] = Path("robench-demo"),
    jobs: Annotated[
        int | None, typer.Option("-j", "--jobs", min=1, metavar="N", help="Cells at a time; two where there are cores.")
    ] = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Evaluate the bundled classifiers, check and build the site.

    Takes about two minutes on two cores. Writes FOLDER/results and FOLDER/site; run again, it goes on from what is
    there. Exit codes: 0 fine, 1 the check found something, 2 bad input, 3 something failed, 130 interrupted.
    """
    from robench.bounds import find_bounds
    from robench.check import check_folders
    from robench.folders import claim
    from robench.runs import find_runs
    from robench.suite import cores, plan_suite
    from robench_leaderboard import build

    def say(line: str) -> None:
        if not (quiet or as_json):
            print(line, file=sys.stderr, flush=True)

    claim(out, "demo")
    results = out / "results"
    suite = bundled_suite()
    left = sum(one.state != "complete" for one in plan_suite(suite, results))
    say(f"{left} of {len(suite.tasks)} cells to do; interrupted, the same command goes on")
    debug = bool((context.obj or {}).get("debug"))
    outcome = run_shown(
        suite, results, jobs=max(1, min(jobs or min(2, cores()), left)), quiet=quiet or as_json, debug=debug
    )
    if not outcome.runs:
        report_failures(outcome)
    say("checking the evidence")
    checked = check_folders([results])
    say("building the site")
    page = build(find_runs(results), out / "site", find_bounds(results)).resolve().as_uri()
    if as_json:
        document = {**suite_document(outcome), "check": checked.document(), "site": page}
        print(json.dumps(document, ensure_ascii=False, indent=1))
    else:
        print("\n".join([*overview(outcome.results()), ""]))
        show_check(checked, 20)
        print(f"site: {page}")
    if checked.findings:
        raise typer.Exit(1)
    report_failures(outcome)


def bundled_suite() -> Suite:
    """Read the bundled suite, which lies beside the classifiers that it names."""
    import robench_plugins
    from robench.suite import parse_suite

    text = resources.files(robench_plugins).joinpath("demo.toml").read_text(encoding="utf-8")
    return parse_suite(text, "demo.toml")
