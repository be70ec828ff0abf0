"""A small copy of this repository to run the real pipeline in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("encoder", "prepare", "tokenize", "train", "calibrate", "baselines", "evaluate", "card", "export")


def copy_repository(target: Path, encoder_dir: Path, **train: object) -> Path:
    """Copy the files that Git tracks, or would, to a new Git repository with settings that run in seconds."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and name != "dvc.lock" and not name.startswith("metrics/") and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    small = (ROOT / "data/raw/driver_intents.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (target / "data/raw/driver_intents.csv").write_text("".join([small[0], *small[1::12]]), encoding="utf-8")
    edit_params(
        target,
        encoder={"name": str(encoder_dir)},
        tokenize={"max_length": 32},
        train={"num_epochs": 2, "precision": "fp32", **train},
        tracking={"report_to": "none"},
    )
    run(target, "git", "init", "-q", "-b", "main")
    commit(target, "start")
    return target


def edit_params(repository: Path, **sections: dict[str, object]) -> None:
    """Change settings in params.yaml; comments are lost."""
    path = repository / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, settings in sections.items():
        params[section] |= settings
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def commit(repository: Path, message: str) -> None:
    run(repository, "git", "add", "-A")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    run(repository, "git", *identity, "commit", "-q", "-m", message)


def run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command as a user in `folder` would, with this Python first on PATH; stdout and stderr together."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment |= {"DVC_NO_ANALYTICS": "1", "DVC_TEST": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
    return done


def stages_run(output: str) -> list[str]:
    """Return the stages that a `dvc repro` ran, in the order of STAGES: DVC is free to order independent ones."""
    ran = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]
    return sorted(ran, key=STAGES.index)
