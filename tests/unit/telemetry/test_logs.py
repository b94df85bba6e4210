import io
import json
import logging
import re
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import structlog

from core.secret import Secret
from telemetry import logs
from tests.cost import least_seconds

ExpectLog = Callable[[str], AbstractContextManager[object]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leaves logging as it was: it belongs to the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in (*logs._QUIET_LOGGERS, *logs._SILENT_LOGGERS):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def records(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_records_of_libraries_and_our_own_come_out_alike_as_json(stream: io.StringIO) -> None:
    logs.configure(stream=stream)
    logging.getLogger("tornado.general").info("closed %s", "a stream")
    structlog.get_logger("sluice.gateway").info("listening", address="127.0.0.1:8080")
    library, own = records(stream)
    assert ("closed a stream", "info", "tornado.general") == (library["event"], library["level"], library["logger"])
    assert ("listening", "127.0.0.1:8080", "sluice.gateway") == (own["event"], own["address"], own["logger"])
    assert str(own["timestamp"]).endswith("Z")


def test_members_that_the_standard_library_carries_are_kept(stream: io.StringIO) -> None:
    logs.configure(stream=stream)
    logging.getLogger("sluice").info("reloaded", extra={"revision": "abc"})
    assert "abc" == records(stream)[0]["revision"]


def test_on_a_terminal_lines_are_for_people() -> None:
    terminal = Terminal()
    logs.configure(stream=terminal)
    logging.getLogger("sluice").info("listening")
    assert "listening" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_traceback_is_shown_once(stream: io.StringIO, json_lines: bool, expect_log: ExpectLog) -> None:
    logs.configure(stream=stream, json=json_lines)
    with expect_log("RuntimeError: broken"):
        try:
            raise RuntimeError("broken")
        except RuntimeError:
            logging.getLogger("sluice").exception("failed")
    assert 1 == stream.getvalue().count("Traceback (most recent call last)")
    assert "RuntimeError: broken" in stream.getvalue()


def test_the_level_changes_while_it_runs(stream: io.StringIO, expect_log: ExpectLog) -> None:
    logs.configure("warning", stream)
    logger = logging.getLogger("sluice")
    logger.info("one")
    logs.set_level("debug")
    logger.debug("two")
    structlog.get_logger("sluice").debug("three")
    logs.set_level("error")
    with expect_log("four|five"):
        logger.warning("four")
        logger.error("five")
    assert ["two", "three", "five"] == [record["event"] for record in records(stream)]


def test_chatty_libraries_are_heard_at_debug_alone(stream: io.StringIO) -> None:
    logs.configure("info", stream)
    logging.getLogger("asyncio").info("one")
    logs.set_level("debug")
    logging.getLogger("asyncio").info("two")
    assert ["two"] == [record["event"] for record in records(stream)]


def test_the_watcher_of_files_does_not_tell_of_each_change(stream: io.StringIO) -> None:
    # The log itself may lie in the directory that is watched.
    logs.configure("debug", stream)
    logging.getLogger("watchfiles.main").debug("1 change detected")
    assert "" == stream.getvalue()


def test_configuring_again_replaces_the_stream(stream: io.StringIO) -> None:
    old = io.StringIO()
    logs.configure(stream=old)
    logs.configure(stream=stream)
    logging.getLogger("sluice").info("once")
    assert "" == old.getvalue()
    assert 1 == len(records(stream))


TOKEN = "sk-sluice-0123456789abcdefABCDEF0123456789abcdef"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN EC PRIVATE KEY-----{0}MHcCAQEEIabcdefghijklmnop+/0123456789{0}AwEHoUQDabcdefgh={0}-----END EC PRIVATE KEY-----"
SECRETS = [
    TOKEN,
    "sk-proj-abcdefghijklmnop",
    "sk-ant-api03-abcdefgh_ijkl-mnop",
    f"Authorization: Bearer {TOKEN}",
    "authorization: Basic dXNlcjpwYXNzd29yZA==",
    "{'x-api-key': 'plainsecret'}",
    '{"x-api-key":"plainsecret"}',
    "('x-goog-api-key', 'plainsecret')",
    "api_key=plainsecret&alt=sse",
    "api-key: plainsecret",
    "X-Vault-Token: plainsecret",
    '"client_secret": "plainsecret"',
    "GET /v1beta/models?key=plainsecret HTTP/1.1",
    "AIzaSyA0123456789abcdefghijklmnopqrstuv",
    "hvs.CAESIabcdefghijklmnop",
    "hvb.AAAAAQabcdefghijklmnop",
    "hvr.abcdefghijklmnop",
    "s.abcdefghijklmnopqrstuvwx is a token of old",
    "s.abcdefghijklmnopqrstuvwx.n5Pv1 in a namespace",
    '{"auth": {"client_token": "s.abcdefghijklmnopqrstuvwx"}}',
    "AKIAABCDEFGHIJKLMNOP is the key id",
    "ASIAABCDEFGHIJKLMNOP is the key id",
    "aws_secret_access_key = plainsecret",
    '{"SecretAccessKey": "plainsecret"}',
    "'aws_session_token': 'plainsecret'",
    "x-amz-security-token: plainsecret",
    "Authorization: AWS4-HMAC-SHA256 Credential=plainsecret/20260102, SignedHeaders=host, Signature=0123456789",
    '"authorization": "Digest username=\\"u\\", response=\\"plainsecret\\""',
    "Proxy-Authorization: Basic dXNlcjpwYXNzd29yZA==",
    "{'Authorization': 'plainsecret'}",
    '"{\\"api_key\\": \\"plainsecret\\"}"',
    "whsec_abcdefghijklmnop+/=",
    f"the token {JWT} has expired",
    "postgresql://sluice:plainsecret@db.internal/sluice",
    "http://user:plainsecret@127.0.0.1:3128 refused",
    PEM.format("\n"),
    PEM.format("\\n"),
    PEM.format("\\n")[:70] + '"}',
    "sluice-admin-abcdefghijklmnop",
    "$argon2id$v=19$m=65536,t=3,p=4$Uychgu43qh$of5p2v44xGaAmjunyl",
]


@pytest.mark.parametrize("text", SECRETS)
def test_what_looks_like_a_credential_is_masked(text: str) -> None:
    shown = logs.redact(text)
    assert "[redacted]" in shown
    for secret in ("plainsecret", "abcdefgh", "Uychgu43qh", "0123456789", "dXNlcjpw"):
        assert secret not in shown


@pytest.mark.parametrize(
    "text",
    [
        "${sealed:k1a2b3c4d:hvs-AKIA0123456789ABCDEFeyJ0123456789abcdefghijklmnopqrst_-}",
        "api_key: ${vault:secret/llm/openai#api_key}",
        "http://127.0.0.1:8080/v1/chat@2 and http://[::1]:8080/@me",
        "self.abcdefghijklmnopqrstuvwxyz(1) and s.abcdefghijklmnopqrstuvwxyz()",
        "-----BEGIN CERTIFICATE-----\nMIIB0123456789",
        "the api key is missing",
        "model gpt-4o-mini of task-12 at 127.0.0.1:8080",
        "providers[0].credentials[0].api_key: ${env:OPENAI_API_KEY} is not set",
        "config.yaml:4:9: providers[0].credentials[0].api_key: required: give the key as a reference",
        "a bearer of",
        "disk-usage high",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert text == logs.redact(text)


VALUE = "correct horse battery"
VALUES = {
    "plain": (VALUE, "the key is {}"),
    "twice": (VALUE, "{} and {}"),
    "within a word": (VALUE, "key={}&x=y"),
    "in a member": ('pass"word\\of\nlines', json.dumps({"key": 'pass"word\\of\nlines'}, ensure_ascii=False)),
    "by its repr in a member": ("it's\ta\\word", json.dumps({"key": repr("it's\ta\\word")})),
    "in JSON of ASCII alone": ("schlüssel…", json.dumps({"key": "schlüssel…"})),
    "by its repr of ASCII alone": ("schlüssel…\x01", ascii("schlüssel…\x01")),
    "in an address": ("pass/word?+ä", "http://h/?k=pass%2Fword%3F%2B%C3%A4"),
    "in a path": ("pass/word ä", "http://h/pass/word%20%C3%A4"),
    "in a form": ("pass word/ä", "k=pass+word%2F%C3%A4"),
}


@pytest.mark.parametrize("case", VALUES)
def test_the_value_of_a_secret_in_use_is_masked(case: str) -> None:
    value, text = VALUES[case]
    secret = Secret.literal(value)
    shown = logs.redact(text.format(value, value) if "{}" in text else text)
    assert logs.REDACTED_VALUE in shown
    assert not [part for part in re.findall(r"\w{4,}", secret.reveal()) if part in shown]


def test_the_value_of_a_secret_is_masked_as_it_is_now_and_while_somebody_holds_it() -> None:
    values = ["the first value", "the second value"]
    text = " and ".join(values)
    secret = Secret(lambda: values[0], "file:k")
    assert f"{logs.REDACTED_VALUE} and the second value" == logs.redact(text)
    values.pop(0)
    assert f"the first value and {logs.REDACTED_VALUE}" == logs.redact(text)
    del secret
    assert text == logs.redact(text)


def test_of_values_that_hold_each_other_nothing_is_left() -> None:
    held = [Secret.literal(each) for each in ("12345678", "0123456789", "1234567890ab")]
    assert f"{logs.REDACTED_VALUE} {logs.REDACTED_VALUE}" == logs.redact("0123456789 1234567890ab")
    assert len(held) == 3


def test_a_short_value_is_not_looked_for() -> None:
    held = Secret.literal("on")
    assert "listening on a port" == logs.redact("listening on a port")
    assert held.matches("on")


def test_a_secret_that_cannot_be_read_does_not_keep_a_line_from_the_log(stream: io.StringIO) -> None:
    def fail() -> str:
        raise OSError("gone")

    logs.configure(stream=stream)
    broken, held = Secret(fail, "file:k"), Secret.literal(VALUE)
    logging.getLogger("sluice").info("the keys of %s and %s: %s", broken, held, VALUE)
    (line,) = records(stream)
    assert f"the keys of [secret] and [secret]: {logs.REDACTED_VALUE}" == line["event"]


@pytest.mark.parametrize("json_lines", [True, False])
def test_no_way_into_the_log_shows_the_value_of_a_secret(
    stream: io.StringIO, json_lines: bool, expect_log: ExpectLog
) -> None:
    # Lines, quotes and backslashes: a line of JSON writes it otherwise, a traceback otherwise again.
    value = 'first "line"\nsecond \\ line'
    held = Secret.literal(value)
    logs.configure("debug", stream, json=json_lines)
    logger = logging.getLogger("sluice")
    logger.info("in the text: %s", value)
    logger.info("by its repr: %r", [value])
    logger.info("in a member", extra={"headers": {"x-key": value}})
    structlog.get_logger("sluice").info("in a member", headers=[("x-key", value)], key=value)
    with expect_log("in a traceback"):
        try:
            raise RuntimeError(value)
        except RuntimeError:
            logger.exception("in a traceback")
    assert "second" not in stream.getvalue()
    assert held.matches(value)
    if json_lines:
        assert 5 == len(records(stream))


def test_a_thousand_secrets_in_use_cost_a_line_less_than_to_write_each_in_its_other_forms() -> None:
    """They are looked for where there can be any alone: else each line would cost milliseconds."""
    held = [Secret.literal(f"key number {number:030d}") for number in range(1000)]
    line = json.dumps({"event": "attempt 1 failed", "exception": "Traceback\n" + "  File x, line 1\n" * 20})

    def write_each() -> None:
        for secret in held:
            value = secret.reveal()
            for form in (json.dumps(value), repr(value), urllib.parse.quote(value), urllib.parse.quote_plus(value)):
                assert form not in line

    masking, writing = least_seconds(lambda: logs.redact(line), write_each)
    assert masking < writing


def test_masking_twice_changes_nothing() -> None:
    for text in SECRETS:
        assert logs.redact(text) == logs.redact(logs.redact(text))


@pytest.mark.parametrize("json_lines", [True, False])
@pytest.mark.parametrize("secret", [TOKEN, "sluice-admin-abcdefghijklmnop"])
def test_no_way_into_the_log_shows_a_credential(
    stream: io.StringIO, secret: str, json_lines: bool, expect_log: ExpectLog
) -> None:
    logs.configure("debug", stream, json=json_lines)
    logger = logging.getLogger("sluice")
    logger.info("in the text %s", secret)
    logger.info("in a member", extra={"headers": {"authorization": f"Bearer {secret}"}})
    structlog.get_logger("sluice").info("in a member", headers=[("x-api-key", secret)])
    with expect_log("in a traceback"):
        try:
            raise RuntimeError(secret)
        except RuntimeError:
            logger.exception("in a traceback")
    assert secret not in stream.getvalue()
    assert stream.getvalue().count("[redacted]") >= 4
