"""``/api/v1/routes[/{name}]``: the entries of `routes`, in their order, as the first that matches counts."""

import msgspec

from management.editing.entries import Section
from management.editing.entry_handlers import EntryCollection, EntryItem
from management.editing.entry_schema import EntryChanged, EntryGiven, EntryPatch, EntryShown, NewEntry

SECTION = Section("routes", "route", "/api/v1/routes", one="a route", many="routes")


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


class Routes(
    EntryCollection,
    section=SECTION,
    listed=RouteList,
    new=NewRoute,
    changed=RouteChanged,
    adding="Add a route: last, or before another.",
):
    """``/api/v1/routes``."""


class RouteItem(
    EntryItem, section=SECTION, shown=RouteShown, given=RouteGiven, patched=RoutePatch, changed=RouteChanged
):
    """``/api/v1/routes/{name}``."""
