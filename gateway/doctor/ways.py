"""The way to a server, step by step: its name, a connection, the certificate."""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from typing import cast

import msgspec

from core.errors import ConnectTimeout, UpstreamError
from gateway.doctor import certificates
from gateway.doctor.context import SECONDS, Context
from gateway.doctor.report import Finding, Severity, Where, fault, fine
from transport.messages import ConnectionOptions
from transport.options import CannotConnect, parse_proxy_url
from transport.private_addresses import PrivateAddress

# Of X509_verify_cert (OpenSSL's x509_vfy.h).
_NOT_YET_VALID = 9
_EXPIRED = 10
_WRONG_NAMES = frozenset({62, 64})
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})


class Server(msgspec.Struct, frozen=True):
    """Who is to be reached, and the keys of the configuration that say how."""

    whose: str
    """For people: "the provider `openai`"."""
    host: str
    port: int
    tls: bool
    where: Where
    """The key of its address."""
    options: ConnectionOptions
    ca_key: str
    """The key that names the authorities to trust."""
    proxy_where: Where = Where()


async def look(context: Context, server: Server) -> AsyncIterator[Finding]:
    """Go the way to ``server``: one fault where it ends, or what is good about it."""
    if server.options.proxy_url is not None:
        lost = await _look_at_proxy(context, server)
        if lost is not None:
            yield lost
            return
    arrival = _Arrival()
    address = f"{server.host}:{server.port}"
    failed = await _dial(context, server.host, server.port, server.tls, server.options, arrival)
    if failed is not None:
        yield explain(failed, server)
        return
    yield fine(f"{server.whose} is reached at {address}", server.where)
    if arrival.certificate is not None:
        renew = f"whoever runs {server.host} must renew it"
        certificate = certificates.read_der(arrival.certificate)
        whose = f"the certificate of {server.host}"
        for finding in certificates.validity(certificate, context.resources.clock.time(), server.where, whose, renew):
            yield finding


def leads_there(findings: list[Finding]) -> bool:
    """Whether :func:`look` has come through."""
    return all(finding.severity is not Severity.FAULT for finding in findings)


class _Arrival(asyncio.Protocol):
    """Connects, and takes the certificate."""

    def __init__(self) -> None:
        self.certificate: bytes | None = None
        self._transport: asyncio.BaseTransport | None = None
        self._gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        self._transport = transport
        session = transport.get_extra_info("ssl_object")
        if session is not None:
            self.certificate = session.getpeercert(binary_form=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self._gone.set_result(None)

    async def leave(self) -> None:
        """End the connection, if there is one."""
        if self._transport is not None:
            cast(asyncio.WriteTransport, self._transport).abort()
            await self._gone


async def _dial(
    context: Context, host: str, port: int, tls: bool, options: ConnectionOptions, arrival: _Arrival
) -> UpstreamError | TimeoutError | None:
    try:
        async with asyncio.timeout(SECONDS.connect_seconds):
            await context.dialer.dial(host, port, tls, options, arrival, 60.0)
    except (UpstreamError, TimeoutError) as error:
        return error
    finally:
        await arrival.leave()
    return None


async def _look_at_proxy(context: Context, server: Server) -> Finding | None:
    assert server.options.proxy_url is not None
    try:
        proxy = parse_proxy_url(server.options.proxy_url)
    except CannotConnect as error:
        return fault(server.proxy_where, str(error), "write `http://host:port` (or https)")
    options = ConnectionOptions(None, server.options.ca_file)
    failed = await _dial(context, proxy.host, proxy.port, proxy.tls, options, _Arrival())
    if failed is None:
        return None
    return explain(
        failed,
        Server(
            f"the proxy on the way to {server.whose}",
            proxy.host,
            proxy.port,
            proxy.tls,
            server.proxy_where,
            options,
            server.ca_key,
        ),
    )


def explain(error: UpstreamError | TimeoutError, server: Server) -> Finding:
    """Why the way to ``server`` ends, and what to do about it."""
    where, address = server.where, f"{server.host}:{server.port}"
    if isinstance(error, TimeoutError | ConnectTimeout):
        return fault(
            where,
            f"{server.whose} does not answer at {address} within {SECONDS.connect_seconds:g} s",
            "look at firewalls between this machine and it; if a proxy must be used, name it in `proxy_url`",
        )
    match error.__cause__:
        case PrivateAddress() as private:
            return fault(
                where,
                f"{server.whose} may not be connected to: {private}, and its `allow_private` is false",
                "set `allow_private: true` if it is meant to be in a private network, else correct its host",
            )
        case socket.gaierror() | UnicodeError():
            return fault(
                where,
                f"the name {server.host} of {server.whose} cannot be resolved",
                f"correct the name, or the DNS of this machine: `getent hosts {server.host}` must print an address",
            )
        case ssl.SSLCertVerificationError() as refused:
            return _untrusted(refused, server)
        case ssl.SSLError() as broken:
            if broken.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
                mend = f"write `http://{address}…` if plain HTTP is meant, else the port of HTTPS"
                return fault(where, f"{server.whose} speaks no TLS at {address}", mend)
            return fault(
                where,
                f"TLS with {server.whose} cannot be set up ({(broken.reason or 'no reason').replace('_', ' ').lower()})",
                "it may want a certificate of the gateway's (`tls.cert`, `tls.key`), or speak versions older than 1.2",
            )
        case OSError(errno=errno.ECONNREFUSED):
            return fault(
                where,
                f"{server.whose} refuses connections at {address}",
                "start it, or correct its host and port",
            )
        case None:
            # Said by the proxy; the transport's own words, without an address.
            return fault(
                server.proxy_where if server.options.proxy_url is not None else where,
                f"{server.whose} cannot be reached: {error}",
                "correct the user and password in `proxy_url`, or have the proxy allow it",
            )
    return fault(
        where,
        f"{server.whose} cannot be reached at {address}: {error}",
        "look at routes and firewalls between this machine and it",
    )


def _untrusted(refused: ssl.SSLCertVerificationError, server: Server) -> Finding:
    where, whose = server.where, f"the certificate of {server.whose} at {server.host}"
    if refused.verify_code == _EXPIRED:
        return fault(where, f"{whose} has expired", "renew it, and check this machine's clock with `date -u`")
    if refused.verify_code == _NOT_YET_VALID:
        return fault(
            where, f"{whose} is not valid yet", "check this machine's clock with `date -u`, and the certificate"
        )
    if refused.verify_code in _WRONG_NAMES:
        return fault(
            where, f"{whose} is for other names", "write the name that it is for, or have it made for this one"
        )
    if refused.verify_code in _UNKNOWN_AUTHORITY:
        return fault(
            where,
            f"{whose} comes from an authority that is not trusted here",
            f"name the authority's PEM file in `{server.ca_key}`; if the server sends no intermediate certificates, "
            "have it send its whole chain",
        )
    return fault(where, f"{whose} is not good: {refused.verify_message}", "have it renewed")
