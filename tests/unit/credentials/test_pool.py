"""Which credential serves, and which key it has."""

from collections import Counter
from random import Random

import pytest

from config.schema import Credential, Provider
from core.secret import Secret
from credentials.pool import Pools
from tests.planted import planted


class Cooling:
    """Cooldowns of the named credentials, until a time."""

    def __init__(self, **until: float) -> None:
        self.until = until

    def credential_cooled(self, provider: str, credential: str, now: float) -> bool:
        assert "openai" == provider
        return now < self.until.get(credential, 0)


def credential(name: str, weight: int = 1) -> Credential:
    return Credential(name=name, api_key=Secret.literal(planted(name)), weight=weight)


def pools(*credentials: Credential, cooling: Cooling | None = None) -> Pools:
    provider = Provider(name="openai", type="openai", credentials=credentials)
    return Pools([provider], cooling or Cooling())


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


def test_unknown_names_are_errors() -> None:
    with pytest.raises(KeyError):
        pools().choose("other", (), 0, half)
    with pytest.raises(KeyError):
        pools().api_key("openai", "main")
