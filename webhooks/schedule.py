"""What follows from a try: is it delivered, when is the next, and how fast may an endpoint be asked. Pure.

A delivery is tried at once, and then after each of `DELAYS_SECONDS` in turn, which is lengthened by up to a tenth by chance:
ten times within 24 hours. What came back counts as delivered if its status is 2xx, and only then: a redirect is a failure,
since whoever moved has to say so in the configuration. 410 says that nobody wants to hear of us any more.
"""

from enum import StrEnum

import msgspec

DELAYS_SECONDS = (5.0, 60.0, 300.0, 1800.0, 3600.0, 7200.0, 14400.0, 21600.0, 28800.0)
"""Before the second try, the third, and so on."""
JITTER = 0.1
HORIZON_SECONDS = 86400.0
"""All tries are within this, as far as no `Retry-After` and no pause puts them off."""
MAX_RETRY_AFTER_SECONDS = 3600.0
"""A longer `Retry-After` is taken for this."""

_PAUSE_AFTER = 5
_MAX_PAUSE_SECONDS = 60.0


class Failure(StrEnum):
    """Why a try, or a delivery, has failed."""

    STATUS = "status"
    REDIRECTED = "redirected"
    GONE = "gone"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TLS = "tls"
    DISCONNECTED = "disconnected"
    MALFORMED = "malformed"
    PRIVATE_ADDRESS = "private_address"
    UNSIGNED = "unsigned"
    FAULT = "fault"
    DISABLED = "disabled"
    REMOVED = "removed"
    OVERDUE = "overdue"


WORDS = {
    Failure.STATUS: "it answered with a status other than 2xx",
    Failure.REDIRECTED: "it answered with a redirect, which is not followed: put the new address into `url`",
    Failure.GONE: "it answered 410, so it gets nothing more: change its `url`, or test it successfully",
    Failure.UNREACHABLE: "no connection could be made: see that its host and port in `url` are right, and that it runs",
    Failure.TIMEOUT: "it did not answer in time",
    Failure.TLS: "TLS could not be set up, or its certificate is not to be trusted",
    Failure.DISCONNECTED: "the connection ended before the answer",
    Failure.MALFORMED: "its answer is not HTTP",
    Failure.PRIVATE_ADDRESS: "its address is in a private network, which `allow_private: false` forbids",
    Failure.UNSIGNED: "its secret cannot be had or is none, so nothing was sent",
    Failure.FAULT: "the gateway failed at it: see its log",
    Failure.DISABLED: "it was waiting when another delivery was answered with 410",
    Failure.REMOVED: "the configuration has no such webhook any more",
    Failure.OVERDUE: "it waited for over 24 hours for an endpoint that keeps failing",
}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one try."""

    seconds: float
    """So long it took."""
    status: int | None = None
    """None: there was no answer."""
    failure: Failure | None = None
    retry_after_seconds: float | None = None

    @property
    def delivered(self) -> bool:
        return self.failure is None

    @property
    def strains(self) -> bool:
        """Whether it says that the endpoint is down or has too much to do; and not that it dislikes this one delivery."""
        if self.status is None:
            return self.failure is not None
        return self.status == 429 or self.status >= 500


def answered(status: int, seconds: float, retry_after_seconds: float | None = None) -> Outcome:
    """The outcome of a try that was answered."""
    if 200 <= status < 300:
        failure = None
    elif status == 410:
        failure = Failure.GONE
    else:
        failure = Failure.REDIRECTED if 300 <= status < 400 else Failure.STATUS
    return Outcome(seconds=seconds, status=status, failure=failure, retry_after_seconds=retry_after_seconds)


def next_try_seconds(outcome: Outcome, attempts: int, chance: float) -> float | None:
    """In how long a failed delivery is tried again; None: never.

    ``attempts`` were made, the last one included; ``chance`` is a number in [0, 1).
    """
    if outcome.failure is Failure.GONE or attempts > len(DELAYS_SECONDS):
        return None
    delay = DELAYS_SECONDS[attempts - 1] * (1 + JITTER * chance)
    # Sooner than the schedule would use up the tries while the endpoint is still on its knees.
    return max(delay, min(outcome.retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS))


class Pace:
    """How fast one endpoint may be asked: after several failures of its own in a row it is left alone for a while, longer
    each time, and then asked once. So a dead endpoint costs little, however much waits for it.
    """

    __slots__ = ("_failures", "_until")

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    @property
    def failing(self) -> bool:
        """Whether it is left alone, or is to be asked once."""
        return self._failures >= _PAUSE_AFTER

    def wait_seconds(self, now: float) -> float:
        """How long it is to be left alone from ``now`` (monotonic seconds); 0: not at all."""
        return max(0.0, self._until - now)

    def ended(self, outcome: Outcome, now: float) -> None:
        """A try has ended."""
        if not outcome.strains:
            self._failures, self._until = 0, 0.0
            return
        self._failures += 1
        pause = 0.0
        if self.failing:
            pause = min(2.0 ** min(self._failures - _PAUSE_AFTER, 10), _MAX_PAUSE_SECONDS)
        # It says so of itself, and not of this delivery.
        pause = max(pause, min(outcome.retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS))
        self._until = max(self._until, now + pause)
