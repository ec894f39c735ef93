"""Reports as Chromium shows them, at the widths of a phone and a desk, light and dark."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.models.page import compare_page
from jobs.make_report import write_index, write_report
from tests.fixtures.report_runs import compared_runs, make_run

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "report-screenshots"
SECTIONS = ("verdict", "metrics", "curves", "calibration", "spaces", "slices", "training", "data", "run")
EVERYTHING = {"truth": True, "against": True, "slices": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError("chromium: not found. sudo apt-get install -y --no-install-recommends chromium")
    with sync_playwright() as driver:
        # Chromium's sandbox refuses root, and the pages are our own.
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of all that there can be, of a run without clicks, and over both."""
    folder = tmp_path_factory.mktemp("runs")
    full = make_run(folder / "1 full", **EVERYTHING)
    bare = make_run(folder / "2 without clicks", clicks=False, truth=True, slices=True)
    found = {"report": Path(write_report(str(full), [])), "undefined": Path(write_report(str(bare), []))}
    compared = folder / "compare.html"
    compared.write_text(compare_page(compared_runs(), "{}", {"esmm": "ESMM", "base": "BASE"}, "A note."))
    return found | {"index": Path(write_index(str(folder))), "compare": compared}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["report", "undefined", "index", "compare"])
def test_page(browser: Browser, pages: dict[str, Path], name: str, width: int, theme: str):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}-{width}-{theme}.png", full_page=True)
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [pages[name].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for section in SECTIONS if name == "report" else ():
        assert page.locator(f"section#{section}").is_visible()
    check_accessible(page)
    page.close()


def check_accessible(page: Page) -> None:
    """With every fold open, as what is hidden is not looked at."""
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    violations = Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:200], one["help"]) for one in violations] == []
