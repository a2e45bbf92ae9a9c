"""The house rules: who may import whom, and what may be imported at start."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "robench": ROOT / "robench",
    "robench_plugins": ROOT / "plugins/robench_plugins",
    "robench_leaderboard": ROOT / "leaderboard/robench_leaderboard",
}
FILES = {
    ".".join((package, *(p for p in file.relative_to(folder).with_suffix("").parts if p != "__init__"))): file
    for package, folder in FOLDERS.items()
    for file in sorted(folder.rglob("*.py"))
}
HEAVY = {"torch", "pandas", "pyarrow"}


def imports(module: str, nodes: "list[ast.stmt] | None" = None) -> set[str]:
    """Every name that `module` imports from one of the three packages, absolute: `a.b.c` for `from a.b import c`."""
    file = FILES[module]
    statements = ast.parse(file.read_text()).body if nodes is None else nodes
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in (inner for statement in statements for inner in ast.walk(statement)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join((*above, *([node.module] if node.module else [])))
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return {name for name in found if name.partition(".")[0] in FOLDERS}


def of(package: str) -> list[str]:
    return [module for module in FILES if module == package or module.startswith(f"{package}.")]


def family(module: str) -> str | None:
    """The sub-package of robench_plugins that a module (or an imported name) belongs to."""
    parts = module.split(".")
    inside = parts[0] == "robench_plugins" and len(parts) > 1 and (FOLDERS[parts[0]] / parts[1]).is_dir()
    return parts[1] if inside else None


@pytest.mark.parametrize("module", FILES)
def test_arrows_point_at_the_core(module: str) -> None:
    package = module.partition(".")[0]
    others = {name for name in imports(module) if name.partition(".")[0] not in (package, "robench")}
    if module.startswith("robench.cli."):  # the composition root names them, but only inside functions
        tree = ast.parse(FILES[module].read_text()).body
        top = [n for n in tree if isinstance(n, ast.Import | ast.ImportFrom | ast.If | ast.Try)]
        others = {name for name in imports(module, top) if name.partition(".")[0] != "robench"}
    assert others == set()


@pytest.mark.parametrize("module", FILES)
def test_private_modules_stay_in_their_part(module: str) -> None:
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    for name in imports(module):
        parts = name.split(".")
        private = next((i for i, part in enumerate(parts) if part.startswith("_") and not part.endswith("__")), None)
        if private is not None:
            owner = ".".join(parts[: min(private, 2)])  # robench.graph, robench_plugins.attacks, …
            assert package == owner or package.startswith(f"{owner}."), f"{module} imports {name}"


@pytest.mark.parametrize("module", of("robench_plugins"))
def test_families_use_what_others_publish(module: str) -> None:
    foreign = [name for name in imports(module) if family(name) not in (None, family(module))]
    if family(module) is None:  # robench_plugins itself gathers the families' hooks
        return
    for name in foreign:
        source, _, imported = name.rpartition(".")
        published = next(
            (
                n.value
                for n in ast.parse(FILES[source].read_text()).body
                if isinstance(n, ast.Assign | ast.AnnAssign) and "__all__" in ast.unparse(n).partition("=")[0]
            ),
            None,
        )
        assert published is not None, f"{source} has no __all__"
        assert imported in ast.literal_eval(published), f"{name} is not in the __all__ of {source}"


def test_families_form_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for module in of("robench_plugins"):
        if own := family(module):
            uses = {other for name in imports(module) if (other := family(name)) not in (None, own)}
            graph.setdefault(own, set()).update(str(use) for use in uses)
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the cycle


def loaded_by(code: str) -> set[str]:
    """The heavy modules that a fresh interpreter has loaded after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('LOADED', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    names = next(line for line in done.stdout.splitlines() if line.startswith("LOADED")).split()
    return HEAVY & set(names)


COMMAND = "import contextlib\nfrom robench.cli import app\nwith contextlib.suppress(SystemExit):\n    app({})"


@pytest.mark.parametrize(
    "code",
    ["import robench", COMMAND.format(["--help"]), COMMAND.format(["plugins"]), COMMAND.format(["eval", "--help"])],
    ids=["import robench", "--help", "plugins", "eval --help"],
)
def test_start_imports_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


def test_heavy_imports_would_be_seen() -> None:
    assert loaded_by("import robench.streams") == {"torch"}


@pytest.mark.parametrize("module", FILES)
def test_no_file_outgrows_a_reader(module: str) -> None:
    assert len(FILES[module].read_text().splitlines()) <= 500
