"""Build the sdist and, from it, the wheel; look into both; install the wheel in a clean environment and use it.

Run by `tox -e pkg` as `build_and_install.py PROJECT SCRATCH`. Not a test module: it needs its own environment.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

PACKAGES = {
    "robench": "robench",
    "robench_plugins": "plugins/robench_plugins",
    "robench_leaderboard": "leaderboard/robench_leaderboard",
}
IN_SDIST = ("README.md", "tox.ini", "constraints.txt", "mkdocs.yml", "docs/index.md", "tests/conftest.py")


def main(project: Path, scratch: Path) -> None:
    dist = scratch / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", dist, project)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")

    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    expect("the sdist holds tests and documentation", not (lost := set(IN_SDIST) - packed), lost)

    with zipfile.ZipFile(wheel) as archive:
        installed = {name for name in archive.namelist() if ".dist-info/" not in name}
    strays = {name for name in installed if name.partition("/")[0] not in PACKAGES}
    expect("the wheel holds the three packages and nothing else", not strays, strays)
    source = {
        f"{package}/{file.relative_to(project / folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for file in (project / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    expect("every file of the packages is in the wheel", source == installed, source ^ installed)

    home = scratch / "clean"
    venv.create(home, with_pip=True, clear=True)
    binaries = home / ("Scripts" if os.name == "nt" else "bin")
    python, robench = binaries / "python", binaries / "robench"
    run(python, "-m", "pip", "install", "--quiet", "-c", project / "constraints.txt", wheel)
    run(robench, "doctor")
    run(robench, "plugins")
    for name in ("plugins", "leaderboard", "tests"):
        found = subprocess.run([python, "-c", f"import {name}"], cwd=scratch, capture_output=True).returncode == 0
        expect(f"no package named {name} is installed", not found, name)
    print("packaging: fine")


def run(*command: str | Path) -> None:
    print("+", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    subprocess.run([str(word) for word in command], check=True, env=environment)


def expect(what: str, holds: bool, seen: object) -> None:
    if not holds:
        sys.exit(f"packaging: not so: {what}: {seen}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
