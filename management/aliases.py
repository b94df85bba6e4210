"""``/api/v1/aliases[/{from}]``: the entries of `model_aliases`, each told by its `from`, percent-encoded."""

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

SECTION = Section("model_aliases", "alias", "/api/v1/aliases")


class NewAlias(NewEntry, section="model_aliases"):
    """A model alias to add."""


class AliasGiven(EntryGiven, section="model_aliases"):
    """A model alias as a whole, to be put in the place of the one that there is."""


class AliasPatch(EntryPatch, section="model_aliases"):
    """A merge patch (RFC 7396) of a model alias."""


class AliasShown(EntryShown, section="model_aliases"):
    """A model alias as its file has it; of its secrets, what kind they are."""


class AliasChanged(EntryChanged, section="model_aliases"):
    """A model alias as it is after an edit."""


class AliasList(msgspec.Struct, frozen=True):
    """Model aliases, in the order of the configuration."""

    data: tuple[AliasShown, ...]
    next_cursor: str | None
    """Of the next part; null: there is no more."""


class Aliases(Entries):
    """``/api/v1/aliases``."""

    section = SECTION

    @operation(
        requires(Role.ADMIN),
        summary="List the model aliases of the configuration.",
        query=EntryQuery,
        answers={200: AliasList},
        errors=LIST_ERRORS,
        etag=True,
    )
    async def get(self) -> None:
        await self.list_entries()

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Add a model alias.",
        body=NewAlias,
        answers={201: AliasChanged, 202: AliasChanged},
        errors=CREATE_ERRORS,
        etag=True,
        if_match=False,
        audit="alias.create",
    )
    async def post(self) -> None:
        await self.create_entry()


class AliasItem(Entries):
    """``/api/v1/aliases/{from}``."""

    section = SECTION

    @operation(
        requires(Role.ADMIN),
        summary="Show a model alias.",
        answers={200: AliasShown},
        errors=(ConfigError.ENTRY_MISSING,),
        etag=True,
    )
    async def get(self, alias: str) -> None:
        await self.show_entry(alias)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Put a model alias in the place of the one that there is.",
        body=AliasGiven,
        answers={200: AliasChanged, 202: AliasChanged},
        errors=(ConfigError.ENTRY_MISSING, *CHANGE_ERRORS),
        etag=True,
        if_match=True,
        audit="alias.replace",
    )
    async def put(self, alias: str) -> None:
        await self.replace_entry(alias)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Change some of a model alias.",
        body=AliasPatch,
        answers={200: AliasChanged, 202: AliasChanged},
        errors=(ConfigError.ENTRY_MISSING, *CHANGE_ERRORS),
        etag=True,
        if_match=True,
        audit="alias.update",
    )
    async def patch(self, alias: str) -> None:
        await self.patch_entry(alias)

    @operation(
        requires(Role.ADMIN, tokens=False),
        summary="Remove a model alias.",
        answers={204: None, 202: EntryRemoved},
        errors=(ConfigError.ENTRY_MISSING, *DELETE_ERRORS),
        etag=True,
        if_match=True,
        audit="alias.delete",
    )
    async def delete(self, alias: str) -> None:
        await self.delete_entry(alias)
