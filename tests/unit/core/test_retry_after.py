from datetime import UTC, datetime
from email.utils import format_datetime

import hypothesis.strategies as some
import pytest
from hypothesis import given

from core.retry_after import parse_retry_after

NOW = 1_700_000_000.0
RETRY_AFTER = {
    "seconds": ("120", 120.0),
    "none": (None, None),
    "spaces": (" 7 ", 7.0),
    "zero": ("0", 0.0),
    "a date": (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90.0),
    "a date without a zone": ("Tue, 14 Nov 2023 22:14:50 -0000", 90.0),
    "a date that is past": (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), 0.0),
    "thousands of digits": ("9" * 5000, 999999999999.0),
    "negative": ("-5", None),
    "a fraction": ("1.5", None),
    "nonsense": ("soon", None),
    "empty": ("", None),
    "other digits": ("٣", None),
    "a zone out of all bounds": ("Tue, 14 Nov 2023 22:14:50 +99999999999999999999", None),
    "a zone out of its bounds": ("Tue, 14 Nov 2023 22:14:50 +99999999999", None),
}


@pytest.mark.parametrize("name", RETRY_AFTER)
def test_retry_after_is_read(name: str) -> None:
    value, expected = RETRY_AFTER[name]
    assert expected == parse_retry_after(value, NOW)


@given(some.text())
def test_retry_after_may_be_any_text(value: str) -> None:
    found = parse_retry_after(value, NOW)
    assert found is None or found >= 0
