"""Windows of time in which limits count. Times are Unix milliseconds (UTC), passed in."""

import datetime
from enum import IntEnum

_DAY_MS = 86_400_000


class Window(IntEnum):
    """A stretch of time; the numbers are those of the scripts (access/quotas/scripts.py)."""

    MINUTE = 1
    HOUR = 2
    DAY = 3
    MONTH = 4

    @property
    def word(self) -> str:
        """As the configuration calls it."""
        return self.name.lower()


LONGEST_MS: dict[Window, int] = {
    Window.MINUTE: 60_000,
    Window.HOUR: 3_600_000,
    Window.DAY: _DAY_MS,
    Window.MONTH: 31 * _DAY_MS,
}


def window_end(window: Window, now: int) -> int:
    """When a window that begins at ``now`` ends, which is its first moment that is not in it.

    Minutes, hours and days are counted from ``now``; a month is the UTC calendar month that ``now`` is in.
    """
    if window is not Window.MONTH:
        return now + LONGEST_MS[window]
    moment = datetime.datetime.fromtimestamp(now // 1000, datetime.UTC)
    year, month = divmod(moment.year * 12 + moment.month, 12)  # of the next month, counted from 0
    return int(datetime.datetime(year, month + 1, 1, tzinfo=datetime.UTC).timestamp()) * 1000
