"""The one table of management routes. The application, the OpenAPI document, the tests and docs/access.md are fed from it."""

import re
from dataclasses import dataclass

from tornado.routing import URLSpec
from tornado.web import Application

from credentials.logins.pasted import CALLBACK_PATH
from management.aliases import Aliases, AliasItem
from management.audit import Audit, AuditHead
from management.config import ConfigReload, Configuration, ConfigValidation
from management.config_apply import ConfigApplication, ConfigConfirmation, ConfigPending, ConfigRollback
from management.config_document import ConfigDocument
from management.config_revisions import (
    ConfigRevision,
    ConfigRevisionDifference,
    ConfigRevisionRestore,
    ConfigRevisions,
)
from management.cooldowns import Cooldowns
from management.credential_login import CredentialLogin, CredentialLoginAnswer, CredentialLoginItem
from management.credentials import (
    CredentialExport,
    CredentialImport,
    CredentialItem,
    CredentialRefresh,
    Credentials,
)
from management.deliveries import Deliveries, DeliveryItem, DeliveryRedelivery, WebhookRedelivery, WebhookTest
from management.dependencies import Dependencies
from management.errors import ManagementError, RequestError
from management.event_stream import Events
from management.explain import Explain
from management.handler.base import ManagementHandler
from management.handler.operation import Operation
from management.handler.permit import Permit
from management.handler.request_log import log_request
from management.health import Alive, HealthReport, Ready
from management.jobs import JobItem
from management.limits import Limits, TokenLimits
from management.metrics import Metrics
from management.oauth_callback import OAuthCallback
from management.prices import Prices
from management.provider_health import ProviderHealthReport, ProviderTest
from management.provider_models import Models, ModelsRefresh, ProviderModels, ProviderModelsRefresh
from management.provider_templates import ProviderTemplates
from management.providers import ProviderItem, Providers
from management.reference.openapi_page import DocsPage, DocsScript, DocsStyle, OpenApiDocument
from management.requests import RequestItem, Requests
from management.route_entries import RouteItem, Routes
from management.settings import SettingItem, Settings
from management.tokens import TokenItem, TokenRotation, Tokens
from management.usage import Usage, UsageExport
from management.webhook_entries import WebhookItem, Webhooks

_PARAMETER = re.compile(r"\{([a-z_]+)\}")


class UnknownPath(ManagementHandler):
    """Every path that is in no row: 401 without credentials, 404 with."""

    async def prepare(self) -> None:
        """404 for every method, once the caller is known."""
        self.any_host = not self.request.path.startswith("/api/")
        self.require_way()
        self.caller = await self._identify()
        raise ManagementError(
            RequestError.UNKNOWN_PATH, "Nothing is served at this path: see docs/access.md for those that there are."
        )


HANDLERS: tuple[tuple[str, type[ManagementHandler]], ...] = (
    ("/healthz", Alive),
    ("/readyz", Ready),
    ("/metrics", Metrics),
    (CALLBACK_PATH, OAuthCallback),
    ("/console/docs", DocsPage),
    ("/console/docs.css", DocsStyle),
    ("/console/docs.js", DocsScript),
    ("/api/v1/openapi.json", OpenApiDocument),
    ("/api/v1/health", HealthReport),
    ("/api/v1/config", Configuration),
    ("/api/v1/config/document", ConfigDocument),
    ("/api/v1/config/validate", ConfigValidation),
    ("/api/v1/config/reload", ConfigReload),
    ("/api/v1/config/apply", ConfigApplication),
    ("/api/v1/config/pending", ConfigPending),
    ("/api/v1/config/confirm", ConfigConfirmation),
    ("/api/v1/config/rollback", ConfigRollback),
    ("/api/v1/config/revisions", ConfigRevisions),
    ("/api/v1/config/revisions/{id}", ConfigRevision),
    ("/api/v1/config/revisions/{id}/diff", ConfigRevisionDifference),
    ("/api/v1/config/revisions/{id}/restore", ConfigRevisionRestore),
    ("/api/v1/explain", Explain),
    ("/api/v1/cooldowns", Cooldowns),
    ("/api/v1/audit", Audit),
    ("/api/v1/audit/head", AuditHead),
    ("/api/v1/limits", Limits),
    ("/api/v1/tokens", Tokens),
    ("/api/v1/tokens/{id}", TokenItem),
    ("/api/v1/tokens/{id}/rotate", TokenRotation),
    ("/api/v1/tokens/{id}/limits", TokenLimits),
    ("/api/v1/usage", Usage),
    ("/api/v1/usage/export", UsageExport),
    ("/api/v1/requests", Requests),
    ("/api/v1/requests/{request_id}", RequestItem),
    ("/api/v1/events", Events),
    ("/api/v1/settings", Settings),
    ("/api/v1/settings/{key}", SettingItem),
    ("/api/v1/provider-templates", ProviderTemplates),
    ("/api/v1/providers", Providers),
    ("/api/v1/providers/{name}", ProviderItem),
    ("/api/v1/providers/{name}/health", ProviderHealthReport),
    ("/api/v1/providers/{name}/test", ProviderTest),
    ("/api/v1/providers/{name}/models", ProviderModels),
    ("/api/v1/providers/{name}/models/refresh", ProviderModelsRefresh),
    ("/api/v1/credentials", Credentials),
    ("/api/v1/credentials/import", CredentialImport),
    ("/api/v1/credentials/login", CredentialLogin),
    ("/api/v1/credentials/login/complete", CredentialLoginAnswer),
    ("/api/v1/credentials/login/{state}", CredentialLoginItem),
    ("/api/v1/credentials/{id}", CredentialItem),
    ("/api/v1/credentials/{id}/refresh", CredentialRefresh),
    ("/api/v1/credentials/{id}/export", CredentialExport),
    ("/api/v1/aliases", Aliases),
    ("/api/v1/aliases/{from}", AliasItem),
    ("/api/v1/routes", Routes),
    ("/api/v1/routes/{name}", RouteItem),
    ("/api/v1/webhooks", Webhooks),
    ("/api/v1/webhooks/{name}", WebhookItem),
    ("/api/v1/webhooks/{name}/test", WebhookTest),
    ("/api/v1/webhooks/{name}/redeliver", WebhookRedelivery),
    ("/api/v1/webhooks/{name}/deliveries", Deliveries),
    ("/api/v1/webhooks/{name}/deliveries/{event_id}", DeliveryItem),
    ("/api/v1/webhooks/{name}/deliveries/{event_id}/redeliver", DeliveryRedelivery),
    ("/api/v1/models", Models),
    ("/api/v1/models/refresh", ModelsRefresh),
    ("/api/v1/prices", Prices),
    ("/api/v1/jobs/{id}", JobItem),
)
"""Each path, with a `{name}` for a segment of the caller's choosing, and who serves it. The first that fits counts."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path."""

    method: str
    path: str
    handler: type[ManagementHandler]

    @property
    def operation(self) -> Operation:
        """What it takes and answers."""
        return self.handler.operations[self.method]

    @property
    def permit(self) -> Permit:
        """Who may call."""
        return self.operation.permit

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the segments that the caller chooses."""
        return tuple(_PARAMETER.findall(self.path))


ROUTES: tuple[Route, ...] = tuple(
    Route(method, path, handler) for path, handler in HANDLERS for method in handler.operations
)


def build_application(dependencies: Dependencies) -> Application:
    """The management API as a Tornado application, for a listener of its own or a shared one."""
    arguments = {"dependencies": dependencies}
    return Application(
        [URLSpec(_PARAMETER.sub("([^/]+)", path), handler, arguments) for path, handler in HANDLERS],
        default_handler_class=UnknownPath,
        default_handler_args=arguments,
        log_function=log_request,
    )
