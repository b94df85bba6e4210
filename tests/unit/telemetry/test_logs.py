import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import structlog

from telemetry import logs

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
