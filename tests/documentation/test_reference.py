"""docs/cli.md says what the commands say; README and documentation show commands and links that exist."""

import re
from pathlib import Path

import pytest
import typer

from documentation.cli_reference import PAGE, commands, reference
from robench.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_reference_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "renew it: python tests/documentation/cli_reference.py"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "design.md"], ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page: Path) -> None:
    known = {path[0] for path in commands(typer.main.get_command(app)) if path}
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    shown = re.findall(r"^(?:\$ )?(?:\S*/)?robench ([a-z][a-z-]*)", "".join(blocks), re.MULTILINE)
    assert set(shown) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [link for link in links if link and "://" not in link and not (page.parent / link).exists()]
    assert missing == []
