"""A proxy that knows CONNECT alone, in the process of the test."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.tasks import Tasks


class ConnectProxy:
    """Makes tunnels. ``answer`` replaces its answer to CONNECT, after which it hangs up."""

    def __init__(self, user_password: str | None, answer: bytes | None) -> None:
        self.heads: list[bytes] = []
        """What it was asked, heads as they came."""
        self.port = 0
        self._wanted = (
            None if user_password is None else b"proxy-authorization: basic " + base64.b64encode(user_password.encode())
        )
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self._wanted is not None and self._wanted.lower() not in head.lower():
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\n\r\n")
            elif self._answer is not None:
                writer.write(self._answer)
                await writer.drain()
            else:
                await self._tunnel(head, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _tunnel(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = head.split()[1].decode().rpartition(":")
        try:
            out_reader, out_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\nvia: 1.1 test\r\n\r\n")
        try:
            await asyncio.gather(_pipe(reader, out_writer), _pipe(out_reader, writer))
        finally:
            out_writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def connect_proxy(
    *, user_password: str | None = None, tls: ssl.SSLContext | None = None, answer: bytes | None = None
) -> AsyncIterator[ConnectProxy]:
    proxy = ConnectProxy(user_password, answer)
    tasks = Tasks()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.spawn(proxy.serve(reader, writer), "proxied connection")

    listener = await asyncio.start_server(accept, "localhost", 0, ssl=tls)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()
        await tasks.cancel()
        await listener.wait_closed()
