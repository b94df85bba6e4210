"""Where references lead in Vault, what text a field is, and when it is read again."""

import pytest

from config.schema import Vault, VaultMount
from config.vault.entries import (
    MAX_RETRY_SECONDS,
    Place,
    due_in,
    falls_short,
    place_of,
    read_again_in,
    text_of,
    try_again_in,
)
from config.vault.errors import VaultMissing, VaultUnusable

_PLACE = Place("secret", "llm/openai", None, "auto")


def _place(path: str, config: Vault, **parts: str) -> Place:
    mount, _, rest = path.partition("/")
    return place_of({"mount": mount, "path": rest, "field": "key", **parts}, config)


def test_the_mount_is_the_first_segment_unless_a_longer_one_is_listed() -> None:
    plain = Vault(address="http://vault")
    listed = Vault(address="http://vault", mounts=("team", "team/secrets/", VaultMount(path="/team/secrets/old", kv=1)))
    assert Place("team", "secrets/llm", None, "auto") == _place("team/secrets/llm", plain)
    assert Place("team/secrets", "llm", None, "auto") == _place("team/secrets/llm", listed)
    assert Place("team/secrets/old", "llm", None, 1) == _place("team/secrets/old/llm", listed)
    assert Place("team/secrets", "older/llm", None, "auto") == _place("team/secrets/older/llm", listed)
    assert Place("team", "llm", None, "auto") == _place("team/llm", listed)
    assert Place("other", "llm", None, "auto") == _place("other/llm", listed)


def test_a_mount_that_does_not_say_its_version_of_kv_has_that_of_the_server() -> None:
    config = Vault(address="http://vault", kv=2, mounts=("a", VaultMount(path="b"), VaultMount(path="c", kv="auto")))
    assert (2, 2, "auto", 2) == tuple(_place(f"{mount}/x", config).kv for mount in "abcd")


def test_a_version_is_a_number() -> None:
    assert 12 == _place("secret/x", Vault(address="http://vault"), version="012").version


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("key", "key"),
        ("key\n", "key"),
        ("key\r\n", "key"),
        ("a\n\n", "a\n"),
        (" ", " "),
        (5, "5"),
        (1.5, "1.5"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        ("ü", "ü"),
    ],
)
def test_texts_numbers_and_booleans_are_values(value: object, text: str) -> None:
    assert text == text_of({"key": value}, "key", _PLACE)


@pytest.mark.parametrize("data", [{}, {"key": None}, {"key": ""}, {"key": "\n"}, {"Key": "x"}])
def test_what_is_absent_null_or_empty_is_missing(data: dict[str, object]) -> None:
    with pytest.raises(VaultMissing, match="the field `key` at `secret/llm/openai`"):
        text_of(data, "key", _PLACE)


@pytest.mark.parametrize(
    ("value", "words"), [({"a": "x"}, "an object"), (["x"], "a list"), ({}, "an object"), ("\ud83d", "Unicode")]
)
def test_what_no_secret_can_be_is_said_without_the_value(value: object, words: str, planted_secret: str) -> None:
    with pytest.raises(VaultUnusable, match=words) as error:
        text_of({"key": value, "other": planted_secret}, "key", Place("secret", "llm", 3, 2))
    assert "`secret/llm@3`" in str(error.value)
    assert planted_secret not in str(error.value)


def test_a_lease_is_prolonged_when_two_thirds_of_it_are_spent() -> None:
    assert 2400 == due_in(3600)


def test_values_that_were_read_together_drift_apart_and_are_never_older_than_configured() -> None:
    assert 60 == read_again_in(60, 0)
    assert 57 == pytest.approx(read_again_in(60, 0.5))
    assert 54 == pytest.approx(read_again_in(60, 1))


def test_failures_are_tried_again_less_and_less_often() -> None:
    assert [1, 2, 4, 8, 16, 30, 30] == [try_again_in(failures, 60) for failures in range(1, 8)]
    assert [1, 2, 4, 5, 5] == [try_again_in(failures, 5) for failures in range(1, 6)]
    assert [0.2, 0.2] == [try_again_in(failures, 0.2) for failures in (1, 2)]
    assert MAX_RETRY_SECONDS == try_again_in(100_000, 3600)


def test_a_prolongation_by_less_than_was_asked_for_falls_short() -> None:
    assert falls_short(0, 60)
    assert falls_short(50, 60)
    assert not falls_short(59, 60)
    assert not falls_short(90, 60)
