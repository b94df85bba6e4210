from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.clock import ManualClock
from core.events import ConfigRejected, Event, Events, RequestFailed, SecretFresh, TargetCooled, TokenCreated
from gateway import event_ring
from gateway.event_ring import EventRing, is_wanted
from management.event_feed import Wanted

_GOLDEN = Path(__file__).parents[2] / "golden/webhooks/request.failed.json"
FAILED = RequestFailed.name
ALL = Wanted(names=(FAILED, SecretFresh.name, ConfigRejected.name))


def ended(**changes: Any) -> RequestFailed:
    """A request's event."""
    payload = msgspec.json.decode(_GOLDEN.read_bytes())
    return msgspec.convert({**payload["data"], **changes}, RequestFailed)


def nobody() -> None:
    """Is woken."""


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
async def ring(events: Events) -> AsyncIterator[EventRing]:
    made = EventRing(events, ManualClock().time, lambda event: getattr(event, "reference", "") != "other's")
    yield made
    made.close()


def fresh(number: int) -> SecretFresh:
    return SecretFresh(reference=f"r{number}")


def told(ring: EventRing, place: int, wanted: Wanted = ALL) -> tuple[list[str], int]:
    """What is referred to in all that follows ``place``, and how many are missing."""
    found, missed = [], 0
    while True:
        part = ring.read(wanted, place)
        place, missed = part.place, missed + part.missed
        found += [msgspec.json.decode(text)["data"]["reference"] for _, _, text in part.events]
        if not part.more:
            return found, missed


async def test_nothing_is_kept_before_somebody_listens(events: Events, ring: EventRing) -> None:
    events.emit(fresh(1))
    ring.attend(ALL.names, nobody)
    place = ring.place
    events.emit(fresh(2))
    assert (["r2"], 0) == told(ring, place)
    assert (place, True) == ring.place_after(ALL.names, place)
    # What was before might have been wanted.
    assert not ring.place_after(ALL.names, place - 1)[1]
    assert not ring.place_after((*ALL.names, TokenCreated.name), place)[1]
    assert (ring.place, False) == ring.place_after(ALL.names, place + 1000)


async def test_who_comes_back_in_time_finds_what_has_happened_and_later_does_not(
    events: Events, ring: EventRing
) -> None:
    ring.attend(ALL.names, nobody)
    place = ring.place
    ring.release(ALL.names, nobody, linger_seconds=60)
    events.emit(fresh(1))
    ring.attend(ALL.names, nobody)
    assert (place, True) == ring.place_after(ALL.names, place)
    assert (["r1"], 0) == told(ring, place)
    ring.close()
    events.emit(fresh(2))
    assert not ring.place_after(ALL.names, ring.place)[1]


async def test_the_ring_has_bounds_and_says_how_many_are_missing(
    events: Events, ring: EventRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_ring, "MOST_EVENTS", 10)
    monkeypatch.setattr(event_ring, "MOST_BYTES", 20_000)
    ring.attend(ALL.names, nobody)
    place = ring.place
    for number in range(30):
        events.emit(fresh(number))
    ring.settle()
    assert ([f"r{number}" for number in range(20, 30)], 20) == told(ring, place)
    for _ in range(10):
        events.emit(ConfigRejected(trigger="watch", faults=("x" * 9000,)))
    ring.settle()
    assert 8 == ring.read(ALL, ring.place - 10).missed


async def test_events_of_other_workers_alone_are_left_out(events: Events, ring: EventRing) -> None:
    ring.attend(ALL.names, nobody)
    place = ring.place
    events.emit(SecretFresh(reference="other's"))
    events.emit(fresh(1))
    assert (["r1"], 0) == told(ring, place)


async def test_a_part_is_bounded_and_an_event_is_rendered_once(events: Events, ring: EventRing) -> None:
    ring.attend(ALL.names, nobody)
    place = ring.place
    for number in range(9):
        events.emit(fresh(number))
    part = ring.read(ALL, place, most_bytes=200)
    assert 2 <= len(part.events) < 9
    assert part.more
    again = ring.read(ALL, place, most_bytes=200)
    assert all(one[2] is other[2] for one, other in zip(part.events, again.events, strict=True))
    assert ([f"r{number}" for number in range(9)], 0) == told(ring, place)


async def test_from_the_start_on_a_process_that_takes_anothers_place_keeps_all(events: Events) -> None:
    ring = EventRing(events, ManualClock().time, lambda _: True)
    ring.keep_from_start(ALL.names)
    events.emit(fresh(1))
    ring.attend(ALL.names, nobody)
    assert (0, True) == ring.place_after(ALL.names, 0)
    assert (["r1"], 0) == told(ring, 0)
    ring.close()


@pytest.mark.parametrize(
    ("event", "asked", "expected"),
    [
        (ended(token="a"), {"token": "a"}, True),
        (ended(token="a"), {"token": "b"}, False),
        (ended(token="a", token_id=None), {"token": "a", "declared": True}, True),
        (ended(token="a", token_id="tok_1"), {"token": "a", "declared": True}, False),
        (ended(token_id="tok_1"), {"token_id": "tok_1"}, True),
        (ended(owner="ann"), {"owner": "bob"}, False),
        (ended(model="m", model_label="l"), {"model": "m"}, True),
        (ended(model="m", model_label="l"), {"model": "l"}, False),
        (TargetCooled(provider="p", model_label="l", reason="r", seconds=1.0), {"model": "l", "provider": "p"}, True),
        (fresh(1), {}, True),
        (fresh(1), {"provider": "p"}, False),
        (fresh(1), {"declared": True}, False),
        (ended(), {"names": ("config.applied",)}, False),
    ],
)
def test_an_event_is_wanted_by_its_name_and_each_field_that_is_asked_for(
    event: Event, asked: dict[str, Any], expected: bool
) -> None:
    assert expected is is_wanted(event, Wanted(**{"names": (event.name,), **asked}))
