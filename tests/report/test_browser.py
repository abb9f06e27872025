"""The page in a real browser: quiet, alone, readable at every width, in light and in dark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from catdog.config.architectures import MODELS
from catdog.report import build
from catdog.storage import Location

pytestmark = pytest.mark.browser

#: Text smaller than 18.66 bold or 24 CSS pixels needs a contrast of 4.5 to 1 (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0.99) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || ['STYLE', 'SCRIPT', 'TITLE', 'title'].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const ink = parse(e instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName}.${e.getAttribute('class')} ${ratio.toFixed(2)}: `
      + e.textContent.trim().slice(0, 40));
  }
  return poor;
}"""


@dataclass
class Opened:
    page: Page
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(hostile_run: Any) -> Path:
    return build([Location.of(hostile_run.path)], price_per_hour=1.2).local_path


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Callable[..., Opened]]:
    """``opened(width=320, dark=True)`` opens the report and listens to what it says and asks."""
    contexts = []

    def open_page(width: int = 1100, *, dark: bool = False, script: bool = True) -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
        )
        contexts.append(context)
        page = context.new_page()
        seen = Opened(page)
        page.on("console", lambda message: seen.console.append(message.text))
        page.on("pageerror", lambda error: seen.console.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.goto(report.as_uri())
        return seen

    yield open_page
    for context in contexts:
        context.close()


def test_the_page_is_quiet_and_asks_for_nothing(
    opened: Callable[..., Opened], report: Path
) -> None:
    seen = opened()
    seen.page.wait_for_load_state("networkidle")
    assert seen.console == []
    outside = [url for url in seen.requests if not url.startswith("data:")]
    assert outside == [report.as_uri()]


def test_no_hostile_name_ran(opened: Callable[..., Opened]) -> None:
    page = opened().page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("window.hacked") is None
    assert "window.hacked=1" in page.inner_text("main")
    assert page.locator("script").count() == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 768, 1024, 1440, 1920])
def test_nothing_is_wider_than_the_window(
    opened: Callable[..., Opened], width: int, dark: bool
) -> None:
    page = opened(width, dark=dark).page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    scrolled = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => e.clientWidth"
        " && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX != 'visible'"
        " && getComputedStyle(e).position != 'absolute')"
        ".map(e => e.tagName + ' ' + e.className)"
    )
    assert scrolled == [], "these have scroll bars of their own or are cut"
    outside = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => {"
        " const r = e.getBoundingClientRect(); return r.width && r.right > innerWidth + 1"
        " && getComputedStyle(e).position != 'absolute' })"
        ".map(e => e.tagName + ' ' + e.textContent.trim().slice(0, 30))"
    )
    assert outside == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 1100])
def test_all_text_has_enough_contrast(
    opened: Callable[..., Opened], width: int, dark: bool
) -> None:
    page = opened(width, dark=dark).page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate(CONTRAST) == []


def test_dark_mode_is_dark(opened: Callable[..., Opened]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    shades = [
        sum(map(int, opened(dark=dark).page.evaluate(ground)[4:-1].split(",")[:3]))
        for dark in (False, True)
    ]
    assert shades[0] > 700
    assert shades[1] < 100


def test_series_differ_in_more_than_colour(opened: Callable[..., Opened]) -> None:
    page = opened().page
    dashes = page.evaluate(
        "[...document.querySelectorAll('#errors .plot')].at(0)"
        ".querySelectorAll('.line:not(.chance)').values()"
        ".map(e => getComputedStyle(e).strokeDasharray).toArray()"
    )
    assert len(dashes) == len(set(dashes)) == 3


def test_tables_are_sorted_by_a_click_on_a_heading(
    opened: Callable[..., Opened], report: Path
) -> None:
    page = opened().page
    table = page.locator("#cost table").first
    heading = table.get_by_role("columnheader", name="Parameters")

    def names() -> list[str]:
        return [name.strip() for name in table.locator("tbody th").all_inner_texts()]

    models = json.loads((report.parent / "report.json").read_text())["models"]
    by_size = sorted(models, key=lambda model: model["parameters"])
    expected = [MODELS[model["name"]].title for model in by_size]
    heading.get_by_role("button").click()
    assert names() == expected
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").click()
    assert names() == expected[::-1]
    assert heading.get_attribute("aria-sort") == "descending"


def test_tables_are_sorted_from_the_keyboard(opened: Callable[..., Opened]) -> None:
    page = opened().page
    button = page.locator("#cost th button").nth(1)
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator("#cost th").nth(1).get_attribute("aria-sort") == "ascending"


def test_unknown_values_stay_at_the_end(opened: Callable[..., Opened]) -> None:
    page = opened().page
    heading = page.locator("#sweep th", has_text="Validation accuracy")
    for _ in range(2):
        heading.locator("button").click()
        assert page.locator("#sweep tbody tr").last.locator("td").first.inner_text().strip() == "—"


def test_without_scripts_the_page_is_whole(opened: Callable[..., Opened]) -> None:
    page = opened(script=False).page
    assert page.locator("section").count() == 11
    assert page.locator("#verdict").is_visible()


def test_contents_stand_beside_the_page_where_there_is_room(opened: Callable[..., Opened]) -> None:
    beside, above = opened(1920).page, opened(1000).page
    box, text = beside.locator("nav ul").bounding_box(), beside.locator("main").bounding_box()
    assert box is not None
    assert text is not None
    assert box["x"] + box["width"] <= text["x"]
    box, text = above.locator("nav ul").bounding_box(), above.locator("main").bounding_box()
    assert box is not None
    assert text is not None
    assert box["y"] + box["height"] <= text["y"]


def test_it_prints(opened: Callable[..., Opened], tmp_path: Path) -> None:
    page = opened(dark=True).page
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    pages = paper.count(b"/Type /Page\n") or paper.count(b"/Type /Page")
    assert 3 <= pages <= 30
