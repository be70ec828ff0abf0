import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
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
from tests.remote_servers import free_ports

NUM_ROWS = 60_000  # eight windows, so that work is left when the worker is killed


def start_node(environment, *arguments):
    """Start a node in the foreground, as the leader of a process group of its own."""
    line = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--node-ip-address=127.0.0.1"]
    line += ["--num-cpus=2", "--object-store-memory=100000000", "--disable-usage-stats", *arguments]
    return subprocess.Popen(
        line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def kill(node):
    if node.poll() is None:
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


def live_nodes(environment, address):
    line = f"import ray; ray.init({address!r}, log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
    done = subprocess.run([sys.executable, "-c", line], env=environment, capture_output=True, text=True, check=False)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else 0


@pytest.fixture
def cluster(tmp_path):
    """Yield the environment of a cluster's users and the worker nodes: a head and two workers on loopback."""
    port = free_ports(1)[0]
    address = f"127.0.0.1:{port}"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_TMPDIR"] = "/tmp"  # sockets' paths must be short
    nodes = []
    try:
        # One after the other: two that start at once can pick the same ports.
        for role in (["--head", f"--port={port}", "--include-dashboard=false"], *[[f"--address={address}"]] * 2):
            nodes.append(start_node(environment, *role))
            deadline = time.monotonic() + 90
            while live_nodes(environment, address) < len(nodes):
                assert nodes[-1].poll() is None, f"ray start {role} ended with {nodes[-1].returncode}"
                assert time.monotonic() < deadline, f"ray start {role} gave no node that {address} knows"
        yield {**environment, "RAY_ADDRESS": address}, nodes[1:]
    finally:
        for node in reversed(nodes):
            kill(node)


@pytest.mark.slow
def test_ray_answers_every_row_once_as_one_process_does_while_a_worker_dies(cluster, classifier, tmp_path):  # noqa: F811
    environment, workers = cluster
    source = write_jsonl(
        tmp_path / "in/big.jsonl", [{"id": row, "text": text} for row, text in enumerate(texts_of(NUM_ROWS))]
    )
    write_jsonl(tmp_path / "in/small.jsonl", [{"id": 0, "text": "open the window"}, {"id": 1, "text": ""}])
    answer(tmp_path / "in", tmp_path / "alone", "--model", classifier, "--probabilities", "--threads", 1)
    line = [sys.executable, "-m", "apps.predict", source.parent, tmp_path / "out", "--engine", "ray"]
    running = subprocess.Popen(
        [*line, "--model", classifier, "--probabilities"], env=environment, stderr=subprocess.PIPE, cwd=REPOSITORY
    )
    partial = []
    while not any(path.stat().st_size for path in partial):
        assert running.poll() is None, running.stderr.read().decode()
        partial = list((tmp_path / "out").glob(".big.jsonl.*.part"))
        time.sleep(0.05)
    kill(workers[0])
    assert running.poll() is None
    _, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors.decode()
    assert f"{NUM_ROWS + 2} rows, 1 of them bad" in errors.decode()
    assert live_nodes(environment, environment["RAY_ADDRESS"]) == 2
    answered = read_jsonl(tmp_path / "out/big.jsonl")
    assert [row["id"] for row in answered] == list(range(NUM_ROWS))
    for name in ("big.jsonl", "small.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_ray_refuses_standard_input_which_its_workers_do_not_see(exported):  # noqa: F811
    model = ("--model", exported, "--variant", "fp32")
    done = command("-", "-", "--engine", "ray", *model, "--input-format", "csv", input=b"text\non\n")
    assert done.returncode == 1
    error = b"error: --engine ray cannot read standard input, which its workers do not see; save it as a file"
    assert done.stderr == error + b"\n"


def test_what_the_workers_read_otherwise_fails_alone_with_a_reason(tmp_path, monkeypatch):
    """A worker without the mount, a part that grew, one that changed: no other part is lost."""
    ray = pytest.importorskip("ray")
    from intents.bulk import ray_engine
    from intents.bulk.reading import Source, open_table

    names = ("away", "grown", "changed", "last")
    sources = [
        Source(str(write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}])), "jsonl", "text", "utf-8")
        for name in names
    ]

    def windows_of(source):
        with open_table(source) as table:
            yield from table.windows

    def digest_of(source):
        return ray_engine._digest_of(next(windows_of(source)))

    scores = np.array([0.25, 0.75], dtype=np.float32)
    streamed = [(1, 0, digest_of(sources[1]), scores), (1, 1, "more", scores), (2, 0, "other texts", scores)]
    streamed += [(3, 0, digest_of(sources[3]), scores)]
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_engine, "_stream", lambda *_: iter(streamed))
    score = ray_engine.ray_engine(sources, tmp_path, 2, "fp32", 1)
    for name, source in zip(names, sources, strict=True):
        if name in ("away", "changed"):
            with pytest.raises(ValueError, match=f"the workers did not read the texts of .*{name}.jsonl"):
                list(score(source, windows_of(source)))
        else:
            ((_, found),) = score(source, windows_of(source))
            assert found.tolist() == [[0.25, 0.75]]
    with pytest.raises(ValueError, match="the workers did not read"):  # nothing comes any more
        list(score(sources[3], windows_of(sources[3])))
