"""The demo without a server: decisions, files, examples, and the queue."""

import csv
import gc
import re
import shutil
import threading
import weakref
from dataclasses import replace
from html import unescape
from pathlib import Path

import anyio
import httpx
import pytest

from apps.demo.answering import _why, answer
from apps.demo.batch import answer_file
from apps.demo.catalogue import Catalogue, Loaded
from apps.demo.limits import Busy, Gate
from apps.demo.rendering import render
from apps.demo.showcase import confusion_of, examples_of
from intents.bulk.torch_scoring import TorchScorer
from tests.demo_fixtures import INTENTS, LIMITS, SPOKEN, UNSURE, make_classifier, make_predictions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    make_classifier(folder, INTENTS)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return Loaded("workspace", TorchScorer(folder, num_threads=1), is_calibrated=False)


def test_acts_only_on_answers_at_least_as_sure_as_the_threshold(loaded: Loaded) -> None:
    confidence = answer(loaded, "open my window", 0.5).confidence
    assert answer(loaded, "open my window", confidence).action == "act"
    asked = answer(loaded, "open my window", confidence + 1e-6)
    assert asked.action == "ask" and "only" in asked.why
    assert answer(loaded, "call my mother", 0.5).action == "leave"
    assert "Not calibrated: plain softmax" in asked.calibration


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(ValueError, match="not valid Unicode"):
        LIMITS.check_text("\ud800 open")


def test_answers_of_a_file_stay_beside_their_rows(loaded: Loaded, tmp_path: Path) -> None:
    source, target = tmp_path / "said.csv", tmp_path / "answered.csv"
    source.write_text('\ufeffid,text\n1,"open my window, please"\n2,\n3,' + "x" * 101 + "\n4,wipers on now\n", "utf-8")
    progress: list[float] = []
    result = answer_file(source, target, loaded, "text", LIMITS, 0.5, progress.append)
    rows = list(csv.DictReader(target.read_text("utf-8").splitlines()))
    assert [row["id"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["intent"] for row in rows] == ["driver_window_down", "", "", "windshield_wipers_on"]
    assert rows[0]["text"] == "open my window, please"
    assert "no text" in rows[1]["reason"] and "longer than 100" in rows[2]["reason"]
    assert (result.rows, result.failed, result.actions["act"], progress[-1]) == (4, 2, 2, 1.0)


def test_columns_of_the_file_that_are_called_as_the_answers_are_stay_as_they_were(
    loaded: Loaded, tmp_path: Path
) -> None:
    source, target = tmp_path / "said.csv", tmp_path / "answered.csv"
    source.write_text("intent,reason,predicted_action\nlabel,open my window,mine\n", "utf-8")
    result = answer_file(source, target, loaded, "reason", LIMITS, 0.5, lambda share: None)
    (row,) = csv.DictReader(target.read_text("utf-8").splitlines())
    assert (row["intent"], row["reason"], row["predicted_action"]) == ("label", "open my window", "mine")
    assert row["predicted_predicted_intent"] == "driver_window_down"
    assert result.preview[0]["text"] == "open my window" and result.preview[0]["intent"] == "driver_window_down"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\xff", "not text in UTF-8"),
        (b"text\nopen\x00my window\n", "not text in UTF-8"),
        (b"", "must name the columns"),
        (b"text\n", "no rows"),
        (b"text," + b",".join(b"c%d" % i for i in range(2000)) + b"\nx\n", "2,001 columns, more than 200"),
        (b"utterance\nopen my window\n", "no column 'text'; it has: utterance"),
        (b"id;text\n1;open my window, please\n", "separated by semicolons: save it with commas"),
        (b"text,,\nopen it,,\n", "name each column once, and has '' several times"),
        (b"text\nopen, my, window\n", "line 2 has 3 cells"),
        (b"text\n" + b"hello\n" * 21, "more than 20 rows"),
        (b'text\n"' + b"x" * 200_000, "not valid CSV"),
    ],
)
def test_explains_a_file_it_cannot_answer(loaded: Loaded, tmp_path: Path, content: bytes, message: str) -> None:
    source = tmp_path / "said.csv"
    source.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        answer_file(source, tmp_path / "answered.csv", loaded, "text", LIMITS, 0.5, lambda share: None)
    assert not (tmp_path / "answered.csv").exists()


def test_offers_examples_of_each_sort_and_counts_the_confusions(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    make_predictions(path, num_right=8)
    groups = examples_of(path)
    assert groups["Known mistakes"] == ["wipers on now"]
    assert "the window is open" in groups["Near misses"]
    intent_of = dict(SPOKEN)
    assert {intent_of[text] for text in groups["Clear"]} == {0, 2} and UNSURE not in groups["Clear"]
    matrix = confusion_of(path)
    assert matrix.counts == [[3, 0, 0], [0, 3, 0], [0, 1, 2]]
    assert matrix.accuracy == pytest.approx(8 / 9) and matrix.interval[0] < 8 / 9 < matrix.interval[1]


def test_texts_that_are_only_there_for_the_thresholds_are_no_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    make_predictions(path, num_right=8, never_answered=["windshield_wipers_on"])
    assert "Known mistakes" not in examples_of(path)
    matrix = confusion_of(path)
    assert (matrix.accuracy, matrix.examples) == (1.0, 6)


def test_escapes_what_a_user_wrote() -> None:
    shown = render("answers", problem="<script>alert(1)</script>")
    assert "<script" not in shown and "<script>alert(1)</script>" in unescape(shown)


def test_a_full_queue_turns_the_next_client_away_and_lets_the_others_finish() -> None:
    done: list[int] = []

    async def crowd() -> None:
        gate, go_on = Gate(concurrency=1, queue=2), anyio.Event()

        async def enter(client: int) -> None:
            async with gate:
                await go_on.wait()
            done.append(client)

        async with anyio.create_task_group() as tasks:
            for client in range(3):
                tasks.start_soon(enter, client)
            await anyio.wait_all_tasks_blocked()  # one is in, two wait
            with pytest.raises(Busy):
                await enter(3)
            go_on.set()
        await enter(4)

    anyio.run(crowd)
    assert done == [0, 1, 2, 4]


def test_the_classifier_of_a_new_run_answers_and_no_more_are_kept_than_asked(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "models/classifier"))
    catalogue = Catalogue(tmp_path, num_kept=1, num_threads=1)
    first = catalogue.load("workspace")
    assert catalogue.load("workspace") is first
    assert answer(first, "open my window", 0.5).intent == "driver_window_down"
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace("driver_window_down", "passenger_window_down"))
    assert answer(catalogue.load("workspace"), "open my window", 0.5).intent == "passenger_window_down"
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None


def test_the_rest_call_says_when_to_come_again_where_too_many_wait(loaded: Loaded, tmp_path: Path) -> None:
    from apps.demo.page import Desk  # gradio, which takes seconds: for this test alone
    from apps.demo.server import build_server

    go_on = threading.Event()

    class Slow(Catalogue):
        def load(self, name: str) -> Loaded:
            go_on.wait(30)
            return loaded

    desk = Desk(Slow(tmp_path, 1, 1), replace(LIMITS, queue=1), 0.5, "title", "example", "text")
    responses: list[httpx.Response] = []

    async def ask(client: httpx.AsyncClient) -> None:
        responses.append(await client.post("/api/classify", json={"text": "open my window"}))
        go_on.set()  # the first to be told is who found no room

    async def crowd() -> None:
        transport = httpx.ASGITransport(build_server(desk, "http://demo", ["*"]))
        async with httpx.AsyncClient(transport=transport, base_url="http://demo") as client:
            async with anyio.create_task_group() as tasks:
                for _ in range(3):  # one is answered, one waits
                    tasks.start_soon(ask, client)
        refused = responses[0]
        assert refused.headers["retry-after"] == "5" and "too many clients" in refused.json()["error"]
        assert "default-src 'self'" in refused.headers["content-security-policy"]

    anyio.run(crowd)
    assert [response.status_code for response in responses] == [503, 200, 200]


def test_a_column_is_found_whatever_blanks_are_around_its_name(loaded: Loaded, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("id, text \n1,open my window\n")
    for column in ("text", " text "):
        result = answer_file(source, target, loaded, column, LIMITS, 0.5, lambda done: None)
        assert (result.rows, result.failed) == (1, 0)


def test_the_page_explains_a_full_disk(loaded: Loaded, tmp_path: Path) -> None:
    from apps.demo.page import Desk

    class Full(Catalogue):
        def load(self, name: str) -> Loaded:
            raise OSError(28, "No space left on device", "copy")

    desk = Desk(Full(tmp_path, 1, 1), LIMITS, 0.5, title="x", example="x", text_column="text")
    assert "No space left on device" in desk.show_answers("open it", "workspace", None)


@pytest.mark.parametrize(("confidence", "threshold"), [(0.9624, 0.96238), (0.99977, 0.9998)])
def test_the_reason_does_not_round_a_confidence_past_its_threshold(confidence: float, threshold: float) -> None:
    action = "act" if confidence >= threshold else "ask"
    sure, needed = map(float, re.findall(r"([\d.]+) %", _why(action, "x", confidence, threshold)))
    assert (sure >= needed) == (confidence >= threshold) or sure == needed
