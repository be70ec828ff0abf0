"""The demo: the REST call and the limits, against a running server."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from apps.demo.answering import answer
from apps.demo.catalogue import Catalogue
from apps.demo.rendering import render
from tests.demo_fixtures import (
    CODE,
    EXAMPLE,
    INTENTS,
    LIMITS,
    SPOKEN,
    environment,
    recording_proxy,
    serving,
)

pytest_plugins = ["tests.demo_fixtures"]


@pytest.fixture(scope="module")
def asked_outside() -> Iterator[tuple[str, list[bytes]]]:
    with recording_proxy() as recorded:
        yield recorded


@pytest.fixture(scope="module")
def server(demo_repository: Path, asked_outside: tuple[str, list[bytes]]) -> Iterator[str]:
    proxy, _ = asked_outside
    variables = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy, "HF_HUB_OFFLINE": "0"}
    with serving(demo_repository, "--max-characters", "100", "--max-upload-mib", "1", **variables) as url:
        yield url


def classify(server: str, **question: object) -> httpx.Response:
    return httpx.post(f"{server}/api/classify", json=question, timeout=60)


def test_the_call_answers_as_the_classifier_does(server: str, demo_repository: Path) -> None:
    from transformers import pipeline

    reference = pipeline("text-classification", model=str(demo_repository / "models/classifier"))("open my window")[0]
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


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (
            b'{"text": "open it"}',
            "application/x-www-form-urlencoded",
            422,
            "with the header Content-Type: application/json",
        ),
        (b'{"text": "\xff"}', "application/json", 400, "error parsing the body"),
    ],
)
def test_a_body_that_is_no_json_is_explained(server: str, body: bytes, kind: str, status: int, message: str) -> None:
    response = httpx.post(f"{server}/api/classify", content=body, headers={"Content-Type": kind})
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
        assert "larger than 65 KiB" in response.json()["error"]
    assert classify(server, text="open my window").status_code == 200


def test_answers_fifty_clients_at_once(server: str) -> None:
    with ThreadPoolExecutor(50) as clients:
        responses = list(clients.map(lambda i: classify(server, text=SPOKEN[i % 9][0]), range(50)))
    assert [response.status_code for response in responses] == [200] * 50
    assert [response.json()["intent"] for response in responses] == [INTENTS[SPOKEN[i % 9][1]] for i in range(50)]


def test_the_documented_calls_work_as_written(server: str) -> None:
    curl, python = (
        unescape(block)
        for block in re.findall(
            r"<pre>(.*?)</pre>", render("rest", url=server, limits=LIMITS, example=EXAMPLE), re.DOTALL
        )
    )
    sent = subprocess.run(["bash", "-c", curl.replace("curl", "printf '%s\\n'", 1)], capture_output=True, text=True)
    assert json.loads(sent.stdout.splitlines()[-1])["text"] == EXAMPLE
    shell = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True)
    assert json.loads(shell.stdout)["intent"] in INTENTS
    script = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=True)
    assert script.stdout.split()[0] in INTENTS


def test_a_copy_without_a_repository_answers_with_what_it_holds(demo_repository: Path, tmp_path: Path) -> None:
    shutil.copytree(demo_repository / "models/classifier", tmp_path / "models/classifier")
    shutil.copytree(demo_repository / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    for folder in (tmp_path, tmp_path / "models"):
        catalogue = Catalogue(folder, num_kept=1, num_threads=1)
        assert [name for _, name in catalogue.choices()] == ["workspace"]
        with pytest.raises(ValueError, match="other revisions need a Git repository"):
            catalogue.load("swapped")
        with pytest.raises(ValueError, match="models/onnx holds no model-int8.onnx: run `dvc repro`"):
            catalogue.load("onnx-int8")
    assert answer(Catalogue(tmp_path, 1, 1).load("workspace"), "open my window", 0.5).intent == "driver_window_down"


def test_a_slow_remote_keeps_nobody_from_what_is_here(demo_repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(demo_repository, folder, symlinks=True)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    with serving(folder) as server, socket.create_server(("127.0.0.1", 0)) as remote, ThreadPoolExecutor(1) as client:
        assert classify(server, text="open my window", classifier="careful").status_code == 200
        shutil.rmtree(folder / ".dvc/cache")
        url = f"http://127.0.0.1:{remote.getsockname()[1]}"  # whoever connects waits for good
        (folder / ".dvc/config").write_text(f"[core]\nremote = slow\n['remote \"slow\"']\nurl = {url}\n")
        waiting = client.submit(classify, server, text="open my window", classifier="swapped")
        remote.settimeout(60)
        connection, _ = remote.accept()
        for name in ("workspace", "careful"):
            assert classify(server, text="open my window", classifier=name).status_code == 200
        assert not waiting.done()
        connection.close()
        remote.close()
        assert waiting.result().status_code == 400
        assert "has no models/classifier in the DVC cache or its remote" in waiting.result().json()["error"]


def test_serves_no_file_of_the_repository(server: str, demo_repository: Path) -> None:
    for path in (demo_repository / "models/classifier/config.json", Path("/etc/passwd")):
        assert httpx.get(f"{server}/gradio_api/file={path}", timeout=60).status_code in (403, 404)


def ask_page(server: str, function: int, data: list[object]) -> dict[str, object]:
    """Call an event of the page, by its number, as the page does; return the last message about it."""
    body = {"data": data, "fn_index": function, "session_hash": str(data)}
    assert httpx.post(f"{server}/gradio_api/queue/join", json=body, timeout=60).status_code == 200
    answer = httpx.get(f"{server}/gradio_api/queue/data", params={"session_hash": str(data)}, timeout=60)
    messages = [json.loads(line.removeprefix("data:")) for line in answer.text.splitlines() if line]
    return next(message for message in messages if message["msg"] == "process_completed")


def test_takes_no_file_of_the_machine_for_an_uploaded_one(server: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("text\nopen my window\n")
    upload = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    dependencies = httpx.get(f"{server}/config", timeout=60).json()["dependencies"]
    called = {one["api_name"]: one["id"] for one in dependencies}
    for function, data in (
        (called["show_answers"], [upload, "onnx-int8", ""]),
        (called["answer_upload"], [upload, "text", "workspace"]),
    ):
        refused = ask_page(server, function, data)
        assert not refused["success"] and refused["output"] == {"error": None}
    upload["path"] = "https://example.org/said.csv"  # nor fetches one: the last test sees that nobody was asked
    refused = ask_page(server, called["answer_upload"], [upload, "text", "workspace"])
    assert not refused["success"]
    [path] = httpx.post(
        f"{server}/gradio_api/upload", files={"files": ("said.csv", secret.read_bytes())}, timeout=60
    ).json()
    upload["path"] = path
    answered = ask_page(server, called["answer_upload"], [upload, "text", "workspace"])
    assert answered["success"] and "1 of 1 rows answered" in str(answered["output"])


def test_answers_no_page_that_calls_it_by_another_name(server: str) -> None:
    for host, status in (("evil.example", 400), ("localhost", 200), ("127.0.0.1:1", 200), ("[::1]", 200)):
        assert httpx.get(f"{server}/api/classifiers", headers={"Host": host}, timeout=60).status_code == status


def test_listens_on_the_loopback_address_alone(server: str) -> None:
    port = urlsplit(server).port
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    with pytest.raises(OSError):  # a server on 0.0.0.0 would answer on every address of the machine
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_ends_when_told_to_whatever_its_clients_hold_open_and_leaves_no_folder(tmp_path: Path) -> None:
    unfinished = (
        "POST /api/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        "GET /gradio_api/heartbeat/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    with ExitStack() as held:
        with serving(tmp_path, TMPDIR=str(tmp_path)) as url:
            for request in unfinished:
                client = held.enter_context(socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)))
                client.sendall(request.encode())
            client.recv(1)  # the second one is being answered
            assert list(tmp_path.glob("intents-demo-*"))
    assert not list(tmp_path.glob("intents-demo-*"))


def start_demo(folder: Path, *options: str, program: str = "python", **variables: str) -> tuple[int, str]:
    """Run the command in `folder` until it ends by itself; return its exit code and what it said."""
    command = [program, "-m", "apps.demo", *options]
    done = subprocess.run(command, cwd=folder, env=environment(**variables), capture_output=True, text=True)
    return done.returncode, done.stderr


def test_a_port_in_use_is_one_line_and_not_a_traceback(server: str, tmp_path: Path) -> None:
    port = str(urlsplit(server).port)
    message = f"error: cannot listen on 127.0.0.1 port {port} (Address already in use); try --port 0\n"
    assert start_demo(tmp_path, "--port", port) == (1, message)


def test_an_option_out_of_range_names_itself(tmp_path: Path) -> None:
    assert start_demo(tmp_path, "--max-rows", "0") == (1, "error: --max-rows must be a number above 0, got 0\n")
    too_many = "error: --max-upload-mib must be a number above 0, got inf\n"
    assert start_demo(tmp_path, "--max-upload-mib", "inf") == (1, too_many)
    nowhere = (
        "error: --host must be an address of this machine, such as 127.0.0.1 or 0.0.0.0 for all, got '192.0.2.1'\n"
    )
    assert start_demo(tmp_path, "--host", "192.0.2.1") == (1, nowhere)


def test_says_what_to_install_where_gradio_is_missing(tmp_path: Path) -> None:
    (tmp_path / "gradio.py").write_text("raise ModuleNotFoundError(\"No module named 'gradio'\", name='gradio')\n")
    path = f"{tmp_path}:{CODE}"
    found = start_demo(tmp_path, "--port", "0", program=sys.executable, PYTHONPATH=path)  # has imported nothing yet
    assert found == (1, "error: the demo needs gradio: pip install -c constraints.txt -e '.[demo]'\n")


def test_the_server_asked_nobody_outside(server: str, asked_outside: tuple[str, list[bytes]]) -> None:
    classify(server, text="open my window")
    assert asked_outside[1] == []
