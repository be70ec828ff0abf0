"""A real Chromium, and what a person does in it on the demo's page; a plugin of pytest (PYTEST_DONT_REWRITE)."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1200,1000",
]
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser here: apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.binary_location = str(CHROMIUM)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


class Page:
    """What a person does on the page, and sees there."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        browser.get(url)
        self.wait("#text input, #text textarea")

    def wait(self, selector: str, containing: str = "") -> WebElement:
        def find(browser: webdriver.Chrome) -> WebElement | None:
            found = browser.find_elements(By.CSS_SELECTOR, selector)
            return next((one for one in found if one.is_displayed() and containing in one.text), None)

        return WebDriverWait(
            self.browser, 60, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException]
        ).until(find, f"no {selector} with {containing!r}")

    def ask(self, text: str) -> None:
        box = self.wait("#text input, #text textarea")
        box.clear()
        box.send_keys(text, Keys.ENTER)

    def choose(self, chooser: str, name: str) -> None:
        box = self.wait(f"#{chooser} input")
        box.click()
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(Keys.NULL, name, Keys.ENTER)
        box.send_keys(Keys.TAB)

    def pick(self, chooser: str, label: str) -> None:
        self.wait(f"#{chooser} input").click()
        self.wait("ul[role=listbox] li", label).click()

    def open_tab(self, name: str) -> None:
        self.wait("button[role=tab]", name).click()
