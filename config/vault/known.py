"""What is known of the secrets of one server: their texts in cells, what is wrong with them, and when they are due.

No IO: values.py asks Vault. A value that cannot be read again stays in use and is stale; that is told by a warning and
an event, once, until it is fresh again.
"""

import logging
import math
import random
import threading
from collections.abc import Callable, Iterable, Mapping

import msgspec

from config.references import Reference, ReferenceFault
from config.schema import Vault
from config.vault.answers import Reading
from config.vault.entries import Place, due_in, place_of, read_again_in, text_of, try_again_in
from config.vault.errors import VaultFault, VaultMissing, VaultUnavailable
from core.clock import Clock
from core.events import Event, SecretFresh, SecretRotated, SecretStale

_log = logging.getLogger("sluice.secrets")

GRACE_SECONDS = 60.0
"""What is out of use is kept for as long: requests in flight use its lease, a document may be about to be put in force."""


class StaleValue(msgspec.Struct, frozen=True):
    """A reference whose value could not be read again; times are epoch seconds."""

    reference: str
    reason: str
    since: float
    known_at: float | None
    """When the value in use was read; None: not by this process, or it is the reference's default."""


class Lease(msgspec.Struct, frozen=True):
    """What Vault lent. Ends with the token of ``sign_in`` at the latest; ``ends_at`` is monotonic."""

    lease_id: str
    seconds: float
    renewable: bool
    sign_in: int
    ends_at: float


class Cell:
    """The current text of one field, and what is wrong with it."""

    __slots__ = ("_field", "_texts", "fault", "given", "label", "read_at", "stale_since")

    def __init__(self, label: str, field: str, texts: Mapping[str, str]) -> None:
        """``texts``: of all fields of its entry."""
        self.label = label
        """Of the references to it."""
        self._field = field
        self._texts = texts
        self.fault: VaultFault | None = None
        """Of the last try."""
        self.given = False
        """Whether a document holds a handle on it."""
        self.read_at: float | None = None
        """Epoch seconds; None: not by this process."""
        self.stale_since: float | None = None
        """Epoch seconds."""

    def get(self) -> str:
        """The text; empty: there is none, and the reference's default stands in for it.

        Called on the request path: without a lock, and without a decision.
        """
        return self._texts.get(self._field, "")


class Entry:
    """One secret of Vault and the cells of its fields. Times are monotonic."""

    __slots__ = (
        "asked_at",
        "cells",
        "due_at",
        "failures",
        "followed",
        "given",
        "lease",
        "lock",
        "place",
        "reading",
        "texts",
    )

    def __init__(self, place: Place) -> None:
        self.place = place
        self.cells: dict[str, Cell] = {}
        self.texts: dict[str, str] = {}
        """By field. Those of one reading are put in at once, so that a user name never stands beside another's password."""
        self.lock = threading.Lock()
        """Held by whoever reads it: two readings of a dynamic secret would be two accounts."""
        self.reading: Mapping[str, object] | None = None
        """The last good one; None: it has not been read."""
        self.lease: Lease | None = None
        self.due_at = math.inf
        self.failures = 0
        """In a row."""
        self.asked_at = 0.0
        """When a document last named it."""
        self.followed = False
        """Whether the document in force names it: else it is not kept fresh, and nobody needs to know how it does."""
        self.given = False
        """Whether a document holds a handle on one of its cells: else it need not be kept fresh."""

    @property
    def in_use(self) -> bool:
        """Whether it is to be kept fresh."""
        return self.given and self.followed

    @property
    def lacks_a_text(self) -> bool:
        """Whether one of its cells is empty."""
        return not all(self.texts.get(field) for field in tuple(self.cells))


class Known:
    """The entries. Methods may be called from any thread."""

    def __init__(self, config: Vault, clock: Clock, tell: Callable[[Event], None]) -> None:
        """``config`` tells where references lead, and `cache_seconds`; ``tell`` is given events."""
        self.changed = False
        """Whether there are texts that :meth:`texts` has not given."""
        self._config = config
        self._clock = clock
        self._tell = tell
        self._lock = threading.RLock()
        self._entries: dict[Place, Entry] = {}
        self._retired: list[tuple[float, Lease]] = []
        """Leases out of use, and when they are revoked."""

    def retune(self, config: Vault) -> None:
        """Take the `cache_seconds` of ``config``."""
        now = self._clock.monotonic()
        with self._lock:
            self._config = config
            for entry in self._entries.values():
                if entry.lease is None:
                    entry.due_at = min(entry.due_at, now + read_again_in(config.cache_seconds, random.random()))

    # For documents

    def lacking(self, references: Iterable[Reference]) -> list[Entry]:
        """The entries that must be read before ``references`` have their texts."""
        with self._lock:
            lacking = {entry.place: entry for entry, cell in map(self._named, references) if not cell.get()}
        return list(lacking.values())

    def has(self, reference: Reference) -> bool:
        """Whether it was among those that :meth:`lacking` was asked of."""
        entry = self._entries.get(place_of(reference.parts, self._config))
        return entry is not None and reference.parts["field"] in entry.cells

    def give(self, reference: Reference) -> Callable[[], str]:
        """A handle on its text, which is empty where its default stands in for it.

        Raises:
            ReferenceFault: there is neither a text nor a default that may stand in for what went wrong.
        """
        with self._lock:
            entry, cell = self._named(reference)
            # A denial, or what no secret can be, is a mistake that a default would hide.
            excused = isinstance(cell.fault, VaultMissing | VaultUnavailable)
            if not cell.get() and (reference.default is None or not excused):
                raise ReferenceFault(f"`{reference.label}` cannot be read: {cell.fault}")
            entry.given = cell.given = True
            if cell.fault is not None:
                self._cell_failed(entry, cell, cell.fault)
            return cell.get

    def follow(self, references: Iterable[Reference]) -> None:
        """Remember what ``references`` of the document in force name: :meth:`give_up` spares it."""
        places = {place_of(each.parts, self._config) for each in references}
        with self._lock:
            for entry in self._entries.values():
                entry.followed = entry.place in places
                for cell in entry.cells.values():
                    if not entry.followed:
                        cell.stale_since = None
                    elif cell.fault is not None:
                        self._cell_failed(entry, cell, cell.fault)

    def stale(self) -> tuple[StaleValue, ...]:
        """What is in use though it could not be read again."""
        with self._lock:
            return tuple(
                StaleValue(cell.label, cell.fault.reason, cell.stale_since, cell.read_at)
                for entry in self._entries.values()
                for cell in entry.cells.values()
                if cell.stale_since is not None and cell.fault is not None
            )

    # What is due

    def next_due_at(self) -> float:
        """When an entry in use is due; infinite where there is none."""
        with self._lock:
            return min((entry.due_at for entry in self._entries.values() if entry.in_use), default=math.inf)

    def due(self, sign_in: int) -> list[Entry]:
        """The entries in use to be read or prolonged now; ``sign_in`` is the present one.

        Those that failed come last: the first one tells how Vault does.
        """
        with self._lock:
            due = [entry for entry in self._entries.values() if self.is_due(entry, sign_in)]
            return sorted(due, key=lambda entry: entry.failures)

    def is_due(self, entry: Entry, sign_in: int) -> bool:
        """Whether ``entry`` is among them."""
        lease = entry.lease
        # The token that it was lent to has been replaced, and takes it along when it ends.
        orphaned = lease is not None and lease.sign_in != sign_in and not entry.failures
        return entry.in_use and (orphaned or entry.due_at <= self._clock.monotonic())

    def give_up(self) -> None:
        """Drop the entries that no document needs; their leases are retired."""
        now = self._clock.monotonic()
        with self._lock:
            for place, entry in tuple(self._entries.items()):
                if not entry.followed and entry.asked_at + GRACE_SECONDS <= now:
                    self._retire(entry)
                    del self._entries[place]

    def take_retired(self) -> list[Lease]:
        """The leases that may be revoked now."""
        now = self._clock.monotonic()
        with self._lock:
            due = [lease for revoke_at, lease in self._retired if revoke_at <= now]
            if due:
                self._retired = [each for each in self._retired if each[0] > now]
        return due

    def take_leases(self) -> list[Lease]:
        """All leases, in use or retired: this is the end."""
        with self._lock:
            leases = [entry.lease for entry in self._entries.values() if entry.lease is not None]
            leases += [lease for _, lease in self._retired]
            self._retired = []
        return leases

    # What Vault told

    def read(self, entry: Entry, reading: Reading) -> None:
        """``reading`` is what ``entry`` holds from now on; its former lease is retired."""
        now = self._clock.monotonic()
        with self._lock:
            self._retire(entry)
            entry.reading, entry.failures = reading.data, 0
            if reading.lease_id:
                seconds = reading.lease_seconds
                entry.lease = Lease(reading.lease_id, seconds, reading.renewable, reading.sign_in, now + seconds)
            if reading.lease_seconds > 0:
                entry.due_at = now + due_in(reading.lease_seconds)
            else:
                entry.due_at = now + read_again_in(self._config.cache_seconds, random.random())
            self._show(entry, reading.data)

    def prolonged(self, entry: Entry, lease: Lease) -> None:
        """``lease`` is that of ``entry`` from now on."""
        now = self._clock.monotonic()
        with self._lock:
            entry.lease, entry.failures = lease, 0
            entry.due_at = now + due_in(lease.ends_at - now)
            self._show(entry, entry.reading or {})

    def failed(self, entry: Entry, fault: VaultFault) -> None:
        """``entry`` could not be read: it is due again soon."""
        with self._lock:
            entry.failures += 1
            entry.due_at = self._clock.monotonic() + try_again_in(entry.failures, self._config.cache_seconds)
            for cell in entry.cells.values():
                self._cell_failed(entry, cell, fault)

    # What is kept

    def texts(self) -> dict[Place, dict[str, str]]:
        """What was read, by field. Without what is lent: that ends with its lease, and is of no use to a later start."""
        with self._lock:
            self.changed = False
            return {
                entry.place: {field: cell.get() for field, cell in entry.cells.items() if cell.read_at is not None}
                for entry in self._entries.values()
                if entry.lease is None and any(cell.read_at is not None for cell in entry.cells.values())
            }

    def fill(self, entries: Iterable[Entry], texts_of: Callable[[Place], Mapping[str, str]]) -> None:
        """Give empty cells the texts of an earlier process."""
        with self._lock:
            for entry in entries:
                kept = texts_of(entry.place)
                entry.texts.update(
                    {field: kept[field] for field in entry.cells if field in kept and not entry.texts.get(field)}
                )

    # How

    def _named(self, reference: Reference) -> tuple[Entry, Cell]:
        place, field = place_of(reference.parts, self._config), reference.parts["field"]
        entry = self._entries.get(place)
        if entry is None:
            entry = self._entries[place] = Entry(place)
        entry.asked_at = self._clock.monotonic()
        cell = entry.cells.get(field)
        if cell is None:
            cell = entry.cells[field] = Cell(reference.label, field, entry.texts)
            if entry.reading is not None:
                self._show(entry, entry.reading, (field,))
        return entry, cell

    def _show(self, entry: Entry, data: Mapping[str, object], fields: Iterable[str] | None = None) -> None:
        """Let the cells of ``fields`` (None: all) give what ``data`` says."""
        texts: dict[str, str] = {}
        for field in tuple(entry.cells) if fields is None else fields:
            try:
                texts[field] = text_of(data, field, entry.place)
            except VaultFault as fault:
                self._cell_failed(entry, entry.cells[field], fault.with_traceback(None))
        former = {field: entry.texts.get(field) for field in texts}
        entry.texts.update(texts)  # one step of the interpreter's
        for field, text in texts.items():
            cell = entry.cells[field]
            cell.read_at, cell.fault = self._clock.time(), None
            if former[field] != text:
                self.changed = True
                if cell.given and entry.followed:
                    _log.info("`%s` has another value, which is in use from now on", cell.label)
                    self._tell(SecretRotated(reference=cell.label))
            self._freshen(cell)

    def _freshen(self, cell: Cell) -> None:
        if cell.stale_since is not None:
            cell.stale_since = None
            _log.info("`%s` is fresh again", cell.label)
            self._tell(SecretFresh(reference=cell.label))

    def _cell_failed(self, entry: Entry, cell: Cell, fault: VaultFault) -> None:
        cell.fault = fault
        if not (cell.given and entry.followed):
            return
        if not cell.get() and isinstance(fault, VaultMissing):
            # It is known that there is none: its default is all there is to have.
            self._freshen(cell)
        elif cell.stale_since is None:
            cell.stale_since = self._clock.time()
            in_use = "its last value stays in use" if cell.get() else "its default is in use"
            _log.warning("`%s` cannot be read, %s: %s", cell.label, in_use, fault)
            self._tell(SecretStale(reference=cell.label, reason=fault.reason))

    def _retire(self, entry: Entry) -> None:
        if entry.lease is not None:
            self._retired.append((self._clock.monotonic() + GRACE_SECONDS, entry.lease))
            entry.lease = None
