"""The requests that the ledger has."""

from core.identity import Role
from core.moments import moment
from management.errors import ManagementError, UsageError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.permit import requires
from management.usage import REFUSALS, read_ledger
from management.usage_asked import anywhere, cursor_of, page_of
from management.usage_bodies import PlaceQuery, RequestList, RequestQuery, RequestShown, shown_request


class Requests(ManagementHandler):
    """``/api/v1/requests``."""

    @operation(
        requires(Role.USER),
        summary="List requests that have ended, newest first; a token sees its own.",
        query=RequestQuery,
        answers={200: RequestList},
        errors=REFUSALS,
    )
    async def get(self) -> None:
        query = self.read_query(RequestQuery)
        wanted, cursor = page_of(query, self.caller, self.dependencies.clock.time())
        async with read_ledger():
            page = await self.dependencies.usage.list(wanted, cursor=cursor, limit=query.limit)
        self.write_json(
            RequestList(
                data=tuple(map(shown_request, page.entries)),
                from_=moment(wanted.since),
                to=moment(wanted.until),
                next_cursor=cursor_of(wanted, page.next_cursor),
            )
        )


class RequestItem(ManagementHandler):
    """``/api/v1/requests/{request_id}``."""

    @operation(
        requires(Role.USER),
        summary="Show a request that has ended; a token sees its own.",
        query=PlaceQuery,
        answers={200: RequestShown},
        errors=(*REFUSALS, UsageError.NOT_FOUND),
    )
    async def get(self, request_id: str) -> None:
        wanted = anywhere(self.read_query(PlaceQuery), self.caller)
        async with read_ledger():
            found = await self.dependencies.usage.get(request_id, wanted)
        if found is None:
            raise ManagementError(
                UsageError.NOT_FOUND,
                "No such request is in the ledger: it may be too old, or not be written yet, or be another's.",
            )
        self.write_json(shown_request(found))
