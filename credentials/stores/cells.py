"""What a store keeps of each account and each sign-in, as bytes: a *cell*. All that is decided about cells is decided here,
without waiting, so that every store goes by the same rules.

::

    sluice-account 1 SHA256
    {"provider":…,"name":…,"written":…,"version":…,"fence":…,"locked_until":…,"record":{…}}

The first line names the kind, the format and the SHA-256, in hex, of these two and all that follows. Whatever byte of it is
changed, that is seen. Later formats keep the first line as it is, so that a program that does not know them can tell.

The cell of an account that was deleted stays, empty: versions and fences of its name go on, and nobody who has seen the
former account takes the next one for it.
"""

import hashlib
import re
import secrets
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from credentials import records
from credentials.errors import RecordDamaged, RecordUnknown, StoreConflict
from credentials.records import AccountRecord, LoginEnd, PendingLogin

LOGIN_KEPT = 600 * 1_000_000
"""So long after its end a sign-in can be asked for, in microseconds."""
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Of each older format: how its JSON becomes that of the next one."""

_LONGEST_LOCK = 3600 * 1_000_000
_HEAD = re.compile(rb"(?P<covered>sluice-(?P<kind>account|login) (?P<format>[1-9][0-9]{0,8})) (?P<sum>[0-9a-f]{64})\n")
_Kind = Literal["account", "login"]


class AccountCell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of an account."""

    provider: str
    name: str
    written: str = ""
    """Another one at each write: a write whose answer was lost is known by it."""
    version: int = 0
    """Of the last record of this name."""
    fence: int = 0
    """Of the last lock."""
    locked_until: int = 0
    """When that one runs out, in microseconds since the Unix epoch; 0: it was released."""
    record: AccountRecord | None = None
    """None: it was deleted."""


class LoginCell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of a sign-in."""

    written: str = ""
    taken: bool = False
    login: PendingLogin


_Cell = TypeVar("_Cell", AccountCell, LoginCell)


def render(cell: AccountCell | LoginCell) -> bytes:
    """What is kept for ``cell``; other bytes each time."""
    kind = "account" if isinstance(cell, AccountCell) else "login"
    body = msgspec.json.encode(msgspec.structs.replace(cell, written=secrets.token_hex(8)))
    return sealed_with_sum(kind, records.FORMAT, body)


def sealed_with_sum(kind: str, number: int, body: bytes) -> bytes:
    """The first line, and ``body`` behind it."""
    covered = f"sluice-{kind} {number}".encode()
    return b"%b %b\n%b" % (covered, _sum(covered, body), body)


def parse_account(data: bytes, provider: str, name: str) -> AccountCell:
    """
    Raises:
        RecordDamaged: it is not what was once kept of this account.
        RecordUnknown: its format is not known here.
    """
    shown = f"the account `{provider}/{name}`"
    mend = "delete it and sign in again, or restore it from a backup"
    cell = _parse(data, AccountCell, "account", shown, mend)
    held = cell.record
    if (cell.provider, cell.name) != (provider, name) or (
        held is not None and (held.provider, held.name, held.version) != (provider, name, cell.version)
    ):
        raise RecordDamaged(f"what is kept of {shown} is of another one: {mend}")
    return cell


def parse_login(data: bytes, key: str) -> LoginCell:
    """
    Raises:
        RecordDamaged: it is not what was once kept of this sign-in.
        RecordUnknown: its format is not known here.
    """
    cell = _parse(data, LoginCell, "login", "a sign-in that was begun", "begin another")
    if cell.login.key != key:
        raise RecordDamaged("what is kept of a sign-in that was begun is of another one: begin another")
    return cell


def _parse(data: bytes, kind: type[_Cell], word: _Kind, shown: str, mend: str) -> _Cell:
    head = _HEAD.match(data)
    if head is None or head["kind"] != word.encode() or head["sum"] != _sum(head["covered"], data[head.end() :]):
        raise RecordDamaged(f"what is kept of {shown} was changed or cut: {mend}")
    number = int(head["format"])
    if number > records.FORMAT:
        raise RecordUnknown(
            f"what is kept of {shown} has format {number}, and this version of the program knows none later than "
            f"{records.FORMAT}: run the newer version that wrote it"
        )
    try:
        if number == records.FORMAT:
            return msgspec.json.decode(data[head.end() :], type=kind)
        return msgspec.convert(_upgraded(msgspec.json.decode(data[head.end() :]), number, shown), type=kind)
    except msgspec.MsgspecError:
        raise RecordDamaged(f"what is kept of {shown} is not what this program writes: {mend}") from None


def _upgraded(content: dict[str, Any], number: int, shown: str) -> dict[str, Any]:
    while number < records.FORMAT:
        upgrade = UPGRADES.get(number)
        if upgrade is None:
            raise RecordUnknown(
                f"what is kept of {shown} has format {number}, which this version of the program does not read any more: "
                "run an older version"
            )
        content = upgrade(content)
        number += 1
    return content


def _sum(covered: bytes, body: bytes) -> bytes:
    return hashlib.sha256(covered + b"\n" + body).hexdigest().encode()


def with_record(cell: AccountCell | None, record: AccountRecord, seen: int | None) -> AccountCell:
    """``record`` in the place of the one of version ``seen``.

    Tokens are written under a lock, and then ``record.fence`` is that lock's: it must be the last one that was given. All
    other writes leave the fence as it was, and need no lock.

    Raises:
        StoreConflict: another version is there, or a later lock was given.
    """
    shown = f"the account `{record.provider}/{record.name}`"
    cell = cell or AccountCell(provider=record.provider, name=record.name)
    held = cell.record
    if held is None and seen is not None:
        raise StoreConflict(f"{shown} is not there any more")
    if held is not None and held.version != seen:
        if seen is None:
            raise StoreConflict(f"{shown} is there already")
        raise StoreConflict(f"{shown} has version {held.version} by now, and not {seen}: read it again")
    fence = cell.fence if held is None else record.fence
    if held is not None and fence not in (held.fence, cell.fence):
        raise StoreConflict(f"the lock of {shown} has run out, and another has it or had it: read it again")
    version = cell.version + 1
    kept = msgspec.structs.replace(record, version=version, fence=fence)
    return msgspec.structs.replace(cell, version=version, record=kept)


def without_record(cell: AccountCell, seen: int | None, now: int) -> AccountCell:
    """The same, deleted; no lock that was given before ``now`` counts any more.

    Raises:
        StoreConflict: it has another version than ``seen``.
    """
    if seen is not None and cell.version != seen:
        shown = f"the account `{cell.provider}/{cell.name}`"
        raise StoreConflict(f"{shown} has version {cell.version} by now, and not {seen}: read it again")
    return msgspec.structs.replace(cell, record=None, fence=max(cell.fence + 1, now), locked_until=0)


def locked(cell: AccountCell, seconds: float, now: int) -> AccountCell | None:
    """The same, locked from ``now`` on; None: it is locked already."""
    # Longer than anybody locks: the clock was set back.
    if now < cell.locked_until <= now + _LONGEST_LOCK:
        return None
    # By the time, as a store may have lost its last writes.
    fence = max(cell.fence + 1, now)
    return msgspec.structs.replace(cell, fence=fence, locked_until=now + round(seconds * 1_000_000))


def released(cell: AccountCell, fence: int) -> AccountCell | None:
    """The same, released by the holder whose lock has ``fence``; None: it is another's by now, or nobody's."""
    if cell.fence != fence or not cell.locked_until:
        return None
    return msgspec.structs.replace(cell, locked_until=0)


def taken(cell: LoginCell, now: int) -> LoginCell | None:
    """The same, without what was sealed; None: it is not to be had (any more)."""
    login = cell.login
    if cell.taken or login.status != "pending" or login.expires_at <= now:
        return None
    return msgspec.structs.replace(cell, taken=True, login=msgspec.structs.replace(login, sealed=None))


def ended(cell: LoginCell, status: LoginEnd, message: str | None) -> LoginCell | None:
    """The same, ended; None: it had ended before, and that counts. But one that came to an account is complete, even if it
    was given up meanwhile."""
    if cell.login.status != "pending" and (status != "complete" or cell.login.status == "complete"):
        return None
    login = msgspec.structs.replace(cell.login, status=status, message=message, sealed=None)
    return msgspec.structs.replace(cell, taken=True, login=login)


def shown(cell: LoginCell, now: int) -> PendingLogin | None:
    """As it stands ``now``, without what is sealed; None: it ended too long ago."""
    login = msgspec.structs.replace(cell.login, sealed=None)
    if login.expires_at + LOGIN_KEPT <= now:
        return None
    if login.status == "pending" and login.expires_at <= now and not cell.taken:
        return msgspec.structs.replace(login, status="expired")
    return login
