"""Forms to endpoints and JSON from them, over the gateway's own transport; everything that the other side may do is bounded.

Used by every kind of credential that asks a server for a token. What a server says of an error is repeated as far as it is
OAuth's: the `error` code, and a cut `error_description` that holds nothing of what was sent.
"""

import asyncio
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec

from core.clock import Clock
from core.errors import UpstreamError
from core.headers import Headers
from core.retry_after import parse_retry_after
from credentials.errors import CredentialRefused, CredentialUnavailable
from transport.messages import STRAIGHT, Clocks, ConnectionOptions, UpstreamClient, UpstreamRequest, UpstreamResponse

MAX_ANSWER_BYTES: Final = 1 << 20
MAX_SHOWN_CHARS: Final = 200
"""Of what a server says, where it is repeated."""
MAX_RETRY_AFTER_SECONDS: Final = 3600.0
"""A server that asks for more is asked again after this; nobody is told to wait for years."""

_CODE = re.compile(r"[A-Za-z0-9._:/-]{1,64}\Z")
_SECRET_PIECE_CHARS = 8
"""So many characters in a row of something secret are too many to be shown."""
_BUSY_STATUSES = frozenset({408, 425, 429})

_decoder = msgspec.json.Decoder(dict[str, object])


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How the endpoints of one server are reached."""

    whose: str
    """Begins messages, such as ``OAuth provider `company` ``."""
    client: UpstreamClient
    options: ConnectionOptions = STRAIGHT
    clock: Clock
    timeout_seconds: float = 30.0
    """For an answer, from the first look at a name to its last byte."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that has come whole; of JSON, or of no use."""

    status: int
    document: dict[str, object] | None
    """None: it is no JSON object."""
    retry_after_seconds: float | None = None
    code: str | None = None
    """Of an error, where it is OAuth's or looks alike."""
    description: str | None = None
    """What the server says of it, fit to be shown."""

    def __repr__(self) -> str:
        # The document has tokens.
        return f"<answer {self.status} {self.code or ''}>"

    @property
    def busy(self) -> bool:
        """Whether the same may succeed later."""
        return self.status in _BUSY_STATUSES or self.status >= 500 or self.code in _LATER

    @property
    def said(self) -> str:
        """For a message: the error, or the status where there is none."""
        if self.code is None:
            return f"status {self.status}"
        return f"`{self.code}`" + (f": {self.description}" if self.description else "")


_LATER = frozenset(
    {"temporarily_unavailable", "server_error", "slow_down"}
)  # RFC 6749 section 4.1.2.1, RFC 8628 section 3.5


def is_safe(url: str) -> bool:
    """Whether secrets may be sent to ``url``: by https, or without leaving this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    if parts.scheme != "http":
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


async def post_form(
    way: Way,
    what: str,
    url: str,
    form: Mapping[str, str] | str,
    *,
    secrets: Sequence[str] = (),
    authorization: str | None = None,
) -> Answer:
    """Send ``form``, as it is where it is encoded already.

    ``what`` names the endpoint in messages. ``secrets``: what may not come back in the words of an error.

    Raises:
        CredentialRefused: the address is of no use.
        CredentialUnavailable: there is no answer, or none that can be read.
    """
    body = form if isinstance(form, str) else urlencode(form)
    headers = [("content-type", "application/x-www-form-urlencoded")]
    if authorization is not None:
        headers.append(("authorization", authorization))
        secrets = (*secrets, authorization.rpartition(" ")[2])
    return await _exchange(way, what, "POST", url, headers, body.encode(), secrets)


async def post_json(
    way: Way, what: str, url: str, document: Mapping[str, str], *, secrets: Sequence[str] = ()
) -> Answer:
    """The same of JSON."""
    body = msgspec.json.encode(document)
    return await _exchange(way, what, "POST", url, [("content-type", "application/json")], body, secrets)


async def get_json(way: Way, what: str, url: str) -> Answer:
    """Ask for a document. Raises as :func:`post_form` does."""
    return await _exchange(way, what, "GET", url, [], None, ())


async def _exchange(
    way: Way,
    what: str,
    method: str,
    url: str,
    headers: list[tuple[str, str]],
    body: bytes | None,
    secrets: Sequence[str],
) -> Answer:
    if not is_safe(url):
        raise CredentialRefused(
            f"{way.whose}: its {what} is not an https address: write one; http is for this machine alone"
        )
    seconds = way.timeout_seconds
    fields = Headers(
        (("accept", "application/json"), ("accept-encoding", "identity"), ("user-agent", "sluice"), *headers)
    )
    request = UpstreamRequest(method, url, fields, body, None, Clocks(seconds, seconds, seconds), way.options)
    try:
        async with asyncio.timeout(seconds):
            answer = await way.client.send(request)
            try:
                content = await _read(answer)
            finally:
                answer.close()
    except TimeoutError:
        raise CredentialUnavailable(f"{way.whose}: its {what} has not answered within {seconds:g} seconds") from None
    except UpstreamError as error:
        raise CredentialUnavailable(f"{way.whose}: its {what} cannot be reached: {_lower(str(error))}") from error
    if content is None:
        raise CredentialUnavailable(
            f"{way.whose}: its {what} answers with more than {MAX_ANSWER_BYTES} bytes: see that it is the right address"
        )
    if 300 <= answer.status < 400:
        raise CredentialRefused(
            f"{way.whose}: its {what} answers with a redirect (status {answer.status}), which is not followed: "
            "write the address that it leads to"
        )
    return _answer(answer, content, secrets, way.clock)


async def _read(answer: UpstreamResponse) -> bytes | None:
    """The body; None: it is too long."""
    content = bytearray()
    while piece := await answer.read():
        content += piece
        if len(content) > MAX_ANSWER_BYTES:
            return None
    return bytes(content)


def _answer(answer: UpstreamResponse, content: bytes, secrets: Sequence[str], clock: Clock) -> Answer:
    try:
        document = _decoder.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        document = None
    code, description = error_of(document or {}, secrets)
    asked = parse_retry_after(answer.headers.get("retry-after"), clock.time())
    return Answer(
        status=answer.status,
        document=document,
        retry_after_seconds=None if asked is None else min(asked, MAX_RETRY_AFTER_SECONDS),
        code=code,
        description=description,
    )


def error_of(document: Mapping[str, object], secrets: Sequence[str]) -> tuple[str | None, str | None]:
    """Code and description (RFC 6749 section 5.2), also of those who put them into an object of their own."""
    error, description = document.get("error"), document.get("error_description")
    if isinstance(error, dict):
        parts: dict[str, object] = error
        error = next((part for key in ("code", "type") if isinstance(part := parts.get(key), str)), "error")
        description = parts.get("message")
    if not isinstance(error, str):
        return None, None
    fits = _CODE.match(error) is not None and not _tells(error, secrets)
    return error if fits else "error", shown(description, secrets)


def shown(text: object, secrets: Sequence[str] = ()) -> str | None:
    """``text`` of a server, cut and printable; None where it is none, or tells something of ``secrets``."""
    # Cut first: of a megabyte that is held against a long token the event loop would not come back for seconds.
    cut = text[:MAX_SHOWN_CHARS] if isinstance(text, str) else ""
    if _tells(cut, secrets):
        return None
    return "".join(char if char.isprintable() else " " for char in cut).strip() or None


def _tells(text: str, secrets: Sequence[str]) -> bool:
    for secret in secrets:
        size = min(len(secret), _SECRET_PIECE_CHARS)
        if size and any(text[start : start + size] in secret for start in range(len(text) - size + 1)):
            return True
    return False


def _lower(text: str) -> str:
    return (text[:1].lower() + text[1:]).rstrip(".")
