"""``/api/v1/providers[/{name}]``: the entries of `providers` of the configuration."""

import msgspec

from core.identity import Role
from management.editing.entries import Section
from management.editing.entry_handlers import EntryCollection, EntryItem
from management.editing.entry_schema import EntryChanged, EntryGiven, EntryPatch, EntryShown, NewEntry
from management.errors import ProviderError

SECTION = Section(
    "providers",
    "provider",
    "/api/v1/providers",
    one="a provider",
    many="providers",
    missing=ProviderError.NOT_FOUND,
    readers=Role.POWER_USER,
)


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


class Providers(EntryCollection, section=SECTION, listed=ProviderList, new=NewProvider, changed=ProviderChanged):
    """``/api/v1/providers``."""


class ProviderItem(
    EntryItem,
    section=SECTION,
    shown=ProviderShown,
    given=ProviderGiven,
    patched=ProviderPatch,
    changed=ProviderChanged,
    removing="Remove a provider, unless a route or an alias leads to it.",
):
    """``/api/v1/providers/{name}``."""
