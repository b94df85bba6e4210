"""``/api/v1/routes[/{name}]``: the entries of `routes`, in their order, as the first that matches counts."""

import msgspec

from core.identity import Role
from management.editing.entries import (
    CHANGE_ERRORS,
    CREATE_ERRORS,
    DELETE_ERRORS,
    LIST_ERRORS,
    Entries,
    EntryQuery,
    EntryRemoved,
    Section,
)
from management.editing.entry_schema import EntryChanged, EntryGiven, EntryPatch, EntryShown, NewEntry
from management.errors import ConfigError
from management.handler.operation import operation
from management.handler.permit import requires

SECTION = Section("routes", "route", "/api/v1/routes")


class NewRoute(NewEntry, section="routes"):
    """A route to add."""


class RouteGiven(EntryGiven, section="routes"):
    """A route as a whole, to be put in the place of the one that there is."""


class RoutePatch(EntryPatch, section="routes"):
    """A merge patch (RFC 7396) of a route."""


class RouteShown(EntryShown, section="routes"):
    """A route as its file has it; of its secrets, what kind they are."""


class RouteChanged(EntryChanged, section="routes"):
    """A route as it is after an edit."""


class RouteList(msgspec.Struct, frozen=True):
    """Routes, in the order of the configuration."""

    data: tuple[RouteShown, ...]
    next_cursor: str | None
    """Of the next part; null: there is no more."""


class Routes(Entries):
    """``/api/v1/routes``."""

    section = SECTION

    @operation(
        requires(Role.ADMIN),
        summary="List the routes of the configuration.",
        query=EntryQuery,
        answers={200: RouteList},
        errors=LIST_ERRORS,
        etag=True,
    )
    async def get(self) -> None:
        await self.list_entries()

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Add a route: last, or before another.",
        body=NewRoute,
        answers={201: RouteChanged, 202: RouteChanged},
        errors=CREATE_ERRORS,
        etag=True,
        if_match=False,
        audit="route.create",
    )
    async def post(self) -> None:
        await self.create_entry()


class RouteItem(Entries):
    """``/api/v1/routes/{name}``."""

    section = SECTION

    @operation(
        requires(Role.ADMIN),
        summary="Show a route.",
        answers={200: RouteShown},
        errors=(ConfigError.ENTRY_MISSING,),
        etag=True,
    )
    async def get(self, name: str) -> None:
        await self.show_entry(name)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Put a route in the place of the one that there is.",
        body=RouteGiven,
        answers={200: RouteChanged, 202: RouteChanged},
        errors=(ConfigError.ENTRY_MISSING, *CHANGE_ERRORS),
        etag=True,
        if_match=True,
        audit="route.replace",
    )
    async def put(self, name: str) -> None:
        await self.replace_entry(name)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Change some of a route.",
        body=RoutePatch,
        answers={200: RouteChanged, 202: RouteChanged},
        errors=(ConfigError.ENTRY_MISSING, *CHANGE_ERRORS),
        etag=True,
        if_match=True,
        audit="route.update",
    )
    async def patch(self, name: str) -> None:
        await self.patch_entry(name)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Remove a route.",
        answers={204: None, 202: EntryRemoved},
        errors=(ConfigError.ENTRY_MISSING, *DELETE_ERRORS),
        etag=True,
        if_match=True,
        audit="route.delete",
    )
    async def delete(self, name: str) -> None:
        await self.delete_entry(name)
