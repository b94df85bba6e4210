"""One record a request, by the handler's name and not the client's spelling."""

import logging
from http import HTTPStatus

from tornado.web import RequestHandler

from management.handler.base import ManagementHandler
from telemetry.access_log import cut

_log = logging.getLogger("sluice.management")


def log_request(handler: RequestHandler) -> None:
    """Tornado's `log_function`: one record a request, by the handler's name and not the client's spelling.

    Probes and scrapes come every few seconds: what was only looked at, and allowed, is for DEBUG.
    """
    if not isinstance(handler, ManagementHandler):  # pragma: no cover - the table holds no other
        return
    only_looked = handler.request.method in ("GET", "HEAD") and handler.get_status() < HTTPStatus.BAD_REQUEST
    _log.log(
        logging.DEBUG if only_looked else logging.INFO,
        "%s %s %d by %s in %.6f s (%s)",
        # The one text of the client's choosing.
        cut(handler.request.method or ""),
        type(handler).__name__,
        handler.get_status(),
        handler.caller.name,
        handler.request.request_time(),
        handler.request_id,
    )
