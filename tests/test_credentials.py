"""No credential is in Git: they belong into .dvc/config.local (never tracked) or the environment."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_SETTINGS = (
    "access_key_id|secret_access_key|session_token|account_key|connection_string|sas_token|client_secret"
    "|password|passphrase|api[_-]?key|bearer_token|aws_access_key_id|aws_secret_access_key|hf_token|wandb_api_key"
)
# A setting that is given a literal, and what keys look like wherever they stand.
_KEY_LIKE = (
    re.compile(
        rf"^\s*(export\s+)?['\"]?({_SETTINGS})['\"]?\s*[:=]\s*['\"]?[A-Za-z0-9/+_~-]{{8,}}['\"]?,?\s*$",
        re.I | re.M,
    ),
    re.compile(r"\bA(KIA|SIA)[0-9A-Z]{16}\b"),
    re.compile(r"\b(hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|wandb_v1_\w{30,})\b"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s"),
    re.compile(r"\b(https?|s3|ssh)://[^/\s:@{}<]+:[^/\s@{}<]+@"),
)


def credentials_in(root: Path) -> list[str]:
    """Return `file:line` of everything in Git's index at `root` that looks like a credential."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout.decode()
    found = []
    for name in filter(None, listed.split("\0")):
        path = root / name
        text = path.read_text(encoding="utf-8", errors="ignore") if path.is_file() else ""
        for pattern in _KEY_LIKE:
            found += [f"{name}:{text.count(chr(10), 0, match.end())}" for match in pattern.finditer(text)]
    return found


def test_no_tracked_file_has_a_credential():
    if subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("not a Git repository: nothing can be committed here")
    assert credentials_in(ROOT) == []


def test_dvc_keeps_its_local_settings_out_of_git():
    ignored = (ROOT / ".dvc/.gitignore").read_text().splitlines()
    assert "/config.local" in ignored


@pytest.mark.parametrize(
    "line",
    [
        "    access_key_id = " + "ABCDEFGH12345678",
        "    secret_access_key = " + "wJalrXUtnFEMI/K7MDENG",
        "AWS_SECRET_ACCESS_KEY=" + "wJalrXUtnFEMI/K7MDENG",
        "password: " + "correct-horse",
        "key: AKIA" + "ABCDEFGHIJKLMNOP",
        "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
        "url = https://user:" + "secret@example.org/store",
        "token hf_" + "a" * 34,
    ],
)
def test_a_committed_credential_would_be_found(line, tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "config").write_text(f"[core]\n{line}\n")
    subprocess.run(["git", "add", "config"], cwd=tmp_path, check=True)
    assert [place.split(":")[0] for place in credentials_in(tmp_path)][:1] == ["config"]
