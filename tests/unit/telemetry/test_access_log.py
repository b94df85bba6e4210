import contextlib
import io
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import ManualClock
from core.events import Events, RequestCompleted, RequestFailed, RequestStarted
from telemetry import access_log
from telemetry.access_log import (
    LINES_AT_ONCE,
    MAX_TEXT_CHARACTERS,
    MAX_WRITE_BYTES,
    PIPE_BUF,
    AccessLog,
    Timestamps,
    Writer,
    mixes_writes,
)

Ended = Callable[..., RequestCompleted | RequestFailed]
ExpectLog = Callable[[str], AbstractContextManager[object]]

LONG_SECONDS = 60.0
"""For the thread that writes to end: it may have to wait for a processor."""


class Recorder:
    """A stream that keeps each write apart."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self.writes.append(data)
        return len(data)

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in b"".join(self.writes).splitlines()]


def written(writer: Writer, *events: RequestCompleted | RequestFailed | RequestStarted) -> AccessLog:
    log = AccessLog(writer, ManualClock(time=1_700_000_000.25))
    for event in events:
        log.observe(event)
    log.close(LONG_SECONDS)
    return log


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_request_is_one_line_of_json_with_these_members(recorder: Recorder, ended: Ended) -> None:
    written(recorder, RequestStarted(endpoint="chat"), ended())
    assert [
        {
            "time": "2023-11-14T22:13:20.250000Z",
            "request_id": "req_1",
            "client_request_id": None,
            "token": "team",
            "remote_ip": "192.0.2.1",
            "method": "POST",
            "endpoint": "chat",
            "requested_model": "fast",
            "route": "gold",
            "target": "openai/gpt-4o-mini",
            "credential": "main",
            "status": 200,
            "error_code": None,
            "stream": True,
            "attempts": 1,
            "duration_seconds": 1.5,
            "overhead_seconds": 0.00015,
            "ttft_seconds": 0.25,
            "upstream_seconds": 1.49,
            "usage": {
                "input_tokens": 11,
                "output_tokens": 7,
                "cached_tokens": 3,
                "reasoning_tokens": 0,
                "estimated": False,
                "cache_write_tokens": 0,
            },
            "cost_usd": None,
            "bytes_in": 100,
            "bytes_out": 2000,
            "revision": "abc",
        }
    ] == recorder.lines


@pytest.mark.parametrize(
    ("nano_usd", "written_as"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (445_200, "0.0004452"),
        (3_000_000_000, "3"),
        (123_456_789_012_345, "123456.789012345"),
    ],
)
def test_a_cost_is_an_exact_decimal_number_of_dollars(
    recorder: Recorder, ended: Ended, nano_usd: int, written_as: str
) -> None:
    written(recorder, ended(cost_nano_usd=nano_usd))
    line = json.loads(b"".join(recorder.writes), parse_float=Decimal)
    assert Decimal(written_as) == line["cost_usd"]


def test_a_failed_request_names_its_error_but_not_its_message(recorder: Recorder, ended: Ended) -> None:
    absent = dict.fromkeys(("provider", "model", "ttft_seconds", "upstream_seconds", "usage"))
    written(recorder, ended(status=404, error_code="model_not_found", error_message="private", **absent))
    (line,) = recorder.lines
    assert ("model_not_found", 404, None) == (line["error_code"], line["status"], line["target"])
    assert b"private" not in b"".join(recorder.writes)


def test_a_request_without_a_model_has_its_provider_for_a_target(recorder: Recorder, ended: Ended) -> None:
    written(recorder, ended(model=None))
    assert "openai" == recorder.lines[0]["target"]


@pytest.mark.parametrize("text", ['fast", "token": "admin', "fast\n{}", "\x1b[31m", "\u2028", "m" * 100_000])
def test_a_clients_text_cannot_leave_its_member_nor_fill_the_disk(recorder: Recorder, ended: Ended, text: str) -> None:
    written(recorder, ended(requested_model=text, client_request_id=text, model=text, method=text))
    assert 1 == b"".join(recorder.writes).count(b"\n")
    (line,) = recorder.lines
    assert "team" == line["token"]
    assert len(str(line["method"])) <= MAX_TEXT_CHARACTERS
    shown = str(line["requested_model"])
    assert len(shown) <= MAX_TEXT_CHARACTERS
    assert text.startswith(shown.removesuffix("…"))
    assert len(recorder.writes[0]) < PIPE_BUF


def test_durations_are_rounded_to_microseconds(recorder: Recorder, ended: Ended) -> None:
    written(recorder, ended(duration_seconds=1.23456789, ttft_seconds=1 / 3))
    assert (1.234568, 0.333333) == (recorder.lines[0]["duration_seconds"], recorder.lines[0]["ttft_seconds"])


def test_lines_are_written_together_but_none_is_split(recorder: Recorder, ended: Ended) -> None:
    written(recorder, *(ended(request_id=f"req_{number}") for number in range(100)))
    assert [f"req_{number}" for number in range(100)] == [line["request_id"] for line in recorder.lines]
    assert len(recorder.writes) < 50
    assert all(len(data) <= PIPE_BUF and data.endswith(b"\n") for data in recorder.writes)


def test_without_other_processes_writes_are_long(recorder: Recorder, ended: Ended) -> None:
    log = AccessLog(recorder, ManualClock(), shared=False)
    for number in range(500):
        log.observe(ended(request_id=f"req_{number}"))
    log.close(LONG_SECONDS)
    assert [f"req_{number}" for number in range(500)] == [line["request_id"] for line in recorder.lines]
    assert all(len(data) <= MAX_WRITE_BYTES and data.endswith(b"\n") for data in recorder.writes)
    assert max(len(data) for data in recorder.writes) > MAX_WRITE_BYTES / 2


def test_a_line_longer_than_a_write_should_be_is_written_alone(recorder: Recorder, ended: Ended) -> None:
    written(recorder, ended(), ended(request_id="r" * 5000), ended())
    assert [1, 1, 1] == [data.count(b"\n") for data in recorder.writes]


def test_files_and_devices_do_not_mix_writes_but_pipes_and_sockets_do(tmp_path: Path, pipe: tuple[int, int]) -> None:
    with (tmp_path / "log").open("wb") as file, Path(os.devnull).open("wb") as device, socket.socket() as connection:
        asked = (file.fileno(), device.fileno(), pipe[1], connection.fileno())
        assert [False, False, True, True] == [mixes_writes(descriptor) for descriptor in asked]


@pytest.mark.parametrize("count", [1, LINES_AT_ONCE - 1, LINES_AT_ONCE, LINES_AT_ONCE + 1, 3 * LINES_AT_ONCE])
def test_lines_keep_the_order_and_the_times_of_the_requests_ends(recorder: Recorder, ended: Ended, count: int) -> None:
    clock = ManualClock(time=1_700_000_000.5)
    log = AccessLog(recorder, clock)
    for number in range(count):
        log.observe(ended(request_id=f"req_{number}"))
        clock.advance(0.25)
    log.close(LONG_SECONDS)
    shown = [(line["request_id"], datetime.fromisoformat(str(line["time"])).timestamp()) for line in recorder.lines]
    assert [(f"req_{number}", 1_700_000_000.5 + number * 0.25) for number in range(count)] == shown


def test_it_subscribes_to_the_ends_of_requests(recorder: Recorder, ended: Ended) -> None:
    log = AccessLog(recorder, ManualClock())
    events = Events()
    log.subscribe(events)
    for event in (RequestStarted(endpoint="chat"), ended(), ended(error_code="internal_error", status=500)):
        events.emit(event)
    log.close(LONG_SECONDS)
    assert [200, 500] == [line["status"] for line in recorder.lines]


@given(st.lists(st.floats(0, 4_102_444_800), min_size=1, max_size=5))
def test_times_are_cut_to_microseconds(times: list[float]) -> None:
    timestamps = Timestamps()
    for now in times:
        rendered = timestamps.render(now)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", rendered)
        assert 0 <= now - datetime.fromisoformat(rendered).timestamp() < 2e-6


def test_a_line_is_written_without_waiting_for_the_next(ended: Ended) -> None:
    arrived = threading.Event()

    class Stream(Recorder):
        def write(self, data: bytes, /) -> int:
            arrived.set()
            return super().write(data)

    log = AccessLog(Stream(), ManualClock())
    log.observe(ended())
    assert arrived.wait(LONG_SECONDS)
    arrived.clear()
    log.observe(ended())
    assert arrived.wait(LONG_SECONDS)
    log.close(LONG_SECONDS)


def test_it_is_switched_on_and_off_while_it_runs(recorder: Recorder, ended: Ended) -> None:
    enabled = False
    log = AccessLog(recorder, ManualClock(), lambda: enabled)
    log.observe(ended(request_id="off"))
    enabled = True
    log.observe(ended(request_id="on"))
    log.close(LONG_SECONDS)
    log.close(LONG_SECONDS)
    assert ["on"] == [line["request_id"] for line in recorder.lines]


def test_a_stream_that_takes_a_part_gets_the_rest(ended: Ended) -> None:
    class Narrow(Recorder):
        calls = 0

        def write(self, data: bytes, /) -> int | None:  # type: ignore[override]
            self.calls += 1
            if self.calls % 10 == 0:
                # Full for a moment, as a non-blocking pipe may be.
                return None
            return super().write(data[:7])

    narrow = Narrow()
    log = AccessLog(narrow, ManualClock())
    log.observe(ended())
    while not b"".join(narrow.writes).endswith(b"\n"):
        threading.Event().wait(0.005)
    log.close(LONG_SECONDS)
    assert "req_1" == narrow.lines[0]["request_id"]
    assert 0 == log.lost


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            pass


def test_a_pipe_that_nobody_reads_delays_no_request_and_no_ending(
    pipe: tuple[int, int], ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "MAX_PENDING_BYTES", 100_000)
    reader, writer = pipe
    os.set_blocking(reader, False)
    with io.FileIO(writer, "w", closefd=False) as stream:
        log = AccessLog(stream, ManualClock())
        for _ in range(2000):
            log.observe(ended())
        assert log.lost > 1000
        log.close(timeout_seconds=0.3)
        assert log._thread.is_alive()
        # Let the thread go before the descriptors close.
        while log._thread.is_alive():
            # The last of it may be read already, and the thread about to end.
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 65536)
            log.close(timeout_seconds=0.01)


def test_a_closed_pipe_is_told_once_and_the_lines_are_counted(
    pipe: tuple[int, int], ended: Ended, expect_log: ExpectLog
) -> None:
    reader, writer = pipe
    os.close(reader)
    with io.FileIO(writer, "w", closefd=False) as stream, expect_log("access log cannot be written"):
        assert 50 == written(stream, *(ended() for _ in range(50))).lost


def test_a_closed_stream_breaks_nothing(tmp_path: Path, ended: Ended, expect_log: ExpectLog) -> None:
    stream = io.FileIO(tmp_path / "log", "w")
    stream.close()
    with expect_log("access log cannot be written"):
        assert 1 == written(stream, ended()).lost


def test_writing_goes_on_when_the_stream_has_recovered(ended: Ended, expect_log: ExpectLog) -> None:
    class Full(Recorder):
        full = True

        def write(self, data: bytes, /) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(data)

    stream = Full()
    log = AccessLog(stream, ManualClock())
    with expect_log("No space left"):
        log.observe(ended(request_id="lost"))
        while not log.lost:
            threading.Event().wait(0.005)
        stream.full = False
        log.observe(ended(request_id="kept"))
        # The thread counts a line before it tells of it: it has done both when it ends.
        log.close(LONG_SECONDS)
    assert ["kept"] == [line["request_id"] for line in stream.lines]


def test_a_stream_that_stays_full_is_given_up_at_the_end(ended: Ended, expect_log: ExpectLog) -> None:
    class Full(Recorder):
        def write(self, data: bytes, /) -> int | None:  # type: ignore[override]
            return None

    with expect_log("takes nothing"):
        assert 1 == written(Full(), ended()).lost
