"""The bound on a whole exchange."""

import asyncio
from contextlib import nullcontext
from types import TracebackType

from core.errors import UpstreamTimeout


class Deadline:
    """`total_seconds` of an exchange, entered for each of its stretches. Raises UpstreamTimeout when it has passed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = asyncio.get_running_loop().time() + seconds
        self._timeout = asyncio.timeout_at(self._at)

    async def __aenter__(self) -> None:
        self._timeout = asyncio.timeout_at(self._at)
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise UpstreamTimeout(f"the request took longer than its `total_seconds` ({self._seconds:g})") from None


AnyDeadline = Deadline | nullcontext[None]
_NONE: AnyDeadline = nullcontext()


def deadline_in(seconds: float | None) -> AnyDeadline:
    """``seconds`` from now; None: no deadline."""
    return _NONE if seconds is None else Deadline(seconds)
