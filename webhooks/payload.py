"""An event as webhooks carry it: `type`, `timestamp` and `data`, as Standard Webhooks recommends
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, "Payload structure").

`data` has the fields of the event in the order in which core/events.py has them; what is None is null. tests/golden/webhooks
has the payload of each event.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from core.events import Event

MAX_BYTES = 64 << 10
"""Of a payload; of a longer one, lists and texts are cut. The specification advises 20 kB and less."""
_MOST_ENTRIES = 50
_MOST_CHARACTERS = 500

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class WebhookTest(Event, frozen=True, kw_only=True):
    """Sent to a webhook because somebody asked for it, to see that it arrives. Nobody else is told, so nobody subscribes."""

    name = "webhook.test"
    webhook: str
    """The name of the one that it is sent to."""


class _Payload(msgspec.Struct, frozen=True):
    type: str
    timestamp: datetime
    """When it happened; RFC 3339, UTC."""
    data: Any


class _CutPayload(_Payload, frozen=True):
    truncated: bool = True
    """There only where something has been left out."""


_encode = msgspec.json.Encoder().encode


def render_payload(event: Event, at: int) -> str:
    """The JSON text; ``at`` is when it happened, in microseconds since the Unix epoch."""
    timestamp = _EPOCH + timedelta(microseconds=at)
    try:
        text = _encode(_Payload(event.name, timestamp, event))
        if len(text) <= MAX_BYTES:
            return text.decode()
        cut = True
    except UnicodeEncodeError:
        # Half of a pair of surrogates, which a client has sent and JSON in UTF-8 cannot have.
        cut = False
    data = {name: _fitting(getattr(event, name), cut=cut) for name in event.__struct_fields__}
    return _encode((_CutPayload if cut else _Payload)(event.name, timestamp, data)).decode()


def _fitting(value: Any, *, cut: bool) -> Any:
    if isinstance(value, str):
        value = value.encode(errors="replace").decode()
        return value if not cut or len(value) <= _MOST_CHARACTERS else value[: _MOST_CHARACTERS - 1] + "…"
    if isinstance(value, tuple | list):
        return [_fitting(each, cut=cut) for each in (value[:_MOST_ENTRIES] if cut else value)]
    return value
