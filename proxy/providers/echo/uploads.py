"""Uploads: a multipart body is counted, not kept.

https://platform.openai.com/docs/api-reference/files/create
"""

import re

import msgspec

from proxy.providers.echo.answer import CREATED, Answer, document
from transport.script import Received

_FILE_NAME = re.compile(rb'filename="([^"\r\n]*)"')


def file_object(received: Received) -> Answer:
    """`POST /files`. ``bytes`` counts the request's whole body, its multipart framing included."""
    name = _FILE_NAME.search(received.kept)
    return document(
        {
            "id": f"file-{received.sha256[:24]}",
            "object": "file",
            "bytes": received.length,
            "created_at": CREATED,
            "filename": name[1].decode("utf-8", "replace") if name else "unnamed",
            "purpose": form_field(received.kept, "purpose") or "user_data",
            "status": "processed",
        }
    )


def transcript(received: Received) -> Answer:
    """`POST /audio/transcriptions` and `/audio/translations`."""
    return Answer(200, msgspec.json.encode({"text": f"Received {received.length} bytes."}))


def form_field(head: bytes, name: str) -> str | None:
    """The value of a short field of a multipart form (RFC 7578), if it begins within ``head``."""
    pattern = rb'\bname="' + re.escape(name.encode()) + rb'"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)\r\n'
    found = re.search(pattern, head)
    return found[1].decode("utf-8", "replace") if found else None
