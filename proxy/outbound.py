"""A client's request on its way out: the body as each target wants it."""

from collections.abc import AsyncIterator
from functools import cached_property

import msgspec

from core.errors import GatewayError
from proxy.body import Document, MalformedDocument
from proxy.endpoints import Endpoint, upstream_path
from proxy.exchange import RequestHead
from proxy.headers import forwarded_request_headers
from proxy.intake import Inbound, Splice
from proxy.providers.base import Call
from routing.plan import Plan
from transport.messages import Clocks, ConnectionOptions, Pieces

Body = bytes | Pieces | AsyncIterator[bytes] | None


class Outbound:
    """Gives the call for each attempt; bytes that need no change are not touched."""

    def __init__(self, head: RequestHead, path: str, endpoint: Endpoint, inbound: Inbound, plan: Plan) -> None:
        self.endpoint = endpoint
        self.inbound = inbound
        self._head = head
        self._path = upstream_path(path)
        self._overrides = plan.overrides
        self.headers = forwarded_request_headers(
            head.headers, reads_answer=endpoint.reads_answer, body_changed_coding=inbound.decoded
        )

    @property
    def resendable(self) -> bool:
        """Whether another attempt could send the same body again."""
        upload = self.inbound.upload
        return upload is None or not upload.consumed

    @property
    def caller_fault(self) -> GatewayError | None:
        """The caller's fault that broke a streamed body, if one did: it outranks how the provider saw it."""
        upload = self.inbound.upload
        return None if upload is None else upload.failure

    @cached_property
    def usage_question(self) -> bytes | None:
        """The `stream_options` that ask for a stream's usage; None where the client asks by itself, or nobody should."""
        document, overrides, name = self.inbound.document, self._overrides, "stream_options"
        if document is None or not self.inbound.stream or not self.endpoint.usage_on_request:
            return None
        if name in overrides.set or name in overrides.remove or (name in overrides.default and name not in document):
            return None
        options = document.raw(name)
        if options is None or options == b"null":
            return b'{"include_usage":true}'
        try:
            members = Document(options)
        except MalformedDocument:
            # For the provider to refuse.
            return None
        if members.raw("include_usage") not in (None, b"null", b"false"):
            return None
        return members.edited({"include_usage": b"true"})

    def call(self, model: str | None, clocks: Clocks, options: ConnectionOptions, *, asks_usage: bool = False) -> Call:
        """The call for a target that knows the model as ``model``; ``asks_usage`` adds the question, where there is one."""
        body, length = self._body(model, self.usage_question if asks_usage else None)
        return Call(
            method=self._head.method,
            path=self._path,
            query=self._head.query,
            headers=self.headers,
            body=body,
            body_length=length,
            model=model,
            clocks=clocks,
            options=options,
        )

    def _body(self, model: str | None, usage_question: bytes | None) -> tuple[Body, int | None]:
        inbound = self.inbound
        if inbound.document is not None:
            return self._edited(model, usage_question), None
        if inbound.model_span is not None and model is not None and model != inbound.model:
            return self._renamed_multipart(model, inbound.model_span)
        if inbound.upload is not None:
            return inbound.upload.pieces(), inbound.upload.length
        return inbound.raw, None

    def _edited(self, model: str | None, usage_question: bytes | None) -> bytes | Pieces:
        document, overrides = self.inbound.document, self._overrides
        assert document is not None
        renamed = model is not None and model != self.inbound.model
        plain = not overrides.set and not overrides.default and not overrides.remove and usage_question is None
        if plain and "model" in document:
            return document.with_value("model", msgspec.json.encode(model)) if renamed else document.data
        replace = {name: msgspec.json.encode(value) for name, value in overrides.set.items()}
        for name, value in overrides.default.items():
            if name not in document:
                replace.setdefault(name, msgspec.json.encode(value))
        if usage_question is not None:
            replace["stream_options"] = usage_question
        if renamed:
            replace["model"] = msgspec.json.encode(model)
        if not replace and not overrides.remove:
            return document.data
        return document.edited(replace, frozenset(overrides.remove))

    def _renamed_multipart(self, model: str, span: tuple[int, int]) -> tuple[Body, int | None]:
        splice = Splice(*span, model.encode())
        raw, upload = self.inbound.raw, self.inbound.upload
        if raw is not None:
            return splice.apply(raw), None
        assert upload is not None
        length = None if upload.length is None else upload.length + splice.growth
        return upload.pieces(splice), length


def shown_model(requested: str | None, model: str | None) -> str | None:
    """The name to show in the answer where the client's differs from the provider's; else None."""
    return requested if model is not None and requested != model else None
