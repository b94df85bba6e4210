"""What receivers get: a golden payload for each event. To add one is to add its file."""

import json
from pathlib import Path

import msgspec
import pytest

from core.events import EVENTS, ConfigRejected, Event, GatewayStopping
from webhooks.payload import MAX_BYTES, WebhookTest, render_payload

GOLDEN = Path(__file__).resolve().parents[2] / "golden/webhooks"
KINDS: dict[str, type[Event]] = {kind.name: kind for kind in EVENTS} | {WebhookTest.name: WebhookTest}
AT = 1_700_000_000_123_456


def test_there_is_a_golden_payload_for_each_event_and_for_nothing_else() -> None:
    assert KINDS.keys() == {file.stem for file in GOLDEN.iterdir()}


@pytest.mark.parametrize("name", KINDS)
def test_an_event_has_its_golden_payload_field_by_field_in_the_same_order(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_bytes()
    event: Event = msgspec.convert(json.loads(golden)["data"], KINDS[name])
    assert golden == msgspec.json.format(render_payload(event, AT).encode(), indent=2) + b"\n"


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_golden_payload_shows_every_field_with_a_value_or_there_is_none_to_show(kind: type[Event]) -> None:
    # Fields of JSON alone: what a field holds must say the same to whoever decodes it.
    assert set(kind.__struct_fields__) == json.loads((GOLDEN / f"{kind.name}.json").read_text())["data"].keys()


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (1_700_000_000_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_000_999_999, "2023-11-14T22:13:20.999999Z"),
    ],
)
def test_the_timestamp_is_exact_to_the_microsecond(at: int, expected: str) -> None:
    assert expected == json.loads(render_payload(GatewayStopping(reason="x"), at))["timestamp"]


def test_a_payload_that_is_too_long_is_cut_and_says_so() -> None:
    faults = tuple(f"fault {number} " + "x" * 2000 for number in range(1000))
    text = render_payload(ConfigRejected(trigger="watch", faults=faults), AT)
    payload = json.loads(text)
    assert MAX_BYTES > len(text)
    assert ["type", "timestamp", "data", "truncated"] == list(payload)
    assert payload["truncated"] is True
    assert ("watch", 50) == (payload["data"]["trigger"], len(payload["data"]["faults"]))
    assert faults[0][:499] + "…" == payload["data"]["faults"][0]


def test_text_that_is_not_unicode_is_sent_as_far_as_it_is() -> None:
    payload = json.loads(render_payload(GatewayStopping(reason="a\ud800b\0"), AT))
    assert {"reason": "a?b\0"} == payload["data"]
    assert "truncated" not in payload
