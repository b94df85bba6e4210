"""What a request takes of each kind that limits count."""

from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple

NANO = 1_000_000_000
MOST = 2**53 - 1
"""The largest number that is counted: beyond it Redis's scripts, which count in doubles, are no longer exact."""


class Metric(IntEnum):
    """What is counted; the numbers are the places in :class:`Amounts`."""

    REQUESTS = 0
    TOKENS = 1
    INPUT_TOKENS = 2
    OUTPUT_TOKENS = 3
    USD = 4
    CONCURRENCY = 5

    @property
    def word(self) -> str:
        """As the configuration calls it."""
        return self.name.lower()


class Amounts(NamedTuple):
    """How much of each :class:`Metric`, never negative. Made by :func:`estimated` and :func:`used`."""

    requests: int = 0
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    nano_usd: int = 0
    concurrency: int = 0


_new = tuple.__new__

NOTHING = Amounts()
"""What a request has used that failed before it was worth anything."""


def estimated(input_tokens: int = 0, output_tokens: int = 0, nano_usd: int = 0) -> Amounts:
    """What one request that begins is expected to use. What is not known is 0: it counts once it is known."""
    return used(input_tokens, output_tokens, nano_usd, 1)


def used(input_tokens: int = 0, output_tokens: int = 0, nano_usd: int = 0, concurrency: int = 0) -> Amounts:
    """What one request has used; ``concurrency``: 1 while it lasts."""
    tokens = input_tokens + output_tokens
    # Numbers come from providers, too.
    if input_tokens < 0 or output_tokens < 0 or tokens > MOST or not 0 <= nano_usd <= MOST:
        input_tokens, output_tokens = min(max(input_tokens, 0), MOST), min(max(output_tokens, 0), MOST)
        tokens, nano_usd = min(input_tokens + output_tokens, MOST), min(max(nano_usd, 0), MOST)
    # Made for each request: the class's own constructor takes twice as long.
    return _new(Amounts, (1, tokens, input_tokens, output_tokens, nano_usd, concurrency))


ONE = estimated()
"""One request, where nobody asks how large it is."""


def nano_usd_of(usd: Decimal | float) -> int:
    """Dollars as whole nano-dollars; a float is taken as it is written.

    Raises:
        ValueError: finer than a nano-dollar, negative, or not a number.
    """
    exact = Decimal(repr(usd)) if isinstance(usd, float) else Decimal(usd)
    if not exact.is_finite() or exact < 0:
        raise ValueError(f"{usd} is no amount of money")
    nano = exact * NANO
    whole = int(nano)
    if nano != whole:
        raise ValueError(f"{usd} USD is finer than a nano-dollar: write at most nine digits behind the point")
    return whole
