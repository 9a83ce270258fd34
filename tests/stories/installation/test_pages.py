"""The pages a person opens, in a real browser: whole, without errors, without anything from outside."""

import json
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from tests.stories.installation.conftest import Installation

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.mark.parametrize(
    ("path", "heading"),
    [
        ("/docs", "Référence REST"),
        ("/", "Référence REST"),
        ("/problems", "Problèmes"),
        ("/problems/bad-token", "Jeton"),
        ("/registers", "Registres"),
        ("/expiring", "Échéances"),
        ("/registers/runs/1", "Passage 1"),
    ],
)
@pytest.mark.parametrize("width", [1200, 390])
def test_a_page_renders_whole_and_by_itself(
    installation: Installation, browser: webdriver.Chrome, path: str, heading: str, width: int
) -> None:
    browser.set_window_size(width, 900)
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(installation.web + path)
    assert heading in browser.find_element(By.TAG_NAME, "h1").text
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
    asked = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith(installation.web) for url in urls)
    # The browser's own pages (chrome://) are its business; anything over a network is ours.
    assert all(url.startswith(installation.web) for url in urls if url.startswith("http")), urls
    # On a telephone the page itself never scrolls sideways; wide tables do, inside their own box.
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(overflow) <= 0
    if path == "/expiring":
        # Its two narrow columns say what is wrong: they must not hide behind the first.
        wide = "return [...document.querySelectorAll('table')].map(t => t.scrollWidth - t.clientWidth)"
        assert max(browser.execute_script(wide), default=0) <= 0
