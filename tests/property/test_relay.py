"""However a stream is cut into pieces, its client gets the same bytes, event by whole event."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UpstreamCut
from core.usage import Usage
from proxy import sse
from proxy.dialects import DIALECTS
from proxy.dialects.base import Ending
from proxy.relay import MAX_TAIL_BYTES, EventRelay, find_usage

CHAT = DIALECTS["openai-chat"]
ERROR = CHAT.error_event(UpstreamCut("the provider hung up"))
few = settings(max_examples=60, deadline=None)
PLACE = "\x00"
"""Stands for the answer's own model string."""


# The reference: bytes one by one, as the WHATWG's grammar has them.


def lines(buffer: bytes) -> Iterator[tuple[int, int, int]]:
    """Start, end and end with its line break of each line; a CR that is the last byte ends nothing yet."""
    start = at = 0
    while at < len(buffer):
        if buffer[at : at + 2] == b"\r\n":
            after = at + 2
        elif buffer[at : at + 1] == b"\n" or (buffer[at : at + 1] == b"\r" and at + 1 < len(buffer)):
            after = at + 1
        else:
            at += 1
            continue
        yield start, at, after
        start = at = after


def boundaries(buffer: bytes) -> list[int]:
    """Where events end: after each blank line but a first one."""
    return [after for number, (start, end, after) in enumerate(lines(buffer)) if start == end and number > 0]


def dispatched(stream: bytes) -> list[bytes]:
    """The data of every event that a client would be given."""
    found: list[bytes] = []
    data: list[bytes] = []
    for start, end, _ in lines(stream + b"\x00"):  # so that the last CR counts
        if start == end:
            found += [b"\n".join(data)] if data else []
            data = []
        elif stream[start:end].startswith(b"data:"):
            value = stream[start + 5 : end]
            data.append(value[1:] if value.startswith(b" ") else value)
    return found


# Streams

breaks = st.sampled_from([b"\n", b"\r\n", b"\r"])
spaces = st.sampled_from(["", "", " ", "\t", "  "])
spaces_and_breaks = st.sampled_from(["", "", " ", "\t", "\n", " \n "])
names = st.text(max_size=4).filter(lambda name: name not in ("model", "response", "usage"))
scalars = st.one_of(
    st.sampled_from(
        ["1", "1.50", "-0", "1E400", "12345678901234567890123", "true", "null", '"\\u0000\\"model\\":\\"x\\""']
    ),
    st.text(max_size=8).map(json.dumps),
    st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(['"model"', '"usage"', '"{"', '"}"', '"["', '"data: [DONE]"']),
)
nested = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda values: "[" + ",".join(values) + "]"),
        st.dictionaries(st.sampled_from(["a", "model", "b{", "response"]), inner, max_size=3).map(
            lambda members: "{" + ",".join(f"{json.dumps(name)}: {value}" for name, value in members.items()) + "}"
        ),
    ),
    max_leaves=6,
)
counts = st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "x"]), st.integers(-1, 1 << 40), max_size=3
)


@st.composite
def objects(draw: st.DrawFn, spaces: st.SearchStrategy[str], inner: bool = False) -> str:
    """A JSON object as text, with its own model string (if it has one) as PLACE."""
    members = {json.dumps(name): draw(nested) for name in draw(st.lists(names, max_size=3, unique=True))}
    if draw(st.booleans()):
        members['"model"'] = draw(st.sampled_from([PLACE, PLACE, "null", "7", '["x"]']))
    if draw(st.booleans()):
        members['"usage"'] = draw(st.one_of(st.just("null"), counts.map(json.dumps)))
    if not inner and draw(st.integers(0, 3)) == 0:
        members['"response"'] = draw(st.one_of(objects(spaces, inner=True), st.just('"x"')))
    order = draw(st.permutations(list(members)))
    written = [f"{draw(spaces)}{name}{draw(spaces)}:{draw(spaces)}{members[name]}{draw(spaces)}" for name in order]
    return "{" + (",".join(written) if written else draw(spaces)) + "}"


@dataclass(frozen=True)
class Stream:
    template: bytes

    def shown(self, model: bytes) -> bytes:
        return self.template.replace(PLACE.encode(), model)

    @property
    def whole(self) -> bytes:
        return self.shown(b'"provider-model"')


@st.composite
def events(draw: st.DrawFn, spaces: st.SearchStrategy[str]) -> bytes:
    end = draw(breaks)
    mixed = draw(st.booleans())
    written: list[bytes] = []

    def add(line: bytes) -> None:
        # An empty line after a lone CR may not end with LF alone: the two would be one line end.
        joins = not line and written[-1:] == [b"\r"]
        last = draw(breaks.filter(lambda each: each != b"\n" or not joins)) if mixed else end
        written.extend((line, last))

    for kind in draw(st.lists(st.sampled_from(["comment", "event", "id", "blank"]), max_size=2)):
        add({"comment": b': {"model":"x"} ', "event": b"event: message", "id": b'id:"model":"x"', "blank": b""}[kind])
    data = draw(st.one_of(objects(spaces), objects(spaces), st.just("[1]"), st.just("plain"), st.just("{")))
    for line in data.split("\n"):
        add(draw(st.sampled_from([b"data:", b"data: "])) + line.encode())
    add(b"")
    return b"".join(written)


@st.composite
def streams(draw: st.DrawFn, spaces: st.SearchStrategy[str] = spaces_and_breaks) -> Stream:
    parts = draw(st.lists(events(spaces), max_size=4))
    tail = draw(st.sampled_from([b"", b"data: [DONE]\n\n", b"data: [DONE]", b'data: {"half', b"\r", b"data: x\n"]))
    return Stream(b"".join(parts) + tail)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


cuts = st.lists(st.integers(0, 1 << 16), max_size=30)
anyhow = st.one_of(streams().map(lambda stream: stream.whole), st.text("\r\nd:a ", max_size=30).map(str.encode))


def relayed(pieces: list[bytes], model: str | None = None) -> bytes:
    relay = EventRelay(CHAT, model)
    return b"".join(relay.feed(piece) for piece in pieces) + relay.end()


@few
@given(anyhow, cuts)
def test_any_cutting_of_a_stream_gives_its_bytes(stream: bytes, where: list[int]) -> None:
    assert stream == relayed(split(stream, where))


@few
@given(anyhow)
def test_cut_into_single_bytes_it_gives_its_bytes(stream: bytes) -> None:
    assert stream == relayed([stream[at : at + 1] for at in range(len(stream))])


@few
@given(anyhow, cuts, st.integers(1, 80))
def test_events_over_the_bound_give_their_bytes(stream: bytes, where: list[int], bound: int) -> None:
    with mock.patch("proxy.relay.MAX_TAIL_BYTES", bound):
        assert stream == relayed(split(stream, where))


@few
@given(anyhow, cuts)
def test_only_whole_events_come_out_before_the_end(stream: bytes, where: list[int]) -> None:
    relay = EventRelay(CHAT, None)
    out = 0
    ends = {0, *boundaries(stream)}
    for piece in split(stream, where):
        out += len(relay.feed(piece))
        assert out in ends


@few
@given(st.text("\r\nda: ", max_size=40).map(str.encode))
def test_the_end_of_whole_events_is_that_of_the_grammar(buffer: bytes) -> None:
    assert max(boundaries(buffer), default=0) == sse.end_of_whole_events(buffer)
    assert min(boundaries(buffer), default=0) == sse.end_of_first_event(buffer)


@few
@given(anyhow)
def test_events_are_told_apart_as_the_grammar_does(stream: bytes) -> None:
    spans = list(sse.event_spans(stream))
    assert [0, *(end for _, end in spans)] == [*(start for start, _ in spans), len(stream)]
    assert {end for _, end in spans[:-1]} <= set(boundaries(stream))
    whole = stream + b"\n\n"
    found = [sse.event_data(whole, start, end) for start, end in sse.event_spans(whole)]
    assert dispatched(whole) == [data for data in found if data is not None]


@few
@given(anyhow, cuts, st.integers(0, 1 << 16))
def test_where_a_stream_breaks_the_error_event_stands_alone(stream: bytes, where: list[int], at: int) -> None:
    relay = EventRelay(CHAT, None)
    broken = stream[: at % (len(stream) + 1)]
    out = b"".join(relay.feed(piece) for piece in split(broken, where))
    got = dispatched(out + relay.break_off(ERROR))
    assert ERROR == b"data: " + got[-1] + b"\n\n"
    assert "upstream_disconnected" == json.loads(got[-1])["error"]["code"]
    # What came before are events of the provider's, each whole.
    assert got[:-1] == dispatched(stream)[: len(got) - 1]


@few
@given(anyhow, cuts, st.integers(0, 1 << 16), st.integers(1, 40))
def test_where_a_torn_event_breaks_the_error_event_stands_alone_too(
    stream: bytes, where: list[int], at: int, bound: int
) -> None:
    with mock.patch("proxy.relay.MAX_TAIL_BYTES", bound):
        relay = EventRelay(CHAT, None)
        out = b"".join(relay.feed(piece) for piece in split(stream[: at % (len(stream) + 1)], where))
        got = dispatched(out + relay.break_off(ERROR))
    assert ERROR == b"data: " + got[-1] + b"\n\n"
    # One event at most was torn: the one that broke.
    assert got[:-2] == dispatched(stream)[: len(got) - 2] or len(got) < 2


@few
@given(streams(), cuts, st.sampled_from(["fast", 'a"b\\', "größe", "\r\n"]))
def test_with_an_alias_only_the_answers_own_model_differs(stream: Stream, where: list[int], alias: str) -> None:
    shown = json.dumps(alias, ensure_ascii=False).encode()
    assert stream.shown(shown) == relayed(split(stream.whole, where), alias)


@few
@given(streams(spaces), cuts)
def test_usage_found_is_usage_parsed(stream: Stream, where: list[int]) -> None:
    expected: Usage | None = None
    for data in dispatched(stream.whole):
        try:
            event = json.loads(data)
        except ValueError:
            continue
        counts = _usage(event)
        expected = expected if counts is None else CHAT.usage(counts)
    relay = EventRelay(CHAT, None)
    for piece in split(stream.whole, where):
        relay.feed(piece)
    relay.end()
    assert expected == relay.usage


def _usage(event: object) -> dict[str, object] | None:
    """The usage object at the top level, else the one under `response`."""
    if not isinstance(event, dict):
        return None
    counts = event.get("usage")
    return counts if isinstance(counts, dict) else _usage(event.get("response"))


@few
@given(streams(), cuts)
def test_what_is_told_of_the_end_does_not_depend_on_the_cutting(stream: Stream, where: list[int]) -> None:
    whole, pieces = EventRelay(CHAT, None), EventRelay(CHAT, None)
    whole.feed(stream.whole)
    for piece in split(stream.whole, where):
        pieces.feed(piece)
    whole.end()
    pieces.end()
    assert (whole.ending, whole.failure, whole.usage) == (pieces.ending, pieces.failure, pieces.usage)
    if b"[DONE]" in dispatched(stream.whole + b"\n\n"):
        assert whole.ending is Ending.COMPLETE


@few
@given(st.binary(max_size=300))
def test_any_bytes_pass(data: bytes) -> None:
    assert data == relayed([data])
    assert data == relayed([data[:9], data[9:]])
    relayed([data], "fast")
    find_usage(data, CHAT)
    CHAT.failure(data)


def test_an_event_over_1_mib_passes_in_pieces_and_is_read_all_the_same() -> None:
    large = b'data: {"model":"provider-model","x":"' + b"y" * 2 * MAX_TAIL_BYTES + b'","usage":{"prompt_tokens":7}}\n\n'
    after = b'data: {"model":"provider-model"}\r\n\r\n'
    stream = large + after + b"data: [DONE]\n\n"
    relay = EventRelay(CHAT, "fast")
    out = [relay.feed(stream[at : at + 4093]) for at in range(0, len(stream), 4093)]
    assert stream.replace(b"provider-model", b"fast") == b"".join(out)
    assert any(piece and not piece.endswith(b"\n\n") for piece in out)
    assert (Usage(7), Ending.COMPLETE) == (relay.usage, relay.ending)
