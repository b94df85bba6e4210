"""Which webhooks an event is for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.events import EVENTS, ConfigApplied, Event, ProviderDown, RequestFailed
from core.ids import new_event_id
from webhooks.subscriptions import Subscription, SubscriptionFault, Subscriptions

ID = "evt_800000000000000000000000"


class Told(Event, frozen=True, kw_only=True):
    name = "told.all"
    text: str = "openai"
    number: int = 503
    share: float = 0.5
    yes: bool = True
    nothing: str | None = None
    several: tuple[str, ...] = ("openai",)


class Other(Event, frozen=True, kw_only=True):
    name = "other"
    number: int = 503


KINDS = (Told, Other)


def subscribed(**fields: Any) -> Subscription:
    return Subscription(webhook="ops", **fields)


def wanted(event: Event, event_id: str = ID, **fields: Any) -> bool:
    return ("ops",) == Subscriptions([subscribed(**fields)], KINDS).webhooks_for(event, event_id)


MATCHES: dict[str, tuple[dict[str, tuple[str, ...]], bool]] = {
    "a text": ({"text": ("openai",)}, True),
    "another text": ({"text": ("azure",)}, False),
    "case counts": ({"text": ("OpenAI",)}, False),
    "a glob": ({"text": ("open*",)}, True),
    "one of several": ({"text": ("azure", "open*")}, True),
    "a number": ({"number": ("503",)}, True),
    "the beginning of a number": ({"number": ("5*",)}, True),
    "another number": ({"number": ("4*",)}, False),
    "a fraction": ({"share": ("0.5",)}, True),
    "true": ({"yes": ("true",)}, True),
    "false": ({"yes": ("false",)}, False),
    "what is null matches nothing": ({"nothing": ("*",)}, False),
    "two fields that match": ({"text": ("openai",), "number": ("5*",)}, True),
    "one of two": ({"text": ("openai",), "number": ("4*",)}, False),
}


@pytest.mark.parametrize("name", MATCHES)
def test_fields_are_matched_by_their_texts(name: str) -> None:
    match, expected = MATCHES[name]
    assert expected is wanted(Told(), match=match)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (("*",), {"told.all", "other"}),
        (("told.*",), {"told.all"}),
        (("told.*", "oth?r"), {"told.all", "other"}),
        (("{other,told.all}",), {"told.all", "other"}),
        ((), set()),
    ],
)
def test_events_are_named_by_globs(events: tuple[str, ...], expected: set[str]) -> None:
    assert expected == {event.name for event in (Told(), Other()) if wanted(event, events=events)}


def test_an_event_without_a_field_that_is_asked_for_is_not_told() -> None:
    assert wanted(Told(), match={"text": ("*",)})
    assert not wanted(Other(), match={"text": ("*",)})


def test_those_that_want_an_event_are_told_in_the_order_of_the_configuration() -> None:
    names = ("b", "a", "c")
    subscriptions = Subscriptions([Subscription(webhook=name) for name in names], KINDS)
    assert names == subscriptions.webhooks_for(Other(), ID)


def test_what_nobody_wants_is_known_by_its_kind() -> None:
    subscriptions = Subscriptions([subscribed(events=("told.*",))], KINDS)
    assert (True, False) == (subscriptions.wanted(Told), subscriptions.wanted(Other))
    assert () == subscriptions.webhooks_for(Other(), ID)
    assert not Subscriptions(()).wanted(Told)


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no such event": (
        {"events": ("told.al",)},
        "events",
        "no event has a name like `told.al`: did you mean `told.all`?",
    ),
    "nothing like it": (
        {"events": ("zzz.*",)},
        "events",
        "no event has a name like `zzz.*`: there are `told.all`, `other`",
    ),
    "a bad glob": ({"events": ("told.[",)}, "events", "never closed"),
    "no such field": ({"match": {"numbr": ("1",)}}, "match.numbr", "did you mean `number`?"),
    "a field of other events": ({"events": ("other",), "match": {"text": ("*",)}}, "match.text", "there are `number`"),
    "a field with members of its own": (
        {"match": {"several": ("*",)}},
        "match.several",
        "which no glob matches: leave it out",
    ),
    "no values": ({"match": {"number": ()}}, "match.number", "an empty list, which nothing matches"),
    "a bad glob of a field": ({"match": {"number": ("[",)}}, "match.number", "never closed"),
    "no share": ({"sample": 0.0}, "sample", "over 0 and up to 1"),
    "more than all": ({"sample": 1.5}, "sample", "over 0 and up to 1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_subscription_that_cannot_mean_what_it_says_is_refused_with_the_mend(name: str) -> None:
    fields, key, message = FAULTS[name]
    with pytest.raises(SubscriptionFault) as refused:
        Subscriptions([subscribed(**fields)], KINDS)
    assert key == refused.value.key
    assert message in str(refused.value)
    assert "webhook `ops`" in str(refused.value)


@given(number=st.integers(0, 16**24 - 1), small=st.floats(1e-9, 1), large=st.floats(1e-9, 1))
def test_a_sample_follows_from_the_id_and_a_larger_one_has_all_of_a_smaller(
    number: int, small: float, large: float
) -> None:
    small, large = min(small, large), max(small, large)
    event_id = f"evt_{number:024x}"
    assert wanted(Other(), event_id, sample=small) is wanted(Other(), event_id, sample=small)
    assert wanted(Other(), event_id, sample=large) >= wanted(Other(), event_id, sample=small)
    assert wanted(Other(), event_id, sample=1.0)


def test_a_sample_has_about_the_share_that_it_says() -> None:
    subscriptions = Subscriptions([subscribed(sample=0.1)], KINDS)
    count = sum(bool(subscriptions.webhooks_for(Other(), new_event_id())) for _ in range(20_000))
    # Six standard deviations.
    assert 2000 - 255 < count < 2000 + 255


def test_every_event_can_be_subscribed_to_by_its_name_and_by_each_plain_field() -> None:
    for kind in EVENTS:
        for field in {*kind.__struct_fields__} - {"usage", "faults"}:
            Subscriptions([Subscription(webhook="ops", events=(kind.name,), match={field: ("*",)})])


def test_requests_that_failed_at_one_provider_are_told_and_no_others() -> None:
    subscription = Subscription(
        webhook="ops", events=("request.*", "provider.*"), match={"provider": ("openai",)}, sample=1.0
    )
    subscriptions = Subscriptions([subscription])
    assert subscriptions.wanted(RequestFailed)
    assert not subscriptions.wanted(ConfigApplied)
    assert ("ops",) == subscriptions.webhooks_for(ProviderDown(provider="openai", reason="x", failures=3), ID)
    assert () == subscriptions.webhooks_for(ProviderDown(provider="azure", reason="x", failures=3), ID)
