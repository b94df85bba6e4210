"""``/api/v1/aliases[/{from}]``: the entries of `model_aliases`, each told by its `from`, percent-encoded."""

import msgspec

from management.editing.entries import Section
from management.editing.entry_handlers import EntryCollection, EntryItem
from management.editing.entry_schema import EntryChanged, EntryGiven, EntryPatch, EntryShown, NewEntry

SECTION = Section("model_aliases", "alias", "/api/v1/aliases", one="a model alias", many="model aliases")


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


class Aliases(EntryCollection, section=SECTION, listed=AliasList, new=NewAlias, changed=AliasChanged):
    """``/api/v1/aliases``."""


class AliasItem(
    EntryItem, section=SECTION, shown=AliasShown, given=AliasGiven, patched=AliasPatch, changed=AliasChanged
):
    """``/api/v1/aliases/{from}``."""
