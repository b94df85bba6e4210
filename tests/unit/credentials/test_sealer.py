"""Tokens are sealed for their account alone, and what does not open says why."""

from typing import Any

import msgspec
import pytest

from config.sealing import KeyRing, SealingKey
from core.secret import Secret
from credentials.errors import RecordDamaged, RecordUnknown
from credentials.records import AccountRecord, AccountSettings
from credentials.sealer import RecordSealer, login_purpose
from credentials.tokens import TokenSet
from tests.account_places import account, flipped
from tests.planted import planted, planted_key, search

TOKENS = TokenSet(
    access_token=Secret.literal(planted("access")),
    issued_at=1000.25,
    expires_at=4600.25,
    refresh_token=Secret.literal(planted("refresh")),
    scopes=("a", "b"),
    account="ann@example.com",
)
BARE = TokenSet(access_token=Secret.literal(planted("access")), issued_at=1, expires_at=None)
PROXY = f"http://user:{planted('proxy')}@proxy:8080"


def sealer(*ids: str, key: str = "key") -> RecordSealer:
    async def keys() -> KeyRing:
        return KeyRing([SealingKey(key_id, planted_key(f"{key}-{key_id}")) for key_id in ids])

    return RecordSealer(keys)


def plain(tokens: TokenSet | None) -> tuple[Any, ...]:
    assert tokens is not None
    refresh = None if tokens.refresh_token is None else tokens.refresh_token.reveal()
    return (tokens.access_token.reveal(), refresh, tokens.issued_at, tokens.expires_at, tokens.scopes, tokens.account)


async def sealed(by: RecordSealer, tokens: TokenSet = TOKENS, **fields: Any) -> AccountRecord:
    return account(
        sealed_tokens=await by.seal_tokens("openai", "main", tokens),
        sealed_proxy_url=await by.seal_proxy_url("openai", "main", PROXY),
        **fields,
    )


@pytest.mark.parametrize("tokens", [TOKENS, BARE])
async def test_tokens_come_back_as_they_were_and_show_nothing_sealed(tokens: TokenSet) -> None:
    by = sealer("k1")
    record = await sealed(by, tokens)
    search(repr(record), "a record")
    assert plain(tokens) == plain(await by.open_tokens(record))
    url = await by.open_proxy_url(record)
    assert url is not None
    assert PROXY == url.reveal()
    assert (None, None) == (await by.open_tokens(account()), await by.open_proxy_url(account()))


async def test_a_changed_character_of_what_is_sealed_is_seen() -> None:
    by = sealer("k1")
    record = await sealed(by)
    assert record.sealed_tokens is not None
    text = record.sealed_tokens.encode()
    for place in range(len(text)):
        changed = msgspec.structs.replace(record, sealed_tokens=flipped(text, place).decode("latin-1"))
        with pytest.raises(
            RecordDamaged, match=r"^the tokens of the account `openai/main`: what is sealed was changed"
        ):
            await by.open_tokens(changed)


async def test_what_is_sealed_for_one_place_opens_in_no_other() -> None:
    by = sealer("k1")
    record = await sealed(by)
    text = await by.seal_text("text", login_purpose("a"))
    assert "text" == await by.open_text(text, login_purpose("a"), "the sign-in")
    moved = [
        msgspec.structs.replace(record, name="other"),
        msgspec.structs.replace(record, provider="other"),
        msgspec.structs.replace(record, sealed_tokens=record.sealed_proxy_url),
        msgspec.structs.replace(record, sealed_tokens=text),
    ]
    for each in moved:
        with pytest.raises(RecordDamaged, match=r"does not open with the master key `k1`: .*; or sign in again"):
            await by.open_tokens(each)
    with pytest.raises(RecordDamaged, match=r"^`proxy_url` of the account `openai/main`: .*; or set it again"):
        await by.open_proxy_url(msgspec.structs.replace(record, sealed_proxy_url=record.sealed_tokens))
    with pytest.raises(RecordDamaged, match=r"^the sign-in: .*; or sign in again"):
        await by.open_text(text, login_purpose("b"), "the sign-in")


async def test_a_key_that_is_not_there_or_not_the_same_is_told() -> None:
    record = await sealed(sealer("k1"))
    with pytest.raises(RecordDamaged, match="needs the master key `k1`, which is not among ours: add it; or sign in"):
        await sealer("k2").open_tokens(record)
    with pytest.raises(RecordDamaged, match="does not open with the master key `k1`: set the one that it was sealed"):
        await sealer("k1", key="other").open_tokens(record)


async def test_tokens_that_another_program_has_sealed_are_told() -> None:
    by = sealer("k1")
    for text in ("{}", "no JSON", '{"access_token": 1, "issued_at": 2}'):
        strange = await by.seal_text(text, "credential\0openai\0main\0tokens")
        with pytest.raises(RecordDamaged, match="are not what this program seals: sign in again"):
            await by.open_tokens(account(sealed_tokens=strange))


async def test_a_record_is_sealed_anew_with_the_first_key_and_nothing_else_of_it_changes() -> None:
    old, both, new = sealer("k1"), sealer("k2", "k1"), sealer("k2")
    record = await sealed(old, refreshed_at=7, settings=AccountSettings(note="n"))
    again = await both.rekeyed(record)
    assert again is not None
    kept = {"sealed_tokens": record.sealed_tokens, "sealed_proxy_url": record.sealed_proxy_url}
    assert record == msgspec.structs.replace(again, **kept)
    assert plain(TOKENS) == plain(await new.open_tokens(again))
    assert await new.open_proxy_url(again) is not None
    assert (None, None) == (await both.rekeyed(again), await both.rekeyed(account()))
    # One part alone.
    half = msgspec.structs.replace(again, sealed_proxy_url=record.sealed_proxy_url)
    whole = await both.rekeyed(half)
    assert whole is not None
    assert again.sealed_tokens == whole.sealed_tokens
    with pytest.raises(RecordDamaged, match="needs the master key `k1`"):
        await new.rekeyed(record)


async def test_an_exported_account_comes_to_another_gateway_by_another_name() -> None:
    by = sealer("k1")
    record = await sealed(by, settings=AccountSettings(weight=3, models=("a*",), note="n"), needs_login="why")
    document = msgspec.json.decode(msgspec.json.encode(await by.export(record)))
    search(repr(document), "an exported account")
    assert {"sluice_credential", "provider", "name", "oauth", "settings", "sealed"} == set(document)
    assert (1, "k1") == (document["sluice_credential"], document["sealed"].partition(":")[0])
    given = await by.import_(document | {"name": "other"})
    assert ("openai", "other", "openai", 0) == (given.provider, given.name, given.oauth, given.version)
    assert record.settings == given.settings
    assert (("a", "b"), "ann@example.com", 4_600_250_000) == (given.scopes, given.account, given.expires_at)
    assert plain(TOKENS) == plain(await by.open_tokens(given))
    url = await by.open_proxy_url(given)
    assert url is not None
    assert PROXY == url.reveal()
    empty = await by.import_(await by.export(account()))
    assert (None, None) == (empty.sealed_tokens, empty.sealed_proxy_url)


async def test_a_document_that_was_not_exported_is_refused() -> None:
    by = sealer("k1")
    document = await by.export(await sealed(by))
    refused = [
        ({}, "missing required field `sluice_credential`"),
        (document | {"sluice_credential": 0}, "`sluice_credential` is not 1"),
        (document | {"sluice_credential": True}, "Expected `int`"),
        (document | {"more": 1}, "unknown field `more`"),
        (document | {"settings": {"weight": "x"}}, r"Expected `int`, got `str` - at `\$.settings.weight`"),
        (document | {"sealed": "k1:x"}, "the exported credential `openai/main`: what is sealed was changed or cut"),
        (document | {"sealed": (await sealed(by)).sealed_tokens}, "does not open with the master key `k1`"),
        (document | {"sealed": await by.seal_text("[]", "credential export")}, "is not what this program exports"),
    ]
    for given, message in refused:
        with pytest.raises(RecordDamaged, match=message):
            await by.import_(given)
    with pytest.raises(RecordUnknown, match=r"has format 2, .* none later than 1: import it with the version"):
        await by.import_(document | {"sluice_credential": 2})
    with pytest.raises(RecordDamaged, match=r"needs the master key `k1`.*; or export it again"):
        await sealer("k2").import_(document)
