"""One connection to Redis that runs scripts: many in one round trip, in order, within a bounded time."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004  as Redis's client calls it
    NoPermissionError,
    NoScriptError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeout

from access.quotas.calls import Call
from access.quotas.outage import Reason
from access.quotas.scripts import Script

_LONGEST_DETAIL = 200
_Command = tuple[str | int, ...]


class ChannelFailed(Exception):
    """Redis did not answer. Whether it has done what was asked is not known."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UrlFault(Exception):
    """The address of Redis cannot be understood; the text does not repeat it."""


class Channel:
    """Speaks with one Redis. For one task at a time."""

    def __init__(self, url: Callable[[], str], timeout_seconds: float) -> None:
        """``url``: `redis://`, `rediss://` (TLS) or `unix://`, with user name, password and database; it is asked for
        whenever a connection is made, as the password may have changed.

        ``timeout_seconds``: for each round trip, and for the making of a connection before it.

        Raises:
            UrlFault: it is none of these.
        """
        self._url = url
        self._made_for = url()
        self._pool = _pool(self._made_for)
        self._timeout = timeout_seconds
        self._connection: Connection | None = None

    async def run(self, calls: Sequence[Call]) -> list[bytes]:
        """The answers, in the order of ``calls``.

        Raises:
            ChannelFailed: any of them has none. The connection is closed: no late answer can be taken for another's.
        """
        commands: list[_Command] = [
            ("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.arguments) for call in calls
        ]
        answers = await self._exchange(commands)
        unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            # It was told to forget its scripts since :meth:`meet`. Those that it has forgotten run behind the others now.
            await self._exchange(_loads(calls[place].script for place in unknown))
            again = [commands[place] for place in unknown]
            for place, answer in zip(unknown, await self._exchange(again), strict=True):
                answers[place] = answer
        given = []
        for answer in answers:
            if not isinstance(answer, bytes):
                await self.close()
                raise _failure(answer)
            given.append(answer)
        return given

    async def meet(self, scripts: Iterable[Script]) -> str | None:
        """Bring the ``scripts``. Gives what tells one run of the server from another; None where it does not say.

        Raises:
            ChannelFailed: it does not answer.
        """
        told, *_ = await self._exchange([("INFO", "server"), *_loads(scripts)])
        if isinstance(told, bytes):
            for line in told.decode("ascii", "replace").splitlines():
                if line.startswith("run_id:"):
                    return line.removeprefix("run_id:")
        return None

    async def look(self) -> dict[str, str]:
        """What the server tells of itself; nothing of it where its user may not ask.

        Raises:
            ChannelFailed: it does not answer.
        """
        told = await self._exchange([("INFO", section) for section in ("server", "memory", "replication")])
        lines = (
            line for each in told if isinstance(each, bytes) for line in each.decode("ascii", "replace").splitlines()
        )
        return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}

    async def close(self) -> None:
        """Close the connection; the next use makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _exchange(self, commands: list[_Command]) -> list[object]:
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._connected()
            async with asyncio.timeout(self._timeout):
                await connection.send_packed_command(connection.pack_commands(commands))
                return [await _answer(connection) for _ in commands]
        except Exception as error:  # whatever it is, there is no answer
            await self.close()
            raise _failure(error) from None
        except BaseException:
            # Cancelled: its answers are on their way.
            await self.close()
            raise

    async def _connected(self) -> Connection:
        if self._connection is None:
            url = self._url()
            if url != self._made_for:
                self._pool, self._made_for = _pool(url), url
            self._connection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # it has no types there
            await self._connection.connect()
        return self._connection


def _pool(url: str) -> ConnectionPool:
    try:
        return ConnectionPool.from_url(
            url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=None, client_name="sluice"
        )
    except ValueError:
        raise UrlFault("not an address of Redis: write `redis://HOST:PORT/DATABASE`, with `rediss` for TLS") from None


def _loads(scripts: Iterable[Script]) -> list[_Command]:
    return [("SCRIPT LOAD", text) for text in dict.fromkeys(script.text for script in scripts)]


async def _answer(connection: Connection) -> object:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _failure(error: object) -> ChannelFailed:
    match error:
        case AuthenticationError() | AuthorizationError() | NoPermissionError():
            reason = Reason.DENIED
        case ResponseError():
            reason = Reason.FAILING
        case TimeoutError() | RedisTimeout():
            reason = Reason.SLOW
        case BusyLoadingError():
            reason = Reason.FAILING
        case ConnectionError() | OSError():
            reason = Reason.UNREACHABLE
        case _:
            reason = Reason.FAILING
    # The classes of the client's errors hold the host and Redis's own words, and never the password.
    return ChannelFailed(reason, f"{type(error).__name__}: {error}"[:_LONGEST_DETAIL])
