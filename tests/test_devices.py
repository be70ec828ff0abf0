"""Jobs that run at the same time, as real processes, take a device each."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from intents.devices import CPU, claim_devices, visible_devices, with_models

_JOB = """
import os, sys
from pathlib import Path
from intents import devices as module
from intents.devices import claim_devices
module._POLL_S = 0.05
num, when_busy, lock_dir, *devices = sys.argv[1:]
num = num if num == "auto" else int(num)
claim = claim_devices(num, when_busy, Path(lock_dir), devices or None)
print("has", ",".join(claim.devices), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.readline()
claim.release()
print("released", flush=True)
sys.stdin.readline()
"""
ROOT = Path(__file__).parent.parent
Job = subprocess.Popen[str]
StartJob = Callable[..., Job]


@pytest.fixture
def start_job(tmp_path: Path) -> Iterator[StartJob]:
    jobs: list[Job] = []

    def start(when_busy: str, *devices: str, num: str = "auto", **env: str) -> Job:
        command = [sys.executable, "-c", _JOB, num, when_busy, str(tmp_path / "locks"), *devices]
        clean = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        pipe = subprocess.PIPE
        job = subprocess.Popen(command, cwd=ROOT, env=clean | env, stdin=pipe, stdout=pipe, text=True)
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        job.kill()
        job.communicate()


def _line(job: Job) -> str:
    assert job.stdout is not None
    return job.stdout.readline().strip()


def _go_on(job: Job) -> None:
    assert job.stdin is not None
    job.stdin.write("\n")
    job.stdin.flush()


def test_each_of_two_jobs_gets_a_gpu_of_its_own_and_sees_no_other(start_job: StartJob) -> None:
    jobs = [start_job("wait", "GPU-a", "GPU-b") for _ in range(2)]
    assert sorted(map(_line, jobs)) == ["has GPU-a GPU-a", "has GPU-b GPU-b"]


def test_a_third_job_waits_until_a_gpu_is_given_back(start_job: StartJob) -> None:
    first, second = (start_job("wait", "GPU-a", "GPU-b") for _ in range(2))
    freed = _line(first).split()[1]
    _line(second)
    third = start_job("wait", "GPU-a", "GPU-b")
    assert _line(third).startswith("waiting for other jobs to give back one of: GPU-a, GPU-b")
    _go_on(first)
    assert _line(third) == f"has {freed} {freed}"


def test_a_job_gets_as_many_gpus_as_it_asks_for_or_waits_for_all_of_them(start_job: StartJob) -> None:
    gpus = ("GPU-a", "GPU-b", "GPU-c")
    single = start_job("wait", *gpus)
    assert _line(single) == "has GPU-a GPU-a"
    double = start_job("wait", *gpus, num="2")
    assert _line(double) == "has GPU-b,GPU-c GPU-b,GPU-c"
    waiting = start_job("wait", *gpus, num="2")
    assert _line(waiting).startswith("waiting for other jobs to give back 2 of: GPU-a, GPU-b, GPU-c")
    _go_on(single)
    assert _line(single) == "released"
    third = start_job("wait", *gpus)  # the one that waits for two holds none
    assert _line(third) == "has GPU-a GPU-a"
    _go_on(double)
    assert _line(waiting) == "has GPU-b,GPU-c GPU-b,GPU-c"


def test_jobs_of_several_gpus_that_share_take_those_with_the_fewest_jobs(start_job: StartJob) -> None:
    jobs = [start_job("share", "GPU-a", "GPU-b", "GPU-c", num="2")]
    first = _line(jobs[0])
    jobs.append(start_job("share", "GPU-a", "GPU-b", "GPU-c", num="2"))
    assert [first, _line(jobs[1])] == ["has GPU-a,GPU-b GPU-a,GPU-b", "has GPU-a,GPU-c GPU-a,GPU-c"]


def test_more_gpus_than_there_are_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    expected = r"train.devices: 3 GPUs are more than are visible \(2: 0, 1\); take at most 2"
    with pytest.raises(ValueError, match=expected):
        claim_devices(3, "wait", tmp_path, ["0", "1"])


def test_processes_on_the_cpu_have_the_machine_together(start_job: StartJob) -> None:
    assert _line(start_job("wait", num="4", CUDA_VISIBLE_DEVICES="")) == f"has {CPU}"
    assert _line(start_job("wait", num="2", CUDA_VISIBLE_DEVICES="")).startswith("waiting")


def test_a_killed_job_gives_its_gpu_back(start_job: StartJob) -> None:
    first = start_job("wait", "GPU-a")
    assert _line(first) == "has GPU-a GPU-a"
    second = start_job("wait", "GPU-a")
    assert _line(second).startswith("waiting")
    first.kill()
    assert _line(second) == "has GPU-a GPU-a"


def test_jobs_that_share_spread_over_the_gpus(start_job: StartJob) -> None:
    jobs = [start_job("share", "GPU-a", "GPU-b") for _ in range(4)]
    assert sorted(_line(job).split()[1] for job in jobs) == ["GPU-a", "GPU-a", "GPU-b", "GPU-b"]


def test_a_machine_without_a_gpu_is_one_device_that_jobs_wait_for_or_share(start_job: StartJob) -> None:
    first = start_job("wait", CUDA_VISIBLE_DEVICES="")
    assert _line(first) == f"has {CPU}"
    assert _line(start_job("share", CUDA_VISIBLE_DEVICES="")) == f"has {CPU}"
    waiting = start_job("wait", CUDA_VISIBLE_DEVICES="")
    assert _line(waiting).startswith("waiting")
    _go_on(first)
    assert _line(waiting) == f"has {CPU}"


def test_gpus_hidden_by_the_user_are_not_taken(start_job: StartJob) -> None:
    jobs = [start_job("share", CUDA_VISIBLE_DEVICES="3, 5") for _ in range(2)]
    assert sorted(map(_line, jobs)) == ["has 3 3", "has 5 5"]


def test_a_process_of_torchrun_keeps_what_its_launcher_gave_it(start_job: StartJob) -> None:
    jobs = [start_job("wait", CUDA_VISIBLE_DEVICES="0,1", LOCAL_RANK=rank) for rank in "01"]
    assert [_line(job) for job in jobs] == ["has 0,1 0,1"] * 2


def test_gpus_are_found_by_asking_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho GPU-1111, NVIDIA X1\necho GPU-2222, NVIDIA X1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices() == ["GPU-1111", "GPU-2222"]
    tool.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert visible_devices() == [CPU]


@pytest.mark.parametrize(
    ("models", "order", "chosen", "expected"),
    [
        ("X1 X1", "", "1", ["GPU-1"]),
        ("X1 X1", "", "GPU-1,0", ["GPU-1", "GPU-0"]),
        ("X1 X1", "", "7", ["7"]),
        ("X1 X1", "", "", [CPU]),
        ("X1 X1", "", "-1", [CPU]),
        ("X1 Y2", "", "1", ["1"]),  # which of them CUDA counts first is CUDA's affair
        ("X1 Y2", "PCI_BUS_ID", "1", ["GPU-1"]),
    ],
)
def test_a_gpu_has_one_name_however_it_was_chosen(tmp_path, monkeypatch, models, order, chosen, expected):
    lines = [f"echo GPU-{index}, NVIDIA {model}" for index, model in enumerate(models.split())]
    tool = tmp_path / "nvidia-smi"
    tool.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    assert visible_devices() == expected


def test_devices_are_shown_with_the_models_of_gpus():
    devices = [f"GPU-{index}" for index in range(torch.cuda.device_count())] or [CPU]
    shown = with_models(devices)
    if torch.cuda.is_available():
        assert shown[0] == f"{torch.cuda.get_device_name(0)} (GPU-0)"
    else:
        assert shown == with_models(["GPU-1"]) == [CPU]  # nvidia-smi may name GPUs that torch cannot use
