"""Whether more requests fail since an edit than before it."""

from collections import deque
from collections.abc import Callable

from core.events import Events, RequestCompleted, RequestFailed

LEAST_REQUESTS = 50
"""Fewer tell nothing."""
_REMEMBERED = 1000

# Who goes away says nothing of the configuration.
_DEPARTED = "client_closed"


class FailureWatch:
    """Counts the requests of one process, and compares while an edit waits to be confirmed.

    A failure is an answer of 500 and above, or one that was cut. What was refused for the caller's sake (400 to 499), and
    who has gone, count neither as failed nor as answered.
    """

    def __init__(self) -> None:
        self.on_worse: Callable[[], None] = lambda: None
        """Called when it has become worse."""
        self.worse = False
        """Whether, since the edit, the share of failures has grown by more than it may."""
        # Whether each has failed, the newest last.
        self._past: deque[bool] = deque(maxlen=_REMEMBERED)
        self._revision: str | None = None
        self._failed_before: list[int] = []
        """How many of the last 0, 1, 2, … requests before the edit have failed."""
        self._most_increase = 0.0
        self._count = 0
        self._failed = 0

    def subscribe(self, events: Events) -> None:
        """Count what is told in ``events`` from now on."""
        events.subscribe(self.completed, RequestCompleted)
        events.subscribe(self.failed, RequestFailed)

    def begin(self, revision: str, most_increase: float) -> None:
        """Compare the requests that ``revision`` answers with those before them."""
        self._revision, self._most_increase = revision, most_increase
        self._count = self._failed = 0
        self.worse = False
        self._failed_before = [0]
        for has_failed in reversed(self._past):
            self._failed_before.append(self._failed_before[-1] + has_failed)

    def end(self) -> None:
        """Compare no more."""
        self._revision = None
        self.worse = False

    def completed(self, event: RequestCompleted) -> None:
        """A request was answered in full."""
        self._ended(event.revision, has_failed=False)

    def failed(self, event: RequestFailed) -> None:
        """A request was not."""
        if event.error_code != _DEPARTED and not 400 <= event.status < 500:
            self._ended(event.revision, has_failed=True)

    def share_before(self, count: int) -> float:
        """The share of failures among as many requests before the edit, or all there were; 0 where those are too few."""
        known = len(self._failed_before) - 1
        if known < LEAST_REQUESTS:
            return 0.0
        compared = min(count, known)
        return self._failed_before[compared] / compared

    def _ended(self, revision: str, *, has_failed: bool) -> None:
        self._past.append(has_failed)
        # A request ends on the configuration that it began with.
        if revision != self._revision:
            return
        self._count += 1
        self._failed += has_failed
        if self.worse or self._count < LEAST_REQUESTS:
            return
        if self._failed / self._count - self.share_before(self._count) > self._most_increase:
            self.worse = True
            self.on_worse()
