"""HTTP for ``./sluice ctl``: one request, one answer, by the standard library."""

import http.client
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.ctl.errors import CtlError
from gateway.ctl.show import escaped
from gateway.version import VERSION

# A change waits for all workers, and a probe for its provider.
_TIMEOUT_SECONDS = 120.0
_EVENT_STREAM = "text/event-stream"


class Refused(CtlError):
    """The gateway's own refusal."""

    def __init__(self, message: str, code: str) -> None:
        """``code``: as on the wire."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; never a refusal."""

    status: int
    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes

    @property
    def is_json(self) -> bool:
        return self.headers.get("content-type", "").partition(";")[0] == "application/json"

    def json(self) -> Any:
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError as error:
            raise CtlError("the answer is not what a gateway gives: is --url the address of one?") from error

    def with_json(self, value: Any) -> "Answer":
        return replace(self, body=msgspec.json.encode(value))


class Client:
    """Asks the gateway at ``url``."""

    def __init__(self, url: str, *, key: str | None, ca: str | None) -> None:
        """
        Raises:
            CtlError: ``url`` is none, or ``ca`` holds no certificates.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise CtlError(f"{url} is not the address of a gateway: write --url http://host:port")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._prefix = parts.path.rstrip("/")
        self._key = key
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=ca)
            except (OSError, ssl.SSLError) as error:
                raise CtlError(f"--ca {ca}: no certificates can be read from it: {error}") from error
            self._connection = http.client.HTTPSConnection(
                parts.hostname, port, timeout=_TIMEOUT_SECONDS, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, port, timeout=_TIMEOUT_SECONDS)

    def ask(
        self,
        method: str,
        target: str,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        told: Callable[[bytes], object] = lambda _line: None,
    ) -> Answer:
        """``told`` gets the lines of a stream of events, whose answer has no body then.

        Raises:
            Refused: by the gateway; the message is its own.
            CtlError: it cannot be reached, or what answers is no gateway.
        """
        fields = {"user-agent": f"sluice-ctl/{VERSION}", **(headers or {})}
        if self._key is not None:
            fields["authorization"] = f"Bearer {self._key}"
        if body is not None:
            fields["content-type"] = body.media_type
        try:
            self._connection.request(method, self._prefix + target, None if body is None else body.data, fields)
            got = self._connection.getresponse()
            fields = {name.lower(): value for name, value in got.getheaders()}
            if got.status < 300 and fields.get("content-type") == _EVENT_STREAM:
                # It has no end: each line is passed on as it comes.
                for line in iter(got.readline, b""):
                    told(line)
            answer = Answer(got.status, fields, got.read())
        except ssl.SSLCertVerificationError as error:
            raise CtlError(
                f"{self.url} shows a certificate that is not trusted ({error.verify_message}): name its authority by --ca"
            ) from error
        except socket.gaierror as error:
            raise CtlError(f"{self.url} has no address: {error.strerror}") from error
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise CtlError(
                f"{self.url} cannot be asked: {why}; name a running gateway by --url or SLUICE_URL"
            ) from error
        finally:
            # One request a connection: nothing is sent a second time that might have arrived.
            self._connection.close()
        if answer.status >= 300:
            raise _refusal(answer, self.url)
        return answer


def _refusal(answer: Answer, url: str) -> CtlError:
    try:
        error = answer.json()["error"]
        code = str(error["code"])
        lines = [f"{code}: {error['message']}"]
        for fault in error.get("faults") or ():
            place = ":".join(str(fault[part]) for part in ("file", "line", "column") if fault[part])
            named = f"{fault['path']}: " if fault["path"] else ""
            lines.append(f"  {place}: {named}{fault['message']}" if place else f"  {named}{fault['message']}")
    except (CtlError, KeyError, TypeError, AttributeError):
        return CtlError(
            f"{url} answers {answer.status} in a form that is not a gateway's: is --url the address of one?"
        )
    return Refused("\n".join(escaped(line) for line in lines), code)
