"""How much the demo takes from one client and from all of them together."""

from dataclasses import dataclass

import anyio

from intents.cells import without_surrogates
from intents.texts import is_empty


@dataclass(frozen=True)
class Limits:
    """The demo's limits; their defaults and meaning stand in the command's --help."""

    characters: int
    upload_bytes: int
    rows: int
    concurrency: int
    queue: int

    def check_text(self, text: str) -> str:
        """Return `text` without surrounding blanks.

        Raises:
            ValueError: it is empty, not valid Unicode, or longer than `characters`.

        """
        if len(text) > self.characters:
            raise ValueError(f"the text is longer than {self.characters:,} characters; ask with a shorter one")
        if without_surrogates(text) != text:
            raise ValueError("the text is not valid Unicode; half of a surrogate pair stands alone")
        if is_empty(text):
            raise ValueError("there is no text to classify; type one")
        return text.strip()


class Busy(Exception):
    """More clients wait than the queue holds."""


class Gate:
    """Lets `concurrency` clients in at once; `queue` more may wait, and the next one gets Busy."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self._slots = anyio.Semaphore(concurrency)
        self._room = concurrency + queue

    async def __aenter__(self) -> None:
        if not self._room:
            raise Busy
        self._room -= 1
        try:
            await self._slots.acquire()
        except BaseException:  # a client that left while it waited gives its place back
            self._room += 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self._slots.release()
        self._room += 1
