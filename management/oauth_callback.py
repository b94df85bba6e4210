"""``/oauth/callback``: where a person comes back to from the server that they have signed in at.

It is open: their browser has no key of ours. What guards it is the `state`, which nobody can guess and which is good once.
The page says what has come of the sign-in in words that are its own: nothing of the address is shown.
"""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from typing import Any

import msgspec

from access.address import client_address
from core.headers import Headers
from credentials.errors import (
    CredentialFault,
    LoginDenied,
    LoginExpired,
    LoginFailed,
    LoginMismatch,
    LoginUnknown,
    LoginUsed,
    StoreFault,
    TooManyLogins,
)
from credentials.logins.pasted import query_in
from management.credential_login import login_errors
from management.credentials import RESOURCE
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.permit import opened
from management.handler.refusal import refusal_of
from management.login_service import LoginShown
from storage.errors import AuditFull

ACTION = "login.callback"
"""As the audit calls it; one without a sign-in that waits is not in it, as strangers may send any number of these."""

_HTML = "text/html"
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1.5rem;color:#1c1e21;"
    "background:#fff}h1{font-size:1.4rem}code{background:#eef0f2;padding:.1em .3em;border-radius:.2em}"
    "@media(prefers-color-scheme:dark){body{color:#e6e8ea;background:#17191c}code{background:#2a2e33}}"
)
_CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Page(msgspec.Struct, frozen=True):
    """What a person is told."""

    status: int
    title: str
    text: str


_BEGIN_ANEW = "Nothing was added. Begin the sign-in anew, in the terminal or wherever you began it."
_UNKNOWN = Page(
    HTTPStatus.BAD_REQUEST,
    "No sign-in waits for this",
    "It was begun elsewhere, it ended a while ago, or the address is not whole. Nothing has changed.",
)
_PAGES: tuple[tuple[type[Exception], Page], ...] = (
    (
        LoginUsed,
        Page(
            HTTPStatus.GONE,
            "This sign-in has ended already",
            "Each address is good once, and this one was used before. Nothing has changed by your coming back here.",
        ),
    ),
    (LoginUnknown, _UNKNOWN),
    (LoginExpired, Page(HTTPStatus.GONE, "This sign-in took too long", f"It ended after ten minutes. {_BEGIN_ANEW}")),
    (
        LoginDenied,
        Page(
            HTTPStatus.BAD_REQUEST,
            "The sign-in was refused",
            f"You, or the server that you signed in at, said no. {_BEGIN_ANEW}",
        ),
    ),
    (
        LoginMismatch,
        Page(
            HTTPStatus.BAD_REQUEST,
            "This answer does not belong to the sign-in",
            f"It does not come from the server that was asked, so it was not used. {_BEGIN_ANEW}",
        ),
    ),
    (
        LoginFailed,
        Page(
            HTTPStatus.BAD_GATEWAY,
            "The sign-in has failed",
            "The server that you signed in at has not given what was needed. Where you began the sign-in it is said why. "
            f"{_BEGIN_ANEW}",
        ),
    ),
    (
        TooManyLogins,
        Page(HTTPStatus.TOO_MANY_REQUESTS, "Too many at once", "Load this page again in a few seconds."),
    ),
    (
        CredentialFault,
        Page(HTTPStatus.BAD_GATEWAY, "The sign-in has failed", f"The server cannot be asked now. {_BEGIN_ANEW}"),
    ),
    (
        StoreFault,
        Page(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The sign-in cannot be kept",
            f"The gateway cannot read or write what it keeps of accounts now. {_BEGIN_ANEW}",
        ),
    ),
    (
        AuditFull,
        Page(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The gateway takes no sign-in now",
            "Its audit takes no more entries; its operator can mend that. Load this page again when that is done.",
        ),
    ),
)
_FAULTS: tuple[type[Exception], ...] = tuple(kind for kind, _ in _PAGES)


class OAuthCallback(ManagementHandler):
    """``/oauth/callback``."""

    any_host = True
    """A server sends people back to the name that is registered there: nothing else may know it."""

    @operation(
        opened("a browser comes back from a server without a key: a state that is good once guards it"),
        summary="Where a person's browser comes back to with a code; a page says what has come of the sign-in.",
        answers={
            200: _HTML,
            **dict.fromkeys(sorted({page.status for _, page in _PAGES} | {500}), _HTML),
        },
    )
    async def get(self) -> None:
        # What only looks (a preview of a link, say) must not use the state up; and one in a broken query is none.
        query = query_in(self.request.query) if self.request.method == "GET" else None
        if not query or not query.get("state"):
            self._write_page(_UNKNOWN)
            return
        try:
            login = await self.dependencies.logins.look(query["state"])
            shown = await (self._audited_callback(query, login) if login.status == "pending" else self._callback(query))
        except _FAULTS as fault:
            self._write_page(next(page for kind, page in _PAGES if isinstance(fault, kind)))
        else:
            self._write_page(
                Page(
                    HTTPStatus.OK,
                    "Signed in",
                    f"The gateway has the account `{shown.name}` of `{shown.provider}` now. You can close this page.",
                )
            )

    async def _callback(self, query: Mapping[str, str]) -> LoginShown:
        return await self.dependencies.logins.callback(query)

    async def _audited_callback(self, query: Mapping[str, str], login: LoginShown) -> LoginShown:
        self.dependencies.audit.require_room()
        headers = Headers.parse(self.request.headers.get_all())
        self.address = client_address(self.request.remote_ip or "", headers, self.view.trusted_proxies)
        self.audit(RESOURCE, f"{login.provider}/{login.name}")
        outcome = "done"
        try:
            return await self._callback(query)
        except Exception as error:
            outcome = _outcome(error, self.request_id)
            raise
        finally:
            await self._keep_audit(ACTION, outcome)
            await self.dependencies.settle_events()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A page, where it is a browser that asks."""
        if self.request.method != "GET" or status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            super().write_error(status_code, **kwargs)
            return
        self.set_status(HTTPStatus.INTERNAL_SERVER_ERROR)
        self._set_page_headers()
        self.finish(_rendered("The gateway has failed", f"Its log says how, under `{self.request_id}`. {_BEGIN_ANEW}"))

    def _write_page(self, page: Page) -> None:
        self._set_page_headers()
        self.write_bytes(_rendered(page.title, page.text), f"{_HTML}; charset=utf-8", page.status)

    def _set_page_headers(self) -> None:
        # All else is as everywhere: not kept, not framed, no referrer with the code in it.
        self.set_header("Content-Security-Policy", _CONTENT_SECURITY_POLICY)
        self.set_header("Content-Type", f"{_HTML}; charset=utf-8")


def _outcome(error: Exception, request_id: str) -> str:
    """As the API would answer."""
    try:
        with login_errors():
            raise error
    except Exception as answered:
        return refusal_of(HTTPStatus.INTERNAL_SERVER_ERROR, answered, request_id).code


def _rendered(title: str, text: str) -> bytes:
    # What stands in backquotes is a name.
    parts = escape(text).split("`")
    marked = "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
        f"<title>{escape(title)} - Sluice</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1><p>{marked}</p></body></html>\n"
    ).encode()
