"""Accounts in Redis, for all processes and machines that share it.

::

    PREFIXcredentials            a hash: from `PROVIDER/NAME` to its cell
    PREFIXcredentials:version    a number
    PREFIXlogin:KEY              the cell of a sign-in, as long as it can be asked for

Redis keeps what it has in memory: only with `appendonly yes` does it survive a restart, and with `appendfsync always` its
last second does too. What is lost is told in the log.
"""

import asyncio
import logging
import re
from collections.abc import Callable

from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from credentials.errors import StoreUnavailable
from credentials.stores.shelf import Account, Key, ShelfStore

_MOST_IDLE = 4
_LONGEST_DETAIL = 200
_Command = tuple[str | bytes | int, ...]

_SWAP_ACCOUNT = """
-- KEYS: accounts, version. ARGV: account, whether something must be there, what, what comes in its place, whether it counts.
-- A text is written once: where it is there already, the answer to its writing was lost.
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held == ARGV[4] then return 1 end
if (held and '1' or '0') ~= ARGV[2] or (held and held ~= ARGV[3]) then return 0 end
if ARGV[5] == '1' then
  -- By the time, as the last number may have been lost.
  local time = redis.call('TIME')
  local version = math.max((tonumber(redis.call('GET', KEYS[2])) or 0) + 1, time[1] * 1000000 + time[2])
  redis.call('SET', KEYS[2], string.format('%.0f', version))
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
return 1
"""
_SWAP_LOGIN = """
-- KEYS: sign-in. ARGV: whether something must be there, what, what comes in its place, until when it is kept (microseconds
-- since the Unix epoch).
local held = redis.call('GET', KEYS[1])
if held == ARGV[3] then return 1 end
if (held and '1' or '0') ~= ARGV[1] or (held and held ~= ARGV[2]) then return 0 end
local time = redis.call('TIME')
local left = math.ceil(tonumber(ARGV[4]) / 1000 - time[1] * 1000 - time[2] / 1000)
if left > 0 then redis.call('SET', KEYS[1], ARGV[3], 'PX', string.format('%.0f', left)) end
return 1
"""
_ALL = """
-- KEYS: accounts, version. Gives the version, then accounts and their cells in turn.
local found = redis.call('HGETALL', KEYS[1])
table.insert(found, 1, redis.call('GET', KEYS[2]) or '0')
return found
"""

_log = logging.getLogger("sluice.credentials")


class RedisStore(ShelfStore):
    """:class:`credentials.records.AccountStore` in Redis."""

    def __init__(self, url: Callable[[], str], prefix: str, timeout_seconds: float) -> None:
        """See :class:`RedisShelf`."""
        super().__init__(RedisShelf(url, prefix, timeout_seconds))


class RedisShelf:
    """:class:`credentials.stores.shelf.Shelf` in Redis. The time is Redis's own."""

    def __init__(self, url: Callable[[], str], prefix: str, timeout_seconds: float) -> None:
        """
        Args:
            url: as of `redis.url`; asked for whenever a connection is made, as the password may have changed.
            prefix: of all keys; its braces keep them on one node of a cluster.
            timeout_seconds: for the making of a connection, and for each answer.
        """
        self._url = url
        self._accounts = f"{prefix}credentials"
        self._version = f"{prefix}credentials:version"
        self._login = f"{prefix}login:"
        self._timeout = timeout_seconds
        self._idle: list[Connection] = []
        self._greatest = 0
        self._asked_whether_it_keeps = False

    async def now(self) -> int:
        answer = await self._ask("TIME")
        assert isinstance(answer, list)
        return int(answer[0]) * 1_000_000 + int(answer[1])

    async def read(self, key: Key) -> bytes | None:
        if isinstance(key, str):
            answer = await self._ask("GET", self._login + key)
        else:
            answer = await self._ask("HGET", self._accounts, _field(key))
        return answer if isinstance(answer, bytes) else None

    async def swap(self, key: Key, seen: bytes | None, new: bytes, *, counts: bool = False, until: int = 0) -> bool:
        there = (int(seen is not None), seen or b"", new)
        if isinstance(key, str):
            answer = await self._ask("EVAL", _SWAP_LOGIN, 1, self._login + key, *there, until)
        else:
            keys = (self._accounts, self._version)
            answer = await self._ask("EVAL", _SWAP_ACCOUNT, 2, *keys, _field(key), *there, int(counts))
        return answer == 1

    async def version(self) -> int:
        known = self._greatest
        answer = await self._ask("GET", self._version)
        return self._noted(answer if isinstance(answer, bytes) else b"0", known)

    async def accounts(self) -> tuple[int, list[tuple[Account, bytes]]]:
        known = self._greatest
        answer = await self._ask("EVAL", _ALL, 2, self._accounts, self._version)
        assert isinstance(answer, list)
        version, *found = answer
        pairs = zip(found[::2], found[1::2], strict=True)
        return self._noted(version, known), [(_account(field), data) for field, data in pairs]

    async def close(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    def _noted(self, answer: bytes, known: int) -> int:
        """``known``: a version that there was before it was asked."""
        version = int(answer) if re.fullmatch(rb"[0-9]{1,18}", answer) else 0
        if version >= known:
            self._greatest = max(self._greatest, version)
        elif self._greatest >= known:
            # Told once, by whoever notices first.
            _log.error(
                "Redis has lost its last changes of accounts, or all of them: restore it from a backup, or sign in "
                "again; and set `appendonly yes` there, or keep accounts elsewhere (`oauth.store`)"
            )
            self._greatest = version
        return version

    async def _ask(self, *command: str | bytes | int) -> object:
        try:
            try:
                return await self._asked(command)
            except (RedisConnectionError, OSError) as error:
                if isinstance(error, (TimeoutError, RedisTimeoutError)):
                    raise
                # It may have been restarted since: the other connections are of no use either. Whatever is asked here may be
                # asked twice.
                await self.close()
                return await self._asked(command)
        except (RedisError, OSError) as error:
            raise _unavailable(error) from None

    async def _asked(self, command: _Command) -> object:
        connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = await self._connected()
            answer = await self._exchange(connection, command)
        except BaseException:
            # Its answer may be on its way.
            if connection is not None:
                await connection.disconnect(nowait=True)
            raise
        if len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
        else:
            await connection.disconnect(nowait=True)
        if isinstance(answer, RedisError):
            raise answer
        return answer

    async def _connected(self) -> Connection:
        connection: Connection = _pool(self._url()).make_connection()  # type: ignore[no-untyped-call]  # it has no types there
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
            if not self._asked_whether_it_keeps:
                told = await self._exchange(connection, ("INFO", "persistence"))
                self._asked_whether_it_keeps = True
                if isinstance(told, bytes) and b"aof_enabled:0" in told:
                    _log.warning(
                        "Redis keeps accounts in memory alone, and a restart of it signs all of them out: set `appendonly "
                        "yes` there, or keep accounts elsewhere (`oauth.store`)"
                    )
        except ResponseError as error:
            await connection.disconnect(nowait=True)
            # A server that does not know how to be signed in to repeats what it was sent.
            raise RedisError(f"it refuses the connection: {str(error).split(' ', 1)[0]}") from None
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _exchange(self, connection: Connection, command: _Command) -> object:
        async with asyncio.timeout(self._timeout):
            await connection.send_packed_command(connection.pack_commands([command]))
            try:
                return await connection.read_response()
            except ResponseError as error:
                return error


def _pool(url: str) -> ConnectionPool:
    try:
        return ConnectionPool.from_url(
            url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=None, client_name="sluice"
        )
    except ValueError:
        raise StoreUnavailable(
            "the accounts cannot be used: `redis.url` is not an address of Redis: write `redis://HOST:PORT/DATABASE`, with "
            "`rediss` for TLS"
        ) from None


def _field(account: Account) -> str:
    # Neither has a `/`.
    return "/".join(account)


def _account(field: bytes) -> Account:
    provider, _, name = field.decode(errors="replace").partition("/")
    return provider, name


def _unavailable(error: Exception) -> StoreUnavailable:
    match error:
        case TimeoutError() | RedisTimeoutError():
            why = "it does not answer in time (`redis.timeout_seconds`)"
        case AuthenticationError():
            why = "it refuses the user name or the password of `redis.url`"
        case _:
            # The client's errors hold the host and Redis's own words, and never the password.
            why = f"{type(error).__name__}: {error}"[:_LONGEST_DETAIL]
    return StoreUnavailable(f"the accounts in Redis cannot be used: {why}")
