"""A text of which nobody would see anything is none, wherever it is asked."""

import pytest

from intents.bulk.rows import check_text
from intents.records import Columns
from intents.rows import read_rows
from intents.runtime import _checked
from intents.texts import is_empty, printable
from tests.demo_fixtures import LIMITS

UNSEEN = ["", "  ", "\u200b", "\ufeff \u2060", "\x00\x01", "\u00a0\u3000"]


@pytest.mark.parametrize("text", UNSEEN)
def test_what_nobody_sees_is_refused_everywhere(tmp_path, text):
    assert is_empty(text)
    assert check_text(text, "utf-8") == (None, "empty text")
    with pytest.raises(ValueError, match="is empty"):
        _checked([text])
    with pytest.raises(ValueError, match="no text to classify"):
        LIMITS.check_text(text)
    path = tmp_path / "rows.csv"
    path.write_text(f'text,intent\n"{text}",open\n', encoding="utf-8")
    assert [problem.message for problem in read_rows(path, Columns()).problems] == ["empty text"]


@pytest.mark.parametrize("text", ["a", " é ", "\U0001f697", "?", "\u200bon", "\U0001f468\u200d\U0001f373"])
def test_what_can_be_seen_is_a_text(text):
    assert not is_empty(text) and check_text(text, "utf-8")[1] == ""
    assert LIMITS.check_text(text) and _checked([text])


def test_no_text_reaches_a_terminal_as_a_command():
    assert printable("a\x1b[2Jb\u009bc\nd\te é🙂") == "a\ufffd[2Jb\ufffdc\nd\ufffde é🙂"
