"""The stores of the database that `storage.url` names.

The first configuration that is put in force names it, for as long as the process lives. It is opened when it is first used:
SQLAlchemy takes 15 MB and a fifth of a second, and a gateway of whose database there is nothing yet does without.
"""

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from config.schema import Config
from core.clock import Clock
from gateway.owner import Owner
from gateway.pauses import brief_pauses, keep_out_of_collections
from storage import writer as audit_writer
from storage.address import Address, SqliteFile, parse_address
from storage.audit_log import AuditLog

if TYPE_CHECKING:
    # At run time they are imported by whoever uses them first.
    from storage.accounts import AccountCells
    from storage.audit import AuditStore
    from storage.jobs import JobStore
    from storage.ledger import LedgerStore
    from storage.ledger_queries import LedgerQueries
    from storage.models import ModelStore
    from storage.revisions import RevisionStore
    from storage.sql import SqlStores
    from storage.tokens import TokenStore
    from storage.webhooks import WebhookStore

DEFAULT_URL = "sqlite:///data/sluice.db"
SPOOL = "spool"
"""In the directory `secrets.directory`: what waits for the database."""
OWNERS = "owners"
"""In the same: who runs (gateway/owner.py)."""


class StoreState(msgspec.Struct, frozen=True, kw_only=True):
    """How the database is, as far as this process knows."""

    status: Literal["ok", "absent", "unavailable"]
    """`absent`: there is none yet, as nothing was stored."""
    reason: str | None = None
    """One of :class:`storage.errors.Reason`."""
    message: str | None = None
    since: float | None = None
    """Seconds since the Unix epoch."""
    waiting: int = 0
    """Entries of the audit that this process has in memory alone."""
    spooled: int = 0
    """Those that it has on the disk, to be written to the database."""


class Observer(audit_writer.Observer):
    """Told how the database does, and what waits for it; here by nothing."""

    def answers(self, up: bool) -> None:
        """After each use: whether it could be used."""


class Stores:
    """Owned by Resources; for one event loop. Before :meth:`begin` nothing of it can be used."""

    def __init__(self, clock: Clock, observer: Observer | None = None, *, writes: bool = True) -> None:
        """Without ``writes`` nothing is taken over of what ended processes have left: for commands that look."""
        self._clock = clock
        self._observer = observer or Observer()
        self._writes = writes
        self._address: Address | None = None
        self._audit: AuditLog | None = None
        self._owner: Owner | None = None
        self._spool: Path | None = None
        self._sql: SqlStores | None = None

    def begin(self, config: Config, directory: Path) -> None:
        """Take the database that ``config`` names; relative paths begin at ``directory``. Later calls do nothing: what
        `storage.url` says counts at start."""
        if self._audit is None:
            self._address = address_of(config, directory)
            place = directory / config.secrets.directory
            self._owner = Owner(place / OWNERS)
            self._spool = place / SPOOL
            self._audit = AuditLog(self._audit_store, self._spool, self.exists, self._observer)
            if self._writes:
                self._audit.start()

    @property
    def shown(self) -> str:
        """The address of the database, without a password."""
        return self._known_address().shown

    def exists(self) -> bool:
        """Whether there may be anything to read: a server is taken to have something, and a file that is there."""
        address = self._known_address()
        return not isinstance(address, SqliteFile) or address.path.exists()

    def state(self) -> StoreState:
        """Asks nothing of the database: tells how the last use of it ended."""
        waiting, spooled = self.audit.waiting_entries, self.audit.spooled_entries
        trouble = self._sql.database.trouble if self._sql is not None else None
        if trouble is not None:
            return StoreState(
                status="unavailable",
                reason=trouble.reason.value,
                message=trouble.message,
                since=trouble.since,
                waiting=waiting,
                spooled=spooled,
            )
        return StoreState(status="ok" if self.exists() else "absent", waiting=waiting, spooled=spooled)

    async def prepare(self) -> None:
        """Import what the stores need, in a thread. Without it the first use does, and holds the event loop up."""
        if self._sql is None:
            await asyncio.get_running_loop().run_in_executor(None, _import_stores)
            # What was imported stays as long as the process does: the collector need not look at it every time.
            keep_out_of_collections()

    @property
    def audit(self) -> AuditLog:
        assert self._audit is not None, "begin() comes first"
        return self._audit

    @property
    def owner(self) -> Owner:
        """Who this process is."""
        assert self._owner is not None, "begin() comes first"
        return self._owner

    @property
    def spool(self) -> Path:
        """The directory for what waits for the database."""
        assert self._spool is not None, "begin() comes first"
        return self._spool

    @property
    def tokens(self) -> "TokenStore":
        return self._stores().tokens

    @property
    def revisions(self) -> "RevisionStore":
        return self._stores().revisions

    @property
    def models(self) -> "ModelStore":
        return self._stores().models

    @property
    def jobs(self) -> "JobStore":
        return self._stores().jobs

    async def account_cells(self) -> "AccountCells":
        """The accounts that sign in to providers, opened where they are not yet."""
        await self.prepare()
        return self._stores().accounts

    async def ledger(self) -> "LedgerStore":
        """The ledger, to be written to; opened where it is not yet."""
        await self.prepare()
        return self._stores().ledger

    async def ledger_queries(self) -> "LedgerQueries":
        """The ledger, to be read; opened where it is not yet."""
        await self.prepare()
        return self._stores().ledger_queries

    async def webhooks(self) -> "WebhookStore":
        """The outbox of webhooks, opened where it is not yet."""
        await self.prepare()
        return self._stores().webhooks

    async def close(self) -> None:
        """Keep what is to be kept, and close the database."""
        if self._audit is not None:
            await self._audit.close()
        if self._sql is not None:
            await self._sql.database.close()
        if self._owner is not None:
            self._owner.close()

    async def _audit_store(self) -> "AuditStore":
        await self.prepare()
        return self._stores().audit

    def _stores(self) -> "SqlStores":
        if self._sql is None:
            from storage.sql import SqlStores  # noqa: PLC0415  large: see above

            self._sql = SqlStores(self._known_address(), self._clock, self._observer.answers)
        return self._sql

    def _known_address(self) -> Address:
        assert self._address is not None, "begin() comes first"
        return self._address


def _import_stores() -> None:
    # Requests are answered meanwhile.
    with brief_pauses():
        importlib.import_module("storage.sql")


def address_of(config: Config, directory: Path) -> Address:
    """Which database ``config`` names.

    Raises:
        StorageUrlFault: none that can be used.
    """
    url = config.storage.url
    return parse_address(url.reveal() if url is not None else DEFAULT_URL, directory)
