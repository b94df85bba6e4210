"""This machine's clock, against what the servers that were asked say in `Date`."""

from collections.abc import AsyncIterator, Sequence

from gateway.doctor.context import Context, Reading
from gateway.doctor.report import Finding, Where, fault, fine, warning

_MOST_SECONDS = 30.0
_SET = "set it from the network (`timedatectl set-ntp true`, or chrony)"


async def check(context: Context) -> AsyncIterator[Finding]:
    """After the checks that ask servers."""
    for finding in judge(context.readings):
        yield finding


def judge(readings: Sequence[Reading]) -> list[Finding]:
    """What several clocks together say. Of two that disagree with each other the one that is far off counts."""
    if not readings:
        return []
    by_distance = sorted(readings, key=lambda reading: abs(reading.ahead_seconds))
    middle = by_distance[len(by_distance) // 2]
    if abs(middle.ahead_seconds) > _MOST_SECONDS:
        what = f"this machine's clock is {_apart(-middle.ahead_seconds)} that of {middle.server}"
        return [fault(Where(), what, f"{_SET}: tokens and certificates depend on it")]
    findings = [fine("this machine's clock agrees with the servers that were asked")]
    for reading in readings:
        if abs(reading.ahead_seconds) > _MOST_SECONDS:
            what = f"the clock of {reading.server} is {_apart(reading.ahead_seconds)} this machine's"
            mend = "whoever runs it should set it: the clocks of other servers agree with this machine's"
            findings.append(warning(Where(), what, mend))
    return findings


def _apart(ahead_seconds: float) -> str:
    return f"{abs(ahead_seconds):.0f} s {'ahead of' if ahead_seconds > 0 else 'behind'}"
