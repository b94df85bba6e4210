"""When windows end."""

import calendar
import datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from access.quotas.windows import LONGEST_MS, Window, window_end

moments = st.integers(0, 4_102_444_800_000)  # until 2100


@settings(deadline=None)
@given(moments)
@example(951_782_399_999)  # the last of 28 February 2000
@example(951_868_800_000)  # the first of 1 March 2000
@example(1_704_067_199_999)
@example(1_704_067_200_000)
def test_a_month_is_the_calendar_month_in_utc(now: int) -> None:
    moment = datetime.datetime.fromtimestamp(now // 1000, datetime.UTC)
    _, days = calendar.monthrange(moment.year, moment.month)
    begin = int(datetime.datetime(moment.year, moment.month, 1, tzinfo=datetime.UTC).timestamp() * 1000)
    assert begin + days * 86_400_000 == window_end(Window.MONTH, now)
    assert 0 < window_end(Window.MONTH, now) - now <= LONGEST_MS[Window.MONTH]


@pytest.mark.parametrize(("window", "seconds"), [(Window.MINUTE, 60), (Window.HOUR, 3600), (Window.DAY, 86400)])
def test_other_windows_are_counted_from_their_first_request(window: Window, seconds: int) -> None:
    assert 1_700_000_012_345 + seconds * 1000 == window_end(window, 1_700_000_012_345)
