"""The revisions that are kept, as the management API reads them."""

import re

from gateway.stores import Stores
from storage.records import Files, Page, StoredRevision

_ID = re.compile(r"[0-9a-f]{64}(-[0-9]{1,18})?")


class KeptRevisions:
    """Fits :class:`management.dependencies.Revisions`. To read makes no database."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def list(self, *, cursor: str | None, limit: int) -> Page[StoredRevision]:
        """As :meth:`management.dependencies.Revisions.list`."""
        if not self._stores.exists():
            return Page(())
        await self._stores.prepare()
        return await self._stores.revisions.list(cursor=cursor, limit=limit)

    async def get(self, revision_id: str) -> tuple[StoredRevision, Files] | None:
        """As :meth:`management.dependencies.Revisions.get`."""
        # A database need not take whatever a path may hold.
        if _ID.fullmatch(revision_id) is None or not self._stores.exists():
            return None
        await self._stores.prepare()
        return await self._stores.revisions.get(revision_id)

    async def before(self, revision: StoredRevision) -> tuple[StoredRevision, Files] | None:
        """As :meth:`management.dependencies.Revisions.before`."""
        await self._stores.prepare()
        return await self._stores.revisions.before(revision)
