"""``/api/v1/providers[/{name}]``: the entries of `providers` of the configuration."""

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
from management.errors import ProviderError
from management.handler.operation import operation
from management.handler.permit import requires

SECTION = Section("providers", "provider", "/api/v1/providers", ProviderError.NOT_FOUND)


class NewProvider(NewEntry, section="providers"):
    """A provider to add."""


class ProviderGiven(EntryGiven, section="providers"):
    """A provider as a whole, to be put in the place of the one that there is."""


class ProviderPatch(EntryPatch, section="providers"):
    """A merge patch (RFC 7396) of a provider."""


class ProviderShown(EntryShown, section="providers"):
    """A provider as its file has it; of its secrets, what kind they are."""


class ProviderChanged(EntryChanged, section="providers"):
    """A provider as it is after an edit."""


class ProviderList(msgspec.Struct, frozen=True):
    """Providers, in the order of the configuration."""

    data: tuple[ProviderShown, ...]
    next_cursor: str | None
    """Of the next part; null: there is no more."""


class Providers(Entries):
    """``/api/v1/providers``."""

    section = SECTION

    @operation(
        requires(Role.POWER_USER),
        summary="List the providers of the configuration.",
        query=EntryQuery,
        answers={200: ProviderList},
        errors=LIST_ERRORS,
        etag=True,
    )
    async def get(self) -> None:
        await self.list_entries()

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Add a provider.",
        body=NewProvider,
        answers={201: ProviderChanged, 202: ProviderChanged},
        errors=CREATE_ERRORS,
        etag=True,
        if_match=False,
        audit="provider.create",
    )
    async def post(self) -> None:
        await self.create_entry()


class ProviderItem(Entries):
    """``/api/v1/providers/{name}``."""

    section = SECTION

    @operation(
        requires(Role.POWER_USER),
        summary="Show a provider.",
        answers={200: ProviderShown},
        errors=(ProviderError.NOT_FOUND,),
        etag=True,
    )
    async def get(self, name: str) -> None:
        await self.show_entry(name)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Put a provider in the place of the one that there is.",
        body=ProviderGiven,
        answers={200: ProviderChanged, 202: ProviderChanged},
        errors=(ProviderError.NOT_FOUND, *CHANGE_ERRORS),
        etag=True,
        if_match=True,
        audit="provider.replace",
    )
    async def put(self, name: str) -> None:
        await self.replace_entry(name)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Change some of a provider.",
        body=ProviderPatch,
        answers={200: ProviderChanged, 202: ProviderChanged},
        errors=(ProviderError.NOT_FOUND, *CHANGE_ERRORS),
        etag=True,
        if_match=True,
        audit="provider.update",
    )
    async def patch(self, name: str) -> None:
        await self.patch_entry(name)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Remove a provider, unless a route or an alias leads to it.",
        answers={204: None, 202: EntryRemoved},
        errors=(ProviderError.NOT_FOUND, *DELETE_ERRORS),
        etag=True,
        if_match=True,
        audit="provider.delete",
    )
    async def delete(self, name: str) -> None:
        await self.delete_entry(name)
