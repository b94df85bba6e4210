"""What :class:`transport.messages.ConnectionOptions` come to: TLS contexts, and the address of a proxy."""

import asyncio
import base64
import ssl
import stat
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from core.secret import Secret
from transport.messages import STRAIGHT, ConnectionOptions

_MAX_CONTEXTS: Final = 256


class CannotConnect(ValueError):
    """Connection options that nothing can be reached with. ``key`` says which: `ca`, `cert`, `key` or `proxy_url`."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class ProxyAddress(msgspec.Struct, frozen=True):
    """A proxy, and what it is told."""

    tls: bool
    host: str
    port: int
    authorization: str | None
    """Value of `Proxy-Authorization`."""

    def __repr__(self) -> str:
        return "<proxy>"


def parse_proxy_url(secret: Secret) -> ProxyAddress:
    """
    Raises:
        CannotConnect: not the address of a proxy.
    """
    text = secret.reveal().strip()
    fault = CannotConnect("proxy_url", "not the address of a proxy: write `http://host:port` (or https)")
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        # The parser's own words may repeat a piece of it.
        raise fault from None
    if url.scheme not in ("http", "https") or not host or port == 0 or not text.isascii() or not text.isprintable():
        raise fault
    authorization = None
    if url.username is not None or url.password is not None:
        pair = unquote_to_bytes(url.username or "") + b":" + unquote_to_bytes(url.password or "")
        authorization = f"Basic {base64.b64encode(pair).decode()}"  # RFC 7617 section 2
    tls = url.scheme == "https"
    return ProxyAddress(tls, host, port or (443 if tls else 80), authorization)


def check_connection_options(options: ConnectionOptions) -> None:
    """Read what ``options`` name, to say early what cannot be used. Touches files; not for the request path.

    Raises:
        CannotConnect: one of them is missing, unreadable, or not what it should be.
    """
    if options.proxy_url is not None:
        parse_proxy_url(options.proxy_url)
    if options.ca_file is not None:
        _make_context(options)
    else:
        # Without the system's authorities: they are not the options' fault, and take long to read.
        _show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), options)


class TlsContexts:
    """A context for each set of options, made once and again when its files have changed, off the event loop."""

    def __init__(self) -> None:
        # At once, for to read the system's authorities takes tens of milliseconds that no request should wait for.
        self._usual = _make_context(STRAIGHT)
        self._kept: dict[ConnectionOptions, _Kept] = {}

    async def of(self, options: ConnectionOptions) -> ssl.SSLContext:
        """The context for a provider.

        Raises:
            CannotConnect: its files cannot be used.
        """
        files = ConnectionOptions(None, options.ca_file, options.cert_file, options.key_file)
        if files == STRAIGHT:
            return self._usual
        kept = self._kept.get(files)
        fresh = await asyncio.get_running_loop().run_in_executor(None, _refreshed, files, kept)
        if fresh is not kept:
            if len(self._kept) >= _MAX_CONTEXTS:
                self._kept.clear()
            self._kept[files] = fresh
        return fresh[1]

    async def of_proxy(self, options: ConnectionOptions) -> ssl.SSLContext:
        """The context for the way to a proxy: a certificate of ours is not for it.

        Raises:
            CannotConnect: its files cannot be used.
        """
        return await self.of(ConnectionOptions(None, options.ca_file))


_Kept = tuple[object, ssl.SSLContext]


def _refreshed(options: ConnectionOptions, kept: _Kept | None) -> _Kept:
    stamp = [_stamp(name) for name in (options.ca_file, options.cert_file, options.key_file) if name is not None]
    if kept is not None and kept[0] == stamp:
        return kept
    return stamp, _make_context(options)


def _stamp(name: str) -> object:
    """What differs when the file has been written or replaced."""
    try:
        state = Path(name).stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size


def may_block(path: str | Path) -> bool:
    """Whether to read it may take for ever: a pipe or a device. What is not there is told by whoever reads it."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _require_file(key: str, what: str, name: str) -> None:
    if may_block(name):
        raise CannotConnect(key, f"{what} cannot be read: it is not a file")


def _make_context(options: ConnectionOptions) -> ssl.SSLContext:
    if options.ca_file is not None:
        _require_file("ca", "the authorities", options.ca_file)
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except OSError as error:  # which ssl.SSLError is
        raise CannotConnect("ca", f"the authorities cannot be read: {_said(error)}") from error
    context.set_alpn_protocols(["http/1.1"])
    _show(context, options)
    return context


def _show(context: ssl.SSLContext, options: ConnectionOptions) -> None:
    if options.cert_file is None:
        return
    _require_file("cert", "the certificate", options.cert_file)
    if options.key_file is not None:
        _require_file("key", "the certificate's key", options.key_file)
    try:
        if b"-----BEGIN CERTIFICATE-----" not in Path(options.cert_file).read_bytes():
            raise CannotConnect("cert", "the certificate is not in PEM form")
    except OSError as error:
        raise CannotConnect("cert", f"the certificate cannot be read: {_said(error)}") from error
    try:
        context.load_cert_chain(options.cert_file, options.key_file, password=_no_password)
    except (OSError, ValueError) as error:
        key = "cert" if options.key_file is None else "key"
        raise CannotConnect(key, f"the certificate's key cannot be used: {_said(error)}") from error


def _no_password() -> str:
    # Without this OpenSSL asks at the terminal.
    raise ValueError("it is encrypted; write it without a password")


def _said(error: Exception) -> str:
    """Of an error of the file system or of OpenSSL, the cause without the path."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is not in PEM form").replace("_", " ").lower()
    return (error.strerror or "unknown cause").lower() if isinstance(error, OSError) else str(error)
