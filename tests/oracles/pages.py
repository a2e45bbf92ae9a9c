"""A strict reader of the site's pages, and sites of synthetic runs."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

from robench.runs import find_runs
from robench_leaderboard import build

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags must nest; collects tags, links, ids, attributes and texts (without style and script)."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.append((tag, name, value))
            self.links += [value or ""] if name in ("href", "src", "action", "xlink:href") else []
            self.ids += [value or ""] if name == "id" else []
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> does not close what is open"

    def handle_data(self, data: str) -> None:
        if self.stack[-1:] not in (["style"], ["script"]):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, white space collapsed."""
        return " ".join(" ".join(self.texts).split())


def site_of(folder: Path, runs: Sequence, name: str = "site", bounds: Sequence = ()) -> dict[str, bytes]:
    """Save `runs` under `folder`, build their site, and return its files."""
    for run in runs:
        run.save(folder / "results")
    build(find_runs(folder / "results"), folder / name, bounds)
    return files_of(folder / name)


def files_of(site: Path) -> dict[str, bytes]:
    """Every file of a site."""
    return {path.name: path.read_bytes() for path in sorted(site.iterdir())}


def pages_of(files: dict[str, bytes]) -> dict[str, Page]:
    """Every page of a site, read."""
    return {name: Page(data.decode()) for name, data in files.items() if name.endswith(".html")}


def board_of(files: dict[str, bytes], norm: str = "linf") -> str:
    """The text of the first board in a norm."""
    return next(data.decode() for name, data in sorted(files.items()) if name.endswith(f"-{norm}.html"))
