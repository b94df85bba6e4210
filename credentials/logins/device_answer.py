"""Asks a server how far the person is who types a code in there (RFC 8628 section 3.4)."""

from collections.abc import Awaitable, Callable

from core.secret import Secret
from credentials.errors import CredentialUnavailable
from credentials.logins.needs import LoginServer
from credentials.oauth.server import Pending
from credentials.tokens import TokenSet

_SLOWER_SECONDS = 5.0  # RFC 8628 section 3.5
_SHORTEST_SECONDS = 1.0
_LONGEST_SECONDS = 60.0


async def device_answer(
    server: Callable[[], LoginServer],
    code: Secret,
    interval_seconds: float,
    *,
    goes_on: Callable[[], Awaitable[bool]],
    sleep: Callable[[float], Awaitable[object]],
) -> tuple[LoginServer, TokenSet] | None:
    """The tokens, with the server that gave them; None: ``goes_on`` has said no, which is asked each time before.

    Raises what ``server`` and ``goes_on`` do, and as :meth:`credentials.oauth.server.OAuthServer.poll_device`.
    """
    interval = max(_SHORTEST_SECONDS, interval_seconds)
    while True:
        await sleep(interval)
        if not await goes_on():
            return None
        asked = server()
        try:
            answer = await asked.poll_device(code)
        except CredentialUnavailable as error:
            # RFC 8628 section 3.5: who gets no answer asks less often.
            interval = min(_LONGEST_SECONDS, max(2 * interval, error.retry_after_seconds or 0.0))
            continue
        if not isinstance(answer, Pending):
            return asked, answer
        if answer.slow_down:
            interval += _SLOWER_SECONDS
