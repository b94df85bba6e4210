"""The operations over a list of the configuration and its entries: the same for each, whatever its entries are.

A handler says what its section is and which types its bodies have; what it does beside stands in it.
"""

from typing import Any

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
from management.handler.operation import operation
from management.handler.permit import requires


class EntryCollection(Entries):
    """Base of the handlers of a whole list."""

    def __init_subclass__(
        cls,
        *,
        section: Section,
        listed: type[Any],
        new: type[NewEntry],
        changed: type[EntryChanged],
        adding: str | None = None,
        **kwargs: Any,
    ) -> None:
        """``listed`` has `data` and `next_cursor`; ``adding`` says more of `POST` than that it adds."""

        @operation(
            requires(section.readers),
            summary=f"List the {section.many} of the configuration.",
            query=EntryQuery,
            answers={200: listed},
            errors=LIST_ERRORS,
            etag=True,
        )
        async def get(handler: Entries) -> None:
            await handler.list_entries()

        @operation(
            requires(Role.ADMIN, tokens=False),
            summary=adding or f"Add {section.one}.",
            body=new,
            answers={201: changed, 202: changed},
            errors=CREATE_ERRORS,
            etag=True,
            if_match=False,
            audit=f"{section.resource}.create",
        )
        async def post(handler: Entries) -> None:
            await handler.create_entry()

        cls.section, cls.get, cls.post = section, get, post
        super().__init_subclass__(**kwargs)


class EntryItem(Entries):
    """Base of the handlers of one entry, which their path ends in."""

    def __init_subclass__(
        cls,
        *,
        section: Section,
        shown: type[EntryShown],
        given: type[EntryGiven],
        patched: type[EntryPatch],
        changed: type[EntryChanged],
        removing: str | None = None,
        **kwargs: Any,
    ) -> None:
        """``removing`` says more of `DELETE` than that it removes."""

        @operation(
            requires(section.readers),
            summary=f"Show {section.one}.",
            answers={200: shown},
            errors=(section.missing,),
            etag=True,
        )
        async def get(handler: Entries, key: str) -> None:
            await handler.show_entry(key)

        @operation(
            requires(Role.ADMIN, tokens=False),
            summary=f"Put {section.one} in the place of the one that there is.",
            body=given,
            answers={200: changed, 202: changed},
            errors=(section.missing, *CHANGE_ERRORS),
            etag=True,
            if_match=True,
            audit=f"{section.resource}.replace",
        )
        async def put(handler: Entries, key: str) -> None:
            await handler.replace_entry(key)

        @operation(
            requires(Role.ADMIN, tokens=False),
            summary=f"Change some of {section.one}.",
            body=patched,
            answers={200: changed, 202: changed},
            errors=(section.missing, *CHANGE_ERRORS),
            etag=True,
            if_match=True,
            audit=f"{section.resource}.update",
        )
        async def patch(handler: Entries, key: str) -> None:
            await handler.patch_entry(key)

        @operation(
            requires(Role.ADMIN, tokens=False),
            summary=removing or f"Remove {section.one}.",
            answers={204: None, 202: EntryRemoved},
            errors=(section.missing, *DELETE_ERRORS),
            etag=True,
            if_match=True,
            audit=f"{section.resource}.delete",
        )
        async def delete(handler: Entries, key: str) -> None:
            await handler.delete_entry(key)

        cls.section, cls.get, cls.put, cls.patch, cls.delete = section, get, put, patch, delete
        super().__init_subclass__(**kwargs)
