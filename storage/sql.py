"""All stores of one database. To import this is to import SQLAlchemy: 15 MB, and a fifth of a second."""

from collections.abc import Callable

from core.clock import Clock
from storage.accounts import AccountCells
from storage.address import Address
from storage.audit import AuditStore
from storage.database import Database
from storage.jobs import JobStore
from storage.ledger import LedgerStore
from storage.ledger_queries import LedgerQueries
from storage.models import ModelStore
from storage.revisions import RevisionStore
from storage.tokens import TokenStore
from storage.webhooks import WebhookStore


class SqlStores:
    """Opened by the first use of any."""

    def __init__(self, address: Address, clock: Clock, observer: Callable[[bool], None]) -> None:
        """See :class:`Database`."""
        self.database = Database(address, clock, observer)
        self.tokens = TokenStore(self.database)
        self.revisions = RevisionStore(self.database)
        self.models = ModelStore(self.database)
        self.audit = AuditStore(self.database)
        self.jobs = JobStore(self.database)
        self.webhooks = WebhookStore(self.database)
        self.accounts = AccountCells(self.database)
        self.ledger = LedgerStore(self.database)
        self.ledger_queries = LedgerQueries(self.database, clock)
