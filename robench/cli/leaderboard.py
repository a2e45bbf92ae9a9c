"""`robench leaderboard`: the site, built and served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robench.cli._app import app

__all__ = ["build", "serve"]

site = typer.Typer(help="Build the site of results, or serve one.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(site, name="leaderboard")


@site.command("build")
def build(
    results: Annotated[list[Path], typer.Argument(help="Results folders, or run folders within them.")],
    out: Annotated[Path, typer.Option(help="Folder of the site; an older site there is replaced.")] = Path("site"),
) -> None:
    """Build pages that open from a file and without JavaScript. The same results give the same bytes."""
    from robench.bounds import find_bounds
    from robench.runs import find_runs
    from robench.scaling import find_scales
    from robench_leaderboard import build as build_site

    print(build_site(find_runs(results), out, find_bounds(results), find_scales(results)))


@site.command("serve")
def serve(
    folder: Annotated[Path, typer.Argument(metavar="SITE", help="A folder that `leaderboard build` made.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8000,
) -> None:
    """Serve a site over HTTP until interrupted. It opens from its files just as well."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    from robench.errors import InputError
    from robench_leaderboard import is_site

    if not is_site(folder):
        raise InputError(
            f"{folder} is not a robench site: build one with robench leaderboard build RESULTS --out {folder}"
        )
    try:
        server = ThreadingHTTPServer((host, port), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    except OSError as error:
        raise InputError(f"cannot listen on {host}:{port} ({error.strerror}): choose another --port") from None
    with server:
        print(f"http://{host}:{server.server_address[1]}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
