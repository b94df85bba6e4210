"""The one table of management routes. The application, the tests and docs/access.md are fed from it."""

from dataclasses import dataclass
from http import HTTPStatus

from tornado.routing import URLSpec
from tornado.web import Application

from management.base import ManagementHandler, log_request
from management.config import Reload
from management.dependencies import Dependencies
from management.errors import ManagementError, RequestError
from management.health import Alive, HealthReport, Ready
from management.metrics import Metrics
from management.permit import Permit, any_caller


class UnknownPath(ManagementHandler, permit=any_caller()):
    """Every path that is in no row: 401 without credentials, 404 with."""

    async def prepare(self) -> None:
        """404 for every method, once the caller is known."""
        self.caller = await self._identify()
        raise ManagementError(
            HTTPStatus.NOT_FOUND,
            RequestError.UNKNOWN_PATH,
            "Nothing is served at this path: see docs/access.md for those that there are.",
        )


@dataclass(frozen=True, slots=True)
class Route:
    """One row."""

    method: str
    path: str
    handler: type[ManagementHandler]

    @property
    def permit(self) -> Permit:
        """Who may call: stated once, at the handler."""
        return self.handler.permit


ROUTES: tuple[Route, ...] = (
    Route("GET", "/healthz", Alive),
    Route("GET", "/readyz", Ready),
    Route("GET", "/metrics", Metrics),
    Route("GET", "/api/v1/health", HealthReport),
    Route("POST", "/api/v1/config/reload", Reload),
)


def build_application(dependencies: Dependencies) -> Application:
    """The management API as a Tornado application, for a listener of its own or a shared one."""
    arguments = {"dependencies": dependencies}
    handlers = {route.path: route.handler for route in ROUTES}
    return Application(
        [URLSpec(path, handler, arguments) for path, handler in handlers.items()],
        default_handler_class=UnknownPath,
        default_handler_args=arguments,
        log_function=log_request,
    )
