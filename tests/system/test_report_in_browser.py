# SPDX-License-Identifier: Apache-2.0
"""The report in a real browser, at the width of a desk and of a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from results_made import made_results
from septet.report.page import page

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)", allow_module_level=True)

webdriver = pytest.importorskip("selenium.webdriver")

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))
    yield driver
    driver.quit()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_whole(browser: Any, width: int, scheme: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(made_results()))
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    browser.get(path.as_uri())

    assert browser.title == "Septet report: resnet50"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    pictures = browser.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => [s.clientWidth, s.clientHeight])"
    )
    assert len(pictures) == 7
    assert all(w > 250 and h > 40 for w, h in pictures)
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground.strip("rgb()").split(","))) < 200) == (scheme == "dark")
    assert _overlapping_labels(browser) == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def _overlapping_labels(browser: Any) -> list[list[str]]:
    """Pairs of axis labels of one picture that lie over each other."""
    found: list[list[str]] = browser.execute_script(
        """
        const pairs = [];
        for (const svg of document.querySelectorAll('svg')) {
            const labels = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
            for (const [i, [a, p]] of labels.entries())
                for (const [b, q] of labels.slice(i + 1))
                    if (p.left < q.right - 1 && q.left < p.right - 1 &&
                        p.top < q.bottom - 2 && q.top < p.bottom - 2)
                        pairs.push([a, b]);
        }
        return pairs;
        """
    )
    return found


def test_the_details_open(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(made_results()))
    browser.get(path.as_uri())
    summary = browser.find_element("css selector", "details > summary")
    body = browser.find_element("css selector", "details > dl")
    assert not body.is_displayed()
    summary.click()
    assert body.is_displayed()
    assert "LoadGen" in body.text
