"""What the system allows a process."""

import resource
from collections.abc import AsyncIterator

from gateway.doctor.context import Context
from gateway.doctor.report import Finding, Where, fine, warning

_FILES_A_CONNECTION = 4
"""Of a client: its own, one to a provider, and as many again while an upgrade has both generations of a process."""


async def check(context: Context) -> AsyncIterator[Finding]:
    """Open files: each connection is one."""
    if context.is_damaged("server", "max_connections"):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield judge(context.config.server.max_connections, hard, context.where("server", "max_connections"))


def judge(connections: int, hard: int, where: Where) -> Finding:
    """``hard``: the hard limit of open files, which the gateway raises its own limit to."""
    if hard == resource.RLIM_INFINITY or hard >= _FILES_A_CONNECTION * connections:
        return fine("open files: the limit is high enough")
    return warning(
        where,
        f"a process may have {hard} files open: not enough for `server.max_connections` ({connections})",
        f"raise it to {_FILES_A_CONNECTION * connections} (`LimitNOFILE=` of systemd, `--ulimit nofile=` of Docker, "
        f"`ulimit -Hn` here), or lower `server.max_connections` to {max(1, hard // _FILES_A_CONNECTION)}",
    )
