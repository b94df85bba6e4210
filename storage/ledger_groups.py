"""The ledger's rows in groups, as SQL of either database: what is counted and summed, percentiles, and the groups' order."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Subquery, and_, case, func, literal_column, select, tuple_

from storage.ledger_tables import ledger
from storage.usage_records import BUCKET_KEYS, COLUMN_KEYS, Key, LedgerFilter, Percentiles, Usage

_EQUAL: Final = (*COLUMN_KEYS, "stream")
_SUMMED: Final = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "cost_nano_usd")
_TIMED: Final = ("duration_us", "ttft_us")
_PERCENTS: Final = (50, 90, 95, 99)

_MINUTE: Final = 60_000_000
_SIZES: Final = {"minute": _MINUTE, "hour": 60 * _MINUTE, "day": 24 * 60 * _MINUTE}
_NUMBERS: Final = frozenset({"status", *BUCKET_KEYS})
"""Keys that are whole numbers; all others are texts."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LOW_BITS: Final = 32


def conditions(wanted: LedgerFilter) -> list[ColumnElement[bool]]:
    """What a row has to fulfil."""
    found = [ledger.c.at >= wanted.since, ledger.c.at < wanted.until]
    found += [ledger.c[name] == value for name in _EQUAL if (value := getattr(wanted, name)) is not None]
    if wanted.declared:
        found.append(ledger.c.token_id.is_(None))
    if wanted.status_class is not None:
        found.append(ledger.c.status.between(wanted.status_class * 100, wanted.status_class * 100 + 99))
    return found


def fits(name: str, value: Key) -> bool:
    """Whether ``value`` can be one of the key ``name``."""
    return value is None or isinstance(value, int) == (name in _NUMBERS)


class Groups:
    """Statements for the groups of what is ``wanted`` by some keys; by none it is one group.

    They give the keys first, and those behind a place and up to another alone, where these are given.
    """

    def __init__(self, wanted: LedgerFilter, group_by: Sequence[str], dialect: str) -> None:
        self._wanted = wanted
        self._group_by = tuple(group_by)
        self._dialect = dialect

    def sums(self, after: Sequence[Key] | None, limit: int) -> Select[Any]:
        """The first ``limit``; each row is for :meth:`usage`."""
        rows = self._rows("error_code", *_SUMMED, "estimated", "attempts")
        served = and_(
            rows.c.cost_nano_usd.is_(None),
            rows.c.attempts > 0,
            # A request that failed before there was any output has used nothing.
            rows.c.input_tokens.is_not(None) | rows.c.error_code.is_(None),
        )
        columns: list[ColumnElement[Any]] = [
            func.count(),
            func.count(rows.c.error_code),
            func.count(case((served, 1))),
            func.count(case((rows.c.estimated, 1))),
        ]
        for name in _SUMMED:
            columns += self._sum(rows.c[name])
        keys = self._keys(rows)
        found = select(*keys, *columns).where(*self._between(rows, after, None)).group_by(*keys)
        return found.order_by(*self._place(rows)).limit(limit)

    def usage(self, row: Sequence[Any]) -> tuple[tuple[Key, ...], Usage]:
        """A row of :meth:`sums`."""
        key, (requests, failed, unpriced, estimated, *halves) = self._split(row)
        shift = _LOW_BITS if self._dialect == "sqlite" else 0
        sums = [(int(high or 0) << shift) + int(low or 0) for high, low in zip(halves[::2], halves[1::2], strict=True)]
        counts = (requests, failed, *sums, unpriced, estimated)
        return key, Usage(*counts)

    def percentiles(self, after: Sequence[Key] | None, last: Sequence[Key] | None) -> list[Select[Any]]:
        """Of the durations, and of the times to first token; each row is for :meth:`percentiles_of`."""
        return [self._percentiles(name, after, last) for name in _TIMED]

    def percentiles_of(self, row: Sequence[Any]) -> tuple[tuple[Key, ...], Percentiles | None]:
        """A row of any of :meth:`percentiles`."""
        key, found = self._split(row)
        if self._dialect != "sqlite":
            found = found[0] or [None]
        return key, None if found[0] is None else Percentiles(*found)

    def _percentiles(self, name: str, after: Sequence[Key] | None, last: Sequence[Key] | None) -> Select[Any]:
        rows = self._rows(name)
        keys, value = self._keys(rows), rows.c[name]
        where = [value.is_not(None), *self._between(rows, after, last)]
        if self._dialect != "sqlite":
            fractions: ColumnElement[Any] = literal_column("ARRAY[0.5, 0.9, 0.95, 0.99]::float8[]")
            found = func.percentile_disc(fractions).within_group(value)
            return select(*keys, found).where(*where).group_by(*keys)
        # row_number and count of each group's own values: the n-th of them is the percentile.
        window: dict[str, Any] = {"partition_by": keys} if keys else {}
        number = func.row_number().over(order_by=value, **window).label("number")
        count = func.count().over(**window).label("count")
        ranked = select(*keys, value.label("value"), number, count).where(*where).subquery("ranked")
        keys = self._keys(ranked)
        nth = [
            func.max(case((ranked.c.number == (ranked.c.count * percent + 99) // 100, ranked.c.value)))
            for percent in _PERCENTS
        ]
        return select(*keys, *nth).group_by(*keys)

    def _rows(self, *names: str) -> Subquery:
        """The rows, with what they are grouped by, which is called `k0`, `k1` and so on."""
        keys = [
            (_bucket(name, self._wanted) if name in BUCKET_KEYS else ledger.c[name]).label(f"k{position}")
            for position, name in enumerate(self._group_by)
        ]
        columns = [ledger.c[name] for name in names]
        return select(*keys, *columns).where(*conditions(self._wanted)).subquery("wanted")

    def _keys(self, rows: Subquery) -> list[ColumnElement[Any]]:
        return [rows.c[f"k{position}"] for position in range(len(self._group_by))]

    def _split(self, row: Sequence[Any]) -> tuple[tuple[Key, ...], list[Any]]:
        count = len(self._group_by)
        return tuple(row[:count]), list(row[count:])

    def _sum(self, column: ColumnElement[Any]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        if self._dialect != "sqlite":
            return literal_column("0"), func.sum(column)
        # Its sums have 64 bits, and a provider may tell of any number: in two halves they fit.
        low: ColumnElement[int] = literal_column(str((1 << _LOW_BITS) - 1))
        return func.sum(column.bitwise_rshift(_LOW_BITS)), func.sum(column.bitwise_and(low))

    def _place(self, rows: Subquery) -> list[ColumnElement[Any]]:
        """What groups are in order of: of each key whether there is a value, and that; texts by their bytes everywhere."""
        found: list[ColumnElement[Any]] = []
        for name, key in zip(self._group_by, self._keys(rows), strict=True):
            value: ColumnElement[Any] = func.coalesce(key, _nothing(name))
            if self._dialect != "sqlite" and name not in _NUMBERS:
                value = value.collate("C")
            found += [case((key.is_(None), 0), else_=1), value]
        return found

    def _place_of(self, key: Sequence[Key]) -> Iterator[Any]:
        for name, value in zip(self._group_by, key, strict=True):
            yield int(value is not None)
            yield _nothing(name) if value is None else value

    def _between(
        self, rows: Subquery, after: Sequence[Key] | None, last: Sequence[Key] | None
    ) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if after:
            found.append(tuple_(*self._place(rows)) > tuple_(*self._place_of(after)))
        if last:
            found.append(tuple_(*self._place(rows)) <= tuple_(*self._place_of(last)))
        return found


def _nothing(name: str) -> Key:
    return 0 if name in _NUMBERS else ""


def _bucket(name: str, wanted: LedgerFilter) -> ColumnElement[int]:
    """When the minute, hour, day or month that a row is in has begun."""
    if name != "month":
        return ledger.c.at - ledger.c.at % _SIZES[name]
    # By the calendar, which the two databases ask in different words: said as comparisons, the newest month first.
    first, *others = _months(wanted)
    later = [(ledger.c.at >= begin, begin) for begin in reversed(others)]
    return case(*later, else_=first) if later else literal_column(str(first), ledger.c.at.type)


def _months(wanted: LedgerFilter) -> Iterator[int]:
    """When each month has begun that a part of ``wanted`` is in."""
    begin = (_EPOCH + timedelta(microseconds=wanted.since)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while True:
        at = (begin - _EPOCH) // timedelta(microseconds=1)
        yield at
        begin = begin.replace(month=begin.month % 12 + 1, year=begin.year + begin.month // 12)
        if (begin - _EPOCH) // timedelta(microseconds=1) >= wanted.until:
            return
