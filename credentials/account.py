"""One account as a process knows it: its record, its tokens, and what could not be written yet. Nothing here waits."""

import asyncio
import itertools

import msgspec

from config.schema import TokenPlacement
from core.moments import MICROSECONDS
from core.secret import Secret
from credentials.errors import NeedsLogin
from credentials.live import LiveCredential
from credentials.members import Member
from credentials.records import AccountRecord, AccountSettings
from credentials.tokens import TokenSet

_moves = itertools.count()


class Opened(msgspec.Struct, frozen=True):
    """What was sealed in a record."""

    tokens: TokenSet | None
    proxy_url: Secret | None


class Unsaved(msgspec.Struct, frozen=True, kw_only=True):
    """What an exchange came to, until it is written."""

    given: TokenSet
    """What was exchanged. Whatever else the store has by now was had since, and counts."""
    tokens: TokenSet | None = None
    needs_login: str | None = None
    """Why there are no tokens."""
    fence: int
    """Of the lock under which it was done."""


class Account:
    """Changed by :class:`credentials.accounts.Accounts` and :class:`credentials.account_refresh.AccountRefresh`."""

    __slots__ = ("damaged", "live", "moves", "proxy_url", "record", "rotates", "saving", "unsaved")

    def __init__(self, live: LiveCredential) -> None:
        self.live = live
        self.record: AccountRecord | None = None
        """As it was read or written last; None: it cannot be read."""
        self.proxy_url: Secret | None = None
        self.damaged: str | None = None
        """Why the record cannot be read. What was known of it before goes on serving."""
        self.unsaved: Unsaved | None = None
        self.saving = asyncio.Lock()
        self.rotates: bool | None = None
        """Whether refresh tokens are good for one use: whether the last exchange gave another one; None: not known."""
        self.moves = next(_moves)
        """Another one after every change here, so that what was read before a change is not taken for newer."""

    def adopt(self, record: AccountRecord, opened: Opened) -> None:
        """``record`` is what the store has."""
        self.moves = next(_moves)
        live = self.live
        if self.damaged is not None:
            self.damaged = None
            live.recovered()
        self.record = record
        self.proxy_url = opened.proxy_url
        if self.unsaved is not None:
            if same(opened.tokens, self.unsaved.given):
                return
            # Somebody has signed in meanwhile, or it has been written.
            self.unsaved = None
        if not same(opened.tokens, live.tokens):
            self._note_rotation(live.tokens, opened.tokens)
            live.take(opened.tokens)
            live.recovered()
        if record.needs_login is not None:
            live.give_up(record.needs_login)
        elif opened.tokens is None:
            live.give_up(f"{live.called} has not signed in yet")
        elif isinstance(live.fault, NeedsLogin):
            live.recovered()

    def spoil(self, message: str) -> None:
        """The store has something that cannot be read."""
        self.moves = next(_moves)
        self.damaged = message
        if self.live.tokens is None:
            self.live.give_up(message)

    def member(self, settings: AccountSettings, placement: TokenPlacement | None) -> Member:
        """As a pool has it."""
        return Member(
            name=self.live.name,
            secret=self.live.secret,
            weight=settings.weight,
            priority=settings.priority,
            prefix=settings.prefix,
            models=settings.models,
            placement=placement,
            proxy_url=self.proxy_url,
            live=self.live,
        )

    def exchanged(self, held: TokenSet, fence: int, tokens: TokenSet | None, needs_login: str | None = None) -> None:
        """Serve by what an exchange of ``held`` has given, whether it can be written or not. But after a sign-in meanwhile
        that one counts."""
        if not same(self.live.tokens, held):
            return
        self.moves = next(_moves)
        # In the store there is still what was exchanged first.
        given = held if self.unsaved is None else self.unsaved.given
        self.unsaved = Unsaved(given=given, tokens=tokens, needs_login=needs_login, fence=fence)
        if tokens is not None:
            self._note_rotation(held, tokens)
            self.live.take(tokens)

    def written(self, record: AccountRecord, unsaved: Unsaved) -> None:
        """``record`` was written here, with what was ``unsaved``."""
        self.moves = next(_moves)
        if self.unsaved is unsaved:
            self.unsaved = None
        elif self.unsaved is not None and unsaved.tokens is not None:
            # There is more already.
            self.unsaved = msgspec.structs.replace(self.unsaved, given=unsaved.tokens)
        if self.record is None or record.version > self.record.version:
            self.record = record

    def _note_rotation(self, before: TokenSet | None, after: TokenSet | None) -> None:
        if before is None or after is None or before.refresh_token is None or after.refresh_token is None:
            self.rotates = None
        else:
            self.rotates = not before.refresh_token.matches(after.refresh_token.reveal())


def same(one: TokenSet | None, other: TokenSet | None) -> bool:
    """Whether they are the same tokens, however they are sealed."""
    if one is None or other is None:
        return one is other
    return _same(one.access_token, other.access_token) and _same(one.refresh_token, other.refresh_token)


def outcome_on(
    record: AccountRecord, outcome: Unsaved, sealed_tokens: str | None, fence: int, now: float
) -> AccountRecord:
    """``record`` with the outcome of an exchange; all that its operator has said of it stays."""
    at = round(now * MICROSECONDS)
    if outcome.tokens is None:
        return msgspec.structs.replace(record, needs_login=outcome.needs_login, fence=fence, updated_at=at)
    return msgspec.structs.replace(
        with_tokens(record, outcome.tokens, sealed_tokens), fence=fence, updated_at=at, refreshed_at=at
    )


def with_tokens(record: AccountRecord, tokens: TokenSet, sealed_tokens: str | None) -> AccountRecord:
    """``record`` with other tokens."""
    ends = tokens.expires_at
    return msgspec.structs.replace(
        record,
        sealed_tokens=sealed_tokens,
        account=tokens.account or record.account,
        scopes=tokens.scopes,
        expires_at=None if ends is None else round(ends * MICROSECONDS),
        needs_login=None,
    )


def _same(one: Secret | None, other: Secret | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.reveal() == other.reveal()
