"""The pages in a real browser: accessible, self-contained, usable by mouse and keyboard, readable at any width."""

import json
import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe

from oracles.bounds import fake_bound
from oracles.evidence import fake_run, probed_run, toy_runs
from robench.runs import Display, Flag, find_runs
from robench_leaderboard import build

pytestmark = pytest.mark.browser

INF = float("inf")
EVIL = "<script>document.title='owned'</script><img src=https://example.org/x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for run in toy_runs(n=60)[:3]:
        run.save(folder / "results")
    hostile = fake_run(9, net=EVIL + "x" * 3000, n=60, dataset="digits", eps=("1/16", "1/8"))
    hostile.manifest = hostile.manifest.replace(
        display=Display(name=EVIL, paper="javascript:alert(1)", licence="y" * 500, more={"note": "z" * 10_000}),
        flags=(Flag(code="x" * 60, text=EVIL),),
        source="https://example.org/" + "w" * 400,
    )
    hostile.clean(dict.fromkeys(range(60), True))
    hostile.add("pgd:" + "y" * 2000, "attack", "linf", 1 / 16, {0: ("error", 0, INF), 1: ("open", 0, INF)})
    hostile.save(folder / "results")
    probed_run(10, "masked", bad={"blackbox-stronger": 0.2}, dataset="other").save(folder / "results")
    bound = fake_bound({"1/16": 0.9, "1/8": 0.4, "0.2": 0.1}, dataset="digits", samples=range(60))
    build(find_runs(folder / "results"), folder / "site", [bound])
    return folder / "site"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def opened(browser):
    contexts = []

    def open_page(page, fragment="", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        tab = context.new_page()
        tab.requested, tab.said = [], []
        tab.on("request", lambda request: tab.requested.append(request.url))
        tab.on("console", lambda message: tab.said.append(message.text))
        tab.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.goto(page.as_uri() + fragment)
        return tab

    yield open_page
    for context in contexts:
        context.close()


def board(site):
    return next(site.glob("digits*-linf.html"))


def names(tab):
    """Names of the rows that can be seen, in their order."""
    return [name.inner_text() for name in tab.locator("section.board tbody tr .name").all() if name.is_visible()]


OPEN = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_is_fetched(site, opened, scheme):
    pages = sorted(site.glob("*.html"))
    assert len(pages) >= 9
    for page in pages:
        tab = opened(page, color_scheme=scheme)
        tab.evaluate(OPEN)
        for width in (360, 1280):
            tab.set_viewport_size({"width": width, "height": 900})
            found = Axe().run(tab).response["violations"]
            assert [(one["id"], one["nodes"][0]["html"][:300]) for one in found] == [], (page.name, width)
        assert [url for url in tab.requested if not url.startswith("data:")] == [page.as_uri()]
        assert tab.said == []
        assert tab.title() != "owned"
        tab.context.close()


def test_nothing_is_wider_than_the_screen(site, opened):
    for page in sorted(site.glob("*.html")):
        tab = opened(page)
        for state in ("closed", "open"):
            for width in (360, 768, 1024, 1280, 2400):
                tab.set_viewport_size({"width": width, "height": 900})
                assert tab.evaluate("document.documentElement.scrollWidth") <= width, (page.name, width, state)
            tab.evaluate(OPEN)
        tab.context.close()


def test_a_budget_is_chosen_by_mouse_and_kept_in_the_address(site, opened):
    tab = opened(board(site))
    assert [section.get_attribute("id") for section in tab.locator("section.board").all() if section.is_visible()] == [
        "eps-1-16"  # the first of those that all classifiers were asked at
    ]
    tab.locator(".choice label", has_text="0.2").click()
    assert tab.locator("#eps-0\\.2").is_visible()
    assert not tab.locator("#eps-1-16").is_visible()
    assert tab.url.endswith("#eps-0.2")
    again = opened(board(site), "#eps-1-8")
    assert again.locator("#eps-1-8").is_visible()
    assert again.get_by_role("radio", name="1/8").is_checked()
    again.evaluate("location.hash = '#eps-0.2'")
    again.locator("#eps-0\\.2").wait_for(state="visible")
    again.evaluate("location.hash = '#main'")  # an anchor of something else changes nothing
    assert again.locator("#eps-0\\.2").is_visible()


def test_going_back_the_board_shows_what_its_controls_say(site, opened):
    tab = opened(board(site))
    tab.locator(".choice label", has_text="1/8").click()
    tab.get_by_role("checkbox").check()
    tab.get_by_role("searchbox", name="Filter").fill("adversarial")
    tab.locator("section.board:not(.off) a.name:visible").first.click()
    tab.wait_for_url("**/mlp*.html")
    tab.go_back()
    tab.locator("#eps-1-8").wait_for(state="visible")
    rankable = tab.locator("section.board:not(.off) tbody tr[data-rankable]").count()
    assert 0 < rankable < 4
    words, only = tab.get_by_role("searchbox", name="Filter").input_value(), tab.get_by_role("checkbox").is_checked()
    wanted = 1 if words else rankable if only else 4
    assert len(names(tab)) == wanted
    assert tab.get_by_role("radio", name="1/8").is_checked()


def test_an_address_without_a_budget_shows_the_usual_one(site, opened):
    tab = opened(board(site))
    tab.evaluate("location.hash = '#eps-1-8'")
    tab.locator("#eps-1-8").wait_for(state="visible")
    tab.go_back()
    tab.locator("#eps-1-16").wait_for(state="visible")
    assert tab.locator("section.board:visible").count() == 1
    assert tab.get_by_role("radio", name="1/16").is_checked()


@pytest.mark.parametrize("fragment", ["#%", "#%E0%A4%A", "#%65ps-0.2", '#"><script>', "#eps-9"])
def test_a_broken_address_shows_the_usual_budget(site, opened, fragment):
    tab = opened(board(site), fragment)
    assert tab.locator("section.board:visible").get_attribute("id") == "eps-1-16"
    assert tab.get_by_role("status").inner_text() == "4 shown"
    assert tab.said == []


def test_a_budget_is_chosen_by_keyboard(site, opened):
    tab = opened(board(site))
    for _ in range(40):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.type") == "radio":
            break
    assert tab.evaluate("document.activeElement.value") == "eps-1-16"
    outline = "getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
    assert tab.evaluate(outline) == "solid"
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#eps-0\\.2").is_visible()
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#eps-1-8").is_visible()
    assert tab.url.endswith("#eps-1-8")


def column(tab, label):
    texts = tab.locator(f"section.board:not(.off) td[data-label='{label}']").all_inner_texts()
    return [float(found[0]) if (found := re.findall(r"[0-9.]+", text.removeprefix(label))) else None for text in texts]


@pytest.mark.parametrize("label", ["certified", "empirical", "open", "clean", "passes"])
def test_rows_sort_by_every_column_both_ways(site, opened, label):
    tab = opened(board(site), "#eps-1-16")
    head = tab.locator("section.board:not(.off) th", has=tab.get_by_role("button", name=label))
    cell = "passes a sample" if label == "passes" else label
    before = names(tab)
    seen = []
    for _ in range(2):
        head.get_by_role("button").click()
        values = column(tab, cell) if label != "passes" else [
            float(td.get_attribute("data-value")) for td in tab.locator("section.board:not(.off) td.c-cost").all()
        ]  # fmt: skip
        known = [value for value in values if value is not None]
        way = head.get_attribute("aria-sort")
        assert known == sorted(known, reverse=way == "descending")
        assert values == [*known, *[None] * (len(values) - len(known))]  # what is missing comes last
        assert tab.locator("section.board:not(.off) th[aria-sort]").count() == 1
        seen.append(way)
    assert sorted(seen) == ["ascending", "descending"]
    assert sorted(names(tab)) == sorted(before)


def test_sorting_by_name_is_by_keyboard_too_and_stays_for_another_budget(site, opened):
    tab = opened(board(site), "#eps-1-16")
    button = tab.locator("section.board:not(.off)").get_by_role("button", name="classifier")
    button.focus()
    tab.keyboard.press("Enter")
    ascending = names(tab)
    assert ascending[1:] == sorted(ascending[1:], key=str.lower)
    tab.keyboard.press("Space")
    assert names(tab) == ascending[::-1]
    assert tab.evaluate("document.activeElement.textContent") == "classifier"
    tab.get_by_role("radio", name="1/8").check(force=True)
    assert names(tab) == ascending[::-1]
    assert tab.locator("section.board:not(.off) thead th.c-name").get_attribute("aria-sort") == "descending"


def test_sorting_is_stable(site, opened):
    """Rows of equal value keep the order of the ranking: here all ceilings, or all sample numbers, are equal."""
    tab = opened(board(site), "#eps-0.2")
    before = names(tab)
    tab.evaluate("document.querySelectorAll('td.c-open').forEach((cell) => { cell.dataset.value = '7'; })")
    for _ in range(2):
        tab.locator("section.board:not(.off)").get_by_role("button", name="open").click()
        assert names(tab) == before


def test_rows_are_filtered_and_counted_aloud(site, opened):
    tab = opened(board(site), "#eps-1-16")
    status = tab.get_by_role("status")
    assert status.inner_text() == "4 shown"
    field = tab.get_by_role("searchbox", name="Filter")
    for text, left in (("INTERVAL", 1), ("mlp adversarial", 1), ("errors", 1), ("measured", 4), ("nobody", 0)):
        field.fill(text)
        assert len(names(tab)) == left, text
        assert status.inner_text() == f"{left} of 4 shown" if left < 4 else "4 shown"
    field.fill("")
    only = tab.get_by_role("checkbox")
    only.focus()
    tab.keyboard.press("Space")
    assert len(names(tab)) == 3
    assert not [name for name in names(tab) if "script" in name]
    assert status.get_attribute("role") == "status"


def test_a_flag_opens_to_its_meaning_by_keyboard(site, opened):
    tab = opened(board(site), "#eps-1-16")
    chip = tab.locator("section.board:not(.off) .flags li.blocking summary").first
    text = chip.locator("xpath=..").locator("p")
    assert not text.is_visible()
    chip.focus()
    tab.keyboard.press("Enter")
    assert text.is_visible()
    assert "not ranked" in text.inner_text()


def test_without_javascript_every_section_and_figure_is_there(site, opened):
    text = ""
    for page in sorted(site.glob("*.html")):
        tab = opened(page, java_script_enabled=False)
        assert tab.locator(".tools:visible").count() == 0
        assert tab.locator("th button").count() == 0
        assert tab.locator("section:visible").count() == tab.locator("section").count()
        text += " ".join(tab.locator("main").text_content().split())
    for entry in json.loads((site / "results.json").read_text())["results"]:
        for key in ("clean_accuracy", "certified_accuracy", "empirical_accuracy", "ceiling"):
            if entry[key] is not None:
                assert f"{100 * entry[key]:.1f} %" in text
    tab = opened(board(site), java_script_enabled=False)
    tab.locator(".jump a", has_text="0.2").click()
    assert tab.url.endswith("#eps-0.2")


def luminance(css):
    channels = [int(part) / 255 for part in re.findall(r"[0-9]+", css)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_parts_of_a_bar_stand_out_in_both_schemes(site, opened, scheme):
    """Graphics need a contrast of 3 (WCAG 1.4.11); neighbours differ by pattern and in luminance too."""
    tab = opened(board(site), color_scheme=scheme)

    def colour(name):
        code = "(name) => { const one = document.createElement('i'); one.style.color = `var(--${name})`; "
        return tab.evaluate(code + "document.body.append(one); return getComputedStyle(one).color; }", name)

    paper, track = colour("paper"), colour("track")
    assert (luminance(paper) < 0.05) == (scheme == "dark")
    for name in ("certified", "ink", "ceiling"):
        assert contrast(colour(name), track) >= 3, name
        assert contrast(colour(name), paper) >= 3, name
    assert contrast(colour("broken"), colour("broken-ground")) >= 2.5  # the dots
    assert contrast(colour("open"), colour("open-ground")) >= 2  # the hatching
    assert contrast(colour("certified"), colour("open-ground")) >= 3
    assert contrast(colour("ceiling"), colour("broken-ground")) >= 2.5
    for name in ("ink", "muted", "accent"):
        assert contrast(colour(name), paper) >= 4.5, name


def test_it_prints_every_section_without_controls(site, opened):
    tab = opened(board(site), color_scheme="dark")
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert all(section.is_visible() for section in tab.locator("section.board").all())
    assert not tab.locator(".controls").is_visible()
    certified = tab.evaluate("getComputedStyle(document.querySelector('.fill-certified')).fill")
    assert contrast(certified, "rgb(255, 255, 255)") > 4.5
    assert len(tab.pdf()) > 10_000
