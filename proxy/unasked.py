"""Takes out of a stream what it has only because the gateway asked for its usage. Sans-io.

OpenAI documents `stream_options.include_usage` so: one more chunk comes before `[DONE]`, whose `choices` are empty and
whose `usage` has the numbers, and every other chunk gets a `usage` of null.
https://platform.openai.com/docs/api-reference/chat/create
"""

import re

import msgspec

from proxy.body import Document, MalformedDocument
from proxy.sse import data_lines, event_spans

_NAME = b'"usage"'
# Before the brace that ends an event's data, hence at the top level; as OpenAI spells it, without its padding and with it.
_LAST = b',"usage":null}\n\n'
_PADDED = re.compile(rb',"usage":null(?=,"obfuscation":"[^"\\\x00-\x1f]*"\}\n\n)')


def without_usage(events: bytes) -> bytes:
    """``events`` (whole ones) without the chunk that tells the usage, and without `"usage": null` in the others.

    A chunk that has a choice is never taken out, whatever usage it tells; nor is one without that has no usage, as Azure's
    first has none. What is no JSON is left alone.
    """
    if _NAME not in events:
        return events
    events = events.replace(_LAST, b"}\n\n")
    if _NAME not in events:
        return events
    events = _PADDED.sub(b"", events)
    if _NAME not in events:
        return events
    return b"".join([_edited(events[start:end]) for start, end in event_spans(events)])


def _edited(event: bytes) -> bytes:
    if _NAME not in event:
        return event
    lines = data_lines(event, 0, len(event))
    try:
        document = Document(b"\n".join(line.value for line in lines))
    except MalformedDocument:
        return event
    usage = document.raw("usage")
    if usage is None:
        return event
    if usage.startswith(b"{"):
        return b"" if _is_empty(document.raw("choices")) and document.raw("error") in (None, b"null") else event
    if usage != b"null" or len(lines) != 1:
        return event
    start, end = lines[0].start, lines[0].start + len(lines[0].value)
    return event[:start] + document.edited({}, frozenset(("usage",))) + event[end:]


def _is_empty(choices: bytes | None) -> bool:
    return choices is not None and choices.startswith(b"[") and not msgspec.json.decode(choices)
