"""Cursors: what one list gave is taken by it alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import BadCursor
from storage.pages import decode_cursor, encode_cursor


@given(st.integers(0, 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_cursor_comes_back_as_its_place(number: int, text: str) -> None:
    cursor = encode_cursor(number, text)
    assert (number, text) == decode_cursor(cursor, tuple[int, str])
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(st.text())
def test_any_other_text_is_refused_or_a_place(text: str) -> None:
    try:
        decode_cursor(text, tuple[int, str])
    except BadCursor:
        pass


@pytest.mark.parametrize("cursor", ["", "=", "ä", encode_cursor(1), encode_cursor("a", 1), encode_cursor(1, "a") + "x"])
def test_a_cursor_of_another_list_is_refused(cursor: str) -> None:
    with pytest.raises(BadCursor, match="next_cursor"):
        decode_cursor(cursor, tuple[int, str])


@pytest.mark.parametrize("place", [(1 << 63, "a"), (-(1 << 63), "a"), (1, "a\0")])
def test_what_no_database_could_compare_is_refused(place: tuple[int, str]) -> None:
    with pytest.raises(BadCursor, match="next_cursor"):
        decode_cursor(encode_cursor(*place), tuple[int, str])
