"""The pages in a real browser: no request but the page itself, nothing wider than the screen, readable in the dark."""

import shutil

import pytest

from oracles.evidence import fake_run, toy_runs
from robench.runs import find_runs
from robench_leaderboard import build

pytestmark = pytest.mark.browser

INF = float("inf")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for run in toy_runs(n=60):
        run.save(folder / "results")
    evil = "<script>document.title='owned'</script><img src=https://example.org/x onerror=\"document.title='owned'\">"
    hostile = fake_run(9, net=evil + "x" * 3000, n=60, dataset="digits", display={"name": evil}, eps=("1/16",))
    hostile.clean(dict.fromkeys(range(60), True))
    hostile.add("pgd:" + "y" * 2000, "attack", "linf", 1 / 16, dict.fromkeys(range(60), ("open", 0, INF)))
    hostile.save(folder / "results")
    build(find_runs(folder / "results"), folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield made
        made.close()


def opened(browser, page, **options):
    context = browser.new_context(**options)
    tab = context.new_page()
    tab.requests, tab.messages = [], []
    tab.on("request", lambda request: tab.requests.append(request.url))
    tab.on("console", lambda message: tab.messages.append(message.text))
    tab.on("pageerror", lambda error: tab.messages.append(str(error)))
    tab.goto(page.as_uri())
    return tab


def pages(site):
    return sorted(site.glob("*.html"))


@pytest.mark.parametrize("width", [360, 768, 1280, 2400])
def test_nothing_is_wider_than_the_screen_and_nothing_is_fetched(browser, site, width):
    for page in pages(site):
        tab = opened(browser, page, viewport={"width": width, "height": 900})
        for summary in tab.query_selector_all("summary"):
            summary.click()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.requests == [page.as_uri()]
        assert tab.messages == []
        assert "owned" not in tab.title()
        tab.context.close()


def test_pages_work_without_javascript(browser, site):
    page = next(site.glob("digits*.html"))
    tab = opened(browser, page, java_script_enabled=False)
    tab.locator("summary").first.click()
    assert tab.locator("details[open] table").first.is_visible()
    assert tab.locator("#h-eps-1-16").is_visible()


def luminance(css):
    channels = [int(part) / 255 for part in css.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_bars_stand_out_in_both_schemes(browser, site, scheme):
    tab = opened(browser, next(site.glob("digits*.html")), color_scheme=scheme)

    def style(selector, name):
        return tab.evaluate("([s, n]) => getComputedStyle(document.querySelector(s))[n]", [selector, name])

    paper = style("body", "backgroundColor")
    assert (luminance(paper) < 0.05) == (scheme == "dark")
    for selector in ("h1", ".name", ".note", "td small", "header a", ".jump a"):
        assert contrast(style(selector, "color"), paper) >= 4.5, selector
    track = style(".fill-track", "fill")
    for part in (".fill-certified", ".tick"):  # graphics: 3
        assert contrast(style(part, "fill" if part.startswith(".fill") else "stroke"), track) >= 3, part
    warning = ".flags li.blocking"
    assert contrast(style(warning, "color"), style(warning, "backgroundColor")) >= 4.5


def test_it_prints(browser, site):
    tab = opened(browser, next(site.glob("digits*.html")), color_scheme="dark")
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(tab.pdf()) > 10_000
