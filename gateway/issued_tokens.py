"""Brings what is in the database of the tokens that the API makes into memory, where requests look them up.

Read at start; from then on twice a second by one small query, and at once on all workers where one has changed something.
While the database does not answer, what is in memory goes on serving.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from access.issued import IssuedTokens
from config.schema import Token
from core.clock import Clock
from core.events import Event, TokenCreated, TokenRevoked
from core.identity import Author
from core.moments import moment_of
from core.tasks import Tasks
from gateway.control import Others, RefreshTokens
from gateway.stores import Stores
from management.dependencies import IssuedTokensStatus
from management.token_service import Kept, Successor
from storage.errors import NotFound, StorageUnavailable
from storage.records import NewToken, Page, StoredToken

_log = logging.getLogger("sluice.access")

POLL_SECONDS = 0.5
"""With what a query takes, other gateways know within 2 seconds."""
START_SECONDS = 2.0
"""So long a start waits for the database: then requests are served without what is in it."""


class IssuedTokenKeeper:
    """Keeps one worker's snapshot as the database has it."""

    def __init__(
        self, issued: IssuedTokens, stores: Stores, clock: Clock, random: Callable[[], float] = lambda: 0.0
    ) -> None:
        """``random`` gives numbers from 0 to 1: many gateways do not ask at the same moment."""
        self._issued = issued
        self._stores = stores
        self._clock = clock
        self._random = random
        self._reading = asyncio.Lock()
        self._known = asyncio.Event()
        self._failing_since: float | None = None

    async def start(self, background: Tasks) -> None:
        """Read them, and go on doing so; gives back when they are known, or after 2 seconds."""
        background.spawn(self._run(), "issued tokens")
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._known.wait()
        except TimeoutError:
            _log.warning(
                "the tokens that the API has made cannot be read yet: who holds one is told to try again, "
                "tokens of the configuration are served"
            )

    async def refresh(self, version: int) -> None:
        """Know them as of ``version`` or later.

        Raises:
            StorageUnavailable: they cannot be read.
        """
        if self._issued.version is None or self._issued.version < version:
            await self._read()

    def status(self) -> IssuedTokensStatus:
        """For the health report."""
        return IssuedTokensStatus(
            count=len(self._issued),
            loaded=not self._issued.incomplete,
            stale_since=moment_of(self._failing_since),
        )

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(POLL_SECONDS * (1 - self._random() / 4))

    async def look(self) -> None:
        """Read what has changed, if there is anything to read; raises nothing."""
        self._issued.prune(self._clock.time())
        if not self._stores.exists():
            self._known.set()
            return
        try:
            await self._read()
        except StorageUnavailable as error:
            if self._fails():
                _log.warning("the tokens that the API has made cannot be read, and stay as they were known: %s", error)
        except Exception:
            # A fault of ours: whatever it is, the next look may go well, and a revocation must not be missed.
            if self._fails():
                _log.exception("the tokens that the API has made cannot be read, and stay as they were known")
        else:
            if self._failing_since is not None:
                self._failing_since = None
                _log.info("the tokens that the API has made are read again")
            self._known.set()

    def _fails(self) -> bool:
        """Whether that is new."""
        new = self._failing_since is None
        if new:
            self._failing_since = self._clock.time()
        return new

    async def _read(self) -> None:
        issued = self._issued
        issued.incomplete = issued.version is None
        async with self._reading:
            await self._stores.prepare()
            store = self._stores.tokens
            if issued.version is not None:
                changes = await store.changed_since(issued.version)
                if changes.version >= issued.version:
                    if changes.version > issued.version:
                        issued.apply(changes, self._clock.time())
                    return
                _log.warning(
                    "the database has older tokens than were known, from a backup probably: all are read again"
                )
            fresh = IssuedTokens()
            async with aclosing(store.living()) as parts:
                async for part in parts:
                    fresh.apply(part, self._clock.time())
            issued.become(fresh)


class IssuedTokenService:
    """Fits :class:`management.token_service.TokenService`: changes the database, and sees that all workers know."""

    def __init__(
        self,
        keeper: IssuedTokenKeeper,
        issued: IssuedTokens,
        stores: Stores,
        others: Callable[[], Others],
        clock: Clock,
        emit: Callable[[Event], None],
        declared: Callable[[], tuple[Token, ...]],
    ) -> None:
        self._keeper = keeper
        self._issued = issued
        self._stores = stores
        self._others = others
        self._clock = clock
        self._emit = emit
        self.declared = declared

    async def get(self, token_id: str) -> StoredToken | None:
        if not self._stores.exists():
            return None
        await self._stores.prepare()
        return await self._stores.tokens.get(token_id)

    async def list(
        self, *, cursor: str | None, limit: int, owner: str | None, include_revoked: bool
    ) -> Page[StoredToken]:
        if not self._stores.exists():
            return Page(())
        await self._stores.prepare()
        return await self._stores.tokens.list(cursor=cursor, limit=limit, owner=owner, include_revoked=include_revoked)

    async def create(self, token: NewToken, author: Author) -> Kept:
        await self._stores.prepare()
        kept = await self._spread(await self._stores.tokens.insert(token))
        self._emit(TokenCreated(token_id=token.id, token=token.name, by=author.name))
        return kept

    async def update(self, token_id: str, expected: int, author: Author, **values: Any) -> Kept:
        await self._require_database(token_id)
        return await self._spread(await self._stores.tokens.update(token_id, expected, **values))

    async def revoke(self, token_id: str, expected: int | None, author: Author) -> Kept:
        await self._require_database(token_id)
        before = await self._stores.tokens.get(token_id)
        kept = await self._spread(await self._stores.tokens.revoke(token_id, expected))
        if before is None or before.revoked_at is None:
            self._emit(TokenRevoked(token_id=token_id, token=kept.token.name, by=author.name))
        return kept

    async def rotate(self, token_id: str, expected: int | None, successor: Successor, author: Author) -> Kept:
        await self._require_database(token_id)
        new = await self._stores.tokens.rotate(
            token_id,
            new_id=successor.id,
            sha256=successor.sha256,
            prefix=successor.prefix,
            created_by=author.name,
            grace_until=successor.grace_until,
            expected=expected,
        )
        kept = await self._spread(new)
        self._emit(TokenCreated(token_id=new.id, token=new.name, by=author.name, rotated_from=token_id))
        if not successor.grace_until:
            self._emit(TokenRevoked(token_id=token_id, token=new.name, by=author.name))
        return kept

    async def _require_database(self, token_id: str) -> None:
        if not self._stores.exists():
            raise NotFound(f"there is no token `{token_id}`")
        await self._stores.prepare()

    async def _spread(self, stored: StoredToken) -> Kept:
        # At once here, by what is known already: this worker must not refuse or open what it has just said.
        self._issued.put(stored, self._clock.time())
        try:
            # A token that was rotated has changed too.
            await self._keeper.refresh(stored.changed)
        except StorageUnavailable:
            # It is kept, so it will be read; the poll tells of the database.
            return Kept(stored, everywhere=False)
        answered = await self._others().ask(RefreshTokens(stored.changed))
        return Kept(stored, answered.by_all)
