"""How commands end."""

import os
import subprocess
import sys

import pytest


def run_command(main, after="", **variables):
    """Run `main`, the source of an expression, as a command does, its output piped through `after`."""
    code = f"from intents.cli import run\n\ndef main():\n    {main}\n\nrun(main)"
    line = f'"$0" -c "$1" {after}'
    command = ["bash", "-o", "pipefail", "-c", line, sys.executable, code]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)


@pytest.mark.parametrize(
    ("main", "status", "message"),
    [
        ("raise ValueError('no such setting')", 1, "error: no such setting\n"),
        ("raise OSError(28, 'No space left on device', 'out.csv')", 1, "[Errno 28] No space left on device: 'out.csv'"),
        ("raise BrokenPipeError(32, 'Broken pipe')", 1, "error: [Errno 32] Broken pipe\n"),  # of a connection elsewhere
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("raise TypeError('a bug')", 1, "Traceback"),
    ],
)
def test_a_command_that_fails_says_why_and_returns_a_status(main, status, message):
    done = run_command(main)
    assert done.returncode == status
    assert message in done.stderr
    assert message == "Traceback" or "Traceback" not in done.stderr


def test_a_command_whose_output_is_closed_ends_well():
    done = run_command("print('done')", ">&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_stops_early_ends_a_command_quietly():
    done = run_command("[print(i) for i in range(10**6)]", "| head -n 1")
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n", "")


def test_a_disk_that_is_full_while_weights_are_saved_is_one_message(tmp_path):
    save = f"save_file({{'x': numpy.zeros(10**6)}}, {str(tmp_path / 'model.safetensors')!r})"
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    done = run_command(f"import numpy, resource, signal; from safetensors.numpy import save_file; {limit}; {save}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_a_missing_file_that_is_all_that_an_error_names_is_called_missing():
    done = run_command("raise FileNotFoundError('data/x.parquet')")
    assert done.stderr == "error: data/x.parquet does not exist: run `dvc repro`\n"


def test_a_terminal_that_lacks_a_character_ends_no_command():
    done = run_command("print('dä')", "", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "d\\xe4\n", "")
