"""Starts the demo: see `python -m apps.demo --help`."""

import argparse
import asyncio
import errno
import logging
import math
import os
import socket
import sys
import tempfile
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from intents.cli import clean_up_when_ended, run
from intents.params import PARAMS_PATH, read_params

if TYPE_CHECKING:
    from apps.demo.page import Desk

_PATIENCE_S = 3  # what unfinished requests get when the demo is stopped


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.demo",
        description="The classifier in a browser, and behind one REST call.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; another one lets other machines in, without a password",
    )
    add("--port", type=int, default=7860, help="0 takes a free one")
    add(
        "--threshold",
        type=float,
        default=0.5,
        help="probability that a classifier without calibration.json must reach to act",
    )
    add("--max-characters", type=int, default=500, help="longest text")
    add("--max-upload-mib", type=float, default=5, help="largest CSV file")
    add("--max-rows", type=int, default=10_000, help="most rows of a CSV file")
    add("--concurrency", type=int, default=1, help="questions answered at the same time")
    add("--queue", type=int, default=100, help="clients that may wait; further ones are told to come back")
    add("--keep", type=int, default=4, help="classifiers kept in memory")
    add(
        "--threads",
        type=int,
        default=1,
        help="threads of a classifier; more rarely pay for single short texts",
    )
    return parser.parse_args()


def main() -> None:
    """Serve until Ctrl-C."""
    options = parse_arguments()
    _check(options)
    clean_up_when_ended()  # else the folder of the uploads would stay behind
    with tempfile.TemporaryDirectory(prefix="intents-demo-") as uploads:
        os.environ.update(
            GRADIO_ANALYTICS_ENABLED="False",
            HF_HUB_DISABLE_TELEMETRY="1",
            HF_HUB_OFFLINE="1",
            GRADIO_TEMP_DIR=uploads,
        )  # gradio reads them when it is imported
        _serve(options)


def _check(options: argparse.Namespace) -> None:
    for name in ("max_characters", "max_upload_mib", "max_rows", "concurrency", "queue", "keep", "threads"):
        if not 0 < getattr(options, name) < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} must be a number above 0, got {getattr(options, name)}")
    if not 0 <= options.threshold <= 1:
        raise ValueError(f"--threshold must be between 0 and 1, got {options.threshold}")
    if not 0 <= options.port < 65536:
        raise ValueError(f"--port must be between 0 and 65535, got {options.port}")


def _serve(options: argparse.Namespace) -> None:
    with _listen(options.host, options.port) as listener:
        try:
            import gradio  # noqa: F401
            import uvicorn
        except ModuleNotFoundError as error:
            raise ValueError(f"the demo needs {error.name}: pip install -c constraints.txt -e '.[demo]'") from None
        from apps.demo.server import build_server

        host = f"[{options.host}]" if ":" in options.host else options.host
        url = f"http://{host}:{listener.getsockname()[1]}"
        if not _is_loopback(options.host):
            sys.stderr.write(f"warning: {options.host} can be reached from other machines, and there is no password\n")
        application = build_server(_make_desk(options), url, _hosts(options.host, host))
        print(f"the demo is at {url} (Ctrl-C stops it)", flush=True)
        # A client that never ends its request, and every open page, would otherwise keep Ctrl-C waiting.
        settings = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=_PATIENCE_S)
        logging.getLogger("uvicorn.error").addFilter(_is_worth_telling)
        uvicorn.Server(settings).run(sockets=[listener])


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Return False for the traceback of a request that was cut off because the demo is stopped."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _make_desk(options: argparse.Namespace) -> "Desk":
    from apps.demo.catalogue import Catalogue
    from apps.demo.limits import Limits
    from apps.demo.page import Desk

    limits = Limits(
        characters=options.max_characters,
        upload_bytes=round(options.max_upload_mib * 2**20),
        rows=options.max_rows,
        concurrency=options.concurrency,
        queue=options.queue,
    )
    return Desk(Catalogue(Path("."), options.keep, options.threads), limits, options.threshold, **_about_texts())


def _about_texts() -> dict[str, str]:
    """Return what params.yaml says about the texts; a copy of the classifier alone says nothing."""
    if not PARAMS_PATH.exists():
        return {"title": "Text classifier", "example": "a text to classify", "text_column": "text"}
    params = read_params()
    return {name: params["card"][name] for name in ("title", "example")} | {
        "text_column": params["prepare"]["text_column"]
    }


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=256
        )
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(
                f"--host must be an address of this machine, such as 127.0.0.1 or 0.0.0.0 for all, got {host!r}"
            ) from None
        reason = os.strerror(error.errno) if error.errno else error.strerror  # create_server adds to the text
        raise ValueError(f"cannot listen on {host} port {port} ({reason}); try --port 0") from None


def _hosts(host: str, in_url: str) -> list[str]:
    """Return the names by which a browser may call the server.

    On a loopback address, a page from elsewhere whose name is made to point here (DNS rebinding) must get no answer.
    """
    return [in_url, "localhost", "127.0.0.1", "[::1]"] if _is_loopback(host) else ["*"]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    run(main)
