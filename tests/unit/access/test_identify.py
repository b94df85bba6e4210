from collections.abc import Iterator

import argon2
import pytest

from access.admin_key import AdminKeys
from access.identify import Identifier, caller, presented_key
from access.tokens import RANDOM_BYTES, TokenIndex, digest, new_token
from config.schema import Token
from core.clock import ManualClock
from core.errors import Unauthenticated
from core.headers import Headers
from core.identity import AdminKey, ApiToken
from core.secret import Secret

TEXT = new_token(bytes(range(RANDOM_BYTES)))
NOW = 1_700_000_000.0
OTHER = new_token(bytes(RANDOM_BYTES))
INDEX = TokenIndex((Token(name="team", sha256=digest(TEXT)),))


@pytest.mark.parametrize(
    "fields",
    [
        [("authorization", f"Bearer {TEXT}")],
        [("authorization", f"bearer   {TEXT} ")],
        [("x-api-key", TEXT)],
        [("x-goog-api-key", f" {TEXT}")],
        [("authorization", f"Bearer {TEXT}"), ("x-api-key", TEXT)],
        [("authorization", "Bearer "), ("x-api-key", TEXT)],
        [("x-api-key", ""), ("authorization", f"Bearer {TEXT}")],
    ],
)
def test_a_token_is_taken_from_any_of_the_three_fields(fields: list[tuple[str, str]]) -> None:
    assert "team" == caller(Headers([("host", "gateway"), *fields]), INDEX, "192.0.2.1", NOW).name


@pytest.mark.parametrize(
    ("fields", "mend"),
    [
        ([], "send it as `Authorization: Bearer"),
        ([("authorization", "Bearer")], "No API key was given"),
        ([("x-api-key", " ")], "No API key was given"),
        ([("authorization", f"Basic {TEXT}")], "is not understood: send it as `Authorization: Bearer"),
        ([("authorization", TEXT)], "is not understood"),
        ([("authorization", f"Token {TEXT}"), ("x-api-key", TEXT)], "is not understood"),
        ([("authorization", f"Bearer {TEXT}"), ("x-api-key", OTHER)], "several API keys that differ"),
        ([("authorization", f"Bearer {TEXT}"), ("authorization", f"Bearer {OTHER}")], "several API keys that differ"),
        ([("x-api-key", OTHER)], "is not known"),
        ([("x-api-key", TEXT[:-1])], "mistyped or cut short"),
        ([("x-api-key", "another gateway's key")], "is not known"),
    ],
)
def test_a_refusal_names_the_mend_and_never_the_key(fields: list[tuple[str, str]], mend: str) -> None:
    with pytest.raises(Unauthenticated) as raised:
        caller(Headers(fields), INDEX, "192.0.2.1", NOW)
    assert mend in raised.value.message
    assert TEXT[:20] not in raised.value.message
    assert OTHER not in raised.value.message


def test_without_tokens_everybody_is_refused_and_told_no_more_than_with() -> None:
    messages = []
    for index in (TokenIndex(()), INDEX):
        with pytest.raises(Unauthenticated) as raised:
            caller(Headers([("x-api-key", OTHER)]), index, "192.0.2.1", NOW)
        messages.append(raised.value.message)
    assert messages[0] == messages[1]


def test_a_key_in_another_field_is_none() -> None:
    with pytest.raises(Unauthenticated):
        presented_key(Headers([("api-key", TEXT), ("cookie", TEXT), ("proxy-authorization", f"Bearer {TEXT}")]))


class _AdminKeys(AdminKeys):
    """Knows one key, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(ManualClock())
        self.asked: list[tuple[str, Secret | None, str]] = []

    async def require(self, key: str, admin_key_hash: Secret | None, address: str) -> None:
        self.asked.append((key, admin_key_hash, address))
        if key != "the admin key":
            raise Unauthenticated("unknown")


@pytest.fixture
def admin_keys() -> Iterator[_AdminKeys]:
    keys = _AdminKeys()
    yield keys
    keys.close()


async def test_on_the_management_api_a_token_comes_before_the_admin_key(admin_keys: _AdminKeys) -> None:
    known = await Identifier(INDEX, admin_keys, None, lambda: NOW).manager(Headers([("x-api-key", TEXT)]), "192.0.2.1")
    assert isinstance(known, ApiToken)
    assert "team" == known.name
    assert [] == admin_keys.asked


@pytest.mark.parametrize("text", [OTHER, OTHER[:-1]])
async def test_an_unknown_token_is_never_tried_as_the_admin_key(admin_keys: _AdminKeys, text: str) -> None:
    with pytest.raises(Unauthenticated):
        await Identifier(INDEX, admin_keys, None, lambda: NOW).manager(Headers([("x-api-key", text)]), "192.0.2.1")
    assert [] == admin_keys.asked


async def test_anything_else_is_tried_as_the_admin_key_from_the_callers_address(admin_keys: _AdminKeys) -> None:
    secret = Secret.literal("hash")
    identifier = Identifier(INDEX, admin_keys, secret, lambda: NOW)
    assert AdminKey() == await identifier.manager(Headers([("authorization", "Bearer the admin key")]), "192.0.2.1")
    with pytest.raises(Unauthenticated):
        await identifier.manager(Headers([("authorization", "Bearer guess")]), "192.0.2.2")
    assert [("the admin key", secret, "192.0.2.1"), ("guess", secret, "192.0.2.2")] == admin_keys.asked


async def test_the_data_plane_knows_no_admin_key(admin_keys: _AdminKeys) -> None:
    assert "team" == caller(Headers([("x-api-key", TEXT)]), INDEX, "192.0.2.1", NOW).name
    with pytest.raises(Unauthenticated):
        caller(Headers([("x-api-key", "the admin key")]), INDEX, "192.0.2.1", NOW)
    assert [] == admin_keys.asked


async def test_whoever_was_let_in_is_looked_at_again_at_no_cost() -> None:
    keys = AdminKeys(ManualClock())
    key, hashed = "an admin key of the tests", argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash
    secret, now = Secret.literal(hashed(key)), [NOW]
    expiring = TokenIndex((Token(name="team", sha256=digest(TEXT), expires_at="2023-11-14T22:13:21Z"),))
    identifier = Identifier(expiring, keys, secret, lambda: now[0])
    admin, token = Headers([("x-api-key", key)]), Headers([("x-api-key", TEXT)])
    assert None is identifier.still(admin, "192.0.2.1")
    assert AdminKey() == await identifier.manager(admin, "192.0.2.1") == identifier.still(admin, "192.0.2.1")
    # The key has another hash by now, or there is none.
    for changed in (Secret.literal(hashed("another admin key")), None):
        assert None is Identifier(INDEX, keys, changed, lambda: NOW).still(admin, "192.0.2.1")
    known = identifier.still(token, "192.0.2.1")
    assert known is not None
    assert "team" == known.name
    assert None is Identifier(TokenIndex(()), keys, secret, lambda: NOW).still(token, "192.0.2.1")
    now[0] += 2
    assert None is identifier.still(token, "192.0.2.1")
    keys.close()
