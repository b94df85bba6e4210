"""Which credential serves, and which key it has."""

from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest

from config.schema import Credential, Provider
from core.secret import Secret
from credentials.members import Member
from credentials.pool import Pools
from tests.live_credentials import StandIn
from tests.planted import planted


class Cooling:
    """Cooldowns of the named credentials, until a time."""

    def __init__(self, **until: float) -> None:
        self.until = until

    def credential_cooled(self, provider: str, credential: str, now: float) -> bool:
        assert "openai" == provider
        return now < self.until.get(credential, 0)


def credential(name: str, weight: int = 1, **more: Any) -> Credential:
    return Credential(name=name, api_key=Secret.literal(planted(name)), weight=weight, **more)


def pools(*credentials: Credential, cooling: Cooling | None = None) -> Pools:
    provider = Provider(name="openai", type="openai", credentials=credentials)
    return Pools([provider], cooling or Cooling())


class There:
    """Accounts of the one provider, as a test puts them."""

    def __init__(self) -> None:
        self.serial = 0
        self._members: tuple[Member, ...] = ()

    def put(self, *members: Member) -> None:
        self._members = members
        self.serial += 1

    def members(self, provider: str) -> tuple[Member, ...]:
        assert "openai" == provider
        return self._members


def half() -> float:
    return 0.5


def test_a_provider_without_credentials_has_one_nameless_choice() -> None:
    empty = pools()
    assert ("default",) == empty.names("openai")
    assert "default" == empty.choose("openai", (), 0, half)
    assert empty.api_key("openai", "default") is None
    assert empty.choose("openai", {"default"}, 0, half) is None


def test_a_credential_has_its_key() -> None:
    pool = pools(credential("main"), credential("spare"))
    assert ("main", "spare") == pool.names("openai")
    key = pool.api_key("openai", "spare")
    assert key is not None
    assert key.matches(planted("spare"))


@pytest.mark.parametrize(
    ("exclude", "now", "expected"),
    [
        ((), 20, {"main", "spare", "third"}),
        (("main",), 20, {"spare", "third"}),
        ((), 5, {"main", "third"}),
        (("main",), 5, {"third"}),
        (("main", "third"), 5, {None}),
        (("main", "third"), 10, {"spare"}),
    ],
)
def test_excluded_and_cooling_credentials_are_left_out(
    exclude: tuple[str, ...], now: float, expected: set[str | None]
) -> None:
    pool = pools(credential("main"), credential("spare"), credential("third"), cooling=Cooling(spare=10))
    random = Random(7)
    assert expected == {pool.choose("openai", exclude, now, random.random) for _ in range(100)}


def test_weights_are_shares() -> None:
    pool = pools(credential("main", 3), credential("spare", 1))
    random = Random(7)
    counted = Counter(pool.choose("openai", (), 0, random.random) for _ in range(2000))
    assert 0.75 == pytest.approx(counted["main"] / 2000, abs=0.05)


def test_a_draw_at_the_very_end_is_the_last_credential() -> None:
    pool = pools(credential("main", 3), credential("spare", 1))
    assert "spare" == pool.choose("openai", (), 0, lambda: 1.0)


POOL = (
    credential("gpt", priority=2, models=("gpt-*", "o1")),
    credential("team", priority=1, prefix="team"),
    credential("other", priority=1, prefix="team", models=("o1",)),
    credential("last"),
)


@pytest.mark.parametrize(
    ("model", "prefix", "exclude", "now", "expected"),
    [
        ("gpt-4o", None, (), 20, {"gpt"}),
        ("gpt-4o", None, (), 5, {"team"}),
        ("o1", None, ("gpt",), 20, {"team", "other"}),
        ("llama", None, (), 20, {"team"}),
        ("llama", None, ("team",), 20, {"last"}),
        ("llama", None, ("team", "last"), 20, {None}),
        # What has no model is for no model: files, lists of models.
        (None, None, (), 20, {"gpt"}),
        ("gpt-4o", "team", (), 20, {"team"}),
        ("o1", "team", (), 20, {"team", "other"}),
        ("gpt-4o", "team", ("team",), 20, {None}),
        ("gpt-4o", "nobody", (), 20, {None}),
    ],
)
def test_the_highest_priority_that_may_serve_comes_first(
    model: str | None, prefix: str | None, exclude: tuple[str, ...], now: float, expected: set[str | None]
) -> None:
    pool = pools(*POOL, cooling=Cooling(gpt=10))
    random = Random(7)
    assert expected == {pool.choose("openai", exclude, now, random.random, model, prefix) for _ in range(50)}


def test_disabled_credentials_are_left_out_and_leave_no_nameless_one() -> None:
    off = credential("off", disabled=True, prefix="team")
    pool = pools(off)
    assert ((), None) == (pool.names("openai"), pool.choose("openai", (), 0, half))
    assert ({}, True) == (pool.prefixes(), "has no credential" in pool.lack("openai", "m", None))
    assert "on" == pools(off, credential("on")).choose("openai", (), 0, half)


def test_a_provider_that_accounts_sign_in_to_needs_one() -> None:
    pool = Pools([Provider(name="openai", type="openai", oauth="sign-in")], Cooling())
    assert pool.choose("openai", (), 0, half) is None
    assert "sign in by `./sluice login openai`" in pool.lack("openai", None, None)


def test_a_prefix_leads_to_the_providers_that_have_it() -> None:
    def provider(name: str, *prefixes: str | None) -> Provider:
        given = tuple(credential(f"c{place}", prefix=prefix) for place, prefix in enumerate(prefixes))
        return Provider(name=name, type="openai", credentials=given)

    pool = Pools([provider("a", "x", "x", None), provider("b"), provider("c", "y", "x", "b")], Cooling())
    # `b/…` is the provider's, whatever a record of an account says.
    assert {"x": ("a", "c"), "y": ("c",)} == pool.prefixes()
    assert pool.prefixes() is pool.prefixes()


def test_accounts_come_and_go() -> None:
    there = There()
    pool = Pools([Provider(name="openai", type="openai", credentials=(credential("main"),))], Cooling(), there)
    assert ("main",) == pool.names("openai")
    live = Member(name="work", secret=None, live=StandIn(usable=True), priority=1)
    # One that has the name of the file's is left out.
    there.put(live, msgspec.structs.replace(live, name="main"))
    assert (("main", "work"), "work") == (pool.names("openai"), pool.choose("openai", (), 0, half))
    assert (live, None) == (pool.member("openai", "work"), pool.member("openai", "main").live)
    there.put(msgspec.structs.replace(live, live=StandIn(usable=False)))
    assert "main" == pool.choose("openai", (), 0, half)
    there.put()
    assert "main" == pool.choose("openai", (), 0, half)
    with pytest.raises(KeyError):
        pool.member("openai", "work")


def test_a_credential_of_the_file_whose_token_ends_waits_until_its_configuration_is_in_force() -> None:
    there = There()
    file = Credential(name="entra", client_credentials="sign-in", prefix="team")
    pool = Pools([Provider(name="openai", type="openai", credentials=(file,))], Cooling(), there)
    # Routing knows it from the start: names lead to it by its prefix.
    assert (("entra",), {"team": ("openai",)}, ()) == (
        pool.names("openai"),
        pool.prefixes(),
        pool.candidates("openai", None, None),
    )
    there.put(Member(name="entra", secret=None, live=StandIn(usable=True), prefix="team"))
    assert "entra" == pool.choose("openai", (), 0, half, "m", "team")


def test_a_glob_that_cannot_be_read_matches_nothing() -> None:
    there = There()
    pool = Pools([Provider(name="openai", type="openai", oauth="sign-in")], Cooling(), there)
    there.put(Member(name="work", secret=None, live=StandIn(usable=True), models=("[", "m")))
    assert ("work", None) == tuple(pool.choose("openai", (), 0, half, model) for model in ("m", "["))


@pytest.mark.parametrize(
    ("model", "prefix", "told"),
    [
        (
            "m",
            None,
            "the credentials of `openai` need a login: the operator signs in by `./sluice login openai`",
        ),
        ("m", "team", "the credentials of `openai` need a login: the operator signs in by `./sluice login openai`"),
        ("n", None, "no credential of `openai` may be used for this model: see their `models` and `prefix`"),
        (
            "m",
            "no",
            "no credential of `openai` of the prefix `no` may be used for this model: see their `models` and `prefix`",
        ),
    ],
)
def test_it_is_told_why_no_credential_can_be_used(model: str, prefix: str | None, told: str) -> None:
    there = There()
    pool = Pools([Provider(name="openai", type="openai", oauth="sign-in")], Cooling(), there)
    there.put(
        *(
            Member(
                name=f"c{number}",
                secret=None,
                live=StandIn(usable=False),
                models=("m",),
                prefix="team" if number == 1 else None,
            )
            for number in range(6)
        )
    )
    assert told == pool.lack("openai", model, prefix)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(KeyError):
        pools().choose("other", (), 0, half)
    with pytest.raises(KeyError):
        pools().api_key("openai", "main")
    for ask in (pools().names, pools().candidates, pools().lack):
        with pytest.raises(KeyError):
            ask("other", None, None)
