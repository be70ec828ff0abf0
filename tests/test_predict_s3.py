import os
import socket

import pytest

from tests.predict_fixtures import (
    REPOSITORY,
    answer,
    classifier,  # noqa: F401
    command,
    exported,  # noqa: F401
    read_jsonl,
    texts_of,
    write_jsonl,
)
from tests.remote_servers import S3Server

pytest_plugins = ["tests.sharing_fixtures"]
# Stores other than AWS's may not know the checksums that newer clients send.
CHECKSUMS = {name: "WHEN_REQUIRED" for name in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")}
KEYS = {
    "AWS_ACCESS_KEY_ID": S3Server.access_key,
    "AWS_SECRET_ACCESS_KEY": S3Server.secret_key,
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture
def store(s3_server, monkeypatch):
    """(filesystem, environment) of a running store."""
    s3fs = pytest.importorskip("s3fs", reason="no s3fs: pip install -c constraints.txt -e '.[s3]'")
    environment = {**KEYS, **CHECKSUMS, "AWS_ENDPOINT_URL": s3_server.url}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False), environment


def test_s3_tables_are_answered_resumed_and_never_half_written(store, exported, tmp_path, capsys):  # noqa: F811
    filesystem, environment = store
    model = ("--model", exported, "--variant", "fp32")
    for number in range(2):
        path = write_jsonl(tmp_path / f"in/{number}.jsonl", [{"text": text} for text in texts_of(300)])
        filesystem.put_file(str(path), f"models/in/{number}.jsonl")
    answer(tmp_path / "in", tmp_path / "local", *model)

    done = command("s3://models/in/", "s3://models/out", *model, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    for number in range(2):
        assert filesystem.cat_file(f"models/out/{number}.jsonl") == (tmp_path / f"local/{number}.jsonl").read_bytes()

    filesystem.rm_file("models/out/1.jsonl")
    answer("s3://models/in/", "s3://models/out", *model)
    assert "600 rows; 300 were answered by an earlier run" in capsys.readouterr().err
    assert len(filesystem.cat_file("models/out/1.jsonl").splitlines()) == 300

    answer("s3://models/in/*.jsonl", tmp_path / "out", *model)
    assert len(read_jsonl(tmp_path / "out/0.jsonl")) == 300

    (tmp_path / "bad.csv").write_text("text,intent\non,lights\n")
    with pytest.raises(ValueError, match="has a column 'intent' already"):
        answer(tmp_path / "bad.csv", "s3://models/bad.csv", *model)
    assert not filesystem.exists("models/bad.csv")


def test_a_store_that_is_away_ends_in_one_line(exported, tmp_path):  # noqa: F811
    (tmp_path / "in.csv").write_text("text\non\n")
    model = ("--model", exported, "--variant", "fp32")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": address, "AWS_MAX_ATTEMPTS": "1"}
        done = command(tmp_path / "in.csv", "s3://models/out.csv", *model, cwd=REPOSITORY, env=environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(b"error: ")
    assert b"Traceback" not in done.stderr
