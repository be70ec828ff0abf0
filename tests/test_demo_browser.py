"""The demo as a person meets it, in a real Chromium."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.demo_fixtures import INTENTS, serving, shared_repository

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
HOSTILE = "open my window <script>window.hit=1</script><img src=x onerror=window.hit=1> ${window.hit=1} {{hit}}"
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser here: apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(
        shared_repository(tmp_path_factory.getbasetemp()), "--max-characters", "200", "--max-upload-mib", "1"
    ) as url:
        yield url


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
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

        return WebDriverWait(self.browser, 60, ignored_exceptions=[StaleElementReferenceException]).until(
            find, f"no {selector} with {containing!r}"
        )

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

    def open_tab(self, name: str) -> None:
        self.wait("button[role=tab]", name).click()


@pytest.fixture
def page(browser: webdriver.Chrome, server: str) -> Page:
    return Page(browser, server)


def test_typing_shows_the_intent_every_bar_the_action_and_the_latency(page: Page) -> None:
    page.ask("open my window")
    card = page.wait("#answers .card.act", "driver_window_down")
    assert "The car acts" in card.text and "needs 50 %" in card.text and " ms" in card.text
    assert "Not calibrated: plain softmax" in card.text
    bars = card.find_elements(By.CSS_SELECTOR, ".line")
    assert {bar.get_attribute("data-intent") for bar in bars} == set(INTENTS)
    widths = [bar.find_element(By.CSS_SELECTOR, "i").size["width"] for bar in bars]
    assert widths[0] > 10 * widths[1]


def test_clicking_an_example_asks_it(page: Page) -> None:
    example = page.wait(".examples button", "the window is open")
    example.click()
    assert "The car does nothing" in page.wait("#answers .card.leave", "no_intent").text
    box = page.wait("#text input, #text textarea")
    assert box.get_attribute("value") == "the window is open"


def test_two_classifiers_answer_side_by_side_and_one_asks_again(page: Page) -> None:
    page.ask("open my window")
    page.wait("#answers .card.act")
    page.choose("second", "swapped")
    assert "windshield_wipers_on" in page.wait('#answers .card[data-classifier="swapped"]').text
    assert "The two classifiers disagree" in page.wait("#answers").text
    page.choose("second", "careful")
    card = page.wait('#answers .card.ask[data-classifier="careful"]')
    assert "The car asks again" in card.text and "only" in card.text and "99.99 %" in card.text


def test_an_unknown_classifier_is_explained(page: Page) -> None:
    page.ask("open my window")
    page.wait("#answers .card.act")
    page.choose("first", "<img src=x onerror=window.hit=1>")
    assert "<img src=x onerror=window.hit=1>" in page.wait("#answers .problem", "No branch, tag").text
    assert page.browser.execute_script("return window.hit === undefined")


def test_the_matrix_is_that_of_the_chosen_classifier(page: Page) -> None:
    page.open_tab("How good")
    assert "88.9 % right" in page.wait('.matrix-card[data-classifier="workspace"]').text
    page.choose("first", "swapped")
    card = page.wait('.matrix-card[data-classifier="swapped"]')
    assert "66.7 % right" in card.text
    cells = [cell.text for cell in card.find_elements(By.CSS_SELECTOR, "td")]
    assert cells == ["3", "·", "·", "·", "3", "·", "·", "3", "·"]


def test_a_file_comes_back_with_answers(page: Page, downloads: Path, tmp_path: Path) -> None:
    source = tmp_path / "said.csv"
    source.write_text(f'id,text\n7,open my window\n8,\n9,"{HOSTILE}"\n', encoding="utf-8")
    page.open_tab("A whole file")
    page.browser.find_element(By.CSS_SELECTOR, "#upload input[type=file]").send_keys(str(source))
    page.wait("#upload", "said")
    page.wait("#start").click()
    assert "2 of 3 rows answered" in page.wait("#batch-summary").text
    page.wait("#download").click()
    target = downloads / "said-answered.csv"
    WebDriverWait(page.browser, 30).until(lambda _: target.exists())
    rows = target.read_text(encoding="utf-8").splitlines()
    assert rows[0] == "id,text,intent,confidence,action,reason"
    assert rows[1].startswith("7,open my window,driver_window_down,0.9") and rows[1].endswith(",act,")
    assert rows[2].startswith("8,,,,,there is no text")
    assert page.browser.execute_script("return window.hit === undefined")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x89PNG\r\n\x1a\n\x00\xff", "not text in UTF-8"), (b"text\n" + b"hello there\n" * 100_000, "exceed")],
    ids=["binary", "too large"],
)
def test_a_file_that_cannot_be_answered_is_explained(page: Page, tmp_path: Path, content: bytes, message: str) -> None:
    source = tmp_path / "photo.csv"
    source.write_bytes(content)
    page.open_tab("A whole file")
    page.browser.find_element(By.CSS_SELECTOR, "#upload input[type=file]").send_keys(str(source))
    if message == "not text in UTF-8":
        page.wait("#upload", "photo")
        page.wait("#start").click()
        page.wait("#summary .problem", message)
    else:
        page.wait(".toast-body", message)
    assert "Traceback" not in page.browser.page_source


def test_script_in_the_text_is_shown_and_not_run(page: Page) -> None:
    page.ask(HOSTILE)
    page.wait("#answers .card")
    assert HOSTILE in page.wait("#answers .said").text
    assert page.browser.execute_script("return window.hit === undefined")
    assert not page.browser.find_elements(By.CSS_SELECTOR, "#answers img, #answers script")


def test_ten_megabytes_of_text_get_a_clear_message(page: Page) -> None:
    page.browser.execute_script(
        "const box = document.querySelector('#text input, #text textarea'); box.value = 'x'.repeat(10_000_000);"
        "box.dispatchEvent(new Event('input', {bubbles: true}));"
    )
    page.wait("#text .submit-button").click()
    page.wait("#answers .problem", "longer than 200 characters")
    page.ask("open my window")
    page.wait("#answers .card.act", "driver_window_down")


def test_the_page_asks_no_other_host_for_anything(browser: webdriver.Chrome, server: str) -> None:
    browser.get_log("performance")
    page = Page(browser, server)
    page.ask("open my window")
    page.wait("#answers .card")
    for tab in ("A whole file", "How good", "From a program"):
        page.open_tab(tab)
    page.wait("pre", "curl")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in messages if entry["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 10
    assert {urlsplit(url).netloc for url in asked if urlsplit(url).scheme != "data"} == {urlsplit(server).netloc}
