"""Names in a sentence."""

from collections.abc import Sequence


def listed(names: Sequence[str], most: int) -> str:
    """Return the first names, at most so many, and how many more there are: "a, b and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
