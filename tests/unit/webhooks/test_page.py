"""What docs/webhooks.md says is so: its events, its sample, its ways to verify, its schedule."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from config.schema import Webhook, WebhookDelivery
from core.clock import SystemClock
from core.events import EVENTS
from webhooks.observer import Shed
from webhooks.outbox import COMMITTED, LINGER_SECONDS, Bounds
from webhooks.payload import MAX_BYTES
from webhooks.schedule import DELAYS_SECONDS, HORIZON_SECONDS
from webhooks.signing import parse_secret, sign

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/webhooks.md").read_text()
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code(language: str) -> list[str]:
    return [text for found, text in _FENCE.findall(PAGE) if found == language]


def section(heading: str) -> str:
    return PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]


def rows(heading: str) -> list[list[str]]:
    found = re.findall(r"^\| (.+) \|$", section(heading), re.MULTILINE)
    return [row.split(" | ") for row in found[1:]]


def test_the_table_has_each_event_with_its_fields_and_no_other() -> None:
    told: list[tuple[str, list[str]]] = []
    for name, when, fields in rows("Events"):
        assert when
        told.append((name.strip("`"), told[-1][1] if fields == "the same" else re.findall(r"`(\w+)`", fields)))
    assert [(event.name, list(event.__struct_fields__)) for event in EVENTS] == told


def test_the_table_of_keys_is_the_schemas() -> None:
    keys = re.findall(r"^\| `([a-z_]+)(?:\.ca)?` \|", PAGE.split("\n## ")[0], re.MULTILINE)
    assert list(Webhook.__struct_fields__) == keys
    for name, value in re.findall(r"^  (\w+): (\d+) ", section("Bounds"), re.MULTILINE):
        assert int(value) == getattr(WebhookDelivery(), name)


def sample() -> tuple[str, dict[str, str], bytes]:
    """The secret, the header fields and the body of the page."""
    (secret,) = re.findall(r"signed with `(\S+)`", PAGE)
    fields = dict(re.findall(r"^([a-z-]+): (.+)$", code("")[0], re.MULTILINE))
    return secret, fields, json.dumps(json.loads(code("json")[0]), separators=(",", ":")).encode()


def test_the_sample_is_an_event_as_it_is_sent_and_signed() -> None:
    secret, fields, body = sample()
    assert json.loads((ROOT / "tests/golden/webhooks/config.applied.json").read_text()) == json.loads(body)
    signed = sign([parse_secret(secret)], fields["webhook-id"], int(fields["webhook-timestamp"]), body)
    assert signed == fields["webhook-signature"]


def defined(text: str, name: str) -> Callable[..., Any]:
    names: dict[str, Any] = {}
    exec(text, names)  # the page's own
    found: Callable[..., Any] = names[name]
    return found


@pytest.mark.parametrize(("number", "name"), [(0, "received"), (1, "is_ours")])
def test_the_ways_to_verify_take_what_is_ours_and_nothing_else(number: int, name: str) -> None:
    verify = defined(code("python")[number], name)
    secret, _, body = sample()
    other = "whsec_" + base64.b64encode(b"o" * 32).decode()

    def verified(by: str, at: float, sent: bytes) -> bool:
        keys = [parse_secret(other), parse_secret(secret)]
        stamp = int(at)
        fields = {"webhook-id": "evt_1", "webhook-timestamp": str(stamp), "webhook-signature": ""}
        fields["webhook-signature"] = sign(keys, "evt_1", stamp, body)
        try:
            return bool(verify(by, sent, fields))
        except WebhookVerificationError:
            return False

    now = SystemClock().time()
    stranger = "whsec_" + base64.b64encode(b"s" * 32).decode()
    assert [True, True, False, False, False] == [
        verified(secret, now, body),
        verified(other, now, body),
        verified(stranger, now, body),
        verified(secret, now - 600, body),
        verified(secret, now, body + b" "),
    ]


def test_the_shell_gives_the_same_signature(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    secret, fields, body = sample()
    (tmp_path / "body").write_bytes(body)
    script = next(text for text in code("sh") if "openssl" in text)
    variables = {"SECRET": secret, "ID": fields["webhook-id"], "TIMESTAMP": fields["webhook-timestamp"]}
    run = subprocess.run(
        ["sh", "-eu", "-c", script],
        env={**variables, "BODY": str(tmp_path / "body"), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert fields["webhook-signature"] == f"v1,{run.stdout.strip()}"


def test_the_schedule_is_the_one_that_is_kept() -> None:
    first, *others = rows("Tries")
    assert ["1", "at once"] == first
    delays = [float(number) * UNITS[unit] for number, unit in (after.split() for _, after in others)]
    assert (list(DELAYS_SECONDS), [str(number) for number in range(2, 11)]) == (
        delays,
        [number for number, _ in others],
    )
    assert f"10 tries within {HORIZON_SECONDS / 3600:.0f} hours" in PAGE


def test_the_bounds_are_those_that_are_kept() -> None:
    assert [reason.value for reason in Shed] == [reason.strip("`") for reason, _ in rows("Bounds")]
    bounds = Bounds()
    for words in (
        f"{bounds.events:,} events, or {bounds.bytes >> 20} MiB, wait in memory",
        f"A payload has {MAX_BYTES >> 10} KiB at most",
        f"wait in memory for up to {LINGER_SECONDS} s",
        f"events of {', '.join(f'`{one}`' for one in COMMITTED[:-1])} and `{COMMITTED[-1]}` are committed",
    ):
        assert words in " ".join(PAGE.split())
