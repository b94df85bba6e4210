"""Where the gateway listens: the address, the certificate, and what is open to whom."""

import asyncio
import errno
import http.client
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Literal
from urllib.parse import urlsplit

from tornado.netutil import bind_sockets

from config.checks import Address, parse_listen
from gateway.doctor import certificates
from gateway.doctor.context import Context
from gateway.doctor.report import Finding, Where, fault, fine, warning

_ALIVE = b'"alive"'
_ANSWER_SECONDS = 3.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  not bound here

Tenant = Literal["gateway", "stranger"]


async def check_certificate(context: Context) -> AsyncIterator[Finding]:
    """`server.tls`. That it can be read, and its key is its own, loading has told."""
    server = context.config.server
    if server.tls is None:
        return
    where = context.where("server", "tls", "cert")
    path = context.directory / server.tls.cert
    try:
        chain = certificates.read_chain(path.read_bytes())
    except (OSError, ValueError):
        # It was readable a moment ago, and is for OpenSSL.
        yield warning(where, f"the certificate {path} cannot be looked into", "write it anew, in PEM form")
        return
    renew = "renew it: the gateway takes the new file by itself"
    now = context.resources.clock.time()
    for number, certificate in enumerate(chain):
        whose = f"the certificate {path}" if number == 0 else f"certificate {number + 1} of the chain in {path}"
        for finding in certificates.validity(certificate, now, where, whose, renew):
            yield finding
    public = urlsplit(server.public_url or "")
    if public.scheme == "https" and public.hostname and not certificates.covers(chain[0], public.hostname):
        yield warning(
            where,
            f"the certificate is for {certificates.names(chain[0])}, and not for {public.hostname} of "
            "`server.public_url`",
            "have it made for that name; it may be right where a proxy before the gateway shows another",
        )


async def check_addresses(context: Context) -> AsyncIterator[Finding]:
    """`server.listen` and `management.listen`: free, or a gateway's already."""
    config = context.config
    listens = [(config.server.listen, ("server", "listen"))]
    if config.management.listen is not None:
        listens.append((config.management.listen, ("management", "listen")))
    for text, path in listens:
        if context.is_damaged(*path):
            continue
        tenant, finding = await _address(parse_listen(text), context.where(*path), tls=config.server.tls is not None)
        yield finding
        if path[0] == "server" and tenant == "gateway":
            context.runs_here = True


async def check_openness(context: Context) -> AsyncIterator[Finding]:
    """Keys that go over a network in the clear."""
    config = context.config
    key = "server" if config.management.listen is None else "management"
    address = parse_listen(config.management.listen or config.server.listen)
    public = config.server.public_url or ""
    if any(context.is_damaged(*path) for path in ((key, "listen"), ("server", "tls"), ("server", "public_url"))):
        return
    if _is_loopback(address.host) or config.server.tls is not None or public.startswith("https://"):
        return
    yield warning(
        context.where(key, "listen"),
        "the management is open to other machines, and its keys go there unencrypted",
        "listen on 127.0.0.1, or set `server.tls`; where a proxy before the gateway speaks HTTPS, say so by "
        "`server.public_url: https://…`",
    )


async def _address(address: Address, where: Where, *, tls: bool) -> tuple[Tenant | None, Finding]:
    shown = f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
    try:
        for bound in bind_sockets(address.port, address.host, backlog=1):
            bound.close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return await _taken(address, shown, where, tls=tls)
        if error.errno == errno.EACCES:
            mend = f"take a port above 1023, or allow it: `sysctl net.ipv4.ip_unprivileged_port_start={address.port}`"
            return None, fault(where, f"this user may not listen on {shown}", mend)
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            mend = "take an address that `ip addr` shows, `127.0.0.1`, or `0.0.0.0` for all"
            return None, fault(where, f"{shown} is no address of this machine", mend)
        return None, fault(where, f"cannot listen on {shown}: {error.strerror}", "take another address")
    return None, fine(f"{shown} is free to listen on", where)


async def _taken(address: Address, shown: str, where: Where, *, tls: bool) -> tuple[Tenant, Finding]:
    if await asyncio.to_thread(_is_gateway, _EVERYWHERE.get(address.host, address.host), address.port, tls):
        return "gateway", fine(f"a gateway answers at {shown} already", where)
    return "stranger", fault(
        where,
        f"another program has {shown}",
        f"end it (`ss -ltnp 'sport = :{address.port}'` names it), or listen on another port",
    )


def _is_gateway(host: str, port: int, tls: bool) -> bool:
    connection: http.client.HTTPConnection
    if tls:
        # This machine asks itself, most likely by an address that the certificate does not name.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=_ANSWER_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status == http.client.OK and _ALIVE in answer.read(1024)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
