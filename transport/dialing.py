"""Connections, made: names to addresses, addresses to a socket, a proxy asked, TLS set up."""

import asyncio
import itertools
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from core.errors import UpstreamError
from core.tasks import Tasks
from transport import failures
from transport.messages import ConnectionOptions
from transport.options import CannotConnect, TlsContexts, parse_proxy_url
from transport.private_addresses import PrivateAddress, require_public, require_public_name
from transport.proxy_connect import ask_proxy

NAME_CHECK_SECONDS: Final = 1.0
"""How long a name that the proxy resolves is looked up here first, where the provider may not be in a private network."""
STAGGER_SECONDS: Final = 0.25
"""Between the beginnings of two connection attempts (RFC 8305 section 5)."""

_MAX_NAMES: Final = 1024


class Address(NamedTuple):
    """Where a socket connects to."""

    family: socket.AddressFamily
    address: tuple[str, int] | tuple[str, int, int, int]


class Dialer:
    """Makes connections. One for a client."""

    def __init__(self, tasks: Tasks, contexts: TlsContexts | None = None) -> None:
        """``tasks`` has what runs beside the callers: look-ups that several wait for, attempts at several addresses.

        ``contexts`` are another dialer's, to read the system's authorities but once.
        """
        self._tasks = tasks
        self._names = Names(tasks)
        self.contexts = contexts or TlsContexts()

    async def dial(
        self,
        host: str,
        port: int,
        tls: bool,
        options: ConnectionOptions,
        protocol: asyncio.Protocol,
        dns_cache_seconds: float,
    ) -> None:
        """Connect ``protocol``. Has no clock of its own.

        Raises:
            core.errors.ConnectFailed, core.errors.ConnectTimeout: it could not be done.
            core.errors.PrivateAddressRefused: it may not be done.
        """
        peer = "provider"
        try:
            context = await self.contexts.of(options) if tls else None
            if options.proxy_url is None:
                way = await self._reach(host, port, dns_cache_seconds, options.allow_private)
                await _speak(way, lambda: protocol, context, host)
                return
            if not options.allow_private:
                await self._check_name(host, port, dns_cache_seconds)
            peer = "proxy"
            proxy = parse_proxy_url(options.proxy_url)
            proxy_context = await self.contexts.of_proxy(options) if proxy.tls else None
            way = await self._reach(proxy.host, proxy.port, dns_cache_seconds, options.allow_private_proxy)
            transport = await ask_proxy(
                lambda asking: _speak(way, lambda: asking, proxy_context, proxy.host), host, port, proxy.authorization
            )
            peer = "provider"
            await _continue(transport, protocol, context, host)
        except UpstreamError:
            raise
        except CannotConnect as error:
            raise failures.unusable_options() from error
        except PrivateAddress as error:
            raise failures.private_address(peer) from error
        except (OSError, ValueError, EOFError) as error:
            raise failures.connect_failure(error, peer) from error

    async def _reach(self, host: str, port: int, dns_cache_seconds: float, allow_private: bool) -> socket.socket:
        addresses = await self._names.addresses(host, port, dns_cache_seconds)
        if not allow_private:
            # The very addresses that are connected to: a name that comes to lead elsewhere is judged anew.
            require_public(address[0] for _, address in addresses)
        return await connect_first(addresses, self._tasks)

    async def _check_name(self, host: str, port: int, dns_cache_seconds: float) -> None:
        """As far as it can be known here where a proxy connects to: by the name, and by what it leads to here.

        Raises:
            PrivateAddress: to a private network.
        """
        require_public_name(host)
        try:
            async with asyncio.timeout(NAME_CHECK_SECONDS):
                addresses = await self._names.addresses(host, port, dns_cache_seconds)
        except (OSError, UnicodeError):  # which TimeoutError is
            # Where a proxy is needed, often the proxy alone can resolve the internet's names.
            return
        require_public(address[0] for _, address in addresses)


async def _speak(
    way: socket.socket, factory: Callable[[], asyncio.Protocol], context: ssl.SSLContext | None, host: str
) -> asyncio.Transport:
    """Put a protocol on a connected socket, TLS in between if there is a ``context``."""
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(
            factory, sock=way, ssl=context, server_hostname=_server_name(host) if context is not None else None
        )
    except BaseException:
        way.close()
        raise
    return transport


async def _continue(
    transport: asyncio.Transport, protocol: asyncio.Protocol, context: ssl.SSLContext | None, host: str
) -> None:
    """Put ``protocol`` on a tunnel."""
    if context is None:
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return
    try:
        inner = await asyncio.get_running_loop().start_tls(
            transport, protocol, context, server_hostname=_server_name(host)
        )
    except BaseException:
        transport.abort()
        raise
    if inner is None:
        raise ConnectionResetError
    protocol.connection_made(inner)


def _server_name(host: str) -> str:
    """As SNI and certificates have it: without the dot of a name that is absolute (RFC 6066 section 3)."""
    return host.removesuffix(".")


class LookUp(Protocol):
    """How addresses are found; ``loop.getaddrinfo``, narrowed."""

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        """In the resolver's order.

        Raises:
            OSError, UnicodeError: the name cannot be resolved.
        """
        ...


async def look_up(host: str, port: int) -> list[Address]:
    """:class:`LookUp` by the system's resolver, in a thread."""
    rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [Address(family, address) for family, _, _, _, address in rows]  # type: ignore[arg-type]  # of IP alone


class Names:
    """Names looked up off the event loop, each once at a time, and remembered for a little while."""

    def __init__(self, tasks: Tasks, look_up: LookUp = look_up) -> None:
        self._tasks = tasks
        self._look_up = look_up
        self._known: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        self._asked: dict[tuple[str, int], asyncio.Task[list[Address] | Exception]] = {}

    async def addresses(self, host: str, port: int, keep_seconds: float) -> list[Address]:
        """In the order to try them: families take turns (RFC 8305 section 4), as the resolver prefers them within.

        Raises:
            OSError, UnicodeError: the name cannot be resolved.
        """
        key = (host, port)
        loop = asyncio.get_running_loop()
        known = self._known.get(key)
        if known is not None and loop.time() < known[0]:
            return known[1]
        asking = self._asked.get(key)
        if asking is None:
            asking = self._asked[key] = self._tasks.spawn(self._ask(host, port), "name look-up")
            asking.add_done_callback(lambda _: self._asked.pop(key))
        # One of those that wait may go; the others still want to know.
        found = await asyncio.shield(asking)
        if isinstance(found, Exception):
            raise found.with_traceback(None)
        if keep_seconds > 0:
            if len(self._known) >= _MAX_NAMES:
                self._known.clear()
            self._known[key] = (loop.time() + keep_seconds, found)
        return found

    async def _ask(self, host: str, port: int) -> list[Address] | Exception:
        try:
            return in_turns(await self._look_up(host, port))
        except (OSError, UnicodeError) as error:
            return error


def in_turns(addresses: Sequence[Address]) -> list[Address]:
    """IPv6 and IPv4 alternating, the family of the first one first (RFC 8305 section 4)."""
    if not addresses:
        return []
    first = [one for one in addresses if one.family == addresses[0].family]
    others = [one for one in addresses if one.family != addresses[0].family]
    return [one for pair in itertools.zip_longest(first, others) for one in pair if one is not None]


async def connect_first(
    addresses: Sequence[Address], tasks: Tasks, stagger_seconds: float = STAGGER_SECONDS
) -> socket.socket:
    """A socket connected to the first address that answers: the next is tried when one fails, or has not answered for
    ``stagger_seconds``, while those before it may still win.

    Raises:
        OSError: none answers; what the first one said.
    """
    if len(addresses) == 1:
        return await _connect(addresses[0])
    waiting = list(addresses)
    running: set[asyncio.Task[socket.socket | OSError]] = set()
    refusals: list[OSError] = []
    winner: socket.socket | None = None
    try:
        while winner is None:
            if waiting:
                running.add(tasks.spawn(_attempt(waiting.pop(0)), "connection attempt"))
            elif not running:
                raise refusals[0] if refusals else OSError("no address")
            done, running = await asyncio.wait(
                running, timeout=stagger_seconds if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                result = task.result()
                if isinstance(result, OSError):
                    refusals.append(result)
                elif winner is None:
                    winner = result
                else:
                    result.close()
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_discard)
    return winner


def _discard(task: "asyncio.Task[socket.socket | OSError]") -> None:
    """Close the socket of an attempt that succeeded after all."""
    if not task.cancelled() and isinstance(link := task.result(), socket.socket):
        link.close()


async def _attempt(address: Address) -> socket.socket | OSError:
    try:
        return await _connect(address)
    except OSError as error:
        return error


async def _connect(address: Address) -> socket.socket:
    way = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        way.setblocking(False)
        # Requests go out as they are written, not when the last packet has been acknowledged.
        way.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(way, address.address)
    except BaseException:
        way.close()
        raise
    return way
