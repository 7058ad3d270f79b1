"""A report in a real browser, where there is one."""

import shutil

import pytest

from litscale.cli.report.page import Selection, report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.mark.skipif(BROWSER is None, reason=f"there is none of {', '.join(NAMES)}")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_report_fits_the_window_plays_and_has_no_errors(make_run, tmp_path, width):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    path = tmp_path / "report.html"
    path.write_text(report([make_run("demo"), make_run("other")], Selection()))
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        errors, requests = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function("[...document.querySelectorAll('audio')].every(sound => sound.readyState >= 1)")
        lengths = page.evaluate("[...document.querySelectorAll('audio')].map(sound => sound.duration)")
        wide = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert lengths == pytest.approx([100 / 8000] * len(lengths), abs=1e-3)
    assert lengths
    assert wide <= width
    assert not errors
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}
