"""What may be done to a document."""

import msgspec

from config.document import Value


class PutDocument(msgspec.Struct, frozen=True, tag="put_document"):
    """Put ``data`` in the place of a whole file."""

    data: bytes
    file: str | None = None
    """The file's path from the root's directory (:attr:`config.sources.SourceFile.relative`); None: the root."""


class MergePatch(msgspec.Struct, frozen=True, tag="merge_patch"):
    """RFC 7396 over the whole document: null removes a key, mappings are joined, all else is replaced.

    Entries of a list that are equal by `name` (`from`, `to`), or equal, keep their comments.
    """

    patch: Value


class PutEntry(msgspec.Struct, frozen=True, tag="put_entry"):
    """Put an entry into a list such as `providers`: in the place of the one of the same key, else as a new one."""

    section: str
    key: str
    """The entry's `name`; of an alias, its `from`."""
    value: dict[str, Value]
    before: str | None = None
    """Key of the entry that it shall stand before; None: where it stands, a new one last in the root."""
    must_exist: bool | None = None
    """None: either way."""


class RemoveEntry(msgspec.Struct, frozen=True, tag="remove_entry"):
    """Take an entry out of a list."""

    section: str
    key: str


class PutFiles(msgspec.Struct, frozen=True, tag="put_files"):
    """Put the files of another revision in the place of those that are there: the document becomes exactly that one.

    No file is made or removed: that is left to whoever made and removed them since.
    """

    files: tuple[tuple[str, bytes], ...]
    """:attr:`config.sources.SourceFile.relative` and content of each, the root first."""


Edit = PutDocument | PutFiles | MergePatch | PutEntry | RemoveEntry

_KEY_FIELDS = {"model_aliases": "from"}


def key_field(section: str) -> str:
    """Which field of a section's entries tells them apart."""
    return _KEY_FIELDS.get(section, "name")
