"""The catalogue in docs/health.md. `python tests/documentation/health_table.py` writes it anew."""

from pathlib import Path

from robench.health import CATALOGUE, LEAST_BACKWARDS, Indicator

PAGE = Path(__file__).parents[2] / "docs/health.md"
FIRST, LAST = "<!-- the catalogue, from robench/health -->\n", "<!-- end of the catalogue -->\n"


def line(one: Indicator) -> str:
    raised = f"more than {100 * one.share:g} %" if one.share else "any"
    raised += f", {one.count} at least" if one.count > 1 else ""
    raised += "" if one.decides else "; shown only"
    return f"| `{one.code}` | {one.measures} | {one.direction} {one.threshold:g} | {raised} | {one.source} |\n"


def table() -> str:
    parts = []
    for origin, title in (("probe", "Measured on the sample"), ("rows", "From the rows of several attacks")):
        rows = "".join(line(one) for one in CATALOGUE.values() if one.origin == origin)
        parts.append(
            f"\n**{title}**\n\n| indicator | figure | bad | raised by | source |\n|---|---|---|---|---|\n{rows}"
        )
    return "".join(parts) + f"\nGradient attacks count as having tried from {LEAST_BACKWARDS} backward passes on.\n\n"


def current() -> str:
    """The page with the catalogue as it is now."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(FIRST)
    return f"{before}{FIRST}{table()}{LAST}{rest.split(LAST)[1]}"


if __name__ == "__main__":
    PAGE.write_text(current(), encoding="utf-8")
