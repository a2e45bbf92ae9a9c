"""Is this installation sound? Versions, devices, plugins, and a self-test against known answers: `robench doctor`."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from robench.text import one_line

__all__ = ["Line", "diagnose"]

LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "pluggy",
    "pydantic",
    "safetensors",
    "typer",
)
EXTRAS = {"onnx": ("onnx",)}
NEEDED = 2**30
"""Free memory and disk, in bytes, below which an evaluation may end early."""

# Philox-4x32-10 of counter 0 under key 0: kat_vectors of Random123 (Salmon et al. 2011).
PHILOX = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


@dataclass(frozen=True)
class Line:
    """One thing looked at. `wrong` needs mending; `note` is worth knowing."""

    topic: str
    name: str
    state: Literal["ok", "note", "wrong"]
    text: str


def diagnose() -> Iterator[Line]:
    """Yield a line for everything looked at. Names no user, host or path."""
    yield from _versions()
    for topic, look in (("devices", _devices), ("plugins", _plugins), ("self-test", _self_test), ("room", _room)):
        try:
            yield from look()
        except Exception as error:
            yield Line(topic, topic, "wrong", one_line(error))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> Iterator[Line]:
    robench = _version("robench")
    text = robench or "not installed: run from a working tree, without its entry points"
    yield Line("versions", "robench", "ok" if robench else "note", text)
    yield Line("versions", "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in LIBRARIES:
        version = _version(name)
        yield Line("versions", name, "ok" if version else "wrong", version or "missing: install robench again")
    for extra, names in EXTRAS.items():
        found = {name: _version(name) for name in names}
        have = ", ".join(f"{name} {version}" for name, version in found.items() if version)
        lack = ", ".join(name for name, version in found.items() if not version)
        text = have if not lack else f"{have + '; ' if have else ''}no {lack}: pip install 'robench[{extra}]'"
        yield Line("extras", extra, "note" if lack else "ok", text)


def _devices() -> Iterator[Line]:
    import torch

    yield Line("devices", "cpu", "ok", f"{torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield Line("devices", "cuda", "note", f"none ({built})")
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        text = f"{torch.cuda.get_device_name(index)}, {_size(free)} of {_size(total)} free"
        yield Line("devices", f"cuda:{index}", "ok", text)


def _plugins() -> Iterator[Line]:
    from robench.registry import KINDS, load_plugins

    plugins = load_plugins()
    counts = {kind.noun: len(plugins.entries(name)) for name, kind in KINDS.items()}
    counted = ", ".join(f"{count} {noun}{'s' if count != 1 else ''}" for noun, count in counts.items() if count)
    yield Line("plugins", "loaded", "ok" if counted else "wrong", counted or "none, not even the built-in ones")
    for row in plugins.broken:
        yield Line("plugins", row.distribution, "wrong", f"{row.module} {row.version} is {row.state}: {row.why}")


def _self_test() -> Iterator[Line]:
    from robench.registry import load_plugins
    from robench.testing import check_plugin

    yield _known_answer()
    plugins = load_plugins()
    # What runs when nothing is asked for, on linear classifiers whose robust radius is known exactly.
    for kind, check, chosen in (
        ("attacks", "closeness", [group[0] for group in plugins.defaults("attacks")]),
        ("certifiers", "sound on linear classifiers", [e for e in plugins.entries("certifiers") if e.cost == "small"]),
    ):
        for entry in chosen:
            (finding,) = [one for one in check_plugin(kind, entry.name, only=[check]) if one.check == check]
            state: Literal["ok", "note", "wrong"] = "ok" if finding.outcome == "passed" else "note"
            yield Line("self-test", entry.name, state if finding.ok else "wrong", f"{finding.required}: {finding.seen}")


def _known_answer() -> Line:
    import torch

    from robench.streams import Stream

    words = Stream(torch.zeros((1, 2), dtype=torch.int64)).uniform((4,))
    same = [round(word * 2**24) for word in words[0].tolist()] == [word >> 8 for word in PHILOX]
    return Line("self-test", "streams", "ok" if same else "wrong", "Philox-4x32-10 gives its published numbers")


def _room() -> Iterator[Line]:
    for name, size in (("disk", shutil.disk_usage(".").free), ("memory", _memory())):
        if size is None:
            yield Line("room", name, "note", "this system does not tell")
        elif size < NEEDED:
            yield Line("room", name, "note", f"{_size(size)} free: an evaluation is likely to end early")
        else:
            yield Line("room", name, "ok", f"{_size(size)} free")


def _memory() -> int | None:
    """Return the memory that can be had without swapping, in bytes (Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
