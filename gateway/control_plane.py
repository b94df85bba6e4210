"""Fills what the management API needs of the rest of the program."""

from collections.abc import Callable

from gateway.issued_tokens import IssuedTokenService
from gateway.reload import Reloader
from gateway.resources import Resources
from gateway.revision_history import KeptRevisions
from gateway.routing_service import GatewayRouting
from gateway.sealer import MasterKeySealer
from gateway.settings import Started, current_settings
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
        settings=lambda: current_settings(reloader.current(), resources.environment, started),
    )
