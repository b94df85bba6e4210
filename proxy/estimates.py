"""Tokens where nobody tells them: from sizes, without a tokenizer. docs/usage.md has the method and how far it is off."""

import re

from proxy.body import Document
from proxy.intake import Inbound

TEXT_BYTES = 4
"""Bytes of text for a token."""

SCHEMA_BYTES = 6
"""Bytes of the JSON schema of a tool or an answer for a token: providers hand these to their models in a shorter form."""

MEDIA_TOKENS = 1000
"""What a picture, a sound or a file counts that is within the body, whatever its size."""

MOST_TOKENS = 1 << 53
"""Whoever states more is taken to state this."""

_TEXTS = ("messages", "input", "prompt", "instructions")
_SCHEMAS = ("tools", "response_format", "functions", "text")
_CEILINGS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_MEDIA_BYTES = 4096
"""What is shorter is counted as text: as such it would count about as much."""
# What comes before base64, and the name of the member that holds it where that does not follow at once.
_MEDIA = ((b";base64,", b""), (b'"input_audio"', b'"data"'))
_MAX_READ_BYTES = 32 * 1024


def estimated_input(inbound: Inbound) -> int:
    """Tokens of what the client sent; 0 where that is not JSON. Texts are measured as they are spelled, none is parsed."""
    document = inbound.document
    if document is None:
        return 0
    size = document.size
    texts = 0
    for name in _TEXTS:
        texts += size(name)
    schemas = 0
    for name in _SCHEMAS:
        schemas += size(name)
    media = 0
    if len(document.data) > _MEDIA_BYTES:
        media, media_bytes = _media(document.data)
        texts = max(0, texts - media_bytes)
    return texts // TEXT_BYTES + schemas // SCHEMA_BYTES + media * MEDIA_TOKENS


def _media(data: bytes) -> tuple[int, int]:
    """How many long strings in base64 there are, and their bytes."""
    count = total = 0
    for mark, name in _MEDIA:
        found = data.find(mark)
        while found >= 0:
            named = data.find(name, found + len(mark))
            # Where the member has a name of its own, its value's quote comes first.
            start = data.find(b'"', named + len(name)) + 1 if name and named > 0 else named
            end = data.find(b'"', start)
            if start <= found or end < 0:
                break
            # Base64 has no spaces; a text that is this long does.
            if end - start > _MEDIA_BYTES and data.find(b" ", start, end) < 0:
                count += 1
                total += end - start
            found = data.find(mark, end)
    return count, total


def asked_output(inbound: Inbound) -> int | None:
    """The most tokens that the client asks for, over all choices; None where it states no ceiling.

    What is no whole number above 0 is for the provider to refuse.
    """
    document = inbound.document
    if document is None:
        return None
    stated = [number for name in _CEILINGS if (number := _number(document, name)) is not None]
    if not stated:
        return None
    return min(max(stated) * (_number(document, "n") or 1), MOST_TOKENS)


def _number(document: Document, name: str) -> int | None:
    if name not in document:
        return None
    raw = document.raw(name)
    if raw is None or not raw.isdigit():
        return None
    # Longer ones are beyond the most anyway, and Python refuses to read very long ones.
    number = int(raw) if len(raw) < 16 else MOST_TOKENS
    return number or None


def tokens_of_text(size: int) -> int:
    """Tokens of ``size`` bytes of text; some text is at least one."""
    return -(-size // TEXT_BYTES)


def tokens_said(answer: bytes, text: re.Pattern[bytes]) -> int:
    """Tokens of a whole answer, in which ``text`` finds what the model says.

    Of a long one the beginning is read, and the rest taken to be like it.
    """
    read = answer[:_MAX_READ_BYTES]
    said = sum(map(len, text.findall(read)))
    return tokens_of_text(said * len(answer) // len(read)) if said else 0
