"""Values of Vault at a load: what is asked, what stands in for what is not to be had, what a handle costs."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from config.references import ReferenceFault, References
from config.vault.answers import Reading
from config.vault.errors import (
    Reason,
    VaultDenied,
    VaultFault,
    VaultSignInFailed,
    VaultUnavailable,
    VaultUnusable,
)
from config.vault.known import StaleValue
from core.events import SecretFresh, SecretRotated, SecretStale
from tests.gateway_process import environment
from tests.unit.config.vault.held import CACHE_SECONDS, KEY, LABEL, OPENAI, ExpectLog, Held, named, unavailable

# At a load


def test_all_fields_of_a_secret_come_from_one_reading(held: Held) -> None:
    assert ["one", "u1", "one"] == [read() for read in held.load(KEY, f"{OPENAI}#user", KEY)]
    assert [OPENAI] == held.vault.take()


def test_what_is_known_is_not_read_again_by_the_next_load(held: Held) -> None:
    held.load(KEY)
    held.vault.take()
    assert ["one", "u1"] == [read() for read in held.load(KEY, f"{OPENAI}#user")]
    assert [] == held.vault.take()


def test_a_field_that_was_written_since_is_read_by_the_load_that_names_it(held: Held) -> None:
    (key,) = held.load(KEY)
    held.vault.secrets[OPENAI] = {"key": "two", "new": "n"}
    assert ["n"] == [read() for read in held.load(f"{OPENAI}#new")]
    # All its fields are of that reading.
    assert "two" == key()
    assert [SecretRotated(reference=LABEL)] == held.take()


def test_a_reference_that_nobody_fetched_is_read_when_it_is_resolved(held: Held) -> None:
    assert "one" == held.values.resolve(named(KEY))()


@pytest.mark.parametrize("reason", ["unreachable", "sealed"])
def test_a_server_that_is_out_is_asked_once_in_a_load(held: Held, reason: Reason) -> None:
    held.vault.fault = unavailable(reason)
    references = [named(f"secret/{number}#key") for number in range(20)]
    held.values.fetch(references)
    assert ["secret/0"] == held.vault.take()
    for reference in references:
        with pytest.raises(ReferenceFault, match=rf"`\${{vault:secret/\d+#key}}` cannot be read: Vault is {reason}"):
            held.values.resolve(reference)


@pytest.mark.parametrize("reason", ["slow", "rate_limited"])
def test_one_path_that_is_slow_or_limited_says_nothing_of_the_others_but_two_do(held: Held, reason: Reason) -> None:
    names = [f"secret/{number}" for number in range(40)]
    held.vault.secrets |= {name: {"key": "fine"} for name in names}
    references = [named(f"{name}#key") for name in names]
    held.vault.faults = {"secret/0": unavailable(reason)}
    held.values.fetch(references)
    assert ["fine"] * 39 == [held.values.resolve(each)() for each in references[1:]]
    other = Held(held.values._pool)
    other.vault.fault = unavailable(reason)
    other.values.fetch(references)
    # One first, and then as many at once as the pool has threads.
    assert len(other.vault.take()) <= 5


@pytest.mark.parametrize(
    "fault",
    [VaultSignInFailed("refused"), VaultUnavailable("fails (500)"), unavailable("slow")],
    ids=["403", "500", "slow"],
)
def test_a_sign_in_that_fails_is_tried_once_in_a_load(held: Held, fault: VaultFault) -> None:
    held.vault.sign_ins = 0
    held.vault.fault = fault
    held.values.fetch([named(f"secret/{number}#key") for number in range(20)])
    assert ["secret/0"] == held.vault.take()


def test_what_is_wrong_with_one_path_is_not_wrong_with_another(held: Held) -> None:
    held.vault.secrets["secret/a"] = held.vault.secrets["secret/d"] = {"key": "fine"}
    held.vault.faults = {"secret/b": VaultDenied("secret/data/b", "read"), "secret/c": VaultUnavailable("fails (500)")}
    a, b, c, d, none = (named(f"secret/{name}#key") for name in ("a", "b", "c", "d", "none"))
    held.values.fetch([b, c, none, a, d])
    assert ["fine", "fine"] == [held.values.resolve(each)() for each in (a, d)]
    for reference, words in ((b, r'path "secret/data/b"'), (c, "500"), (none, "has nothing")):
        with pytest.raises(ReferenceFault, match=words):
            held.values.resolve(reference)


def test_a_fault_is_forgotten_by_the_next_load(held: Held) -> None:
    held.vault.fault = unavailable()
    held.values.fetch([named(KEY)])
    held.vault.fault = None
    assert ["one"] == [read() for read in held.load(KEY)]
    assert [] == held.take()


@pytest.mark.parametrize("value", [{"a": "b"}, ["x"]])
def test_what_no_secret_can_be_is_refused_even_with_a_default(held: Held, value: object) -> None:
    held.vault.secrets[OPENAI] = {"key": value}
    with pytest.raises(ReferenceFault, match="a secret is a text"):
        held.load(f"{KEY}:-default")


# Defaults


async def test_a_default_stands_in_for_what_is_not_there_until_it_is(held: Held) -> None:
    (read,) = held.load("secret/none#key:-default")
    assert "default" == read()
    assert () == held.values.stale()
    held.vault.secrets["secret/none"] = {"key": "real"}
    await held.pass_on(CACHE_SECONDS)
    assert "real" == read()
    assert [SecretRotated(reference="${vault:secret/none#key}")] == held.take()


async def test_a_default_stands_in_for_an_outage_and_is_stale(held: Held, expect_log: ExpectLog) -> None:
    held.vault.fault = unavailable("sealed")
    with expect_log(r"`\$\{vault:secret/llm/openai#key\}` cannot be read, its default is in use: Vault is sealed"):
        (read,) = held.load(f"{KEY}:-default")
    assert "default" == read()
    assert (StaleValue(LABEL, "sealed", held.clock.time(), None),) == held.values.stale()
    assert [SecretStale(reference=LABEL, reason="sealed")] == held.take()
    held.vault.fault = None
    await held.pass_on(1)
    assert "one" == read()
    assert [SecretRotated(reference=LABEL), SecretFresh(reference=LABEL)] == held.take()


async def test_a_default_is_no_longer_stale_once_it_is_known_that_there_is_nothing(
    held: Held, expect_log: ExpectLog
) -> None:
    held.vault.fault = unavailable()
    with expect_log("its default is in use"):
        (read,) = held.load("secret/none#key:-default")
    held.vault.fault = None
    held.take()
    await held.pass_on(1)
    assert "default" == read()
    assert () == held.values.stale()
    assert [SecretFresh(reference="${vault:secret/none#key}")] == held.take()


@pytest.mark.parametrize("fault", [VaultDenied("secret/data/x", "read"), VaultSignInFailed("no"), VaultUnusable("no")])
def test_a_default_does_not_hide_a_mistake(held: Held, fault: VaultFault) -> None:
    held.vault.fault = fault
    with pytest.raises(ReferenceFault):
        held.load(f"{KEY}:-default")


def test_an_empty_text_is_none(held: Held) -> None:
    held.vault.secrets[OPENAI] = {"key": ""}
    assert ["default"] == [read() for read in held.load(f"{KEY}:-default")]
    with pytest.raises(ReferenceFault, match="is empty"):
        held.load(KEY)


# The request path


_READS = """
from concurrent.futures import ThreadPoolExecutor
from tests.cost import least_seconds
from tests.unit.config.vault.held import KEY, OPENAI, Held

def often(read):
    def reads():
        for _ in range(20_000):
            read()

    return reads

with ThreadPoolExecutor(1) as pool:
    held = Held(pool)
    held.vault.secrets[OPENAI] = {"key": "one"}
    print(*least_seconds(*map(often, (lambda: "", *held.load(KEY, f"{KEY}:-nobody"))), rounds=20))
"""


def test_reading_a_handle_costs_no_more_than_ten_calls_that_do_nothing() -> None:
    """Some 50 ns: a lock, or a look at the time, for each would be many times that."""
    # In a process that nothing traces for coverage.
    run = subprocess.run(
        [sys.executable, "-c", _READS], env=environment(measured=True), capture_output=True, text=True, check=True
    )
    nothing, plain, with_default = map(float, run.stdout.split())
    assert plain < 10 * nothing
    assert with_default < 10 * nothing


def test_no_rendering_shows_a_value(held: Held, planted_secret: str) -> None:
    held.vault.secrets[OPENAI] = {"key": planted_secret}
    handle = held.values.resolve(named(KEY))
    (entry,) = held.values._known._entries.values()
    reading = held.vault.read("secret", "llm/openai", None, 2)
    for each in (handle, entry, *entry.cells.values(), reading, held.values, held.vault, reading.__rich_repr__()):
        assert planted_secret not in repr(each) + str(each)


def test_two_loads_at_once_read_a_secret_once(held: Held, pool: ThreadPoolExecutor) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(60)

    held.vault.before_reading = wait
    loads = [pool.submit(held.values.fetch, [named(KEY)])]
    assert begun.wait(60)
    loads.append(pool.submit(held.values.fetch, [named(f"{OPENAI}#user")]))
    go_on.set()
    for load in loads:
        load.result()
    assert [OPENAI] == held.vault.take()
    assert ["one", "u1"] == [held.values.resolve(named(f"{OPENAI}#{field}"))() for field in ("key", "user")]


def test_fields_that_rotate_together_are_never_seen_apart(held: Held) -> None:
    held.vault.secrets[OPENAI] = {"user": "0", "key": "0"}
    user, key = named(f"{OPENAI}#user"), named(KEY)
    held.values.fetch([user, key])
    both = References({"vault": held.values.resolve}).secret((user, ":", key))
    (entry,) = held.values._known._entries.values()
    ended = threading.Event()

    def rotate() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            held.values._known.read(entry, Reading(data={"user": str(number), "key": str(number)}))

    rotating = threading.Thread(target=rotate)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        rotating.start()
        seen = {both.reveal() for _ in range(20_000)}
        while len(seen) == 1:
            # The other thread has had no turn yet.
            seen.add(both.reveal())
    finally:
        ended.set()
        rotating.join()
        sys.setswitchinterval(interval)
    assert len(seen) > 1
    assert [] == [pair for pair in seen if len(set(pair.split(":"))) > 1]
