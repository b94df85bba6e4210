"""Whatever a pool consists of, what it chooses is by rank, and may be chosen."""

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from config.schema import Credential, Provider
from core.secret import Secret
from credentials.members import Member
from credentials.pool import Pools
from tests.live_credentials import StandIn

NAMES = "abcdef"

settings = st.fixed_dictionaries(
    {
        "weight": st.integers(1, 4),
        "priority": st.integers(-1, 1),
        "prefix": st.none() | st.sampled_from(["p", "q"]),
        "models": st.sampled_from([(), ("m",), ("n*", "m"), ("o",)]),
    }
)
kinds = st.sampled_from(["key", "live", "needs login"])


class Cooling:
    """Cooldowns of some credentials, for ever."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def credential_cooled(self, provider: str, credential: str, now: float) -> bool:
        return credential in self.names


class Accounts:
    """Accounts that are there."""

    serial = 1

    def __init__(self, members: tuple[Member, ...]) -> None:
        self._members = members

    def members(self, provider: str) -> tuple[Member, ...]:
        assert "up" == provider
        return self._members


@given(
    st.lists(st.tuples(kinds, settings), min_size=1, max_size=6),
    st.sets(st.sampled_from(NAMES)),
    st.sets(st.sampled_from(NAMES)),
    st.sampled_from(["m", "n1", "x", None]),
    st.none() | st.sampled_from(["p", "q"]),
    st.randoms(use_true_random=False),
)
def test_the_choice_is_of_the_highest_rank_that_is_left(
    pool: list[tuple[str, dict[str, Any]]],
    excluded: set[str],
    cooling: set[str],
    model: str | None,
    prefix: str | None,
    random: Random,
) -> None:
    named = list(zip(NAMES, pool, strict=False))
    keys = [Credential(name=name, api_key=Secret.literal("k"), **each) for name, (kind, each) in named if kind == "key"]
    accounts = [
        Member(name=name, secret=None, live=StandIn(usable=kind == "live"), **each)
        for name, (kind, each) in named
        if kind != "key"
    ]
    provider = Provider(name="up", type="openai", credentials=tuple(keys), oauth="some")
    pools = Pools([provider], Cooling(cooling), Accounts(tuple(accounts)))

    def fits(each: dict[str, Any]) -> bool:
        allowed = {(): True, ("m",): model == "m", ("n*", "m"): model in ("m", "n1"), ("o",): model == "o"}
        return (model is None or allowed[each["models"]]) and prefix in (None, each["prefix"])

    candidates = {name: each for name, (kind, each) in named if kind != "needs login" and fits(each)}
    assert set(candidates) == set(pools.candidates("up", model, prefix))
    assert {name for name, (_, each) in named if fits(each)} == set(pools.names("up", model, prefix))
    left = {name: each["priority"] for name, each in candidates.items() if name not in excluded | cooling}
    best: set[str | None] = {name for name, priority in left.items() if priority == max(left.values())}
    chosen = {pools.choose("up", excluded, 0, random.random, model, prefix) for _ in range(5)}
    assert chosen <= (best or {None})
    assert bool(candidates) or pools.lack("up", model, prefix)
