"""Loaded by schemathesis (tests/integration/test_schemathesis.py): requests that are meant well name the revision that is there.

Otherwise every change of the configuration would be refused for its `If-Match`, before anything of it is looked at.
"""

import http.client
import os
from typing import Any
from urllib.parse import urlsplit

import schemathesis

_GATEWAY = urlsplit(os.environ["SLUICE_URL"])
_HEADERS = {"authorization": f"Bearer {os.environ['SLUICE_ADMIN_KEY']}"}


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: "schemathesis.Case[Any]", kwargs: dict[str, Any]) -> None:
    """Called before each request."""
    if case.meta is None or not case.meta.generation.mode.is_positive or "If-Match" not in (case.headers or {}):
        return
    connection = http.client.HTTPConnection(str(_GATEWAY.hostname), _GATEWAY.port, timeout=10)
    try:
        connection.request("HEAD", "/api/v1/config/document", headers=_HEADERS)
        tag = connection.getresponse().getheader("etag")
    finally:
        connection.close()
    if tag is not None:
        case.headers["If-Match"] = tag
    if (case.method, case.path) == ("PUT", "/api/v1/config/document") and isinstance(case.body, dict):
        # Without it the edit is refused, as nobody could call any more.
        case.body = {**case.body, "management": {"admin_key_hash": "${kept}"}}
