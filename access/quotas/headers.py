"""How limits are told in headers: OpenAI's form.

https://developers.openai.com/api/docs/guides/rate-limits has the fields; the times are in the form of Go's durations, as in
`17ms`, `1s`, `6m0s` or `23h47m36.648s` (https://pkg.go.dev/time#Duration.String).
"""

from collections.abc import Iterable
from math import ceil

from access.quotas.amounts import Metric
from access.quotas.outcomes import Lease, Refused, Standing, Unavailable

_TOKENS = (Metric.TOKENS, Metric.INPUT_TOKENS, Metric.OUTPUT_TOKENS)


def rate_limit_headers(outcome: Lease | Refused) -> list[tuple[str, str]]:
    """`x-ratelimit-*` for requests and for tokens: of each, the limit of which the least remains."""
    standings = outcome.standings if isinstance(outcome, Refused) else tuple(outcome.standings())
    shown = [each for each in standings if not each.limit.shadow]
    fields: list[tuple[str, str]] = []
    for name, metrics in (("requests", (Metric.REQUESTS,)), ("tokens", _TOKENS)):
        tightest = _tightest(each for each in shown if each.limit.metric in metrics)
        if tightest is not None:
            fields += (
                (f"x-ratelimit-limit-{name}", str(tightest.limit.amount)),
                (f"x-ratelimit-remaining-{name}", str(tightest.remaining)),
                (f"x-ratelimit-reset-{name}", duration(tightest.reset_seconds)),
            )
    return fields


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


def _tightest(standings: Iterable[Standing]) -> Standing | None:
    # Of those that are equally near their end, the one that lasts longer.
    return min(standings, key=lambda each: (each.remaining, -each.reset_seconds), default=None)
