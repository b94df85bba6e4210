"""Requests to the Vault stand-in and its answers, without the HTTP."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """Below `/v1/`, with the namespace that was written in it; neither slash nor query at its end."""
    namespace: str = ""
    """Of the header."""
    token: str = ""
    body: dict[str, Any] = field(default_factory=dict, repr=False)
    query: dict[str, str] = field(default_factory=dict)

    @property
    def operation(self) -> str:
        """`read`, `list`, `write` or `delete`."""
        if self.method == "LIST" or self.query.get("list") == "true":
            return "list"
        return {"GET": "read", "HEAD": "read", "DELETE": "delete"}.get(self.method, "write")


@dataclass(frozen=True)
class Answer:
    status: int
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    """Instead of a body: what is sent as it is."""


def success(
    data: Mapping[str, Any] | None = None,
    *,
    status: int = 200,
    warnings: list[str] | None = None,
    auth: Mapping[str, Any] | None = None,
    lease_id: str = "",
    lease_duration: float = 0,
    renewable: bool = False,
) -> Answer:
    """The envelope around everything but `sys/health`."""
    return Answer(
        status,
        {
            "request_id": str(uuid.uuid4()),
            "lease_id": lease_id,
            "renewable": renewable,
            "lease_duration": round(lease_duration),
            "data": data,
            "wrap_info": None,
            "warnings": warnings or None,
            "auth": auth,
            "mount_type": "",
        },
    )


def errors(status: int, *texts: str, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, {"errors": list(texts)}, headers or {})
