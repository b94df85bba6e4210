"""A proxy, asked for a tunnel to a provider: CONNECT (RFC 9110 section 9.3.6)."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final

from core.errors import ConnectFailed, Delivered

_MAX_ANSWER_BYTES: Final = 16 * 1024
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([2-5][0-9]{2})(?: [^\r\n]*)?\r\n")
_CREDENTIALS_REFUSED: Final = 407

Speak = Callable[[asyncio.Protocol], Awaitable[asyncio.Transport]]


async def ask_proxy(speak: Speak, host: str, port: int, authorization: str | None) -> asyncio.Transport:
    """The tunnel, over which nothing has been said yet. ``speak`` puts a protocol on the connection to the proxy.

    Raises:
        core.errors.ConnectFailed: the proxy does not do it.
        OSError: the connection to the proxy failed.
    """
    asking = _Asking()
    transport = await speak(asking)
    try:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
        if authorization is not None:
            lines.append(f"Proxy-Authorization: {authorization}")
        transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        status = await asking.answer
    except BaseException:
        transport.abort()
        raise
    if 200 <= status < 300:
        return transport
    transport.abort()
    if status == _CREDENTIALS_REFUSED:
        raise _failed("The proxy wants other credentials than the gateway has for it.")
    raise _failed(f"The proxy refused the connection to the provider with status {status}.")


class _Asking(asyncio.Protocol):
    """Waits for the head of the proxy's answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._came = bytearray()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        if self.answer.done():
            # What is behind a head that was whole already: said too early by somebody, and it would be lost here.
            if self._transport is not None:
                self._transport.close()
            return
        self._came += data
        end = self._came.find(b"\r\n\r\n")
        if end < 0:
            if len(self._came) > _MAX_ANSWER_BYTES:
                self._refuse("The proxy's answer is too large.")
            return
        line = _STATUS_LINE.match(self._came)
        if line is None:
            self._refuse("The proxy's answer is not valid HTTP.")
        elif len(self._came) > end + 4 and int(line[1]) < 300:
            self._refuse("The proxy sent bytes that do not belong there.")
        else:
            self.answer.set_result(int(line[1]))

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        if not self.answer.done():
            self.answer.set_exception(exc if isinstance(exc, OSError) else ConnectionResetError())

    def _refuse(self, message: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(_failed(message))


def _failed(message: str) -> ConnectFailed:
    return ConnectFailed(message, delivered=Delivered.NO)
