"""What a text is; the standard library alone."""

import unicodedata


def is_empty(text: str) -> bool:
    """Tell whether nobody would see anything of `text`: blanks, control characters, spaces of no width."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def printable(text: str) -> str:
    """Return `text` for a terminal: control characters, by which it could do as it likes with one, as U+FFFD."""
    return "".join("\ufffd" if unicodedata.category(sign) == "Cc" and sign != "\n" else sign for sign in text)
