"""``/api/v1/credentials``: what providers are called by. Those of the file are shown, accounts are changed too.

No answer holds a token; an export holds them sealed.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import quote

from core.identity import Role
from credentials.errors import (
    AccountMissing,
    CredentialFault,
    CredentialRefused,
    NeedsLogin,
    RecordDamaged,
    RecordElsewhere,
    RecordLocked,
    RecordUnknown,
    StoreConflict,
    StoreUnavailable,
)
from management.credential_bodies import (
    CredentialList,
    CredentialPatch,
    CredentialQuery,
    CredentialRemoved,
    CredentialShown,
    Exported,
    NewCredential,
)
from management.credential_service import (
    CannotRefresh,
    InFile,
    NameTaken,
    NothingSealed,
    Unfit,
    UnknownCredential,
    UnknownProvider,
)
from management.errors import CredentialError, ManagementCode, ManagementError, RequestError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.pages import bad_cursor
from management.handler.permit import requires
from storage.errors import BadCursor
from storage.pages import decode_cursor, encode_cursor

RESOURCE = "credential"
STORE_ERRORS: tuple[ManagementCode, ...] = (CredentialError.STORE_UNAVAILABLE,)
"""What an operation may answer that reads or writes accounts."""
_NEW_ERRORS: tuple[ManagementCode, ...] = (
    RequestError.INVALID_BODY,
    CredentialError.UNKNOWN_PROVIDER,
    CredentialError.NAME_TAKEN,
    *STORE_ERRORS,
)

_STORE_RETRY_SECONDS = 5.0
_DAMAGED = "damaged"
"""Entity tag of an account that cannot be read, and so has no version; to be deleted by it."""
_OF_DAMAGED = -2
_NOTHING_CHANGED = "Nothing was changed."
_TOKEN = re.compile(r"[!-~]+")


class Credentials(ManagementHandler):
    """``/api/v1/credentials``."""

    @operation(
        requires(Role.POWER_USER),
        summary="List the credentials that providers are called by, and how they stand.",
        query=CredentialQuery,
        answers={200: CredentialList},
        errors=(RequestError.INVALID_QUERY,),
    )
    async def get(self) -> None:
        query = self.read_query(CredentialQuery)
        found = [each for each in await self.dependencies.credentials.all() if query.provider in (None, each.provider)]
        after = _read_cursor(query.cursor)
        rest = [each for each in found if (each.provider, each.name, each.source) > after]
        part = rest[: query.limit]
        more = len(rest) > len(part)
        self.write_json(
            CredentialList(
                tuple(part), encode_cursor(part[-1].provider, part[-1].name, part[-1].source) if more else None
            )
        )

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Add an account by tokens that there are already; they are kept sealed, and shown to nobody.",
        body=NewCredential,
        answers={201: CredentialShown},
        errors=_NEW_ERRORS,
        etag=True,
        audit="credential.create",
    )
    async def post(self) -> None:
        new = self.read_body(NewCredential)
        self.audit(RESOURCE, f"{new.provider}/{new.name}")
        _require_tokens(new, self.dependencies.clock.time())
        with credential_errors():
            shown = await self.dependencies.credentials.add(new)
        _write_new(self, shown)


class CredentialItem(ManagementHandler):
    """``/api/v1/credentials/{id}``."""

    @operation(
        requires(Role.POWER_USER),
        summary="Show a credential, and how it stands.",
        answers={200: CredentialShown},
        errors=(CredentialError.NOT_FOUND,),
        etag=True,
    )
    async def get(self, credential_id: str) -> None:
        shown = await _found(self, credential_id)
        self.write_json(shown, etag=_tag(self, shown))

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Change what is said of an account; its tokens stay as they are.",
        body=CredentialPatch,
        answers={200: CredentialShown},
        errors=(
            RequestError.INVALID_BODY,
            RequestError.INVALID_IF_MATCH,
            RequestError.IF_MATCH_REQUIRED,
            CredentialError.NOT_FOUND,
            CredentialError.IN_FILE,
            CredentialError.STALE,
            CredentialError.ELSEWHERE,
            CredentialError.DAMAGED,
            *STORE_ERRORS,
        ),
        etag=True,
        if_match=True,
        audit="credential.update",
    )
    async def patch(self, credential_id: str) -> None:
        asked = self.read_body(CredentialPatch)
        present = await _account(self, credential_id)
        with credential_errors(present):
            seen = self._seen()
            changed = await self.dependencies.credentials.change(present.provider, present.name, seen, asked)
        self.audit(RESOURCE, present.id, before=changed.before, after=changed.after)
        self.write_json(changed.after, etag=_tag(self, changed.after))

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Remove an account, and give its tokens back to the server where it signed in, if that takes them.",
        answers={200: CredentialRemoved},
        errors=(
            RequestError.INVALID_IF_MATCH,
            RequestError.IF_MATCH_REQUIRED,
            CredentialError.NOT_FOUND,
            CredentialError.IN_FILE,
            CredentialError.STALE,
            *STORE_ERRORS,
        ),
        if_match=True,
        audit="credential.delete",
    )
    async def delete(self, credential_id: str) -> None:
        present = await _account(self, credential_id)
        with credential_errors(present):
            seen = self._seen()
            # One that cannot be read has no version that could have been seen.
            expected = None if (present.version, seen) == (None, _OF_DAMAGED) else seen
            removed = await self.dependencies.credentials.remove(present.provider, present.name, expected)
        self.audit(RESOURCE, present.id, before=removed.before, after={"revoked": removed.revoked})
        self.write_json(CredentialRemoved(removed.revoked, removed.because))

    def _seen(self) -> int:
        tag = self.if_match()
        if tag == _DAMAGED:
            return _OF_DAMAGED
        # Not one of ours: it matches nothing.
        return int(tag) if tag.isascii() and tag.isdecimal() and len(tag) < 19 else -1


class CredentialRefresh(ManagementHandler):
    """``/api/v1/credentials/{id}/refresh``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Exchange a credential's token for a fresh one now.",
        answers={200: CredentialShown},
        errors=(
            CredentialError.NOT_FOUND,
            CredentialError.CANNOT_REFRESH,
            CredentialError.NEEDS_LOGIN,
            CredentialError.REFUSED,
            CredentialError.UNAVAILABLE,
            CredentialError.DAMAGED,
            *STORE_ERRORS,
        ),
        etag=True,
        audit="credential.refresh",
    )
    async def post(self, credential_id: str) -> None:
        present = await _found(self, credential_id)
        self.audit(RESOURCE, present.id, before=present)
        with credential_errors(present):
            shown = await self.dependencies.credentials.refresh(present.provider, present.name)
        self.audit(RESOURCE, present.id, before=present, after=shown)
        self.write_json(shown, etag=_tag(self, shown))


class CredentialExport(ManagementHandler):
    """``/api/v1/credentials/{id}/export``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Give an account as JSON, with its tokens sealed by the master key, to be kept or imported elsewhere.",
        answers={200: Exported},
        errors=(
            CredentialError.NOT_FOUND,
            CredentialError.IN_FILE,
            CredentialError.NOTHING_SEALED,
            CredentialError.DAMAGED,
            *STORE_ERRORS,
        ),
        audit="credential.export",
    )
    async def post(self, credential_id: str) -> None:
        present = await _account(self, credential_id)
        self.audit(RESOURCE, present.id)
        with credential_errors(present):
            exported = await self.dependencies.credentials.export(present.provider, present.name)
        self.write_json(exported)


class CredentialImport(ManagementHandler):
    """``/api/v1/credentials/import``."""

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Keep an account that was exported by a gateway with the same master key.",
        body=Exported,
        answers={201: CredentialShown},
        errors=(
            *_NEW_ERRORS,
            CredentialError.ELSEWHERE,
            CredentialError.WRONG_KEY,
            CredentialError.IMPORT_DAMAGED,
        ),
        etag=True,
        audit="credential.import",
    )
    async def post(self) -> None:
        exported = self.read_body(Exported)
        self.audit(RESOURCE, f"{exported.provider}/{exported.name}")
        with credential_errors(importing=True):
            shown = await self.dependencies.credentials.take(exported)
        _write_new(self, shown)


@contextmanager
def credential_errors(present: CredentialShown | None = None, *, importing: bool = False) -> Iterator[None]:
    """What a service of credentials ends with, as answers.

    Args:
        present: the credential that is asked for.
        importing: whether it is the caller's document that cannot be read.

    Raises:
        ManagementError: instead.
    """
    try:
        yield
    except (UnknownCredential, AccountMissing) as error:
        raise _not_found(str(error)) from error
    except UnknownProvider as error:
        raise ManagementError(
            CredentialError.UNKNOWN_PROVIDER, f"{error}. {_NOTHING_CHANGED}", param="provider"
        ) from error
    except InFile as error:
        raise ManagementError(CredentialError.IN_FILE, f"{error}.") from error
    except NameTaken as error:
        raise ManagementError(CredentialError.NAME_TAKEN, f"{error}. {_NOTHING_CHANGED}", param="name") from error
    except Unfit as error:
        raise ManagementError(RequestError.INVALID_BODY, f"`{error.where}` {error}.", param=error.where) from error
    except NothingSealed as error:
        raise ManagementError(CredentialError.NOTHING_SEALED, f"{error}.") from error
    except CannotRefresh as error:
        raise ManagementError(CredentialError.CANNOT_REFRESH, f"{error}.") from error
    except RecordElsewhere as error:
        raise ManagementError(CredentialError.ELSEWHERE, f"{_sentence(error)} {_NOTHING_CHANGED}") from error
    except (RecordDamaged, RecordUnknown) as error:
        code = CredentialError.DAMAGED
        if importing:
            code = CredentialError.WRONG_KEY if isinstance(error, RecordLocked) else CredentialError.IMPORT_DAMAGED
        raise ManagementError(code, f"{_sentence(error)} {_NOTHING_CHANGED}") from error
    except StoreConflict as error:
        raise _conflict(present) from error
    except StoreUnavailable as error:
        raise ManagementError(
            CredentialError.STORE_UNAVAILABLE,
            f"{_sentence(error)} {_NOTHING_CHANGED}",
            retry_after_seconds=_STORE_RETRY_SECONDS,
        ) from error
    except CredentialFault as error:
        code = _FAULTS.get(type(error), CredentialError.UNAVAILABLE)
        raise ManagementError(code, _sentence(error), retry_after_seconds=error.retry_after_seconds) from error


_FAULTS: dict[type[CredentialFault], CredentialError] = {
    NeedsLogin: CredentialError.NEEDS_LOGIN,
    CredentialRefused: CredentialError.REFUSED,
}


def _conflict(present: CredentialShown | None) -> ManagementError:
    if present is None:
        return ManagementError(
            CredentialError.NAME_TAKEN, f"An account of that name was made meanwhile. {_NOTHING_CHANGED}", param="name"
        )
    return ManagementError(
        CredentialError.STALE,
        f"`{present.id}` is another one by now: read it again, and send its `ETag`. {_NOTHING_CHANGED}",
        etag=_version(present),
    )


async def _found(handler: ManagementHandler, credential_id: str) -> CredentialShown:
    provider, _, name = credential_id.partition("/")
    with credential_errors():
        return await handler.dependencies.credentials.get(provider, name)


async def _account(handler: ManagementHandler, credential_id: str) -> CredentialShown:
    provider, _, name = credential_id.partition("/")
    with credential_errors():
        return await handler.dependencies.credentials.account(provider, name)


def _not_found(message: str) -> ManagementError:
    return ManagementError(
        CredentialError.NOT_FOUND,
        f"{message}: an id is `PROVIDER/NAME`, whose `/` is `%2F` in a path; see `GET /api/v1/credentials`.",
    )


def _require_tokens(new: NewCredential, now: float) -> None:
    fault: tuple[str, str] | None = None
    if new.refresh_token is None and new.access_token is None:
        fault = "refresh_token", "or `access_token` is needed, or both: send what the account has"
    for name, given in (("refresh_token", new.refresh_token), ("access_token", new.access_token)):
        if given is not None and not _TOKEN.fullmatch(given.value):
            fault = name, "holds what no token has: send it without blanks and line breaks"
    if fault is None and new.expires_at is not None and new.access_token is None:
        fault = "expires_at", "is the end of an access token, and there is none"
    if fault is None and new.expires_at and new.refresh_token is None and new.expires_at.timestamp() <= now:
        fault = "expires_at", "lies in the past, and there is no refresh token: nothing could be done with it"
    if fault is not None:
        raise ManagementError(RequestError.INVALID_BODY, f"`{fault[0]}` {fault[1]}.", param=fault[0])


def _write_new(handler: ManagementHandler, shown: CredentialShown) -> None:
    handler.audit(RESOURCE, shown.id, after=shown)
    handler.write_json(
        shown,
        HTTPStatus.CREATED,
        etag=_tag(handler, shown),
        location=f"/api/v1/credentials/{quote(shown.id, safe='')}",
    )


def _tag(handler: ManagementHandler, shown: CredentialShown) -> str:
    """The version of an account; what is the file's is of its revision."""
    return handler.view.revision if shown.source == "file" else _version(shown)


def _version(shown: CredentialShown) -> str:
    return _DAMAGED if shown.version is None else str(shown.version)


def _read_cursor(cursor: str | None) -> tuple[str, str, str]:
    if cursor is None:
        return "", "", ""
    try:
        return decode_cursor(cursor, tuple[str, str, str])
    except BadCursor as error:
        raise bad_cursor() from error


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
