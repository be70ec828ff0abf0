"""A `python` that has imported already: tests start hundreds of programs, most of which do less than they import.

`serve` imports what the programs of this repository take from elsewhere, once, and then forks a process for each
`python -m MODULE` that it is asked for: in the folder, the environment and the streams of who asked, with the modules
of this repository still to be imported, and killed where who asked is. `ask`, which the `python` made by `install`
runs, is a process of its own all the while. Any other command, or one whose environment changes how packages are
imported, gets the real interpreter.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

# Never a module of this repository, nor one that starts a thread as it is imported: no fork would have it.
PACKAGES = (
    "accelerate",
    "datasets",
    "dulwich.client",
    "dulwich.repo",
    "dulwich.worktree",
    "dvc.cachemgr",
    "dvc.cli.parser",
    "dvc.data_cloud",
    "dvc.lock",
    "dvc.repo.experiments.executor.local",
    "dvc.repo.experiments.queue.tempdir",
    "dvc.repo.plots",
    "dvc.repo.reproduce",
    "dvc.rwlock",
    "dvc_render",
    "gradio",
    "jinja2",
    "peft",
    "psutil",
    "pydantic",
    "ruamel.yaml",
    "s3fs",
    "scipy.optimize",
    "scipy.stats",
    "scmrepo.git",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.trainer",
    "uvicorn",
)
# Read by Python or by packages while these are imported.
READ_EARLY = ("CUDA", "HF_", "LD_", "MKL_", "OMP_", "PYTHON", "TORCH", "TRANSFORMERS_")
READ_LATE = ("PYTHONPATH",)
_NUM_STREAMS = 3
_REFUSED = 0
_CLOSED = -1


def install(folder: Path) -> subprocess.Popen[bytes]:
    """Start to serve until this process ends, and put `folder`, with a `python` in it, in front of PATH."""
    place, real = folder / "socket", sys.executable
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {real} -IS {__file__} ask {place} {real} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    with (folder / "log").open("w") as log:
        command = [real, __file__, "serve", str(place), str(os.getpid())]
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return server


def ask(place: str, real: str, arguments: list[str]) -> None:
    """Have `arguments` run by the server at `place`, and end as they do; by `real` where it will not have them."""
    with socket.socket(socket.AF_UNIX) as server:
        try:
            if arguments[:1] != ["-m"] or len(arguments) < 2:
                raise ConnectionRefusedError
            server.connect(place)
            request = json.dumps([os.getcwd(), dict(os.environ), arguments]).encode()
            socket.send_fds(server, [struct.pack("I", len(request))], list(range(_NUM_STREAMS)))
            server.sendall(request)
            child = _receive(server)
        except (FileNotFoundError, ConnectionRefusedError):
            child = _REFUSED
        if child == _REFUSED:
            os.execv(real, [real, *arguments])

        def forward(number: int, _frame: object) -> None:
            os.killpg(child, number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, forward)
        status = _receive(server)
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def _receive(server: socket.socket) -> int:
    number: int = struct.unpack("I", server.recv(4, socket.MSG_WAITALL))[0]
    return number


def serve(place: str, owner: int) -> list[str]:
    """Fork for who asks until the process `owner` ends; return, in a fork, what is to be run."""
    before = dict(os.environ)
    _import_packages()
    added = {name: value for name, value in os.environ.items() if name not in before}
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen()
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(os.pidfd_open(owner), selectors.EVENT_READ, "owner")
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                asking, _ = listener.accept()
                arguments = _fork(asking, selector, before, added)
                if arguments:
                    return arguments
            elif key.data == "owner":
                sys.exit()
            elif not isinstance(key.fileobj, socket.socket):  # a child has ended
                child, asking = key.data
                selector.unregister(key.fd)
                os.close(key.fd)
                status = os.waitpid(child, 0)[1]
                if asking.fileno() != _CLOSED:
                    with suppress(BrokenPipeError):  # killed meanwhile
                        asking.sendall(struct.pack("I", status))
                    _close(asking, selector)
            elif key.fileobj.fileno() != _CLOSED:  # who asked has been killed
                _close(key.fileobj, selector)
                os.killpg(key.data, signal.SIGKILL)


def _import_packages() -> None:
    for package in PACKAGES:
        importlib.import_module(package)
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    if len(threads) - threads.count("jemalloc_bg_thd") > 1:  # jemalloc starts its own anew in a fork
        raise RuntimeError(f"one of the packages has started a thread, which no fork has: {threads}")
    gc.freeze()  # no fork is to copy all of it


def _close(asking: socket.socket, selector: selectors.BaseSelector) -> None:
    selector.unregister(asking)
    asking.close()


def _fork(
    asking: socket.socket, selector: selectors.BaseSelector, before: dict[str, str], added: dict[str, str]
) -> list[str] | None:
    """Return in the fork what it is to run, in the server nothing.

    `before` was the environment when the packages were imported, which `added` to it.
    """
    header, streams, _, _ = socket.recv_fds(asking, 4, _NUM_STREAMS)
    folder, environment, arguments = json.loads(asking.recv(struct.unpack("I", header)[0], socket.MSG_WAITALL))
    fits = all(
        environment.get(name, "") == before.get(name, "")
        for name in {**environment, **before}
        if name.startswith(READ_EARLY) and name not in READ_LATE and environment.get(name) != added.get(name)
    )
    child = os.fork() if fits else None
    if child == 0:
        selector.close()
        asking.close()
        _take_over(folder, added | environment, streams)
        return arguments
    for stream in streams:
        os.close(stream)
    if child is not None:
        os.setpgid(child, child)  # the child does so, too: whoever is first
    with suppress(BrokenPipeError):  # killed meanwhile
        asking.sendall(struct.pack("I", child or _REFUSED))
    if child is None:
        asking.close()
    else:
        selector.register(asking, selectors.EVENT_READ, child)
        selector.register(os.pidfd_open(child), selectors.EVENT_READ, (child, asking))
    return None


def _take_over(folder: str, environment: dict[str, str], streams: list[int]) -> None:
    """Be, from now on, in the folder, the environment and the streams of who asked."""
    os.setpgid(0, 0)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    tempfile.tempdir = None  # TMPDIR may be another
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.path[0:1] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]


def run_module(module: str, arguments: list[str]) -> int:
    """Run a module as `python -m` does; return the exit code."""
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException:  # as the interpreter does
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        ask(sys.argv[2], sys.argv[3], sys.argv[4:])
    _, module, *rest = serve(sys.argv[2], int(sys.argv[3]))
    code = run_module(module, rest)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # to take down all that was imported takes seconds
