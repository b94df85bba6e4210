"""Events: frozen facts of plain values, told to every observer."""

from typing import Any, get_type_hints

import msgspec
import pytest

import core.events
from core.events import EVENTS, ConfigApplied, Event, Events, GatewayStarted, RequestCompleted, RequestStarted
from core.usage import Usage

VALUES: dict[object, object] = {
    str: "x",
    int: 1,
    float: 1.5,
    bool: True,
    str | None: None,
    float | None: 0.5,
    int | None: None,
    Usage | None: Usage(1, 2, 3),
    tuple[str, ...]: ("a", "b"),
}


def made(kind: type[Event]) -> Event:
    hints = get_type_hints(kind)
    return kind(**{name: VALUES[hints[name]] for name in kind.__struct_fields__})


def test_the_table_has_every_event_once() -> None:
    classes = {
        value
        for name, value in vars(core.events).items()
        if isinstance(value, type) and issubclass(value, Event) and value is not Event and not name.startswith("_")
    }
    assert classes == set(EVENTS)
    assert len(EVENTS) == len({event.name for event in EVENTS})
    assert all(event.name and event.__doc__ for event in EVENTS)


@pytest.mark.parametrize("kind", EVENTS, ids=[event.name for event in EVENTS])
def test_an_event_is_frozen_and_plain(kind: type[Event]) -> None:
    event = made(kind)
    with pytest.raises(AttributeError):
        setattr(event, kind.__struct_fields__[0], "changed")
    assert set(kind.__struct_fields__) == set(msgspec.json.decode(msgspec.json.encode(event)))
    assert event == made(kind)
    with pytest.raises(TypeError):
        kind("by position")


def test_every_observer_is_told_in_order() -> None:
    told: list[tuple[int, Event]] = []
    events = Events()
    events.emit(GatewayStarted(address="a", revision="r"))
    events.subscribe(lambda event: told.append((1, event)))
    events.subscribe(lambda event: told.append((2, event)))
    event = GatewayStarted(address="a", revision="r")
    events.emit(event)
    assert [(1, event), (2, event)] == told


def test_an_observer_is_told_of_what_it_subscribed_to_alone() -> None:
    told: list[tuple[str, Event]] = []
    events = Events()
    events.subscribe(lambda event: told.append(("two", event)), ConfigApplied, RequestStarted)
    events.subscribe(lambda event: told.append(("all", event)))
    events.subscribe(lambda event: told.append(("one", event)), RequestStarted)
    started, applied, unlisted = RequestStarted(endpoint="chat"), made(ConfigApplied), Event()
    for event in (started, applied, unlisted):
        events.emit(event)
    assert [
        ("two", started),
        ("all", started),
        ("one", started),
        ("two", applied),
        ("all", applied),
        ("all", unlisted),
    ] == told


def test_an_observer_is_told_no_more_of_what_it_has_given_up() -> None:
    told: list[tuple[str, Event]] = []

    def observe(event: Event) -> None:
        told.append(("one", event))

    events = Events()
    events.subscribe(observe, ConfigApplied, RequestStarted)
    events.subscribe(lambda event: told.append(("other", event)), RequestStarted)
    events.unsubscribe(observe, RequestStarted)
    started, applied = RequestStarted(endpoint="chat"), made(ConfigApplied)
    for event in (started, applied):
        events.emit(event)
    assert [("other", started), ("one", applied)] == told


def test_an_observer_that_fails_is_logged_and_harms_nobody(expect_log: Any) -> None:
    told: list[Event] = []

    def broken(_event: Event) -> None:
        raise RuntimeError("broken observer")

    events = Events()
    events.subscribe(broken)
    events.subscribe(told.append)
    event = made(ConfigApplied)
    with expect_log("an observer failed on config.applied(.|\n)*broken observer", level=40):
        events.emit(event)
    assert [event] == told


def test_events_of_one_kind_share_their_name() -> None:
    assert "request.completed" == RequestCompleted.name == made(RequestCompleted).name
