"""What a caller asks of the ledger, and whether they may."""

from datetime import UTC, datetime

import msgspec

from core.identity import ApiToken, AuthContext, Role, Session, effective_role
from core.moments import MICROSECONDS, microseconds
from management.errors import AccessError, ManagementError, RequestError
from management.handler.pages import bad_cursor
from management.usage_bodies import LedgerQuery, PlaceQuery, RequestQuery, UsageQuery
from storage.errors import BadCursor
from storage.pages import decode_cursor, encode_cursor
from storage.usage_records import KEYS, LedgerFilter

_DAY = 86_400 * MICROSECONDS
DEFAULT_RANGE_DAYS = 1
MAX_RANGE_DAYS = 3660

_MOST = microseconds(datetime(9000, 1, 1, tzinfo=UTC))


def filter_of(query: LedgerQuery, caller: AuthContext, now: float) -> LedgerFilter:
    """What ``query`` asks for, of what ``caller`` may see.

    Raises:
        ManagementError: 400: no range of time; 403: others' requests.
    """
    until = round(now * MICROSECONDS) if query.to is None else _place("to", query.to)
    since = max(until - DEFAULT_RANGE_DAYS * _DAY, 0) if query.from_ is None else _place("from", query.from_)
    return _filter(query, caller, since, until)


def anywhere(query: PlaceQuery, caller: AuthContext) -> LedgerFilter:
    """Where one request may be, of those that ``caller`` may see.

    Raises:
        ManagementError: 400.
    """
    since = 0 if query.from_ is None else _place("from", query.from_)
    return own(LedgerFilter(since=since, until=_MOST if query.to is None else _place("to", query.to)), caller)


def page_of(query: RequestQuery, caller: AuthContext, now: float) -> tuple[LedgerFilter, str | None]:
    """The same for a page of a list, and the cursor as the ledger has given it: all pages are of one range of time.

    Raises:
        ManagementError: also 400: a cursor of another list.
    """
    if query.cursor is None:
        return filter_of(query, caller, now), None
    try:
        since, until, inner = decode_cursor(query.cursor, tuple[int, int, str])
    except BadCursor as error:
        raise bad_cursor() from error
    for name, said, known in (("from", query.from_, since), ("to", query.to, until)):
        if not 0 <= known <= _MOST or (said is not None and _place(name, said) != known):
            raise bad_cursor()
    return _filter(query, caller, since, until), inner


def cursor_of(wanted: LedgerFilter, inner: str | None) -> str | None:
    """What :func:`page_of` reads."""
    return None if inner is None else encode_cursor(wanted.since, wanted.until, inner)


def keys_of(query: UsageQuery) -> tuple[str, ...]:
    """What is to be grouped by.

    Raises:
        ManagementError: 400.
    """
    found = () if query.group_by is None else tuple(query.group_by.split(","))
    for name in found:
        if name not in KEYS:
            raise ManagementError(
                RequestError.INVALID_QUERY,
                f"Nothing can be grouped by `{name[:64]}`: take some of {', '.join(KEYS)}, with commas between.",
                param="group_by",
            )
    if len(set(found)) < len(found):
        raise ManagementError(RequestError.INVALID_QUERY, "`group_by` names something twice.", param="group_by")
    return found


def own(wanted: LedgerFilter, caller: AuthContext) -> LedgerFilter:
    """Those of the requests that ``caller`` may see: from a manager on all, a token its own, a person those of its tokens.

    A token that the API has made is known by its id: of another one that had its name it sees nothing.

    Raises:
        ManagementError: 403: others' are asked for.
    """
    role = effective_role(caller)
    if role is not None and role >= Role.MANAGER:
        return wanted
    match caller:
        case ApiToken():
            _require_own("token", wanted.token, caller.name)
            _require_own("token_id", wanted.token_id, caller.id)
            _require_own("owner", wanted.owner, caller.owner)
            if caller.id is None:
                return msgspec.structs.replace(wanted, token=caller.name, declared=True)
            return msgspec.structs.replace(wanted, token_id=caller.id)
        case Session():
            _require_own("owner", wanted.owner, caller.name)
            return msgspec.structs.replace(wanted, owner=caller.name)
    raise ManagementError(AccessError.FORBIDDEN, f"`{caller.name}` has no requests of its own: a manager sees all.")


def _require_own(name: str, asked: str | None, own_one: str | None) -> None:
    if asked is not None and asked != own_one:
        raise ManagementError(
            AccessError.FORBIDDEN, f"`{name}` names another: leave it out to see what is yours.", param=name
        )


def _place(name: str, at: datetime) -> int:
    found = microseconds(at)
    if not 0 <= found <= _MOST:
        raise ManagementError(
            RequestError.INVALID_QUERY, f"`{name}` is out of all bounds: take a time from 1970 on.", param=name
        )
    return found


def _filter(query: LedgerQuery, caller: AuthContext, since: int, until: int) -> LedgerFilter:
    if since >= until:
        raise ManagementError(
            RequestError.INVALID_QUERY, "`from` is not before `to`, which is now where it is left out.", param="from"
        )
    if until - since > MAX_RANGE_DAYS * _DAY:
        raise ManagementError(
            RequestError.INVALID_QUERY,
            f"`from` and `to` are more than {MAX_RANGE_DAYS} days apart: ask for a shorter time.",
            param="from",
        )
    exact = query.status is not None and query.status.isdecimal()
    wanted = LedgerFilter(
        since=since,
        until=until,
        token=query.token,
        token_id=query.token_id,
        owner=query.owner,
        model=query.model,
        requested_model=query.requested_model,
        provider=query.provider,
        credential=query.credential,
        endpoint=query.endpoint,
        status=int(query.status) if query.status is not None and exact else None,
        status_class=int(query.status[0]) if query.status is not None and not exact else None,
        error_code=query.error_code,
        stream=query.stream,
    )
    return own(wanted, caller)
