"""The demo: decisions, files, the REST call, and the limits, against a running server."""

import csv
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from apps.demo.answering import answer
from apps.demo.batch import answer_file
from apps.demo.catalogue import Catalogue, Loaded
from apps.demo.limits import Busy, Gate, Limits
from apps.demo.rendering import render
from apps.demo.showcase import confusion_of, examples_of
from intents.bulk.scoring import TorchScorer
from tests.demo_fixtures import (
    CODE,
    INTENTS,
    SPOKEN,
    environment,
    make_classifier,
    make_predictions,
    recording_proxy,
    serving,
    shared_repository,
)

LIMITS = Limits(characters=100, upload_bytes=1 << 20, rows=20, concurrency=1, queue=100)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_repository(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def asked_outside() -> Iterator[tuple[str, list[bytes]]]:
    with recording_proxy() as recorded:
        yield recorded


@pytest.fixture(scope="module")
def server(repository: Path, asked_outside: tuple[str, list[bytes]]) -> Iterator[str]:
    proxy, _ = asked_outside
    variables = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy}
    with serving(repository, "--max-characters", "100", "--max-upload-mib", "1", **variables) as url:
        yield url


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("classifier")
    make_classifier(folder, INTENTS)
    return Loaded("workspace", TorchScorer(folder, num_threads=1), is_calibrated=False)


def classify(server: str, **question: object) -> httpx.Response:
    return httpx.post(f"{server}/api/classify", json=question, timeout=60)


def test_acts_only_on_answers_at_least_as_sure_as_the_threshold(loaded: Loaded) -> None:
    confidence = answer(loaded, "open my window", 0.5).confidence
    assert answer(loaded, "open my window", confidence).action == "act"
    asked = answer(loaded, "open my window", confidence + 1e-6)
    assert asked.action == "ask" and "only" in asked.why
    assert answer(loaded, "call my mother", 0.5).action == "leave"
    assert "Not calibrated: plain softmax" in asked.calibration


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\xff", "not text in UTF-8"),
        (b"text\nopen\x00my window\n", "not text in UTF-8"),
        (b"", "must name the columns"),
        (b"text\n", "no rows"),
        (b"utterance\nopen my window\n", "no column 'text'; it has: utterance"),
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
    assert {intent_of[text] for text in groups["Clear"]} == {0, 2}
    matrix = confusion_of(path)
    assert matrix.counts == [[3, 0, 0], [0, 3, 0], [0, 1, 2]]
    assert matrix.accuracy == pytest.approx(8 / 9) and matrix.interval[0] < 8 / 9 < matrix.interval[1]


def test_escapes_what_a_user_wrote() -> None:
    shown = render("answers", problem="<script>alert(1)</script>")
    assert "<script" not in shown and "<script>alert(1)</script>" in unescape(shown)


def test_a_full_queue_turns_the_next_client_away_and_lets_the_others_finish() -> None:
    done: list[int] = []

    async def enter(gate: Gate, client: int) -> None:
        async with gate:
            await anyio.sleep(0.05)
        done.append(client)

    async def crowd() -> None:
        gate = Gate(concurrency=1, queue=2)
        async with anyio.create_task_group() as tasks:
            for client in range(3):
                tasks.start_soon(enter, gate, client)
            await anyio.sleep(0.01)
            with pytest.raises(Busy):
                await enter(gate, 3)
        await enter(gate, 4)

    anyio.run(crowd)
    assert done == [0, 1, 2, 4]


def test_the_call_answers_as_the_classifier_does(server: str, repository: Path) -> None:
    from transformers import pipeline

    reference = pipeline("text-classification", model=str(repository / "models/classifier"))("open my window")[0]
    found = classify(server, text=" open my window ").json()
    assert found["intent"] == reference["label"] == "driver_window_down"
    assert found["confidence"] == pytest.approx(reference["score"], abs=1e-5)
    assert set(found["probabilities"]) == set(INTENTS)
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    assert found["latency_ms"] > 0


def test_the_onnx_variants_answer_as_the_checkpoint_does(server: str) -> None:
    expected = classify(server, text="open my window").json()
    for name in ("onnx-int8", "onnx-fp32"):
        found = classify(server, text="open my window", classifier=name).json()
        assert (found["classifier"], found["intent"], found["action"]) == (name, expected["intent"], "act")
        assert found["confidence"] == pytest.approx(expected["confidence"], abs=1e-5 if name == "onnx-fp32" else 0.05)
        assert found["thresholds"] == dict.fromkeys(INTENTS, 0.6)


def test_a_tag_and_an_experiment_answer_by_name(server: str) -> None:
    names = ["workspace", "onnx-int8", "onnx-fp32", "swapped", "careful"]
    assert httpx.get(f"{server}/api/classifiers", timeout=60).json() == names
    assert classify(server, text="open my window", classifier="swapped").json()["intent"] == "windshield_wipers_on"
    careful = classify(server, text="open my window", classifier="careful").json()
    assert (careful["likeliest"], careful["action"]) == ("driver_window_down", "ask")
    assert careful["intent"] == "no_intent"  # a program that reads the intent alone must not act
    assert "99.99 %" in careful["why"] and careful["calibration"].startswith("Calibrated")


@pytest.mark.parametrize(
    ("question", "status", "message"),
    [
        ({"text": "  "}, 400, "no text"),
        ({"text": "x" * 101}, 400, "longer than 100 characters"),
        (
            {"text": "hello", "classifier": "nobody"},
            400,
            "no branch, tag, commit or experiment is called 'nobody'",
        ),
        ({"text": "hello", "classifier": "--upload-pack=x"}, 400, "name"),
        ({"text": ["hello"]}, 422, "text: Input should be a valid string"),
        ({"utterance": "hello"}, 422, "text: Field required"),
    ],
)
def test_the_call_explains_a_mistake(server: str, question: dict[str, object], status: int, message: str) -> None:
    response = classify(server, **question)
    assert response.status_code == status
    assert message in response.json()["error"]


def test_refuses_ten_megabytes_whether_announced_or_not(server: str) -> None:
    body = json.dumps({"text": "x" * 10_000_000}).encode()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 1 << 14):
            yield body[start : start + (1 << 14)]

    for content in (body, pieces()):
        response = httpx.post(f"{server}/api/classify", content=content, timeout=60)
        assert response.status_code == 413
        assert "larger than 64 KiB" in response.json()["error"]
    assert classify(server, text="open my window").status_code == 200


def test_answers_fifty_clients_at_once(server: str) -> None:
    with ThreadPoolExecutor(50) as clients:
        responses = list(clients.map(lambda i: classify(server, text=SPOKEN[i % 9][0]), range(50)))
    assert [response.status_code for response in responses] == [200] * 50
    assert [response.json()["intent"] for response in responses] == [INTENTS[SPOKEN[i % 9][1]] for i in range(50)]


def test_the_documented_calls_work_as_written(server: str) -> None:
    curl, python = (
        unescape(block)
        for block in re.findall(r"<pre>(.*?)</pre>", render("rest", url=server, limits=LIMITS), re.DOTALL)
    )
    shell = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True)
    assert json.loads(shell.stdout)["intent"] in INTENTS
    script = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=True)
    assert script.stdout.split()[0] in INTENTS


def test_a_copy_without_a_repository_answers_with_what_it_holds(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "models/classifier", tmp_path / "models/classifier")
    shutil.copytree(repository / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    for folder in (tmp_path, tmp_path / "models"):
        catalogue = Catalogue(folder, num_kept=1, num_threads=1)
        assert [name for _, name in catalogue.choices()] == ["workspace"]
        with pytest.raises(ValueError, match="other revisions need a Git repository"):
            catalogue.load("swapped")
        with pytest.raises(ValueError, match="models/onnx holds no model-int8.onnx: run `dvc repro`"):
            catalogue.load("onnx-int8")
    assert answer(Catalogue(tmp_path, 1, 1).load("workspace"), "open my window", 0.5).intent == "driver_window_down"


def test_serves_no_file_of_the_repository(server: str, repository: Path) -> None:
    for path in (repository / "models/classifier/config.json", Path("/etc/passwd")):
        assert httpx.get(f"{server}/gradio_api/file={path}", timeout=60).status_code in (403, 404)


def test_listens_on_the_loopback_address_alone(server: str) -> None:
    port = urlsplit(server).port
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    with pytest.raises(OSError):  # a server on 0.0.0.0 would answer on every address of the machine
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_a_port_in_use_is_one_line_and_not_a_traceback(server: str, tmp_path: Path) -> None:
    port = str(urlsplit(server).port)
    done = subprocess.run(
        [sys.executable, "-m", "apps.demo", "--port", port],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"error: cannot listen on 127.0.0.1 port {port} (Address already in use); try --port 0\n"


def test_an_option_out_of_range_names_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "apps.demo", "--max-rows", "0"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "error: --max-rows must be above 0, got 0\n")


def test_says_what_to_install_where_gradio_is_missing(tmp_path: Path) -> None:
    (tmp_path / "gradio.py").write_text("raise ModuleNotFoundError(\"No module named 'gradio'\", name='gradio')\n")
    done = subprocess.run(
        [sys.executable, "-m", "apps.demo", "--port", "0"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=f"{tmp_path}:{CODE}"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "error: the demo needs gradio: pip install -e '.[demo]'\n"


def test_the_server_asked_nobody_outside(server: str, asked_outside: tuple[str, list[bytes]]) -> None:
    classify(server, text="open my window")
    assert asked_outside[1] == []
