import json
import os
import socket
import subprocess
import time

import pytest

from tests.predict_fixtures import (
    REPOSITORY,
    answer,
    classifier,  # noqa: F401
    command,
    read_jsonl,
    texts_of,
    write_jsonl,
)

KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
# Stores other than AWS's may not know the checksums that newer clients send.
CHECKSUMS = {name: "WHEN_REQUIRED" for name in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")}


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


class Store:
    """SeaweedFS with its S3 gateway on loopback."""

    def __init__(self, folder):
        folder.mkdir()
        ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
        line = ["weed", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]
        line += [
            "-master.volumeSizeLimitMB=64",
            "-volume.max=20",
            "-volume.minFreeSpace=0",
            "-s3",
            "-s3.port.iceberg=0",
        ]
        line += ["-s3.port.lance=0", f"-s3.config={folder / 'users.json'}", f"-s3.localSocket={folder / 's3.sock'}"]
        line += [f"-filer.localSocket={folder / 'filer.sock'}"]
        line += [f"-{name}.port={port}" for name, port in ports.items()]
        line += [f"-{name}.port.grpc={free_port()}" for name in ports]
        keys = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
        user = {"name": "any", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
        (folder / "users.json").write_text(json.dumps({"identities": [user]}))
        self.url = f"http://127.0.0.1:{ports['s3']}"
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(line, stdout=self._log, stderr=self._log)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Yield (server, filesystem, environment) of a store with the bucket texts."""
    s3fs = pytest.importorskip("s3fs")
    server = Store(tmp_path / "store")
    environment = {**KEYS, **CHECKSUMS, "AWS_ENDPOINT_URL": server.url}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    filesystem = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    try:
        for _ in range(150):
            try:
                filesystem.mkdir("texts")
                filesystem.pipe_file("texts/probe", b"x")
                break
            except OSError:
                assert server.process.poll() is None
                time.sleep(0.2)
        filesystem.rm_file("texts/probe")
        yield server, filesystem, environment
    finally:
        server.stop()


def test_s3_tables_are_answered_resumed_and_never_half_written(store, classifier, tmp_path):  # noqa: F811
    server, filesystem, environment = store
    for number in range(2):
        path = write_jsonl(tmp_path / f"in/{number}.jsonl", [{"text": text} for text in texts_of(300)])
        filesystem.put_file(str(path), f"texts/in/{number}.jsonl")
    answer(tmp_path / "in", tmp_path / "local", "--model", classifier)

    done = command("s3://texts/in/", "s3://texts/out", "--model", classifier, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    for number in range(2):
        assert filesystem.cat_file(f"texts/out/{number}.jsonl") == (tmp_path / f"local/{number}.jsonl").read_bytes()

    filesystem.rm_file("texts/out/1.jsonl")
    done = command("s3://texts/in/", "s3://texts/out", "--model", classifier, cwd=REPOSITORY, env=environment)
    assert b"600 rows; 300 were answered by an earlier run" in done.stderr
    assert len(filesystem.cat_file("texts/out/1.jsonl").splitlines()) == 300

    done = command("s3://texts/in/*.jsonl", tmp_path / "out", "--model", classifier, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    assert len(read_jsonl(tmp_path / "out/0.jsonl")) == 300

    (tmp_path / "bad.csv").write_text("text,intent\non,lights\n")
    done = command(tmp_path / "bad.csv", "s3://texts/bad.csv", "--model", classifier, cwd=REPOSITORY, env=environment)
    assert done.returncode == 1
    assert not filesystem.exists("texts/bad.csv")


def test_a_store_that_is_away_ends_in_one_line(classifier, tmp_path):  # noqa: F811
    (tmp_path / "in.csv").write_text("text\non\n")
    environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "AWS_MAX_ATTEMPTS": "1"}
    done = command(tmp_path / "in.csv", "s3://texts/out.csv", "--model", classifier, cwd=REPOSITORY, env=environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(b"error: ")
    assert b"Traceback" not in done.stderr
