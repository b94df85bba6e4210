"""Why an edit was not made. No message holds a value of the document.

EditFault
├── EditRefused              nothing was tried on the disk
│   ├── Unreadable           a file that cannot be parsed: it is never touched
│   ├── EntryMissing         what must exist does not
│   └── EntryExists          what must not exist does
├── Stale                    the document is not the one that the edit was made for
├── ReadOnlyDocument         the files cannot be replaced by us
├── DocumentBusy             another edit, or somebody who writes to it by hand, does not come to the end
└── WriteFailed              the disk is full or broken
"""

from collections.abc import Iterable

from config.faults import Fault


class EditFault(Exception):
    """An edit that was not made; the document is as it was."""


class EditRefused(EditFault):
    """The edit cannot be made in this document; ``faults`` say where, is never empty."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class Unreadable(EditRefused):
    """A file of the document cannot be parsed."""


class EntryMissing(EditRefused):
    """There is no such entry or file."""


class EntryExists(EditRefused):
    """There is such an entry already."""


class Stale(EditFault):
    """The document has changed since it was read."""

    def __init__(self, present: str | None) -> None:
        """``present``: the revision on disk now; None where some file cannot be read."""
        self.present = present
        super().__init__("the document has changed since it was read: read it again, and edit that")


class ReadOnlyDocument(EditFault):
    """A file or its directory is not ours to write."""


class DocumentBusy(EditFault):
    """Another edit holds the lock of the document for too long, or somebody has a file of it open for writing."""


class WriteFailed(EditFault):
    """The system has refused to write."""
