"""The demo as a person meets it, in a real Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser_fixtures import Page, needs_browser
from tests.demo_fixtures import COLUMN, EXAMPLE, INTENTS, TITLE, serving

HOSTILE = "open my window <script>window.hit=1</script>"
pytest_plugins = ["tests.browser_fixtures", "tests.demo_fixtures"]
pytestmark = needs_browser


@pytest.fixture(scope="module")
def server(demo_repository: Path) -> Iterator[str]:
    with serving(demo_repository) as url:
        yield url


@pytest.fixture
def page(browser: webdriver.Chrome, server: str) -> Page:
    return Page(browser, server)


def test_typing_shows_the_intent_every_bar_the_action_and_the_latency(page: Page) -> None:
    page.ask("open my window")
    card = page.wait("#answers .card.act", "driver_window_down")
    assert "It acts" in card.text and "needs 50 %" in card.text and " ms" in card.text
    assert "Not calibrated: plain softmax" in card.text
    bars = card.find_elements(By.CSS_SELECTOR, ".line")
    assert {bar.get_attribute("data-intent") for bar in bars} == set(INTENTS)
    widths = [bar.find_element(By.CSS_SELECTOR, "i").size["width"] for bar in bars]
    assert widths[0] > 10 * widths[1]


def test_answers_are_read_aloud_and_bars_are_wide_on_a_narrow_screen(page: Page) -> None:
    assert page.wait("#answers").get_attribute("aria-live") == "polite"
    size = page.browser.get_window_size()
    try:
        page.browser.set_window_size(420, 900)
        page.ask("open my window")
        card = page.wait("#answers .card.act", "driver_window_down")
        bar, label = (card.find_element(By.CSS_SELECTOR, f".line .{part}") for part in ("bar", "label"))
        assert bar.size["width"] > 0.7 * card.size["width"]
        assert bar.location["y"] > label.location["y"]
    finally:
        page.browser.set_window_size(size["width"], size["height"])


def test_the_page_speaks_of_the_data_that_it_is_set_for(page: Page) -> None:
    assert page.browser.title == page.wait(".masthead h1").text == TITLE
    assert page.wait("#text input, #text textarea").get_attribute("placeholder") == EXAMPLE
    page.open_tab("A whole file")
    assert page.wait("#column input, #column textarea").get_attribute("value") == COLUMN["text_column"]


def test_clicking_an_example_asks_it(page: Page) -> None:
    example = page.wait(".examples button", "the window is open")
    example.click()
    assert "It does nothing" in page.wait("#answers .card.leave", "no_intent").text
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
    assert "It asks again" in card.text and "only" in card.text and "99.99 %" in card.text


def test_an_onnx_variant_answers_beside_the_checkpoint(page: Page) -> None:
    page.ask("open my window")
    page.wait("#answers .card.act")
    page.pick("second", "workspace (ONNX, int8)")
    card = page.wait('#answers .card.act[data-classifier="onnx-int8"]', "driver_window_down")
    assert "needs 60 %" in card.text and "Calibrated" in card.text and " ms" in card.text
    assert "Both classifiers would do the same" in page.wait("#answers").text
    page.pick("first", "workspace (ONNX, fp32)")
    page.wait('#answers .card.act[data-classifier="onnx-fp32"]', "driver_window_down")
    cards = page.browser.find_elements(By.CSS_SELECTOR, ".card.act")
    assert [card.get_attribute("data-classifier") for card in cards] == ["onnx-fp32", "onnx-int8"]


def test_a_choosers_list_closes_where_one_tabs_past_it_and_a_click_in_it_chooses(page: Page) -> None:
    chooser = page.wait("#second input")
    chooser.click()
    page.wait("#second ul")
    chooser.send_keys(Keys.TAB)
    WebDriverWait(page.browser, 10).until(lambda browser: not browser.find_elements(By.CSS_SELECTOR, "#second ul"))
    chooser.click()
    page.wait("#second li", "ONNX, int8").click()
    page.wait("#text input, #text textarea").click()
    assert chooser.get_attribute("value") == "workspace (ONNX, int8)"


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
    source.write_text(f'id,said\n7,open my window\n8,\n9,"{HOSTILE}"\n', encoding="utf-8")
    page.open_tab("A whole file")
    page.browser.find_element(By.CSS_SELECTOR, "#upload input[type=file]").send_keys(str(source))
    page.wait("#upload", "said")
    page.wait("#start").click()
    assert "2 of 3 rows answered" in page.wait("#batch-summary").text
    page.wait("#download").click()
    target = downloads / "said-answered.csv"
    WebDriverWait(page.browser, 30).until(lambda _: target.exists())
    rows = target.read_text(encoding="utf-8").splitlines()
    assert rows[0] == "id,said,intent,confidence,action,reason"
    assert rows[1].startswith("7,open my window,driver_window_down,0.9") and rows[1].endswith(",act,")
    assert rows[2].startswith("8,,,,,there is no text")
    assert page.browser.execute_script("return window.hit === undefined")
