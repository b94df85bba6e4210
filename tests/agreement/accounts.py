"""What the ledger has to say, worked out from the provider's count and from what the clients have heard; and what it says.

Nothing of the gateway's own takes part in the working out: sizes, prices and sums are by docs/usage.md and docs/prices.md.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from tests.agreement.clients import Heard, messages_of
from tests.agreement.plan import PRICES, STREAMS, Asked, Kind, Told
from tests.agreement.provider import Seen
from tests.gateway_process import Gateway

LEFT_STATUS = 499
_NANO = 1_000_000_000
_ENDPOINTS = {
    Kind.RESPONSE: "responses",
    Kind.RESPONSE_STREAM: "responses",
    Kind.EMBEDDING: "embeddings",
    Kind.LISTED: "models",
}
_UNREAD = {Kind.LISTED, Kind.MALFORMED, Kind.LEFT_BODY}
"""Kinds of which the gateway learns no model."""
_UNROUTED = _UNREAD | {Kind.UNKNOWN, Kind.FORBIDDEN}
_CLASSES = {Kind.FAILED: "upstream_unavailable", Kind.REJECTED: "upstream_rejected"}
"""What docs/providers.md calls an error that the provider's answer was; the client is told the provider's own code."""
COUNTS = ("requests", "failed", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")


class Row(msgspec.Struct, frozen=True):
    """Of one request, all but its times."""

    token: str
    owner: str | None
    endpoint: str
    dialect: str
    stream: bool
    requested_model: str | None
    route: str | None
    provider: str | None
    model: str | None
    credential: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    estimated: bool
    cost_nano_usd: int | None
    status: int
    error_code: str | None
    attempts: int


def expected_row(asked: Asked, seen: list[Seen], heard: Heard) -> Row:
    """The row of a request whose client has heard all that it was to hear."""
    last = seen[-1] if seen else None
    left = heard.status is None or asked.kind is Kind.LEFT_STREAM
    told, estimated = (None, False) if last is None or not (last.began or left) else _usage(asked, last)
    price = None if last is None else PRICES.get(f"{last.provider}/{last.model}")
    endpoint = _ENDPOINTS.get(asked.kind, "chat_completions")
    return Row(
        token=asked.token.name,
        owner=asked.token.owner,
        endpoint=endpoint,
        dialect="openai-responses" if endpoint == "responses" else "openai-chat",
        stream=asked.kind in STREAMS,
        requested_model=None if asked.kind in _UNREAD else asked.model,
        route=None if asked.kind in _UNROUTED else asked.name,
        provider=None if last is None else last.provider,
        model=None if last is None else last.model,
        credential=None if last is None else last.credential,
        input_tokens=None if told is None else told.taken,
        output_tokens=None if told is None else told.given,
        cached_tokens=None if told is None else told.cached,
        reasoning_tokens=None if told is None else told.reasoned,
        estimated=estimated,
        cost_nano_usd=None if told is None or price is None else price.cost_nano_usd(told),
        status=LEFT_STATUS if heard.status is None else heard.status,
        error_code="client_closed" if left else _CLASSES.get(asked.kind, heard.code),
        attempts=len(seen),
    )


def _usage(asked: Asked, last: Seen) -> tuple[Told, bool]:
    """What the provider has told, or what is estimated instead; and whether that is so."""
    if not last.began:
        # Its client has left before.
        return Told(len(json.dumps(messages_of(asked))) // 4, 0), True
    if last.told is None:
        return Told(len(json.dumps(messages_of(asked))) // 4, _written(asked, last.said)), True
    if last.whole or not last.said:
        return last.told, False
    return msgspec.structs.replace(last.told, given=last.told.given + _written(asked, last.said)), True


def _written(asked: Asked, said: list[str]) -> int:
    """docs/usage.md: the bytes / 4; of a stream whose events say less than 6 bytes on average, the events."""
    size = sum(map(len, said))
    return len(said) if asked.kind in STREAMS and size < 6 * len(said) else -(-size // 4)


class Found(msgspec.Struct, frozen=True):
    """A row of the ledger."""

    request_id: str
    row: Row


def found_rows(running: Gateway) -> list[Found]:
    """All rows, by the export."""
    answer = running.management("GET", "/api/v1/usage/export?format=jsonl")
    assert 200 == answer.status, answer
    return [_found(json.loads(line, parse_float=Decimal)) for line in answer.body.splitlines()]


def _found(line: dict[str, Any]) -> Found:
    cost = line["cost_usd"]
    line["cost_nano_usd"] = None if cost is None else int(cost * _NANO)
    return Found(line["request_id"], Row(**{name: line[name] for name in Row.__struct_fields__}))


def number_of(found: Found, by_request_id: Mapping[str, int]) -> int | None:
    """Whose it is: by the model's name, or the id of the request; None: neither tells."""
    model = found.row.requested_model
    return by_request_id.get(found.request_id) if model is None else int(model.rpartition("-")[2])


def differences(asked: Mapping[int, Asked], expected: Mapping[int, Row], found: Mapping[int, Row]) -> str:
    """The first few requests whose rows are not as expected, a line each."""
    shown = []
    for number, row in expected.items():
        other = found.get(number)
        if other is None:
            shown.append(f"{number} {asked[number].kind.name}: no row; {row}")
        elif row != other:
            names = [name for name in Row.__struct_fields__ if getattr(row, name) != getattr(other, name)]
            unlike = ", ".join(f"{name} {getattr(row, name)!r} → {getattr(other, name)!r}" for name in names)
            shown.append(f"{number} {asked[number].kind.name}: {unlike}; {row}")
    shown += [f"{number}: not expected: {row}" for number, row in found.items() if number not in expected]
    return "\n".join(shown[:20])


# Sums.


def expected_sums(rows: Iterable[Row], name: str) -> dict[Any, tuple[int, ...]]:
    """By the values of one column: the counts, the cost in nano-dollars, those without a price, and those estimated."""
    sums: defaultdict[Any, Counter[str]] = defaultdict(Counter)
    for row in rows:
        into = sums[getattr(row, name)]
        into["requests"] += 1
        into["failed"] += row.error_code is not None
        for counted in COUNTS[2:]:
            into[counted] += getattr(row, counted) or 0
        into["cost"] += row.cost_nano_usd or 0
        into["unpriced"] += row.input_tokens is not None and row.cost_nano_usd is None
        into["estimated"] += row.estimated
    return {key: tuple(into[each] for each in (*COUNTS, "cost", "unpriced", "estimated")) for key, into in sums.items()}


def found_sums(running: Gateway, name: str) -> dict[Any, tuple[int, ...]]:
    """The same, by the API."""
    answer = running.management("GET", f"/api/v1/usage?group_by={name}&percentiles=false&limit=1000")
    assert 200 == answer.status, answer
    page = json.loads(answer.body, parse_float=Decimal)
    assert page["next_cursor"] is None
    return {each[name]: _sums(each) for each in page["data"]}


def _sums(group: dict[str, Any]) -> tuple[int, ...]:
    counts = [group[each] for each in COUNTS]
    return (*counts, int(group["cost_usd"] * _NANO), group["unpriced_requests"], group["estimated_requests"])


# Metrics, which count those too that have no row.

_TOKENS = {
    "sluice_input_tokens": "input_tokens",
    "sluice_output_tokens": "output_tokens",
    "sluice_cached_tokens": "cached_tokens",
    "sluice_reasoning_tokens": "reasoning_tokens",
}
_UNKNOWN = "-"

Samples = dict[tuple[str, ...], int]


def expected_metrics(rows: Iterable[Row], strangers: int) -> dict[str, Samples]:
    """Of some metrics the samples that are not 0, by a few of their labels."""
    found: defaultdict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    found["sluice_requests"][_UNKNOWN, _UNKNOWN, "401"] += strangers
    for row in rows:
        provider = row.provider or _UNKNOWN
        found["sluice_requests"][row.token, provider, str(row.status)] += 1
        for name, counted in _TOKENS.items():
            found[name][row.token, provider] += getattr(row, counted) or 0
        found["sluice_cost_usd"][(provider,)] += row.cost_nano_usd or 0
        found["sluice_unpriced_requests"][(provider,)] += row.input_tokens is not None and row.cost_nano_usd is None
    return {name: _not_zero(samples) for name, samples in found.items()}


def found_metrics(running: Gateway) -> dict[str, Samples]:
    """The same, as the gateway shows them."""
    labels: dict[str, tuple[str, ...]] = {
        "sluice_requests": ("token", "provider", "status"),
        **dict.fromkeys(_TOKENS, ("token", "provider")),
        "sluice_cost_usd": ("provider",),
        "sluice_unpriced_requests": ("provider",),
    }
    found: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in labels}
    for family in text_string_to_metric_families(running.metrics()):
        for sample in family.samples:
            if family.name in labels and sample.name.endswith("_total"):
                key = tuple(sample.labels[label] for label in labels[family.name])
                scale: Callable[[float], int] = _to_nano if family.name == "sluice_cost_usd" else int
                found[family.name][key] += scale(sample.value)
    return {name: _not_zero(samples) for name, samples in found.items()}


def _to_nano(usd: float) -> int:
    # A sum of floats, of which each is right to the 15th digit.
    return round(usd * _NANO)


def _not_zero(samples: Counter[tuple[str, ...]]) -> Samples:
    return {key: count for key, count in samples.items() if count}


# The access log.


def logged(running: Gateway) -> Iterator[tuple[int, dict[str, Any]]]:
    """Its lines, with the numbers of their requests."""
    for line in running.access_log():
        yield int(line["client_request_id"].removeprefix("client-")), line


def line_of(request_id: str, row: Row) -> dict[str, Any]:
    """What the line of a request has to say, as far as its row knows."""
    told = None
    if row.input_tokens is not None:
        told = [row.input_tokens, row.output_tokens, row.cached_tokens, row.reasoning_tokens, row.estimated]
    cost = row.cost_nano_usd
    return {
        "request_id": request_id,
        "token": row.token,
        "status": row.status,
        "error_code": row.error_code,
        "attempts": row.attempts,
        "usage": told,
        "cost_usd": None if cost is None else cost / _NANO,
    }


def shown_line(line: dict[str, Any]) -> dict[str, Any]:
    """The same of a line."""
    usage = line["usage"]
    names = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "estimated")
    told = None if usage is None else [usage[name] for name in names]
    shown = {name: line[name] for name in ("request_id", "token", "status", "error_code", "attempts", "cost_usd")}
    return {**shown, "usage": told}
