"""The ledger's rows as files: CSV and JSON lines."""

import csv
import io
from collections.abc import Iterable

import msgspec

from core.moments import MICROSECONDS, moment
from management.handler.json_text import encode
from management.handler.money import Usd
from management.usage_bodies import RequestShown, shown_request
from storage.ledger_records import LedgerRow

CSV = "text/csv"
JSON_LINES = "application/jsonl"

_HEADER = tuple(field.encode_name for field in msgspec.structs.fields(RequestShown))
# https://owasp.org/www-community/attacks/CSV_Injection: what spreadsheets take for a formula, of whatever client. The
# apostrophe makes it a text to them; a text that begins with one gets another, so that nobody has to guess.
_FORMULAS = frozenset("=+-@\t\r\n'\uff1d\uff0b\uff0d\uff20")


def csv_header() -> bytes:
    """The first line, with the names that JSON has."""
    return _lines([_HEADER])


def csv_lines(rows: Iterable[LedgerRow]) -> bytes:
    """A line each (RFC 4180), in UTF-8. What is null is empty."""
    return _lines(map(_cells, rows))


def json_lines(rows: Iterable[LedgerRow]) -> bytes:
    """An object each, as `GET /api/v1/requests` has them."""
    return b"".join(encode(shown_request(row)) + b"\n" for row in rows)


def _lines(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode(errors="replace")


def _cells(row: LedgerRow) -> list[str]:
    return [
        _text(row.request_id),
        moment(row.at).isoformat().replace("+00:00", "Z"),
        _text(row.token),
        _text(row.token_id),
        _text(row.owner),
        _text(row.endpoint),
        _text(row.dialect),
        _boolean(row.stream),
        _text(row.requested_model),
        _text(row.route),
        _text(row.provider),
        _text(row.model),
        _text(row.credential),
        _number(row.input_tokens),
        _number(row.output_tokens),
        _number(row.cached_tokens),
        _number(row.reasoning_tokens),
        _boolean(row.estimated),
        "" if row.cost_nano_usd is None else str(Usd(row.cost_nano_usd)),
        _number(row.status),
        _text(row.error_code),
        _number(row.attempts),
        _seconds(row.duration_us),
        _seconds(row.ttft_us),
        _seconds(row.upstream_us),
        _seconds(row.overhead_us),
        _text(row.revision),
    ]


def _text(value: str | None) -> str:
    if value is None:
        return ""
    return f"'{value}" if value[:1] in _FORMULAS else value


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _seconds(microseconds: int | None) -> str:
    if microseconds is None:
        return ""
    whole, rest = divmod(microseconds, MICROSECONDS)
    return f"{whole}.{rest:06d}"
