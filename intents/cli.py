"""How every command of the project ends when its user made a mistake."""

import io
import os
import select
import signal
import sys
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Call `main`; a mistake of the user, a full disk or Ctrl-C ends in one message and a non-zero exit code.

    So does, without a message, a reader of standard output that stops early, such as head. A bug (any other exception)
    keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack characters of the data
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
        if sys.stdout is not None:  # it was closed before this started
            sys.stdout.flush()
    except _expected() as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends
            raise SystemExit(141) from None  # what a shell reports of a command that SIGPIPE ended
        # pyarrow's says the path alone.
        missing = isinstance(error, FileNotFoundError) and error.strerror is None
        sys.stderr.write(f"error: {error}{' does not exist: run `dvc repro`' if missing else ''}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None


def clean_up_when_ended() -> None:
    """Let SIGTERM, and a terminal that is closed, end the program with its clean-up, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Windows has no SIGHUP, and nohup has it ignored. Who handles SIGTERM in their own way, as uvicorn does, is asked.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def _expected() -> tuple[type[Exception], ...]:
    """Return the exceptions that stand for a mistake or a full disk, of which safetensors tells in one of its own."""
    safetensors = sys.modules.get("safetensors")
    return (ValueError, OSError) if safetensors is None else (ValueError, OSError, safetensors.SafetensorError)


def _reader_is_gone() -> bool:
    """Say whether nobody reads standard output any more: a connection elsewhere breaks with the same error."""
    if sys.stdout is None or not hasattr(select, "poll"):  # Windows has none
        return False
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return bool(poll.poll(0))
