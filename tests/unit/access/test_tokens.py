import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from access.quotas.amounts import Metric
from access.quotas.limits import Terms
from access.quotas.windows import Window
from access.tokens import PREFIX, RANDOM_BYTES, TokenIndex, digest, looks_like_token, looks_valid, new_token
from config.faults import ConfigFaults, render_path
from config.schema import Limit, Token
from core.identity import Grant, Scope

TEXT = new_token(bytes(range(RANDOM_BYTES)))
random_bytes = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


def declared(name: str = "team", text: str = TEXT, **members: Any) -> Token:
    return Token(name=name, sha256=digest(text), **members)


def faults_of(*tokens: Token) -> list[tuple[str, str]]:
    with pytest.raises(ConfigFaults) as raised:
        TokenIndex(tokens)
    return [(render_path(fault.path), fault.message) for fault in raised.value.faults]


@settings(max_examples=100)
@given(random_bytes)
def test_a_new_token_has_the_documented_form_and_a_true_checksum(drawn: bytes) -> None:
    text = new_token(drawn)
    assert len(PREFIX) + 39 == len(text)
    assert text[len(PREFIX) :].isalnum()
    assert looks_like_token(text)
    assert looks_valid(text)


@settings(max_examples=100)
@given(random_bytes, random_bytes)
def test_different_randomness_gives_different_tokens(one: bytes, other: bytes) -> None:
    assert (one == other) == (new_token(one) == new_token(other))


@settings(max_examples=200)
@given(random_bytes, st.integers(min_value=len(PREFIX), max_value=len(TEXT) - 1), st.sampled_from("0aZ_ é"))
def test_a_mistyped_character_is_seen_without_a_lookup(drawn: bytes, position: int, typed: str) -> None:
    text = new_token(drawn)
    mistyped = text[:position] + typed + text[position + 1 :]
    assert (mistyped == text) == looks_valid(mistyped)


@pytest.mark.parametrize("text", ["", PREFIX, TEXT[:-1], TEXT + "a", f"{TEXT}\n", f'"{TEXT}"', "sk-proj-" + TEXT])
def test_a_text_that_is_cut_or_quoted_does_not_look_valid(text: str) -> None:
    assert not looks_valid(text)


@pytest.mark.parametrize("size", [0, RANDOM_BYTES - 1, RANDOM_BYTES + 1])
def test_too_little_randomness_makes_no_token(size: int) -> None:
    with pytest.raises(ValueError, match="24 random bytes"):
        new_token(bytes(size))


def test_a_digest_is_what_sha256sum_prints() -> None:
    assert hashlib.sha256(TEXT.encode()).hexdigest() == digest(TEXT)


def test_a_token_is_found_by_its_text_alone() -> None:
    other = new_token(bytes(RANDOM_BYTES))
    index = TokenIndex((declared("one"), declared("two", other)))
    found = index.find(other)
    assert found is not None
    assert "two" == found.name
    assert index.find(new_token(b"\xff" * RANDOM_BYTES)) is None
    assert index.find(digest(TEXT)) is None
    assert 2 == len(index)


def test_a_key_of_another_form_can_be_declared() -> None:
    assert TokenIndex((declared(text="my own key"),)).find("my own key") is not None


def test_a_digest_may_be_written_in_capitals() -> None:
    assert TokenIndex((Token(name="loud", sha256=digest(TEXT).upper()),)).find(TEXT) is not None


def test_digests_that_begin_alike_are_told_apart() -> None:
    similar = digest(TEXT)[:-1] + ("0" if digest(TEXT)[-1] != "0" else "1")
    index = TokenIndex((Token(name="similar", sha256=similar), declared("mine")))
    found = index.find(TEXT)
    assert found is not None
    assert "mine" == found.name


@pytest.mark.parametrize("text", ["", "\udcff", "\0", "é" * 5000])
def test_any_text_of_a_stranger_is_merely_unknown(text: str) -> None:
    assert TokenIndex((declared(),)).find(text) is None


def test_without_tokens_nothing_is_found() -> None:
    assert TokenIndex(()).find(TEXT) is None


def test_a_found_token_carries_its_scope_grants_and_models() -> None:
    token = declared(scope="scope_token_power_user", endpoints=("inference", "files"), models=("gpt-*", "fast"))
    found = TokenIndex((token,)).find(TEXT)
    assert found is not None
    assert Scope.POWER_USER is found.scope
    assert frozenset({Grant.INFERENCE, Grant.FILES}) == found.grants
    assert [True, True, False] == [found.allows_model(name) for name in ("gpt-4o", "fast", "claude")]


def test_a_token_without_models_may_use_none() -> None:
    found = TokenIndex((declared(),)).find(TEXT)
    assert found is not None
    assert not found.allows_model("anything")


def test_a_metrics_token_opens_no_endpoint() -> None:
    found = TokenIndex((declared(scope="scope_metrics"),)).find(TEXT)
    assert found is not None
    assert frozenset() == found.grants


def test_a_token_brings_its_limits_as_one_object_and_the_name_that_they_are_counted_by() -> None:
    limits = Limit(requests=60, per="minute"), Limit(usd=20, per="month", shadow=True), Limit(concurrency=8)
    index = TokenIndex((declared(limits=limits), declared("two", "other")))
    found, other = index.find(TEXT), index.find("other")
    assert found is not None
    assert other is not None
    assert (
        Terms(Metric.REQUESTS, Window.MINUTE, 60),
        Terms(Metric.USD, Window.MONTH, 20_000_000_000, shadow=True),
        Terms(Metric.CONCURRENCY, None, 8),
    ) == found.limits
    assert ("file:team", "file:two", ()) == (found.counted_as, other.counted_as, other.limits)
    again = index.find(TEXT)
    assert again is not None
    assert found.limits is again.limits


def test_nothing_of_a_token_is_shown_by_the_index() -> None:
    assert "TokenIndex(1 tokens)" == repr(TokenIndex((declared(),)))


@pytest.mark.parametrize("stored", ["", "abc", "g" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n"])
def test_a_digest_that_is_none_is_a_fault_that_shows_no_value(stored: str) -> None:
    ((path, message),) = faults_of(Token(name="bad", sha256=stored))
    assert "tokens[0].sha256" == path
    assert "not 64 hexadecimal digits" in message
    assert "sha256sum" in message
    assert not stored or stored not in message


def test_a_token_pasted_for_its_digest_is_told_to_be_replaced() -> None:
    ((_, message),) = faults_of(Token(name="bad", sha256=TEXT))
    assert "must be replaced now" in message
    assert TEXT not in message


def test_every_fault_of_every_token_is_reported_at_once() -> None:
    reported = faults_of(
        declared("one"),
        declared("one", models=("ok-*", "[")),
        declared("two", "other", scope="scope_token_usr", endpoints=("inference", "file")),
        declared("three", "another", scope="scope_token_admin"),
        declared("four", "yet another", scope="scope_metrics", models=("*",)),
        declared(
            "five",
            "the last",
            limits=(Limit(requests=1, per="day"), Limit(requests=1), Limit(per="day"), Limit(concurrency=1, per="day")),
        ),
    )
    assert [
        "tokens[1].name",
        "tokens[1].sha256",
        "tokens[1].models[1]",
        "tokens[2].scope",
        "tokens[2].endpoints[1]",
        "tokens[3].scope",
        "tokens[4].models",
        "tokens[5].limits[1].per",
        "tokens[5].limits[2]",
        "tokens[5].limits[3].per",
    ] == [path for path, _ in reported]
    messages = dict(reported)
    assert "the same token as tokens[0]" in messages["tokens[1].sha256"]
    assert "did you mean `scope_token_user`?" in messages["tokens[2].scope"]
    assert "did you mean `files`?" in messages["tokens[2].endpoints[1]"]
    assert "can be given to no token" in messages["tokens[3].scope"]
    assert "`requests` takes a `per`, one of `minute`" in messages["tokens[5].limits[1].per"]
    assert "leave `per` out" in messages["tokens[5].limits[3].per"]


@pytest.mark.parametrize("scope", ["scope_token_manager", "scope_token_admin"])
def test_scopes_above_power_user_can_be_created_by_nobody(scope: str) -> None:
    ((path, message),) = faults_of(declared(scope=scope))
    assert "tokens[0].scope" == path
    assert "`scope_token_power_user`" in message
