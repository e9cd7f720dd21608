"""Texts on their way to the wire, against the JSON encoder that they stand in for."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.texts import SEPARATOR, Position, Texts, block_of_escaped, escape, escape_all, escape_joined

# With any control character among them texts are escaped one by one; without, all at once.
TEXTS = st.one_of(st.lists(st.text(st.characters(codec="utf-8"))), st.lists(st.text('ab"\\\n\r\té')))


def unescaped(text: bytes) -> str:
    """Return the text again, as a JSON parser reads it."""
    found: str = json.loads(b'"%b"' % text)
    return found


def blank_indexes(texts: Texts) -> list[int]:
    """Return which of the texts a block does not send."""
    return list(block_of_escaped(Position(0, 0, 0), texts).errors)


@given(TEXTS)
def test_any_text_goes_to_the_wire_and_back(texts: list[str]) -> None:
    """Many at once or one by one, the bytes are the same, are JSON, and mean the text."""
    escaped = escape_all(texts)
    assert list(escaped) == [escape(text) for text in texts]
    at_once = escape_joined(SEPARATOR.join(text.encode() for text in texts), len(texts)) if texts else escaped
    has_other_control_characters = any(char < " " and char not in "\n\r\t" for text in texts for char in text)
    assert (at_once is None) == has_other_control_characters
    assert at_once is None or list(at_once) == list(escaped)
    assert json.loads(b'["%b"]' % b'","'.join(escaped)) == (texts or [""])
    assert [unescaped(each) for each in escaped] == texts


LONG = st.sampled_from([b"g" * 8, b"g" * 9, b"1 the same 1", b"1 the same 2", b"2 the same 1", b'"' * 8, b'","' * 5])


@given(st.lists(st.tuples(LONG | st.sampled_from([b"", b"a", b"bb"]) | st.binary(max_size=9), st.booleans())))
@example([(b"g" * 8, True), (b"g" * 9, True), (b"g" * 8, True)])
def test_repeats_are_found_however_long_texts_are(rows: list[tuple[bytes, bool]]) -> None:
    """The wanted ones, each once and in order; `present` keeps equal ones apart; a part of them is like the whole."""
    texts, there = [text for text, _ in rows], [is_wanted for _, is_wanted in rows]
    wanted = [text for text, is_wanted in rows if is_wanted]
    parts = Texts.joined([Texts.of([b"x", *texts[:3]])[1:], Texts.of([*texts[3:], b"y"])[:-1]])
    for whole in (Texts.of(texts), parts):
        assert (list(whole), whole.size) == (texts, sum(map(len, texts)))
        found, positions = whole.distinct(np.array(there, bool))
        assert list(found) == list(dict.fromkeys(wanted))
        assert positions.tolist() == [list(found).index(text) if is_wanted else -1 for text, is_wanted in rows]
        found, positions = whole.present(np.array(there, bool))
        assert list(found) == wanted
        assert [position for position in positions.tolist() if position >= 0] == list(range(len(wanted)))


@pytest.mark.parametrize("text", ["\0", "a\0b", "\x1f", "\x7f", "\b\f", "\\u0000", '\\"', "\ufffd", "\u2028", "ÿ"])
def test_a_rare_character_changes_no_other_text(text: str) -> None:
    """What has no short escape is escaped all the same, and its neighbours stay what they are."""
    assert [unescaped(each) for each in escape_all(["a\n", text, "", '"'])] == ["a\n", text, "", '"']


@given(st.text(st.sampled_from('\t\n\r \x0b\x0c\x1c\x1f\x85\xa0\u1680\u2000\u2028\u202f\u205f\u3000\u200bx\\"é')))
def test_white_space_is_known_in_any_form(text: str) -> None:
    """Blank is what Python calls white space, escaped or not."""
    assert blank_indexes(escape_all([text])) == ([0] if not text or text.isspace() else [])


def test_every_white_space_is_known() -> None:
    """All that Python calls white space, and nothing else."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    spaces = blank_indexes(escape_all(characters))
    assert [characters[index] for index in spaces] == [each for each in characters if each.isspace()]


def test_half_a_surrogate_pair_is_refused() -> None:
    """It is no text that could be sent."""
    with pytest.raises(UnicodeEncodeError):
        escape_all(["a", "\ud83d"])
