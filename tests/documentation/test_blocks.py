"""The shell and Python blocks of README and documentation run as pasted, in order, in one working folder.

A TOML block that begins with a comment such as `# suite.toml` is the file of that name. The two set-up commands of
the README are run by whoever follows it: continuous integration runs the second as written.
"""

import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from robench.cli.demo import bundled_suite

ROOT = Path(__file__).parents[2]
PAGES = (
    *("README.md", "docs/evaluate.md", "docs/suites.md", "docs/backends.md", "docs/attacks.md", "docs/health.md"),
    *(
        "docs/smoothing.md",
        "docs/data.md",
        "docs/scaling.md",
        "docs/training.md",
        "docs/lipschitz.md",
        "docs/fairness.md",
    ),
)
MAIN_JOB_ON = PAGES[:2]
SET_UP = "python3.11 -m venv"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Block(NamedTuple):
    page: str
    language: str
    code: str


def blocks(page: str) -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [Block(page, language, code) for language, code in found]


MAIN_JOB = "".join(
    line for line in (ROOT / "examples/digits.sh").read_text().splitlines(keepends=True) if line.startswith("robench ")
)
TO_RUN = [
    block
    for page in PAGES
    for block in blocks(page)
    if block.language in ("sh", "python", "toml") and SET_UP not in block.code and block.code != MAIN_JOB
]


def needed(block: Block) -> str:
    """Return which framework a block is about; "" where robench's own requirements are enough."""
    return next((module for module in ("jax", "tensorflow") if f"import {module}" in block.code), "")


# What the pages take for granted: the reader's own network and data.
YOURS = """
import numpy as np, torch
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)).eval()
x = np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32)
y = net(torch.from_numpy(x)).argmax(1).numpy()
np.savez("data.npz", x=x, y=y)
torch.onnx.export(net, (torch.from_numpy(x),), "net.onnx", input_names=["x"], dynamo=True, verbose=False,
                  dynamic_shapes=({0: torch.export.Dim("batch")},))
"""


class Workspace:
    """A folder in which commands run as in the reader's shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = dict(os.environ)
        binaries = Path(sys.executable).parent
        if not (binaries / "robench").exists():  # run from a working tree
            binaries = folder / ".bin"
            binaries.mkdir()
            shim = binaries / "robench"
            shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m robench "$@"\n')
            shim.chmod(0o755)
        self.environment["PATH"] = f"{binaries}{os.pathsep}{self.environment['PATH']}"

    def run(self, language: str, code: str) -> str:
        if language == "toml":
            name = re.fullmatch(r"# ([a-z]+\.toml)", code.splitlines()[0])
            assert name, "say which file this is"
            (self.folder / name[1]).write_text(code, encoding="utf-8")
            return ""
        command = ["sh", "-euc", code] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=800
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A folder after the main job, with the reader's network and data in it."""
    place = Workspace(tmp_path_factory.mktemp("reader"))
    shutil.copytree(ROOT / "examples", place.folder / "examples")
    place.run("sh", "examples/digits.sh")
    place.run("python", YOURS)
    return place


def test_the_main_job_leaves_what_it_says(workspace: Workspace) -> None:
    assert (workspace.folder / "checkpoints/digits-ibp/weights.safetensors").exists()
    assert len(list(workspace.folder.glob("results/digits-*/*/*/manifest.json"))) == 1
    assert "digits" in (workspace.folder / "site/index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", MAIN_JOB_ON)
def test_the_main_job_is_shown_as_it_is(page: str) -> None:
    assert MAIN_JOB in [block.code for block in blocks(page)]


def test_the_first_command_is_the_demo_and_what_it_shows_is_what_it_prints() -> None:
    first, shown = blocks("README.md")[:2]
    assert SET_UP in first.code and first.code.rstrip().endswith(".venv/bin/robench demo")
    suite = bundled_suite()
    lines = shown.code.splitlines()
    assert lines[0] == "digits test, 450 samples: certified – empirical accuracy"
    assert len({cell.model for cell in suite.cells}) == sum("–" in line for line in lines[3:])
    runs = len(suite.cells)
    assert re.search(rf"^checked {runs} runs, .*, {len(suite.bounds)} bounds: nothing wrong$", shown.code, re.MULTILINE)


def test_continuous_integration_runs_the_test_command() -> None:
    (command,) = [b.code.strip() for b in blocks("README.md") if SET_UP in b.code and "tox" in b.code]
    assert command in (ROOT / ".ci/run").read_text()


class Answers(http.server.BaseHTTPRequestHandler):
    """The classifier on another machine: it decides by the brightest of the first ten pixels."""

    def do_POST(self) -> None:
        x = np.array(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        body = json.dumps(x.reshape(len(x), -1)[:, :10].argmax(1).tolist()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where `Answers` listens."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run_as_pasted(workspace: Workspace, page: str, port: int) -> None:
    """All blocks of a page in one test: those below use what those above made."""
    for block in TO_RUN:
        if block.page == page and not needed(block):
            workspace.run(block.language, block.code.replace("127.0.0.1:8765", f"127.0.0.1:{port}"))


@pytest.mark.parametrize("block", [block for block in TO_RUN if needed(block)], ids=lambda block: needed(block))
def test_blocks_about_other_frameworks_run_as_pasted(workspace: Workspace, block: Block) -> None:
    if importlib.util.find_spec(needed(block)) is None:
        pytest.skip(f"no {needed(block)}")
    workspace.run(block.language, block.code)
