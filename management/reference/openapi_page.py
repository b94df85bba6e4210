"""The OpenAPI document, and the page that shows it.

Every route below `/api/v1` asks who calls, and a browser sends no key when it goes to a page. So the page stands outside of
`/api/v1`, is open, and holds nothing but what is the same in every Sluice: it asks for a key and reads the document with it.
"""

import asyncio
from functools import cache
from pathlib import Path

from core.identity import Role
from management.handler.base import ManagementHandler
from management.handler.operation import JSON, operation
from management.handler.permit import opened, requires

_STATIC = Path(__file__).with_name("static")
_OPEN = opened("a browser sends no key with the page itself, which is the same in every Sluice")
# Nothing from elsewhere, nothing inline; the document comes by `fetch`.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class OpenApiDocument(ManagementHandler):
    """``/api/v1/openapi.json``."""

    @operation(
        # As every route of the API, none for `scope_token_user`.
        requires(Role.USER),
        summary="This document: OpenAPI 3.1.",
        answers={200: JSON},
    )
    async def get(self) -> None:
        # In a thread: it takes a tenth of a second, once.
        document = await asyncio.get_running_loop().run_in_executor(None, _document)
        self.write_bytes(document, JSON)


class DocsPage(ManagementHandler):
    """``/console/docs``."""

    @operation(_OPEN, summary="A page that shows this document, once it was given a key.", answers={200: "text/html"})
    async def get(self) -> None:
        self.set_header("Content-Security-Policy", _CONTENT_SECURITY_POLICY)
        self.write_bytes(_file("docs.html"), "text/html; charset=utf-8")


class DocsStyle(ManagementHandler):
    """``/console/docs.css``."""

    @operation(_OPEN, summary="How the page looks.", answers={200: "text/css"})
    async def get(self) -> None:
        self.write_bytes(_file("docs.css"), "text/css; charset=utf-8")


class DocsScript(ManagementHandler):
    """``/console/docs.js``."""

    @operation(_OPEN, summary="What the page does.", answers={200: "text/javascript"})
    async def get(self) -> None:
        self.write_bytes(_file("docs.js"), "text/javascript; charset=utf-8")


@cache
def _file(name: str) -> bytes:
    return (_STATIC / name).read_bytes()


@cache
def _document() -> bytes:
    # The routes' table holds these handlers.
    from management.reference.openapi import render_openapi  # noqa: PLC0415  the document is made of the table

    return render_openapi().encode()
