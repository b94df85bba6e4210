"""Any provider's stream, in any pieces, through the relay of events."""

import json
import re
from collections.abc import Iterable, Iterator
from unittest import mock

from proxy import sse
from proxy.dialects import DIALECTS
from proxy.relay import EventRelay
from tests.fuzz.target import pieces, seed, split

MODELS = (None, "fast", 'our "own" name')
BOUND_BYTES = 200
"""Of an event that is passed on before its end, in half of the inputs."""

_STREAMS = (
    b'data: {"model":"m","choices":[{"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n',
    b': comment\r\nevent: message\r\nid: 1\r\ndata: {"model":"m",\r\ndata: "usage":{"prompt_tokens":3}}\r\n\r\n',
    b'data: {"response":{"model":"m","usage":{"input_tokens":1,"output_tokens":2}},"type":"response.completed"}\n\n',
    b'data: {"model":"m"}\n\nevent: error\ndata: overloaded\n\n',
    b'data: {"model":"m}\n\ndata: {"model":"m"}\n\n',
    b'event: error\ndata: {"error":{"message":"busy","code":"overloaded"}}\n\n',
    b'data:{"model":"m"}\r\rdata:{"model":"m"}\n\rdata: [DONE]',
    b'data: {"choices":[{"delta":{"content":"hi"}}],"usage":null}\n\n' * 3
    + b'data: {"choices":[],"usage":{"a":1}}\n\n',
    b'data: {"type":"x.delta","sequence_number":1,"delta":"hi","obfuscation":"x"}\n\n' * 3,
    b"\xef\xbb\xbfdata: \xff\xfe\n\n\n\n\r\n\r\n",
    b'data: {"model":"m"}\n\n' * 6 + b'data: {"model":"\\u006d","x":{"model":"y"},"model":3}\n\n',
)


_MODEL = re.compile(rb'"model"(?:\s|data:)*:(?:\s|data:)*"(?:[^"\\\x00-\x1f]|\\.)*"')


def _is_readable(stream: bytes) -> bool:
    """Whether the data of every event that may state a model is JSON."""
    try:
        for start, end in sse.event_spans(stream):
            data = sse.event_data(stream, start, end)
            if data is not None and b'"model"' in data:
                json.loads(data)
    except ValueError:
        return False
    return True


def relayed(
    parts: Iterable[bytes], dialect: str, model: str | None, *, unasked: bool = False
) -> tuple[bytes, EventRelay]:
    relay = EventRelay(DIALECTS[dialect], model, usage_unasked=unasked)
    return b"".join([relay.feed(part) for part in parts]) + relay.end(), relay


def run(data: bytes) -> None:
    choice, sizes, sent = split(data)
    names = sorted(DIALECTS)
    dialect, model = names[choice % len(names)], MODELS[choice // 8 % len(MODELS)]
    if choice & 128:
        with mock.patch("proxy.relay.MAX_TAIL_BYTES", BOUND_BYTES):
            # A torn event may keep the provider's name; its bytes are all there.
            assert sent == relayed(pieces(sent, sizes), dialect, None)[0]
            relayed(pieces(sent, sizes), dialect, model)
        return
    without, _ = relayed(pieces(sent, sizes), dialect, None, unasked=True)
    assert sent == without if b'"usage"' not in sent else len(sent) >= len(without)
    whole, one = relayed([sent], dialect, model)
    cut, other = relayed(pieces(sent, sizes), dialect, model)
    assert (one.usage, one.ending, one.failure) == (other.usage, other.ending, other.failure)
    if model is None:
        assert sent == whole == cut
    elif b"\\" not in sent:
        # Where nothing is escaped, the spliced strings can be told without a parser: nothing else may differ.
        assert _MODEL.sub(b"", sent) == _MODEL.sub(b"", whole) == _MODEL.sub(b"", cut)
    if _is_readable(sent):
        # Where it is not, it may depend on the cutting which of its events are looked at, and nothing on the result.
        assert whole == cut
    spans = list(sse.event_spans(sent))
    assert [0, *(end for _, end in spans)] == [*(start for start, _ in spans), len(sent)]


def seeds() -> Iterator[bytes]:
    for number, stream in enumerate(_STREAMS):
        for choice in (number, number + 8, number + 128):
            yield seed(stream, choice=choice)
            yield seed(stream, 1, choice=choice)
            yield seed(stream, 17, 2, choice=choice)
