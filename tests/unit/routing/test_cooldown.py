"""What is out of rotation, until when, and that it stays bounded."""

import pytest

from routing.cooldown import Cooldowns, Cooled, Reason


def cool(
    cooldowns: Cooldowns, seconds: float, now: float, model: str | None = "m", provider: str = "p"
) -> Cooled | None:
    return cooldowns.cool_target(provider, model, label="*", reason=Reason.FAILURES, seconds=seconds, now=now)


def test_a_target_is_out_until_its_time() -> None:
    cooldowns = Cooldowns()
    cool(cooldowns, 10, now=100)
    cooled = cooldowns.target("p", "m", 109.9)
    assert cooled is not None
    assert (110, 10, Reason.FAILURES, False) == (cooled.until, cooled.seconds, cooled.reason, cooled.asked)
    assert cooldowns.target("p", "m", 110) is None
    assert cooldowns.target("p", "other", 105) is None
    assert cooldowns.target("p", None, 105) is None


def test_asking_about_a_time_to_come_forgets_nothing() -> None:
    cooldowns = Cooldowns()
    cool(cooldowns, 10, now=100)
    assert cooldowns.target("p", "m", 200) is None
    assert cooldowns.target("p", "m", 105) is not None


def test_a_longer_cooldown_stays_and_a_shorter_one_is_prolonged() -> None:
    told: list[Cooled] = []
    cooldowns = Cooldowns(told.append)
    cool(cooldowns, 10, now=100)
    cool(cooldowns, 5, now=101)
    assert [110] == [each.until for each in cooldowns.current(105)]
    cool(cooldowns, 20, now=105)
    assert [125] == [each.until for each in cooldowns.current(105)]
    assert [110] == [each.until for each in told]  # prolonged: nothing new has begun
    cool(cooldowns, 1, now=200)
    assert [110, 201] == [each.until for each in told]


def test_no_seconds_are_no_cooldown() -> None:
    cooldowns = Cooldowns()
    assert cool(cooldowns, 0, now=100) is None
    assert () == cooldowns.current(100)


def test_credentials_cool_apart_from_targets() -> None:
    cooldowns = Cooldowns()
    cooldowns.cool_credential("p", "main", reason=Reason.RATE_LIMITED, seconds=3, now=100, asked=True)
    assert cooldowns.credential_cooled("p", "main", 102)
    assert not cooldowns.credential_cooled("p", "main", 103)
    assert not cooldowns.credential_cooled("p", "spare", 102)
    assert cooldowns.target("p", "main", 102) is None


def test_failures_are_counted_until_a_success() -> None:
    cooldowns = Cooldowns()
    assert [1, 2] == [cooldowns.count_failure("p", "m") for _ in range(2)]
    assert 1 == cooldowns.count_failure("p", "other")
    cooldowns.succeeded("p", "m")
    assert 1 == cooldowns.count_failure("p", "m")


def test_a_target_can_be_restored_early() -> None:
    cooldowns = Cooldowns()
    cool(cooldowns, 10, now=100)
    cooldowns.restore("p", "m")
    assert cooldowns.target("p", "m", 101) is None
    cooldowns.restore("p", "m")


@pytest.mark.parametrize(
    ("model", "credential", "ended", "failing"),
    [
        (None, None, {("m", None), ("n", None), (None, "main"), (None, "spare")}, {"q/m"}),
        ("m", None, {("m", None)}, {"p/n", "q/m"}),
        (None, "main", {(None, "main")}, {"p/m", "p/n", "q/m"}),
        ("other", None, set(), {"p/m", "p/n", "q/m"}),
    ],
)
def test_a_provider_is_cleared_in_whole_or_in_part(
    model: str | None, credential: str | None, ended: set[tuple[str | None, str | None]], failing: set[str]
) -> None:
    cooldowns = Cooldowns()
    for provider, name in (("p", "m"), ("p", "n"), ("q", "m")):
        cool(cooldowns, 10, now=100, provider=provider, model=name)
        cooldowns.count_failure(provider, name)
    cool(cooldowns, 1, now=100, model="over")
    for name in ("main", "spare"):
        cooldowns.cool_credential("p", name, reason=Reason.RATE_LIMITED, seconds=10, now=100)
    cleared = cooldowns.clear("p", model, credential, now=105)
    assert ended == {(each.model, each.credential) for each in cleared}
    assert {("p", *each) for each in ended}.isdisjoint(
        (each.provider, each.model, each.credential) for each in cooldowns.current(105)
    )
    assert failing == {
        f"{provider}/{name}"
        for provider, name in (("p", "m"), ("p", "n"), ("q", "m"))
        if cooldowns.count_failure(provider, name) == 2
    }


@pytest.mark.parametrize(
    ("reason", "ends"),
    [
        (Reason.CREDENTIAL_REFUSED, True),
        (Reason.CREDENTIAL_NOT_READY, True),
        (Reason.RATE_LIMITED, False),
        (Reason.RETRY_AFTER, False),
    ],
)
def test_a_credential_with_another_token_may_be_chosen_where_its_last_one_was_at_fault(
    reason: Reason, ends: bool
) -> None:
    cooldowns = Cooldowns()
    for provider, name in (("p", "a"), ("p", "b"), ("q", "a")):
        cooldowns.cool_credential(provider, name, reason=reason, seconds=10, now=100)
    cooldowns.renewed("p", "a")
    cooldowns.renewed("p", "no such")
    cooled = [(each.provider, each.credential) for each in cooldowns.current(101)]
    assert [("p", "a")] * (not ends) + [("p", "b"), ("q", "a")] == cooled


def test_names_that_clients_make_up_cannot_fill_the_memory() -> None:
    cooldowns = Cooldowns()
    for number in range(10_000):
        cool(cooldowns, 100_000, now=number, model=f"made-up-{number}")
        cooldowns.count_failure("p", f"made-up-{number}")
    assert 2 * 4096 == len(cooldowns)
    assert cooldowns.target("p", "made-up-9999", 9999) is not None
    assert 2 == cooldowns.count_failure("p", "made-up-9999")


def test_a_target_that_cools_anew_is_among_the_latest() -> None:
    cooldowns = Cooldowns()
    cool(cooldowns, 10, now=0, model="often")
    cool(cooldowns, 1000, now=0, model="once")
    cool(cooldowns, 1000, now=5, model="often")
    for number in range(4095):
        cool(cooldowns, 1000, now=10, model=f"made-up-{number}")
    assert cooldowns.target("p", "once", 20) is None
    assert cooldowns.target("p", "often", 20) is not None


def test_its_repr_tells_what_cools() -> None:
    cooldowns = Cooldowns()
    assert "<Cooldowns none; 0 failing>" == repr(cooldowns)
    cool(cooldowns, 10, now=100)
    assert "<Cooldowns p/m until 110.000; 0 failing>" == repr(cooldowns)
