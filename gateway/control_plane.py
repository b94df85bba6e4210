"""Fills what the management API needs of the rest of the program."""

from collections.abc import Callable

from gateway.credential_service import GatewayCredentials
from gateway.issued_tokens import IssuedTokenService
from gateway.limit_service import GatewayLimits
from gateway.login_service import GatewayLogins
from gateway.price_service import GatewayPrices
from gateway.reload import Reloader
from gateway.resources import Resources
from gateway.revision_history import KeptRevisions
from gateway.routing_service import GatewayRouting
from gateway.sealer import MasterKeySealer
from gateway.settings import Started, current_settings
from gateway.usage_service import GatewayUsage
from management.dependencies import Dependencies, Health
from management.editing.editor import Editor
from management.provider_service import ProviderService


def make_dependencies(
    resources: Resources,
    reloader: Reloader,
    *,
    editor: Editor,
    providers: ProviderService,
    ready: Callable[[], bool],
    health: Callable[[], Health],
    started: Started,
) -> Dependencies:
    """For :func:`management.routes.build_application`."""
    return Dependencies(
        clock=resources.clock,
        view=lambda: reloader.current().view,
        ready=ready,
        health=health,
        editor=editor,
        sealer=MasterKeySealer(lambda: reloader.current().loaded.sources.root, resources.environment),
        audit=resources.stores.audit,
        render_metrics=resources.metrics.render,
        providers=providers,
        prices=GatewayPrices(reloader.current),
        credentials=GatewayCredentials(resources.credentials, lambda: reloader.current().config, resources.clock),
        logins=GatewayLogins(
            lambda: resources.credentials.logins,
            resources.credentials.accounts.state,
            resources.credentials.settle,
            lambda: reloader.current().config,
        ),
        revisions=KeptRevisions(resources.stores),
        routing=GatewayRouting(resources, reloader.current),
        tokens=IssuedTokenService(
            resources.token_keeper,
            resources.issued_tokens,
            resources.stores,
            lambda: resources.others,
            resources.clock,
            resources.events.emit,
            lambda: reloader.current().config.tokens,
        ),
        usage=GatewayUsage(resources.stores),
        events=resources.event_feed,
        webhooks=resources.webhooks,
        settle_events=resources.teller.settle,
        limits=GatewayLimits(
            resources.quotas.store,
            lambda: reloader.current().plane.rules,
            lambda: resources.quotas.not_kept_because,
        ),
        settings=lambda: current_settings(reloader.current(), resources.environment, started),
    )
