"""Reading a client's request: what it asks for, and its body in a form that can be sent on."""

import re
import zlib
from collections.abc import AsyncIterator
from urllib.parse import unquote

import msgspec

from core.errors import BodyTooLarge, GatewayError, InvalidRequest, UnsupportedMediaType
from proxy.body import Document, MalformedDocument, flag_member, text_member
from proxy.endpoints import Endpoint, ModelRule
from proxy.exchange import Exchange
from proxy.multipart import PREFIX_BYTES, Field, FieldFinder, MalformedMultipart, boundary_of

MAX_MODEL_LENGTH = 256

_CHARSET = re.compile(r"charset\s*=\s*([^;]*)", re.IGNORECASE)


class Limits(msgspec.Struct, frozen=True):
    """What a client may send."""

    max_body_bytes: int
    max_upload_bytes: int
    max_decompressed_bytes: int


class Splice(msgspec.Struct, frozen=True):
    """Bytes to put in the place of ``start`` to ``end``."""

    start: int
    end: int
    value: bytes

    def apply(self, data: bytes) -> bytes:
        return data[: self.start] + self.value + data[self.end :]

    @property
    def growth(self) -> int:
        return len(self.value) - (self.end - self.start)


class Upload:
    """A body too long to hold: its first bytes in memory, the rest read from the client when it is sent."""

    def __init__(
        self, exchange: Exchange, prefix: bytes, length: int | None, limits: Limits, models: FieldFinder | None
    ) -> None:
        """``length`` is the whole body's, when the client stated it; ``models`` has read the prefix, and reads on."""
        self._exchange = exchange
        self._prefix = prefix
        self._limits = limits
        self._models = models
        self.length = length
        self.consumed = False
        """Whether bytes beyond the prefix were taken: then the body cannot be sent again."""
        self.failure: GatewayError | None = None
        """The caller's fault that ended the reading, if one did."""

    async def pieces(self, splice: Splice | None = None) -> AsyncIterator[bytes]:
        """The body piece by piece, with ``splice`` applied to the prefix.

        Raises:
            CallerError: it is over its limit, stalls, or names its model again; kept in ``failure`` too.
        """
        yield self._prefix if splice is None else splice.apply(self._prefix)
        self.consumed = True
        try:
            while piece := await self._exchange.read():
                _require_upload_fits(self._exchange, self._limits)
                if self._models is not None:
                    _one_model(self._models, piece)
                yield piece
            if self._models is not None:
                _one_model(self._models, b"")
        except GatewayError as failure:
            self.failure = failure
            raise


class Inbound(msgspec.Struct):
    """What a client asked for."""

    model: str | None
    """As the client spelled it."""
    stream: bool = False
    document: Document | None = None
    """The body of a JSON request."""
    raw: bytes | None = None
    """A body in memory that is sent on as it is."""
    upload: Upload | None = None
    model_span: tuple[int, int] | None = None
    """Where a multipart body names its model."""
    decoded: bool = False
    """Whether a content coding was taken off."""


def _too_large(limit: int, key: str) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is over {limit} bytes: send less, or raise `{key}`")


def _require_upload_fits(exchange: Exchange, limits: Limits) -> None:
    if exchange.bytes_in > limits.max_upload_bytes:
        raise _too_large(limits.max_upload_bytes, "server.max_upload_bytes")


def _one_model(models: FieldFinder, piece: bytes) -> Field | None:
    """Read a ``piece`` of a multipart body, ``b""`` at its end; its model, once that has come whole.

    A model named again further on would be taken by some providers instead of the one that is checked here.

    Raises:
        InvalidRequest: the body is malformed, or names several models.
    """
    try:
        models.feed(piece) if piece else models.end()
    except MalformedMultipart as fault:
        raise InvalidRequest(str(fault), code="invalid_multipart") from None
    if len(models.fields) > 1:
        raise InvalidRequest("the body names its `model` twice: name it once", param="model", code="invalid_multipart")
    return models.fields[0] if models.fields else None


async def read_inbound(exchange: Exchange, endpoint: Endpoint, limits: Limits) -> Inbound:
    """Read what must be known of the request: a JSON body whole, of a multipart body 64 KiB, or as far as its model.

    Raises:
        CallerError: the body is missing, malformed, over a limit, of a wrong type, or names no model.
    """
    head = exchange.head
    if head.query:
        _require_plain_query(head.query)
    content_types = head.headers.get_all("content-type")
    if len(content_types) > 1:
        # Two opinions on what the body is: the provider may hold the other one.
        raise UnsupportedMediaType("the request states several content types: send one")
    content_type = content_types[0].strip() if content_types else ""
    essence, separator, parameters = content_type.partition(";")
    essence = essence.strip().lower()
    charset = _CHARSET.search(parameters) if separator else None
    if charset is not None and charset[1].strip(" \"'").lower() not in ("utf-8", "utf8", "us-ascii"):
        # The model is read here as UTF-8; a provider that honours another charset would read other names.
        raise UnsupportedMediaType("the content type states a charset other than UTF-8: send UTF-8")
    if len(head.headers.get_all("content-encoding")) > 1:
        raise UnsupportedMediaType("the request states several content codings: send one field")
    if head.method in ("GET", "DELETE"):
        raw = await _read_whole(exchange, limits)
        return Inbound(model=None, raw=raw or None)
    if endpoint.multipart and essence == "multipart/form-data":
        return await _read_multipart(exchange, endpoint, content_type, limits)
    if essence not in ("", "application/json"):
        wanted = "application/json or multipart/form-data" if endpoint.multipart else "application/json"
        raise UnsupportedMediaType(f"the content type is `{essence[:80]}`: send `content-type: {wanted}`")
    return await _read_json(exchange, endpoint, limits)


async def _read_json(exchange: Exchange, endpoint: Endpoint, limits: Limits) -> Inbound:
    coding = (exchange.head.headers.get("content-encoding") or "identity").strip().lower()
    body = await _read_whole(exchange, limits, coding)
    if not body and endpoint.model is ModelRule.NONE:
        return Inbound(model=None)
    try:
        document = Document(body)
    except MalformedDocument as fault:
        raise InvalidRequest(str(fault), code="invalid_json") from None
    _require_one_spelling(document, endpoint)
    model = checked_model(text_member(document, "model"), endpoint)
    return Inbound(
        model=model,
        stream=flag_member(document, "stream"),
        document=document,
        decoded=coding != "identity",
    )


def _require_one_spelling(document: Document, endpoint: Endpoint) -> None:
    """Some providers match names whatever their case: they would take `Model` for the model.

    Raises:
        InvalidRequest: there is a name that differs only so from one that decides what the caller may do.
    """
    names = "".join(document)
    if names == names.lower():
        return
    for name in document:
        lower = name.lower()
        if name == lower:
            continue
        if endpoint.model is not ModelRule.NONE and lower == "model":
            raise InvalidRequest(f"`{name}` is not a member: write `model`", param=name, code="invalid_model")
        if any(lower == member for member, _ in endpoint.granted_members):
            raise InvalidRequest(f"`{name}` is not a member: write `{lower}`", param=name)


def _require_plain_query(query: str) -> None:
    """
    Raises:
        InvalidRequest: the query cannot be sent on, or holds what belongs into the body or a header.
    """
    if not query.isascii():
        raise InvalidRequest("the query has characters outside of ASCII: percent-encode them")
    for part in query.split("&"):
        name = unquote(part.partition("=")[0]).strip().lower()
        if name == "model":
            raise InvalidRequest("name the `model` in the body, not in the query", param="model")
        if name in ("key", "api_key", "api-key", "access_token"):
            raise InvalidRequest("send the API key in a header, not in the query: addresses end up in logs")


def checked_model(model: str | None, endpoint: Endpoint) -> str | None:
    """The model as the endpoint wants it named.

    Raises:
        InvalidRequest: it is missing though required, empty, or too long.
    """
    if endpoint.model is ModelRule.NONE:
        return None
    if model is None and endpoint.model is ModelRule.OPTIONAL:
        return None
    if not model:
        raise InvalidRequest("name a `model`: GET /v1/models lists yours", param="model", code="missing_model")
    if len(model) > MAX_MODEL_LENGTH:
        raise InvalidRequest(f"`model` is over {MAX_MODEL_LENGTH} characters", param="model", code="invalid_model")
    return model


async def _read_whole(exchange: Exchange, limits: Limits, coding: str = "identity") -> bytes:
    limit = limits.max_body_bytes
    if (stated := _stated_length(exchange)) is not None and stated > limit:
        raise _too_large(limit, "server.max_body_bytes")
    decode = _decoder(coding, limits.max_decompressed_bytes)
    pieces: list[bytes] = []
    size = 0
    while piece := await exchange.read():
        if exchange.bytes_in > limit:
            raise _too_large(limit, "server.max_body_bytes")
        if decode is not None:
            piece = decode.feed(piece)
        size += len(piece)
        pieces.append(piece)
    if decode is not None:
        decode.end()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _stated_length(exchange: Exchange) -> int | None:
    text = exchange.head.headers.get("content-length")
    return int(text) if text is not None and text.isdecimal() else None


class _Inflate:
    """A gzip or zlib body, decompressed with a ceiling (RFC 9110 section 8.4.1)."""

    def __init__(self, limit: int) -> None:
        # 32: the header tells gzip and zlib apart.
        self._stream = zlib.decompressobj(32 + zlib.MAX_WBITS)
        self._limit = limit
        self._size = 0

    def feed(self, piece: bytes) -> bytes:
        try:
            # One byte over the limit is enough to know, however much more a bomb would give.
            data = self._stream.decompress(piece, self._limit - self._size + 1)
        except zlib.error:
            raise InvalidRequest("the body is not what its `content-encoding` says", code="invalid_encoding") from None
        self._size += len(data)
        if self._size > self._limit:
            raise BodyTooLarge(
                f"the request body is over {self._limit} bytes once decompressed: send less, "
                "or raise `server.max_decompressed_bytes`"
            )
        return data

    def end(self) -> None:
        if not self._stream.eof or self._stream.unused_data:
            raise InvalidRequest("the compressed body is cut or has bytes after its end", code="invalid_encoding")


def _decoder(coding: str, limit: int) -> _Inflate | None:
    if coding == "identity":
        return None
    if coding in ("gzip", "x-gzip", "deflate"):
        return _Inflate(limit)
    raise UnsupportedMediaType(f"`content-encoding: {coding[:40]}` is not read here: send gzip, deflate or none")


async def _read_multipart(exchange: Exchange, endpoint: Endpoint, content_type: str, limits: Limits) -> Inbound:
    if exchange.head.headers.get("content-encoding") not in (None, "identity"):
        raise UnsupportedMediaType("a multipart body is taken without `content-encoding` only")
    models: FieldFinder | None = None
    if endpoint.model is not ModelRule.NONE:
        try:
            models = FieldFinder(boundary_of(content_type), "model")
        except MalformedMultipart as fault:
            raise InvalidRequest(str(fault), code="invalid_multipart") from None
    length = _stated_length(exchange)
    if length is not None and length > limits.max_upload_bytes:
        raise _too_large(limits.max_upload_bytes, "server.max_upload_bytes")
    pieces: list[bytes] = []
    size = 0
    whole = False
    field: Field | None = None
    # Many clients put the file first: what stands before the model is held as a JSON body is.
    while not whole and (size < PREFIX_BYTES or (models is not None and field is None)):
        if size > limits.max_body_bytes:
            raise InvalidRequest(
                f"name the `model` within the first {limits.max_body_bytes} bytes: put its field before the file",
                param="model",
                code="missing_model",
            )
        piece = await exchange.read()
        _require_upload_fits(exchange, limits)
        whole = not piece
        size += len(piece)
        pieces.append(piece)
        if models is not None:
            field = _one_model(models, piece)
    prefix = b"".join(pieces)
    return Inbound(
        model=checked_model(None if field is None else _text(field), endpoint),
        raw=prefix if whole else None,
        upload=None if whole else Upload(exchange, prefix, length, limits, models),
        model_span=None if field is None else (field.start, field.end),
    )


def _text(field: Field) -> str:
    try:
        return field.value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("`model` is not UTF-8", param="model", code="invalid_model") from None


class _Item(msgspec.Struct):
    type: object = None


_ITEMS = msgspec.json.Decoder(list[_Item])


def refers_to_stored_items(document: Document) -> bool:
    """Whether `input` names items that the provider has stored, whoever stored them."""
    raw = document.raw("input")
    if raw is None or not raw.startswith(b"["):
        return False
    try:
        items = _ITEMS.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not a list of objects: no API of this kind takes it.
        return False
    return any(item.type == "item_reference" for item in items)
