"""Tokens out of answers, which differ more than the RFC lets them."""

import jwt
import pytest

from core.secret import Secret
from credentials.oauth.answers import key_set, mend_of, token_set
from credentials.tokens import TokenSet
from tests.planted import planted

NOW = 1_700_000_000.0


def tokens(**document: object) -> TokenSet:
    return token_set("It", {"access_token": "fresh"} | document, NOW)


@pytest.mark.parametrize(
    ("expires_in", "lasts"),
    [
        (3600, 3600.0),
        ("3600", 3600.0),
        (59.5, 59.5),
        (0, 0.0),
        (-5, 0.0),
        (1e300, 366 * 864_000.0),
        ("Infinity", 366 * 864_000.0),
        (None, None),
        ("nan", None),
        ("an hour", None),
        (True, None),
        ([3600], None),
        (10**400, None),
    ],
)
def test_a_lifetime_may_be_a_text_and_what_is_none_is_left_out(expires_in: object, lasts: float | None) -> None:
    assert (None if lasts is None else NOW + lasts) == tokens(expires_in=expires_in).expires_at


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("a  b", ("a", "b")),
        (["a", 7, "b c", "d"], ("a", "d")),
        ("", ("asked",)),
        (None, ("asked",)),
        ('a "b\\', ("a",)),
        (["s" * 500] * 200, ("s" * 500,) * 16),
    ],
)
def test_scopes_are_those_that_were_granted_or_else_those_that_were_asked_for(
    scope: object, scopes: tuple[str, ...]
) -> None:
    assert scopes == token_set("It", {"access_token": "a", "scope": scope}, NOW, asked=("asked",)).scopes


def test_what_is_not_given_anew_is_carried_over() -> None:
    held = TokenSet(
        access_token=Secret.literal("old"),
        issued_at=0,
        expires_at=1,
        refresh_token=Secret.literal("kept"),
        scopes=("a",),
        account="ada@example.com",
    )
    fresh = token_set("It", {"access_token": "new"}, NOW, held=held)
    assert ("new", held.refresh_token, ("a",), "ada@example.com") == (
        fresh.access_token.reveal(),
        fresh.refresh_token,
        fresh.scopes,
        fresh.account,
    )
    rotated = token_set("It", {"access_token": "new", "refresh_token": "next", "scope": "b"}, NOW, held=held)
    assert rotated.refresh_token is not None
    assert ("next", ("b",)) == (rotated.refresh_token.reveal(), rotated.scopes)


@pytest.mark.parametrize(
    ("claims", "account"),
    [
        ({"email": "ada@example.com", "sub": "17"}, "ada@example.com"),
        ({"sub": "17"}, "17"),
        ({"email": "\x1b[2J", "sub": "a" * 300}, "[2J"),
        ({"email": 17}, None),
        ({}, None),
    ],
)
def test_an_id_token_shows_whose_the_account_is(claims: dict[str, object], account: str | None) -> None:
    id_token = jwt.encode(claims, "k" * 32, "HS256")
    assert account == tokens(id_token=id_token).account


@pytest.mark.parametrize("id_token", ["", "a.b", "a.b.c", "..", 17, None, "é.é.é"])
def test_what_is_no_id_token_is_passed_over(id_token: object) -> None:
    assert None is tokens(id_token=id_token).account


def test_an_id_token_as_large_as_an_answer_is_passed_over() -> None:
    assert (
        None is tokens(id_token=jwt.encode({"email": "ada@example.com", "x": "x" * 65_536}, "k" * 32, "HS256")).account
    )


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
def test_a_token_that_a_server_repeats_as_a_name_or_a_scope_is_not_shown(which: str) -> None:
    secret = planted("repeated-token")
    id_token = jwt.encode({"email": f"{secret}@example.com", "sub": "ada"}, "k" * 32, "HS256")
    found = tokens(**{which: secret, "id_token": id_token, "scope": f"read {secret}:write"})
    assert ("ada", ("read",)) == (found.account, found.scopes)


def test_a_key_has_no_end() -> None:
    key = key_set("It", {"key": "sk-or-1", "user_id": "user_17"}, NOW)
    assert ("sk-or-1", None, None, "user_17") == (
        key.access_token.reveal(),
        key.expires_at,
        key.refresh_token,
        key.account,
    )


def test_no_token_is_shown() -> None:
    assert "a-secret-token" not in repr(tokens(access_token="a-secret-token", refresh_token="a-secret-token"))


def test_every_error_has_a_mend() -> None:
    assert "the entry of `oauth.providers`" in mend_of("unheard_of")
    assert mend_of(None) == mend_of("unheard_of")
    assert "`client_secret`" in mend_of("incorrect_client_credentials")
