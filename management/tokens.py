"""API tokens: those that the API makes, and, to be read only, those of the file."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import msgspec

from access.issuing import creatable_scopes, may_manage
from access.limit_entries import read_limits
from access.token_rules import token_faults
from access.tokens import RANDOM_BYTES, digest, new_token
from config.faults import Fault
from core.identity import Role, Scope
from core.ids import new_token_id
from core.moments import MICROSECONDS, microseconds
from management.errors import ManagementError, RequestError, StorageError, TokenError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.pages import bad_cursor
from management.handler.permit import requires
from management.limit_bodies import entries_of
from management.token_bodies import (
    LAST_MOMENT,
    MAX_METADATA,
    SHOWN_CHARACTERS,
    Rotation,
    TokenIssued,
    TokenList,
    TokenPatch,
    TokenQuery,
    TokenRequest,
    TokenShown,
    changes,
    declared_token,
    read_cursor,
    shown_token,
)
from management.token_look_up import declared, not_found, stored
from management.token_service import Kept, Successor, TokenService
from storage.errors import BadCursor, NameTaken, NotFound, Stale
from storage.pages import encode_cursor
from storage.records import NewToken, StoredToken

# Somebody else has changed it between our reading and our writing, which a request without `If-Match` need not know.
_TRIES = 5

_ISSUED: dict[int, Any] = {201: TokenIssued, 202: TokenIssued}
_CHANGED: dict[int, Any] = {200: TokenShown, 202: TokenShown}


class Tokens(ManagementHandler):
    """``/api/v1/tokens``."""

    @operation(
        requires(Role.MANAGER),
        summary="List API tokens.",
        query=TokenQuery,
        answers={200: TokenList},
        errors=(RequestError.INVALID_QUERY, StorageError.UNAVAILABLE),
    )
    async def get(self) -> None:
        query = self.read_query(TokenQuery)
        if query.owner is not None and not query.owner.isprintable():
            raise ManagementError(RequestError.INVALID_QUERY, "No owner is called so.", param="owner")
        service = self.dependencies.tokens
        now = self.dependencies.clock.time()
        shown: list[TokenShown] = []
        part, inner = _part_of(query.cursor)
        following: tuple[str, str] | None = (part, inner)
        if part == "api":
            try:
                page = await service.list(
                    cursor=inner or None, limit=query.limit, owner=query.owner, include_revoked=query.include_revoked
                )
            except BadCursor as error:
                raise bad_cursor() from error
            shown = [shown_token(each, now) for each in page.entries]
            following = ("api", page.next_cursor) if page.next_cursor is not None else ("file", "0")
        if following is not None and following[0] == "file":
            filed = [each for each in service.declared() if query.owner in (None, each.owner)]
            begin = int(following[1])
            end = begin + query.limit - len(shown)
            shown += [declared_token(each, now) for each in filed[begin:end]]
            following = ("file", str(end)) if end < len(filed) else None
        self.write_json(TokenList(tuple(shown), None if following is None else encode_cursor(*following)))

    @operation(
        requires(Role.MANAGER, tokens=False),
        summary="Make an API token; its text is in this answer alone.",
        body=TokenRequest,
        answers=_ISSUED,
        errors=(
            RequestError.INVALID_BODY,
            TokenError.INVALID,
            TokenError.SCOPE_NOT_ALLOWED,
            TokenError.OWNER_NOT_ALLOWED,
            TokenError.NAME_TAKEN,
            TokenError.LIMITS_NEED_REDIS,
            StorageError.UNAVAILABLE,
        ),
        etag=True,
        audit="token.create",
    )
    async def post(self) -> None:
        asked = self.read_body(TokenRequest)
        _require_issuable(self, asked.scope, asked.owner)
        now = self.dependencies.clock.time()
        text = new_token(secrets.token_bytes(RANDOM_BYTES))
        token = NewToken(
            id=new_token_id(),
            name=asked.name,
            sha256=bytes.fromhex(digest(text)),
            prefix=text[:SHOWN_CHARACTERS],
            scope=asked.scope.value,
            models=asked.models,
            endpoints=tuple(each.value for each in asked.endpoints),
            owner=asked.owner,
            metadata=dict(asked.metadata),
            ip_ranges=asked.ip_ranges,
            expires_at=microseconds(asked.expires_at),
            limits=entries_of(asked.limits),
            created_by=self.author.name,
        )
        _require_valid(token, now)
        _require_kept(self, token)
        _require_free_name(self.dependencies.tokens, token.name)
        try:
            kept = await self.dependencies.tokens.create(token, self.author)
        except NameTaken as error:
            raise _name_taken(str(error)) from error
        _write_issued(self, kept, text)


class TokenItem(ManagementHandler):
    """``/api/v1/tokens/{id}``."""

    @operation(
        requires(Role.MANAGER),
        summary="Show an API token.",
        answers={200: TokenShown},
        errors=(TokenError.NOT_FOUND, StorageError.UNAVAILABLE),
        etag=True,
    )
    async def get(self, token_id: str) -> None:
        now = self.dependencies.clock.time()
        filed = declared(self.dependencies.tokens, token_id)
        if filed is not None:
            self.write_json(declared_token(filed, now), etag=self.view.revision)
            return
        found = await stored(self, token_id)
        self.write_json(shown_token(found, now), etag=str(found.changed))

    @operation(
        requires(Role.MANAGER, tokens=False),
        summary="Change an API token.",
        body=TokenPatch,
        answers=_CHANGED,
        errors=(
            RequestError.INVALID_BODY,
            RequestError.INVALID_IF_MATCH,
            TokenError.INVALID,
            TokenError.NOT_FOUND,
            TokenError.IN_FILE,
            TokenError.STALE,
            TokenError.SCOPE_NOT_ALLOWED,
            TokenError.OWNER_NOT_ALLOWED,
            TokenError.NAME_TAKEN,
            TokenError.LIMITS_NEED_REDIS,
            StorageError.UNAVAILABLE,
        ),
        etag=True,
        if_match=False,
        audit="token.update",
    )
    async def patch(self, token_id: str) -> None:
        asked = self.read_body(TokenPatch)
        expected = _expected(self)
        _require_of_api(self.dependencies.tokens, token_id)
        for last in (*[False] * (_TRIES - 1), True):
            found = await stored(self, token_id)
            version = found.changed if expected is None else expected
            try:
                before, kept = await self._patch(found, version, asked)
                break
            except Stale as error:
                if expected is not None or last:
                    raise _stale(error) from error
        now = self.dependencies.clock.time()
        after = shown_token(kept.token, now)
        self.audit("token", token_id, before=shown_token(before, now), after=after)
        self.write_json(after, _status(HTTPStatus.OK, kept), etag=str(kept.token.changed))

    async def _patch(self, found: StoredToken, version: int, asked: TokenPatch) -> tuple[StoredToken, Kept]:
        columns = dict(changes(found, asked))
        patched = msgspec.structs.replace(found, **columns)
        _require_issuable(self, Scope(patched.scope) if "scope" in columns else None, patched.owner)
        now = self.dependencies.clock.time()
        _require_valid(patched, now, look_at_time="expires_at" in columns)
        if "limits" in columns:
            _require_kept(self, patched)
        if patched.name != found.name:
            _require_free_name(self.dependencies.tokens, patched.name)
        try:
            return found, await self.dependencies.tokens.update(found.id, version, self.author, **columns)
        except NameTaken as error:
            raise _name_taken(str(error)) from error
        except NotFound as error:
            raise not_found(found.id) from error

    @operation(
        requires(Role.MANAGER, tokens=False),
        summary="Revoke an API token: it opens nothing any more when this has answered 204.",
        answers={204: None, 202: TokenShown},
        errors=(
            RequestError.INVALID_IF_MATCH,
            TokenError.NOT_FOUND,
            TokenError.IN_FILE,
            TokenError.STALE,
            TokenError.OWNER_NOT_ALLOWED,
            StorageError.UNAVAILABLE,
        ),
        if_match=False,
        audit="token.revoke",
    )
    async def delete(self, token_id: str) -> None:
        expected = _expected(self)
        _require_of_api(self.dependencies.tokens, token_id)
        before = await stored(self, token_id)
        with _lost(token_id):
            kept = await self.dependencies.tokens.revoke(token_id, expected, self.author)
        now = self.dependencies.clock.time()
        after = shown_token(kept.token, now)
        self.audit("token", token_id, before=shown_token(before, now), after=after)
        if kept.everywhere:
            self.write_empty()
        else:
            self.write_json(after, HTTPStatus.ACCEPTED)


class TokenRotation(ManagementHandler):
    """``/api/v1/tokens/{id}/rotate``."""

    @operation(
        requires(Role.MANAGER, tokens=False),
        summary="Replace an API token by a new one with the same rights; the old one lives on for a while.",
        body=Rotation,
        answers=_ISSUED,
        errors=(
            RequestError.INVALID_BODY,
            RequestError.INVALID_IF_MATCH,
            TokenError.NOT_FOUND,
            TokenError.IN_FILE,
            TokenError.STALE,
            TokenError.SCOPE_NOT_ALLOWED,
            TokenError.OWNER_NOT_ALLOWED,
            StorageError.UNAVAILABLE,
        ),
        etag=True,
        if_match=False,
        audit="token.rotate",
    )
    async def post(self, token_id: str) -> None:
        asked = self.read_body(Rotation)
        expected = _expected(self)
        _require_of_api(self.dependencies.tokens, token_id)
        before = await stored(self, token_id)
        _require_issuable(self, Scope(before.scope), before.owner)
        text = new_token(secrets.token_bytes(RANDOM_BYTES))
        now = self.dependencies.clock.time()
        successor = Successor(
            id=new_token_id(),
            sha256=bytes.fromhex(digest(text)),
            prefix=text[:SHOWN_CHARACTERS],
            grace_until=round((now + asked.grace_seconds) * MICROSECONDS) if asked.grace_seconds else 0,
        )
        with _lost(token_id):
            kept = await self.dependencies.tokens.rotate(token_id, expected, successor, self.author)
        _write_issued(self, kept, text, before=shown_token(before, now))


def _write_issued(handler: ManagementHandler, kept: Kept, text: str, before: TokenShown | None = None) -> None:
    shown = shown_token(kept.token, handler.dependencies.clock.time())
    handler.audit("token", kept.token.id if before is None else before.id, before=before, after=shown)
    handler.write_json(
        TokenIssued(**msgspec.structs.asdict(shown), token=text),
        _status(HTTPStatus.CREATED, kept),
        etag=str(kept.token.changed),
        location=f"/api/v1/tokens/{kept.token.id}",
    )


def _status(done: HTTPStatus, kept: Kept) -> HTTPStatus:
    return done if kept.everywhere else HTTPStatus.ACCEPTED


def _require_of_api(service: TokenService, token_id: str) -> None:
    if declared(service, token_id) is not None:
        raise ManagementError(
            TokenError.IN_FILE, f"The token `{token_id}` is declared in the configuration: edit `tokens` there."
        )


def _require_issuable(handler: ManagementHandler, scope: Scope | None, owner: str | None) -> None:
    creatable = creatable_scopes(handler.caller)
    if scope is not None and scope not in creatable:
        can = ", ".join(f"`{each}`" for each in sorted(creatable)) or "none"
        raise ManagementError(
            TokenError.SCOPE_NOT_ALLOWED, f"You may give `{scope}` to no token: choose among {can}.", param="scope"
        )
    if not may_manage(handler.caller, owner):
        raise ManagementError(
            TokenError.OWNER_NOT_ALLOWED,
            "You may see to your own tokens alone: leave `owner` to your name.",
            param="owner",
        )


def _require_valid(token: NewToken, now: float, *, look_at_time: bool = True) -> None:
    faults = list(
        token_faults(
            (),
            scope=token.scope,
            models=token.models,
            endpoints=token.endpoints,
            ip_ranges=token.ip_ranges,
            owner=token.owner,
        )
    )
    faults += read_limits(("limits",), token.limits)[1]
    if look_at_time and token.expires_at is not None:
        if token.expires_at <= now * MICROSECONDS:
            faults.append(Fault(("expires_at",), "lies in the past: name a later time, or revoke the token"))
        elif token.expires_at > LAST_MOMENT:
            faults.append(Fault(("expires_at",), "lies after the year 9999: name an earlier time, or none"))
    if len(token.metadata) > MAX_METADATA:
        faults.append(Fault(("metadata",), f"has more than {MAX_METADATA} keys: take some away"))
    if faults:
        raise ManagementError(
            TokenError.INVALID, f"The token has {len(faults)} fault(s); nothing was changed.", faults=tuple(faults)
        )


def _require_kept(handler: ManagementHandler, token: NewToken) -> None:
    """Limits that nobody counts would be no limits."""
    reason = handler.dependencies.limits.not_kept_because() if token.limits else None
    if reason is not None:
        raise ManagementError(
            TokenError.LIMITS_NEED_REDIS,
            f"Limits cannot be kept: {reason}.",
            param="limits",
        )


def _require_free_name(service: TokenService, name: str) -> None:
    if any(each.name == name for each in service.declared()):
        raise _name_taken(f"the configuration declares a token `{name}`: choose another name")


def _expected(handler: ManagementHandler) -> int | None:
    tag = handler.optional_if_match()
    if tag is None:
        return None
    # Not one of ours: it matches nothing.
    return int(tag) if tag.isascii() and tag.isdecimal() and len(tag) < 19 else -1


def _part_of(cursor: str | None) -> tuple[str, str]:
    try:
        return read_cursor(cursor)
    except BadCursor as error:
        raise bad_cursor() from error


@contextmanager
def _lost(token_id: str) -> Iterator[None]:
    """Tell of a token that is gone, or is another by now."""
    try:
        yield
    except NotFound as error:
        raise not_found(token_id) from error
    except Stale as error:
        raise _stale(error) from error


def _stale(error: Stale) -> ManagementError:
    return ManagementError(TokenError.STALE, f"{str(error)[:1].upper()}{str(error)[1:]}.")


def _name_taken(message: str) -> ManagementError:
    return ManagementError(TokenError.NAME_TAKEN, f"{message[:1].upper()}{message[1:]}.", param="name")
