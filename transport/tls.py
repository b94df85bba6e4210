"""TLS at the listener, with certificate files that may be renewed at any time."""

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from core.clock import SystemClock
from transport.options import may_block

_log = logging.getLogger("sluice.server")

_LOOK_SECONDS = 1.0
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

_Stamp = tuple[tuple[int, int, int], ...]


class CannotUseCertificate(Exception):
    """The certificate or its key cannot be used; the message names the file and says why."""


class ServerTls:
    """Certificate and key of a listener. Handshakes that have begun keep the context that they began with."""

    def __init__(
        self,
        cert: Path,
        key: Path,
        minimum: Literal["1.2", "1.3"] = "1.2",
        monotonic: Callable[[], float] = SystemClock.monotonic,
    ) -> None:
        """
        Raises:
            CannotUseCertificate: the files cannot be read, or do not fit each other.
        """
        self._cert = cert
        self._key = key
        self._minimum = _VERSIONS[minimum]
        self._monotonic = monotonic
        self._looked_at = monotonic()
        # Before the files are read: what changes meanwhile is seen the next time.
        self._stamp: _Stamp | None = self._read_stamp()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """For a new connection. Looks after renewed files, at most once a second; unusable ones are told of once."""
        now = self._monotonic()
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            stamp = self._read_stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._context = self._load()
                    _log.info("the certificate %s was renewed", self._cert)
                except CannotUseCertificate as error:
                    _log.error("%s; the former certificate stays in use", error)
        return self._context

    def _read_stamp(self) -> _Stamp | None:
        try:
            files = [path.stat() for path in (self._cert, self._key)]
        except OSError:
            return None
        return tuple((file.st_ino, file.st_mtime_ns, file.st_size) for file in files)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        # RFC 7301. HTTP/2 is not spoken here.
        context.set_alpn_protocols(["http/1.1"])
        # RFC 9325 section 3.3 and 3.4: what compression and renegotiation have cost before.
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        for path in (self._cert, self._key):
            try:
                if may_block(path):
                    raise CannotUseCertificate(f"cannot read {path}: it is not a file")
                with path.open("rb"):
                    pass
            except OSError as error:
                raise CannotUseCertificate(f"cannot read {path}: {error.strerror}") from None
        try:
            # An empty password, so that OpenSSL asks nobody for that of an encrypted key.
            context.load_cert_chain(self._cert, self._key, password="")
        except (ssl.SSLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            raise CannotUseCertificate(
                f"cannot use the certificate {self._cert} with the key {self._key}: {reason}; "
                "both must be PEM files, the key unencrypted and the certificate's own"
            ) from None
        return context
