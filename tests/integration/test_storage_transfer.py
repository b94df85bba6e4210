"""Export and import: whole, back and forth between the databases, and nothing that is no whole export is taken."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, text

from core.clock import ManualClock
from credentials.stores.database import DatabaseStore
from storage.account_tables import logins
from storage.accounts import AccountCells
from storage.audit import AuditStore
from storage.database import Database
from storage.errors import TransferRefused
from storage.jobs import JobStore
from storage.ledger import LedgerStore
from storage.migrations import REVISIONS
from storage.models import ModelStore
from storage.records import NewAuditEntry, NewToken, RevisionMeta, SeenModel
from storage.revisions import RevisionStore
from storage.tables import METADATA
from storage.tokens import TokenStore
from storage.transfer import export_all, import_all
from storage.webhook_records import OutboxEvent
from storage.webhooks import WebhookStore
from tests.account_places import account, sign_in
from tests.databases import KINDS
from tests.integration.conftest import NewDatabase
from tests.integration.test_storage_ledger import EMPTY, FULL

FILES = (("config.yaml", b"providers: []\r\n# \xc3\xbc \xff\x00"), ("conf.d/a.yaml", b""))


def audited(number: int) -> NewAuditEntry:
    return NewAuditEntry(
        id=f"aud_{number}",
        at=number,
        actor="ann “ü”",
        actor_kind="session",
        action="token.create",
        resource="token",
        before=None,
        after='{"n": 1.0, "zero":"\\u0000"}',
        outcome="done",
    )


def token(token_id: str, **more: Any) -> NewToken:
    return NewToken(
        **{
            "id": token_id,
            "name": token_id,
            "sha256": token_id.encode() * 8,
            "prefix": "sk-sluice-ab",
            "scope": "scope_token_user",
            "models": ("gpt-*", "ü"),
            "metadata": {"a": [1, 2.5, None, {"b": "x"}]},
            "ip_ranges": ("10.0.0.0/8",),
            "created_by": "admin-key",
        }
        | more
    )


async def fill(database: Database, clock: ManualClock) -> None:
    tokens = TokenStore(database)
    await tokens.insert(token("tok_z", expires_at=2**62, owner="ann", limits=({"usd": 0.1, "per": "month"},)))
    for successor in ("tok_b", "tok_a"):
        # Each comes before the one that it names, by its id.
        former = (await tokens.list()).entries[0].id
        clock.advance(1)
        await tokens.rotate(
            former,
            new_id=successor,
            sha256=successor.encode() * 8,
            prefix="sk-sluice-cd",
            created_by="ann",
            grace_until=database.now() + 10**9,
        )
    await tokens.insert(token("tok_revoked"))
    await tokens.revoke("tok_revoked")
    await AuditStore(database).append([audited(number) for number in range(1, 1203)])
    await RevisionStore(database).keep(
        FILES, RevisionMeta(revision="aa", at=1, author="ann", trigger="api", comment="why")
    )
    await RevisionStore(database).keep((), RevisionMeta(revision="bb", at=2, before="aa", author="ann", trigger="api"))
    await ModelStore(database).replace("openai", [SeenModel("a/ü", b'{ "id": "a" }'), SeenModel("B", b"{}")], 10)
    await ModelStore(database).replace("local", [SeenModel("a", b"1")], 20)
    await JobStore(database).begin("job_1", "models.refresh")
    await JobStore(database).end("job_1", "done", {"x": [1, "ü"]})
    await WebhookStore(database).add(
        [OutboxEvent(id="evt_1", type="a", at=10, payload='{"ü": 1}', webhooks=("b", "c"))]
    )
    await WebhookStore(database).claim("b", 1, 60)
    await WebhookStore(database).disable("d", b"\xff" * 32)
    await LedgerStore(database).add([FULL, EMPTY])
    accounts = DatabaseStore(AccountCells(database))
    for name in ("a", "b"):
        await accounts.put(account(name, sealed_tokens="k1:abc"), None)
    await accounts.delete("openai", "b", None)


async def everything(database: Database) -> dict[str, list[dict[str, Any]]]:
    found = {}
    async with database.reading() as connection:
        for table in METADATA.sorted_tables:
            if table is logins:
                continue  # they are left out
            rows = (await connection.execute(select(table))).mappings().all()
            found[table.name] = sorted((dict(row) for row in rows), key=repr)
    return found


async def exported(database: Database, *, with_usage: bool = True) -> list[bytes]:
    lines: list[bytes] = []
    rows = await export_all(database, lines.append, with_usage=with_usage)
    assert sum(rows.values()) + 2 == len(lines)
    return lines


@pytest.mark.parametrize("to", KINDS)
async def test_all_of_a_database_comes_to_another(
    new_database: NewDatabase, clock: ManualClock, kind: str, to: str
) -> None:
    source, target = new_database(kind), new_database(to)
    await fill(source, clock)
    before = await everything(source)
    assert all(before.values()), "a table has no row: the test proves nothing of it"
    lines = await exported(source)
    rows = await import_all(target, lines)
    assert before == await everything(target)
    assert {name: len(found) for name, found in before.items()} | {"credential_logins": 0} == rows
    assert lines == await exported(target)
    # Life goes on there.
    await AuditStore(target).append([audited(5000)])
    verified = await AuditStore(target).verify()
    assert (None, 1203) == (verified.broken, verified.head and verified.head.seq)
    await TokenStore(target).insert(token("tok_new"))


async def test_accounts_come_along_and_sign_ins_under_way_do_not(
    new_database: NewDatabase, clock: ManualClock, kind: str
) -> None:
    source, target = new_database(kind), new_database(kind)
    store = DatabaseStore(AccountCells(source))
    kept = await store.put(account(sealed_tokens="k1:abc"), None)
    held = await store.lock("openai", "main", 60)
    assert held is not None
    await store.add_login(sign_in("ab", source.now()))
    rows = await import_all(target, await exported(source))
    assert (1, 0) == (rows["credential_accounts"], rows["credential_logins"])
    there = DatabaseStore(AccountCells(target))
    assert (await store.all()).version == (await there.all()).version
    assert kept == await there.get("openai", "main")
    # Whoever refreshed it here as it was exported counts there too.
    assert await there.lock("openai", "main", 60) is None


async def test_the_ledger_is_left_out_unless_it_is_asked_for(
    new_database: NewDatabase, clock: ManualClock, kind: str
) -> None:
    source, target = new_database(kind), new_database(kind)
    await fill(source, clock)
    lines = await exported(source, with_usage=False)
    assert 0 == (await import_all(target, lines))["ledger"]
    assert await everything(source) | {"ledger": []} == await everything(target)


async def test_an_empty_database_comes_to_another(new_database: NewDatabase, kind: str) -> None:
    lines = await exported(new_database(kind))
    assert {0} == set((await import_all(new_database(kind), lines)).values())


async def test_an_export_is_of_one_state_while_others_write(new_database: NewDatabase, kind: str) -> None:
    source, target = new_database(kind), new_database(kind)
    store = AuditStore(source)
    await store.append([audited(number) for number in range(1, 1203)])

    async def write_on() -> None:
        for number in range(2000, 2020):
            await store.append([audited(number)])

    lines, _ = await asyncio.gather(exported(source), write_on())
    assert f'{{"sluice_export":1,"schema":"{REVISIONS[-1]}"}}\n'.encode() == lines[0]
    # The chain and its count fit, or it would not be taken.
    rows = await import_all(target, lines)
    assert 1202 <= rows["audit"] <= 1222


async def test_only_an_empty_database_takes_an_export(new_database: NewDatabase, kind: str) -> None:
    source, target = new_database(kind), new_database(kind)
    await AuditStore(source).append([audited(1)])
    await JobStore(target).begin("job_1", "a")
    before = await everything(target)
    with pytest.raises(TransferRefused, match="is not empty"):
        await import_all(target, await exported(source))
    assert before == await everything(target)


def changed(position: int, old: bytes, new: bytes) -> Callable[[list[bytes]], list[bytes]]:
    def change(lines: list[bytes]) -> list[bytes]:
        assert old in lines[position]
        return [*lines[:position], lines[position].replace(old, new), *lines[position + 1 :]]

    return change


# What is done to an export whose lines 2 to 4 are of the audit, and words of the refusal.
DAMAGED: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "it is empty": (lambda _: [], "line 1 is not of an export"),
    "its end is cut": (lambda lines: lines[:-1], "the export is cut"),
    "a line is cut": (lambda lines: [*lines[:3], lines[3][:40]], "line 4 is not of an export"),
    "a line is missing": (lambda lines: [*lines[:2], *lines[3:]], "is damaged"),
    "a line is twice": (lambda lines: [*lines[:2], lines[1], *lines[2:]], "does not fit|is damaged"),
    "a text is changed": (changed(2, b"token.create", b"token.revoke"), "is damaged"),
    "the header is missing": (lambda lines: lines[1:], "line 1 is not of an export"),
    "the format is unknown": (changed(0, b":1,", b":2,"), "has format 2"),
    "the schema is unknown": (changed(0, REVISIONS[-1].encode(), b"0009"), "schema `0009`"),
    "a table is unknown": (changed(1, b'"audit"', b'"secrets"'), "a table `secrets`"),
    "a column is unknown": (changed(1, b'"actor"', b'"actress"'), "has not the columns"),
    "a number is a text": (changed(1, b'"seq":1', b'"seq":"1"'), "line 2 has in `seq` what cannot stand there"),
    "a number is a truth": (changed(1, b'"seq":1', b'"seq":true'), "line 2 has in `seq`"),
    "a number is too large": (changed(1, b'"at":1', b'"at":9223372036854775808'), "line 2 has in `at`"),
    "a text is a number": (changed(1, b'"actor_kind":"session"', b'"actor_kind":1'), "line 2 has in `actor_kind`"),
    "bytes are no base64": (changed(1, b'"previous_hash":"A', b'"previous_hash":"!'), "line 2 has in `previous_hash`"),
    "there is nothing where something must be": (changed(1, b'"outcome":"done"', b'"outcome":null'), "does not fit"),
}


# What is for the database to see is tried on both.
@pytest.mark.parametrize(
    ("kind", "case"),
    [("sqlite", case) for case in DAMAGED]
    + [("postgresql", case) for case, (_, words) in DAMAGED.items() if "does not fit" in words],
)
async def test_what_is_no_whole_export_is_refused_and_nothing_of_it_stays(
    new_database: NewDatabase, kind: str, case: str
) -> None:
    source, target = new_database(kind), new_database(kind)
    await AuditStore(source).append([audited(number) for number in (1, 2, 3)])
    damage, words = DAMAGED[case]
    with pytest.raises(TransferRefused, match=words):
        await import_all(target, damage(await exported(source)))
    assert not any((await everything(target)).values())


@pytest.mark.parametrize(
    "statement", ["UPDATE audit SET actor = 'bob' WHERE seq = 2", "DELETE FROM audit WHERE seq = 3"]
)
async def test_an_audit_whose_chain_is_broken_is_taken_only_when_told_to(
    new_database: NewDatabase, kind: str, statement: str
) -> None:
    source, target = new_database(kind), new_database(kind)
    await AuditStore(source).append([audited(number) for number in (1, 2, 3)])
    async with source.transaction() as connection:
        await connection.execute(text(statement))
    lines = await exported(source)
    with pytest.raises(TransferRefused, match=r"the audit in the export is broken: entry [23] .*--accept-broken-audit"):
        await import_all(target, lines)
    assert not any((await everything(target)).values())
    await import_all(target, lines, accept_broken_audit=True)
    assert await everything(source) == await everything(target)
    assert (await AuditStore(source).verify()) == (await AuditStore(target).verify())
