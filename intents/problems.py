"""What is wrong with the data, said all at once."""

from collections.abc import Sequence
from typing import NamedTuple

_SHOWN = 50  # lines
_SHOWN_ALIKE = 3  # rows with the same problem


class Problem(NamedTuple):
    """What is wrong with a row of a file, or, without a path, with several rows or files."""

    message: str
    path: str = ""
    row: int = 0

    def __str__(self) -> str:
        return f"{self.path}, row {self.row}: {self.message}" if self.path else self.message


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise one ValueError that lists `problems`, if there are any; what many rows of a file have is one line."""
    if not problems:
        return
    alike: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        alike.setdefault((problem.path, problem.message), []).append(problem)
    lines: list[tuple[str, int]] = []
    for (path, message), found in alike.items():
        if path and len(found) > _SHOWN_ALIKE:
            rows = ", ".join(str(problem.row) for problem in found[:_SHOWN_ALIKE])
            lines.append((f"{path}, rows {rows} and {len(found) - _SHOWN_ALIKE} more: {message}", len(found)))
        else:
            lines += [(str(problem), 1) for problem in found]
    shown = [f"  {line}" for line, _ in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"  ... and {sum(count for _, count in lines[_SHOWN:])} more")
    raise ValueError(f"{len(problems)} problem(s) in the data\n" + "\n".join(shown))
