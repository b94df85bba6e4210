from collections.abc import Callable
from typing import Any

import pytest

from core.events import RequestCompleted, RequestFailed
from core.usage import Usage

Ended = Callable[..., RequestCompleted | RequestFailed]


@pytest.fixture
def ended() -> Ended:
    """Makes the event of a request that ended well, or badly where an ``error_code`` is given."""

    def make(**changes: Any) -> RequestCompleted | RequestFailed:
        members: dict[str, Any] = {
            "request_id": "req_1",
            "client_request_id": None,
            "method": "POST",
            "endpoint": "chat",
            "dialect": "openai-chat",
            "status": 200,
            "token": "team",
            "token_id": None,
            "owner": None,
            "remote_ip": "192.0.2.1",
            "requested_model": "fast",
            "route": "gold",
            "provider": "openai",
            "model": "gpt-4o-mini",
            "model_label": "gpt-4o*",
            "credential": "main",
            "stream": True,
            "attempts": 1,
            "duration_seconds": 1.5,
            "overhead_seconds": 0.00015,
            "ttft_seconds": 0.25,
            "upstream_seconds": 1.49,
            "usage": Usage(11, 7, 3),
            "cost_nano_usd": None,
            "revision": "abc",
            "bytes_in": 100,
            "bytes_out": 2000,
        } | changes
        if "error_code" in members:
            return RequestFailed(**{"error_message": "", **members})
        return RequestCompleted(**members)

    return make
