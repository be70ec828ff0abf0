"""What a result was measured on."""

import datetime
import platform
import subprocess
from pathlib import Path
from typing import Any


def describe() -> dict[str, str]:
    """Return date, commit, processor, number of cores and Python version."""
    import os

    return {
        "date": datetime.date.today().isoformat(),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }


def add_section(path: Path, facts: dict[str, Any], table: str) -> None:
    """Put `table`, under a heading with its `facts`, before the earlier results in the Markdown file at `path`.

    What stands before the first heading of the second level stays on top.
    """
    top, _, before = path.read_text(encoding="utf-8").partition("\n## ")
    about = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in ("date", "commit"))
    section = f"\n## {facts['date']}, commit {facts['commit']}\n\n{about}\n\n{table}"
    path.write_text(f"{top}{section}" + (f"\n\n## {before}" if before else "\n"), encoding="utf-8")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        flags = next((line for line in lines if line.startswith("flags")), "")
        if names:  # ARM's has none
            return names[0] + (" (AVX-512 bf16)" if "avx512_bf16" in flags else "")
    return platform.processor() or platform.machine()


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # a copy of the files without Git
        return "unknown"
