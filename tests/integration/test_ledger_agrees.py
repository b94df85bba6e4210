"""The ledger against an independent count: thousands of requests of every kind, and what a provider of the tests has seen.

`make soak` does the same with 50,000 requests each.
"""

import asyncio
import itertools
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from telemetry.ledger_writer import PATIENCE_SECONDS
from tests.agreement import accounts
from tests.agreement.accounts import Found, Row
from tests.agreement.clients import Clients, while_asking
from tests.agreement.plan import FLUSH_SECONDS, Asked, Kind, config, plan
from tests.agreement.provider import Seen, Tally
from tests.databases import PostgreSQL
from tests.gateway_process import Gateway, until
from tests.integration.conftest import NewUrl, StartGateway
from tests.provider import provider

FEW = 500
MANY = 50_000
SIZES = [
    FEW,
    # A minute or so where nothing else runs.
    pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
]
GROUPS = ("token", "owner", "model", "provider", "credential", "endpoint", "status", "error_code")
ROWS, SPOOLED = "sluice_ledger_rows_total", "sluice_ledger_spooled_rows"
PATIENCE = 120.0
"""Seconds for what is under way to be written."""


class Proof:
    """One plan, those who keep to it, and what the ledger should have of it."""

    def __init__(self, count: int) -> None:
        self.asked = {asked.number: asked for asked in plan(count, seed=count)}
        self.tally = Tally(self.asked)
        self.clients = Clients(self.tally)
        self.wanted = iter(self.asked.values())
        self.began = time.monotonic()

    def next(self, count: int) -> Iterator[Asked]:
        """The next so many requests, each for whom comes first."""
        return itertools.islice(self.wanted, count)

    def rows_of(self, run: int) -> set[int]:
        """Those that have been asked of that gateway, and have a row."""
        return {number for number in self.known if (heard := self.clients.heard.get(number)) and heard.run == run}

    async def written(self, running: Gateway) -> None:
        """Until all that the gateway of the present run was asked is in its ledger and its access log."""
        rows = len(self.rows_of(self.clients.run))
        lines = {number for number, heard in self.clients.heard.items() if heard.run == self.clients.run}
        # More: those that an earlier gateway has left on the disk.
        await until(lambda: running.metric(ROWS) >= rows, PATIENCE, "a row for each")
        await until(lambda: waiting(running) == 0, PATIENCE, "an end of waiting")
        await until(lambda: running.metric(SPOOLED) == 0, PATIENCE, "an empty spool")
        await until(lambda: lines == dict(accounts.logged(running)).keys(), PATIENCE, "the access log")

    @property
    def known(self) -> dict[int, Asked]:
        """Those that have a row."""
        return {number: asked for number, asked in self.asked.items() if asked.kind is not Kind.STRANGER}

    def expected(self) -> dict[int, Row]:
        """The rows of all that were not cut off."""
        seen: dict[int, list[Seen]] = dict(self.tally.seen)
        heard = self.clients.heard
        return {
            number: accounts.expected_row(asked, seen.get(number, []), heard[number])
            for number, asked in self.known.items()
            if not heard[number].cut_off
        }

    def by_request_id(self) -> dict[str, int]:
        return {heard.request_id: number for number, heard in self.clients.heard.items() if heard.request_id}

    def check_clients(self) -> None:
        """What clients were told agrees with what the provider has done."""
        for number, heard in self.clients.heard.items():
            seen, asked = self.tally.seen.get(number, []), self.asked[number]
            if heard.attempts is not None:
                last = seen[-1]
                assert (len(seen), f"{last.provider}/{last.model}") == (heard.attempts, heard.target), asked
            if asked.stream and asked.kind is not Kind.RESPONSE_STREAM and not heard.cut_off:
                # What the gateway has asked for by itself is not shown.
                told = asked.kind is Kind.TOLD_CUT and asked.name != "asked"
                assert heard.shows_usage is (asked.kind is Kind.STREAM or told), asked

    def differences(self, expected: dict[int, Row], found: dict[int, Found]) -> str:
        """None: it is empty."""
        return accounts.differences(self.asked, expected, {number: each.row for number, each in found.items()})

    def report(self, text: str) -> None:
        kinds = Counter(asked.kind.name.lower() for asked in self.asked.values())
        print(f"\n{len(self.asked)} requests in {time.monotonic() - self.began:.1f} s: {text}\n    {dict(kinds)}")


def waiting(running: Gateway) -> int:
    """Rows that a worker has in memory alone, those that gather too."""
    found: int = running.management("GET", "/api/v1/health").json()["ledger"]["waiting"]
    return found


def check_sums(running: Gateway, rows: list[Row]) -> None:
    for name in GROUPS:
        assert (name, accounts.expected_sums(rows, name)) == (name, accounts.found_sums(running, name))


def rows_by_number(found: list[Found], numbers: dict[str, int]) -> tuple[dict[int, Found], list[Found]]:
    """By the number of the request, each once; and those that do not tell it."""
    assert len(found) == len({each.request_id for each in found})
    told: dict[int, Found] = {}
    strays = []
    for each in found:
        number = accounts.number_of(each, numbers)
        if number is None:
            strays.append(each)
        else:
            assert number not in told, (told[number], each)
            told[number] = each
    return told, strays


async def check_whole(running: Gateway, proof: Proof) -> None:
    """The ledger, its sums, the metrics and the access log all say what the provider and the clients do."""
    expected = proof.expected()
    await proof.written(running)
    assert len(expected) == running.metric(ROWS)
    assert 0 == running.metric("sluice_ledger_lost_rows_total") == running.metric("sluice_ledger_waiting_rows")
    proof.check_clients()
    strangers = sum(asked.kind is Kind.STRANGER for asked in proof.asked.values())
    lines = dict(accounts.logged(running))
    # Those that left before they were told their request's id are known by their own.
    numbers = {line["request_id"]: number for number, line in lines.items()}
    assert proof.by_request_id().items() <= numbers.items()
    found, strays = rows_by_number(accounts.found_rows(running), numbers)
    assert [] == strays
    assert not (unlike := proof.differences(expected, found)), unlike
    assert {number: each.request_id for number, each in found.items()} == {
        number: lines[number]["request_id"] for number in expected
    }
    other_lines = {
        number: (accounts.line_of(found[number].request_id, row), accounts.shown_line(lines[number]))
        for number, row in expected.items()
        if accounts.line_of(found[number].request_id, row) != accounts.shown_line(lines[number])
    }
    assert {} == other_lines
    rows = list(expected.values())
    check_sums(running, rows)
    assert accounts.expected_metrics(rows, strangers) == accounts.found_metrics(running)


@pytest.mark.parametrize("count", SIZES)
async def test_the_ledger_agrees_with_the_providers_own_count(start_gateway: StartGateway, count: int) -> None:
    proof = Proof(count)
    async with provider(proof.tally.behave) as behind:
        access, text = config(behind.port, "server: {workers: 2}\n")
        running = start_gateway(text, access=access)
        await proof.clients.ask(running, proof.wanted)
        await check_whole(running, proof)
        proof.report("all rows agree")


@pytest.mark.parametrize("count", SIZES)
async def test_it_agrees_though_the_database_is_stopped_and_started_in_between(
    start_gateway: StartGateway, new_url: NewUrl, postgresql_server: PostgreSQL, count: int
) -> None:
    proof = Proof(count)
    extra = {"DATABASE_URL": new_url("postgresql")}
    outages = ("immediate",) if count == FEW else ("fast", "immediate")
    part = count // (5 * len(outages))
    async with provider(proof.tally.behave) as behind:
        access, text = config(behind.port, "server: {workers: 2}\nstorage: {url: '${env:DATABASE_URL}'}\n")
        running = start_gateway(text, access=access, extra=extra)
        running.expect_log("the database postgresql://|tokens that the API has made cannot be read")
        spooled = 0.0
        for how in outages:
            await proof.clients.ask(running, proof.next(part))
            try:
                await while_asking(
                    proof.clients,
                    running,
                    proof.next(part),
                    partial(asyncio.to_thread, postgresql_server.stop, how),
                )
                await proof.clients.ask(running, proof.next(part))
                await until(lambda: running.metric(SPOOLED) > part // 2, PATIENCE, "a spool")
                spooled += running.metric(SPOOLED)
            finally:
                # Whatever happens: other tests want it, too.
                start = partial(asyncio.to_thread, postgresql_server.start)
                await while_asking(proof.clients, running, proof.next(part), start)
        await proof.clients.ask(running, proof.wanted)
        await check_whole(running, proof)
        proof.report(f"all rows agree; {spooled:g} rows were on the disk while the database was away")


@pytest.mark.parametrize("count", SIZES)
async def test_a_gateway_that_is_killed_loses_rows_of_its_last_moment_alone_and_all_others_agree(
    start_gateway: StartGateway, count: int
) -> None:
    proof = Proof(count)
    clients = proof.clients
    kills = 1 if count == FEW else 5
    killed_at: list[float] = []
    certain: set[int] = set()
    async with provider(proof.tally.behave) as behind:
        access, text = config(behind.port)
        runs = [start_gateway(text, access=access)]

        async def kill() -> None:
            enough = count * (clients.run + 1) // (kills + 1)
            await until(lambda: len(clients.heard) >= enough, PATIENCE, "enough requests")
            runs[-1].abandon()
            clients.killed.set()
            killed_at.append(time.monotonic())
            runs[-1].signal(signal.SIGKILL)
            await runs[-1].ended()

        for _ in range(kills):
            # Some are in the database and in the access log for certain; then others come while it is killed.
            await clients.ask(runs[-1], proof.next(count // (3 * (kills + 1))))
            await proof.written(runs[-1])
            certain |= proof.rows_of(clients.run)
            await while_asking(clients, runs[-1], proof.wanted, kill)
            clients.run += 1
            clients.killed.clear()
            runs.append(start_gateway("", config=runs[-1].config))
        last = runs[-1]
        await clients.ask(last, proof.wanted)
        await proof.written(last)
        certain |= proof.rows_of(kills)
    proof.check_clients()
    numbers = {line["request_id"]: number for run in runs for number, line in accounts.logged(run)}
    numbers |= proof.by_request_id()
    expected = proof.expected()
    found, strays = rows_by_number(accounts.found_rows(last), numbers)
    kept = {number: row for number, row in expected.items() if number in found}
    assert not (unlike := proof.differences(kept, {number: found[number] for number in kept})), unlike
    # All others are of requests whose end nobody but the gateway has seen.
    cut_off = {number for number, heard in clients.heard.items() if heard.cut_off}
    assert found.keys() - kept.keys() <= cut_off
    assert {None} >= {each.row.requested_model for each in strays}
    assert certain <= kept.keys()
    lost = {
        number: killed_at[clients.heard[number].run] - clients.heard[number].ended
        for number in expected.keys() - kept.keys()
    }
    # Without a line of the access log nobody can tell whose a row is that has no model.
    assert len(strays) <= len(lost) + len(cut_off)
    # docs/storage.md, and how late a busy machine is with anything.
    slowest = max(heard.ended - heard.began for heard in clients.heard.values())
    allowed = FLUSH_SECONDS + 2 * PATIENCE_SECONDS + 10 * slowest
    assert not (others := {proof.asked[number]: age for number, age in lost.items() if age > allowed}), (
        allowed,
        others,
    )
    check_sums(last, [each.row for each in (*found.values(), *strays)])
    proof.report(
        f"{kills} kills, {len(lost)} rows lost that had ended up to {max(lost.values(), default=0.0):.3f} s before, "
        f"{len(cut_off)} requests cut off, {len(found.keys() - kept.keys())} of them with a row; "
        f"the other {len(kept)} rows agree"
    )
