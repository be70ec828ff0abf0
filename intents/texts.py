"""What a text is; the standard library alone."""


def is_empty(text: str) -> bool:
    """Tell whether nobody would see anything of `text`: blanks, control characters, spaces of no width."""
    return not any(character.isprintable() and not character.isspace() for character in text)
