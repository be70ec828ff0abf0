import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from intents.tracking import start_tracker
from tests.conftest import REPOSITORY

CONFIG = {"train": {"learning_rate": 0.1, "head": "mean"}, "prepare": {"seed": 3}}
SUMMARY = {"accuracy": 0.9, "validation": {"macro_f1": 0.8}}
KEY = "abcdef0123456789abcdef0123456789abcdef01"


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A machine on which nobody ever logged in to wandb, with a server that refuses every connection."""
    import wandb

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "NETRC"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        (tmp_path / "home").mkdir()
        monkeypatch.chdir(tmp_path / "home")
        wandb.teardown()  # forget what earlier tests had in their environment
        yield
        wandb.teardown()


def records_of(folder):
    """Records in the transaction log of the only run under `folder`.

    The log is a header of 7 bytes and LevelDB's log format: blocks of 32 KiB with pieces of records, each
    after its checksum, length and kind (1 whole, 2 first, 3 middle, 4 last). `wandb sync` reads it too.
    """
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    records, at, piece = [], 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        piece += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            records.append(wandb_internal_pb2.Record.FromString(piece))
            piece = b""
    return records


def track(report_to, folder, name="my-experiment"):
    tracker = start_tracker(report_to, "some-project", name, CONFIG, folder)
    tracker.log({"train/loss": 1.5}, 1)
    tracker.log({"train/loss": 0.5}, 20)
    tracker.finish(SUMMARY)
    if report_to == "wandb":
        import wandb

        wandb.teardown()  # what the end of the process does: only then is all of the log on disk


def values_of(updates):
    return {update.key or ".".join(update.nested_key): json.loads(update.value_json) for update in updates}


def test_wandb_without_key_or_network_writes_the_whole_run(nobody, tmp_path, capfd):
    track("wandb", tmp_path / "logs")
    records = records_of(tmp_path / "logs")
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name) == ("some-project", "my-experiment")
    config = values_of(run.config.update)
    assert {key: config[key] for key in CONFIG} == CONFIG
    history = [values_of(record.history.item) for record in records if record.HasField("history")]
    assert [(point["_step"], point["train/loss"]) for point in history] == [(1, 1.5), (20, 0.5)]
    summary = {}
    for record in records:
        summary |= values_of(record.summary.update)
    assert (summary["accuracy"], summary["validation.macro_f1"], summary["train/loss"]) == (0.9, 0.8, 0.5)
    assert records[-1].HasField("exit")
    out = capfd.readouterr().out
    (run_dir,) = (tmp_path / "logs").glob("wandb/offline-run-*")
    assert out == f"wandb is offline; to upload this run: wandb sync {run_dir}\n"


def test_wandb_keeps_the_machine_and_the_code_to_itself(nobody, tmp_path):
    track("wandb", tmp_path / "logs")
    records = records_of(tmp_path / "logs")
    kinds = {record.WhichOneof("record_type") for record in records}
    assert not kinds & {"environment", "output", "output_raw", "files"}
    written = b"".join(record.SerializeToString() for record in records)
    assert all(not record.run.host for record in records)
    assert str(Path(__file__).parents[1]).encode() not in written
    (run_dir,) = (tmp_path / "logs").glob("wandb/offline-run-*")
    assert not list((run_dir / "files").rglob("*.*"))


def test_a_wandb_key_never_reaches_a_file(nobody, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    track("wandb", tmp_path / "logs")
    records_of(tmp_path / "logs")  # the server refused the connection, so the run is there, offline
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 2
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("key", ["short", "not a key at all"])
def test_an_unusable_wandb_key_does_not_stop_a_run(nobody, tmp_path, monkeypatch, key):
    monkeypatch.setenv("WANDB_API_KEY", key)
    track("wandb", tmp_path / "logs")
    assert records_of(tmp_path / "logs")[-1].HasField("exit")


def test_wandb_can_be_switched_off_by_its_own_variable(nobody, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    track("wandb", tmp_path / "logs")
    assert not list((tmp_path / "logs").rglob("*.wandb"))


def test_wandb_can_be_switched_off_as_in_transformers(nobody, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DISABLED", "true")
    track("wandb", tmp_path / "logs")
    assert not list((tmp_path / "logs").rglob("*.wandb"))


def test_a_mode_of_wandb_that_is_left_empty_is_none(nobody, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "")
    track("wandb", tmp_path / "logs")
    assert "wandb is offline" in capsys.readouterr().out


def test_wandb_asks_no_one_for_a_key(nobody, tmp_path):
    """A pipeline in a terminal must not wait for an answer."""
    code = (
        "from pathlib import Path; from intents.tracking import start_tracker;"
        "tracker = start_tracker('wandb', 'some-project', 'a', {}, Path('logs')); tracker.log({'x': 1.0}, 1);"
        "tracker.finish({})"
    )
    terminal, its_end = os.openpty()
    environment = os.environ | {"WANDB_MODE": "online", "PYTHONPATH": str(REPOSITORY)}
    streams = {"stdin": its_end, "stdout": its_end, "stderr": its_end}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True, **streams)
    os.close(its_end)
    try:
        assert process.wait(timeout=60) == 0
        assert b"WANDB_MODE=online, but no key (WANDB_API_KEY, wandb login): going on offline" in os.read(
            terminal, 4096
        )
    finally:
        process.kill()
        os.close(terminal)
    assert records_of(Path("logs"))[-1].HasField("exit")


def test_a_folder_that_tensorboard_cannot_write_costs_the_tracking_and_not_the_training(tmp_path, capsys):
    pytest.importorskip("tensorboard", reason="no tensorboard: pip install -c constraints.txt -e '.[tensorboard]'")
    (tmp_path / "tensorboard").touch()
    track("tensorboard", tmp_path)
    out = capsys.readouterr().out
    assert out.startswith("tensorboard: ") and out.count("this run is not tracked") == 1
    assert "shows this run" not in out


def test_wandb_chooses_a_name_where_there_is_none(nobody, tmp_path):
    track("wandb", tmp_path / "logs", name=None)
    (run,) = [record.run for record in records_of(tmp_path / "logs") if record.HasField("run")]
    assert run.run_id and run.project == "some-project"


def test_tensorboard_files_hold_curves_results_and_params(tmp_path, capsys):
    pytest.importorskip("tensorboard", reason="no tensorboard: pip install -c constraints.txt -e '.[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard/my-experiment")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1.5), (20, 0.5)]
    assert events.Scalars("final/accuracy")[0].value == pytest.approx(0.9)
    assert events.Scalars("final/validation.macro_f1")[0].value == pytest.approx(0.8)
    (text,) = events.Tensors("params/text_summary")
    assert b"learning_rate" in text.tensor_proto.string_val[0]
    assert f"tensorboard --logdir {tmp_path / 'tensorboard'} shows this run" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in (tmp_path / "tensorboard/my-experiment").iterdir()}
    track("tensorboard", tmp_path)  # resumed, or run again
    assert {path.name for path in (tmp_path / "tensorboard").iterdir()} == {"my-experiment", "my-experiment-2"}
    assert {path: path.read_bytes() for path in (tmp_path / "tensorboard/my-experiment").iterdir()} == before


def test_none_writes_nothing(tmp_path):
    track("none", tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_a_project_that_wandb_refuses_costs_the_tracking_and_not_the_training(nobody, tmp_path, capsys):
    tracker = start_tracker("wandb", "team/project", None, CONFIG, tmp_path / "logs")
    for step in (1, 2):
        tracker.log({"train/loss": 1.5}, step)
    tracker.finish(SUMMARY)
    assert capsys.readouterr().out.count("this run is not tracked") == 1
