"""Faults that a user can rehearse by a model's name. docs/providers.md shows this table, and a test compares them."""

import re
from collections.abc import Callable

import msgspec

from core.headers import Headers
from proxy.providers.echo.answer import Answer, Pace, error_answer, paced, play, silence
from transport.script import Cut, Head, Refuse, Script, Send, Stall, Unreachable

PADDING_BYTES = 8 * 1024 * 1024
_PAD_BYTES = 64 * 1024
_STATUS = re.compile(r"status-([45][0-9][0-9])\Z")
_SLOW = Pace(delay_seconds=2.0, interval_seconds=1.0)

Play = Callable[[Answer, Pace], Script]


class Fault(msgspec.Struct, frozen=True):
    """A way to fail: what it does to the answer that the request would have got."""

    summary: str
    play: Play


def find(model: str) -> Play | None:
    """The fault that ``model`` names, or None."""
    status = _STATUS.match(model)
    if status is not None:
        return _status(int(status[1]))
    fault = FAULTS.get(model)
    return None if fault is None else fault.play


def _status(status: int) -> Play:
    codes = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
    answer = error_answer(status, f"Rehearsed status {status}.", codes.get(status, "rehearsed"))
    return lambda _answer, pace: play(answer, pace)


def _coded(code: str) -> Play:
    answer = error_answer(400, f"Rehearsed error `{code}`.", code, "messages")
    return lambda _answer, pace: play(answer, pace)


def _first_half(answer: Answer) -> tuple[bytes, ...]:
    if answer.events is None:
        return (answer.body[: len(answer.body) // 2],)
    return answer.events[: len(answer.events) // 2]


def _refuse(_answer: Answer, _pace: Pace) -> Script:
    return Script((Refuse(),))


def _unreachable(_answer: Answer, _pace: Pace) -> Script:
    return Script((Unreachable(),))


def _stall(_answer: Answer, _pace: Pace) -> Script:
    return Script((Stall(),))


def _cut_early(_answer: Answer, _pace: Pace) -> Script:
    return Script((Cut(),))


def _stall_stream(answer: Answer, pace: Pace) -> Script:
    return Script((answer.head(), *paced(_first_half(answer), pace), Stall()))


def _cut(answer: Answer, pace: Pace) -> Script:
    return Script((answer.head(), *paced(_first_half(answer), pace), Cut()))


def _error_event(answer: Answer, pace: Pace) -> Script:
    if answer.events is None:
        return _status(500)(answer, pace)
    return Script((answer.head(), *paced((answer.error_event,), pace)))


def _error_midstream(answer: Answer, pace: Pace) -> Script:
    if answer.events is None:
        return _status(500)(answer, pace)
    return Script((answer.head(), *paced((*_first_half(answer), answer.error_event), pace)))


def _slow(answer: Answer, _pace: Pace) -> Script:
    return play(answer, _SLOW)


def _empty(answer: Answer, pace: Pace) -> Script:
    return Script((*silence(pace.delay_seconds), msgspec.structs.replace(answer, body=b"").head()))


def _garbage(answer: Answer, pace: Pace) -> Script:
    if answer.events is None:
        return play(msgspec.structs.replace(answer, body=b"<html>this is not JSON"), pace)
    return play(msgspec.structs.replace(answer, events=(b"data: {this is not JSON\n\n",)), pace)


def _huge(answer: Answer, pace: Pace) -> Script:
    pads = PADDING_BYTES // _PAD_BYTES
    if answer.events is None:
        # Space before a JSON document belongs to it (RFC 8259 section 2).
        length = PADDING_BYTES + len(answer.body)
        head = Head(answer.status, Headers((("content-type", "application/json"), ("content-length", str(length)))))
        pad = Send(b" " * _PAD_BYTES)
        return Script((*silence(pace.delay_seconds), head, *(pad,) * pads, Send(answer.body)))
    comment = Send(b":" + b" " * (_PAD_BYTES - 3) + b"\n\n")
    return Script((answer.head(), *(comment,) * pads, *paced(answer.events, pace)))


FAULTS: dict[str, Fault] = {
    "status-NNN": Fault("error status 400 to 599; 429 and 503 with `Retry-After: 1`", _status(503)),
    "context-exceeded": Fault("400 `context_length_exceeded`", _coded("context_length_exceeded")),
    "content-refused": Fault("400 `content_filter`", _coded("content_filter")),
    "refuse": Fault("the connection is refused", _refuse),
    "unreachable": Fault("no connection is made until `connect_seconds` have passed", _unreachable),
    "stall": Fault("connected, but no answer until `first_byte_seconds` have passed", _stall),
    "cut-early": Fault("the connection ends before the answer's head", _cut_early),
    "cut": Fault("the connection ends in the middle of the stream or document", _cut),
    "stall-stream": Fault("silence from the middle of the stream or document on", _stall_stream),
    "error-event": Fault("the stream's first event is an error; not streamed: status 500", _error_event),
    "error-midstream": Fault("an error event in the middle of the stream; not streamed: status 500", _error_midstream),
    "slow": Fault("two seconds to the first token, one second between events", _slow),
    "empty": Fault("status 200 with nothing in it", _empty),
    "garbage": Fault("status 200 with a body or event that is not JSON", _garbage),
    "huge": Fault("the answer after 8 MiB of padding that its reader ignores", _huge),
}
