"""What the demo makes of hostile or huge input and of a crowd, in a real Chromium."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.browser_fixtures import Page, needs_browser
from tests.demo_fixtures import INTENTS, SPOKEN, serving

HOSTILE = "open my window <script>window.hit=1</script><img src=x onerror=window.hit=1> ${window.hit=1} {{hit}}"
pytest_plugins = ["tests.browser_fixtures", "tests.demo_fixtures"]
pytestmark = needs_browser


@pytest.fixture(scope="module")
def server(demo_repository: Path) -> Iterator[str]:
    with serving(demo_repository, "--max-characters", "200", "--max-upload-mib", "1") as url:
        yield url


@pytest.fixture
def page(browser: webdriver.Chrome, server: str) -> Page:
    return Page(browser, server)


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


def test_a_megabyte_of_text_gets_a_clear_message(page: Page) -> None:
    page.browser.execute_script(
        "const box = document.querySelector('#text input, #text textarea'); box.value = 'x'.repeat(1_000_000);"
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


def event_of(server: str, elem_id: str, event: str) -> int:
    """Return the number under which the page knows what `event` of a component does."""
    config = httpx.get(f"{server}/config", timeout=60).json()
    ids = {one["id"] for one in config["components"] if one["props"].get("elem_id") == elem_id}
    return next(
        one["id"]
        for one in config["dependencies"]
        if any(target in ids and name == event for target, name in one["targets"])
    )


def join(server: str, event: int, data: list[object], session: str) -> httpx.Response:
    """Do what the page does when somebody asks: stand in its queue."""
    body = {"data": data, "fn_index": event, "session_hash": session}
    return httpx.post(f"{server}/gradio_api/queue/join", json=body, timeout=60)


def messages(server: str, session: str) -> list[dict[str, object]]:
    """Return what the page is told until the answer is there."""
    found: list[dict[str, object]] = []
    with httpx.stream("GET", f"{server}/gradio_api/queue/data?session_hash={session}", timeout=120) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                found.append(json.loads(line.removeprefix("data:")))
                if found[-1]["msg"] in ("process_completed", "close_stream"):
                    break
    return found


def test_fifty_clients_at_once_are_told_their_place_and_answered_each_with_its_own(page: Page, server: str) -> None:
    event = event_of(server, "text", "submit")

    def ask(client: int) -> list[dict[str, object]]:
        text, _ = SPOKEN[client % len(SPOKEN)]
        assert join(server, event, [f"{text} {client}", "workspace", ""], f"client{client}").status_code == 200
        return messages(server, f"client{client}")

    with ThreadPoolExecutor(50) as clients:
        asked = [clients.submit(ask, client) for client in range(50)]
        page.ask("open my window")  # one more, in the browser
        page.wait("#answers .card.act", "driver_window_down")
        told = [one.result() for one in asked]
    for client, found in enumerate(told):
        text, label = SPOKEN[client % len(SPOKEN)]
        assert found[-1]["msg"] == "process_completed" and found[-1]["success"]
        answer = found[-1]["output"]["data"][0]
        assert f"{text} {client}&rdquo;" in answer and f'<span class="intent">{INTENTS[label]}</span>' in answer
    assert max(one["rank"] for found in told for one in found if one["msg"] == "estimation") > 0


def test_who_finds_the_queue_full_is_told_to_come_again(browser: webdriver.Chrome, demo_repository: Path) -> None:
    # To answer it must outlast the toast.
    long_file = ("said.csv", "text\n" + "open my window please\n" * 40_000, "text/csv")
    limits = ["--queue", "1", "--max-rows", "1000000", "--max-upload-mib", "50"]
    with serving(demo_repository, *limits) as url:
        page = Page(browser, url)
        page.ask("open my window")
        page.wait("#answers .card.act")
        [path] = httpx.post(f"{url}/gradio_api/upload", files={"files": long_file}, timeout=60).json()
        upload = {"path": path, "meta": {"_type": "gradio.FileData"}}
        event = event_of(url, "start", "click")
        for client in ("answered", "waiting"):
            assert join(url, event, [upload, "text", "workspace"], client).status_code == 200
            time.sleep(0.5)  # the first leaves the queue when it is begun
        page.ask("start the wipers")
        assert "busy" in page.wait(".toast-body").text
        assert "Traceback" not in page.browser.page_source
