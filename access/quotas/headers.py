"""How limits are told in headers: OpenAI's form.

https://developers.openai.com/api/docs/guides/rate-limits has the fields; the times are in the form of Go's durations, as in
`17ms`, `1s`, `6m0s` or `23h47m36.648s` (https://pkg.go.dev/time#Duration.String).
"""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil

from access.quotas.limits import Shown
from access.quotas.outcomes import Counter, Lease, Refused, Unavailable

_Field = tuple[str, str]


def rate_limit_headers(outcome: Lease | Refused) -> list[_Field]:
    """`x-ratelimit-*` for requests and for tokens: of each, the limit of which the least remains."""
    fields: list[_Field] = []
    counters, now = outcome.counters, outcome.now
    for shown in outcome.limits.shown:
        check, amount, limit, remaining, resets = shown[0] if len(shown) == 1 else _tightest(shown, counters)
        counter = counters[check]
        left, reset = amount - counter.used, counter.end - now
        # Above a second whole ones are told: they are never too early, and there are few of them to be written.
        text = _seconds(-(-reset // 1000)) if reset > 1000 else duration(reset / 1000)
        fields += (limit, (remaining, str(left) if left > 0 else "0"), (resets, text))
    return fields


def _tightest(shown: Sequence[Shown], counters: Sequence[Counter]) -> Shown:
    # Of those that are equally near their end, the one that lasts longer.
    return min(shown, key=lambda each: (max(each.amount - counters[each.check].used, 0), -counters[each.check].end))


@lru_cache(maxsize=4096)
def _seconds(seconds: int) -> str:
    return duration(seconds)


def retry_after(outcome: Refused | Unavailable) -> list[tuple[str, str]]:
    """`Retry-After` (RFC 9110 section 10.2.3) in whole seconds, never too early; none where asking again is no use."""
    seconds = outcome.retry_after_seconds
    return [] if seconds is None else [("retry-after", str(max(ceil(seconds), 1)))]


def duration(seconds: float) -> str:
    """``seconds`` (not negative) to the millisecond, as Go writes durations."""
    milliseconds = ceil(seconds * 1000 - 1e-6)
    if milliseconds <= 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    whole, fraction = divmod(milliseconds, 1000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest}.{fraction:03}".rstrip("0") + "s" if fraction else f"{rest}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
